//! What proves that nothing was executed.

use std::fmt;

use http::StatusCode;
use http::header::IF_MATCH;

use crate::call::{Call, FenceRule, Protocol};

/// Why it is certain that an attempt had no effect. This list is closed: whatever is not on it, and is no answer, is
/// an unknown outcome.
///
/// Two members of the list of the life of a call never get here. A breaker that is open refuses before `begin`, so there
/// is no attempt. `REFUSED_STREAM`, and streams above the last id of a `GOAWAY` (RFC 9113, 6.8 and 8.7), need HTTP/2,
/// which is not spoken to upstreams: the handshake offers `http/1.1` alone (`endpoint::connector`, `pool::handshake`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsent {
    /// The name was not resolved, or the TCP connect, the TLS handshake or hyper's own handshake failed or took too long:
    /// no request existed on that connection (`pool::connect`).
    NoConnection(String),
    /// The connection ended before hyper took the request, or hyper gave the unsent message back
    /// (`TrySendError::take_message`: "the request was not sent on the connection"; `pool::attempt`).
    GivenBack(String),
    /// We failed, or the deadline passed, before the request was handed to a connection (`Upstreams::forward`, `head`).
    Ours(String),
    /// The MCP session that the proxy opens for a stored call was refused; the call itself was not sent (`session`).
    NoSession(String),
    /// The upstream said with a status that the operation's `not_now` lists that it did nothing (`Unsent::said`).
    NotNow(u16),
    /// The agent's MCP session is over: a server must say so with 404 to whatever names that session, so it has not looked
    /// at the message (MCP 2025-11-25, transports, session management; `Unsent::said`). The client must begin anew.
    SessionOver,
    /// The upstream said 412 to an `If-Match` of ours: it must not have done anything (RFC 9110, 13.1.1; `Unsent::said`).
    Moved,
}

impl Unsent {
    /// Whether the head of an answer says that nothing was done.
    #[must_use]
    pub fn said(call: &Call, status: StatusCode) -> Option<Self> {
        if call.operation().not_now.contains(&status.as_u16()) {
            return Some(Self::NotNow(status.as_u16()));
        }
        let request = call.request();
        let fenced = call.operation().preview.as_ref().is_some_and(|p| p.fence == FenceRule::Etag);
        let conditional = || request.headers.iter().any(|(n, _)| n == IF_MATCH.as_str());
        if status == StatusCode::PRECONDITION_FAILED && fenced && conditional() {
            return Some(Self::Moved);
        }
        let legacy = request.rpc.as_ref().is_some_and(|(_, era)| *era == Protocol::McpLegacy);
        let in_session = request.headers.iter().any(|(n, _)| n == "mcp-session-id");
        (status == StatusCode::NOT_FOUND && legacy && in_session).then_some(Self::SessionOver)
    }
}

impl fmt::Display for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConnection(why) => write!(f, "no connection: {why}"),
            Self::GivenBack(why) => write!(f, "the request was given back unsent: {why}"),
            Self::Ours(why) => write!(f, "stopped before the first byte: {why}"),
            Self::NoSession(why) => write!(f, "no session: {why}"),
            Self::Moved => f.write_str("its target moved in the instant it was sent"),
            Self::SessionOver => f.write_str("the session is over"),
            Self::NotNow(status) => write!(f, "the upstream said {status}: not now"),
        }
    }
}
