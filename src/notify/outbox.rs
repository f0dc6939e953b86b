//! What one receiver has not yet been told. Without I/O: time and chance come in.
//!
//! The journal is the source: an outbox holds how far it was read, and of what was read the numbers of those events
//! that wait or that were given up. Nothing is taken in that is not durable, and nothing is sent that was not taken in.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::call::Timestamp;

/// Pauses before each further attempt. With the last one an event has been tried for some 28 hours.
const PAUSES: [u64; 10] = [5, 30, 120, 600, 1800, 3600, 7200, 14_400, 28_800, 43_200];
/// While so many wait, no more are taken in: they stay in the journal.
const WAITING: usize = 1000;
/// So many that were given up are remembered; the oldest go first.
const DEAD: usize = 1000;
/// So many events are told together in one.
const TOGETHER: usize = 200;
/// Past so many messages those of holds that are over are forgotten, and past ten times as many the oldest.
const POSTED: usize = 1000;

/// One event: the record, and which of its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Which {
    pub(super) seq: u64,
    pub(super) n: usize,
}

/// An event that was not delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Item {
    #[serde(flatten)]
    pub(super) which: Which,
    /// Attempts so far.
    pub(super) tries: u32,
    /// Not before this; of those given up: since when.
    pub(super) due: Timestamp,
    /// Why the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<String>,
    /// It is told together with others, from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) gathered: Option<Timestamp>,
}

/// How an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) why: String,
    /// The receiver wants no more of it.
    pub(super) for_good: bool,
    /// The receiver takes nothing for so long. Then this was no attempt.
    pub(super) wait: Option<Duration>,
}

impl Failed {
    /// Another time it may arrive.
    pub(super) fn again(why: impl Into<String>) -> Self {
        Self { why: why.into(), for_good: false, wait: None }
    }

    /// It will not arrive another time either.
    pub(super) fn for_good(why: impl Into<String>) -> Self {
        Self { why: why.into(), for_good: true, wait: None }
    }
}

/// A message that stands for a hold, where messages can be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Posted {
    /// Id of the channel that it stands in.
    pub(super) channel: String,
    /// Its name there.
    pub(super) ts: String,
    /// Which version of the hold it shows; 0 when it is to be written anew.
    pub(super) version: u64,
    /// The hold that it shows is over.
    #[serde(default)]
    pub(super) over: bool,
}

/// One receiver's outbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outbox {
    /// The first record that was not read.
    pub(super) next: u64,
    pub(super) waiting: Vec<Item>,
    pub(super) dead: Vec<Item>,
    /// The receiver takes nothing before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) not_before: Option<Timestamp>,
    /// Messages by hold.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) posted: BTreeMap<String, Posted>,
}

