//! What an agent hears of a stored call: always truthfully whether it was executed.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::call::splice::Edits;
use crate::call::{Change, Code, Executed, Outcome, Refusal, Reply, ReplyBody, Timestamp, short_code, visible};
use crate::store::{CallRecord, Edited, State};

/// The stored answer: same status, end-to-end headers and body.
///
/// # Errors
/// A refusal that says openly that the body was too long to keep.
pub fn reply_of(record: &CallRecord, body: Option<Bytes>) -> Result<Reply, Refusal> {
    let Some(answer) = &record.answer else {
        let text = "it was executed; its answer is not known here";
        return Err(Refusal::new(Code::InvalidAnswer, text)
            .with_status(StatusCode::CONFLICT)
            .with_executed(Executed::Yes)
            .for_call(record.id));
    };
    let Some(body) = body else {
        let text = "it was executed; its answer was too long to keep and cannot be given again";
        return Err(Refusal::new(Code::InvalidAnswer, text)
            .with_status(StatusCode::CONFLICT)
            .with_executed(Executed::Yes)
            .with("answer_bytes", answer.len)
            .with("answer_digest", answer.digest.to_string())
            .for_call(record.id));
    };
    let mut headers = HeaderMap::new();
    for (name, value) in &answer.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(value.as_bytes())) {
            headers.append(name, value);
        }
    }
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut body = body;
    if let Some(edited) = record.edited.as_deref() {
        let note = note_to_agent(edited, record.state);
        match &record.request.rpc {
            Some(_) => body = noted(&body, &note),
            None => note_headers(&mut headers, &note),
        }
    }
    Ok(Reply { status, headers, body: ReplyBody::Whole(body) })
}

/// The answer of a REST call that a reviewer changed, with the words that its agent must hear.
#[must_use]
pub fn told_of_edits(mut outcome: Outcome, edited: Option<&Edited>) -> Outcome {
    if let (Outcome::Forwarded { reply, .. }, Some(edited)) = (&mut outcome, edited) {
        note_headers(&mut reply.headers, &note_to_agent(edited, State::Succeeded));
    }
    outcome
}

/// What reviewers changed, so that the agent does not ask for the original again.
#[must_use]
pub fn note_to_agent(edited: &Edited, state: State) -> String {
    let text = |v: &Option<Value>| v.as_ref().map_or_else(|| "nothing".to_owned(), |v| visible(&v.to_string()));
    let change = |c: &Change| format!("{} {} → {}", visible(&c.path), text(&c.from), text(&c.value));
    let changes = edited.changes.iter().map(change).collect::<Vec<_>>().join(", ");
    let changes =
        if edited.changes.is_empty() { "what was asked for, and changed it back".to_owned() } else { changes };
    let became = match state {
        State::Succeeded => "it was executed once. Do not send the original.",
        State::Failed => "it was sent once; the tool answered with an error. Do not send the original.",
        State::Unknown => "it may have been executed. Do not send the original.",
        State::Held | State::Approved | State::Dispatching => "it is not executed yet. Do not send another one.",
        _ => "nothing was executed.",
    };
    let why = edited.edits.last().map(|e| visible(&e.note)).filter(|note| !note.is_empty());
    let why = why.map(|note| format!(" The reviewer says: {note}")).unwrap_or_default();
    format!("A reviewer changed {changes}; {became}{why}")
}

/// Header values are ASCII.
fn note_headers(headers: &mut HeaderMap, note: &str) {
    let ascii: String = note
        .replace('→', "to")
        .chars()
        .flat_map(|c| if c.is_ascii() { vec![c] } else { c.escape_unicode().collect() })
        .take(NOTE)
        .collect();
    headers.insert(HeaderName::from_static("holdpoint-held-outcome"), HeaderValue::from_static("edited"));
    if let Ok(value) = HeaderValue::from_str(&ascii) {
        headers.insert(HeaderName::from_static("holdpoint-note"), value);
    }
}

/// Longest note in a header; clients cap a header's length.
const NOTE: usize = 2000;

/// An MCP answer with the note where models read, and in its `_meta`. What is no result stays as it is.
fn noted(body: &Bytes, note: &str) -> Bytes {
    #[derive(serde::Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        result: &'a RawValue,
    }
    #[derive(serde::Deserialize)]
    struct Result<'a> {
        #[serde(borrow)]
        content: &'a RawValue,
        #[serde(borrow, default, rename = "_meta")]
        meta: Option<&'a RawValue>,
    }
    let Ok(text) = std::str::from_utf8(body) else { return body.clone() };
    let Ok(message) = serde_json::from_str::<Message<'_>>(text) else { return body.clone() };
    let Ok(result) = serde_json::from_str::<Result<'_>>(message.result.get()) else { return body.clone() };
    let mut edits = Edits::default();
    edits.insert_item(text, result.content.get(), &json!({"type": "text", "text": note}).to_string());
    let about = json!({"held_outcome": "edited", "note_to_agent": note});
    let member = format!("\"dev.holdpoint/edited\":{about}");
    match result.meta.filter(|m| m.get().starts_with('{')) {
        Some(meta) => edits.insert_member(text, meta.get(), &member),
        None => edits.insert_member(text, message.result.get(), &format!("\"_meta\":{{{member}}}")),
    }
    edits.apply(text).map_or_else(|| body.clone(), Bytes::from)
}

