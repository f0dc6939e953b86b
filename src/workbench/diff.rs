//! Two sets of policies side by side: what their text says otherwise, and calls that they judge otherwise, found among
//! tests, recorded calls, and calls made up at the borders of both.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::call::method::Role;
use crate::call::{Judgement, Operation};
use crate::gates::authz::Inspection;
use crate::policy::input::{InputType, Record};
use crate::policy::{Border, Literal, Policy, borders};

use super::case::{AgentGiven, Given};
use super::history::Recorded;
use super::suite::Suite;
use super::vary::{all_borders, allowance, candidates, member, varied};
use super::{Bench, Case, testing};

/// How one policy's text differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Only the new set has it.
    Added(String),
    /// Only the old set has it.
    Removed(String),
    /// Both have it; what is otherwise, in words.
    Changed(Vec<String>),
}

/// Where a call that was asked about came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A recorded call.
    Call(String),
    /// A test, by name.
    Test(String),
    /// Made up: one or two members moved.
    Made(Vec<String>),
}

/// Calls that are judged otherwise in the same way.
#[derive(Debug, Clone)]
pub struct Kind {
    /// The operations, each with how many calls.
    pub operations: BTreeMap<String, usize>,
    /// What the old set says.
    pub old: Judgement,
    /// What the new set says.
    pub new: Judgement,
    /// The policies that make the difference.
    pub by: Vec<String>,
    /// The plainest of them.
    pub example: (Origin, Arc<Case>),
}

impl Kind {
    /// Whether it becomes easier.
    #[must_use]
    pub fn loosens(&self) -> bool {
        self.new < self.old
    }

    /// How many of those that were asked about.
    #[must_use]
    pub fn count(&self) -> usize {
        self.operations.values().sum()
    }
}

/// How many calls were asked about, by where they came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// Of tests.
    pub tests: usize,
    /// Of records.
    pub calls: usize,
    /// Made up.
    pub made: usize,
}

/// Everything that differs.
#[derive(Debug)]
pub struct Diff {
    /// By policy.
    pub edits: Vec<(String, Edit)>,
    /// What is judged otherwise; what becomes easier first.
    pub kinds: Vec<Kind>,
    /// What was asked about.
    pub asked: Asked,
}

/// Recorded calls that are asked about at most.
const MANY: usize = 20_000;
/// Calls of one operation from which others are made up.
const BASES: usize = 8;

/// Compares two sets.
#[must_use]
pub fn diff(old: &Bench, new: &Bench, suites: &[Suite], calls: &[Recorded]) -> Diff {
    let mut search = Search { old, new, kinds: BTreeMap::new(), asked: Asked::default() };
    let mut bases: BTreeMap<String, Vec<Arc<Case>>> = BTreeMap::new();
    let mut base = |case: &Arc<Case>| {
        let known = bases.entry(case.operation.name.clone()).or_default();
        if known.len() < BASES && known.iter().all(|k| k.arguments != case.arguments) {
            known.push(Arc::clone(case));
        }
    };
    for (suite, item) in suites.iter().flat_map(|s| s.items.iter().map(move |i| (s, i))) {
        let Some(case) = testing::case_of(new, suite, item).map(Arc::new) else { continue };
        search.asked.tests += 1;
        base(&case);
        search.ask(&case, || Origin::Test(item.test.name.clone()));
    }
    for call in calls.iter().rev().take(MANY) {
        let (Ok(case), Ok(_)) = (Case::recorded(call, &new.policies), Case::recorded(call, &old.policies)) else {
            continue;
        };
        let case = Arc::new(case);
        search.asked.calls += 1;
        base(&case);
        search.ask(&case, || Origin::Call(call.id.to_string()));
    }
    let operations = new.policies.loaded().model().operations.iter();
    // What only carries a protocol needs no permit.
    for operation in operations.filter(|o| o.role != Role::Handshake) {
        let mut own = bases.remove(&operation.name).unwrap_or_default();
        own.extend(made_up(new, operation));
        search.around(operation, &own);
    }
    let mut kinds: Vec<Kind> = search.kinds.into_values().collect();
    kinds.sort_by_key(|k| (!k.loosens(), k.by.clone(), k.old, k.new));
    Diff { edits: edits(old, new), kinds, asked: search.asked }
}

type Key = (Judgement, Judgement, Vec<String>);

struct Search<'a> {
    old: &'a Bench,
    new: &'a Bench,
    kinds: BTreeMap<Key, Kind>,
    asked: Asked,
}

