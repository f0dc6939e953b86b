//! What agents did of late: counters kept from the frames alone, so that a replay gives the same ones.

use std::collections::BTreeMap;
use std::time::Duration;

use hashbrown::HashMap;
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

/// What is counted of one agent.
#[derive(Debug, Default)]
struct Counts {
    minutes: BTreeMap<i64, Minute>,
    /// By run: how many, and when the last one was.
    runs: HashMap<String, (i64, Timestamp)>,
    /// By currency: the day, and its sum.
    money: HashMap<String, (i64, i64)>,
    /// By the person that it acts for: when a run last left a record.
    touched: HashMap<Option<String>, HashMap<String, Timestamp>>,
}

/// The counters, by organisation and agent: nothing is copied to find what is there.
#[derive(Debug, Default)]
pub(super) struct Tally(HashMap<String, HashMap<String, Counts>>);

/// The counters as a snapshot keeps them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct TallyImage {
    runs: Vec<(Agent, String, i64, Timestamp)>,
    minutes: Vec<(Agent, Vec<(i64, Minute)>)>,
    money: Vec<(Agent, String, i64, i64)>,
    #[serde(default)]
    touched: Vec<(PrincipalKey, String, Timestamp)>,
}

impl Counts {
    fn count(&mut self, at: Timestamp, denied: bool) {
        let minute = at.as_millis().div_euclid(MINUTE);
        let bucket = self.minutes.entry(minute).or_default();
        bucket.calls += 1;
        bucket.denied += i64::from(denied);
        while self.minutes.first_key_value().is_some_and(|(m, _)| *m + 60 <= minute) {
            self.minutes.pop_first();
        }
    }

    fn count_run(&mut self, run: &str, at: Timestamp) {
        let run = self.runs.entry_ref(run).or_default();
        *run = (run.0 + 1, at);
    }

    fn is_empty(&self) -> bool {
        self.minutes.is_empty() && self.runs.is_empty() && self.money.is_empty() && self.touched.is_empty()
    }
}

impl Tally {
    fn of(&mut self, org: &str, agent: &str) -> &mut Counts {
        self.0.entry_ref(org).or_default().entry_ref(agent).or_default()
    }

    /// Whether this agent did anything of late.
    pub(super) fn knows(&self, agent: &str) -> bool {
        self.0.values().any(|agents| agents.contains_key(agent))
    }

    fn all(&self) -> impl Iterator<Item = (Agent, &Counts)> {
        self.0.iter().flat_map(|(org, agents)| agents.iter().map(|(a, counts)| ((org.clone(), a.clone()), counts)))
    }

    /// Counts a step of a call.
    pub(super) fn step(&mut self, step: Step, record: &CallRecord, at: Timestamp) {
        let (who, run) = (&record.principal, record.context.run.as_str());
        let counts = self.of(&who.org, &who.agent);
        if step == Step::Parked || (step == Step::Begun && record.terms.is_none()) {
            counts.count(at, false);
            counts.count_run(run, at);
        }
        *counts.touched.entry_ref(&who.acting_for).or_default().entry_ref(run).or_default() = at;
        if let (State::Succeeded, Some((minor, currency))) = (record.state, &record.money) {
            let day = at.as_millis().div_euclid(DAY);
            let sum = counts.money.entry_ref(currency.as_str()).or_insert((day, 0));
            if sum.0 != day {
                *sum = (day, 0);
            }
            sum.1 = sum.1.saturating_add(*minor);
        }
    }

    /// Counts a refusal or a read.
    pub(super) fn note(&mut self, note: &AuditNote, at: Timestamp) {
        let Some((org, agent)) = note.agent.as_ref().filter(|_| note.kind.starts_with("call.")) else { return };
        let counts = self.of(org, agent);
        counts.count(at, note.code.as_deref() == Some("forbidden"));
        if let Some(run) = note.run.as_ref().filter(|_| note.kind == "call.read") {
            counts.count_run(run, at);
        }
    }

