//! The states of a call with effects: what may follow what. Sans-io; time comes in.
//!
//! Read it against `lifecycle.md`, section 2. [`allowed`] is the diagram; [`apply`] makes the next
//! record of an event that the diagram allows. Whether a *vote* counts is in [`super::votes`].
//!
//! ```text
//! held ──vote──► held │ last vote ──► approved ──begin──► dispatching ──► succeeded* │ failed* │ not_executed* │ unknown
//! held ──► rejected* │ expired* │ withdrawn* │ revoked*      approved ──► expired* │ withdrawn* │ revoked*
//! held, approved ──renew──► held, the fourth time ──► stale*
//! unknown ──late answer──► succeeded* │ failed*      unknown ──two people──► succeeded* │ not_executed*
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::call::{Digest, Terms, Timestamp};

use super::{Approval, CallRecord, Charge, Evidence, Note, Opinion, State, StoredAnswer};

/// A hold may return to `held` this often; then it goes stale.
pub const MAX_RENEWALS: u32 = 3;

/// Something that happens to a recorded call.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A vote that counts; `last` completes the quorum.
    Vote { approval: Approval, last: bool },
    /// A piece of evidence is attached.
    Attach(Evidence),
    /// Something moved: approvals are void.
    Renew { terms: Terms, digest: Digest, config_digest: Digest, policy_digest: Digest, note: Note },
    /// An approved call must wait, and this is why.
    Wait(Note),
    /// A reviewer says no.
    Reject(Note),
    /// Agent or owner takes it back.
    Withdraw(Note),
    /// Policy denies now, or the principal is gone.
    Revoke(Note),
    /// Its time is over.
    Expire,
    /// It is about to be sent.
    Begin { epoch: u64, charges: Vec<Charge>, ruling: Ruling },
    /// The attempt ended.
    Conclude { attempt: u32, epoch: u64, state: State, answer: Option<StoredAnswer>, note: Option<Note> },
    /// The process that sent it is gone.
    Died,
    /// A first person says what became of it.
    Opine(Opinion),
    /// A second person says the same.
    Reconcile { outcome: State, note: Note },
}

/// Which versions let a held call go: those in force when it was sent, not when it was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Ruling {
    /// The permits that decided.
    pub policies: Vec<String>,
    /// Digest of the policy set.
    pub policy_digest: Digest,
    /// Digest of the configuration.
    pub config_digest: Digest,
}

impl Ruling {
    /// As a record names it.
    #[must_use]
    pub fn of(record: &CallRecord) -> Self {
        let (policy_digest, config_digest) = (record.policy_digest, record.config_digest);
        Self { policies: record.policies.clone(), policy_digest, config_digest }
    }
}

/// The name of a step, as its record in the journal says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A new hold.
    Parked,
    /// A call that policy allowed by itself, or an approved one, is being sent.
    Begun,
    /// A vote was counted.
    Voted,
    /// The last vote was counted.
    Approved,
    /// Evidence was attached.
    Attached,
    /// Back to `held` with new terms, or stale.
    Renewed,
    /// An approved call says why it waits.
    Waiting,
    /// Rejected by a reviewer, before or after the quorum.
    Rejected,
    /// Taken back.
    Withdrawn,
    /// Taken back by policy.
    Revoked,
    /// Its time is over.
    Expired,
    /// The attempt ended.
    Concluded,
    /// Its process died.
    Died,
    /// A first opinion on an unknown call.
    Opined,
    /// Two people settled an unknown call.
    Reconciled,
    /// The outcome was handed to the agent.
    Collected,
}

/// The event cannot happen to a call in this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a call that is {} cannot take this step", .0.as_str())]
pub struct Illegal(pub State);

impl Event {
    /// Its name in the journal.
    #[must_use]
    pub const fn step(&self) -> Step {
        match self {
            Self::Vote { last: false, .. } => Step::Voted,
            Self::Vote { last: true, .. } => Step::Approved,
            Self::Attach(_) => Step::Attached,
            Self::Renew { .. } => Step::Renewed,
            Self::Wait(_) => Step::Waiting,
            Self::Reject(_) => Step::Rejected,
            Self::Withdraw(_) => Step::Withdrawn,
            Self::Revoke(_) => Step::Revoked,
            Self::Expire => Step::Expired,
            Self::Begin { .. } => Step::Begun,
            Self::Conclude { .. } => Step::Concluded,
            Self::Died => Step::Died,
            Self::Opine(_) => Step::Opined,
            Self::Reconcile { .. } => Step::Reconciled,
        }
    }
}

