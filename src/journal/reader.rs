//! Finding single frames again: by number, with a coarse memory of where they begin.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::frame::{self, Flaw, Frame, HEADER, Header};
use super::lock;
use super::read::segment_name;

/// Every so many frames the offset of one is remembered.
const STRIDE: u64 = 16;

/// Where frames begin, coarsely: per segment the offset of every 16th; and how often a segment was replaced.
#[derive(Debug, Default)]
struct Marks(BTreeMap<u64, Vec<u64>>, u64);

impl Marks {
    /// Remembers the frame if its turn has come.
    fn note(&mut self, segment: u64, seq: u64, offset: u64) {
        let marks = self.0.entry(segment).or_default();
        let due = u64::try_from(marks.len()).unwrap_or(u64::MAX).saturating_mul(STRIDE);
        if seq.checked_sub(segment) == Some(due) {
            marks.push(offset);
        }
    }

    /// Segment, and the nearest known frame at or before `seq` with its offset.
    fn nearest(&self, seq: u64) -> Option<(u64, u64, u64)> {
        let (segment, marks) = self.0.range(..=seq).next_back()?;
        let wanted = usize::try_from((seq - segment) / STRIDE).unwrap_or(usize::MAX);
        let at = wanted.min(marks.len().saturating_sub(1));
        let offset = marks.get(at).copied().unwrap_or(0);
        Some((*segment, segment + u64::try_from(at).unwrap_or(0) * STRIDE, offset))
    }
}

/// Reads single frames of a journal, also while it is written. What it is asked for must be durable.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    marks: Mutex<Marks>,
}

impl Reader {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), marks: Mutex::default() }
    }

    /// A frame begins there.
    pub(super) fn note(&self, segment: u64, seq: u64, offset: u64) {
        lock(&self.marks).note(segment, seq, offset);
    }

    /// What was found on a way that began before a segment was replaced is not remembered.
    fn note_since(&self, replaced: u64, segment: u64, seq: u64, offset: u64) {
        let mut marks = lock(&self.marks);
        if marks.1 == replaced {
            marks.note(segment, seq, offset);
        }
    }

    /// The segment is gone.
    pub(super) fn forget(&self, segment: u64) {
        let mut marks = lock(&self.marks);
        marks.0.remove(&segment);
        marks.1 += 1;
    }

    /// Puts another file in the place of a segment, in which frames begin elsewhere; nobody looks meanwhile.
    pub(super) fn replace(&self, segment: u64, put: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut marks = lock(&self.marks);
        put()?;
        marks.0.remove(&segment);
        marks.1 += 1;
        marks.note(segment, segment, 0);
        Ok(())
    }

    /// The first record that is still there; 0 before there is any.
    #[must_use]
    pub fn first(&self) -> u64 {
        lock(&self.marks).0.first_key_value().map_or(0, |(first, _)| *first)
    }

    /// The frame with this number, checked.
    ///
    /// # Errors
    /// When it is not there (any more), or damaged.
    pub fn frame(&self, seq: u64) -> io::Result<Frame> {
        self.bytes(seq).and_then(|bytes| decoded(&bytes, seq))
    }

    /// The sealed bytes of payload `index` of frame `seq`.
    pub(super) fn sealed(&self, seq: u64, index: u32) -> io::Result<Vec<u8>> {
        let bytes = self.bytes(seq)?;
        let frame = decoded(&bytes, seq)?;
        let chained = Header::parse(&bytes).map_or(0, |h| h.chained);
        let area = bytes.get(HEADER + chained..).unwrap_or_default();
        if area.is_empty() && !frame.payloads.is_empty() {
            return Err(io::Error::other("the payload was removed when its time was over"));
        }
        let found = usize::try_from(index).ok().and_then(|i| frame::slice(&frame.payloads, area, i));
        found.map(<[u8]>::to_vec).ok_or_else(|| io::Error::other("no such payload"))
    }

    /// Retention may put a shorter file in the place of one that is being read: then it is looked at again.
    fn bytes(&self, seq: u64) -> io::Result<Vec<u8>> {
        self.walk(seq).or_else(|_| self.walk(seq))
    }

    fn walk(&self, seq: u64) -> io::Result<Vec<u8>> {
        let (nearest, replaced) = {
            let marks = lock(&self.marks);
            (marks.nearest(seq), marks.1)
        };
        let (segment, mut at, mut offset) = nearest.ok_or_else(|| io::Error::other("no such record"))?;
        let file = File::open(self.dir.join(segment_name(segment)))?;
        loop {
            let mut head = [0; HEADER];
            file.read_exact_at(&mut head, offset)?;
            let header = Header::parse(&head).ok_or_else(|| io::Error::other("no frame where one must be"))?;
            if at == seq {
                let mut bytes = vec![0; header.total()];
                file.read_exact_at(&mut bytes, offset)?;
                return Ok(bytes);
            }
            offset += u64::try_from(header.total()).unwrap_or(u64::MAX);
            at += 1;
            self.note_since(replaced, segment, at, offset);
        }
    }
}

fn decoded(bytes: &[u8], seq: u64) -> io::Result<Frame> {
    let frame = frame::decode(bytes, 0).map_err(|(Flaw::Damaged(what) | Flaw::Forged(what))| io::Error::other(what))?;
    if frame.seq == seq { Ok(frame) } else { Err(io::Error::other("another record stands there")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_lead_to_the_nearest_frame_before() {
        let mut marks = Marks::default();
        (10..300).for_each(|seq| marks.note(10, seq, seq * 100));
        assert_eq!(marks.nearest(10), Some((10, 10, 1000)));
        assert_eq!(marks.nearest(140), Some((10, 138, 13_800)));
        assert_eq!(marks.nearest(9), None);
    }
}
