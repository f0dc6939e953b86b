//! The part of the file that is about tools and their operations, as written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::file::{FileRef, SecretRef};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Rest,
    Mcp,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Tool {
    /// `rest` or `mcp`.
    pub(super) kind: Kind,
    /// Owning team.
    pub(super) owner: String,
    /// `prod`, `staging` or `dev`.
    pub(super) env: Option<String>,
    /// Classes of data behind it.
    #[serde(default)]
    pub(super) data_classes: Vec<String>,
    /// Path under which agents reach it, such as `/crm`.
    pub(super) mount: String,
    /// The server behind it.
    pub(super) upstream: Upstream,
    /// When to stop calling a failing upstream.
    pub(super) breaker: Option<Breaker>,
    /// What happens to requests that no operation matches; only `deny` exists.
    #[expect(dead_code, reason = "`deny` is the only value; the key lets a file say so")]
    pub(super) unlisted: Option<Unlisted>,
    /// MCP: the lock file with the accepted tool definitions.
    pub(super) lock: Option<PathBuf>,
    /// Its operations by name; for MCP a name may end in `*`.
    #[serde(default)]
    pub(super) operations: BTreeMap<String, Operation>,
    /// MCP: the server's annotations are true. Its tools are in the action groups `hint:read-only`, `hint:destructive`,
    /// `hint:idempotent` and `hint:open-world` then, as they say or as the specification says for what they leave out.
    #[serde(default)]
    pub(super) trust_annotations: bool,
    /// MCP: what methods beside `tools/call` do, where it is not what the specification says, and further methods that
    /// policy may let through.
    #[serde(default)]
    pub(super) methods: BTreeMap<String, Method>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Method {
    /// What it does to the world.
    pub(super) effect: OneOrMany,
    /// Further action groups that policies may name.
    #[serde(default)]
    pub(super) groups: Vec<String>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unlisted {
    Deny,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Upstream {
    /// `http://` or `https://`, with a base path. This or `command`.
    pub(super) url: Option<String>,
    /// MCP: a server that speaks over its standard input and output, as program and arguments. This or `url`.
    pub(super) command: Option<Vec<String>>,
    /// Environment of `command` beside `PATH`, `HOME` and the like; nothing else is inherited.
    #[serde(default)]
    pub(super) env: BTreeMap<String, EnvValue>,
    /// Folder that `command` runs in, relative to this file; this file's by default.
    pub(super) cwd: Option<PathBuf>,
    /// Deadline of a call, `30s` by default.
    pub(super) timeout: Option<String>,
    /// Credential put in by the proxy, or `pass_through`.
    pub(super) auth: Option<Auth>,
    /// Further request headers that go upstream.
    #[serde(default)]
    pub(super) forward_headers: Vec<String>,
    /// Authority for `https`, PEM; the system's when absent.
    pub(super) ca: Option<FileRef>,
}

/// A value for a command's environment: `{ env: NAME }`, `{ file: PATH }`, or `{ value: TEXT }` when it is no secret.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EnvValue {
    /// Name of an environment variable.
    pub(super) env: Option<String>,
    /// Path of a file, relative to this file; one trailing line end is left out.
    pub(super) file: Option<PathBuf>,
    /// The text itself.
    pub(super) value: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Auth {
    /// `Authorization: Bearer <secret>`.
    Bearer(SecretRef),
    /// Any header.
    Header {
        /// Its name.
        name: String,
        /// Its value.
        value: SecretRef,
    },
    /// The client's own `Authorization` goes upstream.
    PassThrough,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Breaker {
    /// Consecutive failures that open it.
    pub(super) failures: u32,
    /// Within this time.
    pub(super) within: Option<String>,
    /// How long it stays open before one probe.
    pub(super) retry_after: Option<String>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(Effect),
    Many(Vec<Effect>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Effect {
    Read,
    Write,
    Money,
    Irreversible,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Operation {
    /// REST: `POST /orders/:orderId/refunds`.
    #[serde(rename = "match")]
    pub(super) matches: Option<String>,
    /// What it does to the world.
    pub(super) effect: OneOrMany,
    /// JSON Schema file of its arguments (REST).
    pub(super) schema: Option<PathBuf>,
    /// Further action groups that policies may name.
    #[serde(default)]
    pub(super) groups: Vec<String>,
    /// Who sends an approved call.
    pub(super) release: Option<Release>,
    /// How a held REST call is answered.
    pub(super) held_as: Option<HeldAs>,
    /// How repeats are recognized.
    pub(super) idempotency: Option<Idempotency>,
    /// How an unknown outcome is cleared up.
    pub(super) reconcile: Option<Reconcile>,
    /// How its effect is foreseen, for those who must approve it.
    pub(super) preview: Option<Preview>,
    /// Evidence that the proxy fetches by itself when a call is held, by kind.
    #[serde(default)]
    pub(super) evidence: BTreeMap<String, Evidence>,
    /// How a call is taken back once it was executed.
    pub(super) undo: Option<Undo>,
    /// A call waits for so long before it is sent, and can be taken back until then.
    pub(super) delay: Option<String>,
    /// What a call costs.
    pub(super) cost: Option<Cost>,
    /// JSON Pointer to the object it acts on.
    pub(super) target: Option<String>,
    /// JSON Pointers that no record, log or page may show.
    #[serde(default)]
    pub(super) redact: Vec<String>,
    /// Title for people.
    pub(super) title: Option<String>,
    /// Bounds.
    pub(super) limits: Option<Limits>,
    /// Upstream statuses that mean "not now, nothing happened".
    #[serde(default)]
    pub(super) not_now: Vec<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Release {
    Approval,
    Collect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum HeldAs {
    Conflict,
    Accepted,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Idempotency {
    /// The header that carries the key; only `Idempotency-Key`.
    pub(super) header: Option<String>,
    /// JSON Pointer into the arguments where the key stands.
    pub(super) pointer: Option<String>,
    /// Without a key.
    pub(super) otherwise: Option<Otherwise>,
    /// Life of a derived key, `2m` by default.
    pub(super) window: Option<String>,
    /// How long an answer is kept for replay, `24h` by default.
    pub(super) keep: Option<String>,
    /// `header`: the upstream honours `Idempotency-Key`. It gets the client's key, else the call's id, and the same on
    /// each attempt: a call whose answer was lost may be sent again.
    pub(super) upstream: Option<UpstreamKey>,
    /// The operation may be repeated without harm: a call whose answer was lost may be sent again.
    #[serde(default)]
    pub(super) repeatable: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reconcile {
    /// REST: the read that tells whether one call was executed, such as `GET /refunds?key=:key`. `:key` is the key that
    /// the upstream was told, `:call` the call's id where that is the key, any other name a top-level argument.
    pub(super) read: Option<String>,
    /// JSON Pointer into its answer: what stands there (not null, not false, not an empty array) once it was executed.
    pub(super) found: Option<String>,
    /// Before this much time has passed since the call was sent nobody may say that it was not executed; `10m` by
    /// default, and never less than the operation's deadline.
    pub(super) after: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Preview {
    /// REST: reads the target with the proxy's own credential, such as `GET /customers/:customerId`; `:name` is a top-level
    /// argument. This or `call`.
    pub(super) read: Option<String>,
    /// An operation of the same tool with effect `read` that reads the target with the proxy's own credential. This or
    /// `read`.
    pub(super) call: Option<String>,
    /// With `call`: its arguments, each as `input.` and a JSON Pointer into the arguments of the call that is foreseen.
    #[serde(default)]
    pub(super) with: BTreeMap<String, String>,
    /// REST: how the state after is made of the state before; without it, what comes after is not known.
    pub(super) diff: Option<Diff>,
    /// What tells that the target has moved between approval and send: `hash` (of the answer's bytes) by default.
    pub(super) fence: Option<Fence>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Evidence {
    /// The operation that is asked with the proxy's own credential, of whichever tool, such as `tickets.get_ticket`; its
    /// effect is `read`.
    pub(super) call: String,
    /// Its arguments, each as `input.` and a JSON Pointer into the arguments of the held call.
    #[serde(default)]
    pub(super) with: BTreeMap<String, String>,
    /// JSON Pointers into the answer, and the value that must stand there: else nothing is attached.
    #[serde(default)]
    pub(super) check: BTreeMap<String, serde_json::Value>,
    /// JSON Pointers into the answer that are neither kept nor shown, beside those that its operation redacts.
    #[serde(default)]
    pub(super) redact: Vec<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Undo {
    Never(Never),
    Before(UndoBefore),
    Call(UndoCall),
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Never {
    /// It cannot be undone.
    None,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UndoBefore {
    /// The `match` of the operation that puts things back; its path parameters are those of the call.
    #[serde(rename = "match")]
    pub(super) matches: String,
    /// Its body: the state that `preview` read before the call. A `PATCH` puts back only what the call touched.
    #[expect(dead_code, reason = "there is one kind of body; the key says which")]
    pub(super) body: Before,
    /// How long after its end a call may be undone; `24h` by default.
    pub(super) within: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Before {
    Before,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UndoCall {
    /// The operation of the same tool that takes a call back.
    pub(super) call: String,
    /// Its arguments: `result./id` of the answer, `input./id` of the arguments, `before./id` of the state before.
    #[serde(default)]
    pub(super) with: std::collections::BTreeMap<String, String>,
    /// How long after its end a call may be undone; `24h` by default.
    pub(super) within: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Diff {
    Plain(PlainDiff),
    DryRun(DryRun),
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PlainDiff {
    /// The body is a merge patch (RFC 7396).
    MergePatch,
    /// The body is a JSON Patch (RFC 6902).
    JsonPatch,
    /// The body takes the place of what was there.
    Replace,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DryRun {
    /// The tool's own dry run: gets the same body, has no effect, answers with the state after, such as
    /// `PATCH /customers/:customerId?dry_run=true`.
    #[serde(rename = "dry-run")]
    pub(super) dry_run: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Fence {
    Plain(PlainFence),
    Field(VersionField),
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PlainFence {
    /// The `ETag` of the read; sent upstream as `If-Match` where the request goes to what was read.
    Etag,
    /// The bytes of the answer.
    Hash,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VersionField {
    /// JSON Pointer to a field that changes whenever the target does.
    pub(super) version: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum UpstreamKey {
    Header,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Otherwise {
    Require,
    Derive,
    None,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Cost {
    /// Fixed.
    pub(super) fixed: Option<FixedCost>,
    /// JSON Pointer to the amount in minor units.
    pub(super) amount: Option<String>,
    /// JSON Pointer to its currency.
    pub(super) currency: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FixedCost {
    /// Calls charged, 1 by default.
    pub(super) calls: Option<i64>,
    /// Price, such as `0.02 EUR`.
    pub(super) money: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    /// Request body, `1MiB` by default.
    pub(super) body: Option<String>,
    /// Answer, `16MiB` by default.
    pub(super) answer: Option<String>,
    /// Deadline; the upstream's `timeout` by default.
    pub(super) deadline: Option<String>,
}
