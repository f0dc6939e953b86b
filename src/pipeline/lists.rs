//! What the proxy changes in answers that carry no call: lists show what the principal may see, as it was accepted, and
//! discovery tells that held calls become tasks. Every other byte passes as it came.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::call::method::{self, Role};
use crate::call::splice::Edits;
use crate::call::sse::{Event, Splitter};
use crate::call::{
    Broken, Code, Digest, GrantOver, Outcome, Protocol, Refusal, Reply, ReplyBody, Timestamp, Tool, json,
};
use crate::config::lock::definition_digest;
use crate::gates::pins::{Pins, Saw};
use crate::store::{AuditNote, Grant, Store};
use crate::tasks;

use super::{Asking, Pipeline};

/// A list is asked for again after this long at the latest, ms: policies change.
const TTL_MS: u64 = 60_000;
/// An event of a stream that is listened to may have so many bytes.
const EVENT: usize = 16 << 20;
const QUEUE: usize = 16;

/// A session that was given out is remembered; a list is filtered.
///
/// # Errors
/// `invalid_answer` for a list that cannot be read: what cannot be read cannot be filtered.
pub(super) async fn answered(p: &Pipeline, a: &Asking<'_>, outcome: Outcome) -> Result<Outcome, Refusal> {
    let Outcome::Forwarded { call, tier, reply } = outcome else { return Ok(outcome) };
    p.sessions.made(a.principal, &a.call.operation().tool.name, &reply.headers);
    let operation = a.call.operation();
    let edited = operation.role == Role::Handshake
        && matches!(operation.short.as_str(), "tools/list" | "server/discover" | "stream");
    if !edited || !reply.status.is_success() {
        return Ok(Outcome::Forwarded { call, tier, reply });
    }
    let editor = Editor::new(p, a);
    let Reply { status, headers, body } = reply;
    let body = match body {
        ReplyBody::Stream(rx) if is_events(&headers) => ReplyBody::Stream(editor.events(rx)),
        body => {
            let bytes = whole(body, operation.limits.answer.min(EVENT)).await.map_err(|_| cut())?;
            ReplyBody::Whole(editor.message(bytes).map_err(|_| cut())?)
        }
    };
    Ok(Outcome::Forwarded { call, tier, reply: Reply { status, headers, body } })
}

/// Where held calls become tasks, whoever asks for a task must say that it understands them.
///
/// # Errors
/// -32021.
pub(super) fn declared(a: &Asking<'_>) -> Result<(), Refusal> {
    if !is_of_tasks(a) {
        return Ok(());
    }
    let asked: Value = serde_json::from_slice(&a.call.request().body).unwrap_or_default();
    method::undeclared_tasks(&asked).map_or(Ok(()), Err)
}

/// A server without tasks does not know these methods; the client must hear of its task, not of the method.
///
/// # Errors
/// -32602 in place of the server's -32601, which says that nothing was done.
pub(super) fn known_task(a: &Asking<'_>, outcome: Outcome) -> Result<Outcome, Refusal> {
    let Outcome::Forwarded { reply: Reply { body: ReplyBody::Whole(bytes), .. }, .. } = &outcome else {
        return Ok(outcome);
    };
    let code = || serde_json::from_slice::<Value>(bytes).ok().and_then(|m| m.pointer("/error/code")?.as_i64());
    if is_of_tasks(a) && code() == Some(-32601) { Err(method::unknown_task()) } else { Ok(outcome) }
}

/// A question about a task, in the modern era, at a tool whose calls may be held.
fn is_of_tasks(a: &Asking<'_>) -> bool {
    let operation = a.call.operation();
    let modern = matches!(a.call.request().rpc, Some((_, Protocol::McpModern)));
    let mut calls = a.s.config.tools.iter().filter(|t| t.tool.name == operation.tool.name).flat_map(|t| t.mcp.values());
    let verb = matches!(operation.short.as_str(), "tasks/get" | "tasks/update" | "tasks/cancel");
    modern && verb && operation.role == Role::Method && calls.any(|o| a.s.policies.may_hold(a.principal, o))
}

fn cut() -> Refusal {
    Refusal::new(Code::InvalidAnswer, "the list of tools could not be read")
}

fn is_events(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream")
}

