//! Every reason why a call may not pass: one table for HTTP, JSON-RPC, log, metric and audit.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{CallId, HoldId};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:ident, $rpc:literal, $title:literal;)*) => {
        /// The stable code of a refusal (`contract.md` 2.2).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// All codes, in the order of the contract's table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as text: the same in body, log, metric and audit.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The HTTP status, unless the refusal carries a more exact one.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// The JSON-RPC error code for methods other than `tools/call`.
            #[must_use]
            pub const fn rpc_code(self) -> i32 {
                match self { $(Self::$name => $rpc,)* }
            }

            /// A short title for a problem document.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// Not HTTP or JSON as we accept it.
    MalformedRequest = "malformed_request", BAD_REQUEST, -32600, "Malformed request";
    /// No or bad credential.
    Unauthenticated = "unauthenticated", UNAUTHORIZED, 4010, "Not authenticated";
    /// Policy says no and no approval can change it.
    Forbidden = "forbidden", FORBIDDEN, 4030, "Forbidden by policy";
    /// A reviewer said no.
    Rejected = "rejected", FORBIDDEN, 4031, "Rejected by a reviewer";
    /// Nobody decided in time.
    HoldExpired = "hold_expired", FORBIDDEN, 4032, "Nobody decided in time";
    /// Taken back by the agent or the owner.
    Withdrawn = "withdrawn", FORBIDDEN, 4033, "Withdrawn";
    /// Approved, then policy or principal took it back.
    Revoked = "revoked", FORBIDDEN, 4034, "Revoked after approval";
    /// What the approvers saw has moved too often.
    Stale = "stale", FORBIDDEN, 4035, "Stale";
    /// No such mount, operation or tool, or not one this principal may see.
    UnknownTool = "unknown_tool", NOT_FOUND, 4040, "Unknown tool or operation";
    /// Waiting for people.
    Held = "held", CONFLICT, 4090, "Held for human approval";
    /// The same key is executing and did not end in time.
    InFlight = "in_flight", CONFLICT, 4091, "The same call is in flight";
    /// It may have happened; no machine sends it again.
    OutcomeUnknown = "outcome_unknown", CONFLICT, 4092, "The outcome is unknown";
    /// Over the operation's limit.
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, 4130, "Body too large";
    /// A content coding or media type that cannot be inspected.
    UnsupportedEncoding = "unsupported_encoding", UNSUPPORTED_MEDIA_TYPE, 4150, "Unsupported encoding or media type";
    /// Outside the schema.
    InvalidArguments = "invalid_arguments", UNPROCESSABLE_ENTITY, 4220, "Invalid arguments";
    /// The idempotency key stands for other arguments.
    KeyReused = "key_reused", UNPROCESSABLE_ENTITY, 4221, "Idempotency key reused";
    /// The operation demands an idempotency key.
    KeyRequired = "key_required", BAD_REQUEST, 4001, "Idempotency key required";
    /// A rate limit is spent.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, 4290, "Rate limited";
    /// A budget is spent.
    BudgetExhausted = "budget_exhausted", TOO_MANY_REQUESTS, 4291, "Budget exhausted";
    /// Nothing was sent.
    UpstreamUnreachable = "upstream_unreachable", BAD_GATEWAY, 5020, "Upstream unreachable";
    /// The upstream's answer breaks the rules.
    InvalidAnswer = "invalid_answer", BAD_GATEWAY, 5021, "Invalid answer from the upstream";
    /// The tool is failing.
    BreakerOpen = "breaker_open", SERVICE_UNAVAILABLE, 5030, "Breaker open";
    /// A stop condition or the kill switch.
    Paused = "paused", SERVICE_UNAVAILABLE, 5031, "Paused";
    /// We cannot decide or record.
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, 5032, "Unavailable";
    /// Deadline passed on a read.
    UpstreamTimeout = "upstream_timeout", GATEWAY_TIMEOUT, 5040, "Upstream timeout";
}

/// Whether the call had its effect. Always stated, always true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Executed {
    /// Nothing happened, and nothing will.
    No,
    /// It happened, once.
    Yes,
    /// It may have happened.
    Unknown,
}

/// One violation of an argument schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// JSON Pointer (RFC 6901) to the value.
    pub pointer: String,
    /// The schema keyword that it breaks.
    pub keyword: String,
    /// What is wrong, without the value where it may be secret.
    pub message: String,
}

/// A policy that decided, as agents may read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyNote {
    /// Its `@id`.
    pub id: String,
    /// Its `@reason`.
    pub reason: String,
}

/// A gate's "no", with a stable code. Expected; not an error of ours.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal(Box<Parts>);

#[derive(Debug, Clone, PartialEq)]
struct Parts {
    code: Code,
    status: Option<StatusCode>,
    rpc: Option<i32>,
    detail: Cow<'static, str>,
    executed: Executed,
    retry_after: Option<Duration>,
    errors: Vec<Violation>,
    policies: Vec<PolicyNote>,
    call: Option<CallId>,
    hold: Option<HoldId>,
    /// Further members of the problem document: state, expires, reason_code, scope …
    extra: serde_json::Map<String, Value>,
}

