//! The path of a call, top to bottom. Nothing else in this crate decides whether a call may pass.
//!
//! The order, and the reason for each place in it:
//! 1. **identify**: every limit, key and decision is per principal.
//! 2. **recognize**: limits differ by tool; what is unknown, or may not be seen, ends here.
//! 3. **check rates** before any work that costs: a storm of calls that policy will refuse dies early.
//! 4. **validate**: policy, approver, digest and upstream all see this one value.
//! 5. **look up** before policy: a retry of a call that has run gets its answer even if the budget is spent since.
//!    Then the kill switch: what was stopped still gets the answers that are known, and begins nothing.
//! 6. **authorize** with facts gathered once. Low goes on, medium and high are parked, the rest is refused. What may
//!    be a duplicate of a call that may have happened is parked, too.
//! 7. **park** writes the hold; nothing is reserved, no breaker is asked: a call may wait for hours.
//! 8. **begin** claims the key, reserves every budget and records the intent in one durable step.
//! 9. **forward** spends the permit.
//! 10. **conclude** records the outcome; only then does the agent hear its end.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::watch;

use crate::call::method::{self, Role};
use crate::call::{
    Call, CallId, Code, Ended, Facts, Fault, HeldAs, Incoming, Judgement, Outcome, Principal, Refusal, Terms, Tier,
    Would,
};
use crate::clock::Clock;
use crate::gates::authz::{Permit, Verdict};
use crate::gates::breaker::{Breakers, Probe};
use crate::gates::budget::Budgets;
use crate::gates::hold::{Attached, Holds, Round};
use crate::gates::idempotency::{Calls, NotBegun, read_outcome};
use crate::gates::pins::Pins;
use crate::gates::session::Sessions;
use crate::gates::upstream::{Answer, Endpoint, Got, GotBody, Lost, Manner, Unsent, Upstreams};
use crate::signals::{Entry, Throttle};
use crate::snapshot::{Snapshot, Snapshots};
use crate::store::{AuditNote, CallRecord, Known, Made, State, Store, UndoOf};
use crate::tasks::{Draining, Tracker};
use crate::telemetry::Metrics;

use self::evidence::Fetched;
use self::grant::Granted;

mod doubt;
mod edit;
mod evidence;
mod grant;
mod lists;
mod own;
mod preview;
mod reconcile;
mod release;
mod resend;
mod sample;
mod support;
mod undo;

pub(crate) use support::counted;

/// The path, as one core walks it.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// The version in force.
    pub snapshots: Arc<Snapshots>,
    /// Durable state.
    pub store: Arc<Store>,
    /// The hold gate.
    pub holds: Holds,
    /// Look up, begin, conclude.
    pub calls: Calls,
    /// One breaker for each tool.
    pub breakers: Arc<Breakers>,
    /// This core's connections.
    pub upstreams: Arc<Upstreams>,
    /// Who owns which MCP session.
    pub sessions: Arc<Sessions>,
    /// Which tools wait for an operator.
    pub pins: Arc<Pins>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Refusals that are recorded by count alone.
    pub strangers: Arc<Throttle>,
    /// Set when the process is about to stop: nothing new begins.
    pub draining: Draining,
    /// Calls under way.
    pub tracker: Tracker,
    /// Records that were durable are gone: nothing with effects is sent until an operator has looked.
    pub rolled_back: bool,
}

/// A call on its way, with all that was found out about it.
struct Asking<'a> {
    s: &'a Snapshot,
    principal: &'a Principal,
    call: &'a Call,
    /// The client's own credential, for `auth: pass_through`.
    token: Option<&'a str>,
    /// The client that waits for the answer; none where the proxy acts by itself.
    waits: Option<watch::Receiver<()>>,
    /// In which round of a held call its client has come back.
    round: Option<Round>,
    /// What policy was told and has said; none before it was asked, and for what was judged long ago.
    judged: Option<&'a Told>,
    /// The call that it takes back.
    undoes: Option<&'a UndoOf>,
    /// The grant by which it passes.
    granted: Option<&'a Granted>,
}

/// What policy was told of a call, and what it would have said where it does not rule.
#[derive(Debug)]
struct Told {
    facts: Facts,
    judgement: Judgement,
    would: Vec<Would>,
}

/// What begins.
enum Start {
    /// A plain read: nothing to claim.
    Read,
    /// A call that policy allowed by itself.
    Fresh,
    /// A hold that people approved; the proxy sends it by itself, or for the client that came back.
    Release { record: Box<CallRecord>, by_proxy: bool },
}

