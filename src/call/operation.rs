//! Tools and their operations as configured: what a call may be of.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::method::Role;
use super::{Digest, EvidenceRule, PreviewRule, UndoRule};

/// The protocol of a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolKind {
    /// Plain HTTP operations, matched by method and path.
    Rest,
    /// An MCP server over Streamable HTTP.
    Mcp,
}

impl ToolKind {
    /// `rest` or `mcp`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Mcp => "mcp",
        }
    }
}

/// One upstream API or MCP server as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Its name in the configuration; Cedar's `Tool::"…"`.
    pub name: String,
    /// REST or MCP.
    pub kind: ToolKind,
    /// `prod`, `staging` or `dev`.
    pub env: String,
    /// The team that owns it.
    pub owner: String,
    /// Classes of data behind it.
    pub data_classes: Vec<String>,
    /// Path segments under which agents reach it.
    pub mount: Vec<String>,
    /// Origin and base path of its upstream, without credentials: for records and pages.
    pub upstream: String,
    /// Request headers that are passed on beside the allow-list, lower case.
    pub forward_headers: Vec<String>,
    /// The client's own credential goes upstream (`auth: pass_through`); such calls are `release: collect`.
    pub pass_through: bool,
}

/// What an operation does to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Effects {
    /// Reads only.
    pub read: bool,
    /// Changes something.
    pub write: bool,
    /// Moves money.
    pub money: bool,
    /// Cannot be undone.
    pub irreversible: bool,
}

impl Effects {
    /// Whether a call leaves the world as it was: such calls need no claim.
    #[must_use]
    pub const fn is_read(self) -> bool {
        self.read && !self.write && !self.money && !self.irreversible
    }

    /// The names that the configuration uses.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        [(self.read, "read"), (self.write, "write"), (self.money, "money"), (self.irreversible, "irreversible")]
            .into_iter()
            .filter_map(|(set, name)| set.then_some(name))
            .collect()
    }
}

/// Who sends an approved call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    /// The proxy, once, right after the last vote.
    Approval,
    /// The proxy, when the client comes back with its own live credential.
    Collect,
}

/// How a held REST call is answered without `Prefer: respond-async`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldAs {
    /// 409 `held`.
    Conflict,
    /// 202 with `Location`.
    Accepted,
}

/// What happens to a call without an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// Refused: `key_required`.
    Require,
    /// A key is derived from fingerprint, run and step, within `window`.
    Derive,
    /// It has none.
    None,
}

/// How calls of an operation are recognized as the same call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRule {
    /// JSON Pointer into the arguments where the key stands, when no header gives one.
    pub pointer: Option<String>,
    /// Without any key.
    pub otherwise: Otherwise,
    /// How long a derived key lives.
    pub window: Duration,
    /// How long an answer is kept for replay.
    pub keep: Duration,
    /// The key is sent upstream in `Idempotency-Key`, which the upstream honours.
    pub upstream_header: bool,
    /// The operation may be repeated without harm.
    pub repeatable: bool,
}

/// What a call costs, known before it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cost {
    /// Fixed number of calls charged, 1 unless configured.
    pub calls: i64,
    /// Fixed price in minor units and its currency.
    pub money: Option<(i64, String)>,
    /// Pointers into the arguments: amount in minor units, and its currency.
    pub amount: Option<(String, String)>,
}

/// How long after a begin a request may still be on the wire, unless configured.
pub const QUIET: Duration = Duration::from_secs(600);

/// How an unknown outcome is cleared up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReconcileRule {
    /// Before this much time has passed since the begin, nobody can know that it was not executed.
    pub after: Duration,
    /// The read that tells whether it was executed.
    pub read: Option<ProbeRule>,
}

/// A request that finds something out about one call, and changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRule {
    /// As it stands in the configuration: `GET /refunds?key=:key`.
    pub text: String,
    /// Its method: `GET`, but for a dry run.
    pub method: String,
    /// Its path segments below the upstream's base.
    pub path: Vec<Part>,
    /// Its query.
    pub query: Vec<(String, Part)>,
}

/// A read that finds out whether one call was executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeRule {
    /// The read.
    pub read: ReadRule,
    /// JSON Pointer into the answer: what stands there once the call was executed.
    pub found: String,
}

/// A piece of a read's target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As it stands.
    Text(String),
    /// `:key`: the key that the upstream was told.
    Key,
    /// `:call`: the id of the call, where that is the key.
    Call,
    /// `:name`: a top-level argument.
    Argument(String),
}

/// Bounds on one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Request body, bytes.
    pub body: usize,
    /// Answer, bytes.
    pub answer: usize,
    /// From sending to the end of the answer; for a stream that is listened to, to its beginning.
    pub deadline: Duration,
    /// An answer that stays silent for this long is taken for dead.
    pub idle: Duration,
}

/// How long an answer may stay silent, unless it is a stream that is listened to.
pub const IDLE: Duration = Duration::from_secs(120);

/// One thing that a tool can do.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// `crm.refund`, or `tickets:resources/read` for an MCP method that is not a tool.
    pub name: String,
    /// The part after the tool's name.
    pub short: String,
    /// Its tool.
    pub tool: Arc<Tool>,
    /// How it comes to pass policy.
    pub role: Role,
    /// What it does to the world.
    pub effects: Effects,
    /// Further action groups from the configuration.
    pub groups: Vec<String>,
    /// Who sends it once approved.
    pub release: Release,
    /// How a held REST call is answered.
    pub held_as: HeldAs,
    /// How repeats are recognized.
    pub idempotency: IdempotencyRule,
    /// How an unknown outcome is cleared up.
    pub reconcile: ReconcileRule,
    /// How its effect is foreseen.
    pub preview: Option<PreviewRule>,
    /// Evidence that the proxy fetches by itself when a call is held.
    pub evidence: Vec<EvidenceRule>,
    /// How a call is taken back once it was executed.
    pub undo: Option<UndoRule>,
    /// How long a call waits before it is sent, so that it can still be taken back.
    pub delay: Option<Duration>,
    /// What it costs.
    pub cost: Cost,
    /// Bounds.
    pub limits: Limits,
    /// JSON Pointer to the object that it acts on, for `history.firstTimeTarget`.
    pub target: Option<String>,
    /// JSON Pointers to arguments that no record, log or page may show.
    pub redact: Vec<String>,
    /// Title template for people: `Refund {amountMinor|money:currency} on order {orderId}`.
    pub title: Option<String>,
    /// Upstream statuses that mean "not now, nothing happened".
    pub not_now: Vec<u16>,
    /// The JSON Schema of its arguments; none means: it takes no arguments but its path parameters.
    pub schema: Option<Arc<Value>>,
    /// Digest of that schema.
    pub schema_digest: Digest,
    /// Method and path template of its requests, `POST` and `/orders/{orderId}/refunds` (REST).
    pub route: Option<(String, String)>,
    /// Names of its path parameters, in order (REST).
    pub path_params: Vec<String>,
}
