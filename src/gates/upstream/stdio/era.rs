//! From a client's message to a line for a server with a handshake, and back, in either era. No I/O.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::call::mrtr;
use crate::call::splice::Edits;
use crate::call::{OutRequest, Protocol};

use super::hello::{Hello, LEGACY, TTL_MS};
use super::message::one_line;

/// What becomes of a client's message.
#[derive(Debug)]
pub(super) enum Read {
    /// It is answered here, without the server.
    Told(Told),
    /// It is answered from the handshake.
    Greet(Greeting),
    /// The client wants no answer to its request with this id any more.
    Cancel(String),
    /// It goes to the server.
    Forward(Request),
}

/// An answer for a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) status: StatusCode,
    /// A JSON-RPC message, or nothing.
    pub(super) body: String,
}

/// A client that begins.
#[derive(Debug)]
pub(super) struct Greeting {
    id: String,
    modern: bool,
    version: Option<String>,
}

/// A request for the server.
#[derive(Debug)]
pub(super) struct Request {
    body: String,
    id: String,
    method: String,
    modern: bool,
    /// The client's token, when it wants to hear of progress.
    token: Option<String>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params<'a> {
    #[serde(borrow, rename = "_meta")]
    meta: Option<&'a RawValue>,
    #[serde(borrow)]
    protocol_version: Option<Cow<'a, str>>,
    #[serde(borrow)]
    progress_token: Option<&'a RawValue>,
    #[serde(borrow)]
    request_id: Option<&'a RawValue>,
}

/// Members of `_meta` that belong to the modern era.
const RESERVED: &str = "io.modelcontextprotocol/";
const TOKEN: &str = "progressToken";
const INVALID_REQUEST: i32 = -32600;
const NOT_FOUND: i64 = -32601;

/// Methods that the modern era does not have, or that a server of the old era has not: it is not asked.
const NOT_MODERN: [&str; 6] =
    ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "subscriptions/listen"];

impl Told {
    fn error(id: &str, status: StatusCode, code: i64, text: &str) -> Self {
        let error = serde_json::json!({"code": code, "message": text});
        Self { status, body: format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{error}}}") }
    }

    pub(super) const fn empty(status: StatusCode) -> Self {
        Self { status, body: String::new() }
    }
}

/// What becomes of the message of this request.
///
/// # Errors
/// When it is none; the wire has refused such.
pub(super) fn read(out: &OutRequest) -> Result<Read, &'static str> {
    // Nothing flows but answers to requests, and sessions mean nothing: what a client ends is its own.
    match out.target.method.as_str() {
        "GET" => return Ok(Read::Told(Told::empty(StatusCode::METHOD_NOT_ALLOWED))),
        "DELETE" => return Ok(Read::Told(Told::empty(StatusCode::NO_CONTENT))),
        _ => {}
    }
    let body = std::str::from_utf8(&out.body).map_err(|_| "the message is not UTF-8")?;
    let message: Envelope<'_> = serde_json::from_str(body).map_err(|_| "the message is no JSON-RPC message")?;
    let (Some(id), Some(method)) = (message.id, message.method.as_deref()) else { return told(&message) };
    let (id, modern) = (id.get().to_owned(), matches!(out.rpc, Some((_, Protocol::McpModern))));
    let version = out.headers.iter().find(|(n, _)| n == "mcp-protocol-version").map(|(_, v)| v.as_str());
    if version.is_some_and(|v| !modern && !LEGACY.contains(&v)) {
        let text = "this protocol version is not spoken here";
        return Ok(Read::Told(Told::error(&id, StatusCode::BAD_REQUEST, INVALID_REQUEST.into(), text)));
    }
    // Tasks would be in common: the server takes all agents for one.
    if method.starts_with("tasks/") || (modern && NOT_MODERN.contains(&method)) {
        let status = if modern { StatusCode::NOT_FOUND } else { StatusCode::OK };
        return Ok(Read::Told(Told::error(&id, status, NOT_FOUND, "this method is not spoken here")));
    }
    let params = params(message.params)?;
    if matches!((method, modern), ("initialize", false) | ("server/discover", true)) {
        return Ok(Read::Greet(Greeting { id, modern, version: params.protocol_version.map(Cow::into_owned) }));
    }
    let token = meta(&params)?.get(TOKEN).map(|t| t.get().to_owned());
    let body = mrtr::deferred_legacy(body).unwrap_or_else(|| body.to_owned());
    Ok(Read::Forward(Request { body, id, method: method.to_owned(), modern, token }))
}

