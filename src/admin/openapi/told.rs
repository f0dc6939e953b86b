//! What the API answers to policy authors. Descriptions only, as in `answers`; the terminal's `--json` has the same members.
#![expect(dead_code, reason = "read by the derive that makes schemas of them")]

use std::collections::BTreeMap;

use schemars::JsonSchema;

use crate::call::{CallId, Digest, Timestamp};

use super::Json;

/// What is wrong with a set of policies, or with the files as they are now.
#[derive(JsonSchema)]
pub(in crate::admin) struct PolicyCheck {
    /// Of this form.
    version: u32,
    /// All of it could be put in force.
    accepted: bool,
    /// The same, as `holdpoint check --json` says it.
    ok: bool,
    /// Mistakes in the configuration, a line each; then policies are not looked at.
    config: Vec<String>,
    schemas: SchemasChecked,
    /// The set, when it loads.
    policies: Option<PoliciesChecked>,
    /// Forbids that no approval lifts.
    nobody_can_release: Vec<String>,
    /// Policies that are asked beside the others and never enforced.
    shadow: Vec<String>,
    /// At most 1,000, the worst first.
    findings: Vec<Finding>,
    /// How many findings there are of each kind.
    found: FindingsCounted,
}

#[derive(JsonSchema)]
struct SchemasChecked {
    /// Operations with a schema.
    typed: u64,
    errors: Vec<String>,
}

#[derive(JsonSchema)]
struct PoliciesChecked {
    count: u64,
    files: u64,
    /// As it would stand in records.
    digest: Digest,
    tiers: TiersCounted,
}

/// Policies by what they do.
#[derive(JsonSchema)]
struct TiersCounted {
    low: u64,
    medium: u64,
    high: u64,
    nobody: u64,
    admin: u64,
    shadow: u64,
}

#[derive(JsonSchema)]
struct Finding {
    severity: Severity,
    /// Stable.
    code: String,
    message: String,
    help: Option<String>,
    /// Its name in `files`, or below the folder of policies.
    file: Option<String>,
    /// From 1; 0 without a file.
    line: u64,
    /// In characters, from 1; 0 without a file.
    column: u64,
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Severity {
    Error,
    Warning,
    Note,
}

#[derive(JsonSchema)]
struct FindingsCounted {
    errors: u64,
    warnings: u64,
    notes: u64,
}

/// What policy says of a call.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
enum JudgedTier {
    Low,
    Medium,
    High,
    Deny,
}

/// Why policy judges a call as it does.
#[derive(JsonSchema)]
pub(in crate::admin) struct Explanation {
    /// Of this form.
    version: u32,
    /// Of the policies that were asked: those in force.
    policy_digest: Digest,
    operation: String,
    agent: String,
    workflow: String,
    stage: String,
    tier: JudgedTier,
    /// The policies that decide.
    because: Vec<String>,
    rungs: Vec<Rung>,
    /// Every policy that can apply to the operation.
    policies: Vec<PolicyLooked>,
    /// What lifts it.
    needs: Option<WantedApproval>,
    degrade: Option<String>,
    closest: Vec<Closest>,
    /// How it was judged when it was made, where it was.
    recorded: Option<RecordedThen>,
}

/// Policy's answer with so much approval.
#[derive(JsonSchema)]
struct Rung {
    tier: JudgedTier,
    allowed: bool,
    policies: Vec<String>,
    /// Policies that cannot be evaluated; then the call is refused.
    broken: Vec<String>,
}

#[derive(JsonSchema)]
struct PolicyLooked {
    policy: String,
    /// `file:line`
    at: String,
    forbid: bool,
    how: How,
    /// What settled it, with the values found.
    conditions: Vec<String>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
enum How {
    Matched,
    NotMatched,
    Broken,
}

#[derive(JsonSchema)]
struct WantedApproval {
    people: u64,
    requirements: Vec<WantedGroups>,
    justification: bool,
    evidence: Vec<String>,
}

#[derive(JsonSchema)]
struct WantedGroups {
    policy: String,
    groups: Vec<String>,
    /// Each of them, or any.
    all: bool,
}

/// A single change after which the call would be judged otherwise.
#[derive(JsonSchema)]
struct Closest {
    tier: JudgedTier,
    member: String,
    /// `null`: without the member.
    value: Option<Json>,
}

#[derive(JsonSchema)]
struct RecordedThen {
    call: CallId,
    at: Timestamp,
    tier: JudgedTier,
    /// What became of it.
    state: String,
    /// The policies that were asked now are those that judged it then.
    same_policies: bool,
    /// What was known then is recorded; else nothing was spent or done before.
    facts: bool,
}

/// Recorded calls, judged by other policies.
#[derive(JsonSchema)]
pub(in crate::admin) struct PolicyReplay {
    /// Of this form.
    version: u32,
    /// Those in force.
    now: Digest,
    /// The others.
    next: Digest,
    /// From when on.
    since: Timestamp,
    /// How many were asked about.
    calls: u64,
    seconds: f64,
    unchanged: u64,
    /// How many would be judged otherwise.
    changed: u64,
    /// Of which kinds, those that loosen first; at most 1,000.
    moves: Vec<Move>,
    /// Which, at most 200: those that loosen first, and of them what people had refused.
    moved: Vec<Moved>,
    reviews_a_day: ReviewLoad,
    not_asked: Vec<NotAsked>,
    /// Asked without what was known then.
    without_facts: u64,
    /// The policies in force say something else than was said then.
    judged_otherwise_then: u64,
}

#[derive(JsonSchema)]
struct Move {
    now: JudgedTier,
    next: JudgedTier,
    policies: Vec<String>,
    calls: u64,
    loosens: bool,
}

#[derive(JsonSchema)]
struct Moved {
    call: CallId,
    at: Timestamp,
    operation: String,
    /// Empty where the person may not see the call.
    title: String,
    state: String,
    now: JudgedTier,
    next: JudgedTier,
    policies: Vec<String>,
    loosens: bool,
}

#[derive(JsonSchema)]
struct ReviewLoad {
    now: f64,
    next: f64,
    by_group: ReviewsByGroup,
}

#[derive(JsonSchema)]
struct ReviewsByGroup {
    now: BTreeMap<String, f64>,
    next: BTreeMap<String, f64>,
}

#[derive(JsonSchema)]
struct NotAsked {
    why: String,
    calls: u64,
}
