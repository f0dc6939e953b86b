//! What the API answers about grants, samples, policies, receivers and itself. Descriptions only, as in `answers`.
#![expect(dead_code, reason = "read by the derive that makes schemas of them")]

use schemars::JsonSchema;
use serde_json::Value;

use crate::call::{
    ArtifactId, CallId, Digest, GrantId, GrantOver, HoldId, PauseScope, ReceiptId, Tier, Timestamp, Verdict,
};
use crate::store::State;

use super::Json;

/// Who asks.
#[derive(JsonSchema)]
pub(in crate::admin) struct Me {
    user: String,
    /// The person, after linking accounts.
    person: String,
    groups: Vec<String>,
    email: Option<String>,
    /// A second factor was proven.
    mfa: bool,
    channel: Channel,
    config_digest: Digest,
    policy_digest: Digest,
    /// Since when these are in force.
    since: Timestamp,
    mode: Mode,
    /// Of the program.
    version: String,
    /// What policy lets this person do beside holds.
    may: Vec<String>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Channel {
    Page,
    Api,
    Cli,
}

/// Whether policies rule, or only say what they would.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Enforce,
    Observe,
}

/// How far an agent is trusted with one operation in one workflow.
#[derive(JsonSchema)]
pub(in crate::admin) struct Trust {
    org: String,
    agent: String,
    workflow: String,
    op: String,
    /// 0 to 100; everybody begins with 50.
    score: i64,
    surprises_7d: u64,
    /// Those of seven days, the newest first; at most 20.
    surprises: Vec<Surprised>,
}

