//! Arguments against the operation's schema, defaults filled in: a `Draft` becomes a `Call`, or every violation at once.

mod compile;
mod gather;
mod mirrored;
mod rebuild;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::call::method::{self, Role};
use crate::call::{
    Call, Checked, Code, Draft, McpCall, Message, Operation, Otherwise, OutRequest, Preference, Principal, Protocol,
    Refusal, RestCall, Target, Tool, ToolKind, Violation, encode_part, encode_path, is_redacted,
};
use crate::call::{confusable, mrtr, sentinel};
use crate::clock::Clock;

use self::compile::Compiled;

/// A schema by itself, before there is an operation.
#[derive(Debug)]
pub struct Checker(Compiled);

impl Checker {
    /// Compiles the schema as that of an operation.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn new(schema: &Value) -> Result<Self, String> {
        compile::compile(Some(schema)).map(Self)
    }

    /// Whether these arguments would pass.
    #[must_use]
    pub fn accepts(&self, arguments: &Value) -> bool {
        self.0.check(arguments).is_ok()
    }
}

/// The schemas of one configuration version.
#[derive(Debug)]
pub struct Schemas {
    operations: HashMap<String, Result<Compiled, String>>,
    /// Base path of each tool's upstream.
    bases: HashMap<String, String>,
    clock: Arc<dyn Clock>,
}

