//! A message as it arrived, and what the gates make of it: `Incoming` → `Draft` → `Call`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::{ArtifactId, CallId, Digest, Operation, Principal, Timestamp, mrtr};

/// The protocol of the agent's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Plain HTTP.
    Rest,
    /// MCP with the `initialize` handshake, up to 2025-11-25.
    McpLegacy,
    /// Stateless MCP, from 2026-07-28.
    McpModern,
}

/// What the client presented to prove itself. Never printed.
#[derive(Clone, Default)]
pub struct Credentials {
    /// `Authorization: Bearer …`, or `X-Api-Key`.
    pub token: Option<String>,
    /// The client certificate in DER, already verified by TLS against the configured authority.
    pub certificate: Option<Bytes>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials(token: {}, certificate: {})", self.token.is_some(), self.certificate.is_some())
    }
}

/// `Prefer` (RFC 7240), as far as we act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Preference {
    /// `respond-async`.
    pub respond_async: bool,
    /// `wait=N`.
    pub wait: Option<Duration>,
}

/// Pieces of evidence that one call has at most.
pub const MAX_EVIDENCE: usize = 32;

/// What the agent says beside the call: headers in HTTP, `_meta` keys in MCP. Claims, never identity.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Hints {
    /// The client's idempotency key.
    pub key: Option<String>,
    /// `Holdpoint-Workflow`.
    pub workflow: Option<String>,
    /// `Holdpoint-Run`.
    pub run: Option<String>,
    /// `Holdpoint-Step`.
    pub step: Option<String>,
    /// `Holdpoint-Intent`: what the agent claims it is doing. Shown fenced, never judged.
    pub intent: Option<String>,
    /// `Holdpoint-Confidence`, 0 to 1. Shown fenced, never judged.
    pub confidence: Option<f64>,
    /// `Holdpoint-Evidence`: artifacts put before the call.
    pub evidence: Vec<ArtifactId>,
    /// `Prefer`.
    pub prefer: Preference,
    /// MCP: the `requestState` of ours that the client came back with.
    pub poll: Option<String>,
}

/// A message as it arrived, before anything is known about its sender.
#[derive(Debug)]
pub struct Incoming {
    /// The id that this call will have.
    pub id: CallId,
    /// Wall time of arrival.
    pub received: Timestamp,
    /// Address of the peer.
    pub peer: IpAddr,
    /// What it presented to prove itself.
    pub credentials: Credentials,
    /// Name of the tool whose mount it came to.
    pub tool: String,
    /// What it said beside the call.
    pub hints: Hints,
    /// Header fields that passed the ingress rules, for the allow-list of the upstream side.
    pub headers: HeaderMap,
    /// The message itself.
    pub message: Message,
    /// Its other end is dropped when the client has hung up, or has its answer.
    pub gone: watch::Receiver<()>,
}

/// The message of a protocol.
#[derive(Debug)]
pub enum Message {
    /// A REST request below a tool's mount.
    Rest(RestCall),
    /// One JSON-RPC message.
    Mcp(McpCall),
    /// A body that broke off or is not what it must be; refused as soon as its sender is known.
    Broken(super::Refusal),
}

/// A REST request below a tool's mount, in decode-once normal form.
#[derive(Debug, Clone, PartialEq)]
pub struct RestCall {
    /// From the method allow-list.
    pub method: Method,
    /// Decoded path segments below the mount.
    pub segments: Vec<String>,
    /// Decoded query pairs in order.
    pub query: Vec<(String, String)>,
    /// Media type of the body, lower case, without parameters.
    pub content_type: Option<String>,
    /// The body bytes, bounded and complete.
    pub body: Bytes,
    /// The body as JSON, read once by the strict reader, when it is JSON.
    pub json: Option<Value>,
}

/// A JSON-RPC id, as the exact bytes that came.
pub type JsonRpcId = Box<RawValue>;

/// One JSON-RPC message, its body read once by the strict reader.
#[derive(Debug)]
pub struct McpCall {
    /// Which era its body speaks.
    pub protocol: Protocol,
    /// `None` for a notification.
    pub id: Option<JsonRpcId>,
    /// `tools/call` …; empty for a response to a server's request.
    pub method: String,
    /// `params.name` of `tools/call`.
    pub name: Option<String>,
    /// The whole message.
    pub message: Value,
    /// The exact bytes.
    pub body: Bytes,
}

