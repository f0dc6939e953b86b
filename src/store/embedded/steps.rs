//! The steps of a call itself: park, begin, conclude, reconcile; and records that are no steps.

use std::sync::Arc;

use bytes::Bytes;

use crate::call::{ArtifactId, CallId, Digest, Fault, GrantOver, Timestamp};
use crate::failpoint;
use crate::journal::{SealError, Sealed, Sealer};
use crate::store::state::{self, Event, Ruling};
use crate::store::{
    AnswerBody, Artifact, AuditNote, Begin, BeginError, Begun, CallRecord, Conclusion, Evidence, HoldError, Known,
    NewArtifact, Note, Park, ParkError, PayloadRef, Preview, Question, Reconcile, State, Step, StoredAnswer,
    StoredRequest, is_grants, votes,
};

use super::core::{Core, Hint};
use super::entry::{Entry, followed, placed};
use super::trust::near_miss;
use super::{Inner, MAX_BACKLOG, Refused, Store, Unavailable, points};

impl From<SealError> for Unavailable {
    fn from(_: SealError) -> Self {
        Self
    }
}

macro_rules! unavailable {
    ($($error:ty),*) => {$(
        impl From<Unavailable> for $error {
            fn from(_: Unavailable) -> Self {
                Self::Unavailable
            }
        }
    )*};
}
unavailable!(ParkError, BeginError, HoldError);

/// Points at a payload; the frame's number comes when it has one.
fn reference(sealed: &Sealed, index: u32) -> PayloadRef {
    PayloadRef { seq: 0, index, len: sealed.meta.len, digest: sealed.meta.digest }
}

/// What one frame carries.
struct Payloads<'a> {
    sealer: &'a Sealer,
    all: Vec<Sealed>,
}

impl Payloads<'_> {
    fn put(&mut self, bytes: Bytes) -> Result<PayloadRef, Unavailable> {
        let sealed = self.sealer.seal(bytes)?;
        let index = u32::try_from(self.all.len()).map_err(|_| Unavailable)?;
        let at = reference(&sealed, index);
        self.all.push(sealed);
        Ok(at)
    }

    fn put_some(&mut self, bytes: Bytes) -> Result<Option<PayloadRef>, Unavailable> {
        if bytes.is_empty() { Ok(None) } else { self.put(bytes).map(Some) }
    }
}

/// Nothing begins that the kill switch stops.
fn stopping(core: &Core, record: &CallRecord) -> Result<(), BeginError> {
    match core.pauses.stopping(record.stopped()) {
        Some(pause) => Err(BeginError::Paused(Box::new(pause))),
        None => Ok(()),
    }
}

fn question(record: &CallRecord) -> Question<'_> {
    Question {
        principal: &record.principal,
        operation: &record.operation,
        key: record.key.as_deref(),
        key_derived: record.key_derived,
        fingerprint: record.fingerprint,
    }
}

impl Inner {
    fn seal_request(
        &self,
        record: &mut CallRecord,
        [body, arguments, states]: [Bytes; 3],
    ) -> Result<Vec<Sealed>, Unavailable> {
        self.seal(&mut record.request, record.preview.as_deref_mut(), [body, arguments, states])
    }

    /// What a request and its preview point at.
    pub(super) fn seal(
        &self,
        request: &mut StoredRequest,
        preview: Option<&mut Preview>,
        [body, arguments, states]: [Bytes; 3],
    ) -> Result<Vec<Sealed>, Unavailable> {
        let mut payloads = Payloads { sealer: self.journal.sealer(), all: Vec::new() };
        request.body = Some(payloads.put(body)?);
        request.arguments = payloads.put_some(arguments)?;
        if let Some(preview) = preview {
            preview.states = payloads.put_some(states)?;
        }
        Ok(payloads.all)
    }

    /// A preview that a step writes anew, and what it points at.
    pub(super) fn seal_preview(
        &self,
        given: Option<(Box<Preview>, Bytes)>,
    ) -> Result<(Option<Box<Preview>>, Vec<Sealed>), Unavailable> {
        let mut payloads = Payloads { sealer: self.journal.sealer(), all: Vec::new() };
        let Some((mut preview, states)) = given else { return Ok((None, Vec::new())) };
        preview.states = payloads.put_some(states)?;
        Ok((Some(preview), payloads.all))
    }

