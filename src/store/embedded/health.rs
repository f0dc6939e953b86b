//! How the store is, for readiness and for people.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use super::{MAX_BACKLOG, MAX_LAG, Store};

/// Calls with effects need at least so much room on the disk; with less, readiness goes before writes fail.
pub const MIN_FREE: u64 = 8 << 20;

/// How the store is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Nothing has failed since the open.
    pub writable: bool,
    /// The journal is, as far as it was signed, what was signed.
    pub history: Result<(), String>,
    /// The last checkpoint was signed and written.
    pub signs: bool,
    /// Records that wait for the disk.
    pub backlog: u64,
    /// Steps that the index has not got yet.
    pub lag: u64,
    /// Bytes that are free where the state is; `None` when the system does not say.
    pub free: Option<u64>,
}

impl Health {
    /// Whether the disk keeps up: neither journal nor index is far behind.
    #[must_use]
    pub fn keeps_up(&self) -> bool {
        self.backlog <= MAX_BACKLOG && self.lag <= MAX_LAG
    }

    /// Whether there is room to go on.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.free.is_none_or(|free| free >= MIN_FREE)
    }
}

/// Bytes that an ordinary user may still write where `path` is.
#[must_use]
pub fn free_bytes(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

impl Store {
    /// How the store is now. Asks the file system; waits for nobody.
    #[must_use]
    pub fn health(&self) -> Health {
        let inner = &self.inner;
        Health {
            writable: self.healthy(),
            history: inner.checkpoints.trouble().map_or(Ok(()), Err),
            signs: inner.checkpoints.works(),
            backlog: inner.journal.backlog(),
            lag: inner.sent.load(Relaxed).saturating_sub(*inner.indexed.borrow()),
            free: free_bytes(inner.journal.dir()),
        }
    }
}