async fn whole(body: ReplyBody, limit: usize) -> Result<Bytes, Broken> {
    let mut rx = match body {
        ReplyBody::Whole(bytes) => return Ok(bytes),
        ReplyBody::Stream(rx) => rx,
    };
    let mut all = Vec::new();
    while let Some(piece) = rx.recv().await {
        all.extend_from_slice(&piece?);
        if all.len() > limit {
            return Err(Broken);
        }
    }
    Ok(Bytes::from(all))
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListResult<'a> {
    #[serde(borrow)]
    tools: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    cache_scope: Option<&'a RawValue>,
    #[serde(borrow)]
    ttl_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    supported_versions: Option<&'a RawValue>,
    #[serde(borrow)]
    capabilities: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Capabilities<'a> {
    #[serde(borrow)]
    extensions: Option<&'a RawValue>,
}

/// Edits the messages of one answer, for one principal.
struct Editor {
    tool: Arc<Tool>,
    /// Every pinned name: its digest, and whether the principal may see it.
    pinned: HashMap<String, (Digest, bool)>,
    /// A call of this principal may be held, so tasks are offered.
    holds: bool,
    pins: Arc<Pins>,
    store: Arc<Store>,
    now: Timestamp,
}

impl Editor {
    fn new(p: &Pipeline, a: &Asking<'_>) -> Self {
        let tool = Arc::clone(&a.call.operation().tool);
        let config = a.s.config.tools.iter().find(|t| t.tool.name == tool.name);
        let seen = |name: &String| {
            let operation = config.and_then(|c| c.mcp.get(name));
            operation.is_some_and(|o| a.s.policies.visible(a.principal, o))
        };
        let pinned = config.iter().flat_map(|c| &c.pins).map(|(n, l)| (n.clone(), (l.digest, seen(n)))).collect();
        let mut calls = config.into_iter().flat_map(|c| c.mcp.values());
        let holds = calls.any(|o| a.s.policies.may_hold(a.principal, o));
        Self { tool, pinned, holds, pins: Arc::clone(&p.pins), store: Arc::clone(&p.store), now: p.clock.now() }
    }

    /// One JSON-RPC message.
    fn message(&self, bytes: Bytes) -> Result<Bytes, Broken> {
        let text = std::str::from_utf8(&bytes).map_err(|_| Broken)?;
        Ok(self.edited(text)?.map_or_else(|| bytes.clone(), Bytes::from))
    }

    /// The message with what must change in it changed; none when it may pass as it is.
    fn edited(&self, text: &str) -> Result<Option<String>, Broken> {
        // What is no object is no message: a batch has not been one since 2025-06-18.
        if !text.trim_start().starts_with('{') {
            return Err(Broken);
        }
        let message: Message<'_> = serde_json::from_str(text).map_err(|_| Broken)?;
        let Some(result) = message.result.filter(|r| r.get().starts_with('{')) else { return Ok(None) };
        let result: ListResult<'_> = serde_json::from_str(result.get()).map_err(|_| Broken)?;
        let mut edits = Edits::default();
        let offers = self.holds && result.supported_versions.is_some();
        if let Some(tools) = &result.tools {
            self.list(text, tools, &mut edits);
        }
        if result.tools.is_some() || offers {
            for (member, wanted) in [(result.cache_scope, "\"private\"".to_owned()), (result.ttl_ms, ttl(&result))] {
                if let Some(member) = member.filter(|m| m.get() != wanted) {
                    edits.replace(text, member.get(), wanted);
                }
            }
        }
        if let (true, Some(capabilities)) = (offers, result.capabilities) {
            offer(text, capabilities, &mut edits)?;
        }
        Ok(edits.apply(text))
    }

    /// Leaves out what the principal may not see, and what nobody has accepted.
    fn list(&self, text: &str, tools: &[&RawValue], edits: &mut Edits) {
        let kept: Vec<&str> = tools.iter().map(|t| t.get()).filter(|t| self.shows(t)).collect();
        if let (Some(first), Some(last)) = (tools.first(), tools.last())
            && kept.len() < tools.len()
        {
            edits.replace_span(text, first.get(), last.get(), kept.join(","));
        }
    }

    fn shows(&self, definition: &str) -> bool {
        // Read strictly: what two readers may read differently is not what was accepted.
        let Ok(definition) = json::read_any_number(definition.as_bytes()) else {
            tracing::warn!(tool.name = self.tool.name, "a tool's definition is no JSON as accepted; it is not shown");
            return false;
        };
        let name = definition.get("name").and_then(Value::as_str).unwrap_or_default();
        let pin = self.pinned.get(name);
        let saw = self.pins.saw(&self.tool.name, name, pin.map(|(digest, _)| *digest), &definition, self.now);
        if saw == Saw::News {
            self.tell(name, &definition);
        }
        saw == Saw::Accepted && pin.is_some_and(|(_, visible)| *visible)
    }

