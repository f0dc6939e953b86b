//! Signed checkpoints: what this log has said of itself. A start that finds less, or something else, than was signed
//! sends nothing with effects until a person has accepted it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;

use crate::call::{Digest, Fault};
use crate::failpoint;
use crate::journal::merkle::Frontier;
use crate::journal::note::{Checkpoint, Signer, Verifier};
use crate::journal::{self, Head, Reader};
use crate::store::AuditNote;

use super::entry::Entry;
use super::{Inner, Options, Store, Unavailable};

/// The file with the newest one, in the state directory.
const NAME: &str = "checkpoint";
/// What was found wrong with the history, until a person accepts it.
const TROUBLE: &str = "history.trouble";

/// Signs, and remembers what was signed.
#[derive(Debug)]
pub(super) struct Checkpoints {
    signer: Signer,
    places: Vec<PathBuf>,
    newest: Mutex<Newest>,
    /// Why nothing more is signed. Apart from `newest`, which is locked while the disk is waited for.
    trouble: Mutex<Option<String>>,
    /// The last one could not be signed or written.
    failed: AtomicBool,
}

#[derive(Debug, Default)]
struct Newest {
    signed: Option<Checkpoint>,
    /// The tree was computed and has the root that was signed before.
    proved: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(place: &Path, key: &Verifier) -> Result<Option<Checkpoint>, String> {
    match fs::read_to_string(place) {
        Ok(text) => match Checkpoint::verified(&text, key) {
            Ok(checkpoint) => Ok(Some(checkpoint)),
            Err(e) => Err(format!("the checkpoint `{}` cannot be believed: {e}", place.display())),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(format!("the checkpoint `{}` cannot be read: {e}", place.display())),
    }
}

/// Whether the journal still is what was signed; only the last signed record is looked at, its chain hash stands for all
/// before it.
fn compare(signed: &Checkpoint, reader: &Reader, head: Head) -> Result<(), String> {
    if signed.size > head.seq {
        let (was, is) = (signed.size, head.seq);
        return Err(format!("rollback detected: {was} records were signed, the journal ends with record {is}"));
    }
    if signed.size < reader.first() || signed.size == 0 {
        return Ok(());
    }
    match reader.frame(signed.size) {
        Ok(frame) if frame.hash == signed.chain => Ok(()),
        Ok(_) => Err(format!("history was rewritten: record {} is not the one that was signed", signed.size)),
        Err(e) => Err(format!("record {}, the last one that was signed, cannot be read: {e}", signed.size)),
    }
}

impl Checkpoints {
    /// Reads what was signed before and compares it with the journal.
    pub(super) fn open(dir: &Path, options: &Options, reader: &Reader, head: Head) -> io::Result<Self> {
        let seed = journal::key_file(&dir.join("checkpoint.key"))?;
        let signer = Signer::new(&seed).map_err(io::Error::other)?;
        let places: Vec<PathBuf> =
            [Some(dir.join(NAME)), options.checkpoint_copy.clone()].into_iter().flatten().collect();
        let mut newest = Newest::default();
        let mut trouble = fs::read_to_string(dir.join(TROUBLE)).ok();
        for place in &places {
            match read(place, signer.verifier()) {
                Ok(None) => {}
                Ok(Some(signed)) => {
                    trouble = trouble.or(compare(&signed, reader, head).err());
                    let larger = newest.signed.as_ref().is_none_or(|n| n.size < signed.size);
                    newest.signed = if larger { Some(signed) } else { newest.signed };
                }
                Err(wrong) => trouble = Some(wrong),
            }
        }
        let own = places.first().filter(|own| !own.exists());
        if let Some(own) = own.filter(|_| head.seq > 0) {
            // The first one is signed before the first record is written.
            let gone = format!("the signed checkpoint `{}` is gone, {} records are there", own.display(), head.seq);
            trouble = trouble.or(Some(gone));
        }
        let fresh = own.is_some() && head.seq == 0 && trouble.is_none();
        let (newest, trouble) = (Mutex::new(newest), Mutex::new(trouble));
        let checkpoints = Self { signer, places, newest, trouble, failed: AtomicBool::new(false) };
        if fresh {
            checkpoints.sign(&mut locked(&checkpoints.newest), head, Frontier::default().root())?;
        }
        Ok(checkpoints)
    }

    /// Signs and writes one, which is the newest from then on.
    fn sign(&self, newest: &mut Newest, head: Head, root: Digest) -> io::Result<String> {
        let note = self.signer.sign(head.seq, root, head.hash);
        self.write(&note)?;
        newest.signed = Some(Checkpoint { size: head.seq, root, chain: head.hash });
        Ok(note)
    }

    /// How many records the newest one covers; 0 without one that can be believed.
    pub(super) fn signed(&self) -> u64 {
        if self.trouble().is_some() { 0 } else { locked(&self.newest).signed.as_ref().map_or(0, |n| n.size) }
    }

    pub(super) fn trouble(&self) -> Option<String> {
        locked(&self.trouble).clone()
    }

    /// Whether the last one was signed and written.
    pub(super) fn works(&self) -> bool {
        !self.failed.load(Relaxed)
    }

    /// Notes that the history is not what it was, over restarts, until a person accepts it.
    pub(super) fn remember(&self, what: &str) -> io::Result<()> {
        locked(&self.trouble).get_or_insert_with(|| what.to_owned());
        match self.places.first().map(|own| own.with_file_name(TROUBLE)).filter(|t| !t.exists()) {
            Some(marker) => journal::replace_file(&marker, what.as_bytes()),
            None => Ok(()),
        }
    }

    fn write(&self, note: &str) -> io::Result<()> {
        let (own, copies) = self.places.split_first().ok_or_else(|| io::Error::other("no place for checkpoints"))?;
        journal::replace_file(own, note.as_bytes())?;
        for copy in copies {
            if let Err(error) = journal::replace_file(copy, note.as_bytes()) {
                tracing::error!(%error, path = %copy.display(), "the copy of the checkpoint cannot be written");
            }
        }
        Ok(())
    }
}

impl Inner {
    /// Signs what is durable now; `None` when that was signed before, or nothing may be signed.
    pub(super) fn sign(&self) -> io::Result<Option<String>> {
        let signed = self.try_sign();
        self.checkpoints.failed.store(signed.is_err(), Relaxed);
        signed
    }

    fn try_sign(&self) -> io::Result<Option<String>> {
        let c = &self.checkpoints;
        let mut newest = locked(&c.newest);
        let head = self.journal.head();
        let before = newest.signed.as_ref().map_or(0, |n| n.size);
        if c.trouble().is_some() || head.seq <= before || !self.journal.healthy() {
            return Ok(None);
        }
        if let Some(old) = newest.signed.as_ref().filter(|_| !newest.proved)
            && self.journal.root(old.size)? != old.root
        {
            let what = format!("the tree over the first {} records has not the root that was signed", old.size);
            tracing::error!(what, "nothing with effects is done any more; look with `holdpoint audit verify`");
            self.broken.store(true, Relaxed);
            c.remember(&what)?;
            return Ok(None);
        }
        newest.proved = true;
        failpoint::hit("sign.before");
        let note = c.sign(&mut newest, head, self.journal.root(head.seq)?)?;
        failpoint::hit("sign.written");
        Ok(Some(note))
    }

    fn accept(&self, reason: &str, by: &str) -> io::Result<()> {
        let c = &self.checkpoints;
        let trouble = c.trouble();
        let more = [("reason", json!(reason)), ("by", json!(by)), ("trouble", json!(trouble))];
        let note = AuditNote::plain("history.accepted", more.map(|(k, v)| (k.to_owned(), v)).into());
        let failed = |_: Unavailable| io::Error::other("the store cannot be written");
        let seq = {
            let (mut core, now) = self.lock_healthy().map_err(failed)?;
            self.commit(&mut core, now, Vec::new(), |_| Entry::Note { note }).map_err(failed)?
        };
        self.journal.durable_blocking(seq).map_err(io::Error::other)?;
        for place in c.places.iter().filter(|p| p.exists()) {
            let free = (1..).map(|n| place.with_extension(format!("rejected{n}"))).find(|p| !p.exists());
            free.map_or(Ok(0), |free| fs::copy(place, free))?;
        }
        *locked(&c.trouble) = None;
        *locked(&c.newest) = Newest { proved: true, ..Newest::default() };
        if let Err(error) = self.sign() {
            *locked(&c.trouble) = trouble;
            return Err(error);
        }
        // Last: until then another start refuses as this one did.
        match c.places.first().map(|own| fs::remove_file(own.with_file_name(TROUBLE))) {
            Some(Err(e)) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

impl Store {
    /// Signs a checkpoint of what is durable now, if anything is new since the last one, and puts it beside the
    /// journal and where [`Options::checkpoint_copy`] says. The first one after an open computes the whole tree and
    /// compares it with what was signed before; a difference makes the store unavailable.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub async fn checkpoint(&self) -> Result<Option<String>, Fault> {
        let inner = std::sync::Arc::clone(&self.inner);
        let signed = tokio::task::spawn_blocking(move || inner.sign()).await;
        signed.map_err(|e| Fault::caused("signing", e))?.map_err(|e| Fault::caused("signing a checkpoint", e))
    }

    /// The public key of the checkpoints.
    #[must_use]
    pub fn checkpoint_key(&self) -> &Verifier {
        self.inner.checkpoints.signer.verifier()
    }

    /// A person says that the history as it is now is the one to go on with, though another was signed. It is recorded;
    /// the old checkpoints are set aside and a new one is signed.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub fn accept_history(&self, reason: &str, by: &str) -> Result<(), Fault> {
        self.inner.accept(reason, by).map_err(|e| Fault::caused("accepting the history", e))
    }
}
