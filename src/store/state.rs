//! The states of a call with effects: what may follow what. Sans-io; time comes in.
//!
//! Read it against `lifecycle.md`, section 2. [`allowed`] is the diagram; [`apply`] makes the next
//! record of an event that the diagram allows. Whether a *vote* counts is in [`super::votes`].
//!
//! ```text
//! held ──claim, comment, ask, escalate──► held     unknown ──comment──► unknown
//! held, approved ──halt──► the same, its clocks stand still ──continue──► the same
//! held ──vote──► held │ last vote ──► approved ──begin──► dispatching ──► succeeded* │ failed* │ not_executed* │ unknown
//! held ──► rejected* │ expired* │ withdrawn* │ revoked*      approved ──► expired* │ withdrawn* │ revoked*
//! held, approved ──renew──► held, held ──edit──► held, the fourth time of both ──► stale*
//! dispatching ──again (declared idempotent, attempts left, before quiescence)──► dispatching, the next attempt
//! unknown ──late answer──► succeeded* │ failed*      unknown ──two people──► succeeded* │ not_executed*
//! unknown ──found by the read──► succeeded*          unknown ──not found──► not_executed*
//! ```
//!
//! Two rules stand on time and attempts, not on the state alone. **Quiescence**: before `quiet_after` the request may
//! still be on the wire, so nobody says `not_executed` of an unknown call. **Only the first attempt can prove that
//! nothing was sent**: of a later one the attempt before it may have had its effect, whatever became of this one.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::call::{Change, Digest, Terms, Timestamp};

use super::{
    Approval, CallRecord, Charge, Edit, Edited, Evidence, Handled, Note, Opinion, PROXY, Preview, Resend, State,
    StoredAnswer, StoredRequest, Unfetched,
};

/// A hold may return to `held` this often; then it goes stale.
pub const MAX_RENEWALS: u32 = 3;

/// Something that happens to a recorded call.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A vote that counts; `last` completes the quorum.
    Vote { approval: Approval, last: bool },
    /// A piece of evidence is attached.
    Attach(Evidence),
    /// The proxy has fetched evidence by itself, in place of what it fetched before; and what it could not fetch.
    Fetch(Vec<Evidence>, Vec<Unfetched>),
    /// Something moved: approvals are void.
    Renew(Box<Renewal>),
    /// A reviewer changes its arguments: approvals are void.
    Edit(Box<Editing>),
    /// People do something about it beside deciding.
    Handle(Handled),
    /// The kill switch stops it: its clocks stand still from then on.
    Halt(Timestamp),
    /// The kill switch lets it go on: what its clocks missed is added to its ends.
    Continue,
    /// An approved call must wait, and this is why.
    Wait(Note),
    /// A reviewer says no, and perhaps to calls like it, too, until then.
    Reject(Note, Option<Timestamp>),
    /// Agent or owner takes it back.
    Withdraw(Note),
    /// Policy denies now, or the principal is gone.
    Revoke(Note),
    /// Its time is over.
    Expire,
    /// It is about to be sent.
    Begin { epoch: u64, charges: Vec<Charge>, ruling: Ruling },
    /// The attempt that is named was lost; the operation is declared idempotent and is sent again.
    Again { attempt: u32, epoch: u64, by: u64 },
    /// The attempt ended.
    Conclude { attempt: u32, epoch: u64, state: State, answer: Option<StoredAnswer>, note: Option<Note> },
    /// The process that sent it is gone.
    Died,
    /// A first person says what became of it.
    Opine(Opinion),
    /// A second person says the same.
    Reconcile { outcome: State, note: Note },
    /// The configured read found it.
    Found(Note),
    /// The configured read, begun at `asked`, did not find it.
    NotFound { asked: Timestamp, note: Note },
}

/// What people look at anew.
#[derive(Debug, Clone, PartialEq)]
pub struct Renewal {
    /// Today's terms.
    pub terms: Terms,
    /// What is voted on from now on.
    pub digest: Digest,
    /// Its target as it is now; `None`: as it was.
    pub preview: Option<Box<Preview>>,
    /// Digest of the configuration that decided.
    pub config_digest: Digest,
    /// Digest of the policies that decided.
    pub policy_digest: Digest,
    /// What moved.
    pub note: Note,
}

