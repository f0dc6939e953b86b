//! Proofs that fit in a mail: one record is in the signed log, or one signed log begins with an older one.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::call::Digest;
use crate::journal::note::{Checkpoint, Verifier};
use crate::journal::{self, ReadError, merkle};

use super::signed::{bad, key_of, newest, opened};
use super::{Line, lines};

/// A proof as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Proof {
    /// The version of this form.
    holdpoint_proof: u32,
    /// The record that is in the log …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    record: Option<Line>,
    /// … or the older checkpoint that the log begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    older: Option<String>,
    /// Hashes from the bottom of the tree to its top.
    path: Vec<Digest>,
    /// The public key of the checkpoints.
    key: String,
    /// The signed checkpoint.
    checkpoint: String,
}

/// What a proof shows.
#[derive(Debug, PartialEq, Eq)]
pub enum Checked {
    /// This record is in the log with so many records.
    Included {
        /// Its number.
        seq: u64,
        /// Records of the log.
        size: u64,
    },
    /// The log with `size` records begins with the one of `older`.
    Extends {
        /// Records of the older checkpoint.
        older: u64,
        /// Records of the newer one.
        size: u64,
    },
}

/// Key, checkpoint and the chain hashes that it covers.
fn signed(state_dir: &Path) -> Result<(Verifier, String, Checkpoint, Vec<Digest>), ReadError> {
    let key = key_of(state_dir)?.ok_or_else(|| bad(0, "there is no key of checkpoints here".into()))?;
    let text = newest(state_dir)?.ok_or_else(|| bad(0, "nothing was signed here yet".into()))?;
    let checkpoint = opened(&text, &key)?;
    let hashes = journal::chain_hashes(&state_dir.join("journal"), checkpoint.size)?;
    Ok((key, text, checkpoint, hashes))
}

fn written(proof: &Proof) -> Result<String, ReadError> {
    serde_json::to_string(proof).map_err(|e| ReadError::Io(e.into()))
}

/// Proof that record `seq` is in the log that was signed last.
///
/// # Errors
/// When it is not covered, not there any more, or a file cannot be read.
pub fn prove_inclusion(state_dir: &Path, seq: u64) -> Result<String, ReadError> {
    let (key, checkpoint, _, hashes) = signed(state_dir)?;
    let index = seq.checked_sub(1).and_then(|i| usize::try_from(i).ok());
    let path = index.and_then(|i| merkle::inclusion(&hashes, i));
    let path = path.ok_or_else(|| bad(seq, format!("{} records were signed", hashes.len())))?;
    let record = lines(state_dir, seq)?.next().transpose()?.filter(|l| l.seq == seq);
    let record = record.ok_or_else(|| bad(seq, "the record is not there any more".into()))?;
    written(&Proof { holdpoint_proof: 1, record: Some(record), older: None, path, key: key.to_string(), checkpoint })
}

/// Proof that the log that was signed last begins with the one of `older`.
///
/// # Errors
/// When it does not, or a file cannot be read.
pub fn prove_consistency(state_dir: &Path, older: &str) -> Result<String, ReadError> {
    let (key, checkpoint, _, hashes) = signed(state_dir)?;
    let old = opened(older, &key)?;
    let begins = usize::try_from(old.size).ok().and_then(|n| hashes.get(..n));
    if begins.is_some_and(|begins| merkle::root(begins) != old.root) {
        return Err(bad(old.size, "the log does not begin with what the older checkpoint covers".into()));
    }
    let path = begins.and_then(|begins| merkle::consistency(&hashes, begins.len()));
    let path = path.ok_or_else(|| bad(old.size, format!("only {} records were signed last", hashes.len())))?;
    let older = Some(older.to_owned());
    written(&Proof { holdpoint_proof: 1, record: None, older, path, key: key.to_string(), checkpoint })
}

/// Checks a proof. Without `key` the one in it is believed.
///
/// # Errors
/// What is wrong with it.
pub fn check(text: &str, key: Option<Verifier>) -> Result<Checked, ReadError> {
    let proof: Proof = serde_json::from_str(text).map_err(|e| bad(0, format!("this is no proof: {e}")))?;
    let own = || proof.key.parse::<Verifier>().map_err(|e| bad(0, format!("the key in it: {e}")));
    let key = key.map_or_else(own, Ok)?;
    let signed = opened(&proof.checkpoint, &key)?;
    match (&proof.record, &proof.older) {
        (Some(line), None) => included(line, &signed, &proof.path),
        (None, Some(older)) => {
            let old = opened(older, &key)?;
            let holds = merkle::extends(old.size, &old.root, signed.size, &signed.root, &proof.path);
            let found = Checked::Extends { older: old.size, size: signed.size };
            holds
                .then_some(found)
                .ok_or_else(|| bad(old.size, "the newer log does not begin with the older one".into()))
        }
        _ => Err(bad(0, "a proof is about one record, or about one older checkpoint".into())),
    }
}

fn included(line: &Line, signed: &Checkpoint, path: &[Digest]) -> Result<Checked, ReadError> {
    let hash = journal::record_hash(line.at, &line.event, &line.payloads, &line.prev, line.seq);
    if hash.as_ref() != Ok(&line.hash) {
        return Err(bad(line.seq, "its chain hash does not match it: it was changed".into()));
    }
    let index = line.seq.checked_sub(1).unwrap_or(u64::MAX);
    if merkle::includes(&signed.root, signed.size, index, &line.hash, path) {
        Ok(Checked::Included { seq: line.seq, size: signed.size })
    } else {
        Err(bad(line.seq, "it is not in the log that was signed".into()))
    }
}