/// A recognized call whose arguments are not yet checked.
#[derive(Debug)]
pub struct Draft {
    /// The message it was recognized in.
    pub incoming: Incoming,
    /// The operation it asks for.
    pub operation: Arc<Operation>,
    /// Values of the path parameters, decoded, in the order of `Operation::path_params`.
    pub path_values: Vec<String>,
    /// Workflow, run and step.
    pub context: CallContext,
}

/// In which work a call stands.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct CallContext {
    /// A workflow that the configuration allows this agent.
    pub workflow: String,
    /// Its stage.
    pub stage: String,
    /// The run, in the agent's words or one that we opened.
    pub run: String,
    /// The step, in the agent's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The agent's claimed intent. Untrusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<String>,
    /// The agent's claimed confidence. Untrusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// Address of the peer that sent the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ip: Option<IpAddr>,
}

/// Where a request goes, in normal form.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Target {
    /// HTTP method.
    pub method: String,
    /// Path and query below the upstream's origin, re-encoded from what was matched.
    pub path: String,
}

/// The request as it goes out: what every vote's digest stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutRequest {
    /// Method, path and query.
    pub target: Target,
    /// Content type of the body, when there is one.
    pub content_type: Option<String>,
    /// The exact bytes.
    pub body: Bytes,
    /// Allow-listed end-to-end headers of the client, lower case, without credentials.
    pub headers: Vec<(String, String)>,
    /// MCP only: the id in the body and the era, to find the answer by.
    pub rpc: Option<(String, Protocol)>,
}

/// One attempt by an agent to use one operation, recognized and with valid arguments.
#[derive(Debug, Clone)]
pub struct Call {
    id: CallId,
    operation: Arc<Operation>,
    arguments: Value,
    request: OutRequest,
    key: Option<String>,
    key_derived: bool,
    fingerprint: Digest,
    digest: Digest,
    context: CallContext,
    evidence: Vec<ArtifactId>,
    source_ip: IpAddr,
    prefer: Preference,
    poll: Option<String>,
    deadline: Instant,
}

/// What the schema gate found, for the one place that makes a call.
#[derive(Debug)]
pub struct Checked {
    /// As assigned on arrival.
    pub id: CallId,
    /// The operation.
    pub operation: Arc<Operation>,
    /// The one argument object.
    pub arguments: Value,
    /// The request to send.
    pub request: OutRequest,
    /// The client's key, or the derived one.
    pub key: Option<String>,
    /// The key was derived, not given.
    pub key_derived: bool,
    /// The run, as far as the agent named one: a derived key must outlive a restart.
    pub named_run: Option<String>,
    /// Workflow, run and step.
    pub context: CallContext,
    /// Evidence named with the call.
    pub evidence: Vec<ArtifactId>,
    /// Address of the peer.
    pub source_ip: IpAddr,
    /// The client's preference.
    pub prefer: Preference,
    /// The state of ours that the client came back with.
    pub poll: Option<String>,
    /// When the caller stops waiting for the upstream.
    pub deadline: Instant,
}

