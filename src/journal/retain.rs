//! Making the journal shorter: whole old segments go, payloads go from those that stay. Neither breaks the chain:
//! it covers payloads by their digests, and every segment begins with what older ones still carry.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::call::Timestamp;

use super::frame::{self, Flaw, Frame, HEADER, Header};
use super::read::{Segment, segments};
use super::{Journal, lock};

/// A segment that nothing is written to any more.
#[derive(Debug, Clone)]
pub struct Closed {
    segment: Segment,
    /// Its first record.
    pub first: u64,
    /// First record of the segment after it.
    pub next: u64,
    /// No record in it is younger than this.
    pub until: Timestamp,
}

/// The file that a segment is written anew to, before it takes the old one's place.
pub(super) const SHORTER: &str = "shorter";

impl Journal {
    /// All segments but the newest, oldest first.
    ///
    /// # Errors
    /// When the directory or the first record of a segment cannot be read.
    pub fn closed_segments(&self) -> io::Result<Vec<Closed>> {
        let all = segments(&self.shared.dir)?;
        let pairs = all.iter().zip(all.iter().skip(1));
        let closed = pairs.map(|(segment, next)| {
            let until = self.shared.reader.frame(next.first)?.at;
            Ok(Closed { segment: segment.clone(), first: segment.first, next: next.first, until })
        });
        closed.collect()
    }

    /// Removes a segment for good; returns how many bytes that frees.
    ///
    /// # Errors
    /// When the file system says no.
    pub fn remove(&self, closed: &Closed) -> io::Result<u64> {
        let len = fs::metadata(&closed.segment.path)?.len();
        fs::remove_file(&closed.segment.path)?;
        self.shared.reader.forget(closed.first);
        File::open(&self.shared.dir)?.sync_all()?;
        Ok(len)
    }

    /// Writes a segment anew without the payloads of the frames that `keep` does not want; returns how many bytes
    /// that frees. A crash leaves the old file or the new one. Does nothing when nothing would be freed.
    ///
    /// # Errors
    /// When a file cannot be read or written, a frame is damaged, or the disk would have less than `spare` bytes left;
    /// the segment is as it was then.
    pub fn strip(&self, closed: &Closed, spare: u64, keep: impl Fn(&Frame) -> bool) -> io::Result<u64> {
        let path = &closed.segment.path;
        if !has_payloads(path)? || without(&mut BufReader::new(File::open(path)?), &mut io::sink(), &keep)? == 0 {
            return Ok(0);
        }
        let room = rustix::fs::statvfs(&self.shared.dir)?;
        if room.f_bavail.saturating_mul(room.f_frsize) < fs::metadata(path)?.len().saturating_add(spare) {
            return Err(io::Error::other("there is not enough room to write it anew"));
        }
        let shorter = path.with_extension(SHORTER);
        let freed = write_anew(path, &shorter, &keep).inspect_err(|_| {
            // It is removed at the next open at the latest.
            fs::remove_file(&shorter).ok();
        })?;
        self.shared.reader.replace(closed.first, || fs::rename(&shorter, path))?;
        File::open(&self.shared.dir)?.sync_all()?;
        lock(&self.shared.cache).clear();
        Ok(freed)
    }
}

impl Closed {
    /// Whether one of these frames stands in it.
    #[must_use]
    pub fn holds(&self, frames: &BTreeSet<u64>) -> bool {
        frames.range(self.first..self.next).next().is_some()
    }
}

fn write_anew(path: &Path, shorter: &Path, keep: impl Fn(&Frame) -> bool) -> io::Result<u64> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(shorter)?;
    let mut out = BufWriter::new(file);
    let freed = without(&mut BufReader::new(File::open(path)?), &mut out, keep)?;
    out.into_inner()?.sync_all()?;
    Ok(freed)
}

/// Looks at the headers alone.
fn has_payloads(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    let (mut offset, end) = (0, file.metadata()?.len());
    while offset < end {
        let mut head = [0; HEADER];
        if file.read_exact_at(&mut head, offset).is_err() {
            return Ok(false);
        }
        match Header::parse(&head) {
            Some(header) if header.payloads > 0 => return Ok(true),
            Some(header) => offset += u64::try_from(header.total()).unwrap_or(u64::MAX),
            None => return Ok(false),
        }
    }
    Ok(false)
}

/// Copies frame by frame, up to the clean end; returns how many bytes of payloads were left out.
fn without(from: &mut impl Read, to: &mut impl Write, keep: impl Fn(&Frame) -> bool) -> io::Result<u64> {
    let damaged = |(Flaw::Damaged(what) | Flaw::Forged(what))| io::Error::other(what);
    let mut freed = 0;
    while let Some(bytes) = next_frame(from)? {
        if keep(&frame::decode(&bytes, 0).map_err(damaged)?) {
            to.write_all(&bytes)?;
            continue;
        }
        let short = frame::stripped(&bytes).map_err(damaged)?;
        to.write_all(&short)?;
        freed += u64::try_from(bytes.len() - short.len()).unwrap_or(0);
    }
    Ok(freed)
}

/// The bytes of one frame, unchecked; `None` at the end of the file or where only zeros follow.
fn next_frame(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::with_capacity(4096);
    from.by_ref().take(u64::try_from(HEADER).unwrap_or(0)).read_to_end(&mut bytes)?;
    if bytes.iter().all(|b| *b == 0) {
        return Ok(None);
    }
    let header = Header::parse(&bytes).ok_or_else(|| io::Error::other("no frame where one must be"))?;
    let rest = header.total().saturating_sub(HEADER);
    from.by_ref().take(u64::try_from(rest).unwrap_or(0)).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}
