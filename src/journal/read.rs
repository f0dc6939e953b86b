//! Reading the journal back: segments in order, frames in order, every check made.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::call::{Digest, Timestamp};

use super::frame::{self, Flaw, Frame, GENESIS, MAGIC};

/// One segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Where it is.
    pub path: PathBuf,
    /// Seq of its first frame, as its name says.
    pub first: u64,
}

impl Segment {
    /// When its first record was written, as it says itself; `None` before it has one.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn begins(&self) -> io::Result<Option<Timestamp>> {
        let mut head = Vec::new();
        fs::File::open(&self.path)?.take(FIRST_TIME).read_to_end(&mut head)?;
        let chained = head.get(frame::HEADER..).unwrap_or_default().strip_prefix(b"{\"at\":\"");
        let text = chained.and_then(|text| std::str::from_utf8(text.split(|b| *b == b'"').next()?).ok());
        Ok(text.and_then(|text| text.parse().ok()))
    }

    /// Its file name.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// Bytes of a segment in which the time of its first record stands.
const FIRST_TIME: u64 = frame::HEADER as u64 + 64;

/// The file name of the segment that begins with `first`.
#[must_use]
pub(super) fn segment_name(first: u64) -> String {
    format!("journal-{first:020}.log")
}

/// The segments of a journal directory, oldest first.
///
/// # Errors
/// When the directory cannot be read.
pub fn segments(dir: &Path) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let first = name.strip_prefix("journal-").and_then(|n| n.strip_suffix(".log")).and_then(|n| n.parse().ok());
        if let Some(first) = first {
            found.push(Segment { path, first });
        }
    }
    found.sort_by_key(|s| s.first);
    Ok(found)
}

/// The first bad record of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct Bad {
    /// File name of the segment.
    pub segment: String,
    /// Where the bad frame begins.
    pub offset: u64,
    /// Which record was expected there.
    pub seq: u64,
    /// What is wrong.
    pub what: String,
    /// Nothing that was acknowledged later follows it: it may be the torn end of a last write.
    pub torn: bool,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {} in {} at byte {}: {}", self.seq, self.segment, self.offset, self.what)?;
        if self.torn { f.write_str(" (nothing valid follows: perhaps a torn last write)") } else { Ok(()) }
    }
}

/// Why reading stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file could not be read.
    #[error("journal cannot be read")]
    Io(#[from] io::Error),
    /// A record is bad.
    #[error("journal is damaged: {0}")]
    Bad(Bad),
}

/// Frames in order, each checked against the one before. Ends at the clean end or with one error.
#[derive(Debug)]
pub struct Frames {
    segments: Vec<Segment>,
    next_segment: usize,
    bytes: Vec<u8>,
    offset: usize,
    /// What must come next: seq and previous hash; `None` before the first frame.
    expect: Option<(u64, Digest)>,
    stopped: bool,
}

