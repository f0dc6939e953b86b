//! Opening: lock, key, replay, index, and the recovery steps. Each of them is a frame like any other, so a
//! crash in here is just another crash.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::clock::Clock;
use crate::failpoint;
use crate::journal::{self, Frame, Journal, Log, ReadError, Reader, Sealer};
use crate::store::State;
use crate::store::state::{Event, may_go_again};

use super::checkpoint::Checkpoints;
use super::core::{Collecting, Core};
use super::entry::Entry;
use super::index::{Applied, Change, Index, IndexError};
use super::indexer::{Inbox, Indexer, Watchers};
use super::lock::{Lock, LockError};
use super::news::Board;
use super::{Inner, Options, Recovery, Refused, Store, Unavailable};

const REPLAY_BATCH: usize = 512;

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the state directory `{dir}` is in use by another process ({who})")]
    Locked {
        /// The state directory.
        dir: PathBuf,
        /// What that process says about itself.
        who: String,
    },
    /// A file could not be read or written.
    #[error("{what} `{path}`")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The journal is damaged; nothing was changed.
    #[error("{0}; restore the state directory or look at it with `holdpoint audit verify`")]
    Damaged(journal::Bad),
    /// The payloads in the journal were sealed with another key, or its file is gone.
    #[error("the payload key is missing or not the one that this state was written with")]
    WrongKey,
    /// The index failed even when rebuilt.
    #[error("the index cannot be rebuilt: {0}")]
    Index(String),
    /// The recovery could not be recorded.
    #[error("the recovery could not be written to the journal")]
    Unwritable,
}

impl OpenError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Bad(bad) => Self::Damaged(bad),
            ReadError::Io(source) => Self::Io { what: "cannot read the journal in", path: PathBuf::new(), source },
        }
    }
}

impl From<IndexError> for OpenError {
    fn from(error: IndexError) -> Self {
        Self::Index(error.to_string())
    }
}

impl From<Unavailable> for OpenError {
    fn from(_: Unavailable) -> Self {
        Self::Unwritable
    }
}

/// What a replay left.
struct Replayed {
    core: Core,
    index: Arc<Index>,
    frames: u64,
    rebuilt: bool,
    lost: u64,
    closed: bool,
}

impl Store {
    /// Opens, or makes, the state directory; blocks. Recovery is done and durable when it returns: a
    /// new epoch, calls that a dead process was sending are `unknown`, ledgers match the open calls.
    ///
    /// # Errors
    /// When another process has it, a file cannot be used, the key is another one, or the journal is
    /// damaged in the middle. A torn end is no error; it is cut off and reported.
    pub fn open(dir: &Path, clock: Arc<dyn Clock>, options: Options) -> Result<(Self, Recovery), OpenError> {
        make_dir(dir).map_err(OpenError::io("cannot make", dir))?;
        let lock = take_lock(dir)?;
        failpoint::hit("open.locked");
        let sealer = sealer(dir, &options)?;
        let log_options = journal::Options {
            segment_bytes: options.segment_bytes,
            preallocate: options.preallocate,
            cache_bytes: options.cache_bytes,
        };
        let mut log = Log::open(&dir.join("journal"), log_options)?;
        let replayed = replay(dir, &mut log, &options)?;
        if replayed.core.key_id.is_some_and(|id| id != sealer.key_id()) {
            return Err(OpenError::WrongKey);
        }
        failpoint::hit("open.replayed");
        let key_id = sealer.key_id();
        let checkpoints = Checkpoints::open(dir, &options, &log.reader(), log.head());
        let checkpoints = checkpoints.map_err(OpenError::io("cannot use the checkpoints in", dir))?;
        let journal = log.start(sealer, checkpoints.signed())?;
        failpoint::hit("open.started");
        if replayed.lost > 0 {
            let text = format!("{} records that were durable are gone from the journal's end", replayed.lost);
            checkpoints.remember(&text).map_err(OpenError::io("cannot write in", dir))?;
        }
        let mut recovery = Recovery {
            epoch: replayed.core.epoch + 1,
            replayed: replayed.frames,
            torn_bytes: journal.torn_bytes(),
            index_rebuilt: replayed.rebuilt,
            records_lost: replayed.lost,
            rollback: checkpoints.trouble(),
            audit_gap: replayed.frames > 0 && !replayed.closed,
            ..Recovery::default()
        };
        let mut inner = assemble(replayed, journal, clock, (lock, checkpoints), recovery.epoch)
            .map_err(OpenError::io("cannot start the indexer of", dir))?;
        inner.recover(&mut recovery, key_id)?;
        inner._lock.sign(recovery.epoch).map_err(OpenError::io("cannot write the lock in", dir))?;
        Ok((Self { inner: Arc::new(inner) }, recovery))
    }
}

