//! What the API answers about holds and calls. Descriptions only: nothing is built from these types; `tests/it` and the tests of this room hold
//! every answer that they get against them, member by member.
#![expect(dead_code, reason = "read by the derive that makes schemas of them")]

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde_json::Value;

use crate::call::{
    ArtifactId, CallId, Certainty, Change, Digest, Facts, GrantId, HoldId, ReceiptId, Tier, Timestamp, Why, Would,
};
use crate::store::State;

use super::{Grant, Included, Json};

/// A refusal (RFC 9457).
#[derive(JsonSchema)]
#[schemars(rename = "Problem", extend("additionalProperties" = true))]
pub(super) struct ProblemDocument {
    /// `https://holdpoint.dev/problems/<code>`
    r#type: String,
    title: String,
    status: u16,
    /// What is wrong, and what would help.
    detail: String,
    /// Stable.
    code: String,
    /// Of the record, now.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    /// Of the record, now.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    /// Of the record, now.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    /// Policies that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    policies: Option<Vec<PolicyReason>>,
    /// Seconds after which to come again.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_s: Option<u64>,
    /// Kinds of evidence that are missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<Vec<String>>,
    /// Who has it in hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed_by: Option<String>,
    /// Until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed_until: Option<Timestamp>,
    /// Holds that must be opened first.
    #[serde(skip_serializing_if = "Option::is_none")]
    open: Option<Vec<HoldId>>,
}

/// A policy that decided.
#[derive(JsonSchema)]
struct PolicyReason {
    id: String,
    reason: String,
}

/// A list.
#[derive(JsonSchema)]
#[schemars(rename = "{T}List")]
pub(in crate::admin) struct List<T> {
    items: Vec<T>,
    /// For `cursor`; absent behind the last line.
    next: Option<String>,
}

/// A list that is always whole.
#[derive(JsonSchema)]
#[schemars(rename = "All{T}")]
pub(in crate::admin) struct All<T> {
    items: Vec<T>,
    next: (),
}

#[derive(JsonSchema)]
struct Times {
    created: Timestamp,
    updated: Timestamp,
    /// When it should have been looked at.
    sla: Option<Timestamp>,
    /// After this no vote counts.
    expires: Option<Timestamp>,
    /// Seconds from the last vote in which it may be sent.
    window_s: Option<u64>,
    window_closes: Option<Timestamp>,
    /// The kill switch has stopped it: its clocks stand still since then, and what they miss is added to its ends.
    stopped_since: Option<Timestamp>,
}

#[derive(JsonSchema)]
struct Caller {
    agent: String,
    agent_groups: Vec<String>,
    org: String,
    owner: Option<String>,
    operator: Option<String>,
    on_behalf_of: Option<String>,
    workflow: String,
    stage: String,
    run: String,
    step: Option<String>,
    source_ip: Option<String>,
}

#[derive(JsonSchema)]
struct CallSummary {
    op: String,
    tool: String,
    effects: Vec<String>,
}

#[derive(JsonSchema)]
pub(super) struct Money {
    /// In minor units.
    minor: i64,
    /// ISO 4217.
    currency: String,
}

#[derive(JsonSchema)]
struct BudgetUse {
    scope: String,
    used_pct: i64,
}

#[derive(JsonSchema)]
struct Impact {
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<Money>,
    budgets: Vec<BudgetUse>,
}

/// What is still needed.
#[derive(JsonSchema)]
struct Needs {
    people: u64,
    people_have: u64,
    justification: bool,
    groups: Vec<Place>,
}

/// A person of one of these groups.
#[derive(JsonSchema)]
struct Place {
    any_of: Vec<String>,
    filled_by: Option<String>,
}

/// What the asking person may do with it now, and why not the rest.
#[derive(JsonSchema)]
struct Allowed {
    can: Vec<String>,
    cannot: BTreeMap<String, String>,
    /// Groups that this person's vote can fill.
    groups: Vec<String>,
}

/// What every view of a hold or call begins with.
#[derive(JsonSchema)]
struct Head {
    /// `hold_…` of what was held, else `call_…`.
    id: String,
    call_id: CallId,
    version: u64,
    state: State,
    tier: Tier,
    title: String,
    /// What a decision must carry.
    digest: Digest,
    /// The digest's beginning, for people to compare.
    code: String,
    times: Times,
    who: Caller,
    impact: Impact,
    /// `null` for what was never held.
    needs: Option<Needs>,
    /// Who has it in hand.
    claim: Option<Claim>,
    me: Allowed,
}

