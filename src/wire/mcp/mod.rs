//! MCP over Streamable HTTP, both eras: JSON-RPC ↔ the vocabulary of calls (`mcp.md`).

mod answer;
mod task;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::call::confusable::in_message;
use crate::call::method::{END_SESSION, RESPONSE, STREAM, declares_tasks, undeclared_tasks};
use crate::call::sentinel::{HEADER_MISMATCH, decoded};
use crate::call::{Code, Ended, HoldId, JsonRpcId, McpCall, Message, Protocol, Refusal, listen, mrtr};

use super::ingress::Head;
use super::json;
use super::own::{TaskReply, TaskVerb};
use super::reply::OutBody;

const META: &str = "/params/_meta";
const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const MODERN: &str = "2026-07-28";
const UNSUPPORTED_VERSION: i32 = -32022;
const INVALID_PARAMS: i32 = -32602;

/// What is needed to answer in the message's own terms.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) protocol: Protocol,
    pub(super) id: Option<JsonRpcId>,
    pub(super) method: String,
    pub(super) tool_name: Option<String>,
    /// The client understands tasks, as it says on this very message.
    pub(super) tasks: bool,
    /// The `requestState` of ours that it came back with.
    pub(super) poll: Option<String>,
}

/// What a message asks for.
#[derive(Debug)]
pub(super) enum Read {
    /// Something of the tool.
    Tool(Message),
    /// Something of a hold of ours.
    Task(TaskVerb, HoldId),
}

/// A message that cannot be taken, with what is known of its id.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) asked: Asked,
    pub(super) refusal: Refusal,
}

fn is_modern(headers: &HeaderMap) -> bool {
    headers.get("mcp-protocol-version").is_some_and(|v| v.as_bytes() >= b"2026".as_slice())
}

/// What the head alone tells.
pub(super) fn asked(headers: &HeaderMap) -> Asked {
    let protocol = if is_modern(headers) { Protocol::McpModern } else { Protocol::McpLegacy };
    Asked { protocol, id: None, method: String::new(), tool_name: None, tasks: false, poll: None }
}

fn malformed(detail: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Code::MalformedRequest, detail)
}

fn unreadable(asked: Asked, refusal: Refusal) -> Box<Unreadable> {
    Box::new(Unreadable { asked, refusal })
}

/// Whether the method of the request is one that this endpoint has.
pub(super) fn method(head: &Head, below: &[String]) -> Result<(), Box<Unreadable>> {
    let asked = asked(&head.headers);
    if !below.is_empty() {
        return Err(unreadable(asked, Refusal::new(Code::UnknownTool, "no such path below this mount")));
    }
    let legacy = asked.protocol == Protocol::McpLegacy;
    match head.method {
        Method::POST => Ok(()),
        // Streams and sessions ended with the old era.
        Method::GET | Method::DELETE if legacy => Ok(()),
        _ => {
            let text = if legacy { "this endpoint takes POST, GET and DELETE" } else { "this endpoint takes POST" };
            Err(unreadable(asked, malformed(text).with_status(StatusCode::METHOD_NOT_ALLOWED)))
        }
    }
}

/// Reads one message.
pub(super) fn message(head: &Head, body: Bytes) -> Result<(Read, Asked), Box<Unreadable>> {
    let mut asked = asked(&head.headers);
    let bodiless = match head.method {
        Method::DELETE => Some(END_SESSION),
        Method::GET => Some(STREAM),
        _ => None,
    };
    if let Some(method) = bodiless {
        asked.method = method.into();
        return Ok((Read::Tool(call(&asked, None, Value::Null, Bytes::new())), asked));
    }
    match read(head, &body, &mut asked) {
        Ok(mut value) => {
            let body = without_ours(&mut value, body, &mut asked);
            finished(value, body, asked)
        }
        Err(refusal) => Err(unreadable(asked, refusal)),
    }
}

/// What the proxy has given out to the client is nothing to the server.
fn without_ours(value: &mut Value, body: Bytes, asked: &mut Asked) -> Bytes {
    let Ok(text) = std::str::from_utf8(&body) else { return body };
    let changed = match asked.method.as_str() {
        "tools/call" if asked.protocol == Protocol::McpModern => mrtr::take_ours(value, text).map(|(state, left)| {
            asked.poll = Some(state);
            left
        }),
        "subscriptions/listen" => listen::without_ours(value, text),
        _ => None,
    };
    changed.map_or(body, Bytes::from)
}

fn finished(value: Value, body: Bytes, asked: Asked) -> Result<(Read, Asked), Box<Unreadable>> {
    match sorted(&asked, value, body) {
        Ok(read) => Ok((read, asked)),
        Err(refusal) => Err(unreadable(asked, refusal)),
    }
}

