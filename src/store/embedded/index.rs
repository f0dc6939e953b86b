//! The index over the journal: sled, and nobody else's. It may be lost at any time; the journal rebuilds it.
//!
//! Keys: one letter, then fixed width, big endian. Values begin with a version byte. What stands there for every call is at
//! most 22 bytes long, keys and values alike: sled keeps those in its nodes, and anything longer in an allocation of its own.
//! So of a digest the first 20 bytes stand in a key.
//! `c` id → state, end and frames of a concluded call, whose record stands in the journal; `k` key digest → id; `f` digest of (scope, operation, fingerprint), id → nothing;
//! `t` digest of (organisation, operation, target) → id of the call that succeeded last; `a` id → artifact; `m` → what it is applied up to;
//! `w` → what it may have something of already: written before the changes, as `m` is after them;
//! `s` → up to where it was synced: a power cut may take anything behind that, so a replay begins there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::call::{ArtifactId, CallId, Digest, Timestamp};
use crate::store::{Artifact, CallRecord, State, Step};

use super::forgotten::{Forgotten, first_bits};
use super::{keys, packed};

const VERSION: u8 = 3;
const META: &[u8] = b"m";
const SYNCED: &[u8] = b"s";
const WRITING: &[u8] = b"w";

/// What a frame changes for index and watchers.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// A call has this record now; with the name of its key, unless that stands for a later one, and by which step.
    Call(Arc<CallRecord>, Option<Digest>, Step),
    /// An artifact is there.
    Artifact(Arc<Artifact>),
}

/// Up to which frame the index is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Applied {
    pub(super) seq: u64,
    pub(super) hash: Digest,
}

/// The index failed or panicked.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the index failed: {0}")]
pub(super) struct IndexError(String);

impl IndexError {
    pub(super) fn of(what: String) -> Self {
        Self(what)
    }
}

/// What the index says of a concluded call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    /// How it ended.
    pub(super) state: State,
    /// When its last step was.
    pub(super) updated: Timestamp,
    /// Frames of the journal that its record is read from; all in one segment.
    pub(super) frames: Vec<u64>,
}

impl Stored {
    fn encode(record: &CallRecord) -> Vec<u8> {
        let state = State::ALL.iter().position(|s| *s == record.state).and_then(|n| u8::try_from(n).ok());
        let mut out = vec![VERSION, state.unwrap_or(u8::MAX)];
        packed::put(&mut out, record.updated.as_millis().cast_unsigned());
        packed::put_rising(&mut out, &record.frames);
        out
    }

    fn decode(value: &[u8]) -> Result<Self> {
        let parts = || {
            let [version, state, rest @ ..] = value else { return None };
            (*version == VERSION).then_some(())?;
            let (updated, frames) = packed::take(rest)?;
            Some(Self {
                state: *State::ALL.get(usize::from(*state))?,
                updated: Timestamp::from_millis(updated.cast_signed()),
                frames: packed::take_rising(frames)?,
            })
        };
        parts().ok_or_else(|| IndexError("a call's entry cannot be read".to_owned()))
    }
}

type Result<T> = std::result::Result<T, IndexError>;

/// The open index.
#[derive(Debug)]
pub(super) struct Index {
    db: sled::Db,
    path: PathBuf,
}

/// sled panics on some damage; a panic is an error like any other here.
fn guarded<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|e| IndexError(e.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
            Err(IndexError(format!("panic: {text}")))
        }
    }
}

fn name(letter: u8, rest: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![letter];
    rest.iter().for_each(|part| key.extend_from_slice(part));
    key
}

/// The part of a digest that stands in keys.
fn short(digest: &Digest) -> &[u8] {
    digest.as_bytes().first_chunk::<20>().map_or(&[], |part| part.as_slice())
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut out = vec![VERSION];
    serde_json::to_writer(&mut out, value).map_err(|e| IndexError(e.to_string()))?;
    Ok(out)
}

fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T> {
    match value.split_first() {
        Some((&VERSION, json)) => serde_json::from_slice(json).map_err(|e| IndexError(e.to_string())),
        _ => Err(IndexError("a value of another version".to_owned())),
    }
}

fn call_id(bytes: &[u8]) -> Option<CallId> {
    Some(CallId::from_bits(u128::from_be_bytes(bytes.try_into().ok()?)))
}

impl Index {
    pub(super) fn open(path: &Path) -> Result<Self> {
        remove_unfinished_snapshots(path);
        let config = sled::Config::new().path(path).cache_capacity(32 << 20).flush_every_ms(Some(500));
        let db = guarded(|| opened(&config))?;
        let index = Self { db, path: path.to_owned() };
        if index.applied()?.is_none() && !index.db.is_empty() {
            return Err(IndexError("it does not say up to which record it is applied".to_owned()));
        }
        Ok(index)
    }

    fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>> {
        guarded(|| self.db.get(key))?.map(|v| decode(&v)).transpose()
    }

    pub(super) fn applied(&self) -> Result<Option<Applied>> {
        self.get(META)
    }

    /// The newest frame that it may have anything of.
    pub(super) fn reaches(&self) -> Result<u64> {
        let writing: Option<Applied> = self.get(WRITING)?;
        Ok([self.applied()?, writing].into_iter().flatten().map(|a| a.seq).max().unwrap_or(0))
    }

    /// Up to which frame it is on the disk for sure.
    pub(super) fn synced(&self) -> Result<Option<Applied>> {
        self.get(SYNCED)
    }

