//! The thread that follows the journal: once frames are durable it wakes watchers, fills the index, and
//! lets memory go.

use std::collections::HashMap;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::call::CallId;
use crate::failpoint;
use crate::journal::{Head, Journal};
use crate::store::State;

use super::core::Core;
use super::index::{Applied, Change, Index, IndexError};
use super::news::{Board, HoldStep, news};

/// Above so many entries, those nobody waits for are dropped.
const SWEEP: usize = 1024;
/// The index is filled by so many steps at a time: sled puts every batch on the disk by itself, beside the journal.
const BATCH: usize = 512;
/// Memory lets go of so many steps at a time.
const EVICTED: usize = 32;
/// Fewer are filled in after so long. Until then the thread sleeps, unless somebody waits for a call that changed.
const PAUSE: Duration = Duration::from_millis(20);

/// What one frame asks of the indexer.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) seq: u64,
    pub(super) changes: Vec<Change>,
    /// Put the index on the disk for real afterwards.
    pub(super) sync: bool,
}

impl Task {
    fn news(&self) -> impl Iterator<Item = HoldStep> {
        self.changes.iter().filter_map(|change| match change {
            Change::Call(record, _, step) => news(self.seq, *step, record),
            Change::Artifact(_) => None,
        })
    }
}

/// What the indexer is told. To wake a thread for each frame would cost more than what it does.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    told: Mutex<Told>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Told {
    tasks: Vec<Task>,
    urgent: bool,
    closed: bool,
    /// The thread sleeps until there is any task at all.
    asleep: bool,
}

impl Told {
    fn is_due(&self) -> bool {
        self.urgent || self.closed || self.tasks.len() >= BATCH
    }
}

impl Inbox {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells a task; an urgent one is looked at once, others together with what comes within [`PAUSE`].
    pub(super) fn push(&self, task: Task, urgent: bool) {
        let mut told = self.told();
        told.tasks.push(task);
        let wake = told.asleep || urgent || told.tasks.len() == BATCH;
        told.urgent |= urgent;
        told.asleep = false;
        drop(told);
        if wake {
            self.filled.notify_one();
        }
    }

    /// Nothing more comes.
    pub(super) fn close(&self) {
        self.told().closed = true;
        self.filled.notify_one();
    }

    /// What was told: at once when it is enough or urgent, else after a pause. `None`: closed, and nothing is left.
    fn take(&self) -> Option<Vec<Task>> {
        let mut told = self.told();
        while told.tasks.is_empty() && !told.closed {
            told.asleep = true;
            told = self.filled.wait(told).unwrap_or_else(PoisonError::into_inner);
        }
        told.asleep = false;
        let waited = self.filled.wait_timeout_while(told, PAUSE, |told| !told.is_due());
        told = waited.unwrap_or_else(PoisonError::into_inner).0;
        told.urgent = false;
        let tasks = std::mem::take(&mut told.tasks);
        (!tasks.is_empty()).then_some(tasks)
    }

    /// What was told of frames up to `seq` meanwhile. A frame is told before it is in the journal.
    fn take_until(&self, seq: u64) -> Vec<Task> {
        let mut told = self.told();
        let later = told.tasks.partition_point(|task| task.seq <= seq);
        told.tasks.drain(..later).collect()
    }
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

    /// Whether anybody waits for this call.
    pub(super) fn has(&self, change: &Change) -> bool {
        matches!(change, Change::Call(record, ..) if self.map().contains_key(&record.id))
    }

    fn publish<'a>(&self, changes: impl Iterator<Item = &'a Change>) {
        let mut map = self.map();
        if map.is_empty() {
            return;
        }
        for change in changes {
            let Change::Call(record, ..) = change else { continue };
            if let Some(sender) = map.get(&record.id) {
                sender.send_replace((record.state, record.version));
            }
            if record.state.is_final() {
                map.remove(&record.id);
            }
        }
    }
}

/// What the thread works with.
pub(super) struct Indexer {
    pub(super) core: Arc<Mutex<Core>>,
    pub(super) journal: Arc<Journal>,
    pub(super) index: Arc<Index>,
    pub(super) watchers: Arc<Watchers>,
    pub(super) board: Arc<Board>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) indexed: watch::Sender<u64>,
    pub(super) broken: Arc<AtomicBool>,
}

/// Calls with effects must not go on with an index that nobody fills.
struct Ending<'a> {
    indexer: &'a Indexer,
    orderly: bool,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if !self.orderly {
            self.indexer.broken.store(true, Relaxed);
            // Nobody wakes them any more.
            self.indexer.watchers.map().clear();
        }
    }
}

impl Indexer {
    /// Runs until the store closes or something fails.
    pub(super) fn run(self) {
        let mut ending = Ending { indexer: &self, orderly: false };
        while let Some(tasks) = self.inbox.take() {
            if let Err(error) = self.follow(tasks) {
                tracing::error!(%error, "the index cannot be written; nothing with effects is done any more");
                return;
            }
        }
        ending.orderly = true;
    }

    /// Waits until the frames are durable; then wakes who waits for their calls, and fills the index.
    fn follow(&self, mut tasks: Vec<Task>) -> Result<(), IndexError> {
        let last = tasks.last().map_or(0, |t| t.seq);
        let durable = self.journal.durable_blocking(last);
        let head = durable.unwrap_or_else(|_| self.journal.head());
        // Nothing up to the head may be missing from the index when it says that it has all up to there.
        tasks.extend(self.inbox.take_until(head.seq));
        let told = tasks.iter().take_while(|t| t.seq <= head.seq);
        self.board.put(told.clone().flat_map(Task::news));
        self.watchers.publish(told.flat_map(|t| &t.changes));
        durable.map_err(|_| IndexError::of("the journal failed first".to_owned()))?;
        self.fill(&tasks, head)
    }

    fn fill(&self, tasks: &[Task], head: Head) -> Result<(), IndexError> {
        if self.broken.load(SeqCst) {
            return Err(IndexError::of("a step could not be told".to_owned()));
        }
        let applied = Applied { seq: head.seq, hash: head.hash };
        failpoint::hit("index.before");
        self.index.apply(tasks.iter().flat_map(|t| &t.changes), Some(applied))?;
        failpoint::hit("index.applied");
        // A few at a time: every step of a call waits for this lock.
        for some in tasks.chunks(EVICTED) {
            let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
            let gone = core.evict(some.iter().flat_map(|t| &t.changes));
            drop(core);
            drop(gone);
        }
        self.indexed.send_modify(|n| *n = n.saturating_add(u64::try_from(tasks.len()).unwrap_or(u64::MAX)));
        if tasks.iter().any(|t| t.sync) {
            failpoint::hit("index.sync");
            self.index.sync()?;
            failpoint::hit("index.synced");
        }
        Ok(())
    }
}
