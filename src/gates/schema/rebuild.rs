//! A call of other arguments than a client sent: of a held one that a reviewer changed, and of one that undoes another.
//! It passes the same checks as what a client sends.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::call::splice::Edits;
use crate::call::{
    Call, CallContext, Checked, Code, McpCall, Operation, OutRequest, Preference, Principal, Protocol, Refusal,
    RestCall, Target, ToolKind, Violation,
};

use super::{Schemas, checked, invalid, mirrored};

impl Schemas {
    /// The same call with other arguments. Key, context and identity stay; what the client said of its waiting does not.
    ///
    /// # Errors
    /// As [`Schemas::validate`], and `invalid_arguments` where the key of the call would change.
    pub fn edited(&self, principal: &Principal, call: &Call, arguments: Value) -> Result<Call, Refusal> {
        let operation = call.operation();
        let key =
            |arguments: &Value| operation.idempotency.pointer.as_ref().and_then(|p| arguments.pointer(p).cloned());
        if key(&arguments) != key(call.arguments()) {
            return Err(wrong(operation, "", "the idempotency key cannot be changed: it is another call then"));
        }
        let (arguments, request) = self.remade(operation, call.request(), operation.route.as_ref(), arguments)?;
        Ok(self.made(principal, call, operation, arguments, request))
    }

    /// A call of another operation of the same tool, like this one in all that is not said.
    ///
    /// # Errors
    /// As [`Schemas::validate`].
    pub fn inverse(
        &self,
        principal: &Principal,
        like: &Call,
        operation: &std::sync::Arc<Operation>,
        arguments: Value,
        (id, key): (crate::call::CallId, String),
    ) -> Result<Call, Refusal> {
        let mut request = like.request().clone();
        if request.rpc.is_none() {
            (request.body, request.content_type) = (Bytes::new(), None);
            request.target.path = String::new();
        }
        let (arguments, request) = self.remade(operation, &request, operation.route.as_ref(), arguments)?;
        let call = self.made(principal, like, operation, arguments, request);
        let prefer = Preference { wait: Some(std::time::Duration::ZERO), respond_async: false };
        // What its agent said of the first call, it did not say of this one.
        let context = CallContext { intent: None, confidence: None, ..call.context().clone() };
        let evidence = Vec::new();
        let parts = Checked { id, key: Some(key), key_derived: false, evidence, prefer, context, ..parts(&call) };
        // Nobody is there to answer a question of its server.
        Ok(self.deferred(principal, &checked(parts, principal)))
    }

    /// The arguments with defaults filled in, and the request, by which the proxy itself asks a read operation. No call
    /// of an agent: policy is not asked about it.
    ///
    /// # Errors
    /// As [`Schemas::validate`].
    pub fn own(&self, operation: &std::sync::Arc<Operation>, arguments: Value) -> Result<(Value, OutRequest), Refusal> {
        let is_mcp = operation.tool.kind == ToolKind::Mcp;
        let blank = OutRequest {
            target: Target { method: String::new(), path: String::new() },
            content_type: None,
            body: Bytes::from_static(if is_mcp { TOOL_CALL } else { b"" }),
            headers: Vec::new(),
            rpc: is_mcp.then(|| ("0".to_owned(), Protocol::McpModern)),
        };
        self.remade(operation, &blank, operation.route.as_ref(), arguments)
    }

    fn made(
        &self,
        principal: &Principal,
        like: &Call,
        operation: &std::sync::Arc<Operation>,
        arguments: Value,
        request: OutRequest,
    ) -> Call {
        let deadline = self.clock.instant() + operation.limits.deadline;
        let operation = std::sync::Arc::clone(operation);
        checked(Checked { operation, arguments, request, deadline, ..parts(like) }, principal)
    }

