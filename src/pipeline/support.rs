//! Small steps of the path that decide nothing: facts, headers, counters, filtered lists.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::watch;

use crate::call::{
    Asked, Beside, Call, Code, Facts, Fault, Judgement, Meters, Refusal, Stopped, Timestamp, UndoRule, redacted,
};
use crate::gates::authz::{Judged, Permit, Verdict};
use crate::gates::budget::Budgets;
use crate::gates::hold::Presentation;
use crate::gates::idempotency::{InFlight, NotBegun};
use crate::gates::rate::Standing;
use crate::gates::upstream::{Answer, Got, GotBody, Lost};
use crate::signals::{self, Entry};
use crate::store::{AuditNote, CallRecord, Resend, State};

use super::{Asking, Pipeline, Start, Told};

impl Asking<'_> {
    /// What a pause is compared with.
    pub(super) fn stopped(&self) -> Stopped<'_> {
        Stopped {
            agent: &self.principal.agent,
            workflow: &self.call.context().workflow,
            tool: &self.call.operation().tool.name,
            is_undo: self.undoes.is_some(),
        }
    }

    pub(super) fn presentation(&self) -> Presentation<'_> {
        let reviews = &self.s.config.reviews;
        let rounds = (reviews.mrtr_poll && self.call.request().rpc.is_some()).then_some(self.round);
        let (page, max_held) = (reviews.url.as_deref(), reviews.max_held);
        Presentation { inline_wait: reviews.inline_wait, page, max_held, rounds }
    }

    /// The question as a note keeps it.
    pub(super) fn asked(&self) -> Option<Asked> {
        let told = self.judged?;
        Some(Asked {
            principal: Arc::new(self.principal.clone()),
            context: self.call.context().clone(),
            arguments: redacted(self.call.arguments(), &self.call.operation().redact),
            facts: told.facts.clone(),
            judgement: told.judgement,
            would: told.would.clone(),
        })
    }
}

impl Pipeline {
    /// Facts for one decision, gathered once; for a release, with the evidence of its hold.
    pub(super) async fn facts(&self, a: &Asking<'_>, hold: Option<&CallRecord>) -> Result<Facts, Refusal> {
        let now = self.clock.now();
        let mut evidence: BTreeSet<String> = hold.iter().flat_map(|r| &r.evidence).map(|e| e.kind.clone()).collect();
        if hold.is_none() {
            for id in a.call.evidence() {
                let artifact = self.store.artifact(*id).await?.map(|(artifact, _)| artifact);
                let own = artifact.filter(|artifact| artifact.principal_key == a.principal.key());
                let Some(own) = own else {
                    return Err(Refusal::new(Code::InvalidArguments, format!("`{id}` is not evidence of yours")));
                };
                evidence.insert(own.evidence.kind);
            }
        }
        let meters = self.meters(a, now)?;
        Ok(signals::gather(&self.store, a.principal, a.call, meters, evidence, now)?)
    }

    fn meters(&self, a: &Asking<'_>, now: Timestamp) -> Result<Meters, Fault> {
        let ledgers = a.s.budgets.ledgers(a.principal, a.call, now);
        let keys: Vec<_> = ledgers.iter().map(|(_, key)| key.clone()).collect();
        Ok(a.s.budgets.meters(&ledgers, &self.store.balances(&keys)?))
    }

    /// Asks policy, and tells what it was told.
    pub(super) fn judge(&self, a: &Asking<'_>, facts: Facts) -> (Result<Verdict, Refusal>, Told) {
        let asked = self.clock.instant();
        let Judged { verdict, judgement, would } = a.s.policies.judge(a.principal, a.call, &facts);
        let took = self.clock.instant().saturating_duration_since(asked);
        self.metrics.policy_seconds.with_label_values::<&str>(&[]).observe(took.as_secs_f64());
        self.count_hits(&verdict);
        for other in &would {
            // A set that observes would have stopped what runs; one in shadow is compared with what rules.
            let ruled = if other.by == Beside::Shadow { judgement } else { Judgement::Low };
            let change = match other.judgement.cmp(&ruled) {
                Ordering::Greater => "tightens",
                Ordering::Less => "loosens",
                Ordering::Equal => "same",
            };
            let none = other.policies.is_empty().then_some("none");
            for policy in other.policies.iter().map(String::as_str).chain(none) {
                self.metrics.shadow_decisions.with_label_values(&[policy, change]).inc();
            }
        }
        (verdict, Told { facts, judgement, would })
    }