    /// Writes the first record of a call. Everything was checked.
    fn create(
        &self,
        core: &mut Core,
        step: Step,
        mut record: CallRecord,
        payloads: Vec<Sealed>,
        now: Timestamp,
    ) -> Result<Arc<CallRecord>, Unavailable> {
        let id = record.id;
        record.version = 1;
        record.created = now;
        record.updated = now;
        if let Some(undoes) = &record.undoes
            && let Some(undone) = core.record(undoes.call)?
        {
            self.end_alike(core, &undone, GrantOver::Undone, now)?;
        }
        core.claim(&record);
        self.commit(core, now, payloads, |seq| {
            record.frames.clear();
            placed(&mut record, seq);
            Entry::Call { step, record: Arc::new(followed(record, seq)) }
        })?;
        points::queued(step);
        core.calls.get(&id).cloned().ok_or(Unavailable)
    }

    /// What index and journal say of a key; read before the state is locked. Nothing when they cannot be read: who needs
    /// them then finds out under the lock.
    pub(super) fn hint(&self, q: &Question<'_>) -> Option<Hint> {
        Hint::of(q, &self.index, &self.journal.reader(), &self.evictions).ok().flatten()
    }

    /// The call that stands for the same key, or is the same call in a hold.
    fn taken(
        &self,
        core: &Core,
        record: &CallRecord,
        hint: Option<&Hint>,
        now: Timestamp,
    ) -> Result<Option<CallId>, Unavailable> {
        Ok(match core.known(&question(record), hint, now)? {
            // Ids are made anew for each call: only one that is used twice in one process could be met here.
            Known::New => core.calls.get(&record.id).map(|r| r.id),
            Known::InFlight(id) | Known::KeyReused(id) => Some(id),
            Known::Concluded(r) | Known::Held(r) | Known::Over(r) | Known::Unknown(r) => Some(r.id),
        })
    }

    fn park(&self, park: Park) -> Result<Arc<CallRecord>, ParkError> {
        let mut record = park.record;
        let payloads = self.seal_request(&mut record, [park.body, park.arguments, park.states])?;
        let hint = self.hint(&question(&record));
        let (mut core, now) = self.lock_healthy()?;
        if let Some(id) = self.taken(&core, &record, hint.as_ref(), now)? {
            return Err(ParkError::KeyTaken(id));
        }
        if let Some(pause) = core.pauses.stopping(record.stopped()) {
            return Err(ParkError::Paused(Box::new(pause)));
        }
        if let Some(id) = core.denials.of(&record, now) {
            return Err(ParkError::DeniedAlike(id));
        }
        let waits = |r: &&Arc<CallRecord>| matches!(r.state_at(now), State::Held | State::Approved);
        let own = |r: &&Arc<CallRecord>| {
            r.principal.agent == record.principal.agent && r.principal.org == record.principal.org
        };
        let waiting: Vec<_> = core.calls.values().filter(waits).collect();
        if waiting.len() >= park.max_total {
            return Err(ParkError::TooManyTotal);
        }
        if waiting.into_iter().filter(own).count() >= park.max_per_agent {
            return Err(ParkError::TooManyAgent);
        }
        let scope = record.principal.key();
        for id in park.evidence {
            let found = core.artifact(id).map_err(Unavailable::from)?;
            record.evidence.extend(found.filter(|a| a.principal_key == scope).map(|a| a.evidence.clone()));
        }
        if record.state == State::Approved {
            // Policy allows it by itself; it only waits for its time.
            state::approve(&mut record, now);
        } else {
            record.state = State::Held;
            record.expires = record.terms.as_ref().map(|t| now.plus(t.expires));
        }
        Ok(self.create(&mut core, Step::Parked, record, payloads, now)?)
    }

    fn begin(&self, begin: Begin) -> Result<Arc<CallRecord>, BeginError> {
        let mut record = begin.record;
        if begin.release {
            return self.release(&record, begin.charges);
        }
        let payloads = self.seal_request(&mut record, [begin.body, begin.arguments, begin.states])?;
        let hint = self.hint(&question(&record));
        let (mut core, now) = self.lock_healthy()?;
        if self.taken(&core, &record, hint.as_ref(), now)?.is_some() {
            return Err(BeginError::KeyTaken);
        }
        stopping(&core, &record)?;
        if record.grant.is_some_and(|id| !core.grants.lets(id, &record, &begin.charges, now)) {
            return Err(BeginError::GrantOver);
        }
        if let Some(charge) = core.ledgers.lacking(&begin.charges) {
            let over = is_grants(&charge.ledger);
            return Err(if over { BeginError::GrantOver } else { BeginError::Budget(Box::new(charge)) });
        }
        record.attempt = 0;
        state::begin(&mut record, self.epoch, begin.charges, now);
        Ok(self.create(&mut core, Step::Begun, record, payloads, now)?)
    }