    /// What the facts of a decision need, but for what was seen before.
    pub(super) fn history(&self, q: &HistoryQuestion<'_>, now: Timestamp) -> History {
        let Some(counts) = self.0.get(&q.principal.org).and_then(|agents| agents.get(&q.principal.agent)) else {
            return History::default();
        };
        let minute = now.as_millis().div_euclid(MINUTE);
        let (calls, denied) =
            counts.minutes.range(minute - 59..).fold((0, 0), |(c, d), (_, m)| (c + m.calls, d + m.denied));
        let today = now.as_millis().div_euclid(DAY);
        let sum = |currency: &str| counts.money.get(currency).filter(|(day, _)| *day == today);
        History {
            calls_this_run: counts.runs.get(q.run).map_or(0, |(n, _)| *n),
            calls_last_hour: calls,
            denied_last_hour: denied,
            sum_minor_today: q.currency.and_then(sum).map_or(0, |(_, s)| *s),
            first_time_target: false,
        }
    }

    /// Runs that left a record since then.
    pub(super) fn runs(&self, since: Timestamp) -> Vec<(PrincipalKey, String, Timestamp)> {
        let mut young = self.touched();
        young.retain(|(_, _, at)| *at >= since);
        young
    }

    fn touched(&self) -> Vec<(PrincipalKey, String, Timestamp)> {
        let of = |((org, agent), counts): (Agent, &Counts)| {
            let mut all = Vec::new();
            for (person, runs) in &counts.touched {
                let caller = PrincipalKey(org.clone(), agent.clone(), person.clone());
                all.extend(runs.iter().map(|(run, at)| (caller.clone(), run.clone(), *at)));
            }
            all
        };
        self.all().flat_map(of).collect()
    }

    /// Forgets idle runs, old hours and old days.
    pub(super) fn prune(&mut self, now: Timestamp) {
        let oldest = now.as_millis().div_euclid(MINUTE) - 59;
        let today = now.as_millis().div_euclid(DAY);
        let busy = |touched: Timestamp| now.since(touched) <= RUN_IDLE;
        for agents in self.0.values_mut() {
            for counts in agents.values_mut() {
                counts.runs.retain(|_, (_, touched)| busy(*touched));
                counts.money.retain(|_, (day, _)| *day >= today);
                counts.touched.values_mut().for_each(|runs| runs.retain(|_, touched| busy(*touched)));
                counts.touched.retain(|_, runs| !runs.is_empty());
                if counts.minutes.last_key_value().is_some_and(|(m, _)| *m < oldest) {
                    counts.minutes.clear();
                }
            }
            agents.retain(|_, counts| !counts.is_empty());
        }
        self.0.retain(|_, agents| !agents.is_empty());
    }

    pub(super) fn image(&self) -> TallyImage {
        let mut image = TallyImage { touched: self.touched(), ..TallyImage::default() };
        for (agent, counts) in self.all() {
            image.runs.extend(counts.runs.iter().map(|(r, (n, t))| (agent.clone(), r.clone(), *n, *t)));
            image.money.extend(counts.money.iter().map(|(c, (d, s))| (agent.clone(), c.clone(), *d, *s)));
            if !counts.minutes.is_empty() {
                image.minutes.push((agent, counts.minutes.iter().map(|(k, v)| (*k, *v)).collect()));
            }
        }
        image.touched.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        image.runs.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        image.minutes.sort_by(|a, b| a.0.cmp(&b.0));
        image.money.sort();
        image
    }

    pub(super) fn restore(image: &TallyImage) -> Self {
        let mut tally = Self::default();
        for ((org, agent), run, n, at) in &image.runs {
            tally.of(org, agent).runs.insert(run.clone(), (*n, *at));
        }
        for ((org, agent), minutes) in &image.minutes {
            tally.of(org, agent).minutes = minutes.iter().copied().collect();
        }
        for ((org, agent), currency, day, sum) in &image.money {
            tally.of(org, agent).money.insert(currency.clone(), (*day, *sum));
        }
        for (PrincipalKey(org, agent, person), run, at) in &image.touched {
            tally.of(org, agent).touched.entry_ref(person).or_default().insert(run.clone(), *at);
        }
        tally
    }
}
