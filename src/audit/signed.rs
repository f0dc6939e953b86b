//! Records against signed checkpoints: the tree over what is there has the root that was signed.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::call::Digest;
use crate::journal::merkle::Frontier;
use crate::journal::note::{Checkpoint, Signer, Verifier};
use crate::journal::{self, Bad, ReadError, Report};

/// A checkpoint that fits the records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Signed {
    /// How many records it covers.
    pub size: u64,
    /// The root that was signed and computed.
    pub root: Digest,
}

/// What a check with checkpoints found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The records.
    pub report: Report,
    /// The checkpoints, those of the log first.
    pub checkpoints: Vec<Signed>,
    /// The key that they are signed with, as a vkey.
    pub key: String,
}

/// Checkpoints on their way along the records.
pub(super) struct Along {
    tree: Frontier,
    left: Vec<Checkpoint>,
    done: Vec<Signed>,
}

pub(super) fn bad(seq: u64, what: String) -> ReadError {
    ReadError::Bad(Bad { segment: String::new(), offset: 0, seq, what, torn: false })
}

impl Along {
    /// From the records before the first one that will be seen.
    pub(super) fn new(tree: Frontier, checkpoints: Vec<Checkpoint>) -> Self {
        Self { tree, left: checkpoints, done: Vec::new() }
    }

    /// How many records it has seen or was given.
    pub(super) fn size(&self) -> u64 {
        self.tree.size()
    }

    /// The next record.
    pub(super) fn see(&mut self, chain_hash: &Digest) -> Result<(), ReadError> {
        self.tree.push(chain_hash);
        let size = self.tree.size();
        let due: Vec<Checkpoint> = self.left.extract_if(.., |c| c.size == size).collect();
        for signed in due {
            let root = self.tree.root();
            if root != signed.root || *chain_hash != signed.chain {
                return Err(bad(size, format!("the records up to {size} are not those that were signed")));
            }
            self.done.push(Signed { size, root });
        }
        Ok(())
    }

    /// All checkpoints that could be compared; one that covers more than there is means a cut.
    pub(super) fn end(self, first: u64) -> Result<Vec<Signed>, ReadError> {
        match self.left.iter().find(|c| c.size > self.tree.size()) {
            Some(c) => {
                let (size, end) = (c.size, self.tree.size());
                Err(bad(
                    end + 1,
                    format!("{size} records were signed, and the log ends with record {end}: its tail is missing"),
                ))
            }
            None if self.left.iter().any(|c| c.size >= first) => Err(bad(first, "a checkpoint was passed over".into())),
            None => Ok(self.done),
        }
    }
}

/// The public key of a state directory's checkpoints; `None` before the first start.
///
/// # Errors
/// When the key file cannot be read.
pub fn key_of(state_dir: &Path) -> io::Result<Option<Verifier>> {
    let path = state_dir.join("checkpoint.key");
    if !path.exists() {
        return Ok(None);
    }
    let signer = Signer::new(&journal::key_file(&path)?).map_err(io::Error::other)?;
    Ok(Some(signer.verifier().clone()))
}

pub(super) fn opened(text: &str, key: &Verifier) -> Result<Checkpoint, ReadError> {
    Checkpoint::verified(text, key).map_err(|e| bad(0, format!("the checkpoint cannot be believed: {e}")))
}

/// The newest checkpoint of a state directory, as text.
pub(super) fn newest(state_dir: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(state_dir.join("checkpoint")) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Checks every record as [`super::verify`] does, and the tree over them against the directory's checkpoint and `older`
/// ones (texts that somebody kept). Without `key` the directory's own key is believed.
///
/// # Errors
/// With the first bad record or checkpoint, or when a file cannot be read.
pub fn verify_signed(state_dir: &Path, key: Option<Verifier>, older: &[String]) -> Result<Verified, ReadError> {
    let own = key_of(state_dir)?;
    let Some(key) = key.or_else(|| own.clone()) else {
        let report = super::verify(state_dir)?;
        return Ok(Verified { report, checkpoints: Vec::new(), key: String::new() });
    };
    let newest = newest(state_dir)?;
    let gone = own.is_some() && newest.is_none();
    let texts = newest.into_iter().chain(older.iter().cloned());
    let checkpoints = texts.map(|t| opened(&t, &key)).collect::<Result<Vec<_>, _>>()?;
    let dir = state_dir.join("journal");
    let first = journal::segments(&dir)?.first().map_or(1, |s| s.first);
    let mut along = Along::new(before(&dir, first)?, checkpoints);
    let mut wrong = Ok(());
    let report = super::verify_seeing(state_dir, &mut |frame| {
        if wrong.is_ok() {
            wrong = along.see(&frame.hash);
        }
    })?;
    wrong?;
    if gone && report.last_seq.is_some() {
        return Err(bad(0, "the signed checkpoint is gone: the first one is signed before the first record".into()));
    }
    Ok(Verified { report, checkpoints: along.end(first)?, key: key.to_string() })
}

/// The tree over the records before `first`, from the file of chain hashes where retention took them.
pub(super) fn before(journal_dir: &Path, first: u64) -> io::Result<Frontier> {
    let mut tree = Frontier::default();
    if first > 1 {
        journal::chain_hashes(journal_dir, first - 1)?.iter().for_each(|hash| tree.push(hash));
    }
    Ok(tree)
}