    fn release(&self, record: &CallRecord, charges: Vec<crate::store::Charge>) -> Result<Arc<CallRecord>, BeginError> {
        let (mut core, now) = self.lock_healthy()?;
        let stored = core.record(record.id).map_err(Unavailable::from)?.ok_or(BeginError::NotApproved)?;
        match (stored.state, stored.state_at(now)) {
            (State::Approved | State::Expired, State::Expired) if stored.window_closes.is_some() => {
                self.settle(&mut core, stored.id, now)?;
                return Err(BeginError::WindowClosed);
            }
            (_, State::Approved)
                if stored.version == record.version && (stored.may_begin(now) || stored.halted.is_some()) => {}
            _ => return Err(BeginError::NotApproved),
        }
        stopping(&core, &stored)?;
        if let Some(charge) = core.ledgers.lacking(&charges) {
            return Err(BeginError::Budget(Box::new(charge)));
        }
        let event = Event::Begin { epoch: self.epoch, charges, ruling: Ruling::of(record) };
        self.step(&mut core, &stored, event, now, Vec::new()).map_err(|refused| match refused {
            Refused::Illegal(_) => BeginError::NotApproved,
            Refused::Unavailable => BeginError::Unavailable,
        })
    }

    fn conclude(&self, begun: &Begun, conclusion: Conclusion) -> Result<Arc<CallRecord>, Fault> {
        let (answer, payloads) = self.answer(conclusion.answer, conclusion.body)?;
        let (mut core, now) = self.lock_healthy()?;
        let stored = core.record(begun.id).map_err(Unavailable::from)?;
        let stored = stored.ok_or_else(|| Fault::new("a call was concluded that was never begun"))?;
        let (attempt, epoch, state) = (begun.attempt, begun.epoch, conclusion.state);
        if stored.state == State::Unknown && state == State::Unknown && stored.attempt == attempt {
            return Ok(stored);
        }
        let event = Event::Conclude { attempt, epoch, state, answer, note: conclusion.note };
        self.step(&mut core, &stored, event, now, payloads).map_err(|refused| match refused {
            Refused::Illegal(illegal) => Fault::caused("a stale attempt cannot conclude a call", illegal),
            Refused::Unavailable => Unavailable.into(),
        })
    }

    fn answer(
        &self,
        answer: Option<(u16, Vec<(String, String)>)>,
        body: AnswerBody,
    ) -> Result<(Option<StoredAnswer>, Vec<Sealed>), Unavailable> {
        let Some((status, headers)) = answer else { return Ok((None, Vec::new())) };
        let kept = match body {
            AnswerBody::Digest(len, digest) => {
                return Ok((Some(StoredAnswer { status, headers, len, digest, body: None }), Vec::new()));
            }
            AnswerBody::Kept(bytes) => bytes,
            AnswerBody::None => Bytes::new(),
        };
        let sealed = self.journal.sealer().seal(kept)?;
        let (len, digest): (u64, Digest) = (sealed.meta.len, sealed.meta.digest);
        let body = Some(reference(&sealed, 0));
        Ok((Some(StoredAnswer { status, headers, len, digest, body }), vec![sealed]))
    }

    fn reconcile(&self, r: &Reconcile) -> Result<Arc<CallRecord>, HoldError> {
        let (mut core, now) = self.lock_healthy()?;
        let stored = core.record(r.id).map_err(Unavailable::from)?.ok_or(HoldError::NotFound)?;
        let event = votes::opinion(&stored, r, now)?;
        self.step(&mut core, &stored, event, now, Vec::new()).map_err(|refused| match refused {
            Refused::Illegal(_) => HoldError::AlreadyDecided(Box::new((*stored).clone())),
            Refused::Unavailable => HoldError::Unavailable,
        })
    }

