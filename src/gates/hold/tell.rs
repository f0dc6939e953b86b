//! What an agent hears of a stored call: always truthfully whether it was executed.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::call::{Code, Executed, Refusal, Reply, ReplyBody, Timestamp, short_code};
use crate::store::{CallRecord, State};

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
    Ok(Reply { status, headers, body: ReplyBody::Whole(body) })
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
    refusal.for_hold(record.id.hold())
}

fn not_executed(record: &CallRecord) -> Refusal {
    let note = record.note.as_ref();
    let code = note.and_then(|n| Code::ALL.iter().find(|c| c.as_str() == n.code)).copied();
    let text = note.map_or_else(|| "nothing was sent".to_owned(), |n| n.text.clone());
    Refusal::new(code.unwrap_or(Code::UpstreamUnreachable), text)
}

fn held(record: &CallRecord, state: State, now: Timestamp, page: Option<&str>) -> Refusal {
    let expires = if state == State::Held { record.expires } else { record.window_closes };
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
    if let Some(note) = record.note.as_ref().filter(|_| state == State::Approved) {
        text.push_str(&format!(" It waits: {}.", note.text));
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
    if let Some(expires) = expires {
        refusal = refusal.with("expires", expires.to_string());
    }
    if let Some(evidence) = terms.map(|t| &t.needs.evidence).filter(|e| !e.is_empty()) {
        refusal = refusal.with("evidence_required", evidence.clone());
    }
    if let Some(page) = page {
        refusal = refusal.with("approval_url", format!("{page}/holds/{}", record.id.hold()));
    }
    refusal
}
