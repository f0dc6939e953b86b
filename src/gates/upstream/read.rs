//! Requests of the proxy's own that find something out about one call: with the tool's credential, bounded, no redirects.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::call::{
    Call, IDLE, Operation, OutRequest, Part, ReadRule, ToolKind, encode_part, encode_path, redacted, tool_result,
};
use crate::tasks;

use super::client::Client;
use super::endpoint::{Endpoint, Origin};
use super::flow::{Flow, Piece, Raw};
use super::pool::{Freshness, SendError};
use super::started::Started;
use super::{CONNECT, Out, Upstreams, credential, own, pool_key};

/// A longer answer says nothing.
const LIMIT: usize = 1 << 20;

/// What a read was answered.
#[derive(Debug)]
pub struct Read {
    /// The target that was read, below the upstream's base.
    pub target: String,
    /// The answer's status.
    pub status: StatusCode,
    /// Its entity tag.
    pub etag: Option<String>,
    /// Its bytes.
    pub body: Bytes,
}

impl Upstreams {
    /// Asks an upstream about one call; a dry run carries the call's own body. At most 1 MiB of answer, few at a time.
    ///
    /// # Errors
    /// Why it could not be asked: that says nothing of the call.
    pub async fn read(
        &self,
        endpoint: &Endpoint,
        base: &str,
        rule: &ReadRule,
        call: &Call,
        body: Option<Bytes>,
        within: Duration,
    ) -> Result<Read, String> {
        let Endpoint::Http(endpoint) = endpoint else { return Err("a command has no such read".into()) };
        let target = target(rule, call)?;
        let content_type = call.request().content_type.as_deref().filter(|_| body.is_some());
        let body = body.unwrap_or_default();
        let request = request(endpoint, (&rule.method, &format!("{base}{target}")), content_type, body)?;
        let (status, etag, body) = self.bounded(within, self.ask(endpoint, request)).await?;
        Ok(Read { target, status, etag, body })
    }

    /// Asks a read operation for the proxy itself, with arguments that its schema has accepted. Bounded like
    /// [`Upstreams::read`]; of an MCP tool the bytes are what its result says, as JSON.
    ///
    /// # Errors
    /// Why it could not be asked, or what an MCP server says instead of a result.
    pub async fn read_by(
        &self,
        endpoint: &Endpoint,
        base: &str,
        operation: &Operation,
        (arguments, asked): (Value, OutRequest),
        within: Duration,
    ) -> Result<Read, String> {
        let shown = redacted(&arguments, &operation.redact);
        let params = json!({"name": operation.short, "arguments": arguments});
        let result = match endpoint {
            Endpoint::Http(origin) if operation.tool.kind == ToolKind::Rest => {
                let target = asked.target.path.strip_prefix(base).unwrap_or(&asked.target.path).to_owned();
                let to = (asked.target.method.as_str(), asked.target.path.as_str());
                let request = request(origin, to, asked.content_type.as_deref(), asked.body)?;
                let (status, etag, body) = self.bounded(within, self.ask(origin, request)).await?;
                return Ok(Read { target, status, etag, body });
            }
            Endpoint::Http(origin) => self.bounded(within, self.tool(origin, base, params, &asked.headers)).await?,
            Endpoint::Stdio(server) => self.bounded(within, server.result("tools/call", &params)).await?,
        };
        if result.len() > LIMIT {
            return Err(format!("its answer is over {LIMIT} bytes"));
        }
        let body = Bytes::from(tool_result(&result)?);
        Ok(Read { target: format!("{} {shown}", operation.short), status: StatusCode::OK, etag: None, body })
    }