impl Search<'_> {
    fn ask(&mut self, case: &Arc<Case>, origin: impl FnOnce() -> Origin) {
        let ask = |bench: &Bench| bench.policies.inspect(&case.question());
        let (Ok(old), Ok(new)) = (ask(self.old), ask(self.new)) else { return };
        if old.judgement == new.judgement {
            return;
        }
        let by = difference(&old, &new);
        let key = (old.judgement, new.judgement, by.clone());
        let origin = origin();
        let kind = self.kinds.entry(key).or_insert_with(|| Kind {
            operations: BTreeMap::new(),
            old: old.judgement,
            new: new.judgement,
            by,
            example: (origin.clone(), Arc::clone(case)),
        });
        *kind.operations.entry(case.operation.name.clone()).or_default() += 1;
        // What has happened convinces more than what was made up.
        if origin < kind.example.0 {
            kind.example = (origin, Arc::clone(case));
        }
    }

    /// Asks about calls beside these: each member at, below and above each value that either set compares it with, one
    /// at a time and two at a time; first where policies differ.
    fn around(&mut self, operation: &Operation, bases: &[Arc<Case>]) {
        let (old, new) = (self.old.policies.loaded().slice(operation), self.new.policies.loaded().slice(operation));
        let borders = all_borders(differing_first(&old, &new));
        let (bench, mut left) = (self.new, allowance(old.len() + new.len()));
        for base in bases {
            self.made(base, &[], &mut left);
            for (case, moves) in beside(bench, base, &borders, &[]) {
                self.made(&case, &moves, &mut left);
                if left == 0 {
                    return;
                }
            }
            for (case, moves) in beside(bench, base, &borders, &[]) {
                let moved = |b: &&Border| moves.iter().any(|m| m.split(' ').next() == Some(member(&b.path).as_str()));
                let others: Vec<Border> = borders.iter().filter(|b| !moved(b)).take(left).cloned().collect();
                for (case, moves) in beside(bench, &case, &others, &moves).take(left) {
                    self.made(&case, &moves, &mut left);
                }
                if left == 0 {
                    return;
                }
            }
        }
    }

    fn made(&mut self, case: &Arc<Case>, moves: &[String], left: &mut usize) {
        if *left == 0 {
            return;
        }
        *left -= 1;
        self.asked.made += 1;
        self.ask(case, || Origin::Made(moves.to_vec()));
    }
}

/// The policies of both sets, those before the others that the other set does not have so.
fn differing_first<'p>(old: &[&'p Arc<Policy>], new: &[&'p Arc<Policy>]) -> Vec<&'p Policy> {
    let texts = |all: &[&Arc<Policy>]| all.iter().map(|p| p.cedar.to_string()).collect::<HashSet<_>>();
    let (in_old, in_new) = (texts(old), texts(new));
    let all = old.iter().map(|p| (*p, &in_new)).chain(new.iter().map(|p| (*p, &in_old)));
    let (same, other): (Vec<_>, Vec<_>) = all.partition(|(p, there)| there.contains(&p.cedar.to_string()));
    other.into_iter().chain(same).map(|(p, _)| p.as_ref()).collect()
}

/// The calls beside a call that its schema takes, each with the moves that made it.
fn beside<'b>(
    bench: &'b Bench,
    base: &'b Arc<Case>,
    borders: &'b [Border],
    before: &'b [String],
) -> impl Iterator<Item = (Arc<Case>, Vec<String>)> + use<'b> {
    let tries = borders.iter().flat_map(|b| candidates(b, base).into_iter().map(move |(value, _)| (b, value)));
    tries.filter_map(|(border, value)| {
        let case = varied(base, &border.path, value.as_ref())?;
        bench.schemas.recheck(&case.operation, &case.arguments).ok()?;
        let shown = value.map_or_else(|| "left out".to_owned(), |v| v.to_string());
        let moves = before.iter().cloned().chain([format!("{} {shown}", member(&border.path))]);
        Some((Arc::new(case), moves.collect()))
    })
}

/// The policies that decide only here or only there: the forbids of the stricter side, where there are any.
fn difference(old: &Inspection, new: &Inspection) -> Vec<String> {
    let only = |a: &Inspection, b: &Inspection| {
        a.because.iter().filter(|id| !b.because.contains(id)).cloned().collect::<Vec<_>>()
    };
    let (strict, other) = if new.judgement > old.judgement { (new, old) } else { (old, new) };
    let by = only(strict, other);
    if by.is_empty() { only(other, strict) } else { by }
}

/// Calls of an operation by an agent of each group, and by one of none, with arguments made from its types.
fn made_up(bench: &Bench, operation: &Arc<Operation>) -> Vec<Arc<Case>> {
    let model = bench.policies.loaded().model();
    let record = bench.policies.loaded().inputs().get(&operation.name);
    let arguments = Value::Object(record.map(|r| object(r, operation.schema.as_deref())).unwrap_or_default());
    if bench.schemas.recheck(operation, &arguments).is_err() {
        return Vec::new();
    }
    let groups = model.agent_groups.iter().cloned().map(Some).chain([None]);
    let case = |group: Option<String>| {
        let agent = Some(AgentGiven { group, ..AgentGiven::default() });
        Given { agent, ..Given::default() }.case(operation, arguments.clone(), model).ok().map(Arc::new)
    };
    groups.filter_map(case).collect()
}