impl Pipeline {
    /// Carries one message through every gate and records what became of it.
    ///
    /// Runs in its own task: an agent that hangs up must not tear a call in half.
    pub async fn handle(&self, incoming: Incoming) -> Ended {
        let s = self.snapshots.current();
        let mut entry = Entry::open(&incoming, s.digests(), self.clock.instant());
        let passed = std::panic::AssertUnwindSafe(self.pass(&s, incoming, &mut entry)).catch_unwind().await;
        let passed = passed.unwrap_or_else(|_| Err(entry.failed(Fault::new("a gate panicked"))));
        let outcome = passed.unwrap_or_else(|refusal| Outcome::Refused(refusal.for_call(entry.id())));
        let outcome = crate::failpoint::after("tell.before", self.close(&entry, outcome).await);
        Ended { call: entry.id(), outcome, headers: entry.take_headers() }
    }

    async fn pass(&self, s: &Snapshot, incoming: Incoming, entry: &mut Entry) -> Result<Outcome, Refusal> {
        let token = incoming.credentials.token.clone();
        let waits = Some(incoming.gone.clone());
        let principal = s.identity.identify(&incoming.credentials).await?;
        entry.principal(&principal);
        let draft = s.routes.recognize(&principal, incoming, |o| s.policies.visible(&principal, o))?;
        entry.operation(&draft.operation);
        support::rate_headers(entry, s.rates.check(&principal, &draft.operation.name)?);
        self.sessions.check(&principal, &draft)?;
        self.pins.check(&draft.operation)?;
        let call = s.schemas.validate(&principal, draft)?;
        Budgets::money(&call)?;
        entry.call(&call);
        let round = self.holds.round(&principal, &call)?;
        let a = Asking {
            s,
            principal: &principal,
            call: &call,
            token: token.as_deref(),
            waits,
            round,
            judged: None,
            undoes: None,
            granted: None,
        };
        if call.operation().role == Role::Handshake {
            if !method::only_ends(&call.operation().short) {
                self.not_stopped(a.stopped())?;
            }
            let permit = s.policies.admit(&principal, &call, &self.facts(&a, None).await?)?;
            return self.perform(&a, permit, Start::Read, entry).await;
        }
        lists::declared(&a)?;
        self.decide(a, entry).await
    }

    /// From the look-up on: the same for what a client sends and for what takes a call back.
    async fn decide(&self, a: Asking<'_>, entry: &mut Entry) -> Result<Outcome, Refusal> {
        match self.calls.look_up(a.principal, a.call).await? {
            Known::New => {}
            known => return self.known(&a, known, entry).await,
        }
        self.not_stopped(a.stopped())?;
        let facts = self.facts(&a, None).await?;
        support::budget_header(entry, &a, self);
        let (verdict, told) = self.judge(&a, facts);
        let a = Asking { judged: Some(&told), ..a };
        if verdict.is_err() || !Calls::is_claimed(a.call) {
            entry.asked(a.asked());
        }
        match self.doubted(&a, verdict?)? {
            Verdict::Allow(permit) if a.call.operation().delay.is_some() => self.delay(&a, &permit, entry).await,
            Verdict::Allow(permit) if Calls::is_claimed(a.call) => self.perform(&a, permit, Start::Fresh, entry).await,
            Verdict::Allow(permit) => self.perform(&a, permit, Start::Read, entry).await,
            Verdict::Hold(terms) => Box::pin(self.granted_or_held(a, terms, entry)).await,
        }
    }

    /// A live grant stands in for people, where policy lets it.
    async fn granted_or_held(&self, a: Asking<'_>, terms: Terms, entry: &mut Entry) -> Result<Outcome, Refusal> {
        match self.granted(&a, &terms).await? {
            Some((permit, granted)) => {
                let a = Asking { granted: Some(&granted), ..a };
                self.perform(&a, permit, Start::Fresh, entry).await
            }
            None => self.park(&a, terms, entry).await,
        }
    }

    /// Writes the hold, then waits in place for a little while.
    async fn park(&self, a: &Asking<'_>, terms: Terms, entry: &mut Entry) -> Result<Outcome, Refusal> {
        let policies = terms.why.iter().map(|w| w.policy.clone()).collect();
        self.parked(a, State::Held, policies, terms, entry).await
    }

