//! `/-/…` and MCP tasks: what an agent may ask about its own calls. Another principal's call id answers like one that does not exist.
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::call::{ArtifactId, CallId, Code, MAX_EVIDENCE, Outcome, Principal, Refusal, Violation};
use crate::gates::hold::{note_to_agent, refusal_of, reply_of, times};
use crate::pipeline::Pipeline;
use crate::store::{CallRecord, HoldError, NewArtifact, State, WithdrawnBy, is_kind};
use crate::wire::{OwnReply, OwnRequest, TaskReply, TaskRequest, TaskVerb};

/// Answers one request below `/-/`.
pub async fn answer(p: &Pipeline, request: OwnRequest) -> OwnReply {
    inquire(p, request).await.unwrap_or_else(OwnReply::Refused)
}

async fn inquire(p: &Pipeline, request: OwnRequest) -> Result<OwnReply, Refusal> {
    let s = p.snapshots.current();
    let principal = s.identity.identify(&request.credentials).await?;
    let segments: Vec<&str> = request.segments.iter().map(String::as_str).collect();
    match (&request.method, segments.as_slice()) {
        (&Method::GET, ["calls", id]) => state(p, &principal, id, &request).await,
        (&Method::GET, ["calls", id, "result"]) => result(p, &principal, id).await,
        (&Method::DELETE, ["calls", id]) => withdraw(p, &principal, id).await,
        (&Method::POST, ["calls", id, "evidence"]) => evidence(p, &principal, Some(id), &request).await,
        (&Method::POST, ["evidence"]) => evidence(p, &principal, None, &request).await,
        (_, ["calls", _] | ["calls", _, "result" | "evidence"] | ["evidence"]) => {
            let refusal = Refusal::new(Code::MalformedRequest, "this path does not take that method");
            Err(refusal.with_status(StatusCode::METHOD_NOT_ALLOWED))
        }
        _ => Err(none()),
    }
}

fn none() -> Refusal {
    Refusal::new(Code::UnknownTool, "no such call of yours")
}

async fn own(p: &Pipeline, principal: &Principal, id: &str) -> Result<CallRecord, Refusal> {
    let id: CallId = id.parse().map_err(|_| none())?;
    let record = p.store.get(id).await?;
    record.filter(|r| r.principal.key() == principal.key()).ok_or_else(none)
}

/// 200 with the state while it is open, 303 to the result when there is one, 200 with the refusal when it is over.
async fn state(p: &Pipeline, principal: &Principal, id: &str, request: &OwnRequest) -> Result<OwnReply, Refusal> {
    let mut record = own(p, principal, id).await?;
    if let Some(wait) = request.prefer.wait {
        record = p.holds.wait(record.id, wait.min(Duration::from_secs(60))).await?;
    }
    let now = p.clock.now();
    let state = record.state_at(now);
    let s = p.snapshots.current();
    let mut body = json!({
        "call": record.id.to_string(), "state": state.as_str(), "operation": record.operation,
        "created": record.created.to_string(), "updated": record.updated.to_string(), "digest": record.digest.to_string(),
    });
    if let (Some(members), Some(edited)) = (body.as_object_mut(), record.edited.as_deref()) {
        members.insert("held_outcome".into(), "edited".into());
        members.insert("note_to_agent".into(), note_to_agent(edited, state).into());
    }
    let mut headers = HeaderMap::new();
    if matches!(state, State::Succeeded | State::Failed) {
        let at = format!("/-/calls/{}/result", record.id);
        if let Some(members) = body.as_object_mut() {
            members.insert("executed".into(), "yes".into());
            members.insert("result".into(), at.clone().into());
        }
        if let Ok(value) = HeaderValue::from_str(&at) {
            headers.insert(LOCATION, value);
        }
        return Ok(OwnReply::Json(StatusCode::SEE_OTHER, body, headers));
    }
    let refusal = refusal_of(&record, state, now, s.config.reviews.url.as_deref());
    if let Some(members) = body.as_object_mut() {
        members.extend(refusal.members());
        members.insert("detail".into(), refusal.public_text().into());
        members.insert("state".into(), state.as_str().into());
    }
    if let Some(after) = refusal.retry_after_s() {
        headers.insert(RETRY_AFTER, HeaderValue::from(after));
    }
    // To look how a call stands is not to collect its outcome: the call itself is still answered with it.
    Ok(OwnReply::Json(StatusCode::OK, body, headers))
}

async fn result(p: &Pipeline, principal: &Principal, id: &str) -> Result<OwnReply, Refusal> {
    let record = own(p, principal, id).await?;
    let s = p.snapshots.current();
    // Stored answers are for who may still read them.
    let readable = s.operation(&record.operation).is_some_and(|o| s.policies.visible(principal, o));
    if !readable {
        return Err(none());
    }
    match p.holds.tell(&record, false, s.config.reviews.url.as_deref()).await? {
        Outcome::Replayed { .. } => {
            let body = p.store.answer_body(&record).await?;
            Ok(OwnReply::Result(reply_of(&record, body)?))
        }
        Outcome::Held { refusal, .. } | Outcome::Refused(refusal) => Err(refusal),
        Outcome::Forwarded { reply, .. } => Ok(OwnReply::Result(reply)),
    }
}

async fn withdraw(p: &Pipeline, principal: &Principal, id: &str) -> Result<OwnReply, Refusal> {
    let record = own(p, principal, id).await?;
    let by = WithdrawnBy::Agent(principal.key());
    match p.store.withdraw(record.id, by, "withdrawn by the agent").await {
        Ok(record) => {
            p.metrics.hold_ended(&record.operation, record.tier.as_str(), "withdrawn");
            let told = json!({"call": record.id.to_string(), "state": record.state.as_str(), "executed": "no"});
            Ok(OwnReply::Json(StatusCode::OK, told, HeaderMap::new()))
        }
        Err(HoldError::Unavailable) => Err(Refusal::new(Code::Unavailable, "the withdrawal could not be recorded")),
        Err(_) => {
            let now = p.clock.now();
            Err(refusal_of(&record, record.state_at(now), now, None).with("withdrawn", false))
        }
    }
}

