//! The steps of a hold: vote, reject, withdraw, renew, revoke, expire, attach.

use std::sync::{Arc, PoisonError};

use crate::call::{ArtifactId, CallId, Digest, Fault, Ladder, MAX_EVIDENCE, Timestamp};
use crate::failpoint;
use crate::journal::Sealed;
use crate::store::handling::{check_unclaimed, handle};
use crate::store::state::{Event, Renewal};
use crate::store::votes::{check_current, count, is_own_call};
use crate::store::{
    CallRecord, EditHold, Handle, Handled, HoldError, Note, Reject, Renew, State, Step, Unfetched, Vote, WithdrawnBy,
    proxys_own,
};

use super::core::Core;
use super::{Inner, Refused, Store, Unavailable};

const WAITING: [State; 2] = [State::Held, State::Approved];

/// What a step on a hold came to, and the frame that must be durable before anyone hears of it.
type Stepped = (u64, Result<Arc<CallRecord>, HoldError>);

impl Inner {
    fn on_hold(
        &self,
        id: CallId,
        choose: impl FnOnce(&Core, &CallRecord, Timestamp) -> Result<Option<Event>, HoldError>,
    ) -> Result<Stepped, Unavailable> {
        self.on_hold_with(id, Vec::new(), choose)
    }

    /// One step on a hold. `choose` gives the event, or `None` when there is nothing to write.
    fn on_hold_with(
        &self,
        id: CallId,
        payloads: Vec<Sealed>,
        choose: impl FnOnce(&Core, &CallRecord, Timestamp) -> Result<Option<Event>, HoldError>,
    ) -> Result<Stepped, Unavailable> {
        let (mut core, now) = self.lock_healthy()?;
        self.step_on_hold(&mut core, now, id, payloads, choose)
    }

    /// The same, for who has locked the state.
    pub(super) fn step_on_hold(
        &self,
        core: &mut Core,
        now: Timestamp,
        id: CallId,
        payloads: Vec<Sealed>,
        choose: impl FnOnce(&Core, &CallRecord, Timestamp) -> Result<Option<Event>, HoldError>,
    ) -> Result<Stepped, Unavailable> {
        self.settle(core, id, now)?;
        let Some(record) = core.record(id)? else { return Ok((0, Err(HoldError::NotFound))) };
        let stepped = match choose(core, &record, now) {
            Ok(Some(event)) => self.step(core, &record, event, now, payloads),
            Ok(None) => Ok(Arc::clone(&record)),
            Err(error) => return Ok((record.seq, Err(error))),
        };
        match stepped {
            Ok(next) => Ok((next.seq, Ok(next))),
            Err(Refused::Illegal(_)) => Ok((record.seq, Err(HoldError::AlreadyDecided(Box::new((*record).clone()))))),
            Err(Refused::Unavailable) => Err(Unavailable),
        }
    }

    async fn told(&self, stepped: Result<Stepped, Unavailable>) -> Result<CallRecord, HoldError> {
        let (seq, result) = stepped?;
        self.durable(seq).await?;
        result.map(Arc::unwrap_or_clone)
    }

    /// Records of all holds whose time is over that it is: what is told of them then stands.
    pub(super) fn settle_due(&self, core: &mut Core, now: Timestamp) -> Result<Vec<CallId>, Unavailable> {
        let over = |r: &&Arc<CallRecord>| r.state_at(now) != r.state;
        let mut due: Vec<CallId> = core.calls.values().filter(over).map(|r| r.id).collect();
        due.sort_unstable();
        if !self.journal.healthy() {
            return Ok(Vec::new());
        }
        for id in &due {
            self.settle(core, *id, now)?;
        }
        Ok(due)
    }

