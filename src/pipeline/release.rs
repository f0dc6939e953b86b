//! People approved: policy is asked again with today's versions and today's facts, then the call carries on.

use std::net::{IpAddr, Ipv4Addr};

use http::header::IF_MATCH;
use serde_json::Value;

use crate::call::{
    Call, CallId, Checked, Code, OutRequest, Outcome, Preference, Protocol, Refusal, Terms, Tier, seen_digest,
    strong_etag,
};
use crate::gates::authz::{GivenApprovals, Release};
use crate::gates::hold;
use crate::signals::Entry;
use crate::snapshot::Snapshot;
use crate::store::{CallRecord, Note, Renew, State};

use super::preview::{self, Seen};
use super::{Asking, Pipeline, Start};

/// The client that came back for an approved call: its credential, and the headers of what it sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client<'a> {
    token: Option<&'a str>,
    /// None when it only asked for the task: then those of its call.
    headers: Option<&'a [(String, String)]>,
}

impl Pipeline {
    /// Tends a stored call by itself: an approved one is sent, one that a dead process was sending is sent again where
    /// that was declared harmless, and of an unknown one the configured read is asked.
    pub async fn tend(&self, id: CallId) {
        let state = match self.store.get(id).await {
            Ok(record) => record.map(|r| r.state),
            Err(fault) => return tracing::error!(fault = %fault.chain(), call.id = %id, "a call cannot be read"),
        };
        match state {
            Some(State::Approved) => self.resume(id).await,
            Some(State::Dispatching) => self.resend(id).await,
            Some(State::Unknown) => self.probe(id).await,
            _ => {}
        }
    }

    /// Sends an approved call by itself, once. A gate that is closed for now leaves it approved; it is tried again.
    async fn resume(&self, id: CallId) {
        let s = self.snapshots.current();
        let record = match self.store.get(id).await {
            Ok(Some(record)) => record,
            Ok(None) => return,
            Err(fault) => {
                return tracing::error!(fault = %fault.chain(), call.id = %id, "an approved call cannot be read");
            }
        };
        let now = self.clock.now();
        let early = record.not_before.is_some_and(|at| now < at);
        if record.state_at(now) != State::Approved || !record.release_by_proxy || early {
            return;
        }
        crate::failpoint::hit("resume.before");
        let mut entry = Entry::resumed(&record, s.digests(), self.clock.instant());
        let outcome = self.release(&s, record, None, &mut entry).await.unwrap_or_else(Outcome::Refused);
        entry.tell(&outcome, &self.metrics, self.clock.instant());
    }

    /// The client came back with its live credential: now the call is sent. An MCP answer is told from the record, since
    /// it carries the id of the first asking.
    pub(super) async fn collect(
        &self,
        a: &Asking<'_>,
        record: CallRecord,
        entry: &mut Entry,
    ) -> Result<Outcome, Refusal> {
        let id = record.id;
        let modern = |rpc: &(String, Protocol)| rpc.1 == Protocol::McpModern;
        let same_era = a.call.request().rpc.as_ref().map(modern) == record.request.rpc.as_ref().map(|(_, m)| *m);
        // Headers of one era say nothing of a message of the other.
        let headers = same_era.then_some(a.call.request().headers.as_slice());
        let edited = record.edited.clone();
        let outcome = self.release(a.s, record, Some(Client { token: a.token, headers }), entry).await?;
        if a.call.request().rpc.is_none() {
            return Ok(hold::told_of_edits(outcome, edited.as_deref()));
        }
        if !matches!(outcome, Outcome::Forwarded { .. }) {
            return Ok(outcome);
        }
        // It was sent: what cannot be read back now is no refusal.
        let Ok(record) = self.holds.wait(id, a.call.operation().limits.deadline).await else { return Ok(outcome) };
        self.holds.tell(&record, false, a.s.config.reviews.url.as_deref()).await.or(Ok(outcome))
    }

    /// The client asked for the task of an approved call: that is its coming back.
    pub async fn collect_task(&self, record: CallRecord, token: Option<&str>) {
        let s = self.snapshots.current();
        let mut entry = Entry::resumed(&record, s.digests(), self.clock.instant());
        let client = Client { token, headers: None };
        let outcome = self.release(&s, record, Some(client), &mut entry).await.unwrap_or_else(Outcome::Refused);
        entry.tell(&outcome, &self.metrics, self.clock.instant());
    }

