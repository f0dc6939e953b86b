//! Trust by agent, workflow and operation, kept from the frames alone, so that a replay gives the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::call::{Fault, GrantOver, Principal, Timestamp, Trust, Verdict};
use crate::store::trust::{Earned, Score, Surprise, Surprised};
use crate::store::{AuditNote, CallRecord, Sample, State, Step};

use super::Store;

/// Organisation, agent, workflow, operation.
pub(super) type Whose = (String, String, String, String);

/// Trust as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// The organisation.
    pub org: String,
    /// The agent.
    pub agent: String,
    /// The first of its groups.
    pub group: Option<String>,
    /// The workflow.
    pub workflow: String,
    /// The operation.
    pub operation: String,
    /// How it stands.
    pub trust: Trust,
    /// Surprises of seven days, the newest first.
    pub surprises: Vec<Surprised>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    score: Score,
}

/// All that is known, by organisation, agent, operation and workflow: nothing is copied to find what is there.
#[derive(Debug, Default)]
pub(super) struct Trusts {
    all: Nested<Nested<Nested<Nested<Kept>>>>,
    /// Workflow and kind of surprises that nobody has counted yet.
    fresh: Vec<(String, Surprise)>,
}

type Nested<T> = BTreeMap<String, T>;

/// The same as a snapshot keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TrustsImage(Vec<(Whose, Kept)>);

fn whose(principal: &Principal, workflow: &str, operation: &str) -> Whose {
    (principal.org.clone(), principal.agent.clone(), workflow.to_owned(), operation.to_owned())
}

fn of_record(record: &CallRecord) -> Whose {
    whose(&record.principal, &record.context.workflow, &record.operation)
}

/// A call that nobody can release: whose it was.
pub(super) fn near_miss(note: &AuditNote) -> Option<Whose> {
    // What takes another call back is a person's wish.
    let forbidden =
        note.kind == "call.refused" && note.code.as_deref() == Some("forbidden") && !note.more.contains_key("undoes");
    let (org, agent) = note.agent.as_ref().filter(|_| forbidden)?;
    let workflow = note.more.get("asked")?.pointer("/context/workflow")?.as_str()?;
    Some((org.clone(), agent.clone(), workflow.to_owned(), note.operation.clone()?))
}

/// What a step of a call is to those who approved calls like it, where it is a surprise that does not end them already.
pub(super) fn ends_grants(step: Step, record: &CallRecord) -> Option<GrantOver> {
    (step == Step::Approved && record.edited.is_some() && record.undoes.is_none()).then_some(GrantOver::Edited)
}

impl Trusts {
    fn of(&mut self, whose: Whose, group: Option<&String>) -> &mut Score {
        let (org, agent, workflow, operation) = whose;
        let of_agent = self.all.entry(org).or_default().entry(agent).or_default();
        let kept = of_agent.entry(operation).or_default().entry(workflow).or_default();
        if kept.group.as_ref() != group && group.is_some() {
            kept.group = group.cloned();
        }
        &mut kept.score
    }

    fn of_call(&mut self, record: &CallRecord) -> &mut Score {
        self.of(of_record(record), record.principal.groups.first())
    }

    fn spent(
        &mut self,
        whose: Whose,
        group: Option<&String>,
        (kind, call, at): (Surprise, Option<crate::call::CallId>, Timestamp),
    ) {
        let workflow = whose.2.clone();
        if self.of(whose, group).spend(kind, call, at) {
            self.fresh.push((workflow, kind));
        }
    }

    /// Takes in a step of a call; `undone` is the call that it takes back.
    pub(super) fn step(&mut self, step: Step, record: &CallRecord, undone: Option<&CallRecord>, at: Timestamp) {
        let group = record.principal.groups.first();
        match (step, record.state) {
            // What takes another one back is a person's: what becomes of it says nothing of the agent.
            (Step::Begun | Step::Rejected, _) if record.undoes.is_some() => {}
            // Once, when it is sent: votes can be void and given anew.
            (Step::Begun, _) if record.approvals.is_empty() => {}
            (Step::Begun, _) if record.edited.is_some() => {
                self.spent(of_record(record), group, (Surprise::Edited, Some(record.id), at));
            }
            (Step::Begun, _) => self.of_call(record).earn(Earned::Approved, at),
            (Step::Rejected, _) if record.note.as_ref().is_some_and(|n| Surprise::is_wrong(&n.code)) => {
                self.spent(of_record(record), group, (Surprise::Rejected, Some(record.id), at));
            }
            (Step::Concluded | Step::Reconciled | Step::Found, State::Succeeded) => match undone {
                Some(undone) => {
                    self.of_call(undone).complained(undone.updated, at);
                    let surprise = (Surprise::Undone, Some(undone.id), at);
                    self.spent(of_record(undone), undone.principal.groups.first(), surprise);
                }
                None if record.undoes.is_none() => self.of_call(record).executed(at),
                None => {}
            },
            _ => {}
        }
    }

    /// Takes in what was said of a sampled call.
    pub(super) fn sample(&mut self, sample: &Sample) {
        let Some(judged) = &sample.judged else { return };
        let whose = whose(&sample.principal, &sample.workflow, &sample.operation);
        let group = sample.principal.groups.first();
        match judged.verdict {
            Verdict::Good => self.of(whose, group).earn(Earned::JudgedGood, judged.at),
            Verdict::Bad => {
                if sample.recorded {
                    self.of(whose.clone(), group).complained(sample.at, judged.at);
                }
                self.spent(whose, group, (Surprise::JudgedBad, Some(sample.id), judged.at));
            }
            Verdict::Unsure => {}
        }
    }

