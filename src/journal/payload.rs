//! Finding and reading sealed payloads, and a bounded memory of the newest ones.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;

use super::frame::{self, Flaw, HEADER, Header};
use super::read::segment_name;

/// Every so many frames the offset of one is remembered.
const STRIDE: u64 = 64;

/// Where frames begin, coarsely: per segment the offset of every 64th.
#[derive(Debug, Default)]
pub(super) struct Marks(BTreeMap<u64, Vec<u64>>);

impl Marks {
    /// Remembers the frame if its turn has come.
    pub(super) fn note(&mut self, segment: u64, seq: u64, offset: u64) {
        let marks = self.0.entry(segment).or_default();
        let due = u64::try_from(marks.len()).unwrap_or(u64::MAX).saturating_mul(STRIDE);
        if seq.checked_sub(segment) == Some(due) {
            marks.push(offset);
        }
    }

    /// Segment, and the nearest known frame at or before `seq` with its offset.
    pub(super) fn nearest(&self, seq: u64) -> Option<(u64, u64, u64)> {
        let (segment, marks) = self.0.range(..=seq).next_back()?;
        let wanted = usize::try_from((seq - segment) / STRIDE).unwrap_or(usize::MAX);
        let at = wanted.min(marks.len().saturating_sub(1));
        let offset = marks.get(at).copied().unwrap_or(0);
        Some((*segment, segment + u64::try_from(at).unwrap_or(0) * STRIDE, offset))
    }
}

/// The sealed bytes of payload `index` of frame `seq`, with every frame passed on the way noted.
pub(super) fn sealed(
    dir: &Path,
    (segment, mut at, mut offset): (u64, u64, u64),
    (seq, index): (u64, u32),
    mut note: impl FnMut(u64, u64),
) -> io::Result<Vec<u8>> {
    let file = File::open(dir.join(segment_name(segment)))?;
    let header = loop {
        let mut head = [0; HEADER];
        file.read_exact_at(&mut head, offset)?;
        let header = Header::parse(&head).ok_or_else(|| io::Error::other("no frame where one must be"))?;
        if at == seq {
            break header;
        }
        offset += u64::try_from(header.total()).unwrap_or(u64::MAX);
        at += 1;
        note(at, offset);
    };
    let mut bytes = vec![0; header.total()];
    file.read_exact_at(&mut bytes, offset)?;
    let frame =
        frame::decode(&bytes, offset).map_err(|(Flaw::Damaged(what) | Flaw::Forged(what))| io::Error::other(what))?;
    let area = bytes.get(HEADER + header.chained..).unwrap_or_default();
    let found = usize::try_from(index).ok().and_then(|i| frame::slice(&frame.payloads, area, i));
    found.filter(|_| frame.seq == seq).map(<[u8]>::to_vec).ok_or_else(|| io::Error::other("no such payload"))
}

/// The newest payloads in the clear, oldest out first.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<(u64, u32), Bytes>,
    order: VecDeque<(u64, u32)>,
    bytes: usize,
    limit: usize,
}

impl Cache {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    pub(super) fn get(&self, key: (u64, u32)) -> Option<Bytes> {
        self.entries.get(&key).cloned()
    }

    pub(super) fn put(&mut self, key: (u64, u32), bytes: Bytes) {
        if bytes.len() > self.limit || self.entries.contains_key(&key) {
            return;
        }
        self.bytes += bytes.len();
        self.order.push_back(key);
        self.entries.insert(key, bytes);
        while self.bytes > self.limit || self.order.len() > self.limit / 64 {
            let Some(oldest) = self.order.pop_front() else { break };
            self.bytes -= self.entries.remove(&oldest).map_or(0, |b| b.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_stays_within_its_bytes() {
        let mut cache = Cache::new(1000);
        (0..100).for_each(|i| cache.put((i, 0), Bytes::from(vec![0; 100])));
        assert!(cache.bytes <= 1000 && cache.get((99, 0)).is_some() && cache.get((0, 0)).is_none());
    }

    #[test]
    fn marks_lead_to_the_nearest_frame_before() {
        let mut marks = Marks::default();
        (10..300).for_each(|seq| marks.note(10, seq, seq * 100));
        assert_eq!(marks.nearest(10), Some((10, 10, 1000)));
        assert_eq!(marks.nearest(140), Some((10, 138, 13_800)));
        assert_eq!(marks.nearest(9), None);
    }
}
