//! Outcomes as JSON-RPC: the upstream's own answer, or an `isError` result that a model can read.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::call::{Code, Ended, Executed, HoldId, Outcome, Protocol, Refusal, Reply, ReplyBody};

use super::super::own::TaskReply;
use super::super::reply::{self, OutBody};
use super::Asked;

pub(super) fn answer(ended: Ended, asked: &Asked) -> Response<OutBody> {
    let mut added = HeaderMap::new();
    reply::add_ours(&mut added, &ended);
    let mut response = match ended.outcome {
        Outcome::Forwarded { reply, .. } => reply::upstream(reply),
        Outcome::Replayed { reply, .. } => replayed(reply, asked),
        Outcome::Held { ref refusal, .. } if asked.method != "tools/call" => error(asked, refusal),
        Outcome::Held { hold, times, .. } if asked.tasks => {
            super::task::answer(TaskReply::Told { hold, times, outcome: ended.outcome }, asked)
        }
        Outcome::Held { poll: Some(state), .. } if asked.protocol == Protocol::McpModern => {
            rpc(asked, StatusCode::OK, "result", &json!({"resultType": "input_required", "requestState": state}))
        }
        Outcome::Held { hold, refusal, .. } => held(hold, &refusal, asked),
        Outcome::Refused(refusal) => refused(&refusal, asked),
    };
    reply::join(response.headers_mut(), added);
    response
}

/// The stored answer under the new id; the `result` (or `error`) member byte for byte.
fn replayed(stored: Reply, asked: &Asked) -> Response<OutBody> {
    let Some(member) = stored_member(&stored) else { return reply::upstream(stored) };
    let (name, value) = match &member {
        StoredMember::Result(value) => ("result", value),
        StoredMember::Error(value) => ("error", value),
    };
    let id = asked.id.as_ref().map_or("null", |id| id.get());
    let body = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"{name}\":{}}}", value.get());
    let mut response = Response::new(OutBody::Whole(Some(Bytes::from(body))));
    *response.status_mut() = stored.status;
    *response.headers_mut() = stored.headers;
    response.headers_mut().remove(CONTENT_LENGTH);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// What a stored answer says, byte for byte.
pub(super) enum StoredMember {
    Result(Box<RawValue>),
    Error(Box<RawValue>),
}

/// The member of a stored JSON-RPC answer; none when it is no such answer.
pub(super) fn stored_member(stored: &Reply) -> Option<StoredMember> {
    #[derive(serde::Deserialize)]
    struct Stored<'a> {
        #[serde(borrow)]
        result: Option<&'a RawValue>,
        #[serde(borrow)]
        error: Option<&'a RawValue>,
    }
    let ReplyBody::Whole(bytes) = &stored.body else { return None };
    let message = serde_json::from_slice::<Stored<'_>>(bytes).ok()?;
    let result = message.result.map(|r| StoredMember::Result(r.to_owned()));
    result.or_else(|| message.error.map(|e| StoredMember::Error(e.to_owned())))
}

/// `mcp.md` 2.3.2: the text that works with every client.
fn held(hold: HoldId, refusal: &Refusal, asked: &Asked) -> Response<OutBody> {
    let name = asked.tool_name.as_deref().unwrap_or("the tool");
    let expires = refusal.extra("expires").and_then(Value::as_str).unwrap_or("later");
    let after = refusal.retry_after_s().unwrap_or(60);
    let approved = refusal.extra("state").and_then(Value::as_str) == Some("approved");
    let waits = || {
        format!(
            "APPROVED, NOT EXECUTED YET ({hold}). {} Call {name} again with exactly the same arguments after {after} seconds \
             for the real result; do not try another tool instead.",
            refusal.public_text()
        )
    };
    let held = format!(
        "HELD, NOT EXECUTED. This call needs human approval ({hold}, expires {expires}). To continue, call {name} again \
         with exactly the same arguments after {after} seconds; the repeated call attaches to this hold and returns the \
         real result once approved. Do not change the arguments and do not try another tool instead."
    );
    let text = if approved { waits() } else { held };
    let mut about = Map::new();
    about.insert("holdId".into(), hold.to_string().into());
    about.insert("state".into(), refusal.extra("state").cloned().unwrap_or_else(|| "held".into()));
    about.insert("retryAfterMs".into(), after.saturating_mul(1000).into());
    about.insert("attachBy".into(), "same-arguments".into());
    about.insert("expiresAt".into(), expires.into());
    for (from, to) in [
        ("args_digest", "argsDigest"),
        ("approval_url", "approvalUrl"),
        ("digest_code", "code"),
        ("not_before", "notBefore"),
    ] {
        if let Some(value) = refusal.extra(from) {
            about.insert(to.into(), value.clone());
        }
    }
    about.insert("policies".into(), json!(refusal.policies()));
    rpc(asked, StatusCode::OK, "result", &is_error(asked, &text, "dev.holdpoint/hold", Value::Object(about)))
}

