//! MCP over Streamable HTTP, both eras: JSON-RPC ↔ the vocabulary of calls (`mcp.md`).

mod answer;

use base64::Engine;
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::call::{Code, Ended, JsonRpcId, McpCall, Message, Protocol, Refusal};

use super::ingress::Head;
use super::json;
use super::reply::OutBody;

/// The pseudo-method of a client's response to a server's request.
pub(crate) const RESPONSE: &str = "$/response";
/// The pseudo-method of `DELETE`: the client ends its session.
pub(crate) const END_SESSION: &str = "$/end-session";

const VERSION_KEY: &str = "/params/_meta/io.modelcontextprotocol~1protocolVersion";
const MODERN: &str = "2026-07-28";
const HEADER_MISMATCH: i32 = -32020;
const UNSUPPORTED_VERSION: i32 = -32022;

/// What is needed to answer in the message's own terms.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) protocol: Protocol,
    pub(super) id: Option<JsonRpcId>,
    pub(super) method: String,
    pub(super) tool_name: Option<String>,
}

/// A message that cannot be taken, with what is known of its id.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) asked: Asked,
    pub(super) refusal: Refusal,
    pub(super) rpc_code: i32,
}

fn asked(head: &Head) -> Asked {
    let modern = head.headers.get("mcp-protocol-version").is_some_and(|v| v.as_bytes() >= b"2026".as_slice());
    let protocol = if modern { Protocol::McpModern } else { Protocol::McpLegacy };
    Asked { protocol, id: None, method: String::new(), tool_name: None }
}

fn unreadable(asked: Asked, rpc_code: i32, refusal: Refusal) -> Box<Unreadable> {
    Box::new(Unreadable { asked, refusal, rpc_code })
}

/// Whether the method of the request is one that this endpoint has.
pub(super) fn method(head: &Head, below: &[String]) -> Result<(), Box<Unreadable>> {
    if !below.is_empty() {
        return Err(unreadable(asked(head), -32601, Refusal::new(Code::UnknownTool, "no such path below this mount")));
    }
    let allowed = match head.method {
        Method::POST => true,
        Method::DELETE => head.headers.contains_key("mcp-session-id"),
        _ => false,
    };
    let refusal =
        || Refusal::new(Code::MalformedRequest, "this endpoint takes POST").with_status(StatusCode::METHOD_NOT_ALLOWED);
    if allowed { Ok(()) } else { Err(unreadable(asked(head), -32600, refusal())) }
}

/// Reads one message.
pub(super) fn message(head: &Head, body: Bytes) -> Result<(Message, Asked), Box<Unreadable>> {
    let mut asked = asked(head);
    if head.method == Method::DELETE {
        asked.method = END_SESSION.into();
        return Ok((call(&asked, None, Value::Null, Bytes::new()), asked));
    }
    if head.content_type.as_deref() != Some("application/json") {
        let refusal = Refusal::new(Code::UnsupportedEncoding, "`Content-Type` must be `application/json`");
        return Err(unreadable(asked, -32600, refusal));
    }
    let value = match json::read(&body) {
        Ok(value) => value,
        Err(e) => return Err(unreadable(asked, -32700, Refusal::new(Code::MalformedRequest, e.to_string()))),
    };
    let text = if value.is_array() { "batches are not accepted" } else { "not a JSON-RPC 2.0 message" };
    if value.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(unreadable(asked, -32600, Refusal::new(Code::MalformedRequest, text)));
    }
    asked.id = id(&value, &body);
    asked.method = value.get("method").and_then(Value::as_str).map_or_else(|| RESPONSE.into(), str::to_owned);
    let is_answer = value.get("result").is_some() || value.get("error").is_some();
    let odd_id = value.get("id").is_some_and(|i| !i.is_string() && !i.is_i64() && !i.is_u64());
    if odd_id || (asked.method == RESPONSE) != is_answer || value.get("params").is_some_and(|p| !p.is_object()) {
        return Err(unreadable(asked, -32600, Refusal::new(Code::MalformedRequest, "not a JSON-RPC 2.0 message")));
    }
    if let Err((code, refusal)) = era(head, &value, &mut asked) {
        return Err(unreadable(asked, code, refusal));
    }
    let name = value.pointer("/params/name").and_then(Value::as_str).map(str::to_owned);
    asked.tool_name = name.clone().filter(|_| asked.method == "tools/call");
    Ok((call(&asked, name, value, body), asked))
}

fn call(asked: &Asked, name: Option<String>, message: Value, body: Bytes) -> Message {
    Message::Mcp(McpCall {
        protocol: asked.protocol,
        id: asked.id.clone(),
        method: asked.method.clone(),
        name,
        message,
        body,
    })
}

/// The id's exact bytes.
fn id(value: &Value, body: &[u8]) -> Option<JsonRpcId> {
    #[derive(serde::Deserialize)]
    struct OnlyId<'a> {
        #[serde(borrow)]
        id: Option<&'a RawValue>,
    }
    value.get("id")?;
    serde_json::from_slice::<OnlyId<'_>>(body).ok()?.id.map(ToOwned::to_owned)
}