    /// Each policy that decided.
    fn count_hits(&self, verdict: &Result<Verdict, Refusal>) {
        let hit = |policy: &str| self.metrics.policy_hits.with_label_values(&[policy]).inc();
        match verdict {
            Ok(Verdict::Allow(permit)) => permit.policies().iter().for_each(|p| hit(p)),
            Ok(Verdict::Hold(terms)) => terms.why.iter().for_each(|w| hit(&w.policy)),
            Err(refusal) => refusal.policies().iter().for_each(|p| hit(&p.id)),
        }
    }

    /// Claim, reservations and intent in one durable step; nothing for a plain read.
    pub(super) async fn begin(
        &self,
        a: &Asking<'_>,
        permit: &Permit,
        start: Start,
    ) -> Result<Option<InFlight>, NotBegun> {
        match start {
            Start::Read => Ok(None),
            Start::Fresh => Box::pin(self.begin_fresh(a, permit)).await.map(Some),
            Start::Release { mut record, .. } => {
                (record.config_digest, record.policy_digest) = a.s.digests();
                // What is declared today, not when it was held.
                record.quiet_for = a.call.operation().reconcile.after;
                record.resend = Resend::of(a.call.operation());
                record.policies = permit.policies().to_vec();
                let charges = a.s.budgets.charges(a.principal, a.call, self.clock.now());
                let charges = charges.map_err(|_| NotBegun::Unavailable)?;
                self.calls.begin_release(*record, charges).await.map(Some)
            }
        }
    }

    async fn begin_fresh(&self, a: &Asking<'_>, permit: &Permit) -> Result<InFlight, NotBegun> {
        let record = self.record(a, State::Dispatching, permit.tier(), permit.policies().to_vec(), None);
        // The cost was checked with the arguments; what cannot be priced is not begun.
        let mut record = record.map_err(|_| NotBegun::Unavailable)?;
        let needs_before = a.call.operation().undo.as_ref().is_some_and(UndoRule::needs_before);
        // What cannot be read now cannot be undone; that is no reason not to do it.
        let seen = if needs_before { self.preview(a.s, a.call).await } else { None };
        let states = seen.map(|seen| seen.record(&mut record)).unwrap_or_default();
        self.calls.begin(record, a.call, states).await
    }

    /// A call passed by a grant.
    pub(super) fn count_grant(&self, a: &Asking<'_>) {
        if let Some(granted) = a.granted {
            let op = a.call.operation().name.as_str();
            self.metrics.grant_uses.with_label_values(&[op]).inc();
            tracing::info!(call.id = %a.call.id(), grant.id = %granted.id, operation.name = op, "passes by a grant");
        }
    }

    pub(super) fn not_draining(&self) -> Result<(), Refusal> {
        if self.draining.is_on() {
            let text = "this proxy is about to stop; nothing was sent";
            return Err(Refusal::new(Code::Unavailable, text).with_retry_after(std::time::Duration::from_secs(5)));
        }
        if !self.store.healthy() {
            return Err(Refusal::new(Code::Unavailable, "calls cannot be recorded right now; nothing was sent"));
        }
        Ok(())
    }

    /// Nothing that the kill switch stops goes on; what begins is asked once more in the step that begins it.
    pub(super) fn not_stopped(&self, call: Stopped<'_>) -> Result<(), Refusal> {
        self.store.stopping(call).map_or(Ok(()), |pause| Err(pause.scope.refusal(pause.since)))
    }

