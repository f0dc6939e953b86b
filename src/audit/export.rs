//! A log in a file: one line says what it is, then one line of JSON for each record. It is checked without the
//! directory that it came from.

use std::io::{BufRead, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::call::Digest;
use crate::journal::merkle::Frontier;
use crate::journal::note::Verifier;
use crate::journal::{self, ReadError, Report};

use super::signed::{Along, Verified, bad, before, key_of, newest, opened};
use super::{Line, lines};

/// The first line of an export.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    /// The version of this form.
    holdpoint_export: u32,
    /// The first record.
    first_seq: u64,
    /// Roots of the full subtrees over the records before it, largest first.
    before: Vec<Digest>,
    /// The public key of the checkpoints.
    key: Option<String>,
    /// The newest signed checkpoint.
    checkpoint: Option<String>,
}

/// What was exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// The first record.
    pub first: u64,
    /// How many.
    pub records: u64,
}

/// Writes the records `from` to `to` (both included) of a state directory, each checked on the way.
///
/// # Errors
/// With the first bad record, or when a file cannot be read or written.
pub fn export(state_dir: &Path, from: u64, to: u64, out: &mut impl Write) -> Result<Exported, ReadError> {
    let dir = state_dir.join("journal");
    let oldest = journal::segments(&dir)?.first().map_or(1, |s| s.first);
    let first = from.max(oldest);
    let mut tree = before(&dir, oldest)?;
    let mut records = 0;
    for line in lines(state_dir, oldest)? {
        let line = line?;
        if line.seq > to {
            break;
        }
        if line.seq == first {
            write_header(state_dir, first, &tree, out)?;
        }
        tree.push(&line.hash);
        if line.seq >= first {
            serde_json::to_writer(&mut *out, &line).map_err(std::io::Error::from)?;
            out.write_all(b"\n")?;
            records += 1;
        }
    }
    out.flush()?;
    Ok(Exported { first, records })
}

fn write_header(state_dir: &Path, first: u64, tree: &Frontier, out: &mut impl Write) -> Result<(), ReadError> {
    let header = Header {
        holdpoint_export: 1,
        first_seq: first,
        before: tree.parts().1.to_vec(),
        key: key_of(state_dir)?.map(|k| k.to_string()),
        checkpoint: newest(state_dir)?,
    };
    serde_json::to_writer(&mut *out, &header).map_err(std::io::Error::from)?;
    Ok(out.write_all(b"\n")?)
}

/// Checks an export: every chain hash, numbers without a gap, and the tree against its own checkpoint (where the export
/// reaches that far) and `older` ones. Without `key` the one in the file is believed.
///
/// # Errors
/// With the first bad record or checkpoint, or when the file cannot be read or is no export.
pub fn verify_export(input: impl BufRead, key: Option<Verifier>, older: &[String]) -> Result<Verified, ReadError> {
    let mut input = input.lines();
    let header = input.next().transpose()?.and_then(|l| serde_json::from_str::<Header>(&l).ok());
    let header = header.filter(|h| h.holdpoint_export == 1 && h.first_seq > 0);
    let header = header.ok_or_else(|| bad(0, "the first line is not that of an export".into()))?;
    let own = header.key.as_ref().map(|k| k.parse::<Verifier>()).transpose();
    let key = key.or(own.map_err(|e| bad(0, format!("the key in the file: {e}")))?);
    let texts = header.checkpoint.into_iter().chain(older.iter().cloned());
    let checkpoints = match &key {
        Some(key) => texts.map(|t| opened(&t, key)).collect::<Result<Vec<_>, _>>()?,
        None => Vec::new(),
    };
    let tree = Frontier::of(header.first_seq - 1, header.before);
    let tree = tree.ok_or_else(|| bad(0, "the first line does not fit its first record".into()))?;
    let mut read = Reading { along: Along::new(tree, checkpoints), prev: None, report: empty() };
    for line in input {
        read.line(&line?)?;
    }
    let checkpoints = read.along.end(header.first_seq)?;
    Ok(Verified { report: read.report, checkpoints, key: key.map(|k| k.to_string()).unwrap_or_default() })
}

fn empty() -> Report {
    Report { records: 0, segments: 0, first_seq: None, last_seq: None, first_at: None, last_at: None, head: None }
}

struct Reading {
    along: Along,
    prev: Option<Digest>,
    report: Report,
}

impl Reading {
    fn line(&mut self, text: &str) -> Result<(), ReadError> {
        let seq = self.along.size() + 1;
        let line: Line = serde_json::from_str(text).map_err(|e| bad(seq, format!("the line cannot be read: {e}")))?;
        if line.seq != seq {
            return Err(bad(seq, format!("record {} stands in its place", line.seq)));
        }
        if self.prev.is_some_and(|prev| prev != line.prev) {
            return Err(bad(seq, "it does not follow from the record before it".into()));
        }
        let hash = journal::record_hash(line.at, &line.event, &line.payloads, &line.prev, line.seq);
        if hash.as_ref() != Ok(&line.hash) {
            return Err(bad(seq, "its chain hash does not match it: it was changed".into()));
        }
        self.along.see(&line.hash)?;
        self.prev = Some(line.hash);
        let report = &mut self.report;
        report.records += 1;
        report.first_seq.get_or_insert(line.seq);
        report.first_at.get_or_insert(line.at);
        (report.last_seq, report.last_at, report.head) = (Some(line.seq), Some(line.at), Some(line.hash));
        Ok(())
    }
}
