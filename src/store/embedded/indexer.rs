//! The thread that follows the journal: once frames are durable it wakes watchers, fills the index, and
//! lets memory go.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use tokio::sync::watch;

use crate::call::CallId;
use crate::failpoint;
use crate::journal::{Head, Journal};
use crate::store::State;

use super::core::Core;
use super::index::{Applied, Change, Index, IndexError};

/// Above so many entries, those nobody waits for are dropped.
const SWEEP: usize = 1024;
const BATCH: usize = 1024;

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
        let Change::Call(record) = change else { return };
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

impl Indexer {
    /// Runs until the store closes or something fails.
    pub(super) fn run(self) {
        let mut waiting: VecDeque<Task> = VecDeque::new();
        loop {
            if waiting.is_empty() {
                let Ok(task) = self.tasks.recv() else { return };
                waiting.push_back(task);
            }
            let Some(first) = waiting.front().map(|t| t.seq) else { continue };
            let Ok(head) = self.journal.durable_blocking(first) else {
                self.broken.store(true, Relaxed);
                return;
            };
            waiting.extend(self.tasks.try_iter());
            let due = waiting.iter().take_while(|t| t.seq <= head.seq).count();
            let whole = due <= BATCH;
            let batch: Vec<Task> = waiting.drain(..due.min(BATCH)).collect();
            if let Err(error) = self.follow(&batch, whole.then_some(head)) {
                tracing::error!(%error, "the index cannot be written; nothing with effects is done any more");
                self.broken.store(true, Relaxed);
                return;
            }
        }
    }

    /// `head` when the batch reaches up to it; else the mark stays where it is, and a replay repeats some.
    fn follow(&self, batch: &[Task], head: Option<Head>) -> Result<(), IndexError> {
        batch.iter().flat_map(|t| &t.changes).for_each(|c| self.watchers.publish(c));
        let changes: Vec<Change> = batch.iter().flat_map(|t| &t.changes).cloned().collect();
        failpoint::hit("index.before");
        self.index.apply(&changes, head.map(|h| Applied { seq: h.seq, hash: h.hash }))?;
        failpoint::hit("index.applied");
        self.core.lock().unwrap_or_else(PoisonError::into_inner).evict(&changes);
        let done = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        self.indexed.send_modify(|n| *n = n.saturating_add(done));
        if batch.iter().any(|t| t.sync) {
            failpoint::hit("index.sync");
            self.index.sync()?;
            failpoint::hit("index.synced");
        }
        Ok(())
    }
}