    /// Ends once the caller of a stream, its workflow or its tool is stopped: a stream has no end of its own.
    pub(super) fn stopped_later(&self, a: &Asking<'_>) -> BoxFuture<'static, ()> {
        let Stopped { agent, workflow, tool, is_undo } = a.stopped();
        let [agent, workflow, tool] = [agent, workflow, tool].map(str::to_owned);
        let (store, mut pauses) = (Arc::clone(&self.store), self.store.follow_pauses());
        Box::pin(async move {
            let stopped = || store.stopping(Stopped { agent: &agent, workflow: &workflow, tool: &tool, is_undo });
            while stopped().is_none() {
                if pauses.changed().await.is_err() {
                    return;
                }
            }
        })
    }

    /// A store that has lost records it once held does not know what was sent before.
    pub(super) fn knows_its_past(&self, claimed: bool) -> Result<(), Refusal> {
        if self.rolled_back && claimed {
            let text = "the state was rolled back or has lost records; an operator must look first; nothing was sent";
            return Err(Refusal::new(Code::Unavailable, text));
        }
        Ok(())
    }
}

pub(super) fn rate_headers(entry: &mut Entry, standing: Option<Standing>) {
    if let Some(standing) = standing {
        entry.header("ratelimit-policy", &standing.policy);
        entry.header("ratelimit", &standing.limit);
    }
}

/// `Holdpoint-Budget` from the warning mark on.
pub(super) fn budget_header(entry: &mut Entry, a: &Asking<'_>, p: &Pipeline) {
    let ledgers = a.s.budgets.ledgers(a.principal, a.call, p.clock.now());
    let keys: Vec<_> = ledgers.iter().map(|(_, key)| key.clone()).collect();
    let Ok(balances) = p.store.balances(&keys) else { return };
    if let Some(warning) = a.s.budgets.warning(&ledgers, &balances) {
        entry.header("holdpoint-budget", &format!("{};used={}", warning.scope, warning.used));
    }
}

pub(super) fn not_begun(a: &Asking<'_>, why: NotBegun, now: Timestamp) -> Refusal {
    let refusal = match why {
        NotBegun::Budget(charge) => Budgets::exhausted(&charge, now),
        NotBegun::Paused(pause) => pause.scope.refusal(pause.since),
        NotBegun::Over => Refusal::new(Code::InFlight, "the hold moved while it was about to be sent; ask again")
            .with_retry_after(std::time::Duration::from_secs(1)),
        NotBegun::Again | NotBegun::GrantOver | NotBegun::Unavailable => {
            Refusal::new(Code::Unavailable, "the call could not be recorded; nothing was sent")
        }
    };
    refusal.for_call(a.call.id())
}

/// The work, unless the client hangs up first: then it is dropped, and with it the connection to the upstream.
///
/// # Errors
/// `withdrawn`, which nobody hears.
pub(super) async fn while_waited_for<T>(
    mut waits: watch::Receiver<()>,
    work: impl Future<Output = T>,
) -> Result<T, Refusal> {
    let hung_up = async { while waits.changed().await.is_ok() {} };
    tokio::select! {
        done = work => Ok(done),
        () = hung_up => Err(Refusal::new(Code::Withdrawn, "the client hung up")),
    }
}

/// Whether the upstream worked, whatever it thought of the call.
pub(super) fn is_healthy(answer: &Answer) -> bool {
    matches!(answer, Answer::Got(got) if !got.status.is_server_error())
}

/// Time that a call spent in the proxy itself: before it was sent, and after its answer came.
pub(super) fn overhead(p: &Pipeline, phase: &str, from: Instant, to: Instant) {
    let took = to.saturating_duration_since(from);
    p.metrics.overhead.with_label_values(&[phase]).observe(took.as_secs_f64());
}

/// An MCP server that says, with HTTP 200, that the tool failed.
fn is_tool_error(call: &Call, got: &Got) -> bool {
    let GotBody::Whole(body) = &got.body else { return false };
    let looks = || body.windows(9).any(|w| w == b"\"isError\"");
    call.request().rpc.is_some()
        && looks()
        && serde_json::from_slice::<Value>(body).is_ok_and(|m| m.pointer("/result/isError") == Some(&Value::Bool(true)))
}

pub(super) fn count_answer(p: &Pipeline, call: &Call, answer: &Answer, sent: Instant) {
    let (tool, op) = (call.operation().tool.name.as_str(), call.operation().name.as_str());
    let class = match answer {
        Answer::NotSent(_) => "unreachable",
        Answer::Lost(Lost::Deadline) => "timeout",
        Answer::Lost(_) => "broken",
        Answer::Got(got) if is_tool_error(call, got) => "tool_error",
        Answer::Got(got) if got.status.is_success() => "success",
        Answer::Got(got) if got.status.is_client_error() => "client_error",
        Answer::Got(got) if got.status.is_server_error() => "server_error",
        Answer::Got(_) => "other",
    };
    p.metrics.upstream_requests.with_label_values(&[tool, op, class]).inc();
    if class == "timeout" {
        p.metrics.upstream_timeouts.with_label_values(&[tool]).inc();
    }
    let took = p.clock.instant().saturating_duration_since(sent);
    p.metrics.upstream_seconds.with_label_values(&[tool, op]).observe(took.as_secs_f64());
}

/// What was refused before anybody was known, and floods: by count.
pub(crate) fn counted(count: u64) -> AuditNote {
    AuditNote::plain("calls.refused_unrecorded", BTreeMap::from([("count".to_owned(), count.into())]))
}
