//! The store of one process: the journal is the commit point, sled the index over it, memory the rest.

mod alike;
mod checkpoint;
mod core;
mod denials;
mod entry;
mod forgotten;
mod grants;
mod health;
mod holds;
mod index;
mod indexer;
mod keys;
mod ledger;
mod lock;
mod logged;
mod news;
mod open;
mod packed;
mod pauses;
mod points;
mod query;
mod retain;
mod samples;
mod steps;
mod tally;
mod told;
mod top_up;
mod trust;

use std::fmt;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::call::{CallId, Fault, GrantOver, Tier, Timestamp};
use crate::clock::Clock;
use crate::failpoint;
use crate::journal::{Head, Journal, Sealed};

use super::changed::Changed;
use super::state::{self, Event, Illegal};
use super::{CallRecord, State, Step};

pub use alike::Alike;
pub use health::{Health, MIN_FREE, free_bytes};
pub use logged::{Logged, kind_of};
pub use news::{Gap, HoldStep};
pub use open::OpenError;
pub(crate) use retain::NOTE as SHORTENED;
pub use retain::{Keep, Shortened};
pub use told::{News, Told};
pub use trust::Trusted;

use self::checkpoint::Checkpoints;
use self::core::Core;
use self::entry::{Entry, followed, placed};
use self::index::{Applied, Change, Index, IndexError};
use self::indexer::{Inbox, Task, Watchers};
use self::news::Board;

/// Frames without durability of their own may run ahead of the disk by so many.
const MAX_BACKLOG: u64 = 4096;
/// The index may lag by so many steps before others wait for it; bounds memory.
const MAX_LAG: u64 = 32_768;

/// How a store is kept.
#[derive(Clone)]
pub struct Options {
    /// Seals payloads. `None`: the file `payload.key` in the state directory, made at the first open.
    pub key: Option<[u8; 32]>,
    /// A new journal segment begins once this much is written.
    pub segment_bytes: u64,
    /// Journal files grow by this much at a time.
    pub preallocate: u64,
    /// Newest payloads kept in memory, in bytes.
    pub cache_bytes: usize,
    /// An open checks at most so much of the journal before where its replay begins; `audit::verify`
    /// checks it all.
    pub check_bytes: u64,
    /// The answer of a hold stays collectable without its key for so long after it was collected.
    pub collect_for: Duration,
    /// A denial is repeated for so long after it was first told.
    pub denial_for: Duration,
    /// Holds without a key given by the client stay collectable for at most this, from their end.
    pub hold_keep: Duration,
    /// A second place for each signed checkpoint, best on another disk: a state directory that was rolled back as a
    /// whole cannot hide it.
    pub checkpoint_copy: Option<std::path::PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        let journal = crate::journal::Options::default();
        Self {
            key: None,
            segment_bytes: journal.segment_bytes,
            preallocate: journal.preallocate,
            cache_bytes: journal.cache_bytes,
            check_bytes: 256 << 20,
            collect_for: Duration::from_secs(120),
            denial_for: Duration::from_secs(120),
            hold_keep: Duration::from_secs(86_400),
            checkpoint_copy: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("segment_bytes", &self.segment_bytes).finish_non_exhaustive()
    }
}

/// What an open found and did. It stands in the journal, too.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Recovery {
    /// The epoch of this process; it never decreases.
    pub epoch: u64,
    /// Frames read.
    pub replayed: u64,
    /// Bytes of a torn last write that were cut off.
    pub torn_bytes: u64,
    /// Calls that were being sent when their process died.
    pub to_unknown: Vec<CallId>,
    /// Calls of dead processes that are declared idempotent and may be sent again; still `dispatching`.
    #[serde(default)]
    pub to_resend: Vec<CallId>,
    /// Approved calls that wait to be sent.
    pub approved: Vec<CallId>,
    /// The index was missing, unreadable, or disagreed with the journal, and was rebuilt.
    pub index_rebuilt: bool,
    /// Records that were durable once and are gone: the state was rolled back, or its last write rotted.
    /// What they said is not known; an operator should look before calls with effects are taken.
    #[serde(default)]
    pub records_lost: u64,
    /// The journal is not, or not all of, what was signed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<String>,
    /// The last process did not end in order: records that were not made durable one by one (reads,
    /// refusals, collections) may be missing.
    #[serde(default)]
    pub audit_gap: bool,
    /// What is set aside did not match the open calls, and was corrected.
    pub ledgers_corrected: bool,
}