/// The refusal that tells how a call without an answer stands.
#[must_use]
pub fn refusal_of(record: &CallRecord, state: State, now: Timestamp, page: Option<&str>) -> Refusal {
    let note = record.note.as_ref();
    let said = |fallback: &'static str| {
        let words = note.map(|n| n.text.clone()).filter(|t| !t.is_empty());
        words.map_or(std::borrow::Cow::Borrowed(fallback), std::borrow::Cow::Owned)
    };
    let refusal = match state {
        State::Held | State::Approved => held(record, state, now, page),
        State::Dispatching => Refusal::new(Code::InFlight, "the same call is being sent right now; ask again shortly")
            .with_executed(Executed::Unknown)
            .with_retry_after(Duration::from_secs(2)),
        State::Unknown => Refusal::new(
            Code::OutcomeUnknown,
            "it may have been executed; no machine sends it again. Ask the people who own the tool",
        )
        .with("retryable", false),
        State::Rejected => {
            let refusal = Refusal::new(Code::Rejected, said("a reviewer said no; do not retry unchanged"));
            note.map_or(refusal.clone(), |n| refusal.with("reason_code", n.code.as_str()))
        }
        State::Expired => Refusal::new(Code::HoldExpired, "nobody decided in time; silence is no"),
        State::Withdrawn => Refusal::new(Code::Withdrawn, said("the call was withdrawn")),
        State::Revoked => Refusal::new(Code::Revoked, said("it was approved, then taken back before it was sent")),
        State::Stale => Refusal::new(Code::Stale, said("what the approvers saw moved too often; ask anew")),
        State::NotExecuted => not_executed(record),
        State::Succeeded | State::Failed => {
            Refusal::new(Code::InvalidAnswer, "it was executed").with_executed(Executed::Yes)
        }
    };
    let refusal = match record.edited.as_deref() {
        Some(edited) => refusal.with("held_outcome", "edited").with("note_to_agent", note_to_agent(edited, state)),
        None => refusal,
    };
    refusal.for_hold(record.id.hold())
}

fn not_executed(record: &CallRecord) -> Refusal {
    let note = record.note.as_ref();
    let code = note.and_then(|n| Code::ALL.iter().find(|c| c.as_str() == n.code)).copied();
    let text = note.map_or_else(|| "nothing was sent".to_owned(), |n| n.text.clone());
    Refusal::new(code.unwrap_or(Code::UpstreamUnreachable), text)
}

/// Kinds of evidence that reviewers asked for and that nobody has brought since.
fn evidence_asked(record: &CallRecord) -> Vec<String> {
    let mut open = std::collections::BTreeSet::new();
    for request in record.handling.iter().flat_map(|h| &h.requests) {
        let brought = |kind: &&String| record.evidence.iter().any(|e| e.kind == **kind && e.at >= request.at);
        open.extend(request.kinds.iter().filter(|kind| !brought(kind)).cloned());
    }
    open.into_iter().collect()
}

fn held(record: &CallRecord, state: State, now: Timestamp, page: Option<&str>) -> Refusal {
    let expires = record.ends(now);
    let after = Duration::from_secs(30).min(expires.map_or(Duration::from_secs(30), |e| e.since(now)));
    let mut text = match state {
        State::Approved => "Approved, not executed yet. Repeat this exact request to get the result.".to_owned(),
        _ => "Not executed: people must approve it first. Repeat this exact request with the same key or the same \
              arguments later; it attaches to this hold."
            .to_owned(),
    };
    let terms = record.terms.as_ref();
    for why in terms.iter().flat_map(|t| &t.why) {
        text.push(' ');
        text.push_str(&why.reason);
    }
    if let Some(at) = record.not_before.filter(|at| state == State::Approved && *at > now) {
        text.push_str(&format!(" It is sent at {at} unless it is taken back before."));
    }
    if record.halted.is_some() {
        text.push_str(" An operator has stopped calls like it: it waits, whatever people decide, until that ends.");
    }
    if let Some(note) = record.note.as_ref().filter(|_| state == State::Approved) {
        text.push_str(&format!(" It waits: {}.", note.text));
    }
    if let Some(edited) = record.edited.as_deref() {
        text.push_str(&format!(" {}", note_to_agent(edited, state)));
    }
    let asked = evidence_asked(record);
    if !asked.is_empty() {
        let last = record.handling.iter().flat_map(|h| h.requests.iter().rev()).find_map(|r| r.message.as_deref());
        let words = last.unwrap_or("Attach it to this hold.");
        text.push_str(&format!(" A reviewer asks for evidence ({}). {words}", asked.join(", ")));
    }
    let mut refusal = Refusal::new(Code::Held, text)
        .with_retry_after(after)
        .with("state", state.as_str())
        .with("tier", record.tier.as_str())
        .with("digest", record.digest.to_string())
        .with("digest_code", short_code(&record.digest))
        .with("args_digest", record.fingerprint.to_string())
        .with_policies(
            terms
                .iter()
                .flat_map(|t| &t.why)
                .map(|w| crate::call::PolicyNote { id: w.policy.clone(), reason: w.reason.clone() })
                .collect(),
        );
    if let Some(at) = record.not_before {
        refusal = refusal.with("not_before", at.to_string());
    }
    if let Some(expires) = expires {
        refusal = refusal.with("expires", expires.to_string());
    }
    if let Some(evidence) = terms.map(|t| &t.needs.evidence).filter(|e| !e.is_empty()) {
        refusal = refusal.with("evidence_required", evidence.clone());
    }
    if !asked.is_empty() {
        refusal = refusal.with("evidence_asked", asked);
    }
    if let Some(page) = page {
        refusal = refusal.with("approval_url", format!("{page}/holds/{}", record.id.hold()));
    }
    refusal
}