impl Schemas {
    /// Compiles the schema of every operation.
    #[must_use]
    pub fn new<'a>(
        operations: impl IntoIterator<Item = &'a Arc<Operation>>,
        bases: HashMap<String, String>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let compiled = |o: &Arc<Operation>| (o.name.clone(), compile::compile(o.schema.as_deref()));
        Self { operations: operations.into_iter().map(compiled).collect(), bases, clock }
    }

    /// Operations whose schema cannot be used, with the reason.
    pub fn broken(&self) -> impl Iterator<Item = (&str, &str)> {
        self.operations.iter().filter_map(|(n, c)| c.as_ref().err().map(|why| (n.as_str(), why.as_str())))
    }

    /// Checks the arguments and makes the call. What policy, approver, digest and upstream see is this one value.
    ///
    /// # Errors
    /// `invalid_arguments` with every violation, `malformed_request`, `key_required`, or `paused` for a schema that
    /// cannot be used.
    pub fn validate(&self, principal: &Principal, draft: Draft) -> Result<Call, Refusal> {
        let Draft { incoming, operation, path_values, context } = draft;
        let base = self.bases.get(&operation.tool.name).map_or("", String::as_str);
        let (arguments, request) = match incoming.message {
            Message::Broken(refusal) => return Err(refusal),
            Message::Rest(rest) => self.rest(&operation, base, rest, &path_values)?,
            Message::Mcp(mcp) => self.mcp(&operation, base, mcp, &incoming.headers)?,
        };
        let (key, key_derived) = key(&operation, incoming.hints.key, &arguments)?;
        let parts = Checked {
            id: incoming.id,
            arguments,
            request: OutRequest { headers: passed_on(&operation.tool, &incoming.headers, &request), ..request },
            key,
            key_derived,
            named_run: incoming.hints.run,
            context,
            evidence: incoming.hints.evidence,
            source_ip: incoming.peer,
            prefer: incoming.hints.prefer,
            poll: incoming.hints.poll,
            deadline: self.clock.instant() + operation.limits.deadline,
            operation,
        };
        Ok(checked(parts, principal))
    }

    /// The same call for the proxy to send by itself, once people have approved it.
    #[must_use]
    pub fn deferred(&self, principal: &Principal, call: &Call) -> Call {
        let body = std::str::from_utf8(&call.request().body).ok().and_then(|body| match call.request().rpc {
            Some((_, Protocol::McpModern)) => mrtr::deferred(body),
            Some(_) => mrtr::deferred_legacy(body),
            None => None,
        });
        let Some(body) = body else { return call.clone() };
        let request = OutRequest { body: Bytes::from(body), ..call.request().clone() };
        let parts = Checked { request, prefer: call.prefer(), ..rebuild::parts(call) };
        checked(parts, principal)
    }

    /// Checks arguments that were stored with a hold against today's schema.
    ///
    /// # Errors
    /// As [`Schemas::validate`].
    pub fn recheck(&self, operation: &Operation, arguments: &Value) -> Result<(), Refusal> {
        match self.compiled(operation)? {
            Some(schema) if operation.tool.kind == ToolKind::Mcp => {
                schema.check_mcp(arguments).map_err(|v| invalid(operation, v))
            }
            Some(schema) => schema.check(arguments).map_err(|v| invalid(operation, v)),
            None => Ok(()),
        }
    }

    /// Makes a call again of what was stored with a hold; its digest tells whether it is the same.
    ///
    /// # Errors
    /// As [`Schemas::validate`].
    pub fn restore(&self, principal: &Principal, mut parts: Checked) -> Result<Call, Refusal> {
        self.recheck(&parts.operation, &parts.arguments)?;
        parts.prefer = Preference::default();
        parts.deadline = self.clock.instant() + parts.operation.limits.deadline;
        Ok(checked(parts, principal))
    }

    fn compiled(&self, operation: &Operation) -> Result<Option<&Compiled>, Refusal> {
        match self.operations.get(&operation.name) {
            Some(Ok(compiled)) => Ok(Some(compiled)),
            Some(Err(_)) => {
                Err(Refusal::new(Code::Paused, "this tool's argument schema cannot be used; its owner can mend it"))
            }
            None => Ok(None),
        }
    }

    fn rest(
        &self,
        operation: &Arc<Operation>,
        base: &str,
        rest: RestCall,
        path_values: &[String],
    ) -> Result<(Value, OutRequest), Refusal> {
        if rest.body.len() > operation.limits.body {
            let text = format!("the body is over this operation's limit of {} bytes", operation.limits.body);
            return Err(Refusal::new(Code::BodyTooLarge, text));
        }
        let schema = self.compiled(operation)?;
        let given = operation.schema.as_deref().unwrap_or(&Value::Null);
        let mut arguments =
            gather::rest(given, operation, &rest, path_values).map_err(|v| invalid(operation, vec![v]))?;
        let filled = schema.map(|s| s.fill(&mut arguments)).unwrap_or_default();
        if let Some(schema) = schema {
            schema.check(&arguments).map_err(|v| invalid(operation, v))?;
        }
        let in_body = rest.json.as_ref().is_some_and(Value::is_object)
            || (rest.body.is_empty() && !matches!(rest.method.as_str(), "GET" | "HEAD" | "DELETE"));
        let secret = |name: &String| is_redacted(&format!("/{name}"), &operation.redact);
        if let Some((name, _)) = rest.query.iter().find(|(n, _)| secret(n)) {
            let message = "is redacted: it must stand in the body, never in a URL".to_owned();
            let violation = Violation { pointer: format!("/{name}"), keyword: "redact".into(), message };
            return Err(invalid(operation, vec![violation]));
        }
        let mut query = rest.query.clone();
        let mut body = rest.body.clone();
        let mut content_type = rest.content_type.clone();
        if filled && in_body {
            body = gather::body(&arguments, operation, &rest);
            content_type.get_or_insert_with(|| "application/json".into());
        } else if filled {
            query.extend(gather::missing_query(&arguments, operation, &rest));
        }
        let path = format!("{base}{}{}", encode_path(rest.segments.iter().map(String::as_str)), query_text(&query));
        let target = Target { method: rest.method.to_string(), path: if path.is_empty() { "/".into() } else { path } };
        Ok((arguments, OutRequest { target, content_type, body, headers: Vec::new(), rpc: None }))
    }

    fn mcp(
        &self,
        operation: &Arc<Operation>,
        base: &str,
        mcp: McpCall,
        headers: &http::HeaderMap,
    ) -> Result<(Value, OutRequest), Refusal> {
        let method = match mcp.method.as_str() {
            method::END_SESSION => "DELETE",
            method::STREAM => "GET",
            _ => "POST",
        };
        let path = if base.is_empty() { "/" } else { base };
        let mut body = mcp.body;
        if body.len() > operation.limits.body {
            let text = format!("the message is over this operation's limit of {} bytes", operation.limits.body);
            return Err(Refusal::new(Code::BodyTooLarge, text));
        }
        let mut arguments = Value::Object(serde_json::Map::new());
        let mut made = Vec::new();
        if mcp.method == "tools/call" {
            if mcp.id.is_none() {
                return Err(Refusal::new(Code::MalformedRequest, "`tools/call` needs an id"));
            }
            if let Some(given) = mcp.message.pointer("/params/arguments") {
                arguments = given.clone();
            }
            if let (Protocol::McpModern, Some(schema)) = (mcp.protocol, &operation.schema) {
                mirrored::check(schema, &arguments, headers)?;
            }
            confusable(operation, &arguments)?;
            if let Some(schema) = self.compiled(operation)? {
                schema.absent_nulls(&mut arguments);
                let filled = schema.fill(&mut arguments);
                schema.check_mcp(&arguments).map_err(|v| invalid(operation, v))?;
                if filled {
                    body = rewritten(mcp.message, &arguments);
                    let declared = operation.schema.as_deref().filter(|_| mcp.protocol == Protocol::McpModern);
                    made = declared.map(|d| mirrored::missing(d, &arguments, headers)).unwrap_or_default();
                }
            }
        } else if operation.role == Role::Method {
            arguments = parameters(&mcp.message);
            if let Some(schema) = self.compiled(operation)? {
                schema.check(&arguments).map_err(|v| invalid(operation, v))?;
            }
        }
        let mut routing = routing(&mcp.method, mcp.name.as_deref(), mcp.protocol, headers);
        routing.extend(made);
        let id = mcp.id.map(|id| id.get().to_owned()).unwrap_or_default();
        let era = if mcp.protocol == Protocol::McpModern { Protocol::McpModern } else { Protocol::McpLegacy };
        let content_type = (!body.is_empty()).then(|| "application/json".to_owned());
        let target = Target { method: method.into(), path: path.to_owned() };
        Ok((arguments, OutRequest { target, content_type, body, headers: routing, rpc: Some((id, era)) }))
    }
}

