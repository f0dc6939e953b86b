//! Trust by agent, workflow and operation, kept from the frames alone, so that a replay gives the same.

use hashbrown::HashMap;
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

/// All that is known.
#[derive(Debug, Default)]
pub(super) struct Trusts {
    all: HashMap<Whose, Kept>,
    /// Workflow and kind of surprises that nobody has counted yet.
    fresh: Vec<(String, Surprise)>,
}

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
    let forbidden = note.kind == "call.refused" && note.code.as_deref() == Some("forbidden");
    let (org, agent) = note.agent.as_ref().filter(|_| forbidden)?;
    let workflow = note.more.get("asked")?.pointer("/context/workflow")?.as_str()?;
    Some((org.clone(), agent.clone(), workflow.to_owned(), note.operation.clone()?))
}

/// What a step of a call is to those who approved calls like it, where it is a surprise that does not end them already.
pub(super) fn ends_grants(step: Step, record: &CallRecord) -> Option<GrantOver> {
    (step == Step::Approved && record.edited.is_some()).then_some(GrantOver::Edited)
}

impl Trusts {
    fn of(&mut self, whose: Whose, group: Option<&String>) -> &mut Score {
        let kept = self.all.entry(whose).or_default();
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
            (Step::Approved, _) if record.edited.is_some() => {
                self.spent(of_record(record), group, (Surprise::Edited, Some(record.id), at));
            }
            (Step::Approved, _) => self.of_call(record).earn(Earned::Approved, at),
            (Step::Rejected, _) if record.note.as_ref().is_some_and(|n| Surprise::is_wrong(&n.code)) => {
                self.spent(of_record(record), group, (Surprise::Rejected, Some(record.id), at));
            }
            (Step::Concluded | Step::Reconciled | Step::Found, State::Succeeded) => match undone {
                Some(undone) => {
                    self.of_call(undone).complained(undone.updated);
                    let surprise = (Surprise::Undone, Some(undone.id), at);
                    self.spent(of_record(undone), undone.principal.groups.first(), surprise);
                }
                // What takes another one back is a person's.
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
                    self.of(whose.clone(), group).complained(sample.at);
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

    pub(super) fn image(&mut self, now: Timestamp) -> TrustsImage {
        self.all.retain(|_, kept| !kept.score.is_new(now));
        let mut all: Vec<_> = self.all.iter().map(|(whose, kept)| (whose.clone(), kept.clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        TrustsImage(all)
    }

    pub(super) fn restore(image: &TrustsImage) -> Self {
        Self { all: image.0.iter().cloned().collect(), fresh: Vec::new() }
    }
}

impl Store {
    /// Trust in what this agent does with this operation in this workflow.
    ///
    /// # Errors
    /// When a step panicked.
    pub fn trust(&self, principal: &Principal, workflow: &str, operation: &str) -> Result<Trust, Fault> {
        let (core, now) = self.inner.lock()?;
        let kept = core.trusts.all.get(&whose(principal, workflow, operation));
        Ok(kept.map(|kept| kept.score.told(now).0).unwrap_or_default())
    }

    /// All of which more is known than nothing, the least trusted first.
    ///
    /// # Errors
    /// When a step panicked.
    pub fn trusts(&self) -> Result<Vec<Trusted>, Fault> {
        let (core, now) = self.inner.lock()?;
        let one = |((org, agent, workflow, operation), kept): (&Whose, &Kept)| {
            let (trust, surprises) = kept.score.told(now);
            let [org, agent, workflow, operation] = [org, agent, workflow, operation].map(Clone::clone);
            Trusted { org, agent, group: kept.group.clone(), workflow, operation, trust, surprises }
        };
        let mut all: Vec<Trusted> = core.trusts.all.iter().map(one).collect();
        drop(core);
        let key = |t: &Trusted| (t.trust.score, t.agent.clone(), t.workflow.clone(), t.operation.clone());
        all.sort_by_key(key);
        Ok(all)
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
