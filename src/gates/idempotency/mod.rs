//! The same call is executed once: look up by key and fingerprint, claim and reserve in one durable step before the
//! first byte, conclude in one durable step before the agent hears of it.

mod conclude;

pub use conclude::read_outcome;

use std::sync::Arc;

use bytes::Bytes;

use crate::call::{Call, Code, Fault, Principal, Refusal, Tier};
use crate::clock::Clock;
use crate::store::{Begin, BeginError, Begun, CallRecord, Charge, Known, Pause, Question, Store, arguments_of};
use crate::tasks::{self, Tracker};
use crate::telemetry::Metrics;

/// The idempotency gate and the two durable steps around a send.
#[derive(Debug, Clone)]
pub struct Calls {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    tracker: Tracker,
}

/// A call that has begun. Dropped without a conclusion (a bug of ours), it becomes `unknown`.
#[must_use = "a begun call must be concluded"]
#[derive(Debug)]
pub struct InFlight {
    begun: Option<Begun>,
    store: Arc<Store>,
    /// At which rung policy allowed it.
    pub tier: Tier,
    /// Which attempt it is.
    attempt: u32,
    /// Attempts that it may have in all.
    attempts: u32,
}

/// Why a call did not begin.
#[derive(Debug)]
pub enum NotBegun {
    /// The same key came meanwhile: look up again.
    Again,
    /// The hold is not approved any more, or its window has closed.
    Over,
    /// A ledger has no room.
    Budget(Box<Charge>),
    /// The grant by which it would pass is over: people must look at it.
    GrantOver,
    /// The kill switch stops it.
    Paused(Box<Pause>),
    /// The store cannot record.
    Unavailable,
}

impl Calls {
    /// Over this store.
    #[must_use]
    pub fn new(store: Arc<Store>, clock: Arc<dyn Clock>, metrics: Arc<Metrics>, tracker: Tracker) -> Self {
        Self { store, clock, metrics, tracker }
    }

    /// What is known of this call.
    ///
    /// # Errors
    /// `key_reused`, `outcome_unknown`, or a fault of the store.
    pub async fn look_up(&self, principal: &Principal, call: &Call) -> Result<Known, Refusal> {
        if call.operation().effects.is_read() && call.key().is_none() {
            return Ok(Known::New);
        }
        let question = Question {
            principal,
            operation: &call.operation().name,
            key: call.key(),
            key_derived: call.key_derived(),
            fingerprint: call.fingerprint(),
        };
        let known = self.store.look_up(question).await?;
        let result = match &known {
            Known::New => "new",
            Known::Concluded(_) => "replayed",
            Known::Held(_) => "attached",
            Known::InFlight(_) => "joined",
            Known::Over(_) => "over",
            Known::Unknown(_) => "unknown",
            Known::KeyReused(_) => "key_reused",
        };
        self.metrics.idempotency.with_label_values(&[&call.operation().name, result]).inc();
        match known {
            Known::KeyReused(id) => {
                Err(Refusal::new(Code::KeyReused, "this idempotency key stands for other arguments").for_call(id))
            }
            known => Ok(known),
        }
    }

    /// Whether a call claims its key and leaves durable steps: everything but a plain read.
    #[must_use]
    pub fn is_claimed(call: &Call) -> bool {
        let operation = call.operation();
        let moves_money = operation.cost.money.is_some() || operation.cost.amount.is_some();
        !operation.effects.is_read() || call.key().is_some() || moves_money
    }

    /// Begins a fresh call: claim, reservations and intent in one durable step.
    ///
    /// # Errors
    /// [`NotBegun`]; then nothing may be sent.
    pub async fn begin(&self, record: CallRecord, call: &Call, states: Bytes) -> Result<InFlight, NotBegun> {
        let charges = record.charges.clone();
        let body = call.request().body.clone();
        self.step(Begin { record, body, arguments: arguments_of(call), states, charges, release: false }).await
    }