impl Frames {
    /// From the segment that holds `from` on, or from the oldest one.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn open(dir: &Path, from: u64) -> io::Result<Self> {
        let segments = segments(dir)?;
        let next_segment = segments.iter().rposition(|s| s.first <= from).unwrap_or(0);
        Ok(Self { segments, next_segment, bytes: Vec::new(), offset: 0, expect: None, stopped: false })
    }

    /// The segment of the frame that came last, and where the next one begins.
    #[must_use]
    pub fn position(&self) -> Option<(&Segment, u64)> {
        let segment = self.segments.get(self.next_segment.checked_sub(1)?)?;
        Some((segment, u64::try_from(self.offset).unwrap_or(u64::MAX)))
    }

    /// The last frame's seq and hash.
    #[must_use]
    pub fn head(&self) -> Option<(u64, Digest)> {
        self.expect.map(|(seq, hash)| (seq.saturating_sub(1), hash))
    }

    /// How many bytes that are not zero stand behind the last good frame of this segment.
    #[must_use]
    pub fn rest(&self) -> u64 {
        let rest = self.bytes.get(self.offset..).unwrap_or_default();
        let used = rest.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
        u64::try_from(used).unwrap_or(u64::MAX)
    }

    fn is_last(&self) -> bool {
        self.next_segment >= self.segments.len()
    }

    fn expected_seq(&self) -> u64 {
        let first = self.position().map_or(1, |(s, _)| s.first);
        self.expect.map_or(first, |(seq, _)| seq)
    }

    fn bad(&self, what: String, torn: bool) -> ReadError {
        let (segment, offset) = self.position().map_or((String::new(), 0), |(s, o)| (s.name(), o));
        ReadError::Bad(Bad { segment, offset, seq: self.expected_seq(), what, torn })
    }

    /// Opens the next segment; `false` at the end.
    fn advance(&mut self) -> Result<bool, ReadError> {
        let Some(segment) = self.segments.get(self.next_segment) else { return Ok(false) };
        self.bytes = fs::read(&segment.path)?;
        let first = segment.first;
        self.offset = 0;
        self.next_segment += 1;
        match self.expect {
            Some((seq, _)) if seq != first => {
                Err(self.bad(format!("the segment begins with record {first}; records are missing"), false))
            }
            _ => Ok(true),
        }
    }

    fn step(&mut self) -> Result<Option<Frame>, ReadError> {
        loop {
            let rest = self.bytes.get(self.offset..).unwrap_or_default();
            if rest.iter().any(|b| *b != 0) {
                return self.frame().map(Some);
            }
            if !self.advance()? {
                return Ok(None);
            }
        }
    }

    fn frame(&mut self) -> Result<Frame, ReadError> {
        let rest = self.bytes.get(self.offset..).unwrap_or_default();
        let frame = match frame::decode(rest, u64::try_from(self.offset).unwrap_or(u64::MAX)) {
            Ok(frame) => frame,
            Err(Flaw::Forged(what)) => return Err(self.bad(what, false)),
            Err(Flaw::Damaged(what)) => {
                let torn = self.is_last() && !synced_later(rest, self.expected_seq());
                return Err(self.bad(what, torn));
            }
        };
        let seq = self.expected_seq();
        if frame.seq != seq {
            return Err(self.bad(format!("it is record {} instead", frame.seq), false));
        }
        let prev = match self.expect {
            Some((_, hash)) => hash,
            None if seq == 1 => GENESIS,
            None => frame.prev,
        };
        if frame.prev != prev {
            return Err(self.bad("it does not follow from the record before it".to_owned(), false));
        }
        self.offset = self.offset.saturating_add(usize::try_from(frame.size).unwrap_or(usize::MAX));
        self.expect = Some((seq.saturating_add(1), frame.hash));
        Ok(frame)
    }
}

impl Iterator for Frames {
    type Item = Result<Frame, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.stopped {
            return None;
        }
        let next = self.step().transpose();
        self.stopped = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Whether a whole frame behind a bad one proves that record `seq` had been synced when it was written.
fn synced_later(bytes: &[u8], seq: u64) -> bool {
    let starts = bytes.windows(MAGIC.len()).enumerate().skip(1).filter(|(_, w)| *w == MAGIC);
    starts.filter_map(|(at, _)| frame::intact(bytes.get(at..)?).ok()).any(|(header, _)| header.durable >= seq)
}

/// What a check of a whole journal found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How many records.
    pub records: u64,
    /// How many segment files.
    pub segments: usize,
    /// The oldest record that is still there.
    pub first_seq: Option<u64>,
    /// The newest record.
    pub last_seq: Option<u64>,
    /// Time of the oldest record.
    pub first_at: Option<Timestamp>,
    /// Time of the newest record.
    pub last_at: Option<Timestamp>,
    /// Chain hash of the newest record.
    pub head: Option<Digest>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(first), Some(last), Some(from), Some(to), Some(head)) =
            (self.first_seq, self.last_seq, self.first_at, self.last_at, self.head)
        else {
            return f.write_str("the journal is empty");
        };
        writeln!(f, "{} records ({first} to {last}) in {} segments, no gap", self.records, self.segments)?;
        writeln!(f, "from {from} to {to}")?;
        write!(f, "chain head {head}")
    }
}

/// Checks every record of a journal directory: checksum, chain, numbers without a gap, digests of the
/// sealed payloads. Reads only, needs no key and no running store.
///
/// # Errors
/// With the first bad record, or when a file cannot be read.
pub fn verify(dir: &Path) -> Result<Report, ReadError> {
    verify_with(dir, |_| {})
}

/// The same, showing each record to `see`.
///
/// # Errors
/// With the first bad record, or when a file cannot be read.
pub fn verify_with(dir: &Path, mut see: impl FnMut(&Frame)) -> Result<Report, ReadError> {
    let mut frames = Frames::open(dir, 0)?;
    let (mut records, mut first, mut last_at) = (0u64, None, None);
    for frame in frames.by_ref() {
        let frame = frame?;
        see(&frame);
        records += 1;
        first.get_or_insert((frame.seq, frame.at));
        last_at = Some(frame.at);
    }
    Ok(Report {
        records,
        segments: frames.segments.len(),
        first_seq: first.map(|(seq, _)| seq),
        last_seq: frames.head().map(|(seq, _)| seq),
        first_at: first.map(|(_, at)| at),
        last_at,
        head: frames.head().map(|(_, hash)| hash),
    })
}