/// Answers a question about a hold that a client knows as a task (`mcp.md` 2.3.1).
pub async fn task(p: &Pipeline, request: TaskRequest) -> TaskReply {
    asked_of_task(p, request).await.unwrap_or_else(TaskReply::Refused)
}

async fn asked_of_task(p: &Pipeline, request: TaskRequest) -> Result<TaskReply, Refusal> {
    let s = p.snapshots.current();
    let principal = s.identity.identify(&request.credentials).await?;
    let record = p.store.get(request.hold.call()).await?;
    let own = |r: &CallRecord| r.principal.key() == principal.key() && r.tool == request.tool;
    let record = record.filter(own).ok_or_else(none)?;
    // What is stored is for who may still see it.
    if !s.operation(&record.operation).is_some_and(|o| s.policies.visible(&principal, o)) {
        return Err(none());
    }
    match request.verb {
        TaskVerb::Get => {
            let page = s.config.reviews.url.as_deref();
            standing(p, page, record, request.credentials.token.as_deref()).await
        }
        // A hold asks its client nothing.
        TaskVerb::Update => Ok(TaskReply::Done),
        TaskVerb::Cancel => {
            withdrawn(p, &principal, &record).await?;
            Ok(TaskReply::Done)
        }
    }
}

async fn standing(
    p: &Pipeline,
    page: Option<&str>,
    mut record: CallRecord,
    token: Option<&str>,
) -> Result<TaskReply, Refusal> {
    if record.state_at(p.clock.now()) == State::Approved && !record.release_by_proxy {
        Box::pin(p.collect_task(record.clone(), token)).await;
        record = p.store.get(record.id).await?.ok_or_else(none)?;
    }
    let times = times(&record, p.clock.now());
    let outcome = p.holds.tell(&record, false, page).await?;
    Ok(TaskReply::Told { hold: record.id.hold(), times, outcome })
}

/// A call that is past withdrawing carries on: cancelling is a wish.
async fn withdrawn(p: &Pipeline, principal: &Principal, record: &CallRecord) -> Result<(), Refusal> {
    let by = WithdrawnBy::Agent(principal.key());
    match p.store.withdraw(record.id, by, "withdrawn by the agent").await {
        Ok(record) => {
            p.metrics.hold_ended(&record.operation, record.tier.as_str(), "withdrawn");
            Ok(())
        }
        Err(HoldError::Unavailable) => Err(Refusal::new(Code::Unavailable, "the withdrawal could not be recorded")),
        Err(_) => Ok(()),
    }
}

/// `{"kind": "ticket", "title": "T-4410", "text": "…"}` or `"json": …`.
async fn evidence(
    p: &Pipeline,
    principal: &Principal,
    call: Option<&str>,
    request: &OwnRequest,
) -> Result<OwnReply, Refusal> {
    let record = match call {
        Some(id) => Some(own(p, principal, id).await?),
        None => None,
    };
    p.snapshots.current().rates.check_evidence(principal)?;
    if record.as_ref().is_some_and(|r| r.evidence.len() >= MAX_EVIDENCE) {
        let text = format!("this hold has {MAX_EVIDENCE} pieces of evidence already");
        return Err(Refusal::new(Code::RateLimited, text));
    }
    let body = request.json.as_ref().and_then(Value::as_object).ok_or_else(|| wrong("", "a JSON object is needed"))?;
    if let Some(unknown) = body.keys().find(|k| !["kind", "title", "text", "json"].contains(&k.as_str())) {
        return Err(wrong(unknown, "is not a field of evidence: kind, title, text or json"));
    }
    let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
    let kind = text("kind").filter(|k| is_kind(k)).ok_or_else(|| wrong("kind", "must be a word such as `ticket`"))?;
    let title = text("title").filter(|t| !t.is_empty() && t.len() <= 200);
    let title = title.ok_or_else(|| wrong("title", "must be 1 to 200 characters"))?;
    let content = match (text("text"), body.get("json")) {
        (Some(text), None) => Bytes::from(text),
        (None, Some(json)) => Bytes::from(json.to_string()),
        _ => return Err(wrong("", "give exactly one of `text` and `json`")),
    };
    let by = format!("agent {}", principal.agent);
    let artifact = NewArtifact { id: ArtifactId::new(), kind, title, by, principal_key: principal.key(), content };
    let id = p.store.put_artifact(artifact).await?;
    let Some(record) = record else {
        return Ok(OwnReply::Json(StatusCode::CREATED, json!({"artifact": id.to_string()}), HeaderMap::new()));
    };

    let attached = p.store.attach_evidence(record.id, id).await;
    let attached = attached.map_err(|e| Refusal::new(Code::InvalidArguments, e.to_string()).for_call(record.id))?;
    let kinds: Vec<&str> = attached.evidence.iter().map(|e| e.kind.as_str()).collect();
    let answer = json!({"artifact": id.to_string(), "call": attached.id.to_string(), "evidence": kinds});
    Ok(OwnReply::Json(StatusCode::CREATED, answer, HeaderMap::new()))
}

fn wrong(field: &str, message: &str) -> Refusal {
    let pointer = if field.is_empty() { String::new() } else { format!("/{field}") };
    let violation = Violation { pointer, keyword: "evidence".into(), message: message.into() };
    Refusal::new(Code::InvalidArguments, "this is not evidence as it is taken here").with_errors(vec![violation])
}
