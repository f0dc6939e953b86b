//! The thread that follows the journal: once frames are durable it wakes watchers, fills the index, and
//! lets memory go.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::call::CallId;
use crate::failpoint;
use crate::journal::{Head, Journal};
use crate::store::State;

use super::core::Core;
use super::index::{Applied, Change, Index, IndexError};

/// Above so many entries, those nobody waits for are dropped.
const SWEEP: usize = 1024;
/// The index is filled by so many steps at a time: sled puts every batch on the disk by itself, beside the journal.
const BATCH: usize = 512;
/// Fewer are filled in once nothing more has come for so long.
const PAUSE: Duration = Duration::from_millis(20);

/// What one frame asks of the indexer.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) seq: u64,
    pub(super) changes: Vec<Change>,
    /// Put the index on the disk for real afterwards.
    pub(super) sync: bool,
}

/// Who waits for which call.
#[derive(Debug, Default)]
pub(super) struct Watchers(Mutex<HashMap<CallId, watch::Sender<(State, u64)>>>);

impl Watchers {
    fn map(&self) -> MutexGuard<'_, HashMap<CallId, watch::Sender<(State, u64)>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a call that is now as given.
    pub(super) fn watch(&self, id: CallId, now: (State, u64)) -> watch::Receiver<(State, u64)> {
        if now.0.is_final() {
            return watch::Sender::new(now).subscribe();
        }
        let mut map = self.map();
        if map.len() > SWEEP {
            map.retain(|_, sender| sender.receiver_count() > 0);
        }
        map.entry(id).or_insert_with(|| watch::Sender::new(now)).subscribe()
    }

    fn publish(&self, change: &Change) {
        let Change::Call(record, _) = change else { return };
        let mut map = self.map();
        if let Some(sender) = map.get(&record.id) {
            sender.send_replace((record.state, record.version));
        }
        if record.state.is_final() {
            map.remove(&record.id);
        }
    }
}

/// What the thread works with.
pub(super) struct Indexer {
    pub(super) core: Arc<Mutex<Core>>,
    pub(super) journal: Arc<Journal>,
    pub(super) index: Arc<Index>,
    pub(super) watchers: Arc<Watchers>,
    pub(super) tasks: mpsc::Receiver<Task>,
    pub(super) indexed: watch::Sender<u64>,
    pub(super) broken: Arc<AtomicBool>,
}

/// Where the indexer stands.
#[derive(Default)]
struct Progress {
    /// Told, but not known to be durable yet.
    waiting: VecDeque<Task>,
    /// Durable, and not in the index yet.
    ripe: Vec<Task>,
    /// Up to where nothing but `ripe` is missing from the index.
    head: Option<Head>,
}

impl Indexer {
    /// Runs until the store closes or something fails.
    pub(super) fn run(self) {
        let mut progress = Progress::default();
        while let Some(done) = self.turn(&mut progress) {
            if let Err(error) = done {
                tracing::error!(%error, "the index cannot be written; nothing with effects is done any more");
                self.broken.store(true, Relaxed);
                return;
            }
        }
    }

    /// Takes what has come, and fills the index when enough has ripened or nothing more comes. `None` at the end.
    fn turn(&self, p: &mut Progress) -> Option<Result<(), IndexError>> {
        if p.waiting.is_empty() {
            let next = if p.ripe.is_empty() {
                self.tasks.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.tasks.recv_timeout(PAUSE)
            };
            match next {
                Ok(task) => p.waiting.push_back(task),
                Err(RecvTimeoutError::Timeout) => return Some(self.fill(p)),
                Err(RecvTimeoutError::Disconnected) if p.ripe.is_empty() => return None,
                Err(RecvTimeoutError::Disconnected) => return Some(self.fill(p)),
            }
        }
        let first = p.waiting.front()?.seq;
        let Ok(head) = self.journal.durable_blocking(first) else {
            return Some(Err(IndexError::of("the journal failed first".to_owned())));
        };
        p.waiting.extend(self.tasks.try_iter());
        let due = p.waiting.iter().take_while(|t| t.seq <= head.seq).count();
        p.ripe.extend(p.waiting.drain(..due).inspect(|task| self.publish(task)));
        p.head = Some(head);
        let fill = p.ripe.len() >= BATCH || p.ripe.iter().any(|t| t.sync);
        Some(if fill { self.fill(p) } else { Ok(()) })
    }

    fn publish(&self, task: &Task) {
        task.changes.iter().for_each(|c| self.watchers.publish(c));
    }

    fn fill(&self, p: &mut Progress) -> Result<(), IndexError> {
        let batch = std::mem::take(&mut p.ripe);
        let sync = batch.iter().any(|t| t.sync);
        let done = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let changes: Vec<Change> = batch.into_iter().flat_map(|t| t.changes).collect();
        failpoint::hit("index.before");
        self.index.apply(&changes, p.head.map(|h| Applied { seq: h.seq, hash: h.hash }))?;
        failpoint::hit("index.applied");
        self.core.lock().unwrap_or_else(PoisonError::into_inner).evict(&changes);
        self.indexed.send_modify(|n| *n = n.saturating_add(done));
        if sync {
            failpoint::hit("index.sync");
            self.index.sync()?;
            failpoint::hit("index.synced");
        }
        Ok(())
    }
}