    async fn parked(
        &self,
        a: &Asking<'_>,
        state: State,
        policies: Vec<String>,
        terms: Terms,
        entry: &mut Entry,
    ) -> Result<Outcome, Refusal> {
        self.not_draining()?;
        let call = &a.s.schemas.deferred(a.principal, a.call);
        let stored = Asking { call, waits: None, ..*a };
        let mut record = self.record(&stored, state, terms.tier, policies, Some(terms))?;
        let fetch =
            async { if state == State::Held { self.fetch_evidence(a.s, call).await } else { Fetched::default() } };
        let (seen, fetched) = Box::pin(futures_util::future::join(self.preview(a.s, call), fetch)).await;
        let states = seen.map(|seen| seen.record(&mut record)).unwrap_or_default();
        let id = match self.holds.park(record, call, states, a.presentation()).await? {
            Ok(record) => {
                entry.recorded();
                self.bring(record, fetched).await.id
            }
            Err(other) => other,
        };
        self.attach(a, id, entry).await
    }

    /// A call that is held, running or over already.
    async fn known(&self, a: &Asking<'_>, known: Known, entry: &mut Entry) -> Result<Outcome, Refusal> {
        let accepted = a.call.prefer().respond_async || a.call.operation().held_as == HeldAs::Accepted;
        match known {
            Known::Held(record) => self.attach(a, record.id, entry).await,
            Known::InFlight(id) => self.attach(a, id, entry).await,
            Known::Concluded(record) | Known::Over(record) | Known::Unknown(record) => {
                self.holds.tell(&record, accepted, a.s.config.reviews.url.as_deref()).await
            }
            Known::New | Known::KeyReused(_) => {
                Err(Fault::new("an answer of the store that was dealt with before").into())
            }
        }
    }

    async fn attach(&self, a: &Asking<'_>, id: CallId, entry: &mut Entry) -> Result<Outcome, Refusal> {
        match self.holds.attach(id, a.principal, a.call, a.presentation()).await? {
            Attached::Outcome(outcome) => Ok(outcome),
            Attached::Collect(record) => self.collect(a, *record, entry).await,
        }
    }

    /// The part that has effects. Nothing after `forward` may turn the answer into a refusal.
    async fn perform(
        &self,
        a: &Asking<'_>,
        permit: Permit,
        start: Start,
        entry: &mut Entry,
    ) -> Result<Outcome, Refusal> {
        self.not_draining()?;
        if matches!(start, Start::Read) && a.call.operation().role != Role::Handshake {
            // What begins is asked in the step that begins it.
            self.not_stopped(a.stopped())?;
        }
        self.knows_its_past(!matches!(start, Start::Read))?;
        let tier = permit.tier();
        let endpoint =
            a.s.endpoints.get(&a.call.operation().tool.name).ok_or_else(|| Fault::new("a tool without upstream"))?;
        self.pins.check(a.call.operation())?;
        let probe = self.breakers.acquire(a.call)?;
        let own_session = matches!(start, Start::Release { by_proxy: true, .. });
        let collects = matches!(start, Start::Release { by_proxy: false, .. });
        let flight = match self.begin(a, &permit, start).await {
            Ok(flight) => flight,
            Err(NotBegun::Again) => return self.again(a, entry).await,
            Err(NotBegun::GrantOver) => return Box::pin(self.after_all(a, entry)).await,
            Err(not_begun) => return Err(support::not_begun(a, not_begun, self.clock.now())),
        };
        if flight.is_some() {
            entry.recorded();
            entry.sending();
            self.count_grant(a);
        }
        self.sample(a, &permit, flight.is_some());
        support::overhead(self, "request", entry.started(), self.clock.instant());
        let manner = Manner { token: a.token, own_session };
        let attempt = Box::pin(self.attempt(a, endpoint, permit, probe, manner));
        let answer = match (&flight, a.waits.clone()) {
            // A read whose client has hung up is of no use to anybody.
            (None, Some(waits)) => support::while_waited_for(waits, attempt).await?,
            _ => attempt.await,
        };
        let outcome = match flight {
            Some(flight) => {
                let (flight, answer) = self.insist(a, endpoint, manner, flight, answer).await;
                let came = self.clock.instant();
                let outcome = self.calls.conclude(flight, answer, a.call).await;
                support::overhead(self, "answer", came, self.clock.instant());
                outcome
            }
            None => {
                let edited = lists::answered(self, a, read_outcome(answer, a.call, tier)?);
                match a.waits.clone() {
                    Some(waits) => support::while_waited_for(waits, edited).await?,
                    None => edited.await,
                }
            }
        };
        let outcome = outcome.and_then(|outcome| lists::known_task(a, outcome));
        if collects && matches!(outcome, Ok(Outcome::Forwarded { .. })) {
            // It happened, whether or not this can be written down: then it is handed out once more.
            if let Err(fault) = self.store.collected(a.call.id()) {
                tracing::error!(fault = %fault.chain(), call.id = %a.call.id(), "that it was collected is not recorded");
            }
        }
        outcome
    }

