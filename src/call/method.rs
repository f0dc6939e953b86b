//! The methods of MCP beside `tools/call`: what each is to a policy that judges it.

use serde_json::{Value, json};

use super::{Code, Refusal};

/// The tasks extension (SEP-2663).
pub const TASKS: &str = "io.modelcontextprotocol/tasks";
/// What a client can do, in `params._meta`.
pub const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const MISSING_CAPABILITY: i32 = -32021;
const INVALID_PARAMS: i32 = -32602;

/// The pseudo-method of a client's response to a server's request.
pub const RESPONSE: &str = "$/response";
/// The pseudo-method of `DELETE`: the client ends its session.
pub const END_SESSION: &str = "$/end-session";
/// The pseudo-method of `GET`: the client listens to its session.
pub const STREAM: &str = "$/stream";

/// How a message comes to pass policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A call of a tool: some policy must permit it.
    Call,
    /// A method beside `tools/call`: some policy must permit it.
    Method,
    /// It only carries the protocol: it passes for whoever may see something of the tool, unless a policy forbids it
    /// whatever people approve.
    Handshake,
}

/// A method that we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownMethod {
    /// As it stands in a message, or a pseudo-method.
    pub name: &'static str,
    /// How it comes to pass policy.
    pub role: Role,
    /// It changes something.
    pub writes: bool,
    /// Its answer is a stream without an end of its own.
    pub listens: bool,
    /// The text parameters that policies can see.
    texts: &'static [&'static str],
}

const fn handshake(name: &'static str) -> KnownMethod {
    KnownMethod { name, role: Role::Handshake, writes: false, listens: false, texts: &[] }
}

const fn read(name: &'static str, texts: &'static [&'static str]) -> KnownMethod {
    KnownMethod { name, role: Role::Method, writes: false, listens: false, texts }
}

/// Every method of the published revisions (2024-11-05 to 2026-07-28) and of the tasks extension; but not `tasks/list` and
/// `tasks/result` of 2025-11-25: behind one credential they would show each agent the tasks of all.
pub const KNOWN: &[KnownMethod] = &[
    handshake("initialize"),
    handshake("ping"),
    handshake("server/discover"),
    handshake("tools/list"),
    handshake("notifications/initialized"),
    handshake("notifications/cancelled"),
    handshake("notifications/progress"),
    handshake("notifications/roots/list_changed"),
    handshake(RESPONSE),
    handshake(END_SESSION),
    KnownMethod { listens: true, ..handshake(STREAM) },
    read("resources/list", &[]),
    read("resources/templates/list", &[]),
    read("resources/read", &["uri"]),
    read("resources/subscribe", &["uri"]),
    read("resources/unsubscribe", &["uri"]),
    read("prompts/list", &[]),
    read("prompts/get", &["name"]),
    read("completion/complete", &[]),
    read("logging/setLevel", &["level"]),
    KnownMethod { listens: true, ..read("subscriptions/listen", &[]) },
    read("tasks/get", &["taskId"]),
    KnownMethod { writes: true, ..read("tasks/update", &["taskId"]) },
    KnownMethod { writes: true, ..read("tasks/cancel", &["taskId"]) },
];

/// Whether a handshake only ends what was begun: it passes for who is stopped, too.
#[must_use]
pub fn only_ends(short: &str) -> bool {
    ["notifications/cancelled", "end-session"].contains(&short)
}

impl KnownMethod {
    /// The method of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        KNOWN.iter().find(|m| m.name == name).copied()
    }

    /// The part of its action after `<tool>:`; pseudo-methods lose their mark.
    #[must_use]
    pub fn short(self) -> &'static str {
        self.name.strip_prefix("$/").unwrap_or(self.name)
    }

    /// The schema of its parameters, as far as policies read them. What the server demands beyond is its own business.
    #[must_use]
    pub fn schema(self) -> Value {
        let properties: serde_json::Map<String, Value> =
            self.texts.iter().map(|t| ((*t).to_owned(), json!({"type": "string"}))).collect();
        json!({"type": "object", "properties": properties, "additionalProperties": true})
    }
}

/// Whether a message says that its sender understands tasks.
#[must_use]
pub fn declares_tasks(message: &Value) -> bool {
    let own = message.get("params").and_then(|p| p.get("_meta")?.get(CAPABILITIES)?.get("extensions")?.get(TASKS));
    own.is_some()
}

/// The refusal for a message about tasks whose sender does not say that it understands them.
#[must_use]
pub fn undeclared_tasks(message: &Value) -> Option<Refusal> {
    if declares_tasks(message) {
        return None;
    }
    let text = "tasks need the capability `io.modelcontextprotocol/tasks` on each message";
    let refusal = Refusal::new(Code::MalformedRequest, text).with_rpc(MISSING_CAPABILITY);
    Some(refusal.with("requiredCapabilities", json!({"extensions": {TASKS: {}}})))
}

/// The refusal for a task that does not exist, or is another client's.
#[must_use]
pub fn unknown_task() -> Refusal {
    Refusal::new(Code::InvalidArguments, "no such task of yours").with_rpc(INVALID_PARAMS)
}
