//! What people said of calls like one that waits, in the last 30 days: counted from the steps alone, so that a replay
//! counts the same.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::call::{CallId, Fault, PrincipalKey, Timestamp};
use crate::store::{CallRecord, Step};

use super::Store;

const DAY: i64 = 86_400_000;
/// So many days are looked back.
const DAYS: i64 = 30;
/// So many waits are kept for each kind of call.
const WAITS: usize = 200;
/// So many kinds of calls are counted; the one that was decided longest ago goes first.
const KINDS: usize = 10_000;

/// What makes calls alike: caller with the person acted for, operation, workflow.
type Kind = (PrincipalKey, String, String);

/// What people said of calls like one, in the last 30 days.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alike {
    /// Approved as their agent had asked for them.
    pub approved: u64,
    /// Approved once they were changed.
    pub edited: u64,
    /// Rejected.
    pub rejected: u64,
    /// How long they waited for the last word, in seconds: the median of the newest 200.
    pub median_s: Option<u64>,
    /// The largest amount that was approved, in minor units of the asking call's currency.
    pub largest: Option<i64>,
    /// The one that was rejected last.
    pub last_rejected: Option<CallId>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Day {
    day: i64,
    approved: u64,
    edited: u64,
    rejected: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    largest: BTreeMap<String, i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Decided {
    days: VecDeque<Day>,
    /// Day and seconds, newest last.
    waits: VecDeque<(i64, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rejected: Option<(i64, CallId)>,
}

impl Decided {
    fn today(&mut self, day: i64) -> Option<&mut Day> {
        if self.days.back().is_none_or(|last| last.day < day) {
            self.days.push_back(Day { day, ..Day::default() });
        }
        self.prune(day);
        self.days.back_mut()
    }

    fn prune(&mut self, today: i64) {
        let first = today - DAYS + 1;
        self.days.retain(|d| d.day >= first);
        self.waits.retain(|(day, _)| *day >= first);
        self.rejected = self.rejected.filter(|(day, _)| *day >= first);
    }

    fn told(&self, today: i64, currency: Option<&str>) -> Alike {
        let mut recent = self.clone();
        recent.prune(today);
        let sum = |of: fn(&Day) -> u64| recent.days.iter().map(of).sum();
        let mut waits: Vec<u64> = recent.waits.iter().map(|(_, seconds)| *seconds).collect();
        waits.sort_unstable();
        let largest = currency.and_then(|c| recent.days.iter().filter_map(|d| d.largest.get(c)).max());
        Alike {
            approved: sum(|d| d.approved),
            edited: sum(|d| d.edited),
            rejected: sum(|d| d.rejected),
            median_s: waits.get(waits.len() / 2).copied(),
            largest: largest.copied(),
            last_rejected: recent.rejected.map(|(_, id)| id),
        }
    }
}

/// The counts, by kind of call.
#[derive(Debug, Default)]
pub(super) struct Decisions(HashMap<Kind, Decided>);

/// The counts as a snapshot keeps them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DecisionsImage(Vec<(Kind, Decided)>);

fn kind(record: &CallRecord) -> Kind {
    (record.principal.key(), record.operation.clone(), record.context.workflow.clone())
}

fn day(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(DAY)
}

impl Decisions {
    /// Counts a last word of people.
    pub(super) fn step(&mut self, step: Step, record: &CallRecord, at: Timestamp) {
        if !matches!(step, Step::Approved | Step::Rejected) {
            return;
        }
        let (kind, today) = (kind(record), day(at));
        if self.0.len() >= KINDS && !self.0.contains_key(&kind) {
            let oldest = self.0.iter().min_by_key(|(kind, d)| (d.days.back().map(|d| d.day), *kind));
            if let Some(oldest) = oldest.map(|(kind, _)| kind.clone()) {
                self.0.remove(&oldest);
            }
        }
        let decided = self.0.entry(kind).or_default();
        let Some(counts) = decided.today(today) else { return };
        match step {
            Step::Rejected => counts.rejected += 1,
            _ if record.edited.is_some() => counts.edited += 1,
            _ => counts.approved += 1,
        }
        if let (Step::Approved, Some((minor, currency))) = (step, &record.money) {
            let largest = counts.largest.entry(currency.clone()).or_insert(*minor);
            *largest = (*largest).max(*minor);
        }
        if step == Step::Rejected {
            decided.rejected = Some((today, record.id));
        }
        decided.waits.push_back((today, at.since(record.created).as_secs()));
        if decided.waits.len() > WAITS {
            decided.waits.pop_front();
        }
    }

    pub(super) fn image(&mut self, now: Timestamp) -> DecisionsImage {
        let today = day(now);
        self.0.values_mut().for_each(|d| d.prune(today));
        self.0.retain(|_, d| !d.days.is_empty());
        let mut all: Vec<_> = self.0.iter().map(|(kind, d)| (kind.clone(), d.clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        DecisionsImage(all)
    }

    pub(super) fn restore(image: &DecisionsImage) -> Self {
        Self(image.0.iter().cloned().collect())
    }
}

impl Store {
    /// What people said of calls like this one in the last 30 days.
    ///
    /// # Errors
    /// When a step panicked.
    pub fn alike(&self, record: &CallRecord) -> Result<Alike, Fault> {
        let (core, now) = self.inner.lock()?;
        let currency = record.money.as_ref().map(|(_, currency)| currency.as_str());
        Ok(core.decisions.0.get(&kind(record)).map(|d| d.told(day(now), currency)).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::State;
    use crate::store::fixtures::{MINUTE, START, record};

    fn decide(all: &mut Decisions, step: Step, minor: i64, at: Timestamp) -> CallId {
        let mut call = record(State::Held, "f", None);
        (call.created, call.money) = (at.minus(MINUTE), Some((minor, "EUR".into())));
        all.step(step, &call, at);
        call.id
    }

    fn told(all: &Decisions, now: Timestamp) -> Alike {
        all.0.values().next().map(|d| d.told(day(now), Some("EUR"))).unwrap_or_default()
    }

    #[test]
    fn the_last_thirty_days_count_and_a_snapshot_keeps_them() {
        let mut all = Decisions::default();
        let first = decide(&mut all, Step::Rejected, 900, START);
        for minor in [100, 300, 200] {
            decide(&mut all, Step::Approved, minor, START.plus(Duration::from_secs(86_400)));
        }
        all.step(Step::Voted, &record(State::Held, "f", None), START);
        let wanted = Alike {
            approved: 3,
            edited: 0,
            rejected: 1,
            median_s: Some(60),
            largest: Some(300),
            last_rejected: Some(first),
        };
        assert_eq!(told(&all, START), wanted);
        assert_eq!(told(&Decisions::restore(&all.image(START)), START), wanted);
        let later = told(&all, START.plus(Duration::from_secs(30 * 86_400)));
        assert_eq!((later.approved, later.rejected, later.last_rejected), (3, 0, None), "the first day is over");
        assert_eq!(told(&all, START.plus(Duration::from_secs(31 * 86_400))), Alike::default());
    }

    #[test]
    fn what_was_changed_first_is_counted_apart() {
        let (mut all, mut call) = (Decisions::default(), record(State::Held, "f", None));
        let (request, arguments, digest) = (call.request.clone(), call.arguments.clone(), call.digest);
        call.edited =
            Some(Box::new(crate::store::Edited { request, arguments, digest, changes: vec![], edits: vec![] }));
        all.step(Step::Approved, &call, START);
        assert_eq!((told(&all, START).approved, told(&all, START).edited), (0, 1));
    }
}
