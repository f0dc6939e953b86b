//! Waits for a person, or answers with a handle. The record is durable before anybody hears of it.

mod asked;
mod poll;
mod tell;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::call::{Call, CallId, Code, Fault, HeldAs, HoldTimes, Outcome, Principal, Refusal, Timestamp};
use crate::clock::Clock;
use crate::store::{CallRecord, Park, ParkError, State, Store, arguments_of};
use crate::tasks::Draining;

pub use asked::{Denied, EditAsk, GrantAsk, Person, UndoAsk};
pub use poll::{Polls, Round};
pub use tell::{note_to_agent, refusal_of, reply_of, told_of_edits};

/// The hold gate.
#[derive(Debug, Clone)]
pub struct Holds {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    draining: Draining,
    polls: Polls,
}

/// A repeat of a call that is being sent waits at least this long for its end.
const JOIN: Duration = Duration::from_secs(3);

/// How a held call is presented.
#[derive(Debug, Clone, Copy)]
pub struct Presentation<'a> {
    /// How long to wait in place.
    pub inline_wait: Duration,
    /// Where reviewers find the page.
    pub page: Option<&'a str>,
    /// Caps: per agent, in all.
    pub max_held: (usize, usize),
    /// The client may come back in rounds, and in which it is now.
    pub rounds: Option<Option<Round>>,
}

/// What an attached call met.
#[derive(Debug)]
pub enum Attached {
    /// This is what the agent hears.
    Outcome(Outcome),
    /// People approved, and the client has come back: send it now with the client's credential.
    Collect(Box<CallRecord>),
}

impl Holds {
    /// Over this store.
    #[must_use]
    pub fn new(store: Arc<Store>, clock: Arc<dyn Clock>, draining: Draining, polls: Polls) -> Self {
        Self { store, clock, draining, polls }
    }

