//! What happened, provably: checking a state directory and reading its records, offline and without a key.

mod export;
mod proof;
mod signed;

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::call::{Digest, Timestamp};
use crate::journal::{self, Frame, Frames, PayloadMeta};
use crate::store::{SHORTENED, kind_of};

pub use crate::journal::note::Verifier;
pub use crate::journal::{Bad, ReadError, Report};
pub use export::{Exported, export, verify_export};
pub use proof::{Checked, check, prove_consistency, prove_inclusion};
pub use signed::{Signed, Verified, key_of, verify_signed};

/// Where records are shown while they are checked.
type See<'a> = &'a mut dyn FnMut(&Frame);

/// Checks every record of a state directory: checksums, hash chain, numbers without a gap, digests of
/// sealed payloads, and that nothing but retention has taken records from its front. Reads only; no key, no running store. The texts of [`Report`] and [`Bad`] are fit for
/// a terminal. While a proxy writes, the newest batch may look like a torn end ([`Bad::torn`]).
///
/// # Errors
/// With the first bad record, or when a file cannot be read.
pub fn verify(state_dir: &Path) -> Result<Report, ReadError> {
    verify_seeing(state_dir, &mut |_| {})
}

fn verify_seeing(state_dir: &Path, see: See<'_>) -> Result<Report, ReadError> {
    let mut shortened = 1;
    let report = journal::verify_with(&state_dir.join("journal"), |frame| {
        see(frame);
        shortened = shortened_to(frame).map_or(shortened, |seq| seq.max(shortened));
    })?;
    match report.first_seq {
        Some(first) if first > shortened => Err(ReadError::Bad(Bad {
            segment: String::new(),
            offset: 0,
            seq: shortened,
            what: format!("records {shortened} to {} are missing, and no retention has taken them", first - 1),
            torn: false,
        })),
        _ => Ok(report),
    }
}

/// The first record that retention left, where this one says so.
fn shortened_to(frame: &Frame) -> Option<u64> {
    let event = frame.event.get();
    if !event.contains(SHORTENED) {
        return None;
    }
    let event: Value = serde_json::from_str(event).ok()?;
    let noted = event.pointer("/note/kind")? == SHORTENED;
    event.pointer("/note/more/first_seq").filter(|_| noted)?.as_u64()
}

/// One record as it is exported: one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line {
    /// Its number; no gaps.
    pub seq: u64,
    /// Store time of the step.
    pub at: Timestamp,
    /// Chain hash of the record before.
    pub prev: Digest,
    /// Its own chain hash.
    pub hash: Digest,
    /// What happened.
    pub event: Box<RawValue>,
    /// Digests and lengths of the sealed payloads beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub payloads: Vec<PayloadMeta>,
}

impl From<Frame> for Line {
    fn from(f: Frame) -> Self {
        Self { seq: f.seq, at: f.at, prev: f.prev, hash: f.hash, event: f.event, payloads: f.payloads }
    }
}

impl Line {
    /// What kind of record it is: `parked`, `begun`, `concluded` … for steps of a call, else the kind of the
    /// note or the type of the event.
    #[must_use]
    pub fn kind(&self) -> String {
        kind_of(&serde_json::from_str(self.event.get()).unwrap_or_default())
    }
}

/// The records of a state directory from `from` on, each checked against the one before.
#[derive(Debug)]
pub struct Lines {
    frames: Frames,
    from: u64,
}

impl Iterator for Lines {
    type Item = Result<Line, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let from = self.from;
        self.frames.by_ref().map(|f| f.map(Line::from)).find(|l| l.as_ref().map_or(true, |l| l.seq >= from))
    }
}

/// Reads the records of a state directory, oldest first. Ends after the first bad one.
///
/// # Errors
/// When the directory cannot be read.
pub fn lines(state_dir: &Path, from: u64) -> io::Result<Lines> {
    Ok(Lines { frames: Frames::open(&state_dir.join("journal"), from)?, from })
}
