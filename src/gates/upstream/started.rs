//! Whether a byte of a call may be on the wire: the one thing that tells "not sent" from "may have happened".

use std::sync::atomic::{AtomicU8, Ordering};

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// Shared by whoever writes a call and whoever waits for its deadline: the first of them decides.
#[derive(Debug, Default)]
pub(super) struct Started(AtomicU8);

impl Started {
    /// From now on a byte may be on the wire. False when the caller was first to give up: then nothing may be written.
    pub(super) fn begin(&self) -> bool {
        self.0.compare_exchange(WAITING, BEGUN, Ordering::AcqRel, Ordering::Acquire).is_ok() || self.is_begun()
    }

    /// It turned out that nothing was written.
    pub(super) fn undo(&self) {
        self.0.store(WAITING, Ordering::Release);
    }

    /// The caller gives up. True when nothing was written, and nothing will be.
    pub(super) fn withdraw(&self) -> bool {
        match self.0.compare_exchange(WAITING, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(state) => state == WITHDRAWN,
        }
    }

    pub(super) fn is_begun(&self) -> bool {
        self.0.load(Ordering::Acquire) == BEGUN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_writer_and_caller_decides() {
        let started = Started::default();
        assert!(started.withdraw() && !started.begin() && started.withdraw() && !started.is_begun());
        let started = Started::default();
        assert!(started.begin() && started.begin() && !started.withdraw() && started.is_begun());
        started.undo();
        assert!(!started.is_begun() && started.withdraw());
    }
}