/// The call as a reviewer wants it.
#[derive(Debug, Clone, PartialEq)]
pub struct Editing {
    /// What will be sent.
    pub request: StoredRequest,
    /// Its arguments, with redacted members replaced.
    pub arguments: Arc<Value>,
    /// Digest of the argument schema.
    pub schema_digest: Digest,
    /// Its title.
    pub title: String,
    /// Digest of the object that it acts on.
    pub target: Option<Digest>,
    /// Money that it moves.
    pub money: Option<(i64, String)>,
    /// Who changed what.
    pub edit: Edit,
    /// What differs from what the agent asked for.
    pub changes: Vec<Change>,
    /// What people look at from now on.
    pub renewal: Renewal,
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
    /// How long after a begin the request may still be on the wire.
    pub quiet_for: Duration,
    /// Whether it may be sent again, as declared when it is sent.
    pub resend: Option<Resend>,
}

impl Ruling {
    /// As a record names it.
    #[must_use]
    pub fn of(record: &CallRecord) -> Self {
        let (policy_digest, config_digest) = (record.policy_digest, record.config_digest);
        let (quiet_for, resend) = (record.quiet_for, record.resend);
        Self { policies: record.policies.clone(), policy_digest, config_digest, quiet_for, resend }
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
    /// The next attempt of a call that is declared idempotent.
    BegunAgain,
    /// A vote was counted.
    Voted,
    /// The last vote was counted.
    Approved,
    /// Evidence was attached.
    Attached,
    /// Back to `held` as a reviewer wants it, or stale.
    Edited,
    /// Back to `held` with new terms, or stale.
    Renewed,
    /// A person has it in hand.
    Claimed,
    /// Nobody has it in hand any more.
    Unclaimed,
    /// A person said something to the others.
    Commented,
    /// A reviewer asks for evidence.
    EvidenceAsked,
    /// It was brought before others.
    Escalated,
    /// The kill switch stopped its clocks.
    Halted,
    /// The kill switch let its clocks go on.
    Continued,
    /// Its time is nearly over.
    Expiring,
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
    /// The configured read found an unknown call executed.
    Found,
    /// After quiescence the configured read did not find an unknown call.
    NotFound,
    /// The outcome was handed to the agent.
    Collected,
}

impl Step {
    /// What those outside hear of a step of a held call that is in `state` now: one of [`crate::call::EVENTS`]. Nobody needs
    /// to hear that an outcome was handed over.
    #[must_use]
    pub const fn of_hold(self, state: State) -> Option<&'static str> {
        Some(match self {
            Self::Parked => "hold.created",
            Self::Edited | Self::Renewed if matches!(state, State::Stale) => "hold.stale",
            Self::Edited => "hold.edited",
            Self::Claimed => "hold.claimed",
            Self::Escalated => "hold.escalated",
            Self::Expiring => "hold.expiring",
            Self::Approved => "hold.approved",
            Self::Rejected if matches!(state, State::Revoked) => "hold.revoked",
            Self::Rejected => "hold.rejected",
            Self::Withdrawn => "hold.withdrawn",
            Self::Revoked => "hold.revoked",
            Self::Expired => "hold.expired",
            Self::Concluded | Self::Died | Self::Reconciled | Self::Found | Self::NotFound => match state {
                State::Succeeded => "hold.succeeded",
                State::Failed => "hold.failed",
                State::NotExecuted => "hold.not_executed",
                State::Unknown => "hold.unknown",
                _ => "hold.updated",
            },
            Self::Collected => return None,
            _ => "hold.updated",
        })
    }
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
            Self::Attach(_) | Self::Fetch(..) => Step::Attached,
            Self::Edit(_) => Step::Edited,
            Self::Renew(_) => Step::Renewed,
            Self::Handle(Handled::Claimed(_)) => Step::Claimed,
            Self::Handle(Handled::Released) => Step::Unclaimed,
            Self::Handle(Handled::Commented(_)) => Step::Commented,
            Self::Handle(Handled::EvidenceAsked(_)) => Step::EvidenceAsked,
            Self::Handle(Handled::Escalated(_)) => Step::Escalated,
            Self::Halt(_) => Step::Halted,
            Self::Continue => Step::Continued,
            Self::Wait(_) => Step::Waiting,
            Self::Reject(..) => Step::Rejected,
            Self::Withdraw(_) => Step::Withdrawn,
            Self::Revoke(_) => Step::Revoked,
            Self::Expire => Step::Expired,
            Self::Begin { .. } => Step::Begun,
            Self::Again { .. } => Step::BegunAgain,
            Self::Conclude { .. } => Step::Concluded,
            Self::Died => Step::Died,
            Self::Opine(_) => Step::Opined,
            Self::Reconcile { .. } => Step::Reconciled,
            Self::Found(_) => Step::Found,
            Self::NotFound { .. } => Step::NotFound,
        }
    }
}