    /// One request on the wire, counted.
    async fn attempt(
        &self,
        a: &Asking<'_>,
        endpoint: &Arc<Endpoint>,
        permit: Permit,
        probe: Probe,
        manner: Manner<'_>,
    ) -> Answer {
        let sent = self.clock.instant();
        let mut answer = self.upstreams.forward(endpoint, permit, a.call, manner).await;
        if let Answer::Got(Got { body: GotBody::Flow(flow), .. }) = &mut answer {
            flow.heard_by(self.sessions.listener(a.principal, &a.call.operation().tool.name));
            if a.call.operation().limits.answer == usize::MAX {
                flow.ends_when(self.stopped_later(a));
            }
        }
        support::count_answer(self, a.call, &answer, sent);
        // What is our own or the client's doing says nothing of the upstream.
        match &answer {
            Answer::NotSent(Unsent::Ours(_)) | Answer::Lost(Lost::Cancelled) => drop(probe),
            answer => {
                let healthy = support::is_healthy(answer);
                probe.observe(healthy);
                if !healthy {
                    self.end_failing(&a.call.operation().tool.name).await;
                }
            }
        }
        answer
    }

    /// The grant ended between policy's answer and the begin: people look at the call.
    async fn after_all(&self, a: &Asking<'_>, entry: &mut Entry) -> Result<Outcome, Refusal> {
        let granted = a.granted.ok_or_else(|| Fault::new("a call without grant met the end of one"))?;
        let a = Asking { granted: None, waits: a.waits.clone(), ..*a };
        self.park(&a, granted.terms.clone(), entry).await
    }

    /// The claim was taken between look-up and begin: what is known now is the answer.
    async fn again(&self, a: &Asking<'_>, entry: &mut Entry) -> Result<Outcome, Refusal> {
        match self.calls.look_up(a.principal, a.call).await? {
            Known::New => {
                Err(Refusal::new(Code::InFlight, "the same call was under way; send it again").for_call(a.call.id()))
            }
            known => Box::pin(self.known(a, known, entry)).await,
        }
    }

    fn record(
        &self,
        a: &Asking<'_>,
        state: State,
        tier: Tier,
        policies: Vec<String>,
        terms: Option<Terms>,
    ) -> Result<CallRecord, Refusal> {
        let now = self.clock.now();
        let charges = a.s.budgets.charges(a.principal, a.call, now)?;
        let money = Budgets::money(a.call)?;
        let (config_digest, policy_digest) = a.s.digests();
        let mut charges = if state == State::Dispatching { charges } else { Vec::new() };
        charges.extend(a.granted.iter().flat_map(|granted| granted.charges.iter().cloned()));
        let facts = a.judged.map(|told| told.facts.clone());
        let would = a.judged.map(|told| told.would.clone()).unwrap_or_default();
        let made =
            Made { state, tier, policies, facts, would, terms, charges, money, config_digest, policy_digest, now };
        let mut record = CallRecord::fresh(a.call, a.principal, made);
        record.grant = a.granted.map(|granted| granted.id);
        if let Some(undoes) = a.undoes {
            // A call is taken back once, for as long as anybody knows of it.
            record.keep = record.keep.max(a.s.config.state.keep.calls);
            record.undoes = Some(Box::new(undoes.clone()));
        }
        Ok(record)
    }

    /// Records what no step of the store has recorded; what cannot be recorded is refused.
    async fn close(&self, entry: &Entry, outcome: Outcome) -> Outcome {
        let outcome = match self.note(entry, &outcome).await {
            Ok(()) => outcome,
            Err(fault) if matches!(outcome, Outcome::Refused(_)) => {
                tracing::error!(fault = %fault.chain(), "a refusal could not be recorded");
                outcome
            }
            Err(fault) => {
                self.metrics.store_errors.with_label_values(&["append"]).inc();
                Outcome::Refused(Refusal::from(fault).for_call(entry.id()))
            }
        };
        entry.tell(&outcome, &self.metrics, self.clock.instant());
        outcome
    }

    async fn note(&self, entry: &Entry, outcome: &Outcome) -> Result<(), Fault> {
        let code = if let Outcome::Refused(r) = outcome { Some(r.code()) } else { None };
        if !entry.is_identified() || code == Some(Code::RateLimited) {
            return match self.strangers.count(self.clock.now()) {
                Some(count) => self.store.append(support::counted(count), false).await,
                None => Ok(()),
            };
        }
        match entry.note(outcome) {
            Some(note) => self.append(note, entry.is_durable()).await,
            None => Ok(()),
        }
    }

    async fn append(&self, note: AuditNote, durable: bool) -> Result<(), Fault> {
        self.store.append(note, durable).await
    }
}