impl Outbox {
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < WAITING
    }

    /// Takes in a record with so many events that the receiver wants; those with a time are told together with what
    /// comes within it.
    pub(super) fn take_in(
        &mut self,
        seq: u64,
        events: impl IntoIterator<Item = (usize, Option<Duration>)>,
        now: Timestamp,
    ) {
        // A receiver that fails is not asked more often because more happens.
        let free = self.waiting.iter().filter(|i| i.tries > 0).map(|i| i.due).min().unwrap_or(now);
        for (n, gather) in events {
            let begun = self.waiting.iter().filter(|i| i.tries == 0).filter_map(|i| i.gathered).max();
            let gathered = gather.map(|time| begun.filter(|ripe| *ripe > now).unwrap_or(now.plus(time)));
            let due = gathered.map_or(free, |ripe| ripe.max(free));
            self.waiting.push(Item { which: Which { seq, n }, tries: 0, due, why: None, gathered });
        }
        self.next = seq.saturating_add(1);
    }

    /// What is tried now, in the order in which it happened: one event, or those that are told together.
    pub(super) fn due(&self, now: Timestamp) -> Vec<Which> {
        if self.not_before.is_some_and(|t| now < t) {
            return Vec::new();
        }
        let first = self.waiting.iter().filter(|i| i.due <= now).min_by_key(|i| i.which);
        let Some(first) = first else { return Vec::new() };
        if first.gathered.is_none() {
            return vec![first.which];
        }
        let mut all: Vec<Which> = self.waiting.iter().filter(|i| i.gathered.is_some()).map(|i| i.which).collect();
        all.sort_unstable();
        all.truncate(TOGETHER);
        all
    }

    /// These arrived. What else waits is tried soon: the receiver is there again.
    pub(super) fn delivered(&mut self, which: &[Which], now: Timestamp) {
        self.not_before = None;
        self.waiting.retain(|i| !which.contains(&i.which));
        self.waiting.iter_mut().for_each(|i| i.due = i.due.min(i.gathered.unwrap_or(now).max(now)));
    }

    /// These did not. `chance` is between 0 and 1. Gives whether one of them is given up.
    pub(super) fn failed(&mut self, which: &[Which], failed: &Failed, now: Timestamp, chance: f64) -> bool {
        let (mut tried, rest): (Vec<Item>, _) = self.waiting.drain(..).partition(|i| which.contains(&i.which));
        self.waiting = rest;
        tried.iter_mut().for_each(|i| i.why = Some(failed.why.clone()));
        if let Some(wait) = failed.wait {
            self.not_before = Some(now.plus(wait));
            self.waiting.extend(tried);
            return false;
        }
        let most = tried.iter().map(|i| i.tries).max().unwrap_or(0);
        let pause = usize::try_from(most).ok().and_then(|n| PAUSES.get(n.min(PAUSES.len() - 1))).unwrap_or(&5);
        let due = now.plus(Duration::from_secs(*pause).mul_f64(0.8 + 0.4 * chance.clamp(0.0, 1.0)));
        let mut dead = false;
        for mut item in tried {
            let last = usize::try_from(item.tries).is_ok_and(|n| n >= PAUSES.len()) || failed.for_good;
            item.tries += 1;
            item.due = if last { now } else { due };
            if last {
                self.dead.push(item)
            } else {
                self.waiting.push(item)
            }
            dead |= last;
        }
        if !dead {
            self.waiting.iter_mut().filter(|i| i.tries == 0).for_each(|i| i.due = i.due.max(due));
        }
        let over = self.dead.len().saturating_sub(DEAD);
        self.dead.drain(..over);
        dead
    }

    /// A message stands for this hold from now on.
    pub(super) fn post(&mut self, hold: String, posted: Posted) {
        self.posted.insert(hold, posted);
        if self.posted.len() > POSTED {
            self.posted.retain(|_, p| !p.over);
        }
        while self.posted.len() > 10 * POSTED {
            self.posted.pop_first();
        }
    }

    /// Puts these back, whether they were given up or delivered long ago; those that wait anyway are tried now. Gives
    /// how many.
    pub(super) fn replay(&mut self, wanted: &[Which], now: Timestamp) -> usize {
        let together = |which: &Which| {
            let known = self.dead.iter().chain(&self.waiting).find(|i| i.which == *which);
            known.and_then(|i| i.gathered).map(|_| now)
        };
        let item = |which: &Which| Item { which: *which, tries: 0, due: now, why: None, gathered: together(which) };
        let back: Vec<Item> = wanted.iter().map(item).collect();
        self.dead.retain(|i| !wanted.contains(&i.which));
        self.waiting.retain(|i| !wanted.contains(&i.which));
        self.waiting.extend(back);
        self.not_before = None;
        // What stands there already is written anew, too.
        self.posted.values_mut().for_each(|p| p.version = 0);
        wanted.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn failed() -> Failed {
        Failed::again("status 500")
    }

    #[test]
    fn an_event_is_tried_with_growing_pauses_and_then_given_up() {
        let (mut outbox, mut now, mut tries) = (Outbox { next: 7, ..Outbox::default() }, NOW, 0);
        outbox.take_in(7, [(0, None)], now);
        assert_eq!(outbox.next, 8);
        let which = outbox.due(now)[0];
        let mut last = Duration::ZERO;
        loop {
            tries += 1;
            if outbox.failed(&[which], &failed(), now, 0.5) {
                break;
            }
            assert!(outbox.due(now).is_empty());
            let due = outbox.waiting[0].due;
            assert!(due.since(now) > last, "attempt {tries}");
            last = due.since(now);
            now = due;
            assert_eq!(outbox.due(now), [which]);
        }
        assert_eq!((tries, outbox.waiting.len(), outbox.dead[0].tries), (11, 0, 11));
        assert_eq!(outbox.replay(&[which], now), 1);
        assert_eq!((outbox.due(now), outbox.dead.len()), (vec![which], 0));
    }

    #[test]
    fn a_receiver_that_fails_is_not_asked_more_often_because_more_happens() {
        let mut outbox = Outbox::default();
        outbox.take_in(1, [(0, None)], NOW);
        outbox.take_in(2, [(0, None), (1, None)], NOW);
        let first = outbox.due(NOW);
        assert_eq!(first, [Which { seq: 1, n: 0 }]);
        assert!(!outbox.failed(&first, &failed(), NOW, 0.0));
        outbox.take_in(3, [(0, None)], NOW);
        assert!(outbox.due(NOW).is_empty(), "{outbox:?}");
        let due = outbox.waiting.iter().map(|i| i.due).max().unwrap();
        assert_eq!((outbox.due(due), outbox.waiting.len()), (first.clone(), 4));
        outbox.delivered(&first, NOW);
        assert_eq!(outbox.due(NOW), [Which { seq: 2, n: 0 }], "it is there again");
    }

    #[test]
    fn a_receiver_that_is_gone_is_not_tried_again() {
        let mut outbox = Outbox::default();
        outbox.take_in(1, [(0, None)], NOW);
        let which = outbox.due(NOW);
        assert!(outbox.failed(&which, &Failed::for_good("status 410"), NOW, 0.5));
        assert_eq!((outbox.waiting.len(), outbox.dead.len()), (0, 1));
    }

    #[test]
    fn what_is_gathered_is_told_together_when_its_time_has_come() {
        let (mut outbox, five) = (Outbox::default(), Duration::from_secs(300));
        let later = |seconds| NOW.plus(Duration::from_secs(seconds));
        outbox.take_in(1, [(0, Some(five))], NOW);
        outbox.take_in(2, [(0, None)], later(10));
        outbox.take_in(3, [(0, Some(five))], later(299));
        let urgent = outbox.due(later(299));
        assert_eq!(urgent, [Which { seq: 2, n: 0 }], "what is urgent does not wait");
        outbox.delivered(&urgent, later(299));
        assert!(outbox.due(later(299)).is_empty(), "and takes nothing else with it");
        let kept = serde_json::to_vec(&outbox).unwrap();
        let mut outbox: Outbox = serde_json::from_slice(&kept).unwrap();
        let both = outbox.due(later(300));
        assert_eq!(both, [Which { seq: 1, n: 0 }, Which { seq: 3, n: 0 }]);
        assert!(!outbox.failed(&both, &failed(), later(300), 0.5));
        outbox.take_in(4, [(0, Some(five))], later(301));
        assert!(outbox.due(later(304)).is_empty());
        assert_eq!(
            outbox.due(later(305)),
            both[..].iter().copied().chain([Which { seq: 4, n: 0 }]).collect::<Vec<_>>()
        );
        assert!(outbox.failed(&both, &Failed::for_good("status 550"), later(305), 0.5));
        assert_eq!((outbox.dead.len(), outbox.waiting.len()), (2, 1));
        assert_eq!(outbox.replay(&both, later(306)), 2);
        assert_eq!(outbox.due(later(306)).len(), 3, "together again");
    }

    #[test]
    fn a_receiver_that_asks_for_time_gets_it_and_that_counts_as_no_attempt() {
        let mut outbox = Outbox::default();
        outbox.take_in(1, [(0, None)], NOW);
        let which = outbox.due(NOW);
        let busy = Failed { wait: Some(Duration::from_secs(30)), ..Failed::again("ratelimited") };
        for round in 0..20 {
            let now = NOW.plus(Duration::from_secs(30 * round));
            assert_eq!(outbox.due(now), which);
            assert!(!outbox.failed(&which, &busy, now, 0.5), "it is never given up for that");
            outbox.take_in(2 + round, [(0, None)], now);
            assert!(outbox.due(now.plus(Duration::from_secs(29))).is_empty());
        }
        assert_eq!(outbox.waiting.iter().map(|i| i.tries).max(), Some(0));
    }

    #[test]
    fn messages_of_holds_that_are_over_are_forgotten_first() {
        let mut outbox = Outbox::default();
        let posted = |over| Posted { channel: "C1".into(), ts: "1.2".into(), version: 1, over };
        for n in 0..2 * POSTED {
            outbox.post(format!("hold_{n:05}"), posted(n % 2 == 0));
        }
        assert!(outbox.posted.len() <= POSTED + 1, "{}", outbox.posted.len());
        assert!(outbox.posted.contains_key("hold_00001") && !outbox.posted.contains_key("hold_00000"));
        for n in 0..12 * POSTED {
            outbox.post(format!("open_{n:05}"), posted(false));
        }
        assert_eq!(outbox.posted.len(), 10 * POSTED);
    }
}