impl fmt::Display for Recovery {
    /// For people, in one line; what is not the case is not said.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}, {} records read", self.epoch, self.replayed)?;
        let calls = |ids: &[CallId]| ids.iter().take(5).map(ToString::to_string).collect::<Vec<_>>().join(", ");
        for (ids, what) in [
            (&self.to_unknown, "were being sent when the last process died, their outcome is unknown"),
            (&self.to_resend, "were being sent when the last process died and are sent again"),
            (&self.approved, "are approved and wait to be sent"),
        ] {
            if !ids.is_empty() {
                write!(f, "; {} calls {what} ({}{})", ids.len(), calls(ids), if ids.len() > 5 { ", …" } else { "" })?;
            }
        }
        let said = [
            (self.torn_bytes > 0, format!("{} bytes of a torn last write were cut off", self.torn_bytes)),
            (self.index_rebuilt, "the index was rebuilt".to_owned()),
            (self.records_lost > 0, format!("{} records that were durable are GONE", self.records_lost)),
            (self.audit_gap, "the last process did not end in order".to_owned()),
            (self.ledgers_corrected, "the ledgers did not match the open calls and were corrected".to_owned()),
        ];
        said.iter().filter(|(is, _)| *is).try_for_each(|(_, text)| write!(f, "; {text}"))?;
        self.rollback.iter().try_for_each(|trouble| write!(f, "; {trouble}: calls with effects are refused"))
    }
}

/// How many calls are open, by state and tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// The state that holds now.
    pub state: State,
    /// The tier.
    pub tier: Tier,
    /// How many.
    pub calls: usize,
}

/// The store. Clones share it; it closes with the last one.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    // Dropped in `Drop::drop` in order: the indexer's queue, the journal, then the lock with the rest.
    core: Arc<Mutex<Core>>,
    /// The same as the state's: read without its lock.
    pauses: pauses::Pauses,
    journal: Arc<Journal>,
    index: Arc<Index>,
    watchers: Arc<Watchers>,
    board: Arc<Board>,
    inbox: Arc<Inbox>,
    indexer: Option<JoinHandle<()>>,
    /// Tasks given to the indexer, and how many of them it has done.
    sent: AtomicU64,
    indexed: watch::Receiver<u64>,
    broken: Arc<AtomicBool>,
    evictions: Arc<AtomicU64>,
    /// Whose time was found to be over, by whatever step, since [`Store::take_expired`].
    expired: Mutex<Vec<CallId>>,
    clock: Arc<dyn Clock>,
    epoch: u64,
    checkpoints: Checkpoints,
    shortened: Mutex<retain::Finished>,
    _lock: lock::Lock,
}

/// Nothing can be recorded: journal or index failed, or a step panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unavailable;

impl From<IndexError> for Unavailable {
    fn from(error: IndexError) -> Self {
        tracing::error!(%error, "store");
        Self
    }
}

impl From<Unavailable> for Fault {
    fn from(_: Unavailable) -> Self {
        Self::new("the store cannot be written or read")
    }
}

/// Why an event was not applied.
enum Refused {
    Illegal(Illegal),
    Unavailable,
}

impl From<Unavailable> for Refused {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

impl Inner {
    /// The state, and the store's time for this step.
    fn lock(&self) -> Result<(MutexGuard<'_, Core>, Timestamp), Unavailable> {
        let mut core = self.core.lock().map_err(|_| Unavailable)?;
        let now = core.now(self.clock.now());
        Ok((core, now))
    }

    /// The same for steps with effects: refuses once anything failed.
    fn lock_healthy(&self) -> Result<(MutexGuard<'_, Core>, Timestamp), Unavailable> {
        if self.broken.load(Relaxed) || !self.journal.healthy() { Err(Unavailable) } else { self.lock() }
    }

    /// Puts one frame into the journal and its change into memory. Not yet durable.
    fn commit(
        &self,
        core: &mut Core,
        now: Timestamp,
        payloads: Vec<Sealed>,
        make: impl FnOnce(u64) -> Entry,
    ) -> Result<u64, Unavailable> {
        self.rotate_if_due(core, now)?;
        self.append(core, now, false, payloads, make)
    }

    fn rotate_if_due(&self, core: &mut Core, now: Timestamp) -> Result<(), Unavailable> {
        if !self.journal.wants_rotation() {
            return Ok(());
        }
        let image = Entry::Snapshot(Box::new(core.image()));
        self.append(core, now, true, Vec::new(), |_| image).map(drop)
    }

