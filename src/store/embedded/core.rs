//! The state in memory: open calls, the newest concluded ones, their keys, budgets, counters.
//! [`Core::apply`] is the only thing that changes it, live and in a replay alike.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use hashbrown::{HashMap, HashSet};

use crate::call::{ArtifactId, CallId, Digest, Timestamp};
use crate::journal::Reader;
use crate::store::{Artifact, CallRecord, Known, Question, State, Step};

use super::alike::Decisions;
use super::denials::Denials;
use super::entry::{Entry, Image, fold, followed};
use super::forgotten::Forgotten;
use super::grants::Grants;
use super::index::{Change, Index, IndexError, Stored};
use super::keys;
use super::ledger::Ledgers;
use super::pauses::Pauses;
use super::samples::Samples;
use super::tally::Tally;
use super::trust::Trusts;

/// How long outcomes stay collectable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Collecting {
    /// Answers of holds, after they were collected.
    pub(super) answers: Duration,
    /// Denials of holds, after they were told.
    pub(super) denials: Duration,
    /// Holds without a given key, at most, from their end.
    pub(super) at_most: Duration,
}

/// The state in memory.
#[derive(Debug)]
pub(super) struct Core {
    /// Store time never goes back.
    pub(super) high: Timestamp,
    pub(super) epoch: u64,
    pub(super) key_id: Option<Digest>,
    /// First frame of the segment that is written now.
    pub(super) segment: u64,
    pub(super) calls: HashMap<CallId, Arc<CallRecord>>,
    pub(super) ledgers: Ledgers,
    pub(super) tally: Tally,
    pub(super) grants: Grants,
    pub(super) denials: Denials,
    pub(super) decisions: Decisions,
    pub(super) samples: Samples,
    pub(super) trusts: Trusts,
    pub(super) forgotten: Forgotten,
    pub(super) pauses: Pauses,
    /// The newest frame that was applied, be it durable or not.
    pub(super) newest: u64,
    /// The newest frame of any pause.
    pub(super) paused_at: u64,
    keys: HashMap<Digest, CallId>,
    same: HashMap<Digest, Vec<CallId>>,
    seen: HashSet<Digest>,
    artifacts: HashMap<ArtifactId, Arc<Artifact>>,
    index: Arc<Index>,
    reader: Arc<Reader>,
    collecting: Collecting,
    /// How often memory let go of what the index has.
    evictions: Arc<AtomicU64>,
}

/// What index and journal said of a key before the state was locked: to read them takes longer than all the rest of a
/// step.
#[derive(Debug)]
pub(super) struct Hint {
    key: Digest,
    holder: Option<CallId>,
    record: Option<Arc<CallRecord>>,
    evictions: u64,
}

impl Core {
    pub(super) fn new(index: Arc<Index>, reader: Arc<Reader>, collecting: Collecting) -> Self {
        Self {
            high: Timestamp::default(),
            epoch: 0,
            key_id: None,
            segment: 0,
            calls: HashMap::new(),
            ledgers: Ledgers::default(),
            tally: Tally::default(),
            grants: Grants::default(),
            denials: Denials::default(),
            decisions: Decisions::default(),
            samples: Samples::default(),
            trusts: Trusts::default(),
            forgotten: Forgotten::default(),
            pauses: Pauses::default(),
            newest: 0,
            paused_at: 0,
            keys: HashMap::new(),
            same: HashMap::new(),
            seen: HashSet::new(),
            artifacts: HashMap::new(),
            index,
            reader,
            collecting,
            evictions: Arc::default(),
        }
    }

