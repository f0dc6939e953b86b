//! The record of a call that is about to be parked or begun.

use std::sync::Arc;

use bytes::Bytes;

use crate::call::{
    Call, CallId, Digest, Facts, Needs, Operation, Principal, Protocol, Release, Terms, Tier, Timestamp, Would,
    redacted, scrubbed, title,
};

use super::{CallRecord, Charge, Resend, ResendBy, State, StoredRequest};

/// What the gates found out about a call, beside the call itself.
#[derive(Debug, Clone)]
pub struct Made {
    /// `held` or `dispatching`.
    pub state: State,
    /// At which rung policy allowed it.
    pub tier: Tier,
    /// Policies that allowed or held it.
    pub policies: Vec<String>,
    /// Terms of a hold.
    pub terms: Option<Terms>,
    /// What was known when policy was asked.
    pub facts: Option<Facts>,
    /// What policy would have said where it does not rule.
    pub would: Vec<Would>,
    /// What it will charge.
    pub charges: Vec<Charge>,
    /// Money that it moves.
    pub money: Option<(i64, String)>,
    /// Digest of the configuration.
    pub config_digest: Digest,
    /// Digest of the policies.
    pub policy_digest: Digest,
    /// Now.
    pub now: Timestamp,
}

impl CallRecord {
    /// The record of a new call. Redacted arguments are left out of what records show.
    #[must_use]
    pub fn fresh(call: &Call, principal: &Principal, made: Made) -> Self {
        let operation = call.operation();
        let shown = redacted(call.arguments(), &operation.redact);
        let mut context = call.context().clone();
        context.intent = context.intent.map(|words| scrubbed(words, call.arguments(), &operation.redact));
        let rule = &operation.idempotency;
        let expires = made.terms.as_ref().map(|t| made.now.plus(t.expires));
        Self {
            id: call.id(),
            version: 1,
            state: made.state,
            operation: operation.name.clone(),
            tool: operation.tool.name.clone(),
            effects: operation.effects.names().into_iter().map(str::to_owned).collect(),
            principal: Arc::new(principal.clone()),
            context: Arc::new(context),
            key: call.key().map(str::to_owned),
            key_derived: call.key_derived(),
            keep: if call.key_derived() { rule.window } else { rule.keep },
            fingerprint: call.fingerprint(),
            digest: call.digest(),
            request: stored_request(call),
            title: title(operation, &shown),
            arguments: Arc::new(shown),
            schema_digest: operation.schema_digest,
            config_digest: made.config_digest,
            policy_digest: made.policy_digest,
            tier: made.tier,
            policies: made.policies,
            facts: made.facts.map(Arc::new),
            would: made.would,
            preview: None,
            undoes: None,
            grant: None,
            delay: operation.delay,
            not_before: None,
            edited: None,
            terms: made.terms,
            release_by_proxy: operation.release == Release::Approval,
            handling: None,
            unfetched: Vec::new(),
            deny_alike: None,
            approvals: Vec::new(),
            evidence: Vec::new(),
            created: made.now,
            updated: made.now,
            expires,
            window_closes: None,
            halted: None,
            renewals: 0,
            attempt: 0,
            epoch: 0,
            begun: None,
            quiet_for: operation.reconcile.after,
            quiet_after: None,
            resend: Resend::of(operation),
            charges: made.charges,
            answer: None,
            note: None,
            opinion: None,
            collected: None,
            target: target_of(call),
            money: made.money,
            seq: 0,
            frames: Vec::new(),
        }
    }

    /// Distinct people whose votes count.
    #[must_use]
    pub fn people(&self) -> usize {
        let mut people: Vec<&str> = self.approvals.iter().map(|a| a.person.as_str()).collect();
        people.sort_unstable();
        people.dedup();
        people.len()
    }

    /// Whether the votes and the evidence that are here fill these demands.
    #[must_use]
    pub fn meets(&self, needs: &Needs) -> bool {
        let filled = |group: &String| self.approvals.iter().any(|a| a.groups.contains(group));
        let brought = |kind: &String| self.evidence.iter().any(|e| e.kind == *kind);
        self.people() >= needs.people
            && needs.evidence.iter().all(brought)
            && (!needs.justification || self.is_justified())
            && needs
                .requirements
                .iter()
                .all(|r| if r.all { r.groups.iter().all(filled) } else { r.groups.iter().any(filled) })
    }

    /// Whether any vote came with a written justification.
    #[must_use]
    pub fn is_justified(&self) -> bool {
        self.approvals.iter().any(|a| a.justification.as_ref().is_some_and(|j| !j.trim().is_empty()))
    }
}

/// The first attempt and two more.
const ATTEMPTS: u32 = 3;

impl Resend {
    /// What the operation's configuration declares. A header that carries the key says more than `repeatable`.
    #[must_use]
    pub fn of(operation: &Operation) -> Option<Self> {
        let rule = &operation.idempotency;
        let by = match (rule.upstream_header, rule.repeatable) {
            (true, _) => ResendBy::Header,
            (false, true) => ResendBy::Repeatable,
            (false, false) => return None,
        };
        Some(Self { by, attempts: ATTEMPTS })
    }
}

/// The full arguments, to be sealed beside the record; empty when the record shows them whole, since nothing
/// is redacted.
#[must_use]
pub fn arguments_of(call: &Call) -> Bytes {
    if call.operation().redact.is_empty() { Bytes::new() } else { Bytes::from(call.arguments().to_string()) }
}

/// The key of the call that undoes another one: no key of a client has a `~`.
#[must_use]
pub fn undo_key(call: CallId) -> String {
    format!("undo~{call}")
}

/// Digest of the object that it acts on, where its operation says which.
#[must_use]
pub fn target_of(call: &Call) -> Option<Digest> {
    call.operation().target.as_ref().and_then(|p| call.arguments().pointer(p)).map(Digest::of_json)
}

/// A session id is a credential: that there was one is kept, the id is not.
fn kept((name, value): &(String, String)) -> (String, String) {
    let value = if name == "mcp-session-id" { "(own)".to_owned() } else { value.clone() };
    (name.clone(), value)
}

/// The request as it is kept. Redacted arguments never stand in a target: configuration and schema gate refuse that.
#[must_use]
pub fn stored_request(call: &Call) -> StoredRequest {
    let request = call.request();
    StoredRequest {
        target: request.target.clone(),
        content_type: request.content_type.clone(),
        headers: request.headers.iter().map(kept).collect(),
        rpc: request.rpc.as_ref().map(|(id, era)| (id.clone(), *era == Protocol::McpModern)),
        body: None,
        arguments: None,
    }
}