/// The diagram: where `event` leads from the state that holds at `now`. `None` where no arrow is.
#[must_use]
pub(super) fn allowed(record: &CallRecord, event: &Event, now: Timestamp) -> Option<State> {
    use State::{Approved, Dispatching, Expired, Failed, Held, NotExecuted, Rejected, Revoked};
    use State::{Stale, Succeeded, Unknown, Withdrawn};
    let state = match event {
        Event::Halt(at) => record.state_at(now.min(*at)),
        _ => record.state_at(now),
    };
    match (state, event) {
        (Held, Event::Vote { last, .. }) => Some(if *last { Approved } else { Held }),
        (Held, Event::Attach(_) | Event::Fetch(..) | Event::Handle(_)) => Some(Held),
        (Unknown, Event::Handle(Handled::Commented(_))) => Some(Unknown),
        (Held, Event::Edit(_)) => Some(if record.renewals < MAX_RENEWALS { Held } else { Stale }),
        (Held | Approved, Event::Renew(_)) if record.renewals < MAX_RENEWALS => Some(Held),
        (Held | Approved, Event::Renew(_)) => Some(Stale),
        (Held, Event::Reject(..)) => Some(Rejected),
        (Approved, Event::Reject(..)) | (Held | Approved, Event::Revoke(_)) => Some(Revoked),
        (Held | Approved, Event::Withdraw(_)) => Some(Withdrawn),
        (Expired, Event::Expire) if !record.state.is_final() => Some(Expired),
        (Approved, Event::Wait(_)) => Some(Approved),
        (Held | Approved, Event::Halt(_)) if record.halted.is_none() => Some(state),
        (Held | Approved, Event::Continue) if record.halted.is_some() => Some(state),
        (Approved, Event::Begin { .. }) if record.may_begin(now) => Some(Dispatching),
        (Dispatching, Event::Again { attempt, epoch, .. })
            if same_attempt(record, *attempt, *epoch) && may_go_again(record, now) =>
        {
            Some(Dispatching)
        }
        (Dispatching, Event::Conclude { attempt, epoch, state, .. }) if same_attempt(record, *attempt, *epoch) => {
            let first = record.attempt == 1;
            Some(*state).filter(|s| matches!(s, Succeeded | Failed | Unknown) || (*s == NotExecuted && first))
        }
        (Unknown, Event::Conclude { attempt, epoch, state, .. }) if same_attempt(record, *attempt, *epoch) => {
            Some(*state).filter(|s| matches!(s, Succeeded | Failed))
        }
        (Dispatching, Event::Died) => Some(Unknown),
        (Unknown, Event::Opine(opinion)) => Some(Unknown).filter(|_| sayable(record, opinion.outcome, now)),
        (Unknown, Event::Reconcile { outcome, note }) if seconded(record, *outcome, note) => {
            Some(*outcome).filter(|outcome| sayable(record, *outcome, now))
        }
        (Unknown, Event::Found(_)) => Some(Succeeded),
        (Unknown, Event::NotFound { asked, .. }) => Some(NotExecuted).filter(|_| record.is_quiet(*asked.min(&now))),
        _ => None,
    }
}

/// What people may say of an unknown call: that it was executed at any time, that it was not only after quiescence.
fn sayable(record: &CallRecord, outcome: State, now: Timestamp) -> bool {
    outcome == State::Succeeded || (outcome == State::NotExecuted && record.is_quiet(now))
}