    /// Counts how often memory let go of what the index has.
    pub(super) fn evictions(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.evictions)
    }

    /// Store time: the clock's, but never earlier than before.
    pub(super) fn now(&mut self, clock: Timestamp) -> Timestamp {
        self.high = self.high.max(clock);
        self.high
    }

    /// Takes one journal entry in, and says what index and watchers must hear.
    pub(super) fn apply(&mut self, seq: u64, at: Timestamp, entry: &Entry) -> Result<Vec<Change>, IndexError> {
        self.high = self.high.max(at);
        self.newest = seq;
        match entry {
            Entry::Recovery { .. } | Entry::Closed { .. } => Ok(Vec::new()),
            Entry::Snapshot(_) => {
                self.segment = seq;
                Ok(Vec::new())
            }
            Entry::Epoch { epoch, key_id, .. } => {
                self.epoch = self.epoch.max(*epoch);
                self.key_id = Some(*key_id);
                Ok(Vec::new())
            }
            Entry::Call { step, record } if record.frames.last() == Some(&seq) => self.call(*step, record, at),
            Entry::Call { step, record } => self.call(*step, &Arc::new(followed((**record).clone(), seq)), at),
            Entry::Step { step, next: Some(next), .. } => self.call(*step, next, at),
            Entry::Step { step, id, changed, next: None } => {
                let old = self.record(*id)?.ok_or_else(|| IndexError::of(format!("{id} changes before it begins")))?;
                if old.frames.contains(&seq) {
                    let key = self.own_key(&old)?;
                    return Ok(vec![Change::Call(old, key, *step)]);
                }
                let mut next = Arc::unwrap_or_clone(old);
                (**changed).clone().apply(&mut next);
                self.call(*step, &Arc::new(followed(next, seq)), at)
            }
            Entry::Artifact { artifact } => {
                self.artifacts.insert(artifact.evidence.id, Arc::clone(artifact));
                Ok(vec![Change::Artifact(Arc::clone(artifact))])
            }
            Entry::Grant { grant } => {
                self.grants.put(seq, grant);
                Ok(Vec::new())
            }
            Entry::Sample { sample } => {
                self.samples.put(seq, sample);
                self.trusts.sample(sample);
                Ok(Vec::new())
            }
            Entry::Paused { pause } => {
                self.pauses.put(pause);
                self.paused_at = seq;
                Ok(Vec::new())
            }
            Entry::Resumed { scope, .. } => {
                self.pauses.lift(scope);
                self.paused_at = seq;
                Ok(Vec::new())
            }
            Entry::ToppedUp { top_up } => {
                self.ledgers.top_up(top_up, at);
                Ok(Vec::new())
            }
            Entry::Forgotten(older) => {
                self.forgotten = self.forgotten.and(*older);
                Ok(Vec::new())
            }
            Entry::Note { note } => {
                self.tally.note(note, at);
                self.trusts.note(note, at);
                Ok(Vec::new())
            }
        }
    }

    fn call(&mut self, step: Step, record: &Arc<CallRecord>, at: Timestamp) -> Result<Vec<Change>, IndexError> {
        if step != Step::Collected {
            let old = self.calls.get(&record.id).cloned();
            self.ledgers.follow(old.as_deref(), record, at);
            self.tally.step(step, record, at);
            self.decisions.step(step, record, at);
            // One that cannot be read any more is too old to say anything of today.
            let undoes = record.undoes.as_ref().filter(|_| record.state == State::Succeeded);
            let undone = undoes.and_then(|u| self.record(u.call).ok().flatten());
            self.trusts.step(step, record, undone.as_deref(), at);
        }
        self.denials.follow(record);
        self.seen.extend(keys::seen_by(record));
        let key = self.insert(record)?;
        Ok(vec![Change::Call(Arc::clone(record), key, step)])
    }

    /// Returns the name of its key, if that stands for this call.
    fn insert(&mut self, record: &Arc<CallRecord>) -> Result<Option<Digest>, IndexError> {
        self.calls.insert(record.id, Arc::clone(record));
        if record.state == State::NotExecuted {
            self.forget_names(record, keys::of_record(record));
            return Ok(None);
        }
        let key = self.own_key(record)?;
        if let Some(key) = key {
            self.keys.insert(key, record.id);
        }
        if record.terms.is_some() {
            let same = self.same.entry(keys::same(record)).or_default();
            if !same.contains(&record.id) {
                same.push(record.id);
            }
        }
        Ok(key)
    }

    /// The name of its key, unless a later call has it. A key that stands for nothing any more is free for another call,
    /// and whatever is still written of the first one (collected, expired long ago) does not take it back.
    fn own_key(&self, record: &CallRecord) -> Result<Option<Digest>, IndexError> {
        let Some(key) = keys::of_record(record) else { return Ok(None) };
        let holder = match self.keys.get(&key) {
            Some(id) => Some(*id),
            None => self.index.key(&key)?,
        };
        let Some(other) = holder.filter(|id| *id != record.id) else { return Ok(Some(key)) };
        // One that cannot be read any more was forgotten: it is older.
        let older = self.record(other).ok().flatten().is_none_or(|other| other.created <= record.created);
        Ok(Some(key).filter(|_| older))
    }

    /// A new call is about to be written that nothing stands in the way of: its key is its own from here on.
    pub(super) fn claim(&mut self, record: &CallRecord) {
        if let Some(key) = keys::of_record(record) {
            self.keys.insert(key, record.id);
        }
    }

    fn forget_names(&mut self, record: &CallRecord, key: Option<Digest>) {
        if let Some(key) = key.filter(|k| self.keys.get(k) == Some(&record.id)) {
            self.keys.remove(&key);
        }
        if record.terms.is_none() {
            return;
        }
        let same = keys::same(record);
        if let Some(ids) = self.same.get_mut(&same) {
            ids.retain(|id| *id != record.id);
            if ids.is_empty() {
                self.same.remove(&same);
            }
        }
    }

    /// The record of a call, from memory or index.
    pub(super) fn record(&self, id: CallId) -> Result<Option<Arc<CallRecord>>, IndexError> {
        match self.calls.get(&id) {
            Some(record) => Ok(Some(Arc::clone(record)).filter(|r| !self.forgotten.has_call(r))),
            None => self.stored(id)?.map(|stored| read(&self.reader, id, &stored.frames)).transpose(),
        }
    }

    fn stored(&self, id: CallId) -> Result<Option<Stored>, IndexError> {
        Ok(self.index.call(id)?.filter(|stored| !self.forgotten.has_stored(id, stored)))
    }

    pub(super) fn artifact(&self, id: ArtifactId) -> Result<Option<Arc<Artifact>>, IndexError> {
        let found = match self.artifacts.get(&id) {
            Some(artifact) => Some(Arc::clone(artifact)),
            None => self.index.artifact(id)?.map(Arc::new),
        };
        Ok(found.filter(|a| !self.forgotten.has_artifact(a)))
    }

    /// Whether this operation succeeded on this target before.
    pub(super) fn has_seen(&self, target: &Digest) -> Result<bool, IndexError> {
        if self.seen.contains(target) {
            return Ok(true);
        }
        let last = self.index.seen(target)?;
        last.map_or(Ok(false), |id| Ok(self.calls.contains_key(&id) || self.stored(id)?.is_some()))
    }

    /// How many names of calls are in memory.
    #[cfg(test)]
    pub(super) fn names(&self) -> usize {
        self.keys.len() + self.same.len() + self.seen.len() + self.artifacts.len()
    }

    /// Lets go of what the index has now. Returns the records that nobody needs any more: to free them takes longer than
    /// the rest, and can be done when the state is not locked.
    pub(super) fn evict<'a>(&mut self, indexed: impl Iterator<Item = &'a Change>) -> Vec<Arc<CallRecord>> {
        self.evictions.fetch_add(1, SeqCst);
        let mut gone = Vec::new();
        for change in indexed {
            match change {
                Change::Call(record, key, _) if record.state.is_final() => {
                    if self.calls.get(&record.id).is_some_and(|r| r.seq == record.seq) {
                        gone.extend(self.calls.remove(&record.id));
                        self.forget_names(record, *key);
                        keys::seen_by(record).map(|target| self.seen.remove(&target));
                    }
                }
                Change::Call(..) => {}
                Change::Artifact(artifact) => drop(self.artifacts.remove(&artifact.evidence.id)),
            }
        }
        gone
    }

    /// What a new segment must begin with.
    pub(super) fn image(&mut self) -> Image {
        let grants = self.grants.image(self.high);
        self.ledgers.prune(self.high, |grant| self.grants.has(grant));
        self.tally.prune(self.high);
        self.trusts.prune(self.high);
        let mut calls: Vec<_> = self.calls.values().filter(|r| !r.state.is_final()).cloned().collect();
        calls.sort_by_key(|r| r.id);
        Image {
            epoch: self.epoch,
            key_id: self.key_id,
            calls,
            ledgers: self.ledgers.image(),
            tally: self.tally.image(),
            grants,
            denials: self.denials.image(self.high),
            decisions: self.decisions.image(self.high),
            samples: self.samples.image(self.high),
            trusts: self.trusts.image(self.high),
            forgotten: self.forgotten,
            pauses: self.pauses.image(),
        }
    }

    /// Begins from a snapshot.
    pub(super) fn restore(&mut self, image: &Image, at: Timestamp) -> Result<(), IndexError> {
        self.high = self.high.max(at);
        self.epoch = image.epoch;
        self.key_id = image.key_id;
        self.ledgers = Ledgers::restore(&image.ledgers);
        self.tally = Tally::restore(&image.tally);
        self.grants = Grants::restore(&image.grants);
        self.denials = Denials::restore(&image.denials);
        self.decisions = Decisions::restore(&image.decisions);
        self.samples = Samples::restore(&image.samples);
        self.trusts = Trusts::restore(&image.trusts);
        self.forgotten = image.forgotten;
        self.pauses.restore(&image.pauses);
        image.calls.iter().try_for_each(|record| self.insert(record).map(drop))
    }

    /// What the store knows of a call that came in, as of `now`.
    pub(super) fn known(&self, q: &Question<'_>, hint: Option<&Hint>, now: Timestamp) -> Result<Known, IndexError> {
        if let Some(record) = self.by_key(q, hint)?.filter(|r| self.stands(r, now)) {
            return Ok(if record.fingerprint == q.fingerprint {
                as_known(&record, now)
            } else {
                Known::KeyReused(record.id)
            });
        }
        if q.key.is_some() && !q.key_derived {
            return Ok(Known::New);
        }
        for id in self.same_calls(q)? {
            if let Some(record) = self.record(id)?.filter(|r| self.attaches(r, now)) {
                return Ok(as_known(&record, now));
            }
        }
        Ok(Known::New)
    }

    fn by_key(&self, q: &Question<'_>, hint: Option<&Hint>) -> Result<Option<Arc<CallRecord>>, IndexError> {
        let Some(key) = hint.map(|h| h.key).or_else(|| keys::of_question(q)) else { return Ok(None) };
        // What left memory since the hint was made may have this key.
        let hint = hint.filter(|h| h.evictions == self.evictions.load(SeqCst));
        let id = match (self.keys.get(&key), hint) {
            (Some(id), _) => Some(*id),
            (None, Some(hint)) => hint.holder,
            (None, None) => self.index.key(&key)?,
        };
        match (id, hint.and_then(|h| h.record.as_ref())) {
            (None, _) => Ok(None),
            (Some(id), Some(read)) if read.id == id && !self.calls.contains_key(&id) => {
                Ok(Some(Arc::clone(read)).filter(|r| !self.forgotten.has_call(r)))
            }
            (Some(id), _) => self.record(id),
        }
    }

    /// Holds of the same caller, operation and fingerprint, newest first.
    fn same_calls(&self, q: &Question<'_>) -> Result<Vec<CallId>, IndexError> {
        let same = keys::same_of(q.principal, q.operation, &q.fingerprint);
        let mut ids = self.index.same(&same)?;
        ids.extend(self.same.get(&same).into_iter().flatten());
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.dedup();
        Ok(ids)
    }

    /// Whether its key still stands for this call.
    fn stands(&self, record: &CallRecord, now: Timestamp) -> bool {
        match record.state_at(now) {
            State::Succeeded | State::Failed => {
                let from = if record.key_derived { record.begun.unwrap_or(record.created) } else { record.updated };
                now < from.plus(record.keep) || self.attaches(record, now)
            }
            state if state.is_final() => self.attaches(record, now),
            _ => true,
        }
    }

    /// A hold is collected, not forgotten: whether a call without a key of its own meets it still.
    fn attaches(&self, record: &CallRecord, now: Timestamp) -> bool {
        let after = match record.state_at(now) {
            _ if record.terms.is_none() => return false,
            State::NotExecuted => return false,
            State::Succeeded | State::Failed => self.collecting.answers,
            state if state.is_final() => self.collecting.denials,
            _ => return true,
        };
        let given = record.key.is_some() && !record.key_derived;
        let cap = if given { record.keep } else { record.keep.max(self.collecting.at_most) };
        now < ended(record).plus(cap) && record.collected.is_none_or(|at| now < at.plus(after))
    }
}

