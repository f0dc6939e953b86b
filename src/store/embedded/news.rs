//! What has just become durable of held calls, for those who watch all of them: the newest steps, in memory only.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::call::{CallId, Tier};
use crate::store::{CallRecord, State, Step};

use super::Store;

/// So many are kept for those who come back.
const KEPT: usize = 1024;

/// One durable step of a held call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldStep {
    /// Number of its record in the journal: grows from step to step, over restarts too.
    pub seq: u64,
    /// What happened.
    pub step: Step,
    /// To which call.
    pub id: CallId,
    /// The version that it has now.
    pub version: u64,
    /// The state that it has now.
    pub state: State,
    /// Its tier.
    pub tier: Tier,
}

/// There may have been steps that nobody remembers: look at everything anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap;

#[derive(Debug)]
struct Kept {
    /// Of what came at or before this nothing is known.
    floor: u64,
    newest: VecDeque<HoldStep>,
}

/// Where steps are put up once they are durable.
#[derive(Debug)]
pub(super) struct Board {
    kept: Mutex<Kept>,
    head: watch::Sender<u64>,
}

impl Board {
    /// Knows nothing of what is in the journal up to here.
    pub(super) fn new(head: u64) -> Self {
        let kept = Kept { floor: head, newest: VecDeque::new() };
        Self { kept: Mutex::new(kept), head: watch::Sender::new(head) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_watched(&self) -> bool {
        self.head.receiver_count() > 0
    }

    /// Puts up steps, in order.
    pub(super) fn put(&self, news: impl Iterator<Item = HoldStep>) {
        let mut kept = self.kept();
        let before = kept.newest.back().map_or(kept.floor, |n| n.seq);
        kept.newest.extend(news.filter(|n| n.seq > before));
        while kept.newest.len() > KEPT {
            kept.floor = kept.newest.pop_front().map_or(kept.floor, |n| n.seq);
        }
        let head = kept.newest.back().map_or(kept.floor, |n| n.seq);
        drop(kept);
        self.head.send_if_modified(|h| std::mem::replace(h, head) != head);
    }

    fn since(&self, seq: u64) -> Result<Vec<HoldStep>, Gap> {
        let kept = self.kept();
        let head = kept.newest.back().map_or(kept.floor, |n| n.seq);
        if seq < kept.floor || seq > head {
            return Err(Gap);
        }
        Ok(kept.newest.iter().filter(|n| n.seq > seq).copied().collect())
    }
}

/// The step of a call that was held at some time; others are not news.
pub(super) fn news(seq: u64, step: Step, record: &CallRecord) -> Option<HoldStep> {
    (record.terms.is_some() && step != Step::Collected).then_some(HoldStep {
        seq,
        step,
        id: record.id,
        version: record.version,
        state: record.state,
        tier: record.tier,
    })
}

impl Store {
    /// Durable steps of held calls behind record `seq`, oldest first.
    ///
    /// # Errors
    /// [`Gap`] when some may be forgotten, or `seq` is not of this journal.
    pub fn news(&self, seq: u64) -> Result<Vec<HoldStep>, Gap> {
        self.inner.board.since(seq)
    }

    /// Tells whenever there is news: the number of the newest one. What is seen first counts as known.
    #[must_use]
    pub fn follow_news(&self) -> watch::Receiver<u64> {
        self.inner.board.head.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(seq: u64) -> HoldStep {
        HoldStep { seq, step: Step::Voted, id: CallId::new(), version: 1, state: State::Held, tier: Tier::Medium }
    }

    #[test]
    fn who_was_away_too_long_or_comes_from_elsewhere_is_told_of_a_gap() {
        let board = Board::new(10);
        assert_eq!(board.since(10), Ok(vec![]));
        assert_eq!((board.since(9), board.since(11)), (Err(Gap), Err(Gap)));
        let (a, b) = (step(12), step(15));
        board.put([a, b].into_iter());
        board.put([a].into_iter());
        assert_eq!(board.since(10), Ok(vec![a, b]));
        assert_eq!(board.since(12), Ok(vec![b]));
        board.put((16..=15 + KEPT as u64).map(step));
        assert_eq!(board.since(12), Err(Gap));
        assert_eq!(board.since(15).unwrap().len(), KEPT);
    }

    #[test]
    fn followers_hear_of_steps_and_not_of_nothing() {
        let board = Board::new(1);
        let mut head = board.head.subscribe();
        board.put(std::iter::empty());
        assert!(!head.has_changed().unwrap() && board.is_watched());
        board.put([step(2)].into_iter());
        assert!(head.has_changed().unwrap());
        assert_eq!(*head.borrow_and_update(), 2);
    }
}
