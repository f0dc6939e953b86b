//! The append-only log that store and audit share.
//!
//! A frame is a header with a checksum, a chained JSON record, and sealed payloads beside it
//! ([`Frame`]). One writer thread makes one write and one `fdatasync` for everything that waits
//! (group commit: a batch closes when the disk is free, no timer). Files are preallocated with zeros; a
//! tail of zeros is the clean end. The first I/O error poisons the journal for good: what did reach
//! the disk is only known after the next open.

mod frame;
pub mod merkle;
pub mod note;
mod payload;
mod read;
mod reader;
mod retain;
mod seal;
mod tree;
mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::call::{Digest, Timestamp};

pub use frame::{Frame, PayloadMeta, record_hash};
pub use read::{Bad, Frames, ReadError, Report, Segment, segments, verify, verify_with};
pub use reader::Reader;
pub use retain::Closed;
pub use seal::{SealError, Sealed, Sealer, key_file, replace_file};
pub use tree::chain_hashes;

use merkle::Frontier;
use payload::Cache;
use tree::Tree;
use writer::{Active, Pending, Writer};

/// Appends the JSON of an event, one value and no more; runs in the writer thread.
pub type Render = Box<dyn FnOnce(&mut Vec<u8>) -> Result<(), String> + Send>;

/// How a journal is kept.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A new segment begins once this much is written.
    pub segment_bytes: u64,
    /// Files grow by this much at a time.
    pub preallocate: u64,
    /// Newest payloads kept in memory.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, preallocate: 2 << 20, cache_bytes: 16 << 20 }
    }
}

/// The newest frame of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its number; 0 before the first.
    pub seq: u64,
    /// Its chain hash.
    pub hash: Digest,
}

/// Nothing can be appended any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal cannot be written")]
pub struct Poisoned;

/// How far the disk is, and who waits for it.
struct Progress {
    head: Head,
    poisoned: bool,
    /// Who waits for which frame. Each is woken once, by the batch that it waits for.
    waiters: BTreeMap<u64, Vec<oneshot::Sender<()>>>,
    /// Threads that sleep until the head moves.
    sleepers: usize,
}

/// Counters since the journal was opened.
#[derive(Debug, Default)]
pub struct Stats {
    /// `fdatasync` calls for batches.
    pub syncs: AtomicU64,
    /// Frames written.
    pub frames: AtomicU64,
    /// Bytes written.
    pub bytes: AtomicU64,
}

#[derive(Default)]
struct Queue {
    pending: VecDeque<Pending>,
    closed: bool,
    poisoned: bool,
    /// The writer sleeps: a wake-up is a system call, and is spared while it is busy.
    idle: bool,
}

impl Queue {
    fn is_open(&self) -> bool {
        !self.poisoned && !self.closed
    }
}

