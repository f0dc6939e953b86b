//! The agent: an ordinary client that knows a base URL and a key, and nothing of Holdpoint but how to come back.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use super::http::{Answer, send, send_text};

/// The scripted agent.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) key: String,
    pub(super) proxy: SocketAddr,
}

/// An answer and how long it took.
#[derive(Debug)]
pub(super) struct Timed {
    pub(super) answer: Answer,
    pub(super) took: Duration,
}

impl Timed {
    /// The same call is being sent right now: come back.
    pub(super) fn in_flight(&self) -> bool {
        let json = &self.answer.json;
        let code = json.get("code").or_else(|| json.pointer("/result/_meta/dev.holdpoint~1refusal/code"));
        code.and_then(Value::as_str) == Some("in_flight")
    }
}

impl Agent {
    #[expect(clippy::disallowed_methods, reason = "the outside world has no injected clock")]
    async fn ask(
        &self,
        method: Method,
        path: &str,
        more: &[(&str, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<Timed> {
        let bearer = format!("Bearer {}", self.key);
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend_from_slice(more);
        let started = Instant::now();
        let answer = send(self.proxy, method, path, &headers, body).await?;
        Ok(Timed { answer, took: started.elapsed() })
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Timed> {
        self.ask(Method::GET, path, &[], None).await
    }

    pub(super) async fn update(&self, customer: &str, patch: &Value) -> anyhow::Result<Timed> {
        self.ask(Method::PATCH, &format!("/crm/customers/{customer}"), &[], Some(patch)).await
    }

    /// A body that no careful client would send.
    pub(super) async fn raw(&self, path: &str, body: &str) -> anyhow::Result<Answer> {
        let bearer = format!("Bearer {}", self.key);
        send_text(self.proxy, Method::POST, path, &[("authorization", bearer.as_str())], Some(body)).await
    }

    /// Asks for a refund, under a key of its own as a careful client would.
    pub(super) async fn refund(&self, order: &str, minor: i64, key: &str, evidence: &str) -> anyhow::Result<Timed> {
        let body = json!({"customerId": "c_204", "amountMinor": minor, "currency": "EUR", "reason": "charged twice"});
        let mut more = vec![("idempotency-key", key), ("holdpoint-step", "refund")];
        let intent = "Customer was charged twice; refund the second charge.";
        more.push(("holdpoint-intent", intent));
        if !evidence.is_empty() {
            more.push(("holdpoint-evidence", evidence));
        }
        self.ask(Method::POST, &format!("/crm/orders/{order}/refunds"), &more, Some(&body)).await
    }

    /// Puts evidence before a call; gives its id.
    pub(super) async fn evidence(&self, kind: &str, title: &str, text: &str) -> anyhow::Result<String> {
        let body = json!({"kind": kind, "title": title, "text": text});
        let put = self.ask(Method::POST, "/-/evidence", &[], Some(&body)).await?;
        let id = put.answer.json.get("artifact").and_then(Value::as_str);
        id.map(str::to_owned).ok_or_else(|| anyhow::anyhow!("evidence was not taken: {}", put.answer.json))
    }

    /// One MCP message in the modern era.
    pub(super) async fn mcp(&self, id: u32, method: &str, mut params: Value) -> anyhow::Result<Timed> {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "demo-agent", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {}});
        if let Some(params) = params.as_object_mut() {
            params.insert("_meta".into(), meta);
        }
        let name = params.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let mut more = vec![
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", method),
        ];
        if !name.is_empty() {
            more.push(("mcp-name", &name));
        }
        self.ask(Method::POST, "/tickets/mcp", &more, Some(&message)).await
    }
}