fn read(head: &Head, body: &Bytes, asked: &mut Asked) -> Result<Value, Refusal> {
    if head.content_type.as_deref() != Some("application/json") {
        let text = "`Content-Type` must be `application/json`";
        return Err(Refusal::new(Code::UnsupportedEncoding, text).with_rpc(-32600));
    }
    let value = json::read(body).map_err(|e| malformed(e.to_string()).with_rpc(-32700))?;
    let not_one = || malformed("not a JSON-RPC 2.0 message");
    if value.is_array() {
        return Err(malformed("batches are not accepted"));
    }
    if value.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(not_one());
    }
    asked.id = id(&value, body);
    if let Some(name) = in_message(&value) {
        let text = format!("the member `{}` could be read as another one", name.escape_debug());
        return Err(malformed(text).with_rpc(-32600));
    }
    let method = value.get("method");
    asked.method = method.and_then(Value::as_str).map_or_else(|| RESPONSE.into(), str::to_owned);
    let is_answer = value.get("result").is_some() || value.get("error").is_some();
    let odd_id = value.get("id").is_some_and(|i| !i.is_string() && !i.is_i64() && !i.is_u64());
    let odd_method = method.is_some_and(|m| m.as_str().is_none_or(|m| m.starts_with('$')));
    let odd_params = value.get("params").is_some_and(|p| !p.is_object());
    if odd_id || odd_method || odd_params || (asked.method == RESPONSE) != is_answer {
        return Err(not_one());
    }
    era(head, &value, asked)?;
    Ok(value)
}

/// Questions about holds of ours are answered here; all else is for the tool.
fn sorted(asked: &Asked, value: Value, body: Bytes) -> Result<Read, Refusal> {
    let name = routed_name(&asked.method, &value).map(str::to_owned);
    let verb = TaskVerb::of(&asked.method).filter(|_| asked.protocol == Protocol::McpModern);
    if let (Some(verb), Some(Ok(hold))) = (verb, name.as_deref().map(str::parse)) {
        return undeclared_tasks(&value).map_or(Ok(Read::Task(verb, hold)), Err);
    }
    Ok(Read::Tool(call(asked, name, value, body)))
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

/// What `Mcp-Name` mirrors.
fn routed_name<'a>(method: &str, value: &'a Value) -> Option<&'a str> {
    let parameter = match method {
        "tools/call" | "prompts/get" => "/params/name",
        "resources/read" => "/params/uri",
        "tasks/get" | "tasks/update" | "tasks/cancel" => "/params/taskId",
        _ => return None,
    };
    value.pointer(parameter).and_then(Value::as_str)
}

/// The era is decided by the body; in the modern one the headers must say the same.
fn era(head: &Head, value: &Value, asked: &mut Asked) -> Result<(), Refusal> {
    let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok());
    let meta = value.pointer(META);
    let said = meta.and_then(|m| m.get(VERSION));
    asked.tool_name = routed_name(&asked.method, value).filter(|_| asked.method == "tools/call").map(str::to_owned);
    if said.is_some_and(|v| !v.is_string()) {
        return Err(malformed("the protocol version in `params._meta` must be a string").with_rpc(INVALID_PARAMS));
    }
    let Some(version) = said.and_then(Value::as_str) else {
        let text = "`MCP-Protocol-Version` names a version whose messages carry it in `params._meta` too";
        let modern = asked.protocol == Protocol::McpModern;
        return if modern { Err(malformed(text).with_rpc(INVALID_PARAMS)) } else { Ok(()) };
    };
    asked.protocol = Protocol::McpModern;
    asked.tasks = declares_tasks(value);
    if header("mcp-protocol-version") != Some(version) {
        return Err(mismatch("`MCP-Protocol-Version` differs from the version in `params._meta`"));
    }
    if version != MODERN {
        let refusal = malformed("this protocol version is not spoken here").with_rpc(UNSUPPORTED_VERSION);
        return Err(refusal.with("supported", vec![MODERN]).with("requested", version));
    }
    if header("mcp-method").and_then(decoded).as_deref() != Some(asked.method.as_str()) {
        return Err(mismatch("`Mcp-Method` differs from the method in the body"));
    }
    match routed_name(&asked.method, value) {
        Some(name) if header("mcp-name").and_then(decoded).as_deref() != Some(name) => {
            Err(mismatch("`Mcp-Name` differs from the name in the body"))
        }
        _ => Ok(()),
    }
}

fn mismatch(text: &'static str) -> Refusal {
    malformed(text).with_rpc(HEADER_MISMATCH)
}

/// The answer to a message that could not be read.
pub(super) fn refuse(wrong: &Unreadable) -> Response<OutBody> {
    answer::error(&wrong.asked, &wrong.refusal)
}

/// The answer to a message that went through the gates.
pub(super) fn answer(ended: Ended, asked: &Asked) -> Response<OutBody> {
    answer::answer(ended, asked)
}

/// The answer to a question about a hold of ours.
pub(super) fn task(reply: TaskReply, asked: &Asked) -> Response<OutBody> {
    task::answer(reply, asked)
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

    fn read(headers: &[(&str, &str)], body: &'static str) -> Result<(Read, Asked), i32> {
        message(&head(headers), Bytes::from_static(body.as_bytes())).map_err(|u| u.refusal.rpc_code())
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
        assert_eq!(read(&[v], legacy).unwrap_err(), INVALID_PARAMS);
    }

    #[test]
    fn what_is_no_single_message_is_refused() {
        assert_eq!(read(&[], r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#).unwrap_err(), -32600);
        assert_eq!(read(&[], r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#).unwrap_err(), -32700);
        assert_eq!(read(&[], r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#).unwrap_err(), -32600);
        assert_eq!(read(&[], r#"{"jsonrpc":"2.0","id":1}"#).unwrap_err(), -32600);
    }
}
