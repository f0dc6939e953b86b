//! The toy ticket server: MCP over Streamable HTTP, both eras, four tools.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use http::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::http::{Asked, serve};

/// Tickets that were hard-deleted.
#[derive(Debug, Clone, Default)]
pub(super) struct Deleted(Arc<Mutex<BTreeSet<String>>>);

impl Deleted {
    pub(super) fn ids(&self) -> BTreeSet<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(super) fn start(listener: TcpListener) -> Deleted {
    let deleted = Deleted::default();
    let gone = deleted.clone();
    serve(listener, move |asked| {
        let answer = answer(&gone, &asked);
        async move { answer }
    });
    deleted
}

fn answer(gone: &Deleted, asked: &Asked) -> (StatusCode, Value) {
    let message = &asked.json;
    let Some(id) = message.get("id") else { return (StatusCode::ACCEPTED, Value::Null) };
    let modern = message.pointer("/params/_meta/io.modelcontextprotocol~1protocolVersion").is_some();
    let mut result = match message.get("method").and_then(Value::as_str) {
        Some("initialize") => json!({
            "protocolVersion": message.pointer("/params/protocolVersion").cloned().unwrap_or_else(|| "2025-11-25".into()),
            "capabilities": {"tools": {}}, "serverInfo": {"name": "toy-tickets", "version": "1"}}),
        Some("server/discover") => json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
            "ttlMs": 60000, "cacheScope": "public"}),
        Some("tools/list") => json!({"tools": definitions(), "ttlMs": 60000, "cacheScope": "public"}),
        Some("tools/call") => call(gone, message),
        _ => {
            let error = json!({"code": -32601, "message": "method not found"});
            return (StatusCode::OK, json!({"jsonrpc": "2.0", "id": id, "error": error}));
        }
    };
    if let (true, Some(result)) = (modern, result.as_object_mut()) {
        result.insert("resultType".into(), "complete".into());
    }
    (StatusCode::OK, json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

/// The definitions that `deploy/demo/tickets.lock.json` pins.
fn definitions() -> Value {
    let tool = |name: &str, description: &str, properties: Value, required: &[&str]| {
        json!({"name": name, "description": description,
               "inputSchema": {"type": "object", "properties": properties, "required": required}})
    };
    let text = || json!({"type": "string", "minLength": 1, "maxLength": 2000});
    json!([
        tool("search_tickets", "Find tickets by words", json!({"query": text()}), &["query"]),
        tool("get_ticket", "Read one ticket", json!({"ticketId": text()}), &["ticketId"]),
        tool(
            "add_comment",
            "Add a comment to a ticket",
            json!({"ticketId": text(), "text": text()}),
            &["ticketId", "text"]
        ),
        tool(
            "delete_ticket",
            "Delete a ticket; hard deletes cannot be undone",
            json!({"ticketId": text(), "hard": {"type": "boolean"}}),
            &["ticketId"]
        ),
    ])
}

fn call(gone: &Deleted, message: &Value) -> Value {
    let argument = |name: &str| message.pointer(&format!("/params/arguments/{name}")).cloned().unwrap_or_default();
    let ticket = argument("ticketId").as_str().unwrap_or_default().to_owned();
    let text = match message.pointer("/params/name").and_then(Value::as_str) {
        Some("search_tickets") => "T-4410 double charged; T-5512 spam".to_owned(),
        Some("get_ticket") => format!("{ticket}: double charged, order o_881"),
        Some("add_comment") => format!("commented on {ticket}"),
        Some("delete_ticket") => {
            gone.0.lock().unwrap_or_else(PoisonError::into_inner).insert(ticket.clone());
            format!("deleted {ticket}")
        }
        _ => return json!({"isError": true, "content": [{"type": "text", "text": "no such tool"}]}),
    };
    json!({"content": [{"type": "text", "text": text}]})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::lock::Lock;

    #[test]
    fn the_lock_file_pins_what_the_server_offers() {
        let offered = Lock::of("tickets", definitions().as_array().unwrap().clone());
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/demo/tickets.lock.json");
        if std::env::var_os("HOLDPOINT_WRITE_LOCK").is_some() {
            std::fs::write(path, offered.text()).unwrap();
        }
        assert_eq!(Lock::parse(&std::fs::read_to_string(path).unwrap(), "tickets").unwrap(), offered);
    }
}
