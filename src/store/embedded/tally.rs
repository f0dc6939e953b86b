//! What agents did of late: counters kept from the frames alone, so that a replay gives the same ones.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::call::{History, PrincipalKey, Timestamp};
use crate::store::{AuditNote, CallRecord, HistoryQuestion, State, Step};

const MINUTE: i64 = 60_000;
const DAY: i64 = 86_400_000;
/// Runs that are idle for longer are forgotten.
const RUN_IDLE: Duration = Duration::from_secs(86_400);

type Agent = (String, String);

/// One minute of one agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Minute {
    calls: i64,
    denied: i64,
}

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Tally {
    runs: HashMap<(Agent, String), (i64, Timestamp)>,
    minutes: HashMap<Agent, BTreeMap<i64, Minute>>,
    money: HashMap<(Agent, String), (i64, i64)>,
    /// When a caller's run last left a record.
    touched: HashMap<(PrincipalKey, String), Timestamp>,
}

/// The counters as a snapshot keeps them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct TallyImage {
    runs: Vec<(Agent, String, i64, Timestamp)>,
    minutes: Vec<(Agent, Vec<(i64, Minute)>)>,
    money: Vec<(Agent, String, i64, i64)>,
    #[serde(default)]
    touched: Vec<(PrincipalKey, String, Timestamp)>,
}

fn agent_of(record: &CallRecord) -> Agent {
    (record.principal.org.clone(), record.principal.agent.clone())
}

impl Tally {
    /// Counts a step of a call.
    pub(super) fn step(&mut self, step: Step, record: &CallRecord, at: Timestamp) {
        let came = step == Step::Parked || (step == Step::Begun && record.terms.is_none());
        if came {
            self.count(&agent_of(record), at, false);
            self.count_run(agent_of(record), &record.context.run, at);
        }
        self.touched.insert((record.principal.key(), record.context.run.clone()), at);
        if let (State::Succeeded, Some((minor, currency))) = (record.state, &record.money) {
            let day = at.as_millis().div_euclid(DAY);
            let sum = self.money.entry((agent_of(record), currency.clone())).or_insert((day, 0));
            if sum.0 != day {
                *sum = (day, 0);
            }
            sum.1 = sum.1.saturating_add(*minor);
        }
    }

    /// Counts a refusal or a read.
    pub(super) fn note(&mut self, note: &AuditNote, at: Timestamp) {
        let Some(agent) = note.agent.as_ref().filter(|_| note.kind.starts_with("call.")) else { return };
        self.count(agent, at, note.code.as_deref() == Some("forbidden"));
        if let Some(run) = note.run.as_ref().filter(|_| note.kind == "call.read") {
            self.count_run(agent.clone(), run, at);
        }
    }

    fn count(&mut self, agent: &Agent, at: Timestamp, denied: bool) {
        let minute = at.as_millis().div_euclid(MINUTE);
        let minutes = match self.minutes.get_mut(agent) {
            Some(minutes) => minutes,
            None => self.minutes.entry(agent.clone()).or_default(),
        };
        let bucket = minutes.entry(minute).or_default();
        bucket.calls += 1;
        bucket.denied += i64::from(denied);
        while minutes.first_key_value().is_some_and(|(m, _)| *m + 60 <= minute) {
            minutes.pop_first();
        }
    }

    fn count_run(&mut self, agent: Agent, run: &str, at: Timestamp) {
        let run = self.runs.entry((agent, run.to_owned())).or_default();
        *run = (run.0 + 1, at);
    }

    /// What the facts of a decision need, but for what was seen before.
    pub(super) fn history(&self, q: &HistoryQuestion<'_>, now: Timestamp) -> History {
        let agent = (q.principal.org.clone(), q.principal.agent.clone());
        let minute = now.as_millis().div_euclid(MINUTE);
        let of_hour = self.minutes.get(&agent).into_iter().flat_map(|m| m.range(minute - 59..)).map(|(_, m)| m);
        let (calls, denied) = of_hour.fold((0, 0), |(c, d), m| (c + m.calls, d + m.denied));
        let today = now.as_millis().div_euclid(DAY);
        let sum = |c: &str| self.money.get(&(agent.clone(), c.to_owned())).filter(|(day, _)| *day == today);
        History {
            calls_this_run: self.runs.get(&(agent.clone(), q.run.to_owned())).map_or(0, |(n, _)| *n),
            calls_last_hour: calls,
            denied_last_hour: denied,
            sum_minor_today: q.currency.and_then(sum).map_or(0, |(_, s)| *s),
            first_time_target: false,
        }
    }

    /// Runs that left a record since then.
    pub(super) fn runs(&self, since: Timestamp) -> Vec<(PrincipalKey, String, Timestamp)> {
        let young = self.touched.iter().filter(|(_, at)| **at >= since);
        young.map(|((caller, run), at)| (caller.clone(), run.clone(), *at)).collect()
    }

    /// Forgets idle runs, old hours and old days.
    pub(super) fn prune(&mut self, now: Timestamp) {
        let oldest = now.as_millis().div_euclid(MINUTE) - 59;
        self.runs.retain(|_, (_, touched)| now.since(*touched) <= RUN_IDLE);
        self.touched.retain(|_, touched| now.since(*touched) <= RUN_IDLE);
        self.minutes.retain(|_, minutes| minutes.last_key_value().is_some_and(|(m, _)| *m >= oldest));
        self.money.retain(|_, (day, _)| *day >= now.as_millis().div_euclid(DAY));
    }

    pub(super) fn image(&self) -> TallyImage {
        let mut image = TallyImage {
            runs: self.runs.iter().map(|((a, r), (n, t))| (a.clone(), r.clone(), *n, *t)).collect(),
            minutes: self.minutes.iter().map(|(a, m)| (a.clone(), m.iter().map(|(k, v)| (*k, *v)).collect())).collect(),
            money: self.money.iter().map(|((a, c), (d, s))| (a.clone(), c.clone(), *d, *s)).collect(),
            touched: self.touched.iter().map(|((c, r), at)| (c.clone(), r.clone(), *at)).collect(),
        };
        image.touched.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        image.runs.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        image.minutes.sort_by(|a, b| a.0.cmp(&b.0));
        image.money.sort();
        image
    }

    pub(super) fn restore(image: &TallyImage) -> Self {
        Self {
            runs: image.runs.iter().map(|(a, r, n, t)| ((a.clone(), r.clone()), (*n, *t))).collect(),
            minutes: image.minutes.iter().map(|(a, m)| (a.clone(), m.iter().copied().collect())).collect(),
            money: image.money.iter().map(|(a, c, d, s)| ((a.clone(), c.clone()), (*d, *s))).collect(),
            touched: image.touched.iter().map(|(c, r, at)| ((c.clone(), r.clone()), *at)).collect(),
        }
    }
}