    /// Begins an approved hold.
    ///
    /// # Errors
    /// [`NotBegun`]; then nothing may be sent.
    pub async fn begin_release(&self, record: CallRecord, charges: Vec<Charge>) -> Result<InFlight, NotBegun> {
        let (body, arguments, states) = (Bytes::new(), Bytes::new(), Bytes::new());
        self.step(Begin { record, body, arguments, states, charges, release: true }).await
    }

    async fn step(&self, begin: Begin) -> Result<InFlight, NotBegun> {
        let tier = begin.record.tier;
        match self.store.begin(begin).await {
            Ok((begun, record)) => Ok(self.flight(begun, &record, tier)),
            Err(BeginError::KeyTaken) => Err(NotBegun::Again),
            Err(BeginError::Budget(charge)) => Err(NotBegun::Budget(charge)),
            Err(BeginError::GrantOver) => Err(NotBegun::GrantOver),
            Err(BeginError::Paused(pause)) => Err(NotBegun::Paused(pause)),
            Err(BeginError::NotApproved | BeginError::WindowClosed) => Err(NotBegun::Over),
            Err(BeginError::Unavailable) => {
                self.metrics.store_errors.with_label_values(&["begin"]).inc();
                Err(NotBegun::Unavailable)
            }
        }
    }
}

impl Calls {
    fn flight(&self, begun: Begun, record: &CallRecord, tier: Tier) -> InFlight {
        let attempts = record.resend.map_or(1, |r| r.attempts);
        InFlight { attempt: begun.attempt, attempts, begun: Some(begun), store: Arc::clone(&self.store), tier }
    }

    /// Begins the next attempt of a call whose attempt was lost: only where it was declared idempotent. The flight
    /// stands for the new attempt then.
    pub async fn again(&self, flight: &mut InFlight) -> bool {
        let Some(lost) = &flight.begun else { return false };
        match self.store.again(lost).await {
            Ok(Some((begun, record))) => {
                *flight = self.flight(begun, &record, flight.tier_once_taken());
                true
            }
            Ok(None) => false,
            Err(fault) => {
                self.metrics.store_errors.with_label_values(&["again"]).inc();
                tracing::error!(fault = %fault.chain(), "the next attempt could not be recorded; it is not sent");
                false
            }
        }
    }

    /// Begins the next attempt of a call that a dead process was sending.
    ///
    /// # Errors
    /// `None`: it may not be sent again. A fault: it is not known whether that was recorded.
    pub async fn take_over(&self, record: &CallRecord) -> Result<Option<InFlight>, Fault> {
        let lost = Begun { id: record.id, attempt: record.attempt, epoch: record.epoch };
        let begun = self.store.again(&lost).await?;
        Ok(begun.map(|(begun, record)| self.flight(begun, &record, record.tier)))
    }
}

impl InFlight {
    /// Whether a lost attempt may be followed by another one.
    #[must_use]
    pub fn has_attempts(&self) -> bool {
        self.attempt < self.attempts
    }

    /// Whether no attempt came before this one.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.attempt == 1
    }

    /// Its begun attempt is over: another one takes its place.
    fn tier_once_taken(&mut self) -> Tier {
        self.begun = None;
        self.tier
    }

    fn take(&mut self) -> Option<Begun> {
        self.begun.take()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Some(begun) = self.begun.take() else { return };
        tracing::error!(call.id = %begun.id, "a begun call was dropped; its outcome is unknown");
        let store = Arc::clone(&self.store);
        let lost = async move {
            let conclusion = conclude::unknown("our_failure", "the proxy failed while the call was under way");
            if let Err(e) = store.conclude(begun, conclusion).await {
                tracing::error!(fault = %e.chain(), "could not be recorded");
            }
        };
        // Without a runtime the process is ending: recovery says `unknown`.
        if tokio::runtime::Handle::try_current().is_ok() {
            tasks::spawn(lost);
        }
    }
}

impl From<Fault> for NotBegun {
    fn from(fault: Fault) -> Self {
        tracing::error!(fault = %fault.chain(), "a call could not begin");
        Self::Unavailable
    }
}
