//! Recorded calls asked again under other policies: what would move, and what that means for those who review.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::call::{Judgement, Timestamp};
use crate::clock::{Clock, SystemClock};
use crate::gates::authz::Inspection;

use super::case::Unasked;
use super::history::Recorded;
use super::{Bench, Case};

/// One call that would be judged otherwise.
#[derive(Debug, Clone)]
pub struct Moved {
    /// Which, as an index into the history.
    pub call: usize,
    /// What the policies in force say to it.
    pub now: Judgement,
    /// What the others say.
    pub next: Judgement,
    /// The policies that make the difference: those that decide only now, or only then.
    pub by: Vec<String>,
}

impl Moved {
    /// Whether it becomes easier.
    #[must_use]
    pub fn loosens(&self) -> bool {
        self.next < self.now
    }
}

/// How many reviews a day each group is asked for.
pub type Load = BTreeMap<String, f64>;

/// What came out.
#[derive(Debug, Default)]
pub struct Replay {
    /// Calls that were asked about again.
    pub asked: usize,
    /// Of these, judged alike.
    pub unchanged: usize,
    /// Judged otherwise, those first that become easier, and of these first what people had refused.
    pub moved: Vec<Moved>,
    /// Not asked: why, and how many.
    pub unasked: BTreeMap<Unasked, usize>,
    /// Asked without what was known then.
    pub without_facts: usize,
    /// The policies in force say something else than was said then.
    pub drifted: usize,
    /// From the first to the last call, in days; at least one.
    pub days: f64,
    /// Reviews a day under the policies in force, and under the others, by group.
    pub load: (Load, Load),
    /// All reviews a day, likewise.
    pub reviews: (f64, f64),
    /// How long it took.
    pub seconds: f64,
}

/// Hears how many calls more were asked about, on any thread, and says whether to go on.
pub type Progress<'a> = &'a (dyn Fn(usize) -> bool + Sync);

/// What one call came to.
struct Compared {
    now: Inspection,
    next: Inspection,
}

/// Asks both sets, those in force first, about every recorded call, on so many threads. `None` when it was told to stop.
#[must_use]
pub fn replay(calls: &[Recorded], sets: [&Bench; 2], threads: usize, progress: Progress<'_>) -> Option<Replay> {
    let started = SystemClock.instant();
    let share = calls.len().div_ceil(threads.max(1)).max(1);
    let one = |call| progress(1).then(|| compare(call, sets));
    let parts: Vec<Option<Vec<_>>> = std::thread::scope(|scope| {
        let workers = calls.chunks(share).map(|part| scope.spawn(move || part.iter().map(one).collect()));
        let workers: Vec<_> = workers.collect();
        workers.into_iter().map(|w| w.join().ok().flatten()).collect()
    });
    let mut out = Replay { days: days(calls), ..Replay::default() };
    let parts: Vec<Vec<_>> = parts.into_iter().collect::<Option<_>>()?;
    for (i, compared) in parts.into_iter().flatten().enumerate() {
        let Some(call) = calls.get(i) else { continue };
        match compared {
            Ok(compared) => out.take(i, call, &compared),
            Err(why) => *out.unasked.entry(why).or_default() += 1,
        }
    }
    out.sort(calls);
    out.seconds = SystemClock.instant().saturating_duration_since(started).as_secs_f64();
    Some(out)
}

fn compare(call: &Recorded, [now, next]: [&Bench; 2]) -> Result<Compared, Unasked> {
    let case = Case::recorded(call, &now.policies)?;
    Case::recorded(call, &next.policies)?;
    let ask = |bench: &Bench| {
        let seen = bench.policies.inspect(&case.question());
        seen.map_err(|refusal| Unasked::Unfit(format!("{}: {}", call.operation, refusal.public_text())))
    };
    Ok(Compared { now: ask(now)?, next: ask(next)? })
}

fn days(calls: &[Recorded]) -> f64 {
    let at = |t: Option<Timestamp>| t.map_or(0, Timestamp::as_millis);
    let (first, last) = (at(calls.iter().map(|c| c.at).min()), at(calls.iter().map(|c| c.at).max()));
    let seconds = u32::try_from((last - first) / 1000).unwrap_or(u32::MAX);
    (f64::from(seconds) / 86_400.0).max(1.0)
}