fn refused(refusal: &Refusal, asked: &Asked) -> Response<OutBody> {
    let http_level =
        matches!(refusal.code(), Code::Unauthenticated | Code::MalformedRequest) || refusal.extra("session").is_some();
    if asked.method != "tools/call" || http_level {
        return error(asked, refusal);
    }
    rpc(asked, StatusCode::OK, "result", &refused_result(refusal, asked))
}

/// A refusal that a model can read.
pub(super) fn refused_result(refusal: &Refusal, asked: &Asked) -> Value {
    let done = match refusal.executed() {
        Executed::No => "NOT EXECUTED",
        Executed::Yes => "EXECUTED",
        Executed::Unknown => "IT MAY HAVE BEEN EXECUTED",
    };
    let words = refusal.code().as_str().replace('_', " ").to_uppercase();
    let mut text = format!("{words}, {done}. {}", refusal.public_text());
    for violation in refusal.members().get("errors").and_then(Value::as_array).into_iter().flatten() {
        let part = |name: &str| violation.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        text.push_str(&format!("\n{}: {}", part("pointer"), part("message")));
    }
    if let Some(s) = refusal.retry_after_s() {
        text.push_str(&format!("\nTry again after {s} seconds."));
    }
    is_error(asked, &text, "dev.holdpoint/refusal", Value::Object(refusal.members()))
}

/// `isError` and nothing beside it: the only shape that is safe with every client (`mcp.md` 1.2, 13 and 14).
fn is_error(asked: &Asked, text: &str, key: &str, about: Value) -> Value {
    let mut result = json!({"isError": true, "content": [{"type": "text", "text": text}], "_meta": {key: about}});
    if let (Protocol::McpModern, Some(result)) = (asked.protocol, result.as_object_mut()) {
        result.insert("resultType".into(), "complete".into());
    }
    result
}

/// A JSON-RPC error. In the modern era even an HTTP error carries one, or clients fall back to the old era.
pub(super) fn error(asked: &Asked, refusal: &Refusal) -> Response<OutBody> {
    let status = match (refusal.code(), asked.protocol) {
        (Code::Unauthenticated | Code::MalformedRequest | Code::UnsupportedEncoding | Code::BodyTooLarge, _) => {
            refusal.status()
        }
        (Code::UnknownTool, Protocol::McpModern) => StatusCode::NOT_FOUND,
        (Code::UnknownTool, _) if refusal.extra("session").is_some() => StatusCode::NOT_FOUND,
        _ if asked.id.is_none() => refusal.status(),
        _ => StatusCode::OK,
    };
    let data = Value::Object(refusal.members());
    let error = json!({"code": refusal.rpc_code(), "message": refusal.public_text(), "data": data});
    let mut response = rpc(asked, status, "error", &error);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let modern = asked.protocol == Protocol::McpModern;
        let allow = HeaderValue::from_static(if modern { "POST" } else { "POST, GET, DELETE" });
        response.headers_mut().insert(http::header::ALLOW, allow);
    }
    reply::refusal_headers(response.headers_mut(), refusal);
    response
}

pub(super) fn rpc(asked: &Asked, status: StatusCode, member: &str, value: &Value) -> Response<OutBody> {
    rpc_text(asked, status, member, &value.to_string())
}

/// The same of a value that stands as text already.
pub(super) fn rpc_text(asked: &Asked, status: StatusCode, member: &str, value: &str) -> Response<OutBody> {
    let id = asked.id.as_ref().map_or("null", |id| id.get());
    let body = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"{member}\":{value}}}");
    reply::whole(status, "application/json", body)
}