fn object(record: &Record, schema: Option<&Value>) -> Map<String, Value> {
    let of = |name: &str| schema.and_then(|s| s.get("properties")?.get(name));
    record.iter().map(|(name, member)| (name.clone(), value(&member.ty, of(name)))).collect()
}

fn value(ty: &InputType, schema: Option<&Value>) -> Value {
    let hint = |key: &str| schema.and_then(|s| s.get(key));
    let given = hint("const").or_else(|| hint("default")).or_else(|| hint("examples").or_else(|| hint("enum"))?.get(0));
    if let Some(given) = given {
        return given.clone();
    }
    match ty {
        InputType::String => "x".into(),
        InputType::Long => hint("minimum").cloned().unwrap_or_else(|| 1.into()),
        InputType::Decimal => hint("minimum").cloned().unwrap_or_else(|| 1.0.into()),
        InputType::Bool => false.into(),
        InputType::Record(inner) => Value::Object(object(inner, schema)),
        InputType::Set(of) => Value::Array(vec![value(of, hint("items"))]),
    }
}

/// How the texts of the sets differ, policy by policy, in the order of the new set.
fn edits(old: &Bench, new: &Bench) -> Vec<(String, Edit)> {
    let own = |bench: &Bench| -> Vec<Arc<Policy>> {
        bench.policies.loaded().policies().iter().filter(|p| !p.built_in).cloned().collect()
    };
    let (old, new) = (own(old), own(new));
    let named = |all: &[Arc<Policy>]| -> HashMap<String, Arc<Policy>> {
        all.iter().map(|p| (p.id.clone(), Arc::clone(p))).collect()
    };
    let (in_old, in_new) = (named(&old), named(&new));
    let mut all = Vec::new();
    for policy in &new {
        match in_old.get(&policy.id) {
            None => all.push((policy.id.clone(), Edit::Added(described(policy)))),
            Some(before) => {
                let changes = changes(before, policy);
                if !changes.is_empty() {
                    all.push((policy.id.clone(), Edit::Changed(changes)));
                }
            }
        }
    }
    let gone = old.iter().filter(|p| !in_new.contains_key(&p.id));
    all.extend(gone.map(|p| (p.id.clone(), Edit::Removed(described(p)))));
    all
}

fn described(policy: &Policy) -> String {
    let effect = if policy.is_forbid() { "forbid" } else { "permit" };
    let lift = match (policy.is_forbid(), policy.lift) {
        (false, _) => "",
        (true, crate::policy::Lift::Never) => ", nobody can release it",
        (true, crate::policy::Lift::Granted) => ", one approval lifts it",
        (true, crate::policy::Lift::Dual) => ", two people lift it",
    };
    let shadow = if policy.shadow { ", in shadow" } else { "" };
    format!("{effect}{lift}{shadow}")
}

fn changes(old: &Policy, new: &Policy) -> Vec<String> {
    let mut all = Vec::new();
    let (before, after) = (old.written(), new.written());
    for key in before.keys().chain(after.keys().filter(|k| !before.contains_key(*k))) {
        match (before.get(key), after.get(key)) {
            (Some(a), Some(b)) if a != b => all.push(format!("@{key} {a} → {b}")),
            (Some(_), None) => all.push(format!("@{key} removed")),
            (None, Some(b)) => all.push(format!("@{key} {b} added")),
            _ => {}
        }
    }
    if described(old) != described(new) {
        all.push(format!("{} → {}", described(old), described(new)));
    }
    if old.scope_text() != new.scope_text() {
        all.push("its scope".to_owned());
    }
    if old.body_text() != new.body_text() {
        all.push(moved_border(old, new).unwrap_or_else(|| "its conditions".to_owned()));
    }
    all
}

/// One fixed value that moved, when nothing else did.
fn moved_border(old: &Policy, new: &Policy) -> Option<String> {
    let long = |b: &Border| match &b.at {
        Literal::Long(n) => Some(n.to_string()),
        Literal::Decimal(d) => Some(d.clone()),
        Literal::Text(s) => Some(format!("{s:?}")),
        Literal::Bool(_) => None,
    };
    let (before, after) = (borders(old), borders(new));
    let moved: Vec<_> = before.iter().zip(&after).filter(|(a, b)| a != b).collect();
    match moved.as_slice() {
        [(a, b)] if a.path == b.path && before.len() == after.len() => {
            Some(format!("{} {} → {}", member(&a.path), long(a)?, long(b)?))
        }
        _ => None,
    }
}