    /// Applies changes, then the mark up to where they reach. Not all or nothing: readers would wait for the whole of a
    /// batch. What a crash leaves half applied lies behind the mark of the last sync, and a replay writes it again.
    pub(super) fn apply<'a>(&self, changes: impl Iterator<Item = &'a Change>, applied: Option<Applied>) -> Result<()> {
        if let Some(applied) = applied {
            self.put(WRITING.to_vec(), encode(&applied)?)?;
        }
        for change in changes {
            match change {
                Change::Call(record, key, _) if record.state.is_final() => guarded(|| self.put_call(record, *key))?,
                Change::Call(..) => {}
                Change::Artifact(artifact) => {
                    let value = encode(&**artifact)?;
                    self.put(name(b'a', &[&artifact.evidence.id.bits().to_be_bytes()]), value)?;
                }
            }
        }
        applied.map_or(Ok(()), |applied| self.put(META.to_vec(), encode(&applied)?))
    }

    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        guarded(|| self.db.insert(key, value)).map(drop)
    }

    fn put_call(&self, record: &CallRecord, key: Option<Digest>) -> sled::Result<()> {
        let id = record.id.bits().to_be_bytes();
        self.db.insert(name(b'c', &[&id]), Stored::encode(record))?;
        if record.state != State::NotExecuted {
            if let Some(key) = key {
                self.db.insert(name(b'k', &[short(&key)]), &id)?;
            }
            if record.terms.is_some() {
                self.db.insert(name(b'f', &[keys::same(record).as_bytes(), &id]), &[])?;
            }
        }
        if let Some(target) = keys::seen_by(record) {
            self.db.insert(name(b't', &[short(&target)]), &id)?;
        }
        Ok(())
    }

    pub(super) fn call(&self, id: CallId) -> Result<Option<Stored>> {
        let value = guarded(|| self.db.get(name(b'c', &[&id.bits().to_be_bytes()])))?;
        value.map(|v| Stored::decode(&v)).transpose()
    }

    pub(super) fn artifact(&self, id: ArtifactId) -> Result<Option<Artifact>> {
        self.get(&name(b'a', &[&id.bits().to_be_bytes()]))
    }

    /// The call that this key stood for last.
    pub(super) fn key(&self, key: &Digest) -> Result<Option<CallId>> {
        Ok(guarded(|| self.db.get(name(b'k', &[short(key)])))?.and_then(|v| call_id(&v)))
    }

    /// Holds of the same scope, operation and fingerprint, newest first, a few.
    pub(super) fn same(&self, same: &Digest) -> Result<Vec<CallId>> {
        let prefix = name(b'f', &[same.as_bytes()]);
        guarded(|| {
            let keys = self.db.scan_prefix(&prefix).keys().rev().take(8).collect::<sled::Result<Vec<_>>>()?;
            Ok(keys.iter().filter_map(|k| call_id(k.get(prefix.len()..)?)).collect())
        })
    }

    /// The call that succeeded last on this target.
    pub(super) fn seen(&self, target: &Digest) -> Result<Option<CallId>> {
        Ok(guarded(|| self.db.get(name(b't', &[short(target)])))?.and_then(|v| call_id(&v)))
    }

    /// Concluded calls with ids below `before`, newest first, until `take` has enough.
    pub(super) fn newest(
        &self,
        before: Option<CallId>,
        mut take: impl FnMut(CallId, Stored) -> Result<bool>,
    ) -> Result<()> {
        let end = before.map_or_else(|| vec![b'c' + 1], |id| name(b'c', &[&id.bits().to_be_bytes()]));
        let mut found = guarded(|| Ok(self.db.range(vec![b'c']..end).rev()))?;
        while let Some((key, value)) = guarded(|| found.next().transpose())? {
            let id =
                key.get(1..).and_then(call_id).ok_or_else(|| IndexError("a call's key cannot be read".to_owned()))?;
            if !take(id, Stored::decode(&value)?)? {
                break;
            }
        }
        Ok(())
    }

    /// Whether it has anything of what is forgotten.
    pub(super) fn has_any(&self, forgotten: Forgotten) -> Result<bool> {
        for item in self.until(b'c', forgotten.calls) {
            if Stored::decode(&guarded(|| item)?.1)?.updated < forgotten.calls {
                return Ok(true);
            }
        }
        for item in self.until(b'a', forgotten.artifacts) {
            if decode::<Artifact>(&guarded(|| item)?.1)?.evidence.at < forgotten.artifacts {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lets go of what is forgotten; `read` gives the record of a call, whose names go with it. `stays` hears of calls
    /// that are as old, but ended later. Returns how many calls and artifacts went.
    pub(super) fn forget(
        &self,
        forgotten: Forgotten,
        read: impl Fn(&Stored) -> std::result::Result<CallRecord, String>,
        mut stays: impl FnMut(&CallRecord),
    ) -> Result<(u64, u64)> {
        let mut batch = Removal { index: self, batch: sled::Batch::default(), size: 0, entries: 0 };
        for item in self.until(b'c', forgotten.calls) {
            let (key, value) = guarded(|| item)?;
            let stored = Stored::decode(&value)?;
            let record = read(&stored);
            if stored.updated >= forgotten.calls {
                record.iter().for_each(&mut stays);
                continue;
            }
            let mut keys = vec![key.to_vec()];
            if let Ok(record) = &record {
                keys.push(name(b'f', &[keys::same(record).as_bytes(), &record.id.bits().to_be_bytes()]));
                self.release_names(record)?;
            }
            batch.remove(keys)?;
        }
        let calls = batch.done()?;
        let mut batch = Removal { index: self, batch: sled::Batch::default(), size: 0, entries: 0 };
        for item in self.until(b'a', forgotten.artifacts) {
            let (key, value) = guarded(|| item)?;
            if decode::<Artifact>(&value)?.evidence.at < forgotten.artifacts {
                batch.remove(vec![key.to_vec()])?;
            }
        }
        Ok((calls, batch.done()?))
    }

    /// Entries whose ids were made before `end`, oldest first.
    fn until(&self, letter: u8, end: Timestamp) -> sled::Iter {
        self.db.range(vec![letter]..name(letter, &[&first_bits(end).to_be_bytes()]))
    }

    /// Takes its key and its target from this call, unless a newer call has them by now.
    fn release_names(&self, record: &CallRecord) -> Result<()> {
        let id = record.id.bits().to_be_bytes();
        let names = [(b'k', keys::of_record(record)), (b't', keys::seen_by(record))];
        for (letter, digest) in names.into_iter().filter_map(|(l, d)| Some((l, d?))) {
            let key = name(letter, &[short(&digest)]);
            // Refused when it stands for another call, which is well.
            guarded(|| self.db.compare_and_swap(key, Some(&id[..]), None::<&[u8]>))?.ok();
        }
        Ok(())
    }

    /// Everything in it but how it was written, for comparing two indexes.
    #[cfg(test)]
    pub(super) fn dump(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let entries = self.db.iter().filter_map(std::result::Result::ok).filter(|(k, _)| k != WRITING);
        entries.map(|(k, v)| (k.to_vec(), v.to_vec())).collect()
    }

    /// What a power cut may do: some of what was not synced is gone, the mark is not.
    #[cfg(test)]
    pub(super) fn lose_unsynced(&self) {
        for key in self.db.scan_prefix(b"k").keys().step_by(2) {
            self.db.remove(key.unwrap()).unwrap();
        }
        self.db.remove(SYNCED).unwrap();
        self.db.flush().unwrap();
    }

    /// A kill may leave it so.
    #[cfg(test)]
    pub(super) fn was_writing(&self, seq: u64) {
        let up_to = Applied { seq, hash: Digest::of(b"gone") };
        self.put(WRITING.to_vec(), encode(&up_to).unwrap()).unwrap();
        self.db.flush().unwrap();
    }

    #[cfg(test)]
    pub(super) fn forget_mark(&self) {
        self.db.remove(META).unwrap();
    }

    /// Puts it on the disk for real: sled's `flush` alone never syncs.
    pub(super) fn sync(&self) -> Result<()> {
        let mark = guarded(|| self.db.get(META))?;
        guarded(|| self.db.flush())?;
        let synced = std::fs::File::open(self.path.join("db")).and_then(|f| f.sync_all());
        synced.map_err(|e| IndexError(e.to_string()))?;
        match mark {
            Some(mark) => guarded(|| self.db.insert(SYNCED, mark)).map(drop),
            None => Ok(()),
        }
    }
}

/// Takes entries out, some at a time.
struct Removal<'a> {
    index: &'a Index,
    batch: sled::Batch,
    size: usize,
    entries: u64,
}

impl Removal<'_> {
    fn remove(&mut self, keys: Vec<Vec<u8>>) -> Result<()> {
        keys.into_iter().for_each(|k| self.batch.remove(k));
        self.entries += 1;
        self.size += 1;
        if self.size >= 512 { self.apply() } else { Ok(()) }
    }

    fn apply(&mut self) -> Result<()> {
        self.size = 0;
        let batch = std::mem::take(&mut self.batch);
        guarded(|| self.index.db.apply_batch(batch))
    }

    fn done(mut self) -> Result<u64> {
        self.apply()?;
        Ok(self.entries)
    }
}

/// Opens the database. Nobody else has the state directory: a lock that is held is that of an instance of this process
/// whose threads are still ending.
fn opened(config: &sled::Config) -> sled::Result<sled::Db> {
    for _ in 0..100 {
        match config.open() {
            Err(sled::Error::Io(e)) if e.to_string().contains("acquire lock") => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            done => return done,
        }
    }
    config.open()
}

/// A kill while sled writes a snapshot leaves a file that makes every later open fail.
fn remove_unfinished_snapshots(path: &Path) {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            let gone = std::fs::remove_file(entry.path());
            tracing::warn!(file = name, removed = gone.is_ok(), "unfinished snapshot of the index");
        }
    }
}
