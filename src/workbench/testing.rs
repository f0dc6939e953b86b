//! Running test files against a set of policies: what failed and why, and what no test has touched.

use std::collections::{BTreeMap, BTreeSet};

use crate::call::{Judgement, Tier};
use crate::gates::authz::{AdminQuestion, AdminResource, HoldFacts, Inspection, Match, Question};
use crate::policy::{Lift, Plane, Policy};

use super::suite::{Expect, Item, Review, Suite};
use super::{Bench, Case};

/// One thing that came out otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which key of `expect`, or `input`, `call`, `facts`.
    pub what: &'static str,
    /// What the test says.
    pub wanted: String,
    /// What policy says.
    pub got: String,
    /// What would help: why a policy did or did not match.
    pub hints: Vec<String>,
}

/// How one test, or one row, ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its name.
    pub name: String,
    /// Its row, when it comes of a table.
    pub row: Option<(usize, String)>,
    /// Its line in the file.
    pub line: u64,
    /// What came out otherwise; empty when it passed.
    pub problems: Vec<Problem>,
}

/// At which rungs tests made a policy decide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Tests of whose answer it was part.
    pub decided: usize,
    /// Tests in which it forbade with nothing approved, with one approval, with two.
    pub rungs: [usize; 3],
    /// Tests of operations that it covers, in which it did not apply.
    pub silent: usize,
}

/// Tests run against a set.
#[derive(Debug, Default)]
pub struct Run {
    seen: BTreeMap<String, Coverage>,
}

impl Run {
    /// Runs one file.
    pub fn suite(&mut self, bench: &Bench, suite: &Suite) -> Vec<Ended> {
        suite.items.iter().map(|item| self.item(bench, suite, item)).collect()
    }

    fn item(&mut self, bench: &Bench, suite: &Suite, item: &Item) -> Ended {
        let test = &item.test;
        let problems = match (&test.call, &test.review) {
            (Some(call), _) => self.call(bench, suite, item, call),
            (None, Some(review)) => self.review(bench, suite, item, review),
            (None, None) => Vec::new(),
        };
        Ended { name: test.name.clone(), row: item.row.clone(), line: item.line, problems }
    }

    fn call(&mut self, bench: &Bench, suite: &Suite, item: &Item, call: &str) -> Vec<Problem> {
        let case = match case(bench, suite, item, call) {
            Ok(case) => case,
            Err(problem) => return vec![*problem],
        };
        let question = case.question();
        match bench.policies.inspect(&question) {
            Ok(seen) => {
                self.count(bench, &question, &seen);
                compared(bench, &question, &seen, &item.test.expect)
            }
            Err(refusal) => vec![problem("input", "arguments that policy can judge", refusal.public_text())],
        }
    }

    fn count(&mut self, bench: &Bench, question: &Question<'_>, seen: &Inspection) {
        for id in &seen.because {
            self.seen.entry(id.clone()).or_default().decided += 1;
        }
        for rung in &seen.rungs {
            let at = match rung.tier {
                Tier::Low => 0,
                Tier::Medium => 1,
                Tier::High => 2,
            };
            let forbids = if rung.allowed { &[] } else { rung.policies.as_slice() };
            for id in forbids {
                if let Some(count) = self.seen.entry(id.clone()).or_default().rungs.get_mut(at) {
                    *count += 1;
                }
            }
        }
        for policy in bench.policies.loaded().slice(question.operation) {
            if !seen.rungs.iter().any(|r| r.policies.contains(&policy.id)) {
                self.seen.entry(policy.id.clone()).or_default().silent += 1;
            }
        }
    }

