//! The file `tree` beside the segments: the chain hash of every record since the first, 32 bytes each. Roots and proofs
//! are computed from it. It outlives the records that retention takes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::call::Digest;

use super::merkle::Frontier;
use super::read::Frames;
use super::reader::Reader;
use super::{Head, ReadError};

const WIDTH: u64 = 32;
/// So many hashes are read at a time.
const CHUNK: u64 = 4096;

/// The open file. Written by the journal's thread behind each batch, read by who signs.
#[derive(Debug)]
pub(super) struct Tree {
    file: File,
}

/// The file's name in the journal's directory.
pub(super) const NAME: &str = "tree";

impl Tree {
    /// Opens or makes the file and brings it to the journal's end: what is missing, or differs from the journal, is
    /// written from the journal. Whether that is the history that was signed, a checkpoint says. The file is synced only
    /// before a root is signed: after a power cut any block behind the first `signed` records may be missing, though
    /// later ones are there, so all of those are written anew.
    pub(super) fn open(dir: &Path, reader: &Reader, head: Head, signed: u64) -> Result<Self, ReadError> {
        let path = dir.join(NAME);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let tree = Self { file };
        let first = reader.first();
        let same = |seq: u64| Ok::<_, io::Error>(tree.hash(seq)? == reader.frame(seq)?.hash);
        let mut good = tree.len()?.min(head.seq).min(signed.max(first.saturating_sub(1)));
        if good > 0 && good >= first && !same(good)? {
            // The chain makes it monotonic: what agrees at one record agrees at all before it.
            let (mut low, mut high) = (first.saturating_sub(1), good);
            while low + 1 < high {
                let middle = low.midpoint(high);
                if same(middle)? { low = middle } else { high = middle }
            }
            tracing::warn!(from = low + 1, "the file of chain hashes differs from the journal; it is written anew");
            good = low;
        }
        tree.file.set_len(good * WIDTH)?;
        tree.follow(dir, good, head.seq)?;
        Ok(tree)
    }

    /// Records that nobody has any more leave zeros: then no signed root fits.
    fn follow(&self, dir: &Path, good: u64, end: u64) -> Result<(), ReadError> {
        if good == end {
            return Ok(());
        }
        let mut hashes = Vec::new();
        for frame in Frames::open(dir, good + 1)? {
            match frame {
                Ok(frame) if frame.seq > end => break,
                Ok(frame) => {
                    let missing = frame.seq.saturating_sub(good + 1 + hashes.len() as u64 / WIDTH);
                    hashes.resize(hashes.len() + usize::try_from(missing * WIDTH).unwrap_or(0), 0);
                    if frame.seq > good {
                        hashes.extend_from_slice(frame.hash.as_bytes());
                    }
                }
                Err(ReadError::Bad(bad)) if bad.torn => break,
                Err(other) => return Err(other),
            }
        }
        self.file.write_all_at(&hashes, good * WIDTH)?;
        Ok(self.file.sync_data()?)
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len() / WIDTH)
    }

    /// Chain hash of record `seq`.
    fn hash(&self, seq: u64) -> io::Result<Digest> {
        let mut bytes = [0; 32];
        self.file.read_exact_at(&mut bytes, seq.saturating_sub(1) * WIDTH)?;
        Ok(Digest::from_bytes(bytes))
    }

    /// Writes the chain hashes of the records from `first` on.
    pub(super) fn append(&self, first: u64, hashes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(hashes, first.saturating_sub(1) * WIDTH)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Lets the frontier grow to `size` records.
    pub(super) fn grow(&self, frontier: &mut Frontier, size: u64) -> io::Result<()> {
        while frontier.size() < size {
            let from = frontier.size();
            hashes(&self.file, from, (size - from).min(CHUNK))?.iter().for_each(|hash| frontier.push(hash));
        }
        Ok(())
    }
}

fn hashes(file: &File, from: u64, count: u64) -> io::Result<Vec<Digest>> {
    let mut bytes = vec![0; usize::try_from(count * WIDTH).unwrap_or(0)];
    file.read_exact_at(&mut bytes, from * WIDTH)?;
    Ok(bytes.as_chunks::<32>().0.iter().map(|hash| Digest::from_bytes(*hash)).collect())
}

/// The chain hashes of the first `size` records of a journal directory, without a running store.
///
/// # Errors
/// When the file cannot be read or is shorter.
pub fn chain_hashes(dir: &Path, size: u64) -> io::Result<Vec<Digest>> {
    hashes(&File::open(dir.join(NAME))?, 0, size)
}