    /// Asks everything again, then sends. What has changed so that it may not pass is recorded on the hold.
    pub(super) async fn release(
        &self,
        s: &Snapshot,
        record: CallRecord,
        client: Option<Client<'_>>,
        entry: &mut Entry,
    ) -> Result<Outcome, Refusal> {
        let id = record.id;
        entry.recorded();
        match Box::pin(self.released(s, record, client, entry)).await {
            Err(refusal) if refusal.code() == Code::Revoked => {
                let record = self.store.revoke(id, note(&refusal)).await.map_err(|_| unrecorded())?;
                self.metrics.hold_ended(&record.operation, record.tier.as_str(), "revoked");
                Err(refusal)
            }
            Err(refusal) if waits(refusal.code()) => {
                if self.store.wait_reason(id, note(&refusal)).await.is_err() {
                    tracing::debug!(call.id = %id, "the hold has moved on");
                }
                Err(refusal)
            }
            done => done,
        }
    }

    async fn released(
        &self,
        s: &Snapshot,
        record: CallRecord,
        client: Option<Client<'_>>,
        entry: &mut Entry,
    ) -> Result<Outcome, Refusal> {
        self.not_stopped(record.stopped())?;
        if !s.identity.still_active(&record.principal) {
            return Err(revoked("the agent is not one that may act any more"));
        }
        if proposes(s, &record) {
            return Err(revoked(PROPOSAL));
        }
        let call = self.restored(s, &record, client, if_match(s, &record)).await?;
        if !record.stands_for(call.digest()) {
            return Err(revoked("the request is not the one that was approved: its tool has moved"));
        }
        let principal = record.principal.clone();
        let a = Asking { token: client.and_then(|c| c.token), ..Asking::alone(s, &principal, &call) };
        let facts = self.facts(&a, Some(&record)).await?;
        let given = approvals(&record);
        match s.policies.authorize_release(&principal, &call, &facts, &given)? {
            Release::Allow(permit) => match s.policies.demands(&principal, &call, &facts)? {
                // Other approvers, other evidence than were asked for then: people must look again.
                Some(terms) if !record.meets(&terms.needs) => self.renewed(s, &record, &call, terms).await,
                _ => {
                    if let Some(seen) = self.moved(s, &record, &call).await? {
                        return self.looked_at_again(s, &record, &call, seen).await;
                    }
                    let by_proxy = record.release_by_proxy;
                    self.perform(&a, permit, Start::Release { record: Box::new(record), by_proxy }, entry).await
                }
            },
            Release::Stronger(terms) => self.renewed(s, &record, &call, terms).await,
        }
    }

    /// Back to the people, under today's terms; what they look at is as it is now.
    async fn renewed(&self, s: &Snapshot, record: &CallRecord, call: &Call, terms: Terms) -> Result<Outcome, Refusal> {
        // A target that cannot be read now was seen as it was then, and is asked for again at the release.
        let seen = self.moved(s, record, call).await.unwrap_or_default();
        let text = "policy demands more approval now than when it was asked first".to_owned();
        let note = Note { code: "stronger_need".into(), text, by: None };
        self.renew(s, record, call, terms, seen, note).await
    }

    /// Back to the people, who decided about a target that is not so any more.
    async fn looked_at_again(
        &self,
        s: &Snapshot,
        record: &CallRecord,
        call: &Call,
        seen: Seen,
    ) -> Result<Outcome, Refusal> {
        // A hold that was made stays one, however policy has loosened since.
        let terms = record.terms.clone().ok_or_else(|| revoked("what it would change moved before it was sent"))?;
        let text = "what it would change moved after it was approved".to_owned();
        self.renew(s, record, call, terms, Some(seen), Note { code: "moved".into(), text, by: None }).await
    }

    async fn renew(
        &self,
        s: &Snapshot,
        record: &CallRecord,
        call: &Call,
        terms: Terms,
        seen: Option<Seen>,
        what_changed: Note,
    ) -> Result<Outcome, Refusal> {
        let (config_digest, policy_digest) = s.digests();
        let fence = seen.as_ref().map(|seen| seen.preview.fence.as_deref());
        let renewed = self.store.renew(Renew {
            id: record.id,
            version: Some(record.version),
            terms,
            digest: fence.map_or(record.digest, |fence| seen_digest(call.digest(), fence)),
            preview: seen.map(|seen| (seen.preview.clone(), seen.sealed())),
            config_digest,
            policy_digest,
            what_changed,
        });
        let record = renewed.await.map_err(|_| unrecorded())?;
        if record.state == State::Stale {
            self.metrics.hold_ended(&record.operation, record.tier.as_str(), "stale");
        }
        self.holds.tell(&record, false, s.config.reviews.url.as_deref()).await
    }

