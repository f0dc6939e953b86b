//! The one writer thread: drains the queue, one write, one `fdatasync`, then wakes who waits.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use crate::call::{Digest, Timestamp};
use crate::failpoint;

use super::frame::{self, Draft, HEADER, Header};
use super::read::segment_name;
use super::seal::Sealed;
use super::{Head, Render, Shared};

static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// One frame on its way to the disk.
pub(super) struct Pending {
    pub(super) seq: u64,
    pub(super) at: Timestamp,
    pub(super) rotate: bool,
    pub(super) payloads: Vec<Sealed>,
    pub(super) render: Render,
}

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) file: File,
    pub(super) first: u64,
    pub(super) position: u64,
    pub(super) allocated: u64,
    /// Length of its first frame, the snapshot.
    pub(super) snapshot: u64,
}

/// A segment is at least so many times as long as its snapshot: else one with many open calls would be full at once, and
/// the journal would be nothing but snapshots.
const SNAPSHOT_SHARE: u64 = 4;

impl Active {
    /// Opens an existing segment whose frames end at `position`. What stands behind is cut off.
    pub(super) fn reopen(path: &Path, first: u64, position: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        file.set_len(position)?;
        file.sync_all()?;
        let mut head = [0; HEADER];
        let snapshot = file.read_exact_at(&mut head, 0).ok().and_then(|()| Header::parse(&head));
        let snapshot = snapshot.and_then(|h| u64::try_from(h.total()).ok()).unwrap_or(0);
        Ok(Self { file, first, position, allocated: position, snapshot })
    }

    fn create(dir: &Path, first: u64) -> io::Result<Self> {
        let path = dir.join(segment_name(first));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        failpoint::hit("rotate.file");
        file.sync_all()?;
        File::open(dir)?.sync_all()?;
        Ok(Self { file, first, position: 0, allocated: 0, snapshot: 0 })
    }

    /// Whether the next segment should begin.
    pub(super) fn is_full(&self, segment_bytes: u64) -> bool {
        self.position >= segment_bytes.max(self.snapshot.saturating_mul(SNAPSHOT_SHARE))
    }

    /// Writes zeros ahead, so that a later sync does not have to grow the file each time. The sync of the data that
    /// follows covers them.
    fn reserve(&mut self, until: u64, step: u64) -> io::Result<()> {
        if until <= self.allocated || step == 0 {
            return Ok(());
        }
        let end = until.div_ceil(step.max(1)).saturating_mul(step.max(1));
        while self.allocated < end {
            let chunk = usize::try_from(end - self.allocated).unwrap_or(usize::MAX).min(ZEROS.len());
            let zeros = ZEROS.get(..chunk).unwrap_or_default();
            self.file.write_all_at(zeros, self.allocated)?;
            self.allocated += u64::try_from(chunk).unwrap_or(0);
        }
        Ok(())
    }

    /// Gives the zeros back when the segment is complete.
    fn close(self) -> io::Result<()> {
        self.file.set_len(self.position)?;
        self.file.sync_all()
    }
}

/// What a write that was torn in the middle leaves.
fn halved(bytes: &[u8]) -> &[u8] {
    bytes.get(..bytes.len() / 2).unwrap_or_default()
}

/// Those who wait must not wait for a thread that is gone.
struct PoisonOnPanic<'a>(&'a Shared);

impl Drop for PoisonOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison();
        }
    }
}

/// What the writer thread owns.
pub(super) struct Writer<'a> {
    pub(super) shared: &'a Shared,
    pub(super) active: Option<Active>,
    pub(super) head: Head,
    /// What is on the disk.
    pub(super) durable: u64,
    pub(super) buffer: Vec<u8>,
    /// Chain hashes of what is in the buffer.
    pub(super) hashes: Vec<u8>,
}

impl Writer<'_> {
    /// Runs until the journal is closed or an I/O error poisons it. A panic poisons it, too.
    pub(super) fn run(mut self) {
        let _guard = PoisonOnPanic(self.shared);
        while let Some(batch) = self.shared.next_batch() {
            if let Err(error) = self.write(batch) {
                tracing::error!(%error, "the journal cannot be written; nothing with effects is done any more");
                self.shared.poison();
                return;
            }
            self.durable = self.head.seq;
            self.shared.publish(self.head);
            failpoint::hit("wake.after");
        }
    }

    fn write(&mut self, batch: Vec<Pending>) -> io::Result<()> {
        for pending in batch {
            if pending.rotate || self.active.is_none() {
                self.flush()?;
                self.rotate(pending.seq)?;
            }
            self.encode(pending)?;
        }
        self.flush()
    }

    fn rotate(&mut self, first: u64) -> io::Result<()> {
        if let Some(done) = self.active.take() {
            failpoint::hit("rotate.before");
            done.close()?;
            failpoint::hit("rotate.closed");
        }
        self.active = Some(Active::create(&self.shared.dir, first)?);
        failpoint::hit("rotate.created");
        self.shared.reader.note(first, first, 0);
        self.shared.rotation_due.store(false, Relaxed);
        Ok(())
    }

    fn encode(&mut self, pending: Pending) -> io::Result<()> {
        let draft = Draft {
            seq: pending.seq,
            at: pending.at,
            prev: self.head.hash,
            durable: self.durable,
            event: pending.render,
            payloads: &pending.payloads,
        };
        if let Some(active) = &self.active {
            let offset = active.position + u64::try_from(self.buffer.len()).unwrap_or(0);
            self.shared.reader.note(active.first, pending.seq, offset);
        }
        let before = self.buffer.len();
        let hash: Digest = frame::encode(draft, &mut self.buffer).map_err(io::Error::other)?;
        if let Some(active) = self.active.as_mut().filter(|a| a.first == pending.seq) {
            active.snapshot = u64::try_from(self.buffer.len() - before).unwrap_or(u64::MAX);
        }
        self.head = Head { seq: pending.seq, hash };
        self.hashes.extend_from_slice(hash.as_bytes());
        self.shared.stats.frames.fetch_add(1, Relaxed);
        Ok(())
    }

    /// One write and one sync for everything that is in the buffer.
    fn flush(&mut self) -> io::Result<()> {
        let Some(active) = self.active.as_mut().filter(|_| !self.buffer.is_empty()) else { return Ok(()) };
        self.shared.fail_if_told()?;
        let len = u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        active.reserve(active.position.saturating_add(len), self.shared.preallocate)?;
        failpoint::hit("write.before");
        failpoint::hit_with("write.torn", || drop(active.file.write_all_at(halved(&self.buffer), active.position)));
        active.file.write_all_at(&self.buffer, active.position)?;
        failpoint::hit("write.after");
        active.file.sync_data()?;
        failpoint::hit("sync.after");
        active.position += len;
        let count = u64::try_from(self.hashes.len() / 32).unwrap_or(u64::MAX);
        self.shared.tree.append((self.head.seq + 1).saturating_sub(count), &self.hashes)?;
        self.hashes.clear();
        self.buffer.clear();
        self.buffer.shrink_to(4 << 20);
        self.shared.stats.syncs.fetch_add(1, Relaxed);
        self.shared.stats.bytes.fetch_add(len, Relaxed);
        if active.is_full(self.shared.segment_bytes) {
            self.shared.rotation_due.store(true, Relaxed);
        }
        Ok(())
    }
}