struct Shared {
    dir: PathBuf,
    segment_bytes: u64,
    preallocate: u64,
    /// The number of the newest frame that was queued. Held while one is made: it orders the frames.
    last_seq: Mutex<u64>,
    queue: Mutex<Queue>,
    filled: Condvar,
    progress: Mutex<Progress>,
    synced: Condvar,
    rotation_due: AtomicBool,
    reader: Arc<Reader>,
    cache: Mutex<Cache>,
    tree: Tree,
    frontier: Mutex<Frontier>,
    stats: Stats,
    #[cfg(test)]
    fail: AtomicBool,
    #[cfg(test)]
    held_up: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Queues a frame, and wakes the writer if it sleeps.
    fn push(&self, pending: Pending) -> Result<(), Poisoned> {
        let mut queue = lock(&self.queue);
        if !queue.is_open() {
            return Err(Poisoned);
        }
        queue.pending.push_back(pending);
        let idle = queue.idle;
        drop(queue);
        if idle {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Blocks until there is something to write; `None` once closed and empty.
    fn next_batch(&self) -> Option<Vec<Pending>> {
        let mut queue = lock(&self.queue);
        while queue.pending.is_empty() {
            if queue.closed {
                return None;
            }
            queue.idle = true;
            queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle = false;
        }
        Some(queue.pending.drain(..).collect())
    }

    fn publish(&self, head: Head) {
        let mut progress = lock(&self.progress);
        progress.head = head;
        let later = progress.waiters.split_off(&(head.seq + 1));
        let due = std::mem::replace(&mut progress.waiters, later);
        let sleepers = progress.sleepers;
        drop(progress);
        // Who does not wait any more does not mind.
        due.into_values().flatten().for_each(|waiter| {
            waiter.send(()).ok();
        });
        if sleepers > 0 {
            self.synced.notify_all();
        }
    }

    fn poison(&self) {
        let mut queue = lock(&self.queue);
        queue.poisoned = true;
        queue.pending.clear();
        drop(queue);
        let mut progress = lock(&self.progress);
        progress.poisoned = true;
        progress.waiters.clear();
        drop(progress);
        self.synced.notify_all();
    }

    #[cfg(test)]
    fn fail_if_told(&self) -> io::Result<()> {
        while self.held_up.load(Relaxed) {
            std::thread::yield_now();
        }
        if self.fail.load(Relaxed) { Err(io::Error::other("told to fail")) } else { Ok(()) }
    }

    #[cfg(not(test))]
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "tests make it fail")]
    fn fail_if_told(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A journal directory that is being opened: read it, then start writing.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    options: Options,
    torn_bytes: u64,
    /// Bytes of a last segment that was torn before its first frame.
    empty_end: u64,
    reader: Arc<Reader>,
    head: Head,
    active: Option<(Segment, u64)>,
}

impl Log {
    /// Makes the directory if need be and cuts a torn end off the newest segment.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn open(dir: &Path, options: Options) -> Result<Self, ReadError> {
        fs::create_dir_all(dir)?;
        dir.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())?;
        remove_unfinished(dir)?;
        let head = Head { seq: 0, hash: frame::GENESIS };
        let reader = Arc::new(Reader::new(dir));
        let mut log = Self { dir: dir.to_owned(), options, torn_bytes: 0, empty_end: 0, reader, head, active: None };
        log.drop_empty_end()?;
        segments(dir)?.iter().for_each(|s| log.reader.note(s.first, s.first, 0));
        Ok(log)
    }

    /// A segment whose first frame never became durable is removed: the one before it goes on.
    fn drop_empty_end(&mut self) -> Result<(), ReadError> {
        let Some(last) = segments(&self.dir)?.pop() else { return Ok(()) };
        let mut frames = Frames::open(&self.dir, last.first)?;
        let unused = match frames.next() {
            None => true,
            Some(Err(ReadError::Bad(bad))) => bad.torn,
            Some(_) => false,
        };
        if unused {
            self.empty_end = frames.rest();
            fs::remove_file(&last.path)?;
            File::open(&self.dir)?.sync_all()?;
        }
        Ok(())
    }

    /// What finds single frames again.
    #[must_use]
    pub fn reader(&self) -> Arc<Reader> {
        Arc::clone(&self.reader)
    }

    /// The newest frame, once it was replayed.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// Shows every frame from the segment that holds `from` on, and finds the end. May be called again.
    ///
    /// # Errors
    /// When a record is damaged and it is no torn end, or when `visit` refuses one.
    pub fn replay(&mut self, from: u64, mut visit: impl FnMut(&Frame) -> Result<(), String>) -> Result<u64, ReadError> {
        let mut frames = Frames::open(&self.dir, from)?;
        let mut count = 0;
        let torn = loop {
            match frames.next() {
                None => break 0,
                Some(Err(ReadError::Bad(bad))) if bad.torn => break frames.rest(),
                Some(Err(other)) => return Err(other),
                Some(Ok(frame)) => {
                    let segment = frames.position().map_or(1, |(s, _)| s.first);
                    self.reader.note(segment, frame.seq, frame.offset);
                    visit(&frame).map_err(|what| refused(&frames, &frame, what))?;
                    count += 1;
                }
            }
        };
        self.torn_bytes = self.empty_end + torn;
        self.active = frames.position().map(|(s, o)| (s.clone(), o));
        if let Some((seq, hash)) = frames.head() {
            self.head = Head { seq, hash };
        }
        Ok(count)
    }

    /// Checks the newest `max_bytes` of segments before the one that a replay from `from` begins with.
    ///
    /// # Errors
    /// With the first bad record, or when a file cannot be read.
    pub fn check_older(&self, from: u64, max_bytes: u64) -> Result<(), ReadError> {
        let mut older = segments(&self.dir)?;
        let end = older.iter().rposition(|s| s.first <= from).unwrap_or(0);
        let until = older.get(end).map_or(0, |s| s.first);
        older.truncate(end);
        let (mut left, mut start) = (max_bytes, None);
        for segment in older.iter().rev() {
            match left.checked_sub(fs::metadata(&segment.path)?.len()) {
                Some(rest) => (left, start) = (rest, Some(segment.first)),
                None => break,
            }
        }
        let Some(start) = start else { return Ok(()) };
        for frame in Frames::open(&self.dir, start)? {
            if frame?.seq + 1 >= until {
                break;
            }
        }
        Ok(())
    }

    /// Starts the writer behind the last good frame. What stands behind that is cut off. A root over the first `signed`
    /// records was signed once, or none (0).
    ///
    /// # Errors
    /// When the segment cannot be opened for writing or no thread can be made.
    pub fn start(self, sealer: Sealer, signed: u64) -> Result<Journal, ReadError> {
        let tree = Tree::open(&self.dir, &self.reader, self.head, signed)?;
        let active = self.active.map(|(s, end)| Active::reopen(&s.path, s.first, end)).transpose()?;
        let due = active.as_ref().is_none_or(|a| a.is_full(self.options.segment_bytes));
        let shared = Arc::new(Shared {
            dir: self.dir,
            segment_bytes: self.options.segment_bytes,
            preallocate: self.options.preallocate,
            last_seq: Mutex::new(self.head.seq),
            queue: Mutex::default(),
            filled: Condvar::new(),
            progress: Mutex::new(Progress { head: self.head, poisoned: false, waiters: BTreeMap::new(), sleepers: 0 }),
            synced: Condvar::new(),
            rotation_due: AtomicBool::new(due),
            reader: self.reader,
            cache: Mutex::new(Cache::new(self.options.cache_bytes)),
            tree,
            frontier: Mutex::default(),
            stats: Stats::default(),
            #[cfg(test)]
            fail: AtomicBool::new(false),
            #[cfg(test)]
            held_up: AtomicBool::new(false),
        });
        let (head, torn_bytes) = (self.head, self.torn_bytes);
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || {
            Writer { shared: &theirs, active, head, durable: head.seq, buffer: Vec::new(), hashes: Vec::new() }.run();
        })?;
        Ok(Journal { shared, sealer, torn_bytes, thread: Mutex::new(Some(thread)) })
    }
}