    /// Takes in a refusal.
    pub(super) fn note(&mut self, note: &AuditNote, at: Timestamp) {
        if let Some(whose) = near_miss(note) {
            let group = note.more.get("asked").and_then(|a| a.pointer("/principal/groups/0")?.as_str());
            self.spent(whose, group.map(str::to_owned).as_ref(), (Surprise::NearMiss, note.call, at));
        }
    }

    /// What a replay found was counted by the process that saw it.
    pub(super) fn counted(&mut self) -> Vec<(String, Surprise)> {
        std::mem::take(&mut self.fresh)
    }

    fn each(&self) -> impl Iterator<Item = ([&String; 4], &Kept)> {
        let agents = self.all.iter().flat_map(|(org, agents)| agents.iter().map(move |(agent, of)| (org, agent, of)));
        let operations = agents.flat_map(|(org, agent, of)| of.iter().map(move |(op, of)| (org, agent, op, of)));
        operations.flat_map(|(org, agent, op, of)| of.iter().map(move |(wf, kept)| ([org, agent, wf, op], kept)))
    }

    /// Whether anything is known of this agent.
    pub(super) fn knows(&self, agent: &str) -> bool {
        self.all.values().any(|agents| agents.contains_key(agent))
    }

    /// How far an agent is trusted with an operation: as in the workflow in which it is trusted least, since it names the
    /// workflow itself.
    fn standing(&self, principal: &Principal, operation: &str, now: Timestamp) -> Trust {
        let of = self.all.get(&principal.org).and_then(|agents| agents.get(&principal.agent)?.get(operation));
        let mut least: Option<Trust> = None;
        for one in of.into_iter().flat_map(BTreeMap::values).map(|kept| kept.score.standing(now)) {
            let before = least.unwrap_or(one);
            let surprises_7d = one.surprises_7d.max(before.surprises_7d);
            least = Some(Trust { score: one.score.min(before.score), surprises_7d });
        }
        least.unwrap_or_default()
    }

    pub(super) fn image(&self, now: Timestamp) -> TrustsImage {
        let known = self.each().filter(|(_, kept)| !kept.score.is_nothing(now));
        let one = |([org, agent, workflow, operation], kept): ([&String; 4], &Kept)| {
            ((org.clone(), agent.clone(), workflow.clone(), operation.clone()), kept.clone())
        };
        let mut all: Vec<_> = known.map(one).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        TrustsImage(all)
    }

    /// Lets go of what says nothing any more.
    pub(super) fn prune(&mut self, now: Timestamp) {
        for of_agent in self.all.values_mut() {
            for of_operation in of_agent.values_mut() {
                of_operation.values_mut().for_each(|of| of.retain(|_, kept| !kept.score.is_nothing(now)));
                of_operation.retain(|_, of| !of.is_empty());
            }
            of_agent.retain(|_, of| !of.is_empty());
        }
        self.all.retain(|_, of| !of.is_empty());
    }

    pub(super) fn restore(image: &TrustsImage) -> Self {
        let mut trusts = Self::default();
        for ((org, agent, workflow, operation), kept) in image.0.iter().cloned() {
            let of_agent = trusts.all.entry(org).or_default().entry(agent).or_default();
            of_agent.entry(operation).or_default().insert(workflow, kept);
        }
        trusts
    }
}

impl Store {
    /// How far this agent is trusted with this operation, in whatever workflow it is trusted least: it names that itself.
    ///
    /// # Errors
    /// When a step panicked.
    pub fn trust(&self, principal: &Principal, operation: &str) -> Result<Trust, Fault> {
        let (core, now) = self.inner.lock()?;
        Ok(core.trusts.standing(principal, operation, now))
    }

    /// All of which more is known than nothing, the least trusted first.
    ///
    /// # Errors
    /// When a step panicked.
    pub fn trusts(&self) -> Result<Vec<Trusted>, Fault> {
        let (core, now) = self.inner.lock()?;
        let one = |([org, agent, workflow, operation], kept): ([&String; 4], &Kept)| Trusted {
            org: org.clone(),
            agent: agent.clone(),
            group: kept.group.clone(),
            workflow: workflow.clone(),
            operation: operation.clone(),
            trust: kept.score.standing(now),
            surprises: kept.score.surprises(now).copied().collect(),
        };
        let mut all: Vec<Trusted> =
            core.trusts.each().filter(|(_, kept)| !kept.score.is_nothing(now)).map(one).collect();
        drop(core);
        let key = |t: &Trusted| (t.trust.score, t.agent.clone(), t.workflow.clone(), t.operation.clone());
        all.sort_by_key(key);
        Ok(all)
    }

    /// The lowest trust of each group of agents in each workflow.
    ///
    /// # Errors
    /// When a step panicked.
    pub fn lowest_trust(&self) -> Result<BTreeMap<(Option<String>, String), i64>, Fault> {
        let (core, now) = self.inner.lock()?;
        let mut lowest = BTreeMap::new();
        for ([_, _, workflow, _], kept) in core.trusts.each().filter(|(_, kept)| !kept.score.is_nothing(now)) {
            let score = kept.score.standing(now).score;
            let least = lowest.entry((kept.group.clone(), workflow.clone())).or_insert(score);
            *least = score.min(*least);
        }
        Ok(lowest)
    }

    /// Surprises since this was asked last, by workflow: each once, for whoever counts them.
    ///
    /// # Errors
    /// When a step panicked.
    pub fn take_surprises(&self) -> Result<Vec<(String, Surprise)>, Fault> {
        let (mut core, _) = self.inner.lock()?;
        Ok(core.trusts.counted())
    }
}