    /// Writes the hold. Nothing is reserved: a call may wait for hours.
    ///
    /// # Errors
    /// `Ok(Err(id))` when the same call was parked meanwhile; a refusal when a cap is reached or the store cannot
    /// record.
    pub async fn park(
        &self,
        record: CallRecord,
        call: &Call,
        states: Bytes,
        how: Presentation<'_>,
    ) -> Result<Result<CallRecord, CallId>, Refusal> {
        let park = Park {
            record,
            body: call.request().body.clone(),
            arguments: arguments_of(call),
            states,
            evidence: call.evidence().to_vec(),
            max_per_agent: how.max_held.0,
            max_total: how.max_held.1,
        };
        let full = |text: &'static str| {
            Refusal::new(Code::RateLimited, text).with_retry_after(Duration::from_secs(60)).with("limit", "held")
        };
        match self.store.park(park).await {
            Ok(record) => Ok(Ok(record)),
            Err(ParkError::KeyTaken(id)) => Ok(Err(id)),
            Err(ParkError::TooManyAgent) => Err(full("this agent has as many calls waiting for people as it may have")),
            Err(ParkError::TooManyTotal) => Err(full("as many calls wait for people as may wait at once")),
            Err(ParkError::Paused(pause)) => Err(pause.scope.refusal(pause.since)),
            Err(ParkError::DeniedAlike(id)) => Err(self.denied_alike(id).await?),
            Err(ParkError::Unavailable) => Err(Fault::new("the hold could not be recorded").into()),
        }
    }

    /// A reviewer rejected a call like this one, and said so of all like it for a while.
    async fn denied_alike(&self, id: CallId) -> Result<Refusal, Refusal> {
        let record = self.get(id).await?;
        let until = record.deny_alike.unwrap_or(record.updated);
        let text = format!("a reviewer refuses calls like this one until {until}; do not retry with other arguments");
        let refusal = Refusal::new(Code::Rejected, text)
            .with_retry_after(until.since(self.clock.now()))
            .with("alike_to", id.hold().to_string())
            .with("until", until.to_string());
        Ok(record.note.map_or(refusal.clone(), |n| refusal.with("reason_code", n.code)))
    }

    /// Waits in place for a while, then says how it stands. `Prefer: wait` may shorten the wait or stretch it to 60 s.
    ///
    /// # Errors
    /// When the store cannot tell.
    pub async fn attach(
        &self,
        id: CallId,
        principal: &Principal,
        call: &Call,
        how: Presentation<'_>,
    ) -> Result<Attached, Refusal> {
        let again = how.rounds.flatten().is_some_and(|r| r.hold == id.hold());
        let usual = if again { poll::ROUND } else { how.inline_wait };
        let wait = call.prefer().wait.map_or(usual, |w| w.min(Duration::from_secs(60)));
        let record = self.wait(id, wait).await?;
        if record.state_at(self.clock.now()) == State::Approved && !record.release_by_proxy {
            return Ok(Attached::Collect(Box::new(record)));
        }
        let accepted = call.prefer().respond_async || call.operation().held_as == HeldAs::Accepted;
        let mut outcome = self.tell(&record, accepted, how.page).await?;
        if let (Outcome::Held { poll, hold, .. }, Some(round)) = (&mut outcome, how.rounds) {
            let before = round.filter(|r| r.hold == *hold);
            *poll = self.polls.next(principal, call, *hold, before, self.clock.now());
        }
        Ok(Attached::Outcome(outcome))
    }

    /// The round that a call is in, if its client has come back in rounds.
    ///
    /// # Errors
    /// For a state that we did not give out.
    pub fn round(&self, principal: &Principal, call: &Call) -> Result<Option<Round>, Refusal> {
        self.polls.read(principal, call, self.clock.now())
    }

    /// Waits until the call has ended, its client must act, or the time is over.
    ///
    /// # Errors
    /// When the store cannot tell, or does not know the call.
    pub async fn wait(&self, id: CallId, at_most: Duration) -> Result<CallRecord, Refusal> {
        let waiting = |state: State, by_proxy: bool| match state {
            State::Held | State::Dispatching => true,
            State::Approved => by_proxy,
            _ => false,
        };
        let changes = self.store.watch(id)?;
        let record = self.get(id).await?;
        if let Some(mut changes) = changes
            && waiting(record.state_at(self.clock.now()), record.release_by_proxy)
        {
            let by_proxy = record.release_by_proxy;
            // What is being sent, or is about to be, ends soon: a repeat joins it.
            let now = self.clock.now();
            let later = record.state == State::Held || record.not_before.is_some_and(|at| now < at);
            let at_most = if later { at_most } else { at_most.max(JOIN) };
            let moved = changes.wait_for(|(state, _)| !waiting(*state, by_proxy));
            let waited = tokio::time::timeout(at_most, moved);
            let in_time = tokio::select! {
                waited = waited => waited.is_ok_and(|changed| changed.is_ok()),
                () = self.draining.on() => false,
            };
            tracing::trace!(call.id = %id, in_time, "waited in place");
        }
        self.get(id).await
    }

    async fn get(&self, id: CallId) -> Result<CallRecord, Refusal> {
        let record = self.store.get(id).await?;
        record.ok_or_else(|| Refusal::new(Code::UnknownTool, "no such call"))
    }

    /// What the agent hears of a stored call; an end that is told is marked as collected.
    ///
    /// # Errors
    /// When the store cannot read the answer.
    pub async fn tell(&self, record: &CallRecord, accepted: bool, page: Option<&str>) -> Result<Outcome, Refusal> {
        let state = record.state_at(self.clock.now());
        let outcome = match state {
            State::Succeeded | State::Failed => {
                let body = self.store.answer_body(record).await?;
                match reply_of(record, body) {
                    Ok(reply) => Outcome::Replayed { call: record.id, reply },
                    Err(refusal) => Outcome::Refused(refusal),
                }
            }
            State::Held | State::Approved => Outcome::Held {
                hold: record.id.hold(),
                tier: record.tier,
                times: times(record, self.clock.now()),
                accepted,
                poll: None,
                refusal: refusal_of(record, state, self.clock.now(), page),
            },
            _ => Outcome::Refused(refusal_of(record, state, self.clock.now(), page)),
        };
        if state.is_final() {
            self.store.collected(record.id)?;
        }
        Ok(outcome)
    }
}

/// The clocks of a call, as a client may see them.
#[must_use]
pub fn times(record: &CallRecord, now: Timestamp) -> HoldTimes {
    HoldTimes { created: record.created, updated: record.updated, expires: record.ends(now) }
}