    fn escalate(&self, ladder: &Ladder) -> Result<Vec<Arc<CallRecord>>, Unavailable> {
        let (mut core, now) = self.lock_healthy()?;
        let due = |r: &Arc<CallRecord>| r.rung_due(ladder, now).map(|escalation| (Arc::clone(r), escalation));
        let mut all: Vec<_> = core.calls.values().filter_map(due).collect();
        all.sort_by_key(|(record, _)| record.id);
        let mut done = Vec::new();
        for (record, escalation) in all {
            let event = Event::Handle(Handled::Escalated(escalation));
            match self.step(&mut core, &record, event, now, Vec::new()) {
                Ok(next) => done.push(next),
                Err(Refused::Illegal(_)) => {}
                Err(Refused::Unavailable) => return Err(Unavailable),
            }
        }
        Ok(done)
    }

    fn warn(&self) -> Result<Vec<Arc<CallRecord>>, Unavailable> {
        let (mut core, now) = self.lock_healthy()?;
        let due = |r: &Arc<CallRecord>| Some((Arc::clone(r), r.warned(now)?));
        let mut all: Vec<_> = core.calls.values().filter_map(due).collect();
        all.sort_by_key(|(record, _)| record.id);
        all.into_iter()
            .map(|(record, next)| self.write(&mut core, Step::Expiring, &record, next, now, Vec::new()))
            .collect()
    }

    fn expire(&self, now: Timestamp) -> Result<(Vec<CallId>, u64), Unavailable> {
        let (mut core, _) = self.lock_healthy()?;
        let now = core.now(now);
        let due = self.settle_due(&mut core, now)?;
        let last = due.iter().filter_map(|id| core.calls.get(id)).map(|r| r.seq).max();
        Ok((due, last.unwrap_or(0)))
    }
}

impl Store {
    /// Counts a vote. Atomic with the count of those before it; the last one needed makes the call
    /// `approved` and opens its window in the same step. Durable when it returns.
    ///
    /// # Errors
    /// Says why the vote does not count; nothing changes then.
    pub async fn vote(&self, vote: Vote) -> Result<CallRecord, HoldError> {
        failpoint::hit("vote.before");
        let stepped = self.inner.on_hold(vote.id, |_, record, now| {
            let (approval, last) = count(record, &vote, now)?;
            Ok(Some(Event::Vote { approval, last }))
        });
        let told = self.inner.told(stepped).await;
        if told.as_ref().is_ok_and(|r| r.state == State::Approved) {
            failpoint::hit("approved.durable");
        }
        failpoint::after("vote.durable", told)
    }

    /// A reviewer's no: `rejected` before the quorum, `revoked` after it and before the send. Atomic;
    /// durable when it returns.
    ///
    /// # Errors
    /// When the hold is not as the reviewer saw it.
    pub async fn reject(&self, reject: Reject) -> Result<CallRecord, HoldError> {
        failpoint::hit("reject.before");
        let stepped = self.inner.on_hold(reject.id, |_, record, now| {
            check_current(record, now, reject.version, Some(reject.digest), &WAITING)?;
            let text = reject.message.clone().unwrap_or_default();
            let note = Note { code: reject.reason_code.clone(), text, by: Some(reject.person.clone()) };
            Ok(Some(Event::Reject(note, reject.deny_alike.map(|lasts| now.plus(lasts)))))
        });
        failpoint::after("reject.durable", self.inner.told(stepped).await)
    }

    /// Does something about a hold that decides nothing: a claim, a word, a question, an escalation. Atomic; durable when
    /// it returns.
    ///
    /// # Errors
    /// When the hold is not as the asker saw it, another person has it in hand, or it keeps no more.
    pub async fn handle(&self, asked: Handle) -> Result<CallRecord, HoldError> {
        failpoint::hit("handle.before");
        let stepped = self.inner.on_hold(asked.id, |_, record, now| handle(record, &asked, now));
        failpoint::after("handle.durable", self.inner.told(stepped).await)
    }

    /// Brings every hold that has reached a rung of the ladder before those whom the rung names, each once. Durable when
    /// it returns.
    ///
    /// # Errors
    /// When nothing can be recorded.
    pub async fn escalate_due(&self, ladder: &Ladder) -> Result<Vec<CallRecord>, Fault> {
        if ladder.rungs.is_empty() {
            return Ok(Vec::new());
        }
        let mut told = Vec::new();
        for record in self.inner.escalate(ladder)? {
            told.push(self.inner.tell(record).await?);
        }
        Ok(told)
    }