    /// The call again, from what was stored with the hold.
    pub(super) async fn restored(
        &self,
        s: &Snapshot,
        record: &CallRecord,
        client: Option<Client<'_>>,
        fence: Option<(String, String)>,
    ) -> Result<Call, Refusal> {
        let operation = s.operation(&record.operation).ok_or_else(|| revoked("the operation is gone"))?;
        let arguments: Value = self.store.arguments(record).await?;
        let body = self.store.request_body(record).await?;
        let stored = &record.request;
        let mut headers = headers_of(client, &stored.headers);
        headers.extend(fence);
        let era = |modern: bool| if modern { Protocol::McpModern } else { Protocol::McpLegacy };
        let parts = Checked {
            id: record.id,
            operation: std::sync::Arc::clone(operation),
            arguments,
            request: OutRequest {
                target: stored.target.clone(),
                content_type: stored.content_type.clone(),
                body,
                headers,
                rpc: stored.rpc.as_ref().map(|(id, modern)| (id.clone(), era(*modern))),
            },
            key: record.key.clone(),
            key_derived: record.key_derived,
            named_run: None,
            context: (*record.context).clone(),
            evidence: record.evidence.iter().map(|e| e.id).collect(),
            source_ip: record.context.source_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            prefer: Preference::default(),
            poll: None,
            deadline: self.clock.instant(),
        };
        s.schemas.restore(&record.principal, parts).map_err(|refusal| match refusal.code() {
            Code::InvalidArguments => revoked("the arguments break today's schema of the operation"),
            _ => refusal,
        })
    }
}

/// Headers that belong to a connection, a session or a trace: of the client that came back those are its own.
const OWN: [&str; 7] =
    ["accept", "baggage", "last-event-id", "mcp-protocol-version", "mcp-session-id", "traceparent", "tracestate"];

/// What goes upstream with a stored call: what approvers saw, whatever the client came back with.
fn headers_of(client: Option<Client<'_>>, stored: &[(String, String)]) -> Vec<(String, String)> {
    let Some(own) = client.and_then(|c| c.headers) else { return stored.to_vec() };
    let is_own = |(name, _): &&(String, String)| OWN.contains(&name.as_str());
    own.iter().filter(is_own).chain(stored.iter().filter(|h| !is_own(h))).cloned().collect()
}

/// The state that approvers saw, where the request goes to the very thing that was read and its upstream can tell.
pub(super) fn if_match(s: &Snapshot, record: &CallRecord) -> Option<(String, String)> {
    let preview = record.preview.as_ref()?;
    let tag = strong_etag(preview.fence.as_deref()?)?;
    let there = preview::goes_to(s, &record.tool, &record.request.target.path, preview.target.as_deref()?);
    there.then(|| (IF_MATCH.as_str().to_owned(), tag.to_owned()))
}

/// What the votes really add up to.
pub(super) fn approvals(record: &CallRecord) -> GivenApprovals {
    let people = record.people();
    let complete = record.terms.as_ref().is_none_or(|t| t.needs.evidence.iter().all(|kind| record.has_evidence(kind)));
    let granted = people >= 1 && complete;
    GivenApprovals { granted, dual: granted && people >= 2 && record.is_justified() && record.tier == Tier::High }
}

/// Refusals that pass by themselves: the call stays approved and is tried again.
const fn waits(code: Code) -> bool {
    matches!(code, Code::BreakerOpen | Code::BudgetExhausted | Code::Paused | Code::Unavailable)
}

fn note(refusal: &Refusal) -> Note {
    Note { code: refusal.code().as_str().into(), text: refusal.public_text().to_owned(), by: None }
}

/// The end of every proposal that people found good.
const PROPOSAL: &str = "it was judged as a proposal: its workflow is in stage `assist`, so nothing was sent";

/// Whether the call's workflow only made proposals when it was asked, or does so now.
fn proposes(s: &Snapshot, record: &CallRecord) -> bool {
    let now = s.config.workflows.get(&record.context.workflow).map(|w| w.stage.as_str());
    record.context.stage == ASSIST || now == Some(ASSIST)
}

/// The stage in which writes are proposals.
const ASSIST: &str = "assist";

fn revoked(text: &'static str) -> Refusal {
    Refusal::new(Code::Revoked, text)
}

fn unrecorded() -> Refusal {
    Refusal::new(Code::Unavailable, "the change could not be recorded")
}