    /// A tool of an MCP server, asked in a session of its own.
    async fn tool(
        &self,
        origin: &Arc<Origin>,
        base: &str,
        params: Value,
        headers: &[(String, String)],
    ) -> Result<String, String> {
        let mut head = HeaderMap::new();
        credential(&mut head, origin, None)?;
        let mut client = Client::new(origin, base, Arc::clone(&self.pool), head, LIMIT);
        client.begin().await?;
        let result = client.ask("tools/call", params, headers).await;
        // A server that does not answer this must not cost the read its answer.
        tasks::spawn(async move {
            if tokio::time::timeout(CONNECT, client.goodbye()).await.is_err() {
                tracing::debug!("an own MCP session was not ended in time");
            }
        });
        result
    }

    /// Few at a time, and not for long.
    async fn bounded<T>(&self, within: Duration, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        let _place = self.probes.try_acquire().map_err(|_| "too many such reads are under way".to_owned())?;
        tokio::time::timeout(within, work).await.map_err(|_| "it did not answer in time".to_owned())?
    }

    async fn ask(&self, endpoint: &Arc<Origin>, request: Out) -> Result<(StatusCode, Option<String>, Bytes), String> {
        let key = pool_key(endpoint, None);
        let sent = self.pool.send(endpoint, &key, Freshness::Any, &Started::default(), || request.clone()).await;
        let (response, connection) = sent.map_err(SendError::why)?;
        let status = response.status();
        let etag = response.headers().get(ETAG).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let mut flow = Flow::bytes(Raw::new(response.into_body(), connection, LIMIT, IDLE), Bytes::new());
        let mut all = Vec::new();
        while let Some(piece) = flow.next().await {
            if let Piece::Bytes(bytes) = piece? {
                all.extend_from_slice(&bytes);
            }
        }
        Ok((status, etag, Bytes::from(all)))
    }
}

fn request(
    endpoint: &Origin,
    (method, path): (&str, &str),
    content_type: Option<&str>,
    body: Bytes,
) -> Result<Out, String> {
    let mut head = HeaderMap::new();
    own(&mut head, endpoint);
    head.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(content_type) = content_type.and_then(|t| HeaderValue::from_str(t).ok()) {
        head.insert(CONTENT_TYPE, content_type);
    }
    credential(&mut head, endpoint, None)?;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::from_bytes(method.as_bytes()).map_err(|_| "the method is none".to_owned())?;
    *request.uri_mut() = path.parse().map_err(|_| "the target is no URL".to_owned())?;
    *request.headers_mut() = head;
    Ok(request)
}

/// The read's target for one call.
///
/// # Errors
/// When a placeholder stands for nothing that the upstream was told of this call.
fn target(rule: &ReadRule, call: &Call) -> Result<String, String> {
    let path = rule.path.iter().map(|p| value(p, call)).collect::<Result<Vec<_>, _>>()?;
    if path.iter().any(|p| matches!(p.as_str(), "" | "." | "..")) {
        return Err("a part of its path would be empty or a dot segment".into());
    }
    let pair =
        |(name, part): &(String, Part)| Ok(format!("{}={}", encode_part(name), encode_part(&value(part, call)?)));
    let query = rule.query.iter().map(pair).collect::<Result<Vec<_>, String>>()?;
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    Ok(format!("{}{query}", encode_path(path.iter().map(String::as_str))))
}

fn value(part: &Part, call: &Call) -> Result<String, String> {
    let id = call.id().to_string();
    match part {
        Part::Text(text) => Ok(text.clone()),
        Part::Key => told_key(call).ok_or_else(|| "the upstream was told no key of this call".into()),
        Part::Call if call.upstream_key().as_ref() == Some(&id) => Ok(id),
        Part::Call => Err("the upstream was told the client's key, not the call's id".into()),
        Part::Argument(name) => {
            let given = call.arguments().get(name).and_then(plain);
            given.ok_or_else(|| format!("the call has no single value `{name}`"))
        }
    }
}

/// The key in the header, else the one that stands in the arguments. A key that only we know proves nothing.
fn told_key(call: &Call) -> Option<String> {
    let pointer = call.operation().idempotency.pointer.as_deref();
    call.upstream_key().or_else(|| pointer.and_then(|p| call.arguments().pointer(p)).and_then(plain))
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}