    /// Notes of every hold whose clock is in its last fifth that it is, once for each time that its clock begins. Durable
    /// when it returns; returns those that were noted now.
    ///
    /// # Errors
    /// When nothing can be recorded.
    pub async fn warn_due(&self) -> Result<Vec<CallRecord>, Fault> {
        let mut told = Vec::new();
        for record in self.inner.warn()? {
            told.push(failpoint::after("expiring.durable", self.inner.tell(record).await?));
        }
        Ok(told)
    }

    /// Takes a hold back. An agent can only take back its own; another's does not exist for it. Atomic;
    /// durable when it returns.
    ///
    /// # Errors
    /// When there is no such hold, or it is decided.
    pub async fn withdraw(&self, id: CallId, by: WithdrawnBy, reason: &str) -> Result<CallRecord, HoldError> {
        failpoint::hit("withdraw.before");
        let stepped = self.inner.on_hold(id, |_, record, now| {
            let who = match &by {
                WithdrawnBy::Agent(scope) if *scope != record.principal.key() => return Err(HoldError::NotFound),
                WithdrawnBy::Agent(_) => record.principal.agent.clone(),
                WithdrawnBy::Person(person) => person.clone(),
            };
            check_current(record, now, None, None, &WAITING)?;
            let note = Note { code: "withdrawn".to_owned(), text: reason.to_owned(), by: Some(who) };
            Ok(Some(Event::Withdraw(note)))
        });
        failpoint::after("withdraw.durable", self.inner.told(stepped).await)
    }

    /// Back to `held` with new terms, votes void; the fourth time it goes `stale` instead. Atomic;
    /// durable when it returns.
    ///
    /// # Errors
    /// When the hold is not waiting any more or of another version.
    pub async fn renew(&self, renew: Renew) -> Result<CallRecord, HoldError> {
        failpoint::hit("renew.before");
        let (preview, payloads) = self.inner.seal_preview(renew.preview)?;
        let stepped = self.inner.on_hold_with(renew.id, payloads, |_, record, now| {
            check_current(record, now, renew.version, None, &WAITING)?;
            Ok(Some(Event::Renew(Box::new(Renewal {
                terms: renew.terms,
                digest: renew.digest,
                preview,
                config_digest: renew.config_digest,
                policy_digest: renew.policy_digest,
                note: renew.what_changed,
            }))))
        });
        failpoint::after("renew.durable", self.inner.told(stepped).await)
    }

    /// Other arguments, as a reviewer wants them: back to `held` with votes void, the fourth time `stale`. The agent's
    /// version is kept. Atomic; durable when it returns.
    ///
    /// # Errors
    /// When the hold is not as the reviewer saw it, or the reviewer asked for the call or runs its agent.
    pub async fn edit(&self, edit: EditHold) -> Result<CallRecord, HoldError> {
        failpoint::hit("edit.before");
        let EditHold { id, version, digest, names, mut editing, body, arguments, states } = edit;
        let preview = editing.renewal.preview.as_deref_mut();
        let payloads = self.inner.seal(&mut editing.request, preview, [body, arguments, states])?;
        let stepped = self.inner.on_hold_with(id, payloads, |_, record, now| {
            check_current(record, now, version, Some(digest), &[State::Held])?;
            if is_own_call(record, || names.iter().map(String::as_str)) {
                return Err(HoldError::SelfReview);
            }
            check_unclaimed(record, || names.iter().map(String::as_str), now)?;
            Ok(Some(Event::Edit(Box::new(editing))))
        });
        failpoint::after("edit.durable", self.inner.told(stepped).await)
    }

    /// Policy denies it now, or its principal is gone: a waiting call is `revoked`. Atomic; durable when
    /// it returns.
    ///
    /// # Errors
    /// When it does not wait any more.
    pub async fn revoke(&self, id: CallId, note: Note) -> Result<CallRecord, HoldError> {
        failpoint::hit("revoke.before");
        let stepped = self.inner.on_hold(id, |_, record, now| {
            check_current(record, now, None, None, &WAITING)?;
            Ok(Some(Event::Revoke(note)))
        });
        failpoint::after("revoke.durable", self.inner.told(stepped).await)
    }