/// A directory that we make is private, and its name durable; one that is there (a mounted volume) keeps its mode.
fn make_dir(dir: &Path) -> io::Result<()> {
    let made: Vec<&Path> = dir.ancestors().take_while(|d| !d.as_os_str().is_empty() && !d.is_dir()).collect();
    if made.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    for parent in made.iter().filter_map(|d| d.parent()) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

fn take_lock(dir: &Path) -> Result<Lock, OpenError> {
    let path = dir.join("lock");
    Lock::take(&path).map_err(|error| match error {
        LockError::Held(who) => OpenError::Locked { dir: dir.to_owned(), who },
        LockError::Io(source) => OpenError::Io { what: "cannot lock", path, source },
    })
}

fn sealer(dir: &Path, options: &Options) -> Result<Sealer, OpenError> {
    let path = dir.join("payload.key");
    let written = journal::segments(&dir.join("journal")).is_ok_and(|s| !s.is_empty());
    let key = match options.key {
        Some(key) => key,
        None if written && !path.exists() => return Err(OpenError::WrongKey),
        None => journal::key_file(&path).map_err(OpenError::io("cannot use the key file", &path))?,
    };
    Sealer::new(&key).map_err(|e| OpenError::Io { what: "cannot use the key", path, source: io::Error::other(e) })
}

/// Reads the journal into memory and brings the index up to it; rebuilds an index that is not its index.
fn replay(dir: &Path, log: &mut Log, options: &Options) -> Result<Replayed, OpenError> {
    let path = dir.join("index");
    let mut lost = 0;
    match Index::open(&path) {
        Ok(index) => {
            let mut pass = Pass::new(index, log.reader(), options)?;
            log.check_older(pass.synced, options.check_bytes)?;
            let frames = log.replay(pass.synced, |frame| pass.visit(frame))?;
            match pass.finish() {
                Ok(()) => return Ok(pass.done(frames, 0)),
                Err(what) => tracing::error!(what, "the index disagrees with the journal and is rebuilt"),
            }
            lost = pass.lost();
        }
        Err(error) => tracing::error!(%error, "the index does not open and is rebuilt"),
    }
    set_aside(&path).map_err(OpenError::io("cannot set aside the index", &path))?;
    failpoint::hit("open.aside");
    let mut pass = Pass::new(Index::open(&path)?, log.reader(), options)?;
    let frames = log.replay(0, |frame| pass.visit(frame))?;
    pass.finish().map_err(OpenError::Index)?;
    Ok(Replayed { rebuilt: true, ..pass.done(frames, lost) })
}

fn set_aside(path: &Path) -> io::Result<()> {
    let free = (1..).map(|n| path.with_extension(format!("bad{n}"))).find(|p| !p.exists());
    match free {
        Some(to) if path.exists() => fs::rename(path, to),
        _ => Ok(()),
    }
}

/// One pass over the journal.
struct Pass {
    core: Core,
    index: Arc<Index>,
    applied: Option<Applied>,
    /// The newest record that the index may have anything of.
    newest: u64,
    synced: u64,
    closed: bool,
    started: bool,
    agrees: bool,
    /// An index that failed in the middle; the pass goes on to find the journal's end.
    failed: Option<String>,
    changes: Vec<Change>,
    head: Option<Applied>,
}

impl Pass {
    fn new(index: Index, reader: Arc<Reader>, options: &Options) -> Result<Self, IndexError> {
        let index = Arc::new(index);
        let collecting =
            Collecting { answers: options.collect_for, denials: options.denial_for, at_most: options.hold_keep };
        let applied = index.applied()?;
        let (synced, newest) = (index.synced()?.map_or(0, |a| a.seq), index.reaches()?);
        let core = Core::new(Arc::clone(&index), reader, collecting);
        let agrees = applied.is_none();
        Ok(Self {
            core,
            index,
            applied,
            newest,
            synced,
            closed: false,
            started: false,
            agrees,
            failed: None,
            changes: Vec::new(),
            head: None,
        })
    }

    fn done(self, frames: u64, lost: u64) -> Replayed {
        let rebuilt = self.applied.is_none() && frames > 0;
        Replayed { core: self.core, index: self.index, frames, rebuilt, lost, closed: self.closed }
    }

    /// How many records the index knows of that the journal does not have any more.
    fn lost(&self) -> u64 {
        let end = self.head.map_or(0, |h| h.seq);
        let lost = self.newest.saturating_sub(end);
        if lost > 0 {
            tracing::error!(lost, end, "records that were durable are gone from the journal");
        }
        lost
    }

    fn visit(&mut self, frame: &Frame) -> Result<(), String> {
        if self.failed.is_some() {
            return Ok(());
        }
        let entry: Entry = serde_json::from_str(frame.event.get()).map_err(|e| format!("unknown event: {e}"))?;
        let restored = match &entry {
            Entry::Snapshot(image) if !self.started => self.core.restore(image, frame.at),
            _ => Ok(()),
        };
        self.started = true;
        self.closed = matches!(entry, Entry::Closed { .. });
        self.agrees |= self.applied.is_some_and(|a| a.seq == frame.seq && a.hash == frame.hash);
        self.head = Some(Applied { seq: frame.seq, hash: frame.hash });
        let taken = restored.and_then(|()| self.core.apply(frame.seq, frame.at, &entry)).and_then(|changes| {
            self.changes.extend(changes);
            if self.changes.len() >= REPLAY_BATCH { self.flush() } else { Ok(()) }
        });
        self.failed = taken.err().map(|e| e.to_string());
        Ok(())
    }

    /// What the index has already is written again: the same bytes.
    fn flush(&mut self) -> Result<(), IndexError> {
        let changes = std::mem::take(&mut self.changes);
        let forward = self.head.filter(|head| self.applied.is_none_or(|a| head.seq > a.seq));
        self.index.apply(changes.iter(), forward)?;
        drop(self.core.evict(changes.iter()));
        Ok(())
    }

    fn finish(&mut self) -> Result<(), String> {
        let knows_more = self.newest > self.head.map_or(0, |h| h.seq);
        if (!self.agrees || knows_more) && self.failed.is_none() {
            return Err("it does not know the journal's end".to_owned());
        }
        match self.failed.take() {
            Some(what) => Err(what),
            None => self.flush().map_err(|e| e.to_string()),
        }
    }
}

fn assemble(
    replayed: Replayed,
    journal: Journal,
    clock: Arc<dyn Clock>,
    (lock, checkpoints): (Lock, Checkpoints),
    epoch: u64,
) -> io::Result<Inner> {
    let (inbox, evictions) = (Arc::new(Inbox::default()), replayed.core.evictions());
    let (indexed, indexed_seen) = watch::channel(0);
    let pauses = replayed.core.pauses.clone();
    let (core, journal) = (Arc::new(Mutex::new(replayed.core)), Arc::new(journal));
    let board = Arc::new(Board::new(journal.head().seq));
    let (watchers, broken) = (Arc::new(Watchers::default()), Arc::new(AtomicBool::new(false)));
    let indexer = Indexer {
        core: Arc::clone(&core),
        journal: Arc::clone(&journal),
        index: Arc::clone(&replayed.index),
        watchers: Arc::clone(&watchers),
        board: Arc::clone(&board),
        inbox: Arc::clone(&inbox),
        indexed,
        broken: Arc::clone(&broken),
    };
    let thread = std::thread::Builder::new().name("indexer".to_owned()).spawn(move || indexer.run())?;
    Ok(Inner {
        core,
        pauses,
        journal,
        index: replayed.index,
        watchers,
        board,
        inbox,
        indexer: Some(thread),
        sent: AtomicU64::new(0),
        indexed: indexed_seen,
        broken,
        evictions,
        expired: Mutex::default(),
        clock,
        epoch,
        checkpoints,
        shortened: Mutex::default(),
        _lock: lock,
    })
}

impl Inner {
    /// The recovery steps: epoch, dead attempts, ledgers, and the record of it all.
    fn recover(&self, recovery: &mut Recovery, key_id: crate::call::Digest) -> Result<(), Unavailable> {
        let (mut core, now) = self.lock_healthy()?;
        let epoch = recovery.epoch;
        self.commit(&mut core, now, Vec::new(), |_| Entry::Epoch { epoch, key_id, pid: std::process::id() })?;
        failpoint::hit("recover.epoch");
        let mut open: Vec<_> = core.calls.values().filter(|r| !r.state.is_final()).cloned().collect();
        open.sort_by_key(|r| r.id);
        for record in &open {
            match record.state_at(now) {
                State::Dispatching if may_go_again(record, now) => recovery.to_resend.push(record.id),
                State::Dispatching => match self.step(&mut core, record, Event::Died, now, Vec::new()) {
                    Ok(_) => recovery.to_unknown.push(record.id),
                    Err(Refused::Illegal(_)) => {}
                    Err(Refused::Unavailable) => return Err(Unavailable),
                },
                State::Approved => recovery.approved.push(record.id),
                _ => {}
            }
        }
        drop(core.trusts.counted());
        self.align(&mut core, now, true)?;
        let calls: Vec<_> = core.calls.values().cloned().collect();
        recovery.ledgers_corrected = !core.ledgers.reconcile(calls.iter().map(|r| &**r), now);
        if recovery.ledgers_corrected {
            tracing::error!("what the ledgers set aside did not match the open calls; the calls won");
        }
        failpoint::hit("recover.record");
        let entry = Entry::Recovery { recovery: recovery.clone() };
        let seq = self.commit(&mut core, now, Vec::new(), |_| entry)?;
        drop(core);
        self.journal.durable_blocking(seq).map_err(|_| Unavailable)?;
        failpoint::hit("recover.done");
        Ok(())
    }
}