    fn review(&mut self, bench: &Bench, suite: &Suite, item: &Item, review: &Review) -> Vec<Problem> {
        let now = match item.test.given().or(&suite.defaults).now() {
            Ok(now) => now,
            Err(e) => return vec![problem("facts", "facts that can be", &e)],
        };
        let model = bench.policies.loaded().model();
        let groups: Vec<String> = review.group.iter().chain(&review.groups).cloned().collect();
        let tool = review.tool.clone().or_else(|| model.all_tools().keys().next().map(|t| (*t).to_owned()));
        let tier = match review.tier {
            None | Some(Judgement::Medium) => Tier::Medium,
            Some(Judgement::High) => Tier::High,
            Some(other) => return vec![problem("review.tier", "medium or high", other.as_str())],
        };
        let (tool, workflow) =
            (tool.unwrap_or_default(), review.workflow.clone().unwrap_or_else(|| model.default_workflow.clone()));
        let approvers = review.approvers.as_ref().unwrap_or(&groups);
        let hold = HoldFacts {
            id: "hold_test".to_owned(),
            tool: &tool,
            tier,
            workflow: &workflow,
            requested_by: review.requested_by.as_deref(),
            approvers: approvers.iter().map(String::as_str).collect(),
            amount_minor: review.amount_minor,
        };
        let answer = bench.policies.admin(&AdminQuestion {
            user: &review.user,
            groups: &groups,
            email: None,
            action: &review.action,
            resource: if review.system { AdminResource::System } else { AdminResource::Hold(hold) },
            mfa: review.mfa,
            channel: review.channel.as_deref().unwrap_or("page"),
            now,
        });
        let because: BTreeSet<String> = answer.because.iter().map(|n| n.id.clone()).collect();
        for id in &because {
            self.seen.entry(id.clone()).or_default().decided += 1;
        }
        let expect = &item.test.expect;
        let mut problems = Vec::new();
        differs(&mut problems, "allow", expect.allow.as_ref(), &answer.allowed, ToString::to_string);
        differs(&mut problems, "because", expect.because.as_ref(), &because, listed);
        problems
    }

    /// What tests did with each policy of the set, in the order of the set.
    #[must_use]
    pub fn coverage<'a>(&self, bench: &'a Bench) -> Vec<(&'a Policy, Coverage)> {
        let all = bench.policies.loaded().policies().iter();
        let own = all.filter(|p| !p.built_in);
        own.map(|p| (&**p, self.seen.get(&p.id).copied().unwrap_or_default())).collect()
    }

    /// The policies that were part of no test's answer.
    #[must_use]
    pub fn never_tested<'a>(&self, bench: &'a Bench) -> Vec<&'a str> {
        self.coverage(bench).into_iter().filter(|(_, c)| c.decided == 0).map(|(p, _)| p.id.as_str()).collect()
    }
}

impl Coverage {
    /// What tests have not shown of a policy that they have touched: a forbid that never stayed silent may forbid
    /// everything.
    #[must_use]
    pub fn gap(self, policy: &Policy) -> Option<&'static str> {
        let conditional = policy.cedar.has_non_scope_constraint();
        match (policy.plane, policy.is_forbid(), policy.lift) {
            (Plane::Agent, true, Lift::Granted | Lift::Dual) if self.decided > 0 && self.silent == 0 && conditional => {
                Some("no test shows a call that it lets pass")
            }
            _ => None,
        }
    }
}

/// The call of a test, when it can be asked about.
pub(super) fn case_of(bench: &Bench, suite: &Suite, item: &Item) -> Option<Case> {
    case(bench, suite, item, item.test.call.as_deref()?).ok()
}

fn case(bench: &Bench, suite: &Suite, item: &Item, call: &str) -> Result<Case, Box<Problem>> {
    let model = bench.policies.loaded().model();
    let operation = model.operations.iter().find(|o| o.name == call).ok_or_else(|| {
        let near = crate::policy::nearest(call, model.operations.iter().map(|o| o.name.as_str()));
        let mut problem = problem("call", "an operation of the configuration", call);
        problem.hints.extend(near.map(|n| format!("did you mean `{n}`?")));
        problem
    })?;
    let arguments = item.test.input.clone().unwrap_or_else(|| serde_json::json!({}));
    bench.schemas.recheck(operation, &arguments).map_err(|refusal| {
        let wrong = refusal.errors().iter().map(|e| format!("{} {}", e.pointer, e.message).trim().to_owned()).collect();
        Problem { hints: wrong, ..problem("input", "arguments inside the operation's schema", refusal.public_text()) }
    })?;
    let given = item.test.given().or(&suite.defaults);
    given.case(operation, arguments, model).map_err(|e| Box::new(problem("facts", "facts that can be", &e)))
}