impl Hint {
    /// Looks up the key of a call; `None` when it has none. Nobody need have locked the state.
    pub(super) fn of(
        q: &Question<'_>,
        index: &Index,
        reader: &Reader,
        evictions: &AtomicU64,
    ) -> Result<Option<Self>, IndexError> {
        let Some(key) = keys::of_question(q) else { return Ok(None) };
        // Counted first: what is let go while the index is read makes the hint void.
        let evictions = evictions.load(SeqCst);
        let holder = index.key(&key)?;
        let stored = holder.map_or(Ok(None), |id| Ok(index.call(id)?.map(|stored| (id, stored))))?;
        // What cannot be read now is read again, and complained of, under the lock.
        let record = stored.and_then(|(id, stored)| read(reader, id, &stored.frames).ok());
        Ok(Some(Self { key, holder, record, evictions }))
    }
}

/// The record of a call from its frames; another call's is an error.
fn read(reader: &Reader, id: CallId, frames: &[u64]) -> Result<Arc<CallRecord>, IndexError> {
    match fold(reader, frames).map_err(IndexError::of)? {
        record if record.id == id => Ok(Arc::new(record)),
        other => Err(IndexError::of(format!("the index names the records of {} for {id}", other.id))),
    }
}

/// When it ended; of a hold whose time is over, when that was, whenever it was recorded.
fn ended(record: &CallRecord) -> Timestamp {
    match record.state {
        State::Held => record.expires.unwrap_or(record.updated),
        State::Approved => record.window_closes.unwrap_or(record.updated),
        State::Expired => record.window_closes.or(record.expires).unwrap_or(record.updated),
        _ => record.updated,
    }
}

/// The record as it looks at `now`.
pub(super) fn view(record: &CallRecord, now: Timestamp) -> CallRecord {
    CallRecord { state: record.state_at(now), ..record.clone() }
}

fn as_known(record: &CallRecord, now: Timestamp) -> Known {
    let shown = || Box::new(view(record, now));
    match record.state_at(now) {
        State::Held | State::Approved => Known::Held(shown()),
        State::Dispatching => Known::InFlight(record.id),
        State::Succeeded | State::Failed => Known::Concluded(shown()),
        State::Unknown => Known::Unknown(shown()),
        State::NotExecuted => Known::New,
        State::Rejected | State::Expired | State::Withdrawn | State::Revoked | State::Stale => Known::Over(shown()),
    }
}
