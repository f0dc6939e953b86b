//! What one receiver has not yet been told. Without I/O: time and chance come in.
//!
//! The journal is the source: an outbox holds how far it was read, and of what was read the numbers of those events
//! that wait or that were given up. Nothing is taken in that is not durable, and nothing is sent that was not taken in.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::call::Timestamp;

/// Pauses before each further attempt. With the last one an event has been tried for some 28 hours.
const PAUSES: [u64; 10] = [5, 30, 120, 600, 1800, 3600, 7200, 14_400, 28_800, 43_200];
/// While so many wait, no more are taken in: they stay in the journal.
const WAITING: usize = 1000;
/// So many that were given up are remembered; the oldest go first.
const DEAD: usize = 1000;

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
}

/// How an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) why: String,
    /// The receiver wants no more of it.
    pub(super) for_good: bool,
}

/// One receiver's outbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outbox {
    /// The first record that was not read.
    pub(super) next: u64,
    pub(super) waiting: Vec<Item>,
    pub(super) dead: Vec<Item>,
}

impl Outbox {
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < WAITING
    }

    /// Takes in a record with so many events that the receiver wants.
    pub(super) fn take_in(&mut self, seq: u64, events: impl IntoIterator<Item = usize>, now: Timestamp) {
        // A receiver that fails is not asked more often because more happens.
        let due = self.waiting.iter().filter(|i| i.tries > 0).map(|i| i.due).min().unwrap_or(now);
        let item = |n| Item { which: Which { seq, n }, tries: 0, due, why: None };
        self.waiting.extend(events.into_iter().map(item));
        self.next = seq.saturating_add(1);
    }

    /// What may be tried now, in the order in which it happened.
    pub(super) fn due(&self, now: Timestamp) -> Vec<Which> {
        let mut due: Vec<Which> = self.waiting.iter().filter(|i| i.due <= now).map(|i| i.which).collect();
        due.sort_unstable();
        due
    }

    /// It arrived. What else waits is tried soon: the receiver is there again.
    pub(super) fn delivered(&mut self, which: Which, now: Timestamp) {
        self.waiting.retain(|i| i.which != which);
        self.waiting.iter_mut().for_each(|i| i.due = i.due.min(now));
    }

    /// It did not. `chance` is between 0 and 1. Gives whether it is given up.
    pub(super) fn failed(&mut self, which: Which, failed: Failed, now: Timestamp, chance: f64) -> bool {
        let Some(at) = self.waiting.iter().position(|i| i.which == which) else { return false };
        let mut item = self.waiting.remove(at);
        let pause = usize::try_from(item.tries).ok().and_then(|tries| PAUSES.get(tries)).filter(|_| !failed.for_good);
        item.tries += 1;
        item.why = Some(failed.why);
        match pause {
            Some(seconds) => {
                item.due = now.plus(Duration::from_secs(*seconds).mul_f64(0.8 + 0.4 * chance.clamp(0.0, 1.0)));
                let due = item.due;
                self.waiting.push(item);
                self.waiting.iter_mut().filter(|i| i.tries == 0).for_each(|i| i.due = i.due.max(due));
                false
            }
            None => {
                item.due = now;
                self.dead.push(item);
                let over = self.dead.len().saturating_sub(DEAD);
                self.dead.drain(..over);
                true
            }
        }
    }

    /// Puts these back, whether they were given up or delivered long ago; those that wait anyway are tried now. Gives
    /// how many.
    pub(super) fn replay(&mut self, wanted: &[Which], now: Timestamp) -> usize {
        self.dead.retain(|i| !wanted.contains(&i.which));
        self.waiting.retain(|i| !wanted.contains(&i.which));
        let item = |which: &Which| Item { which: *which, tries: 0, due: now, why: None };
        self.waiting.extend(wanted.iter().map(item));
        wanted.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn failed() -> Failed {
        Failed { why: "status 500".into(), for_good: false }
    }

    #[test]
    fn an_event_is_tried_with_growing_pauses_and_then_given_up() {
        let (mut outbox, mut now, mut tries) = (Outbox { next: 7, ..Outbox::default() }, NOW, 0);
        outbox.take_in(7, [0], now);
        assert_eq!(outbox.next, 8);
        let which = outbox.due(now)[0];
        let mut last = Duration::ZERO;
        loop {
            tries += 1;
            if outbox.failed(which, failed(), now, 0.5) {
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
        outbox.take_in(1, [0], NOW);
        outbox.take_in(2, [0, 1], NOW);
        let all = outbox.due(NOW);
        assert_eq!(all.len(), 3);
        assert!(!outbox.failed(all[0], failed(), NOW, 0.0));
        outbox.take_in(3, [0], NOW);
        assert!(outbox.due(NOW).is_empty(), "{outbox:?}");
        let due = outbox.waiting.iter().map(|i| i.due).max().unwrap();
        assert_eq!(outbox.due(due).len(), 4);
        outbox.delivered(all[0], NOW);
        assert_eq!(outbox.due(NOW).len(), 3, "it is there again");
    }

    #[test]
    fn a_receiver_that_is_gone_is_not_tried_again() {
        let mut outbox = Outbox::default();
        outbox.take_in(1, [0], NOW);
        let which = outbox.due(NOW)[0];
        assert!(outbox.failed(which, Failed { why: "status 410".into(), for_good: true }, NOW, 0.5));
        assert_eq!((outbox.waiting.len(), outbox.dead.len()), (0, 1));
    }
}