/// The one place that makes a call.
#[expect(clippy::disallowed_methods, reason = "the schema gate is the one place that makes a Call")]
fn checked(parts: Checked, principal: &Principal) -> Call {
    Call::checked(parts, principal)
}

/// The routing headers of the modern era, made anew from the body that was judged.
fn routing(method: &str, name: Option<&str>, protocol: Protocol, headers: &http::HeaderMap) -> Vec<(String, String)> {
    if protocol != Protocol::McpModern {
        return Vec::new();
    }
    let mut made = vec![("mcp-method".to_owned(), sentinel::encoded(method))];
    made.extend(name.map(|n| ("mcp-name".to_owned(), sentinel::encoded(n))));
    // Those that a schema asks for were compared with the body; others mean nothing to policy.
    let parameters = headers.iter().filter(|(n, _)| n.as_str().starts_with("mcp-param-"));
    made.extend(parameters.filter_map(|(n, v)| v.to_str().ok().map(|v| (n.as_str().to_owned(), v.to_owned()))));
    made
}

/// The parameters of a method, as policy sees them.
fn parameters(message: &Value) -> Value {
    let mut parameters = message.get("params").cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    if let Some(members) = parameters.as_object_mut() {
        members.remove("_meta");
    }
    parameters
}

/// An argument that a careless reader takes for a declared one.
fn confusable(operation: &Operation, arguments: &Value) -> Result<(), Refusal> {
    match operation.schema.as_deref().and_then(|schema| confusable::in_arguments(schema, arguments)) {
        None => Ok(()),
        Some(name) => {
            let message = "could be read as a declared argument".to_owned();
            let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            Err(invalid(operation, vec![Violation { pointer, keyword: "confusable".into(), message }]))
        }
    }
}

/// The message with defaults filled in, written once.
fn rewritten(mut message: Value, arguments: &Value) -> Bytes {
    if let Some(params) = message.get_mut("params").and_then(Value::as_object_mut) {
        params.insert("arguments".into(), arguments.clone());
    }
    Bytes::from(message.to_string())
}

fn query_text(query: &[(String, String)]) -> String {
    let pairs: Vec<String> = query.iter().map(|(n, v)| format!("{}={}", encode_part(n), encode_part(v))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

fn invalid(operation: &Operation, violations: Vec<Violation>) -> Refusal {
    let hide = |mut v: Violation| {
        if is_redacted(&v.pointer, &operation.redact) && !v.pointer.is_empty() {
            v.message = format!("breaks `{}`", v.keyword);
        }
        v
    };
    let violations: Vec<Violation> = violations.into_iter().map(hide).collect();
    let text = match violations.len() {
        1 => "the arguments break the operation's schema".to_owned(),
        n => format!("the arguments break the operation's schema in {n} places"),
    };
    Refusal::new(Code::InvalidArguments, text).with_errors(violations)
}

/// The key: given, found in the arguments, derived, or none.
fn key(operation: &Operation, given: Option<String>, arguments: &Value) -> Result<(Option<String>, bool), Refusal> {
    let rule = &operation.idempotency;
    let pointed = rule.pointer.as_ref().and_then(|p| arguments.pointer(p).map(|v| (p, v)));
    let pointed = match (given.is_none(), pointed) {
        (true, Some((at, value))) => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if !crate::call::is_key(&text) {
                let message = "must be an idempotency key: 1 to 255 characters of `A-Z a-z 0-9 _ . : -`".to_owned();
                let violation = Violation { pointer: at.clone(), keyword: "idempotency".into(), message };
                return Err(invalid(operation, vec![violation]));
            }
            Some(text)
        }
        _ => None,
    };
    match (given.or(pointed), rule.otherwise) {
        (Some(key), _) => Ok((Some(key), false)),
        (None, Otherwise::None) => Ok((None, false)),
        (None, Otherwise::Derive) => Ok((None, true)),
        (None, Otherwise::Require) => {
            Err(Refusal::new(Code::KeyRequired, "this operation demands an `Idempotency-Key`"))
        }
    }
}

/// Request headers that go upstream: a fixed list, what the tool lists, and those that we make from the body.
fn passed_on(tool: &Tool, headers: &http::HeaderMap, request: &OutRequest) -> Vec<(String, String)> {
    let fixed = ["accept", "traceparent", "tracestate", "baggage"];
    // Sessions and resumption ended with the old era.
    let legacy = matches!(request.rpc, Some((_, Protocol::McpLegacy)));
    let mcp =
        |name: &str| name == "mcp-protocol-version" || (legacy && matches!(name, "mcp-session-id" | "last-event-id"));
    let passes = |name: &str| {
        fixed.contains(&name)
            || (tool.kind == ToolKind::Mcp && mcp(name))
            || tool.forward_headers.iter().any(|h| h == name)
    };
    let text = |(n, v): (&http::HeaderName, &http::HeaderValue)| {
        v.to_str().ok().map(|v| (n.as_str().to_owned(), v.to_owned()))
    };
    let ours = request.headers.iter().cloned();
    headers.iter().filter(|(n, _)| passes(n.as_str())).filter_map(text).chain(ours).collect()
}
