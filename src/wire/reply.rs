//! Answers as HTTP: the upstream's own, problem documents (RFC 9457), and what we add to each.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LINK, LOCATION, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::call::{Broken, CallId, Code, Ended, Outcome, Preference, Refusal, Reply, ReplyBody};

/// The body of any answer on the agents' side.
#[derive(Debug)]
pub(super) enum OutBody {
    /// All of it.
    Whole(Option<Bytes>),
    /// It flows.
    Stream(mpsc::Receiver<Result<Bytes, Broken>>),
}

impl Body for OutBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b)))),
            Self::Stream(rx) => rx.poll_recv(cx).map(|next| next.map(|piece| piece.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// Response with a whole body.
pub(super) fn whole(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<OutBody> {
    let mut response = Response::new(OutBody::Whole(Some(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The upstream's answer.
pub(super) fn upstream(reply: Reply) -> Response<OutBody> {
    let body = match reply.body {
        ReplyBody::Whole(bytes) => OutBody::Whole(Some(bytes)),
        ReplyBody::Stream(rx) => OutBody::Stream(rx),
    };
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
}

/// A refusal as a problem document.
pub(super) fn problem(refusal: &Refusal) -> Response<OutBody> {
    let body = refusal.problem().to_string();
    let mut response = whole(refusal.status(), "application/problem+json", body);
    refusal_headers(response.headers_mut(), refusal);
    response
}

/// `Retry-After`, `WWW-Authenticate`, `Link`, and the end of the connection after a malformed request (R18).
pub(super) fn refusal_headers(headers: &mut HeaderMap, refusal: &Refusal) {
    if let Some(s) = refusal.retry_after_s() {
        headers.insert(RETRY_AFTER, HeaderValue::from(s));
    }
    match refusal.code() {
        Code::Unauthenticated => {
            headers.insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"holdpoint\""));
        }
        Code::MalformedRequest => {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Code::Held => {
            if let Some(call) = refusal.call() {
                insert(headers, LINK, &format!("</-/calls/{call}>; rel=\"monitor\""));
            }
        }
        _ => {}
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// `Holdpoint-Call`, `Holdpoint-Decision`, `Holdpoint-Tier`, `Idempotent-Replayed`, and what the gates add.
pub(super) fn add_ours(headers: &mut HeaderMap, ended: &Ended) {
    for (name, value) in &ended.headers {
        headers.append(name.clone(), value.clone());
    }
    let mut call: CallId = ended.call;
    match &ended.outcome {
        Outcome::Forwarded { call: c, tier, .. } => {
            call = *c;
            headers.insert("holdpoint-tier", HeaderValue::from_static(tier.as_str()));
        }
        Outcome::Replayed { call: c, .. } => {
            call = *c;
            headers.insert("idempotent-replayed", HeaderValue::from_static("true"));
        }
        Outcome::Held { hold, tier, .. } => {
            call = hold.call();
            headers.insert("holdpoint-tier", HeaderValue::from_static(tier.as_str()));
        }
        Outcome::Refused(r) => call = r.call().unwrap_or(call),
    }
    insert(headers, HeaderName::from_static("holdpoint-call"), &call.to_string());
    headers.insert("holdpoint-decision", HeaderValue::from_static(ended.outcome.decision()));
}

/// The answer to a REST call.
pub(super) fn rest(ended: Ended, prefer: Preference) -> Response<OutBody> {
    let mut added = HeaderMap::new();
    add_ours(&mut added, &ended);
    let mut response = match ended.outcome {
        Outcome::Forwarded { reply, .. } | Outcome::Replayed { reply, .. } => upstream(reply),
        Outcome::Held { accepted: true, refusal, .. } => accepted(&refusal, prefer),
        Outcome::Held { refusal, .. } | Outcome::Refused(refusal) => problem(&refusal),
    };
    join(response.headers_mut(), added);
    response
}

/// Adds our fields; what the upstream says of its own limits stays beside ours.
pub(super) fn join(headers: &mut HeaderMap, added: HeaderMap) {
    let mut name = None;
    for (next, value) in added {
        name = next.or(name);
        match &name {
            Some(n) if n.as_str().starts_with("ratelimit") => drop(headers.append(n.clone(), value)),
            Some(n) => drop(headers.insert(n.clone(), value)),
            None => {}
        }
    }
}

/// 202 with `Location`, for clients that asked for it.
fn accepted(refusal: &Refusal, prefer: Preference) -> Response<OutBody> {
    let mut state = refusal.members();
    state.remove("code");
    let body = serde_json::Value::Object(state).to_string();
    let mut response = whole(StatusCode::ACCEPTED, "application/json", body);
    let headers = response.headers_mut();
    refusal_headers(headers, refusal);
    if let Some(call) = refusal.call() {
        insert(headers, LOCATION, &format!("/-/calls/{call}"));
    }
    if prefer.respond_async {
        let wait = prefer.wait.map(|w| format!(", wait={}", w.as_secs())).unwrap_or_default();
        insert(headers, HeaderName::from_static("preference-applied"), &format!("respond-async{wait}"));
    }
    response
}