/// A hold or call as a line of a list.
#[derive(JsonSchema)]
pub(in crate::admin) struct Summary {
    #[serde(flatten)]
    head: Head,
    call: CallSummary,
}

/// One of a group.
#[derive(JsonSchema)]
pub(in crate::admin) struct Member {
    #[serde(flatten)]
    summary: Summary,
    /// What is odd about it: such are opened first.
    odd: Vec<String>,
    /// The asking person has opened it as it is.
    opened: bool,
}

/// Alike holds, the odd ones first.
#[derive(JsonSchema)]
pub(in crate::admin) struct Cluster {
    id: String,
    items: Vec<Member>,
}

/// What goes out, byte for byte, but for what is redacted.
#[derive(JsonSchema)]
pub(super) struct Sent {
    method: String,
    url: String,
    content_type: Option<String>,
    headers: Vec<(String, String)>,
    body_bytes: u64,
    body_sha256: Option<Digest>,
    /// JSON Pointers of arguments that nobody is shown.
    redacted: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    /// Why it is not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_withheld: Option<String>,
}

#[derive(JsonSchema)]
struct CallDetail {
    op: String,
    tool: String,
    kind: Option<String>,
    effects: Vec<String>,
    input: Value,
    request: Sent,
    idempotency_key: Option<String>,
    key_derived: bool,
    attempt: u32,
    schema_digest: Digest,
}

/// What it will change, as far as it is known.
#[derive(JsonSchema)]
struct Foreseen {
    certainty: Certainty,
    why: Option<String>,
    before: Option<Before>,
    patch: Option<Vec<Change>>,
    unchanged: Option<u64>,
    /// What moved since it was read first.
    moved: Option<Vec<Change>>,
}

#[derive(JsonSchema)]
struct Before {
    target: String,
    read_at: Timestamp,
    fence: Option<String>,
    sha256: Option<Digest>,
    state: Json,
}

#[derive(JsonSchema)]
struct EvidenceList {
    required: Vec<String>,
    missing: Vec<String>,
    items: Vec<EvidenceItem>,
    /// What the proxy was to fetch by itself, and why it is not there.
    unfetched: Vec<Unfetched>,
}

#[derive(JsonSchema)]
struct Unfetched {
    kind: String,
    /// The operation that was asked.
    call: String,
    why: String,
}

#[derive(JsonSchema)]
struct EvidenceItem {
    id: ArtifactId,
    kind: String,
    title: String,
    by: String,
    /// The proxy fetched it itself.
    verified: bool,
    bytes: u64,
    sha256: Digest,
    at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_base64: Option<String>,
}

#[derive(JsonSchema)]
struct Doubt {
    code: String,
    level: String,
    text: String,
}

/// What the agent says of itself. Nobody has verified it.
#[derive(JsonSchema)]
struct Claims {
    intent: Option<String>,
    confidence: Option<f64>,
}

#[derive(JsonSchema)]
struct Undo {
    /// By which it can be taken back.
    operation: Option<String>,
    within_s: Option<u64>,
    until: Option<Timestamp>,
    /// What that changes.
    diff: Option<Vec<Change>>,
    by: Option<UndoBy>,
    of: Option<UndoOf>,
    delay_s: Option<u64>,
    not_before: Option<Timestamp>,
}

/// The call that took it back.
#[derive(JsonSchema)]
struct UndoBy {
    call: CallId,
    state: State,
}

/// The call that this one takes back.
#[derive(JsonSchema)]
struct UndoOf {
    call: CallId,
    by: String,
    reason: String,
}

#[derive(JsonSchema)]
pub(super) struct Alike {
    /// While it is held on the medium tier: those that can be decided together.
    cluster: Option<String>,
    /// What people said in the last 30 days of calls of the same caller, operation and workflow.
    d30: Decisions,
    last_rejected: Option<LastRejected>,
}

#[derive(JsonSchema)]
struct Decisions {
    approved: u64,
    rejected: u64,
    /// Approved once they were changed.
    edited: u64,
    /// How long they waited for the last word.
    median_s: Option<u64>,
}

#[derive(JsonSchema)]
struct LastRejected {
    hold: HoldId,
    reason_code: String,
    by: String,
    at: Timestamp,
}

/// What reviewers changed.
#[derive(JsonSchema)]
struct Edited {
    asked_for: AskedFor,
    changes: Vec<Change>,
    edits: Vec<Edit>,
}

#[derive(JsonSchema)]
struct AskedFor {
    input: Value,
    digest: Digest,
}

