//! A call that is declared idempotent may be sent again when its attempt was lost. Everything else stays unknown: nobody
//! guesses. Each attempt is begun durably, with the same key upstream, and policy is asked before each.

use std::sync::Arc;

use crate::call::{CallId, Fault};
use crate::gates::authz::{Permit, Release};
use crate::gates::breaker::Probe;
use crate::gates::idempotency::InFlight;
use crate::gates::upstream::{Answer, Endpoint, Manner, Unsent};
use crate::signals::Entry;
use crate::snapshot::Snapshot;
use crate::store::{CallRecord, State};

use super::{Asking, Pipeline, release};

impl Pipeline {
    /// Follows a lost attempt by the next one, while the call's deadline, its attempts, the breaker and policy allow.
    pub(super) async fn insist(
        &self,
        a: &Asking<'_>,
        endpoint: &Arc<Endpoint>,
        manner: Manner<'_>,
        mut flight: InFlight,
        mut answer: Answer,
    ) -> (InFlight, Answer) {
        while self.is_open(a, &flight, &answer) {
            let Ok(Some(record)) = self.store.get(a.call.id()).await else { break };
            let Some((permit, probe)) = self.permit_again(a, &record).await else { break };
            if !self.calls.again(&mut flight).await {
                break;
            }
            tracing::warn!(call.id = %a.call.id(), ?answer, "an attempt was lost; the call is declared idempotent and sent again");
            answer = self.attempt(a, endpoint, permit, probe, manner).await;
        }
        (flight, answer)
    }

    /// Whether the attempt was lost, and another one may follow. After a first loss one that was not sent is no end.
    fn is_open(&self, a: &Asking<'_>, flight: &InFlight, answer: &Answer) -> bool {
        let lost = match answer {
            Answer::Lost(_) => true,
            Answer::NotSent(_) => !flight.is_first(),
            Answer::Got(got) => !flight.is_first() && Unsent::said(a.call, got.status).is_some(),
        };
        lost && flight.has_attempts() && self.clock.instant() < a.call.deadline() && self.not_draining().is_ok()
    }

    /// The gates that a release passes: principal, policy as it is now with the approvals that were given, breaker.
    async fn permit_again(&self, a: &Asking<'_>, record: &CallRecord) -> Option<(Permit, Probe)> {
        if !a.s.identity.still_active(a.principal) {
            return None;
        }
        let facts = self.facts(a, Some(record)).await.ok()?;
        let given = release::approvals(record);
        let Ok(Release::Allow(permit)) = a.s.policies.authorize_release(a.principal, a.call, &facts, &given) else {
            return None;
        };
        let demands = a.s.policies.demands(a.principal, a.call, &facts).ok()?;
        if demands.is_some_and(|terms| !record.meets(&terms.needs)) {
            return None;
        }
        Some((permit, self.breakers.acquire(a.call).ok()?))
    }

    /// Sends a call again that a dead process was sending; what may not be sent again is unknown from here on.
    pub(super) async fn resend(&self, id: CallId) {
        if self.not_draining().is_err() {
            // It stays as it is: the next process finds it.
            return;
        }
        let s = self.snapshots.current();
        let sent = match self.store.get(id).await {
            // One of our own process is somebody else's to end.
            Ok(Some(record)) if record.state == State::Dispatching && record.epoch != self.store.epoch() => {
                Box::pin(self.try_resend(&s, record)).await
            }
            Ok(_) => return,
            Err(fault) => Err(fault),
        };
        let gone = match sent {
            Ok(true) => return,
            Ok(false) => self.store.give_up(id).await,
            Err(fault) => Err(fault),
        };
        match gone {
            Ok(()) => {
                tracing::warn!(call.id = %id, "a call of a dead process may not be sent again; its outcome is unknown")
            }
            Err(fault) => {
                tracing::error!(fault = %fault.chain(), call.id = %id, "a call of a dead process cannot be tended")
            }
        }
    }

    /// Whether it was sent again.
    async fn try_resend(&self, s: &Snapshot, record: CallRecord) -> Result<bool, Fault> {
        let declared = s.operation(&record.operation).and_then(|o| crate::store::Resend::of(o));
        let same = declared.zip(record.resend).is_some_and(|(today, then)| today.by == then.by);
        let Some(endpoint) = s.endpoints.get(&record.tool).filter(|e| same && !e.passes_through()) else {
            return Ok(false);
        };
        if self.knows_its_past(true).is_err() {
            return Ok(false);
        }
        let Ok(call) = self.restored(s, &record, None, release::if_match(s, &record)).await else { return Ok(false) };
        if !record.stands_for(call.digest()) {
            return Ok(false);
        }
        let principal = record.principal.clone();
        let a = Asking::alone(s, &principal, &call);
        let Some((permit, probe)) = self.permit_again(&a, &record).await else { return Ok(false) };
        let Some(flight) = self.calls.take_over(&record).await? else { return Ok(false) };
        let mut entry = Entry::resumed(&record, s.digests(), self.clock.instant());
        entry.sending();
        let manner = Manner { token: None, own_session: true };
        let answer = self.attempt(&a, endpoint, permit, probe, manner).await;
        let (flight, answer) = self.insist(&a, endpoint, manner, flight, answer).await;
        let outcome = self.calls.conclude(flight, answer, &call).await.unwrap_or_else(crate::call::Outcome::Refused);
        entry.tell(&outcome, &self.metrics, self.clock.instant());
        Ok(true)
    }
}