/// What demands no answer ends here: the server was told by us what a client tells, and asked the client nothing.
fn told(message: &Envelope<'_>) -> Result<Read, &'static str> {
    let cancels = message.method.as_deref() == Some("notifications/cancelled");
    let request = if cancels { params(message.params)?.request_id } else { None };
    let accepted = || Read::Told(Told::empty(StatusCode::ACCEPTED));
    Ok(request.map_or_else(accepted, |id| Read::Cancel(id.get().to_owned())))
}

fn params(raw: Option<&RawValue>) -> Result<Params<'_>, &'static str> {
    let Some(raw) = raw else { return Ok(Params::default()) };
    serde_json::from_str(raw.get()).map_err(|_| "`params` cannot be read")
}

fn meta<'a>(params: &Params<'a>) -> Result<BTreeMap<String, &'a RawValue>, &'static str> {
    let Some(raw) = params.meta else { return Ok(BTreeMap::new()) };
    serde_json::from_str(raw.get()).map_err(|_| "`params._meta` cannot be read")
}

impl Greeting {
    /// A client of the old era: its ids mean something only within its session.
    pub(super) const fn wants_session(&self) -> bool {
        !self.modern
    }

    pub(super) fn told(&self, hello: &Hello) -> Told {
        let result = if self.modern { hello.to_modern() } else { hello.to_legacy(self.version.as_deref()) };
        Told { status: StatusCode::OK, body: format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{result}}}", self.id) }
    }
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RpcError<'a> {
    #[serde(borrow)]
    code: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResultHead {
    result_type: Option<IgnoredAny>,
    ttl_ms: Option<IgnoredAny>,
    cache_scope: Option<IgnoredAny>,
}

impl Request {
    /// A request of the proxy itself.
    pub(super) fn own(method: &str, params: &serde_json::Value) -> Self {
        let body = serde_json::json!({"jsonrpc": "2.0", "id": 0, "method": method, "params": params}).to_string();
        Self { body, id: "0".into(), method: method.into(), modern: false, token: None }
    }