fn problem(what: &'static str, wanted: &str, got: &str) -> Problem {
    Problem { what, wanted: wanted.to_owned(), got: got.to_owned(), hints: Vec::new() }
}

fn listed(all: &BTreeSet<String>) -> String {
    if all.is_empty() { "nothing".to_owned() } else { all.iter().cloned().collect::<Vec<_>>().join(", ") }
}

fn differs<T: PartialEq>(
    problems: &mut Vec<Problem>,
    what: &'static str,
    wanted: Option<&T>,
    got: &T,
    shown: impl Fn(&T) -> String,
) {
    if let Some(wanted) = wanted.filter(|w| *w != got) {
        problems.push(problem(what, &shown(wanted), &shown(got)));
    }
}

fn compared(bench: &Bench, question: &Question<'_>, seen: &Inspection, expect: &Expect) -> Vec<Problem> {
    let mut problems = Vec::new();
    differs(&mut problems, "tier", expect.tier.as_ref(), &seen.judgement, |j| j.as_str().to_owned());
    let because: BTreeSet<String> = seen.because.iter().cloned().collect();
    differs(&mut problems, "because", expect.because.as_ref(), &because, listed);
    let needs = seen.terms.as_ref().map(|t| &t.needs);
    let groups: BTreeSet<String> =
        needs.iter().flat_map(|n| &n.requirements).flat_map(|r| r.groups.iter().cloned()).collect();
    differs(&mut problems, "approvers", expect.approvers.as_ref(), &groups, listed);
    let evidence: BTreeSet<String> = needs.iter().flat_map(|n| n.evidence.iter().cloned()).collect();
    differs(&mut problems, "evidence", expect.evidence.as_ref(), &evidence, listed);
    let people = needs.map_or(0, |n| n.people);
    differs(&mut problems, "people", expect.people.as_ref(), &people, ToString::to_string);
    let justification = needs.is_some_and(|n| n.justification);
    differs(&mut problems, "justification", expect.justification.as_ref(), &justification, ToString::to_string);
    let degrade = seen.degrade.clone().unwrap_or_default();
    differs(&mut problems, "degrade", expect.degrade.as_ref(), &degrade, Clone::clone);
    if let Some(first) = problems.iter_mut().find(|p| ["tier", "because"].contains(&p.what)) {
        first.hints = hints(bench, question, &because, expect.because.as_ref());
    }
    problems
}

/// Why each policy that should have decided did not, and why each that should not did.
fn hints(
    bench: &Bench,
    question: &Question<'_>,
    because: &BTreeSet<String>,
    wanted: Option<&BTreeSet<String>>,
) -> Vec<String> {
    let Ok(all) = bench.policies.matches(question) else { return Vec::new() };
    let told = |m: &crate::gates::authz::Matched<'_>| {
        let id = &m.policy.id;
        let expected = wanted.is_some_and(|w| w.contains(id));
        match &m.how {
            Match::No(why) if expected && !because.contains(id) => {
                Some(vec![format!("{id} did not match: {}", why.join(", ")), m.policy.at.clone()])
            }
            Match::Yes(why) if because.contains(id) && wanted.is_some() && !expected => {
                Some(vec![format!("{id} matched: {}", or_always(why)), m.policy.at.clone()])
            }
            Match::Broken(why) => Some(vec![format!("{id} could not be evaluated: {why}"), m.policy.at.clone()]),
            _ => None,
        }
    };
    let unknown = wanted.into_iter().flatten().filter(|id| all.iter().all(|m| m.policy.id != **id));
    let unknown = unknown.map(|id| format!("no policy `{id}` covers {}", question.operation.name));
    all.iter().filter_map(told).flatten().chain(unknown).collect()
}

fn or_always(why: &[String]) -> String {
    if why.is_empty() { "always".to_owned() } else { why.join(", ") }
}