impl Refusal {
    /// A refusal whose call had no effect.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Parts {
            code,
            status: None,
            rpc: None,
            detail: detail.into(),
            executed: if matches!(code, Code::OutcomeUnknown) { Executed::Unknown } else { Executed::No },
            retry_after: None,
            errors: Vec::new(),
            policies: Vec::new(),
            call: None,
            hold: None,
            extra: serde_json::Map::new(),
        }))
    }

    /// With a more exact HTTP status than the code's own (405, 408, 417, 431).
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = Some(status);
        self
    }

    /// With a more exact JSON-RPC code than the code's own (-32020, -32021, -32022, -32602, -32700).
    #[must_use]
    pub fn with_rpc(mut self, code: i32) -> Self {
        self.0.rpc = Some(code);
        self
    }

    /// With the truth about the effect.
    #[must_use]
    pub fn with_executed(mut self, executed: Executed) -> Self {
        self.0.executed = executed;
        self
    }

    /// With the time after which asking again makes sense.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// With every schema violation.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<Violation>) -> Self {
        self.0.errors = errors;
        self
    }

    /// With the policies that decided.
    #[must_use]
    pub fn with_policies(mut self, policies: Vec<PolicyNote>) -> Self {
        self.0.policies = policies;
        self
    }

    /// With the call it is about, unless one is named already.
    #[must_use]
    pub fn for_call(mut self, call: CallId) -> Self {
        self.0.call.get_or_insert(call);
        self
    }

    /// With the hold it is about; names the call too.
    #[must_use]
    pub fn for_hold(mut self, hold: HoldId) -> Self {
        self.0.hold = Some(hold);
        self.0.call = Some(hold.call());
        self
    }

    /// With one more member in the problem document.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.extra.insert(name.to_owned(), value.into());
        self
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status.unwrap_or(self.0.code.status())
    }

    /// The code of a JSON-RPC error that says it.
    #[must_use]
    pub fn rpc_code(&self) -> i32 {
        self.0.rpc.unwrap_or(match self.0.code {
            Code::UnknownTool => -32601,
            Code::InvalidArguments => -32602,
            code => code.rpc_code(),
        })
    }

    /// Whether the call had its effect.
    #[must_use]
    pub fn executed(&self) -> Executed {
        self.0.executed
    }

    /// When asking again makes sense.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Seconds for `Retry-After`, rounded up, at least 1.
    #[must_use]
    pub fn retry_after_s(&self) -> Option<u64> {
        self.0.retry_after.map(|d| u64::try_from(d.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1))
    }

    /// The call it is about.
    #[must_use]
    pub fn call(&self) -> Option<CallId> {
        self.0.call
    }

    /// The hold it is about.
    #[must_use]
    pub fn hold(&self) -> Option<HoldId> {
        self.0.hold
    }

    /// The policies that decided.
    #[must_use]
    pub fn policies(&self) -> &[PolicyNote] {
        &self.0.policies
    }

    /// What the agent may read.
    #[must_use]
    pub fn public_text(&self) -> &str {
        &self.0.detail
    }

    /// Every violation of the schema.
    #[must_use]
    pub fn errors(&self) -> &[Violation] {
        &self.0.errors
    }

    /// A further member of the problem document.
    #[must_use]
    pub fn extra(&self, name: &str) -> Option<&Value> {
        self.0.extra.get(name)
    }

    /// The members that HTTP problem documents and MCP `_meta` share.
    #[must_use]
    pub fn members(&self) -> serde_json::Map<String, Value> {
        let mut m = self.0.extra.clone();
        m.insert("code".into(), self.code().as_str().into());
        m.insert("executed".into(), json!(self.0.executed));
        if let Some(call) = self.0.call {
            m.insert("call".into(), call.to_string().into());
        }
        if let Some(hold) = self.0.hold {
            m.insert("hold".into(), hold.to_string().into());
        }
        if !self.0.errors.is_empty() {
            m.insert("errors".into(), json!(self.0.errors));
        }
        if !self.0.policies.is_empty() {
            m.insert("policies".into(), json!(self.0.policies));
        }
        if let Some(s) = self.retry_after_s() {
            m.insert("retry_after_s".into(), s.into());
        }
        m
    }

    /// The RFC 9457 problem document.
    #[must_use]
    pub fn problem(&self) -> Value {
        let mut m = self.members();
        m.insert("type".into(), format!("https://holdpoint.dev/problems/{}", self.code().as_str()).into());
        m.insert("title".into(), self.code().title().into());
        m.insert("status".into(), self.status().as_u16().into());
        m.insert("detail".into(), self.public_text().into());
        if let Some(call) = self.0.call {
            m.insert("instance".into(), format!("/-/calls/{call}").into());
        }
        Value::Object(m)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_in_text_and_in_json_rpc() {
        for (i, a) in Code::ALL.iter().enumerate() {
            for b in Code::ALL.iter().skip(i + 1) {
                assert_ne!(a.as_str(), b.as_str());
                assert_ne!(a.rpc_code(), b.rpc_code());
            }
        }
    }

    #[test]
    fn a_problem_says_what_happened_and_what_helps() {
        let call = CallId::new();
        let p =
            Refusal::new(Code::RateLimited, "agent limit").with_retry_after(Duration::from_millis(1200)).for_call(call);
        let doc = p.problem();
        assert_eq!(doc["executed"], "no");
        assert_eq!(doc["retry_after_s"], 2);
        assert_eq!(doc["instance"], format!("/-/calls/{call}"));
        assert_eq!(doc["type"], "https://holdpoint.dev/problems/rate_limited");
    }
}