#[derive(JsonSchema)]
struct Edit {
    by: String,
    at: Timestamp,
    note: String,
    changes: Vec<Change>,
}

#[derive(JsonSchema)]
pub(super) struct Approval {
    by: String,
    groups: Vec<String>,
    at: Timestamp,
    channel: String,
    digest: Digest,
    justification: Option<String>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ReleasedBy {
    /// The proxy sends it after the last vote.
    Approval,
    /// The client's return does.
    Collect,
}

/// Why it ended as it did, or what it waits for.
#[derive(JsonSchema)]
struct Note {
    code: String,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
}

/// What one person says became of an unknown call.
#[derive(JsonSchema)]
struct Opinion {
    person: String,
    outcome: State,
    reason: String,
    at: Timestamp,
}

#[derive(JsonSchema)]
pub(super) struct UpstreamAnswer {
    status: u16,
    bytes: u64,
    sha256: Digest,
}

#[derive(JsonSchema)]
struct Links {
    /// The page of it (`reviews.url`).
    #[serde(skip_serializing_if = "Option::is_none")]
    html: Option<String>,
}

/// Everything about one hold or call.
#[derive(JsonSchema)]
pub(in crate::admin) struct Record {
    #[serde(flatten)]
    head: Head,
    call: CallDetail,
    /// Policies that allowed or held it.
    policies: Vec<String>,
    /// The grant by which it passed.
    grant: Option<GrantId>,
    /// What was known when policy was asked first.
    facts: Option<Facts>,
    /// What policy would have said where it does not rule.
    would: Vec<Would>,
    /// Why people are asked.
    why: Option<Vec<Why>>,
    policy_digest: Digest,
    config_digest: Digest,
    change: Option<Foreseen>,
    evidence: EvidenceList,
    uncertainty: Vec<Doubt>,
    claims: Claims,
    undo: Undo,
    alike: Alike,
    edited: Option<Edited>,
    approvals: Vec<Approval>,
    /// How often it returned to `held` because something moved.
    renewals: u32,
    /// Once it has ended.
    receipt: Option<ReceiptId>,
    release: ReleasedBy,
    note: Option<Note>,
    /// Until then calls like it are refused: so said who rejected it.
    deny_alike_until: Option<Timestamp>,
    #[serde(flatten)]
    talk: Talk,
    opinion: Option<Opinion>,
    /// Before this nobody can know that it had no effect.
    quiet_at: Option<Timestamp>,
    answer: Option<UpstreamAnswer>,
    links: Links,
    #[serde(flatten)]
    included: Included,
}

/// One person has it in hand.
#[derive(JsonSchema)]
struct Claim {
    by: String,
    at: Timestamp,
    until: Timestamp,
}

/// What one reviewer said to the others.
#[derive(JsonSchema)]
pub(in crate::admin) struct Comment {
    by: String,
    at: Timestamp,
    text: String,
}

/// What a reviewer wants to see. The agent is told.
#[derive(JsonSchema)]
struct EvidenceRequest {
    by: String,
    at: Timestamp,
    kinds: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// It was brought before others: by a person, or by the clock.
#[derive(JsonSchema)]
struct Escalation {
    to: String,
    at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    /// The rung of `reviews.escalate`, as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// What people did about it beside deciding.
#[derive(JsonSchema)]
struct Talk {
    escalation: Vec<Escalation>,
    evidence_requests: Vec<EvidenceRequest>,
    comments: Vec<Comment>,
}

/// A hold after something was done about it that decides nothing.
#[derive(JsonSchema)]
pub(in crate::admin) struct Handled {
    state: State,
    version: u64,
    /// While it is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    needs: Option<Needs>,
    claim: Option<Claim>,
    #[serde(flatten)]
    talk: Talk,
}

/// What a decision made of it.
#[derive(JsonSchema)]
pub(in crate::admin) struct Decided {
    state: State,
    version: u64,
    /// While it is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    needs: Option<Needs>,
    /// The one that was given with an approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<Grant>,
}

/// The call that takes another one back.
#[derive(JsonSchema)]
pub(in crate::admin) struct Undone {
    state: State,
    version: u64,
    /// While it is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    needs: Option<Needs>,
    call: CallId,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<HoldId>,
}

/// What became of each hold of a batch.
#[derive(JsonSchema)]
pub(in crate::admin) struct BatchDone {
    items: Vec<BatchItem>,
}

#[derive(JsonSchema)]
struct BatchItem {
    id: HoldId,
    /// As a decision on this hold alone would have answered.
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}
