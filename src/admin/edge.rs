//! What every request meets first, and what every answer carries: hosts, origins, framing, headers.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderMap, HeaderValue,
    ORIGIN, REFERRER_POLICY, TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::request::Parts;
use http::{HeaderName, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::wire;

use super::Desk;
use super::problem::Problem;

/// No body on this listener is longer, but for whole sets of policies.
pub(super) const BODY: usize = 64 << 10;
const POLICIES: usize = 1 << 20;

/// Bytes that a body may have there; `path` is that of the API, without `/v1`.
pub(super) fn room(path: &str) -> usize {
    if super::workbench::TAKE_POLICIES.contains(&path) { POLICIES } else { BODY }
}

/// Only what we serve ourselves, in no frame, with no string ever becoming markup by script.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self'; \
                   base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// Refuses what does not speak to us, before anything else; puts the safe headers on every answer.
pub(super) async fn guard(State(admin): State<Arc<Desk>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let checked = check(&parts, &admin.snapshots.current().config.listen.allowed_hosts);
    let mut response = match checked {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(problem) => {
            admin.metrics.unidentified.with_label_values(&[problem.code()]).inc();
            problem.into_response()
        }
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // Not `no-referrer`: with it browsers send `Origin: null` with our own forms, and that is refused.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    response
}

fn check(parts: &Parts, hosts: &[String]) -> Result<(), Problem> {
    let one = |name: HeaderName| {
        let mut all = parts.headers.get_all(&name).iter();
        let first = all.next();
        match all.next() {
            Some(_) => Err(Problem::malformed(format!("the field `{name}` stands twice"))),
            None => Ok(first.map(|v| v.to_str().unwrap_or("?"))),
        }
    };
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let host = match (one(HOST)?, authority) {
        (Some(h), Some(a)) if h != a => return Err(Problem::malformed("`Host` and the target's authority differ")),
        (Some(h), _) => h,
        (None, _) => return Err(Problem::malformed("`Host` is missing")),
    };
    if !wire::allowed(host, hosts) {
        let text = "`Host` is not one that this listener answers to (`listen.allowed_hosts`)";
        return Err(Problem::malformed(text));
    }
    if let Some(origin) = one(ORIGIN)? {
        let from = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if !from.is_some_and(|h| wire::allowed(h, hosts)) {
            let text = "`Origin` is not one that this listener answers to";
            return Err(Problem::new(StatusCode::FORBIDDEN, "cross_origin", text));
        }
    }
    if percent_encoding::percent_decode_str(parts.uri.path()).decode_utf8().is_err() {
        return Err(Problem::malformed("the path is not UTF-8"));
    }
    for name in [AUTHORIZATION, CONTENT_TYPE, CONTENT_LENGTH, TRANSFER_ENCODING] {
        one(name)?;
    }
    if parts.headers.contains_key(CONTENT_LENGTH) && parts.headers.contains_key(TRANSFER_ENCODING) {
        return Err(Problem::malformed("`Content-Length` beside `Transfer-Encoding`"));
    }
    Ok(())
}

/// A form of our own page, not one that another site posts: browsers say where it comes from.
pub(super) fn same_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let refused = || Problem::new(StatusCode::FORBIDDEN, "cross_origin", "this form was not sent by this page");
    let text = |name: &HeaderName| headers.get(name).map(|v| v.to_str().unwrap_or("?"));
    let origin = text(&ORIGIN).map(|o| o.split_once("://").map_or(o, |(_, host)| host));
    let ours = origin.map(|o| Some(o) == text(&HOST));
    match (text(&HeaderName::from_static("sec-fetch-site")), ours) {
        (Some("same-origin"), None | Some(true)) | (None, Some(true)) => Ok(()),
        _ => Err(refused()),
    }
}

/// A bounded body of exactly this media type.
async fn bounded(headers: &HeaderMap, body: Body, kind: &'static str, room: usize) -> Result<Bytes, Problem> {
    let is = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut parts = is.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let utf8 = parts.all(|p| p.is_empty() || p.replace('"', "").eq_ignore_ascii_case("charset=utf-8"));
    if !essence.eq_ignore_ascii_case(kind) || !utf8 {
        let text = format!("`Content-Type` must be `{kind}`");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", text));
    }
    Ok(wire::body::read(body, room).await?)
}

/// A JSON object with known members only, each at most once.
pub(super) async fn json<T: DeserializeOwned>(headers: &HeaderMap, body: Body, room: usize) -> Result<T, Problem> {
    let bytes = bounded(headers, body, "application/json", room).await?;
    let value = wire::json::read(&bytes).map_err(|e| Problem::malformed(e.to_string()))?;
    if !value.is_object() {
        return Err(Problem::malformed("the body must be a JSON object"));
    }
    serde_json::from_value(value).map_err(|e| Problem::invalid(e.to_string()))
}

/// A posted form with known fields only, each at most once. A field left empty is a field not given.
pub(super) async fn form<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    let bytes = bounded(headers, body, "application/x-www-form-urlencoded", BODY).await?;
    fields(&bytes)
}

/// Known names only, each at most once; empty is absent.
pub(super) fn fields<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut members = serde_json::Map::new();
    for (name, value) in pairs(bytes)? {
        if members.contains_key(&name) {
            return Err(Problem::malformed("a field of the form stands twice"));
        }
        if !value.is_empty() {
            members.insert(name, Value::from(value));
        }
    }
    serde_json::from_value(Value::Object(members)).map_err(|e| Problem::invalid(e.to_string()))
}

/// Read as browsers write it: `+` is a space, the rest percent-encoded UTF-8.
fn pairs(bytes: &[u8]) -> Result<Vec<(String, String)>, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|_| Problem::malformed("the form is not UTF-8"))?;
    let part = |raw: &str| {
        let spaced = raw.replace('+', " ");
        let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8();
        decoded.map(std::borrow::Cow::into_owned).map_err(|_| Problem::malformed("the form is not UTF-8"))
    };
    let split = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((part(name)?, part(value)?))
    };
    text.split('&').filter(|p| !p.is_empty()).map(split).collect()
}