    fn remade(
        &self,
        operation: &std::sync::Arc<Operation>,
        old: &OutRequest,
        route: Option<&(String, String)>,
        arguments: Value,
    ) -> Result<(Value, OutRequest), Refusal> {
        let base = self.bases.get(&operation.tool.name).map_or("", String::as_str);
        let (arguments, request) = match (&old.rpc, route) {
            (None, Some((method, template))) => {
                let (rest, values) = rest(operation, method, template, old, &arguments)?;
                self.rest(operation, base, rest, &values)?
            }
            (Some((id, era)), _) => {
                let (mcp, headers) = mcp(operation, id, *era, &old.body, &arguments)?;
                self.mcp(operation, base, mcp, &headers)?
            }
            (None, None) => return Err(Refusal::new(Code::UnknownTool, "the operation has no route any more")),
        };
        let ours = |name: &str| name.starts_with("mcp-param-") || matches!(name, "mcp-method" | "mcp-name");
        let headers = old.headers.iter().filter(|(name, _)| !ours(name)).cloned().chain(request.headers.clone());
        Ok((arguments, OutRequest { headers: headers.collect(), ..request }))
    }
}

/// A message whose name and arguments are put in.
const TOOL_CALL: &[u8] = br#"{"jsonrpc":"2.0","id":0,"method":"tools/call","params":{"name":""}}"#;

/// What a call is made of.
pub(super) fn parts(call: &Call) -> Checked {
    Checked {
        id: call.id(),
        operation: std::sync::Arc::clone(call.operation()),
        arguments: call.arguments().clone(),
        request: call.request().clone(),
        key: call.key().map(str::to_owned),
        key_derived: call.key_derived(),
        named_run: None,
        context: call.context().clone(),
        evidence: call.evidence().to_vec(),
        source_ip: call.source_ip(),
        prefer: Preference::default(),
        poll: None,
        deadline: call.deadline(),
    }
}

fn wrong(operation: &Operation, name: &str, message: &str) -> Refusal {
    let pointer =
        if name.is_empty() { String::new() } else { format!("/{}", name.replace('~', "~0").replace('/', "~1")) };
    let violation = Violation { pointer, keyword: "edit".into(), message: message.into() };
    invalid(operation, vec![violation])
}

/// A single value as it stands in a URL.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// The request that says these arguments, each where the old one had it; what is new goes into the body where there may
/// be one.
fn rest(
    operation: &Operation,
    method: &str,
    template: &str,
    old: &OutRequest,
    arguments: &Value,
) -> Result<(RestCall, Vec<String>), Refusal> {
    let all = arguments.as_object().ok_or_else(|| wrong(operation, "", "must be an object"))?;
    let single = |name: &str| {
        let value = all.get(name).and_then(plain).filter(|v| !matches!(v.as_str(), "" | "." | ".."));
        value.ok_or_else(|| wrong(operation, name, "stands in the path: it must be one value"))
    };
    let part = |segment: &str| match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
        Some(name) => single(name),
        None => Ok(segment.to_owned()),
    };
    let segments = template.trim_start_matches('/').split('/').map(part).collect::<Result<Vec<_>, _>>()?;
    let values = operation.path_params.iter().map(|name| single(name)).collect::<Result<Vec<_>, _>>()?;
    let asked: Vec<String> = query(&old.target.path).map(|(name, _)| name).collect();
    let mut query = Vec::new();
    let mut members = Map::new();
    let bodiless = matches!(method, "GET" | "HEAD" | "DELETE") && old.body.is_empty();
    for (name, value) in all.iter().filter(|(name, _)| !operation.path_params.contains(name)) {
        if asked.contains(name) || bodiless {
            let text = plain(value).ok_or_else(|| wrong(operation, name, "stands in the URL: it must be one value"))?;
            query.push((name.clone(), text));
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    query.sort_by_key(|(name, _)| asked.iter().position(|n| n == name));
    let (body, json) = body(old, members);
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| wrong(operation, "", "has no method"))?;
    let content_type = old.content_type.clone().or_else(|| (!body.is_empty()).then(|| "application/json".to_owned()));
    Ok((RestCall { method, segments, query, content_type, body, json }, values))
}

fn query(path: &str) -> impl Iterator<Item = (String, String)> {
    let text = path.split_once('?').map_or("", |(_, query)| query);
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    text.split('&').filter(|p| !p.is_empty()).map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    })
}