/// Declared idempotent when it was begun, attempts left, and people or reads have not begun to judge it.
pub(super) fn may_go_again(record: &CallRecord, now: Timestamp) -> bool {
    record.resend.is_some_and(|r| record.attempt < r.attempts) && !record.is_quiet(now)
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
            if last {
                let clock = next.clock(now);
                approve(&mut next, clock);
            }
            next.approvals.push(approval);
            // Whoever had it in hand has spoken.
            next.handling.iter_mut().for_each(|h| h.claim = None);
        }
        Event::Attach(evidence) => next.evidence.push(evidence),
        Event::Fetch(evidence, unfetched) => {
            forget_fetched(&mut next);
            next.evidence.extend(evidence);
            next.unfetched = unfetched;
        }
        Event::Renew(renewal) => renew(&mut next, *renewal, now),
        Event::Edit(editing) => edit(&mut next, *editing, now),
        Event::Handle(handled) => next.handling.get_or_insert_default().take(handled),
        Event::Reject(note, deny_alike) => (next.note, next.deny_alike) = (Some(note), deny_alike),
        Event::Halt(at) => next.halted = Some(at),
        Event::Continue => go_on(&mut next, now),
        Event::Wait(note) | Event::Withdraw(note) | Event::Revoke(note) => {
            next.note = Some(note);
        }
        Event::Expire => next.note = Some(expiry_note(record.state)),
        Event::Begin { epoch, charges, ruling } => {
            (next.quiet_for, next.resend) = (ruling.quiet_for, ruling.resend);
            begin(&mut next, epoch, charges, now);
            (next.policies, next.policy_digest) = (ruling.policies, ruling.policy_digest);
            next.config_digest = ruling.config_digest;
        }
        Event::Again { by, .. } => {
            let charges = std::mem::take(&mut next.charges);
            begin(&mut next, by, charges, now);
        }
        Event::Conclude { answer, note, .. } => (next.answer, next.note) = (answer, note),
        Event::Died => next.note = Some(died_note()),
        Event::Opine(opinion) => next.opinion = Some(Box::new(opinion)),
        Event::Reconcile { note, .. } | Event::Found(note) | Event::NotFound { note, .. } => next.note = Some(note),
    }
    if !matches!(next.state, State::Held | State::Approved) {
        next.halted = None;
    }
    Ok(next)
}

/// What the proxy fetched for other arguments says nothing of these.
fn forget_fetched(record: &mut CallRecord) {
    record.evidence.retain(|e| e.by != PROXY);
    record.unfetched.clear();
}

/// The agent's version is kept beside the edited one.
fn edit(record: &mut CallRecord, editing: Editing, now: Timestamp) {
    let Editing { request, arguments, schema_digest, title, target, money, edit, changes, renewal } = editing;
    let asked = |r: &CallRecord| Edited {
        request: r.request.clone(),
        arguments: Arc::clone(&r.arguments),
        digest: r.digest,
        changes: Vec::new(),
        edits: Vec::new(),
    };
    let mut edited = record.edited.take().unwrap_or_else(|| Box::new(asked(record)));
    forget_fetched(record);
    edited.changes = changes;
    edited.edits.push(edit);
    record.edited = Some(edited);
    (record.request, record.arguments, record.schema_digest) = (request, arguments, schema_digest);
    (record.title, record.target, record.money) = (title, target, money);
    renew(record, renewal, now);
}

/// Votes are void, and people look at this from now on.
fn renew(record: &mut CallRecord, renewal: Renewal, now: Timestamp) {
    let Renewal { terms, digest, preview, config_digest, policy_digest, note } = renewal;
    record.expires = Some(record.clock(now).plus(terms.expires));
    record.tier = terms.tier;
    record.policies = terms.why.iter().map(|w| w.policy.clone()).collect();
    record.terms = Some(terms);
    record.preview = preview.or(record.preview.take());
    (record.digest, record.config_digest, record.policy_digest) = (digest, config_digest, policy_digest);
    record.approvals.clear();
    (record.window_closes, record.not_before) = (None, None);
    record.renewals += 1;
    record.note = Some(note);
}

/// What its clocks missed while they stood still is added to its ends.
fn go_on(record: &mut CallRecord, now: Timestamp) {
    let Some(at) = record.halted.take() else { return };
    let missed = now.since(at);
    for end in [&mut record.expires, &mut record.window_closes, &mut record.not_before] {
        *end = end.map(|end| end.plus(missed));
    }
}

/// What a begin writes into a record: fresh, released, or sent again.
pub(super) fn begin(record: &mut CallRecord, epoch: u64, charges: Vec<Charge>, now: Timestamp) {
    record.state = State::Dispatching;
    record.attempt += 1;
    record.epoch = epoch;
    record.charges = charges;
    record.begun = Some(now);
    record.quiet_after = Some(now.plus(record.quiet_for));
    record.note = None;
}

/// The window opens now, or once the time is over in which it can still be taken back.
pub(super) fn approve(record: &mut CallRecord, now: Timestamp) {
    record.not_before = record.delay.map(|delay| now.plus(delay));
    let window = record.terms.as_ref().map_or(Duration::ZERO, |t| t.window);
    record.window_closes = Some(record.not_before.unwrap_or(now).plus(window));
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
