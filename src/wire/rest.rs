//! REST: a request below a mount becomes an [`Incoming`]; an outcome becomes a response.

use bytes::Bytes;
use http::Method;

use crate::call::{Code, Message, Refusal, RestCall};

use super::ingress::Head;
use super::json;

/// The message of a request whose body has arrived whole.
pub(super) fn message(head: &Head, below: &[String], body: Bytes) -> Result<Message, Refusal> {
    if !body.is_empty() && matches!(head.method, Method::GET | Method::HEAD) {
        return Err(Refusal::new(Code::MalformedRequest, "GET and HEAD take no body"));
    }
    let json = match content(head, &body)? {
        true => Some(json::read(&body).map_err(|e| Refusal::new(Code::MalformedRequest, e.to_string()))?),
        false => None,
    };
    Ok(Message::Rest(RestCall {
        method: head.method.clone(),
        segments: below.to_vec(),
        query: head.query.clone(),
        content_type: head.content_type.clone().filter(|_| !body.is_empty()),
        body,
        json,
    }))
}

/// Whether the body is JSON; a body that no schema could describe is refused.
fn content(head: &Head, body: &Bytes) -> Result<bool, Refusal> {
    if body.is_empty() {
        return Ok(false);
    }
    let refuse = |why: &'static str| Err(Refusal::new(Code::UnsupportedEncoding, why));
    match head.content_type.as_deref() {
        None => refuse("a body needs a `Content-Type`"),
        Some(t) if t == "application/json" || t.ends_with("+json") => Ok(true),
        Some(t) if t.starts_with("multipart/") => refuse("multipart bodies cannot be inspected here"),
        Some(_) if std::str::from_utf8(body).is_err() => refuse("only JSON and UTF-8 text can be inspected"),
        Some(_) => Ok(false),
    }
}