/// The old bytes where they say the same.
fn body(old: &OutRequest, mut members: Map<String, Value>) -> (Bytes, Option<Value>) {
    let before = serde_json::from_slice::<Value>(&old.body).ok();
    let whole = members.get("body").filter(|_| members.len() == 1 && !before.as_ref().is_some_and(Value::is_object));
    if whole.is_some() && !old.body.is_empty() {
        let value = members.remove("body").unwrap_or_default();
        return match (&before, &value) {
            (Some(before), value) if before == value => (old.body.clone(), Some(value.clone())),
            (Some(_), value) => (Bytes::from(value.to_string()), Some(value.clone())),
            (None, Value::String(text)) => (Bytes::from(text.clone()), None),
            (None, value) => (Bytes::from(value.to_string()), None),
        };
    }
    if members.is_empty() && old.body.is_empty() {
        return (Bytes::new(), None);
    }
    let json = Value::Object(members);
    let same = before.as_ref() == Some(&json);
    (if same { old.body.clone() } else { Bytes::from(json.to_string()) }, Some(json))
}

#[derive(serde::Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    params: &'a RawValue,
}

#[derive(serde::Deserialize)]
struct Params<'a> {
    #[serde(borrow)]
    name: &'a RawValue,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

/// The old message with another name and other arguments; every other byte stays.
fn mcp(
    operation: &Operation,
    id: &str,
    protocol: Protocol,
    old: &[u8],
    arguments: &Value,
) -> Result<(McpCall, HeaderMap), Refusal> {
    let unfit = || wrong(operation, "", "only the arguments of a tool call can be changed");
    let text = std::str::from_utf8(old).map_err(|_| unfit())?;
    let message: Message<'_> = serde_json::from_str(text).map_err(|_| unfit())?;
    let params: Params<'_> = serde_json::from_str(message.params.get()).map_err(|_| unfit())?;
    let mut edits = Edits::default();
    edits.replace(text, params.name.get(), Value::from(operation.short.as_str()).to_string());
    match params.arguments {
        Some(given) => edits.replace(text, given.get(), arguments.to_string()),
        None => edits.insert_member(text, message.params.get(), &format!("\"arguments\":{arguments}")),
    }
    let body = edits.apply(text).ok_or_else(unfit)?;
    let message: Value = serde_json::from_str(&body).map_err(|_| unfit())?;
    let declared = operation.schema.as_deref().filter(|_| protocol == Protocol::McpModern);
    let made = declared.map(|d| mirrored::missing(d, arguments, &HeaderMap::new())).unwrap_or_default();
    let header =
        |(name, value): &(String, String)| Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?));
    let headers = made.iter().filter_map(header).collect();
    let id = RawValue::from_string(id.to_owned()).map_err(|_| unfit())?;
    let name = Some(operation.short.clone());
    let call = McpCall { protocol, id: Some(id), method: "tools/call".into(), name, message, body: Bytes::from(body) };
    Ok((call, headers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn old(path: &str, body: &str) -> OutRequest {
        OutRequest {
            target: crate::call::Target { method: "POST".into(), path: path.into() },
            content_type: Some("application/json".into()),
            body: Bytes::copy_from_slice(body.as_bytes()),
            headers: Vec::new(),
            rpc: None,
        }
    }

    #[test]
    fn unchanged_members_keep_their_bytes() {
        let given = old("/x", "{ \"a\": 1 }");
        let members = |v: Value| v.as_object().unwrap().clone();
        assert_eq!(body(&given, members(json!({"a": 1}))).0, given.body);
        assert_eq!(body(&given, members(json!({"a": 2}))).0.as_ref(), b"{\"a\":2}");
        let list = old("/x", "[1, 2]");
        assert_eq!(body(&list, members(json!({"body": [1, 2]}))).0, list.body);
        assert_eq!(body(&list, members(json!({"body": [1]}))).0.as_ref(), b"[1]");
        let text = old("/x", "plain");
        assert_eq!(body(&text, members(json!({"body": "other"}))).0.as_ref(), b"other");
    }

    #[test]
    fn a_query_is_read_as_it_was_written() {
        let pairs: Vec<_> = query("/a?b%20c=1%2F2&d=").collect();
        assert_eq!(pairs, [("b c".to_owned(), "1/2".to_owned()), ("d".to_owned(), String::new())]);
    }
}