impl Replay {
    fn take(&mut self, index: usize, call: &Recorded, compared: &Compared) {
        let (now, next) = (&compared.now, &compared.next);
        self.asked += 1;
        self.without_facts += usize::from(call.facts.is_none());
        self.drifted += usize::from(now.judgement != call.judgement);
        let day = 1.0 / self.days;
        for (seen, load, reviews) in
            [(now, &mut self.load.0, &mut self.reviews.0), (next, &mut self.load.1, &mut self.reviews.1)]
        {
            let Some(terms) = &seen.terms else { continue };
            *reviews += day;
            let groups: BTreeSet<&String> = terms.needs.requirements.iter().flat_map(|r| &r.groups).collect();
            groups.into_iter().for_each(|g| *load.entry(g.clone()).or_default() += day);
        }
        if now.judgement == next.judgement {
            self.unchanged += 1;
            return;
        }
        let only = |a: &Inspection, b: &Inspection| {
            a.because.iter().filter(|id| !b.because.contains(id)).cloned().collect::<Vec<_>>()
        };
        // A forbid that is new, or gone, tells more than the permit that is left.
        let by = if next.judgement > now.judgement { only(next, now) } else { only(now, next) };
        self.moved.push(Moved { call: index, now: now.judgement, next: next.judgement, by });
    }

    /// All of it, but for the moves behind the first `listed`; `now` and `next` are the sets that were asked.
    #[must_use]
    pub fn json(&self, calls: &[Recorded], [now, next]: [&Bench; 2], listed: usize) -> Value {
        let kinds = self.kinds().into_iter().map(|(a, b, by, n)| {
            json!({"now": a.as_str(), "next": b.as_str(), "policies": by, "calls": n, "loosens": b < a})
        });
        let moved = self.moved.iter().take(listed).filter_map(|m| Some(moved_json(calls.get(m.call)?, m)));
        let unasked = self.unasked.iter().map(|(why, n)| json!({"why": why.to_string(), "calls": n}));
        json!({
            "version": 1, "now": now.policies.digest(), "next": next.policies.digest(),
            "calls": self.asked, "seconds": self.seconds, "unchanged": self.unchanged,
            "moves": kinds.collect::<Vec<_>>(), "moved": moved.collect::<Vec<_>>(),
            "reviews_a_day": {
                "now": self.reviews.0, "next": self.reviews.1, "by_group": {"now": self.load.0, "next": self.load.1},
            },
            "not_asked": unasked.collect::<Vec<_>>(), "without_facts": self.without_facts,
            "judged_otherwise_then": self.drifted,
        })
    }

    fn sort(&mut self, calls: &[Recorded]) {
        let refused = |m: &Moved| calls.get(m.call).is_some_and(|c| was_refused(&c.state));
        let runs = |m: &Moved| m.next == Judgement::Low;
        self.moved.sort_by_key(|m| (!m.loosens(), !(refused(m) && runs(m)), !refused(m), m.next, m.call));
    }

    /// Moves by kind: from, to, by which policies, and how many; those that become easier first.
    #[must_use]
    pub fn kinds(&self) -> Vec<(Judgement, Judgement, Vec<String>, usize)> {
        let mut kinds: BTreeMap<(bool, Judgement, Judgement, Vec<String>), usize> = BTreeMap::new();
        for m in &self.moved {
            *kinds.entry((!m.loosens(), m.now, m.next, m.by.clone())).or_default() += 1;
        }
        kinds.into_iter().map(|((_, now, next, by), n)| (now, next, by, n)).collect()
    }
}

fn moved_json(call: &Recorded, moved: &Moved) -> Value {
    json!({
        "call": call.id, "at": call.at, "operation": call.operation, "title": call.title, "state": call.state,
        "now": moved.now.as_str(), "next": moved.next.as_str(), "policies": moved.by, "loosens": moved.loosens(),
    })
}

/// Whether people, or the lack of them, kept the call from running.
#[must_use]
pub fn was_refused(state: &str) -> bool {
    ["rejected", "expired", "withdrawn", "revoked", "stale", "refused"].contains(&state)
}