    fn append(
        &self,
        core: &mut Core,
        now: Timestamp,
        rotate: bool,
        payloads: Vec<Sealed>,
        make: impl FnOnce(u64) -> Entry,
    ) -> Result<u64, Unavailable> {
        let mut failed = None;
        let appended = self.journal.append(now, rotate, payloads, |seq| {
            let entry = Arc::new(make(seq));
            match core.apply(seq, now, &entry) {
                Ok(changes) if changes.is_empty() && !rotate => {}
                Ok(changes) => self.tell_indexer(Task { seq, changes, sync: rotate }),
                Err(error) => {
                    // Before the frame is queued: the index must not say that it has it.
                    self.broken.store(true, SeqCst);
                    failed = Some(error);
                }
            }
            entry.render()
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        appended.map_err(|_| Unavailable)
    }

    fn tell_indexer(&self, task: Task) {
        self.sent.fetch_add(1, Relaxed);
        let held = |c: &Change| matches!(c, Change::Call(record, ..) if record.terms.is_some());
        let told = self.board.is_watched() && task.changes.iter().any(held);
        let urgent = task.sync || told || task.changes.iter().any(|change| self.watchers.has(change));
        self.inbox.push(task, urgent);
    }

    /// Applies one event of the state machine to a call.
    fn step(
        &self,
        core: &mut Core,
        record: &CallRecord,
        event: Event,
        now: Timestamp,
        payloads: Vec<Sealed>,
    ) -> Result<Arc<CallRecord>, Refused> {
        let step = event.step();
        let next = state::apply(record, event, now).map_err(Refused::Illegal)?;
        match step {
            Step::Rejected => self.end_alike(core, record, GrantOver::Rejected, now)?,
            Step::Renewed => self.end_from(core, record.id, now)?,
            _ => {}
        }
        if let Some(why) = trust::ends_grants(step, record) {
            self.end_alike(core, record, why, now)?;
        }
        Ok(self.write(core, step, record, next, now, payloads)?)
    }

    /// Writes the next record of a call: whole when it comes first in its segment, else what changed.
    fn write(
        &self,
        core: &mut Core,
        step: Step,
        old: &CallRecord,
        mut next: CallRecord,
        now: Timestamp,
        payloads: Vec<Sealed>,
    ) -> Result<Arc<CallRecord>, Unavailable> {
        self.rotate_if_due(core, now)?;
        let whole = old.frames.first().is_none_or(|first| *first < core.segment);
        if whole {
            next.frames.clear();
        }
        let id = next.id;
        self.append(core, now, false, payloads, |seq| {
            placed(&mut next, seq);
            let next = Arc::new(followed(next, seq));
            if whole {
                return Entry::Call { step, record: next };
            }
            let changed = Box::new(Changed::between(old, &next));
            debug_assert!(changed.leads(old, &next), "a member that a step changes is missing from `Changed`");
            Entry::Step { step, id, changed, next: Some(next) }
        })?;
        points::queued(step);
        core.calls.get(&id).cloned().ok_or(Unavailable)
    }

    /// Records that a hold's time is over, if it is and nobody did: what is told of it then stands.
    fn settle(&self, core: &mut Core, id: CallId, now: Timestamp) -> Result<(), Unavailable> {
        let Some(record) = core.calls.get(&id).filter(|r| r.state_at(now) != r.state).cloned() else { return Ok(()) };
        match self.step(core, &record, Event::Expire, now, Vec::new()) {
            Ok(_) => {
                self.expired.lock().unwrap_or_else(PoisonError::into_inner).push(id);
                Ok(())
            }
            Err(Refused::Illegal(_)) => Ok(()),
            Err(Refused::Unavailable) => Err(Unavailable),
        }
    }

    /// Waits until frame `seq` is on the disk, and until the index is not too far behind.
    async fn durable(&self, seq: u64) -> Result<(), Unavailable> {
        self.journal.durable(seq).await.map_err(|_| Unavailable)?;
        let sent = self.sent.load(Relaxed);
        if sent.saturating_sub(*self.indexed.borrow()) > MAX_LAG {
            let mut indexed = self.indexed.clone();
            indexed.wait_for(|done| sent.saturating_sub(*done) <= MAX_LAG).await.map_err(|_| Unavailable)?;
        }
        Ok(())
    }

    /// Waits until a record may be told, and tells it.
    async fn tell(&self, record: Arc<CallRecord>) -> Result<CallRecord, Unavailable> {
        self.durable(record.seq).await?;
        Ok(Arc::unwrap_or_clone(record))
    }
}

impl Store {
    /// Whether steps with effects are taken: nothing has failed since the open. The cure is a restart.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.inner.journal.healthy() && !self.inner.broken.load(Relaxed)
    }

    /// The epoch of this process.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.inner.epoch
    }

    /// The journal beneath, for its counters.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.inner.journal
    }
}

impl Inner {
    /// Writes that this is an orderly end. Nobody else writes any more.
    fn close(&self) {
        let Ok(now) = self.lock_healthy().map(|(_, now)| now) else { return };
        failpoint::hit("close.before");
        let entry = Arc::new(Entry::Closed { epoch: self.epoch });
        let appended = self.journal.append(now, false, Vec::new(), |_| entry.render());
        let closed = appended.and_then(|seq| self.journal.durable_blocking(seq));
        if closed.is_err() {
            tracing::warn!("the end could not be recorded; the next open reports a gap");
        }
    }
}

impl Drop for Inner {
    /// Ends the threads: what is queued is written and indexed first.
    fn drop(&mut self) {
        self.inbox.close();
        if let Some(indexer) = self.indexer.take() {
            let ended = indexer.join();
            debug_assert!(ended.is_ok(), "the indexer's thread panicked");
        }
        self.close();
        failpoint::hit("close.recorded");
        if let Err(error) = self.sign() {
            tracing::warn!(%error, "the last checkpoint could not be signed");
        }
        failpoint::hit("close.signed");
        let Head { seq, hash } = self.journal.head();
        let whole = !self.broken.load(Relaxed) && self.journal.healthy();
        let mark =
            || self.index.apply(std::iter::empty(), Some(Applied { seq, hash })).and_then(|()| self.index.sync());
        if let Err(error) = if whole { mark() } else { Ok(()) } {
            tracing::warn!(%error, "the index was not synced; the next open replays more");
        }
        failpoint::hit("close.synced");
    }
}

#[cfg(test)]
mod tests;