#[derive(JsonSchema)]
struct Surprised {
    kind: SurpriseKind,
    /// What it spent.
    points: u64,
    at: Timestamp,
    call: Option<CallId>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
enum SurpriseKind {
    Undone,
    JudgedBad,
    Rejected,
    NearMiss,
    Edited,
}

/// What the kill switch has stopped.
#[derive(JsonSchema)]
pub(in crate::admin) struct Pause {
    scope: PauseScope,
    reason: String,
    /// The person.
    by: String,
    since: Timestamp,
}

/// What was stopped, or goes on.
#[derive(JsonSchema)]
pub(in crate::admin) struct Paused {
    scope: PauseScope,
    /// Why it was stopped.
    reason: String,
    /// Who stopped it.
    by: String,
    since: Timestamp,
    /// False: no configuration names this agent, and no call of it was ever seen here. Check its name.
    known: bool,
    /// False: it was stopped before, and this is that pause.
    changed: bool,
    /// Calls that wait and whose clocks stand still now, or go on.
    waiting: u64,
    /// Its calls that were sent before and whose end is not known yet: nothing takes those back.
    in_flight: u64,
}

/// How one argument may differ, or that it may not.
#[derive(JsonSchema)]
#[schemars(rename = "GivenPin")]
struct Pin {
    /// JSON Pointer.
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    equals: Option<Json>,
    /// An integer from 0 to this.
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    any: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(rename = "GivenSum")]
struct Sum {
    path: String,
    /// The most that it may add up to.
    value: i64,
    /// What it adds up to now.
    sum: Option<i64>,
}

/// Leave for calls like an approved one to pass by themselves.
#[derive(JsonSchema)]
pub(in crate::admin) struct Grant {
    id: GrantId,
    op: String,
    tool: String,
    agent: String,
    on_behalf_of: Option<String>,
    workflow: String,
    title: String,
    pins: Vec<Pin>,
    max_uses: Option<u32>,
    used: u32,
    max_sums: Vec<Sum>,
    created: Timestamp,
    expires: Timestamp,
    from_hold: HoldId,
    by: String,
    channel: String,
    justification: Option<String>,
    /// Those that it lifts.
    policies: Vec<String>,
    state: GrantState,
    ended: Option<Ended>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
enum GrantState {
    Live,
    Ended,
}

#[derive(JsonSchema)]
struct Ended {
    why: GrantOver,
    at: Option<Timestamp>,
    by: Option<String>,
}

/// A call that ran by itself and is looked at afterwards.
#[derive(JsonSchema)]
pub(in crate::admin) struct Sample {
    id: CallId,
    op: String,
    agent: String,
    on_behalf_of: Option<String>,
    workflow: String,
    title: String,
    input: Value,
    policies: Vec<String>,
    grant: Option<GrantId>,
    /// It has a record of its own.
    recorded: bool,
    at: Timestamp,
    state: SampleState,
    verdict: Option<Verdict>,
    reason_code: Option<String>,
    by: Option<String>,
    judged_at: Option<Timestamp>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
enum SampleState {
    Open,
    Judged,
}

/// A tool whose definition nobody has accepted yet.
#[derive(JsonSchema)]
pub(in crate::admin) struct PausedTool {
    operation: String,
    /// Nobody has ever accepted a tool of that name.
    new: bool,
    since: Timestamp,
    changes: Vec<ToolChange>,
    /// What accepts it.
    accept: String,
}

#[derive(JsonSchema)]
struct ToolChange {
    member: String,
    was: String,
    is: String,
}

/// The policies in force.
#[derive(JsonSchema)]
pub(in crate::admin) struct Policies {
    policy_digest: Digest,
    config_digest: Digest,
    since: Timestamp,
    mode: Mode,
    /// How many files they came from.
    files: u64,
    items: Vec<Policy>,
    next: (),
}

#[derive(JsonSchema)]
struct Policy {
    id: String,
    effect: Effect,
    /// `nobody`, `one approval`, `two people`; empty for a permit.
    lifted_by: String,
    /// Whom it is about: `agents` or `people`.
    plane: String,
    /// `file:line`
    at: String,
    reason: String,
    mode: PolicyMode,
    /// Calls that it decided since the process started.
    hits: u64,
    /// Calls since the process started.
    would_have_tightened: u64,
    would_have_loosened: u64,
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Effect {
    Permit,
    Forbid,
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
enum PolicyMode {
    Enforce,
    Shadow,
}

/// A receiver of notifications.
#[derive(JsonSchema)]
pub(in crate::admin) struct Receiver {
    name: String,
    /// Scheme and host.
    to: String,
    events: Vec<String>,
    records_behind: u64,
    waiting: Vec<Waiting>,
    dead: Vec<Dead>,
}

/// An event that is tried again.
#[derive(JsonSchema)]
struct Waiting {
    id: Option<String>,
    r#type: Option<String>,
    attempts: u32,
    why: Option<String>,
    due: Timestamp,
}

/// An event that was given up.
#[derive(JsonSchema)]
struct Dead {
    id: Option<String>,
    r#type: Option<String>,
    attempts: u32,
    why: Option<String>,
    since: Timestamp,
}

#[derive(JsonSchema)]
pub(in crate::admin) struct Replayed {
    /// How many events are sent again.
    replayed: u64,
}

/// Records of the journal.
#[derive(JsonSchema)]
pub(in crate::admin) struct AuditLog {
    items: Vec<AuditRecord>,
    next: Option<String>,
    /// The first record that is still there.
    first: u64,
    newest: u64,
    /// How many the newest signed checkpoint covers.
    signed: u64,
}

/// One record of the journal.
#[derive(JsonSchema)]
struct AuditRecord {
    /// No gaps.
    seq: u64,
    at: Timestamp,
    /// Its chain hash.
    hash: Digest,
    kind: String,
    call: Option<CallId>,
    op: Option<String>,
    who: Option<String>,
    code: Option<String>,
}

/// Runs of one name.
#[derive(JsonSchema)]
pub(in crate::admin) struct Runs {
    id: String,
    /// One for each caller.
    items: Vec<Run>,
}

#[derive(JsonSchema)]
struct Run {
    agent: String,
    org: String,
    on_behalf_of: Option<String>,
    workflow: String,
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    /// All of its calls are here.
    complete: bool,
    /// Money that was moved.
    cost: Vec<Cost>,
}

#[derive(JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Node {
    /// As the agent named it.
    Step {
        id: String,
        title: String,
    },
    Call {
        id: CallId,
        title: String,
        op: String,
        state: State,
        tier: Tier,
        at: Timestamp,
        hold: Option<HoldId>,
        approved_by: Vec<String>,
    },
    Evidence {
        id: ArtifactId,
        title: String,
        evidence_kind: String,
        by: String,
    },
}

#[derive(JsonSchema)]
struct Edge {
    from: String,
    to: String,
    kind: EdgeKind,
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
enum EdgeKind {
    /// A step, and a call in it.
    Contains,
    /// The call before, and the next one.
    Next,
    /// Evidence, and its call.
    Supports,
    /// A call, and the one that it takes back.
    Undoes,
}

#[derive(JsonSchema)]
struct Cost {
    minor: i64,
    currency: String,
}

/// The process is about to end.
#[derive(JsonSchema)]
pub(in crate::admin) struct Draining {
    draining: bool,
    /// Seconds that calls under way have.
    drain_s: u64,
}

/// Whether calls flow to a tool.
#[derive(JsonSchema)]
pub(in crate::admin) struct Breaker {
    tool: String,
    state: BreakerWord,
    /// In a row, while it is closed.
    failures: u32,
    /// Seconds until one call is tried, while it is open.
    retry_after_s: Option<u64>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
enum BreakerWord {
    Closed,
    Open,
    HalfOpen,
}

/// One budget of one owner.
#[derive(JsonSchema)]
pub(in crate::admin) struct Budget {
    #[schemars(pattern(r"^bud_[0-9a-f]{32}$"))]
    id: String,
    scope: BudgetScope,
    owner: String,
    /// `calls`, or a currency.
    unit: String,
    /// When its window began.
    since: Option<Timestamp>,
    /// When it is over.
    ends: Option<Timestamp>,
    used: i64,
    /// Set aside for calls that are under way.
    reserved: i64,
    /// As configured.
    limit: i64,
    /// What people have added to it.
    extra: i64,
    /// Of both.
    used_pct: i64,
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
enum BudgetScope {
    Step,
    Run,
    User,
    Org,
}

/// What was decided and done.
#[derive(JsonSchema)]
pub(in crate::admin) struct Receipt {
    id: ReceiptId,
    call: CallId,
    state: State,
    op: String,
    title: String,
    /// What was approved.
    digest: Digest,
    policies: Vec<String>,
    policy_digest: Digest,
    config_digest: Digest,
    grant: Option<GrantId>,
    approvals: Vec<super::answers::Approval>,
    answer: Option<super::answers::UpstreamAnswer>,
    ended: Timestamp,
    /// The records that say so, oldest first.
    records: Vec<ReceiptRecord>,
}

#[derive(JsonSchema)]
struct ReceiptRecord {
    seq: u64,
    at: Timestamp,
    kind: String,
    /// Its chain hash.
    hash: Digest,
    /// The newest signed checkpoint covers it.
    signed: bool,
}