/// A crash while a segment was written anew leaves a file that nobody has read.
fn remove_unfinished(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == retain::SHORTER) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn refused(frames: &Frames, frame: &Frame, what: String) -> ReadError {
    let segment = frames.position().map(|(s, _)| s.name()).unwrap_or_default();
    ReadError::Bad(Bad { segment, offset: frame.offset, seq: frame.seq, what, torn: false })
}

/// The open journal.
pub struct Journal {
    shared: Arc<Shared>,
    sealer: Sealer,
    torn_bytes: u64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("dir", &self.shared.dir).field("head", &self.head()).finish_non_exhaustive()
    }
}

impl Journal {
    /// What seals payloads for this journal.
    #[must_use]
    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// How many bytes of a torn last write were cut off when it was opened.
    #[must_use]
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    /// What finds single frames again.
    #[must_use]
    pub fn reader(&self) -> Arc<Reader> {
        Arc::clone(&self.shared.reader)
    }

    /// Puts one frame in the queue; `make` is told its number while no other frame is made, so the order
    /// of frames is the order of these calls. Returns at once: it is durable when
    /// [`Journal::durable`] says so. `rotate` begins a new segment with this frame.
    ///
    /// # Errors
    /// When the journal is poisoned or closed, before or while the frame was made.
    pub fn append(
        &self,
        at: Timestamp,
        rotate: bool,
        payloads: Vec<Sealed>,
        make: impl FnOnce(u64) -> Render,
    ) -> Result<u64, Poisoned> {
        let mut last_seq = lock(&self.shared.last_seq);
        if !lock(&self.shared.queue).is_open() {
            return Err(Poisoned);
        }
        let seq = *last_seq + 1;
        let remembered: Vec<Bytes> = payloads.iter().map(|p| p.plain.clone()).collect();
        let render = make(seq);
        self.shared.push(Pending { seq, at, rotate, payloads, render })?;
        *last_seq = seq;
        drop(last_seq);
        self.remember(seq, remembered);
        Ok(seq)
    }