    /// The id as the client gave it.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) const fn wants_progress(&self) -> bool {
        self.token.is_some()
    }

    /// The line for the server, under an id of ours. What is not ours to change stays byte for byte, but line ends
    /// between its tokens, which would end the line.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn line(&self, ours: u64) -> Result<String, &'static str> {
        let unreadable = "the message is no JSON-RPC message";
        let body = &self.body;
        let message: Envelope<'_> = serde_json::from_str(body).map_err(|_| unreadable)?;
        let mut edits = Edits::default();
        edits.replace(body, message.id.ok_or(unreadable)?.get(), ours.to_string());
        let params = params(message.params)?;
        if let (Some(raw), Some(meta)) = (params.meta, self.meta(meta(&params)?, ours)) {
            edits.replace(body, raw.get(), meta);
        }
        let line = edits.apply(body).ok_or(unreadable)?;
        Ok(format!("{}\n", one_line(&line)))
    }

    /// `_meta` with our token, and without what the server's era does not know; none when it may stay as it is.
    fn meta(&self, members: BTreeMap<String, &RawValue>, ours: u64) -> Option<String> {
        let reserved = |name: &String| self.modern && name.starts_with(RESERVED);
        if self.token.is_none() && !members.keys().any(reserved) {
            return None;
        }
        let ours = ours.to_string();
        let kept = members.iter().filter(|(name, _)| !reserved(name)).map(|(name, value)| {
            let value = if name == TOKEN { ours.as_str() } else { value.get() };
            format!("{}:{value}", serde_json::json!(name))
        });
        Some(format!("{{{}}}", kept.collect::<Vec<_>>().join(",")))
    }

    /// The server's response as the client's era has it, under the client's id.
    ///
    /// # Errors
    /// When it is no response.
    pub(super) fn told(&self, line: &str) -> Result<Told, &'static str> {
        let unreadable = "the server's response cannot be read";
        let response: Response<'_> = serde_json::from_str(line).map_err(|_| unreadable)?;
        let mut edits = Edits::default();
        edits.replace(line, response.id.ok_or(unreadable)?.get(), self.id.as_str());
        let mut status = StatusCode::OK;
        match (self.modern, response.result, response.error) {
            (true, Some(result), _) => self.complete(line, result, &mut edits)?,
            (true, None, Some(error)) => {
                let error: RpcError<'_> = serde_json::from_str(error.get()).map_err(|_| unreadable)?;
                match error.code.get() {
                    "-32601" => status = StatusCode::NOT_FOUND,
                    // A resource that is not found has another code by now.
                    "-32002" => edits.replace(line, error.code.get(), "-32602"),
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(Told { status, body: edits.apply(line).ok_or(unreadable)? })
    }

    /// What the modern era demands of a result beyond.
    fn complete(&self, line: &str, result: &RawValue, edits: &mut Edits) -> Result<(), &'static str> {
        let head: ResultHead = serde_json::from_str(result.get()).map_err(|_| "the server's result is no object")?;
        let mut members = Vec::new();
        if head.result_type.is_none() {
            members.push("\"resultType\":\"complete\"".to_owned());
        }
        let lists = self.method.ends_with("/list");
        if lists || self.method == "resources/read" {
            if head.ttl_ms.is_none() {
                members.push(format!("\"ttlMs\":{}", if lists { TTL_MS } else { 0 }));
            }
            if head.cache_scope.is_none() {
                members.push("\"cacheScope\":\"private\"".to_owned());
            }
        }
        if !members.is_empty() {
            edits.insert_member(line, result.get(), &members.join(","));
        }
        Ok(())
    }

    /// A sign of progress, under the client's token; none when it cannot be read.
    pub(super) fn progress(&self, line: &str) -> Option<String> {
        let message: Envelope<'_> = serde_json::from_str(line).ok()?;
        let params = params(message.params).ok()?;
        let mut edits = Edits::default();
        edits.replace(line, params.progress_token?.get(), self.token.as_deref()?);
        edits.apply(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Target;

    fn out(era: Protocol, body: &str) -> OutRequest {
        OutRequest {
            target: Target { method: "POST".into(), path: "/".into() },
            content_type: None,
            body: body.to_owned().into(),
            headers: Vec::new(),
            rpc: Some((String::new(), era)),
        }
    }

    fn forwarded(era: Protocol, body: &str) -> Request {
        match read(&out(era, body)) {
            Ok(Read::Forward(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ids_are_ours_on_the_way_there_and_the_clients_on_the_way_back() {
        let body = "{ \"params\": {\"name\":\"pay\", \"arguments\":{ \"n\" : 1e2, \"s\":\"\\u00e9\\n\"}},\n\t\"id\" : \"a\\\"7\",\r\n \"jsonrpc\":\"2.0\",\"method\":\"tools/call\"}";
        let request = forwarded(Protocol::McpLegacy, body);
        let line = "{ \"params\": {\"name\":\"pay\", \"arguments\":{ \"n\" : 1e2, \"s\":\"\\u00e9\\n\"}}, \t\"id\" : 42,   \"jsonrpc\":\"2.0\",\"method\":\"tools/call\"}\n";
        assert_eq!(request.line(42).unwrap(), line);
        let told = request.told(r#"{"result":{"content":[ ],"id":42 },  "id":42}"#).unwrap();
        assert_eq!(told.body, "{\"result\":{\"content\":[ ],\"id\":42 },  \"id\":\"a\\\"7\"}");
    }

    #[test]
    fn the_modern_members_are_taken_out_and_put_in() {
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"c","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","traceparent":"00-1","progressToken":"p 1"}}}"#;
        let request = forwarded(Protocol::McpModern, body);
        let meta = r#"{"jsonrpc":"2.0","id":9,"method":"tools/list","params":{"cursor":"c","_meta":{"progressToken":9,"traceparent":"00-1"}}}"#;
        assert_eq!(request.line(9).unwrap().trim_end(), meta);
        let told = request.told(r#"{"jsonrpc":"2.0","id":9,"result":{"tools":[]}}"#).unwrap();
        let full = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","ttlMs":60000,"cacheScope":"private","tools":[]}}"#;
        assert_eq!((told.status, told.body.as_str()), (StatusCode::OK, full));
        let told = request.told(r#"{"id":9,"error":{"code":-32601,"message":"?"}}"#).unwrap();
        assert_eq!(told.status, StatusCode::NOT_FOUND);
        let told = request.told(r#"{"id":9,"error":{"code":-32002,"message":"?"}}"#).unwrap();
        assert!(told.body.contains("-32602"), "{}", told.body);
        let event =
            request.progress(r#"{"method":"notifications/progress","params":{"progressToken":9,"progress":1}}"#);
        assert_eq!(
            event.unwrap(),
            r#"{"method":"notifications/progress","params":{"progressToken":"p 1","progress":1}}"#
        );
    }

    #[test]
    fn the_old_era_keeps_its_meta_and_its_results() {
        let body = r#"{"id":1,"method":"tools/call","params":{"name":"x","_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t"}}}}"#;
        let request = forwarded(Protocol::McpLegacy, body);
        assert_eq!(request.line(2).unwrap().trim_end(), body.replace("\"id\":1", "\"id\":2"));
        let told = request.told(r#"{"id":2,"error":{"code":-32601,"message":"?"}}"#).unwrap();
        assert_eq!(
            (told.status, told.body.as_str()),
            (StatusCode::OK, r#"{"id":1,"error":{"code":-32601,"message":"?"}}"#)
        );
        assert!(request.progress("{}").is_none());
    }

    #[test]
    fn an_empty_result_is_completed_too() {
        let request = forwarded(Protocol::McpModern, r#"{"id":1,"method":"tools/call","params":{"name":"x"}}"#);
        assert_eq!(
            request.told(r#"{"id":2,"result":{}}"#).unwrap().body,
            r#"{"id":1,"result":{"resultType":"complete"}}"#
        );
        assert!(request.told(r#"{"id":2,"result":7}"#).is_err());
        assert!(request.told("{}").is_err());
    }

    #[test]
    fn what_needs_no_server_is_answered_here() {
        let status = |out: &OutRequest| match read(out) {
            Ok(Read::Told(told)) => told.status.as_u16(),
            other => panic!("{other:?}"),
        };
        assert_eq!(status(&out(Protocol::McpLegacy, r#"{"method":"notifications/initialized"}"#)), 202);
        assert_eq!(status(&out(Protocol::McpLegacy, r#"{"id":1,"result":{}}"#)), 202);
        assert_eq!(status(&out(Protocol::McpModern, r#"{"id":1,"method":"ping"}"#)), 404);
        let cancel = r#"{"method":"notifications/cancelled","params":{"requestId": "a\"7"}}"#;
        assert!(matches!(read(&out(Protocol::McpLegacy, cancel)), Ok(Read::Cancel(id)) if id == r#""a\"7""#));
        let mut stream = out(Protocol::McpLegacy, "");
        for (method, answer) in [("GET", 405), ("DELETE", 204)] {
            stream.target.method = method.into();
            assert_eq!(status(&stream), answer);
        }
        let mut old = out(Protocol::McpLegacy, r#"{"id":1,"method":"ping"}"#);
        old.headers.push(("mcp-protocol-version".into(), "1999-01-01".into()));
        assert_eq!(status(&old), 400);
        let hello = Read::Greet(Greeting { id: "1".into(), modern: false, version: None });
        assert!(matches!(
            (read(&out(Protocol::McpLegacy, r#"{"id":1,"method":"initialize"}"#)), hello),
            (Ok(Read::Greet(_)), _)
        ));
        assert!(matches!(
            read(&out(Protocol::McpModern, r#"{"id":1,"method":"server/discover"}"#)),
            Ok(Read::Greet(_))
        ));
    }
}