    /// A step that says nothing where the diagram has no such arrow any more.
    fn if_legal(
        &self,
        id: CallId,
        event: Event,
        only: impl FnOnce(&Core, &CallRecord) -> bool,
    ) -> Result<Option<Arc<CallRecord>>, Unavailable> {
        let (mut core, now) = self.lock_healthy()?;
        let Some(stored) = core.record(id)?.filter(|r| only(&core, r)) else { return Ok(None) };
        match self.step(&mut core, &stored, event, now, Vec::new()) {
            Ok(next) => Ok(Some(next)),
            Err(Refused::Illegal(_)) => Ok(None),
            Err(Refused::Unavailable) => Err(Unavailable),
        }
    }

    fn put_artifact(&self, new: NewArtifact) -> Result<u64, Unavailable> {
        let sealed = self.journal.sealer().seal(new.content)?;
        let (mut core, now) = self.lock_healthy()?;
        let mut content = reference(&sealed, 0);
        self.commit(&mut core, now, vec![sealed], |seq| {
            content.seq = seq;
            let evidence = Evidence { id: new.id, kind: new.kind, title: new.title, by: new.by, content, at: now };
            Entry::Artifact { artifact: Arc::new(Artifact { principal_key: new.principal_key, evidence }) }
        })
    }
}

impl Store {
    /// Writes a hold. Atomic: nothing stands for its key or is the same call in a hold, the caps allow it.
    /// Durable when it returns. The store fills payloads, times, version and `expires`.
    ///
    /// # Errors
    /// Then nothing was written, or (`Unavailable`) it is not known whether it was.
    pub async fn park(&self, park: Park) -> Result<CallRecord, ParkError> {
        failpoint::hit("park.before");
        let record = self.inner.park(park)?;
        Ok(failpoint::after("park.durable", self.inner.tell(record).await?))
    }

    /// The right to send. Atomic: a fresh call's key is still free (else the hold is still approved in this
    /// version, its window open), all charges fit, the record is `dispatching`. Durable when it returns.
    ///
    /// # Errors
    /// Then nothing changed, or (`Unavailable`) it is not known whether it did: nothing may be sent.
    pub async fn begin(&self, begin: Begin) -> Result<(Begun, Arc<CallRecord>), BeginError> {
        failpoint::hit("begin.before");
        let id = begin.record.id;
        let record = match self.inner.begin(begin) {
            // That its time is over was recorded just now.
            Err(BeginError::WindowClosed) => {
                let told = self.get(id).await.map_or(BeginError::Unavailable, |_| BeginError::WindowClosed);
                return Err(told);
            }
            begun => begun?,
        };
        let begun = Begun { id: record.id, attempt: record.attempt, epoch: record.epoch };
        self.inner.durable(record.seq).await?;
        failpoint::hit("begin.durable");
        Ok((begun, record))
    }

    /// Ends an attempt. Atomic: outcome, answer, settlement. Durable when it returns. A late answer of
    /// the same attempt may still settle an `unknown` call.
    ///
    /// # Errors
    /// When the attempt is stale (nothing changes), or nothing can be recorded: the call is `unknown` at
    /// the next open.
    pub async fn conclude(&self, begun: Begun, conclusion: Conclusion) -> Result<Arc<CallRecord>, Fault> {
        failpoint::hit("conclude.before");
        let record = self.inner.conclude(&begun, conclusion)?;
        self.inner.durable(record.seq).await?;
        failpoint::hit("conclude.durable");
        Ok(record)
    }

    /// The right to send a call again whose attempt was lost. Atomic: the attempt is still the last one, the call is
    /// declared idempotent, attempts are left, quiescence has not come, and nothing stops it; what is set aside stays so.
    /// Durable when it returns. `None`: it may not be sent again.
    ///
    /// # Errors
    /// When it is not known whether it was recorded: nothing may be sent.
    pub async fn again(&self, lost: &Begun) -> Result<Option<(Begun, CallRecord)>, Fault> {
        failpoint::hit("again.before");
        let event = Event::Again { attempt: lost.attempt, epoch: lost.epoch, by: self.inner.epoch };
        let goes_on = |core: &Core, r: &CallRecord| core.pauses.stopping(r.stopped()).is_none();
        let Some(record) = self.inner.if_legal(lost.id, event, goes_on)? else { return Ok(None) };
        let begun = Begun { id: record.id, attempt: record.attempt, epoch: record.epoch };
        let told = self.inner.tell(record).await?;
        failpoint::hit("again.durable");
        Ok(Some((begun, told)))
    }