/// The era is decided by the body; in the modern one the headers must say the same.
fn era(head: &Head, value: &Value, asked: &mut Asked) -> Result<(), (i32, Refusal)> {
    let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok());
    if value.pointer(VERSION_KEY).is_some_and(|v| !v.is_string()) {
        return Err(mismatch("the protocol version in `params._meta` must be a string"));
    }
    let Some(version) = value.pointer(VERSION_KEY).and_then(Value::as_str) else {
        let claims_modern = asked.protocol == Protocol::McpModern;
        asked.protocol = if claims_modern { Protocol::McpModern } else { Protocol::McpLegacy };
        let text = "`MCP-Protocol-Version` names a version whose messages carry it in `params._meta` too";
        return if claims_modern { Err(mismatch(text)) } else { Ok(()) };
    };
    asked.protocol = Protocol::McpModern;
    if version != MODERN {
        let refusal = Refusal::new(Code::MalformedRequest, "this protocol version is not spoken here");
        return Err((UNSUPPORTED_VERSION, refusal.with("supported", vec![MODERN])));
    }
    if header("mcp-protocol-version") != Some(version) {
        return Err(mismatch("`MCP-Protocol-Version` differs from the version in `params._meta`"));
    }
    if header("mcp-method") != Some(asked.method.as_str()) {
        return Err(mismatch("`Mcp-Method` differs from the method in the body"));
    }
    let named = match asked.method.as_str() {
        "tools/call" | "prompts/get" => value.pointer("/params/name"),
        "resources/read" => value.pointer("/params/uri"),
        _ => return Ok(()),
    };
    let same = header("mcp-name").and_then(decoded).as_deref() == named.and_then(Value::as_str);
    if same { Ok(()) } else { Err(mismatch("`Mcp-Name` differs from the name in the body")) }
}

fn mismatch(text: &'static str) -> (i32, Refusal) {
    (HEADER_MISMATCH, Refusal::new(Code::MalformedRequest, text))
}

/// `=?base64?…?=`, or the plain text.
fn decoded(text: &str) -> Option<String> {
    let Some(inner) = text.strip_prefix("=?base64?").and_then(|t| t.strip_suffix("?=")) else {
        return Some(text.to_owned());
    };
    let bytes = base64::engine::general_purpose::STANDARD.decode(inner).ok()?;
    String::from_utf8(bytes).ok()
}

/// The answer to a message that could not be read.
pub(super) fn refuse(wrong: &Unreadable) -> Response<OutBody> {
    answer::error(&wrong.asked, &wrong.refusal, wrong.rpc_code)
}

/// The answer to a message that went through the gates.
pub(super) fn answer(ended: Ended, asked: &Asked) -> Response<OutBody> {
    answer::answer(ended, asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(headers: &[(&str, &str)]) -> Head {
        let mut map = http::HeaderMap::new();
        for (n, v) in headers {
            map.insert(http::HeaderName::from_bytes(n.as_bytes()).unwrap(), v.parse().unwrap());
        }
        Head {
            method: Method::POST,
            segments: Vec::new(),
            query: Vec::new(),
            token: None,
            headers: map,
            content_type: Some("application/json".into()),
        }
    }

    fn read(headers: &[(&str, &str)], body: &'static str) -> Result<(Message, Asked), i32> {
        message(&head(headers), Bytes::from_static(body.as_bytes())).map_err(|u| u.rpc_code)
    }

    const MODERN: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"pay","arguments":{},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;

    #[test]
    fn the_body_decides_and_headers_must_agree() {
        let v = ("mcp-protocol-version", "2026-07-28");
        let (_, asked) = read(&[v, ("mcp-method", "tools/call"), ("mcp-name", "=?base64?cGF5?=")], MODERN).unwrap();
        assert_eq!(asked.protocol, Protocol::McpModern);
        assert_eq!(
            read(&[v, ("mcp-method", "tools/call"), ("mcp-name", "nope")], MODERN).unwrap_err(),
            HEADER_MISMATCH
        );
        assert_eq!(read(&[v, ("mcp-method", "tools/list"), ("mcp-name", "pay")], MODERN).unwrap_err(), HEADER_MISMATCH);
        assert_eq!(read(&[], MODERN).unwrap_err(), HEADER_MISMATCH);
        let legacy = r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"pay"}}"#;
        assert_eq!(read(&[], legacy).unwrap().1.protocol, Protocol::McpLegacy);
        assert_eq!(read(&[v], legacy).unwrap_err(), HEADER_MISMATCH);
    }

    #[test]
    fn what_is_no_single_message_is_refused() {
        assert_eq!(read(&[], r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#).unwrap_err(), -32600);
        assert_eq!(read(&[], r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#).unwrap_err(), -32700);
        assert_eq!(read(&[], r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#).unwrap_err(), -32600);
        assert_eq!(read(&[], r#"{"jsonrpc":"2.0","id":1}"#).unwrap_err(), -32600);
    }
}