    /// Why an approved call is not sent yet. Written only when it waits for something else than before: the version that
    /// reviewers have seen must not move each time that the same gate is found closed.
    ///
    /// # Errors
    /// When it is not approved any more.
    pub async fn wait_reason(&self, id: CallId, note: Note) -> Result<CallRecord, HoldError> {
        failpoint::hit("wait.before");
        let stepped = self.inner.on_hold(id, |_, record, now| {
            check_current(record, now, None, None, &[State::Approved])?;
            let same = record.note.as_ref().is_some_and(|n| n.code == note.code);
            Ok(Some(Event::Wait(note)).filter(|_| !same))
        });
        failpoint::after("wait.durable", self.inner.told(stepped).await)
    }

    /// Attaches an artifact of the same caller to a held call, as evidence. Attached twice counts once.
    /// Atomic; durable when it returns.
    ///
    /// # Errors
    /// When there is no such hold or artifact, the hold is decided, or it has as much as it may have.
    pub async fn attach_evidence(&self, call: CallId, artifact: ArtifactId) -> Result<CallRecord, HoldError> {
        failpoint::hit("attach.before");
        let stepped = self.inner.on_hold(call, |core, record, now| {
            check_current(record, now, None, None, &[State::Held])?;
            if record.evidence.iter().any(|e| e.id == artifact) {
                return Ok(None);
            }
            if record.evidence.len() >= MAX_EVIDENCE {
                return Err(HoldError::Full);
            }
            let found = core.artifact(artifact).map_err(Unavailable::from)?;
            let own = found.filter(|a| a.principal_key == record.principal.key());
            Ok(Some(Event::Attach(own.ok_or(HoldError::NotFound)?.evidence.clone())))
        });
        failpoint::after("attach.durable", self.inner.told(stepped).await)
    }

    /// Attaches what the proxy fetched by itself to a held call, in place of what it fetched before, and says what it could
    /// not fetch. Atomic; durable when it returns.
    ///
    /// # Errors
    /// When there is no such hold or artifact of the proxy's own, the hold is decided, or it is another call since: then
    /// this says nothing of it.
    pub async fn attach_fetched(
        &self,
        call: CallId,
        fetched: Vec<ArtifactId>,
        unfetched: Vec<Unfetched>,
        of: Digest,
    ) -> Result<CallRecord, HoldError> {
        failpoint::hit("attach.before");
        let stepped = self.inner.on_hold(call, |core, record, now| {
            check_current(record, now, None, Some(of), &[State::Held])?;
            let one = |id: &ArtifactId| {
                let found = core.artifact(*id).map_err(Unavailable::from)?;
                let own = found.filter(|a| a.principal_key == proxys_own());
                Ok(own.ok_or(HoldError::NotFound)?.evidence.clone())
            };
            let evidence = fetched.iter().map(one).collect::<Result<_, HoldError>>()?;
            Ok(Some(Event::Fetch(evidence, unfetched)))
        });
        failpoint::after("attach.durable", self.inner.told(stepped).await)
    }

    /// Records the end of every hold and window that is over at `now`, and says which. Nothing depends
    /// on it being called: each step asks the clock itself.
    ///
    /// # Errors
    /// When nothing can be recorded.
    pub async fn expire_due(&self, now: Timestamp) -> Result<Vec<CallId>, Fault> {
        failpoint::hit("expire.before");
        let (due, seq) = self.inner.expire(now)?;
        self.inner.durable(seq).await?;
        if !due.is_empty() {
            failpoint::hit("expire.durable");
        }
        Ok(due)
    }

    /// Calls whose end was recorded because their time was over, whichever step found it, since this was asked last:
    /// each once, for whoever counts them.
    #[must_use]
    pub fn take_expired(&self) -> Vec<CallId> {
        std::mem::take(&mut *self.inner.expired.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