    fn remember(&self, seq: u64, payloads: Vec<Bytes>) {
        let mut cache = lock(&self.shared.cache);
        for (payload, index) in payloads.into_iter().zip(0..) {
            cache.put((seq, index), payload);
        }
    }

    /// Whether the next frame should be a snapshot that begins a new segment.
    #[must_use]
    pub fn wants_rotation(&self) -> bool {
        self.shared.rotation_due.swap(false, Relaxed)
    }

    /// Waits until frame `seq` and all before it are on the disk.
    ///
    /// # Errors
    /// When the journal was poisoned first.
    pub async fn durable(&self, seq: u64) -> Result<(), Poisoned> {
        let woken = {
            let mut progress = lock(&self.shared.progress);
            if progress.head.seq >= seq {
                return Ok(());
            }
            if progress.poisoned {
                return Err(Poisoned);
            }
            let (waiter, woken) = oneshot::channel();
            progress.waiters.entry(seq).or_default().push(waiter);
            woken
        };
        woken.await.map_err(|_| Poisoned)
    }

    /// The same for a thread that may block.
    ///
    /// # Errors
    /// When the journal was poisoned first.
    pub fn durable_blocking(&self, seq: u64) -> Result<Head, Poisoned> {
        let mut progress = lock(&self.shared.progress);
        loop {
            if progress.head.seq >= seq {
                return Ok(progress.head);
            }
            if progress.poisoned {
                return Err(Poisoned);
            }
            progress.sleepers += 1;
            progress = self.shared.synced.wait(progress).unwrap_or_else(PoisonError::into_inner);
            progress.sleepers -= 1;
        }
    }

    /// The newest durable frame.
    #[must_use]
    pub fn head(&self) -> Head {
        lock(&self.shared.progress).head
    }

    /// How many frames wait for the disk.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        lock(&self.shared.last_seq).saturating_sub(self.head().seq)
    }

    /// Root of the tree over the first `size` records, with their hashes durable; `size` grows from call to call, and is
    /// not more than what is durable. The first call reads all of them.
    ///
    /// # Errors
    /// When the file of chain hashes cannot be read or synced.
    pub fn root(&self, size: u64) -> io::Result<Digest> {
        let mut frontier = lock(&self.shared.frontier);
        if frontier.size() > size {
            *frontier = Frontier::default();
        }
        self.shared.tree.grow(&mut frontier, size)?;
        self.shared.tree.sync()?;
        Ok(frontier.root())
    }

    /// Whether frames can still be written.
    #[must_use]
    pub fn healthy(&self) -> bool {
        !lock(&self.shared.progress).poisoned
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Counters since the journal was opened.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// A payload that is in memory still.
    #[must_use]
    pub fn cached_payload(&self, seq: u64, index: u32) -> Option<Bytes> {
        lock(&self.shared.cache).get((seq, index))
    }

    /// Reads and unseals one payload; blocks on the disk.
    ///
    /// # Errors
    /// When it is not there (any more), damaged, or sealed with another key.
    pub fn read_payload(&self, seq: u64, index: u32, digest: &Digest) -> io::Result<Bytes> {
        if let Some(bytes) = self.cached_payload(seq, index) {
            return Ok(bytes);
        }
        let sealed = self.shared.reader.sealed(seq, index)?;
        let plain = self.sealer.unseal(&sealed, digest).map_err(io::Error::other)?;
        lock(&self.shared.cache).put((seq, index), plain.clone());
        Ok(plain)
    }

    #[cfg(test)]
    pub(crate) fn fail_from_now_on(&self) {
        self.shared.fail.store(true, Relaxed);
    }

    /// The disk stands still, or goes on.
    #[cfg(test)]
    pub(crate) fn hold_up(&self, held: bool) {
        self.shared.held_up.store(held, Relaxed);
    }
}

impl Drop for Journal {
    /// Writes what is in the queue and ends the thread.
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.filled.notify_all();
        if let Some(thread) = lock(&self.thread).take() {
            let ended = thread.join();
            debug_assert!(ended.is_ok(), "the journal's thread panicked");
        }
    }
}

#[cfg(test)]
mod tests;
