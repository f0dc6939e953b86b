//! An MCP client of the proxy's own, over HTTP: requests in the era that the server speaks, with the tool's credential.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::call::IDLE;

use super::answer::is;
use super::endpoint::Origin;
use super::flow::{Flow, Piece, Raw};
use super::pool::{Freshness, Pool, SendError};
use super::started::Started;
use super::{Out, own};

const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";
/// One request at a time: its id can be the same.
const ID: u32 = 1;

/// One client, and its session where the server has such.
#[derive(Debug)]
pub(super) struct Client {
    endpoint: Arc<Origin>,
    path: String,
    pool: Arc<Pool>,
    head: HeaderMap,
    /// Longest answer, bytes.
    limit: usize,
    modern: bool,
}

impl Client {
    /// A client that has said nothing yet; the credential stands in `head`.
    pub(super) fn new(endpoint: &Arc<Origin>, base: &str, pool: Arc<Pool>, mut head: HeaderMap, limit: usize) -> Self {
        own(&mut head, endpoint);
        head.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        head.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let path = if base.is_empty() { "/".to_owned() } else { base.to_owned() };
        Self { endpoint: Arc::clone(endpoint), path, pool, head, limit, modern: true }
    }

    /// Finds out in which era the server speaks; one of the old era is greeted.
    ///
    /// # Errors
    /// Why it does not speak with us.
    pub(super) async fn begin(&mut self) -> Result<(), String> {
        // A server of the old era does not know this method, or refuses the request as a whole.
        let discovered = self.ask("server/discover", json!({}), &[]).await;
        if discovered.is_ok() {
            return Ok(());
        }
        self.modern = false;
        let client = json!({"name": "holdpoint", "version": env!("CARGO_PKG_VERSION")});
        let params = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client});
        let result: Value = parsed(&self.ask("initialize", params, &[]).await?)?;
        let version = result.get("protocolVersion").and_then(Value::as_str).unwrap_or(LEGACY).to_owned();
        self.head.insert("mcp-protocol-version", HeaderValue::from_str(&version).map_err(|e| e.to_string())?);
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        self.post(&ready, HeaderMap::new()).await.map(drop)
    }

    /// Ends the session, where there is one; whether that works makes no difference.
    pub(super) async fn goodbye(self) {
        if self.head.contains_key("mcp-session-id") {
            let sent = self.send(Method::DELETE, &Bytes::new(), &HeaderMap::new()).await;
            tracing::debug!(ok = sent.is_ok(), "session ended");
        }
    }

    /// The result of a request as it came; the headers are those that the modern era demands beside its method.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn ask(
        &mut self,
        method: &str,
        mut params: Value,
        headers: &[(String, String)],
    ) -> Result<String, String> {
        let mut head = HeaderMap::new();
        if self.modern {
            let meta = json!({
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientInfo": {"name": "holdpoint", "version": env!("CARGO_PKG_VERSION")},
                "io.modelcontextprotocol/clientCapabilities": {}});
            if let Some(params) = params.as_object_mut() {
                params.insert("_meta".into(), meta);
            }
            for (name, value) in headers {
                let name = name.parse::<HeaderName>().map_err(|e| e.to_string())?;
                head.insert(name, HeaderValue::from_str(value).map_err(|e| e.to_string())?);
            }
            head.insert("mcp-protocol-version", HeaderValue::from_static(MODERN));
            head.insert("mcp-method", HeaderValue::from_str(method).map_err(|e| e.to_string())?);
        }
        let message = json!({"jsonrpc": "2.0", "id": ID, "method": method, "params": params});
        result_of(method, &self.post(&message, head).await?.ok_or("no answer")?)
    }

    async fn send(
        &self,
        method: Method,
        body: &Bytes,
        more: &HeaderMap,
    ) -> Result<(http::Response<hyper::body::Incoming>, super::pool::Connection), String> {
        let request = || -> Out {
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = method.clone();
            *request.uri_mut() = self.path.parse().unwrap_or_default();
            *request.headers_mut() = self.head.clone();
            request.headers_mut().extend(more.clone());
            request
        };
        let key = format!("{}\nown session", self.endpoint.id());
        let sent = self.pool.send(&self.endpoint, &key, Freshness::Recent, &Started::default(), request).await;
        sent.map_err(SendError::why)
    }

    async fn post(&mut self, message: &Value, more: HeaderMap) -> Result<Option<String>, String> {
        let body = Bytes::from(message.to_string());
        let (response, connection) = self.send(Method::POST, &body, &more).await?;
        if let Some(id) = response.headers().get("mcp-session-id") {
            self.head.insert("mcp-session-id", id.clone());
        }
        let (status, events) = (response.status(), is(response.headers(), "text/event-stream"));
        let raw = Raw::new(response.into_body(), connection, self.limit, IDLE);
        let mut flow = if events { Flow::events(raw, &ID.to_string()) } else { Flow::bytes(raw, Bytes::new()) };
        let mut all = Vec::new();
        while let Some(piece) = flow.next().await {
            match piece? {
                Piece::Bytes(bytes) => all.extend_from_slice(&bytes),
                Piece::Response(_, message) => return Ok(Some(message)),
            }
        }
        match String::from_utf8(all) {
            Ok(text) if serde_json::from_str::<&RawValue>(&text).is_ok() => Ok(Some(text)),
            _ if status.is_success() => Ok(None),
            _ => Err(format!("status {status}")),
        }
    }
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<Value>,
}

/// The result in a response, as it stands.
///
/// # Errors
/// What the server says instead.
pub(super) fn result_of(method: &str, message: &str) -> Result<String, String> {
    let response: Response<'_> = serde_json::from_str(message).map_err(|e| format!("{method}: {e}"))?;
    match (response.result, response.error) {
        (Some(result), _) => Ok(result.get().to_owned()),
        (None, Some(error)) => Err(format!("{method}: {error}")),
        (None, None) => Err(format!("{method}: not a JSON-RPC answer")),
    }
}

/// A result as a value.
///
/// # Errors
/// When it is no JSON.
pub(super) fn parsed(result: &str) -> Result<Value, String> {
    serde_json::from_str(result).map_err(|e| e.to_string())
}