/// The diagram: where `event` leads from the state that holds at `now`. `None` where no arrow is.
#[must_use]
pub(super) fn allowed(record: &CallRecord, event: &Event, now: Timestamp) -> Option<State> {
    use State::{Approved, Dispatching, Expired, Failed, Held, NotExecuted, Rejected, Revoked};
    use State::{Stale, Succeeded, Unknown, Withdrawn};
    let state = record.state_at(now);
    match (state, event) {
        (Held, Event::Vote { last, .. }) => Some(if *last { Approved } else { Held }),
        (Held, Event::Attach(_)) => Some(Held),
        (Held | Approved, Event::Renew { .. }) if record.renewals < MAX_RENEWALS => Some(Held),
        (Held | Approved, Event::Renew { .. }) => Some(Stale),
        (Held, Event::Reject(_)) => Some(Rejected),
        (Approved, Event::Reject(_)) | (Held | Approved, Event::Revoke(_)) => Some(Revoked),
        (Held | Approved, Event::Withdraw(_)) => Some(Withdrawn),
        (Expired, Event::Expire) if !record.state.is_final() => Some(Expired),
        (Approved, Event::Wait(_)) => Some(Approved),
        (Approved, Event::Begin { .. }) => Some(Dispatching),
        (Dispatching, Event::Conclude { attempt, epoch, state, .. }) if same_attempt(record, *attempt, *epoch) => {
            Some(*state).filter(|s| matches!(s, Succeeded | Failed | NotExecuted | Unknown))
        }
        (Unknown, Event::Conclude { attempt, epoch, state, .. }) if same_attempt(record, *attempt, *epoch) => {
            Some(*state).filter(|s| matches!(s, Succeeded | Failed))
        }
        (Dispatching, Event::Died) | (Unknown, Event::Opine(_)) => Some(Unknown),
        (Unknown, Event::Reconcile { outcome, note }) if seconded(record, *outcome, note) => {
            Some(*outcome).filter(|s| matches!(s, Succeeded | NotExecuted))
        }
        _ => None,
    }
}

fn same_attempt(record: &CallRecord, attempt: u32, epoch: u64) -> bool {
    record.attempt == attempt && record.epoch == epoch
}

/// Another person said the same before.
fn seconded(record: &CallRecord, outcome: State, note: &Note) -> bool {
    let by = note.by.as_deref();
    by.is_some() && record.opinion.as_ref().is_some_and(|o| o.outcome == outcome && by != Some(o.person.as_str()))
}

/// The record after `event`.
///
/// # Errors
/// When the diagram has no such arrow from the state that holds at `now`.
pub(super) fn apply(record: &CallRecord, event: Event, now: Timestamp) -> Result<CallRecord, Illegal> {
    let state = allowed(record, &event, now).ok_or_else(|| Illegal(record.state_at(now)))?;
    let mut next = record.clone();
    next.state = state;
    next.version += 1;
    next.updated = now;
    match event {
        Event::Vote { approval, last } => {
            next.window_closes = last.then(|| now.plus(window(record)));
            next.approvals.push(approval);
        }
        Event::Attach(evidence) => next.evidence.push(evidence),
        Event::Renew { terms, digest, config_digest, policy_digest, note } => {
            next.expires = Some(now.plus(terms.expires));
            next.tier = terms.tier;
            next.policies = terms.why.iter().map(|w| w.policy.clone()).collect();
            next.terms = Some(terms);
            (next.digest, next.config_digest, next.policy_digest) = (digest, config_digest, policy_digest);
            next.approvals.clear();
            next.window_closes = None;
            next.renewals += 1;
            next.note = Some(note);
        }
        Event::Wait(note) | Event::Reject(note) | Event::Withdraw(note) | Event::Revoke(note) => {
            next.note = Some(note);
        }
        Event::Expire => next.note = Some(expiry_note(record.state)),
        Event::Begin { epoch, charges, ruling } => {
            begin(&mut next, epoch, charges, now);
            (next.policies, next.policy_digest) = (ruling.policies, ruling.policy_digest);
            next.config_digest = ruling.config_digest;
        }
        Event::Conclude { answer, note, .. } => (next.answer, next.note) = (answer, note),
        Event::Died => next.note = Some(died_note()),
        Event::Opine(opinion) => next.opinion = Some(opinion),
        Event::Reconcile { note, .. } => next.note = Some(note),
    }
    Ok(next)
}

/// What a begin writes into a record, fresh or released.
pub(super) fn begin(record: &mut CallRecord, epoch: u64, charges: Vec<Charge>, now: Timestamp) {
    record.state = State::Dispatching;
    record.attempt += 1;
    record.epoch = epoch;
    record.charges = charges;
    record.begun = Some(now);
    record.note = None;
}

fn window(record: &CallRecord) -> Duration {
    record.terms.as_ref().map_or(Duration::ZERO, |t| t.window)
}

fn expiry_note(was: State) -> Note {
    let text = if was == State::Approved {
        "approved, but not sent before its window closed"
    } else {
        "nobody decided in time"
    };
    Note { code: "hold_expired".to_owned(), text: text.to_owned(), by: None }
}

fn died_note() -> Note {
    let text = "the proxy stopped while the call was being sent; whether it happened is not known";
    Note { code: "process_died".to_owned(), text: text.to_owned(), by: None }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