impl Call {
    /// Makes a call of arguments that were checked. Only the schema gate may.
    pub(crate) fn checked(parts: Checked, principal: &Principal) -> Self {
        let round = parts.request.rpc.as_ref().and_then(|_| mrtr::round(&parts.request.body));
        let fingerprint = fingerprint(&parts.operation, &parts.request, &parts.arguments, round.as_ref());
        let digest = call_digest(&parts.operation, &parts.request, principal);
        let key = match parts.key {
            None if parts.key_derived => {
                Some(derived_key(&fingerprint, parts.named_run.as_deref(), parts.context.step.as_deref()))
            }
            // A client sends the same key with each round; no key of a client has a `~`.
            Some(key) if round.is_some() && !key.contains('~') && !parts.key_derived => {
                Some(format!("{key}~{}", round_digest(round.as_ref())))
            }
            key => key,
        };
        Self {
            id: parts.id,
            operation: parts.operation,
            arguments: parts.arguments,
            request: parts.request,
            key,
            key_derived: parts.key_derived,
            fingerprint,
            digest,
            context: parts.context,
            evidence: parts.evidence,
            source_ip: parts.source_ip,
            prefer: parts.prefer,
            poll: parts.poll,
            deadline: parts.deadline,
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> CallId {
        self.id
    }
    /// Its operation.
    #[must_use]
    pub fn operation(&self) -> &Arc<Operation> {
        &self.operation
    }
    /// The one argument object that schema, policy, approver and upstream all see.
    #[must_use]
    pub fn arguments(&self) -> &Value {
        &self.arguments
    }
    /// The request that goes out.
    #[must_use]
    pub fn request(&self) -> &OutRequest {
        &self.request
    }
    /// Its idempotency key, given or derived.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }
    /// The key that the upstream is told, where it honours one: the client's, else the call's id, which outlives every
    /// attempt.
    #[must_use]
    pub fn upstream_key(&self) -> Option<String> {
        let given = self.key.as_ref().filter(|_| !self.key_derived);
        let rule = &self.operation.idempotency;
        rule.upstream_header.then(|| given.cloned().unwrap_or_else(|| self.id.to_string()))
    }
    /// Whether the key was derived by us.
    #[must_use]
    pub fn key_derived(&self) -> bool {
        self.key_derived
    }
    /// SHA-256 over RFC 8785 of operation, normalised target and arguments.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }
    /// What approvers vote on (`contract.md` 4).
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
    /// Workflow, run and step.
    #[must_use]
    pub fn context(&self) -> &CallContext {
        &self.context
    }
    /// Evidence named with the call.
    #[must_use]
    pub fn evidence(&self) -> &[ArtifactId] {
        &self.evidence
    }
    /// Address of the peer that sent it.
    #[must_use]
    pub fn source_ip(&self) -> IpAddr {
        self.source_ip
    }
    /// The client's preference for waiting.
    #[must_use]
    pub fn prefer(&self) -> Preference {
        self.prefer
    }
    /// The state of ours that the client came back with (`mcp.md` 2.3.3).
    #[must_use]
    pub fn poll(&self) -> Option<&str> {
        self.poll.as_deref()
    }
    /// When the caller stops waiting for the upstream.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}

/// MCP's target is the endpoint, the same for every call; a REST target is method and path.
fn fingerprint(op: &Operation, request: &OutRequest, arguments: &Value, round: Option<&Value>) -> Digest {
    let target = match request.rpc {
        Some(_) => Value::Null,
        None => serde_json::json!([request.target.method, request.target.path]),
    };
    let mut of = serde_json::json!({"operation": op.name, "target": target, "arguments": arguments});
    if let (Some(round), Some(of)) = (round, of.as_object_mut()) {
        of.insert("round".into(), round.clone());
    }
    Digest::of_json(&of)
}

fn round_digest(round: Option<&Value>) -> String {
    let digest = Digest::of_json(round.unwrap_or(&Value::Null)).to_string();
    digest.trim_start_matches("sha256:").chars().take(32).collect()
}

/// The digest of a call, as `contract.md` section 4 defines it.
#[must_use]
pub fn call_digest(op: &Operation, request: &OutRequest, principal: &Principal) -> Digest {
    Digest::of_json(&serde_json::json!({
        "v": 1,
        "operation": op.name,
        "upstream": op.tool.upstream,
        "method": request.target.method,
        "target": request.target.path,
        "content_type": request.content_type,
        "body": Digest::of(&request.body).to_string(),
        "principal": [principal.org, principal.agent],
        "acting_for": principal.acting_for,
    }))
}

/// Whether a text may be an idempotency key; what begins with `derived:` is ours.
#[must_use]
pub fn is_key(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.:-".contains(&b);
    (1..=255).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with("derived:")
}

fn derived_key(fingerprint: &Digest, run: Option<&str>, step: Option<&str>) -> String {
    let of = serde_json::json!([fingerprint.to_string(), run, step]);
    format!("derived:{}", Digest::of_json(&of))
}
