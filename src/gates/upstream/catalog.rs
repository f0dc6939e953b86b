//! What an MCP server offers: `tools/list`, in the era that it speaks, page by page.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::call::IDLE;
use crate::clock::Clock;
use crate::config::UpstreamAuth;

use super::Out;
use super::answer::is;
use super::endpoint::{Endpoint, Origin};
use super::flow::{Flow, Piece, Raw};
use super::pool::{Freshness, Pool, SendError};
use super::started::Started;

const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";
const TIME: Duration = Duration::from_secs(60);
pub(super) const PAGES: usize = 1_000;

/// All tool definitions of the server.
///
/// # Errors
/// Why they cannot be had.
pub async fn catalog(endpoint: &Endpoint, base: &str, clock: Arc<dyn Clock>) -> Result<Vec<Value>, String> {
    let listed = async {
        match endpoint {
            Endpoint::Http(origin) => list(origin, base, clock).await,
            Endpoint::Stdio(server) => server.list().await,
        }
    };
    match tokio::time::timeout(TIME, listed).await {
        Ok(list) => list,
        Err(_) => Err("no answer in time".into()),
    }
}

async fn list(endpoint: &Origin, base: &str, clock: Arc<dyn Clock>) -> Result<Vec<Value>, String> {
    let client = Client {
        endpoint,
        path: if base.is_empty() { "/".to_owned() } else { base.to_owned() },
        pool: Arc::new(Pool::new(clock)),
        head: head(endpoint)?,
        modern: true,
    };
    client.list().await
}

fn head(endpoint: &Origin) -> Result<HeaderMap, String> {
    let mut head = HeaderMap::new();
    head.insert(HOST, endpoint.host_header().clone());
    head.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    head.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    match endpoint.auth() {
        UpstreamAuth::None => {}
        UpstreamAuth::Header(name, secret) => {
            let value = HeaderValue::from_str(secret.reveal()).map_err(|_| "the credential is not a header value")?;
            head.insert(name.clone(), value);
        }
        UpstreamAuth::PassThrough => {
            let token = std::env::var("HOLDPOINT_LOCK_TOKEN")
                .map_err(|_| "`auth: pass_through`: set HOLDPOINT_LOCK_TOKEN to a token of the upstream")?;
            let value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| "not a header value")?;
            head.insert(AUTHORIZATION, value);
        }
    }
    Ok(head)
}

struct Client<'a> {
    endpoint: &'a Origin,
    path: String,
    pool: Arc<Pool>,
    head: HeaderMap,
    modern: bool,
}

impl Client<'_> {
    async fn list(mut self) -> Result<Vec<Value>, String> {
        // A server of the old era does not know this method, or refuses the request as a whole.
        let discovered = self.ask("server/discover", json!({})).await;
        if discovered.is_err() {
            self.modern = false;
            self.hello().await?;
        }
        let mut all = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..PAGES {
            let params = cursor.as_ref().map_or_else(|| json!({}), |c| json!({"cursor": c}));
            let result = self.ask("tools/list", params).await?;
            let tools = result.get("tools").and_then(Value::as_array).ok_or("the answer has no `tools`")?;
            all.extend(tools.iter().cloned());
            cursor = result.get("nextCursor").and_then(Value::as_str).map(str::to_owned);
            if cursor.is_none() {
                self.goodbye().await;
                return Ok(all);
            }
        }
        Err("the list of tools does not end".into())
    }

    async fn hello(&mut self) -> Result<(), String> {
        let client = json!({"name": "holdpoint", "version": env!("CARGO_PKG_VERSION")});
        let params = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client});
        let result = self.ask("initialize", params).await?;
        let version = result.get("protocolVersion").and_then(Value::as_str).unwrap_or(LEGACY).to_owned();
        self.head.insert("mcp-protocol-version", HeaderValue::from_str(&version).map_err(|e| e.to_string())?);
        self.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}), None).await.map(|_| ())
    }

    async fn goodbye(&mut self) {
        if self.head.contains_key("mcp-session-id") {
            let request = || self.request(Method::DELETE, Bytes::new(), &HeaderMap::new());
            let sent = self.pool.send(self.endpoint, "", Freshness::Recent, &Started::default(), request).await;
            tracing::debug!(ok = sent.is_ok(), "session ended");
        }
    }

    async fn ask(&mut self, method: &str, mut params: Value) -> Result<Value, String> {
        let mut head = HeaderMap::new();
        if self.modern {
            let meta = json!({
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientInfo": {"name": "holdpoint", "version": env!("CARGO_PKG_VERSION")},
                "io.modelcontextprotocol/clientCapabilities": {}});
            if let Some(params) = params.as_object_mut() {
                params.insert("_meta".into(), meta);
            }
            head.insert("mcp-protocol-version", HeaderValue::from_static(MODERN));
            head.insert("mcp-method", HeaderValue::from_str(method).map_err(|e| e.to_string())?);
        }
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let answer = self.post(&message, Some(head)).await?.ok_or("no answer")?;
        match (answer.get("result"), answer.get("error")) {
            (Some(result), _) => Ok(result.clone()),
            (None, Some(error)) => Err(format!("{method}: {error}")),
            (None, None) => Err(format!("{method}: not a JSON-RPC answer")),
        }
    }

    fn request(&self, method: Method, body: Bytes, more: &HeaderMap) -> Out {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.path.parse().unwrap_or_default();
        *request.headers_mut() = self.head.clone();
        request.headers_mut().extend(more.clone());
        request
    }

    async fn post(&mut self, message: &Value, more: Option<HeaderMap>) -> Result<Option<Value>, String> {
        let body = Bytes::from(message.to_string());
        let more = more.unwrap_or_default();
        let request = || self.request(Method::POST, body.clone(), &more);
        let sent = self.pool.send(self.endpoint, "", Freshness::Recent, &Started::default(), request).await;
        let (response, connection) = sent.map_err(SendError::why)?;
        if let Some(id) = response.headers().get("mcp-session-id") {
            self.head.insert("mcp-session-id", id.clone());
        }
        let (status, events) = (response.status(), is(response.headers(), "text/event-stream"));
        let raw = Raw::new(response.into_body(), connection, 64 << 20, IDLE);
        let mut flow = if events { Flow::events(raw, "1") } else { Flow::bytes(raw, Bytes::new()) };
        let mut all = Vec::new();
        while let Some(piece) = flow.next().await {
            match piece? {
                Piece::Bytes(bytes) => all.extend_from_slice(&bytes),
                Piece::Response(_, message) => {
                    return serde_json::from_str(&message).map(Some).map_err(|e| e.to_string());
                }
            }
        }
        match serde_json::from_slice(&all) {
            Ok(answer) => Ok(Some(answer)),
            Err(_) if status.is_success() => Ok(None),
            Err(_) => Err(format!("status {status}")),
        }
    }
}