    /// A call of a dead process that is not sent again: `unknown`. One of this process is left alone.
    ///
    /// # Errors
    /// When nothing can be recorded.
    pub async fn give_up(&self, id: CallId) -> Result<(), Fault> {
        match self.inner.if_legal(id, Event::Died, |_, r| r.epoch != self.inner.epoch)? {
            Some(record) => Ok(self.inner.durable(record.seq).await?),
            None => Ok(()),
        }
    }

    /// The configured read of an `unknown` call has spoken; `asked` is when it was begun. Atomic; durable when it
    /// returns. `None`: it is not unknown any more, or it is too early to say that it was not executed.
    ///
    /// # Errors
    /// When nothing can be recorded.
    pub async fn read_says(
        &self,
        id: CallId,
        found: bool,
        asked: Timestamp,
        note: Note,
    ) -> Result<Option<CallRecord>, Fault> {
        failpoint::hit("read.before");
        let event = if found { Event::Found(note) } else { Event::NotFound { asked, note } };
        match self.inner.if_legal(id, event, |_, _| true)? {
            Some(record) => Ok(Some(failpoint::after("read.durable", self.inner.tell(record).await?))),
            None => Ok(None),
        }
    }

    /// A person says what became of an `unknown` call; the second one who says the same settles it. A
    /// different word replaces the first one's. Atomic; durable when it returns.
    ///
    /// # Errors
    /// `AlreadyDecided` when it is not `unknown`, `SelfReview` for who asked for it or runs the agent, `AlreadyCounted`
    /// when this person said so before, `JustificationRequired` without a reason, `TooEarly` for `not_executed` before
    /// quiescence.
    pub async fn reconcile(&self, reconcile: Reconcile) -> Result<CallRecord, HoldError> {
        failpoint::hit("reconcile.before");
        let record = self.inner.reconcile(&reconcile)?;
        Ok(failpoint::after("reconcile.durable", self.inner.tell(record).await?))
    }

    /// Marks that the outcome was handed to the agent; only the first time counts, only final outcomes
    /// do. Recorded, but not durable when it returns: after a crash the outcome is handed out again.
    ///
    /// # Errors
    /// When nothing can be recorded.
    pub fn collected(&self, id: CallId) -> Result<(), Fault> {
        let (mut core, now) = self.inner.lock_healthy()?;
        let record = core.record(id).map_err(Unavailable::from)?;
        if let Some(record) = record.filter(|r| r.state.is_final() && r.collected.is_none()) {
            let next = CallRecord { collected: Some(now), ..(*record).clone() };
            failpoint::hit("collected.before");
            self.inner.write(&mut core, Step::Collected, &record, next, now, Vec::new())?;
        }
        Ok(())
    }

    /// Adds an audit record that is no step. With `durable` it is on the disk when this returns;
    /// without it goes with the next batch (and waits only when the disk is far behind).
    ///
    /// # Errors
    /// When nothing can be recorded.
    pub async fn append(&self, note: AuditNote, durable: bool) -> Result<(), Fault> {
        failpoint::hit("note.before");
        let seq = {
            let (mut core, now) = self.inner.lock_healthy()?;
            if let Some(missed) = near_miss(&note) {
                self.inner.end_missed(&mut core, &missed, now)?;
            }
            self.inner.commit(&mut core, now, Vec::new(), |_| Entry::Note { note })?
        };
        failpoint::hit("note.queued");
        if durable || self.inner.journal.backlog() > MAX_BACKLOG {
            self.inner.durable(seq).await?;
            failpoint::hit("note.durable");
        }
        Ok(())
    }

    /// Keeps an artifact; durable when it returns.
    ///
    /// # Errors
    /// When nothing can be recorded.
    pub async fn put_artifact(&self, artifact: NewArtifact) -> Result<ArtifactId, Fault> {
        let id = artifact.id;
        failpoint::hit("artifact.before");
        let seq = self.inner.put_artifact(artifact)?;
        failpoint::hit("artifact.queued");
        self.inner.durable(seq).await?;
        failpoint::hit("artifact.durable");
        Ok(id)
    }
}