    /// Once for each definition: in the log and in the journal.
    fn tell(&self, name: &str, definition: &Value) {
        let tool = &self.tool.name;
        tracing::warn!(
            tool.name = tool,
            name = name.escape_debug().to_string(),
            "a tool's definition is not the accepted one; it is paused: see `holdpoint lock --dry-run {tool}`"
        );
        let digest = definition_digest(definition).to_string();
        let more = [("tool", tool.as_str()), ("name", name), ("definition_digest", digest.as_str())];
        let more = more.into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect();
        let (store, note) = (Arc::clone(&self.store), AuditNote::plain("tool.paused", more));
        let operation = format!("{tool}.{name}");
        tasks::spawn(async move {
            let changed = |g: &Grant| (g.operation == operation).then_some(GrantOver::ToolChanged);
            if let Err(fault) = store.end_grants(None, changed).await {
                tracing::error!(fault = %fault.chain(), "the grants of a changed tool could not be ended");
            }
            if let Err(fault) = store.append(note, false).await {
                tracing::error!(fault = %fault.chain(), "that a tool is paused could not be recorded");
            }
        });
    }

    /// A stream of events, each edited by itself.
    fn events(self, mut from: mpsc::Receiver<Result<Bytes, Broken>>) -> mpsc::Receiver<Result<Bytes, Broken>> {
        let (tx, rx) = mpsc::channel(QUEUE);
        tasks::spawn(async move {
            let mut splitter = Splitter::new(EVENT);
            loop {
                let next = tokio::select! {
                    next = from.recv() => next,
                    () = tx.closed() => return,
                };
                let last = !matches!(next, Some(Ok(_)));
                let pieces = match next {
                    // An event without its blank line is none.
                    None => Ok(Vec::new()),
                    Some(bytes) => bytes.and_then(|bytes| self.pieces(&mut splitter, &bytes)),
                };
                if deliver(&tx, pieces).await.is_err() || last {
                    return;
                }
            }
        });
        rx
    }

    fn pieces(&self, splitter: &mut Splitter, bytes: &Bytes) -> Result<Vec<Bytes>, Broken> {
        let events = splitter.push(bytes).map_err(|_| Broken)?;
        events.into_iter().map(|event| self.event(event)).collect()
    }

    fn event(&self, event: Event) -> Result<Bytes, Broken> {
        let Some(data) = event.data.as_deref().filter(|d| !d.is_empty()) else { return Ok(event.raw) };
        Ok(self.edited(data)?.map_or_else(|| event.raw.clone(), |edited| event.with_data(&edited)))
    }
}

/// Sends pieces on; errs when nobody listens, or the answer has broken off.
async fn deliver(tx: &mpsc::Sender<Result<Bytes, Broken>>, pieces: Result<Vec<Bytes>, Broken>) -> Result<(), Broken> {
    let all = match pieces {
        Ok(all) => all,
        Err(broken) => {
            tracing::warn!("a stream of events could not be read; it is cut");
            return tx.send(Err(broken)).await.map_err(|_| Broken).and(Err(broken));
        }
    };
    for piece in all.into_iter().filter(|p| !p.is_empty()) {
        tx.send(Ok(piece)).await.map_err(|_| Broken)?;
    }
    Ok(())
}

/// The server's own time, up to ours.
fn ttl(result: &ListResult<'_>) -> String {
    let given = result.ttl_ms.and_then(|t| t.get().parse::<u64>().ok());
    given.map_or_else(|| "0".to_owned(), |ms| ms.min(TTL_MS).to_string())
}

/// Tells clients that a call may become a task, where the server itself does not.
fn offer(text: &str, capabilities: &RawValue, edits: &mut Edits) -> Result<(), Broken> {
    const TASKS: &str = "\"io.modelcontextprotocol/tasks\":{}";
    let own: Capabilities<'_> = serde_json::from_str(capabilities.get()).map_err(|_| Broken)?;
    match own.extensions {
        None => edits.insert_member(text, capabilities.get(), &format!("\"extensions\":{{{TASKS}}}")),
        Some(extensions) => {
            let known: HashMap<String, &RawValue> = serde_json::from_str(extensions.get()).map_err(|_| Broken)?;
            if !known.contains_key("io.modelcontextprotocol/tasks") {
                edits.insert_member(text, extensions.get(), TASKS);
            }
        }
    }
    Ok(())
}
