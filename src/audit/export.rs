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
    /// The last record, where not all up to the end were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_seq: Option<u64>,
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
    // Before the records: a proxy that runs signs more meanwhile.
    let (key, checkpoint) = (key_of(state_dir)?.map(|k| k.to_string()), newest(state_dir)?);
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
            let last_seq = Some(to).filter(|to| *to < u64::MAX);
            let before = tree.parts().1.to_vec();
            let (key, checkpoint) = (key.clone(), checkpoint.clone());
            let header = Header { holdpoint_export: 1, first_seq: first, last_seq, before, key, checkpoint };
            serde_json::to_writer(&mut *out, &header).map_err(std::io::Error::from)?;
            out.write_all(b"\n")?;
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
    let opened = |text: &String| key.as_ref().map(|key| opened(text, key)).transpose();
    // The log's own may cover more than was asked for; one that somebody kept must fit.
    let own = header.checkpoint.as_ref().map(opened).transpose()?.flatten();
    let own = own.filter(|c| header.last_seq.is_none_or(|last| c.size <= last));
    let mut checkpoints: Vec<_> = own.into_iter().collect();
    for text in older {
        checkpoints.extend(opened(text)?);
    }
    let checkpointed = checkpoints.iter().map(|c| c.size).max();
    let tree = Frontier::of(header.first_seq - 1, header.before);
    let tree = tree.ok_or_else(|| bad(0, "the first line does not fit its first record".into()))?;
    let mut read = Reading { along: Along::new(tree, checkpoints), prev: None, report: empty() };
    for line in input {
        read.line(&line?)?;
    }
    let end = read.along.size();
    if header.last_seq.is_some_and(|last| end < last && checkpointed.is_none_or(|size| end < size)) {
        return Err(bad(end + 1, "its tail is missing: the export says that it goes further".into()));
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
