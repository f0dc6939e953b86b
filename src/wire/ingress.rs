//! The ingress rules (`security.md` 2.2): one meaning for every head, the ambiguous refused.

use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Method, StatusCode, Version};

use crate::call::{Code, Credentials, Refusal};

use super::path;

/// A head that passed.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) segments: Vec<String>,
    pub(super) query: Vec<(String, String)>,
    pub(super) token: Option<String>,
    /// Without hop-by-hop fields, credentials and forwarding fields.
    pub(super) headers: HeaderMap,
    /// Media type, lower case, without parameters.
    pub(super) content_type: Option<String>,
}

impl Head {
    pub(super) fn credentials(&self, certificate: Option<bytes::Bytes>) -> Credentials {
        Credentials { token: self.token.clone(), certificate }
    }
}

fn bad(detail: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Code::MalformedRequest, detail)
}

/// May stand once at most.
const SINGLE: [&str; 16] = [
    "authorization",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "holdpoint-confidence",
    "holdpoint-evidence",
    "holdpoint-intent",
    "holdpoint-run",
    "holdpoint-step",
    "holdpoint-workflow",
    "host",
    "idempotency-key",
    "last-event-id",
    "origin",
    "x-api-key",
];
/// A client must not have these stripped by naming them in `Connection`.
const RELIED_ON: [&str; 7] =
    ["authorization", "content-length", "content-type", "host", "idempotency-key", "transfer-encoding", "x-api-key"];
/// RFC 9110 7.6.1 and its kin; and what only a trusted hop may say.
const STRIPPED: [&str; 18] = [
    "authorization",
    "connection",
    "cookie",
    "expect",
    "forwarded",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-api-key",
    "x-real-ip",
    "host",
];

/// Checks a head against the rules.
pub(super) fn check(parts: &Parts, hosts: &[String], suspicious: bool) -> Result<Head, Refusal> {
    if suspicious {
        return Err(bad("the request is framed ambiguously: length beside transfer encoding, or bare line feeds"));
    }
    if !matches!(parts.version, Version::HTTP_11 | Version::HTTP_2) {
        return Err(bad("HTTP/1.1 or HTTP/2 only"));
    }
    fields(&parts.headers)?;
    let method = method(parts)?;
    host(parts, hosts)?;
    origin(&parts.headers, hosts)?;
    framing(&parts.headers)?;
    connection(&parts.headers)?;
    let segments = path::segments(parts.uri.path()).map_err(bad)?;
    let query = path::query(parts.uri.query()).map_err(bad)?;
    let token = token(&parts.headers)?;
    Ok(Head {
        method,
        segments,
        query,
        token,
        content_type: content_type(&parts.headers)?,
        headers: clean(&parts.headers),
    })
}

fn fields(headers: &HeaderMap) -> Result<(), Refusal> {
    let size: usize = headers.iter().map(|(n, v)| n.as_str().len() + v.len() + 4).sum();
    if headers.len() > 64 || size > 16 << 10 {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(bad("the head is over 64 fields or 16 KiB").with_status(status));
    }
    for (name, value) in headers {
        if name.as_str().contains('_') {
            return Err(bad("field names with `_` are not accepted: readers confuse them with `-`"));
        }
        if !value.as_bytes().iter().all(|b| matches!(b, b'\t' | 0x20..=0x7e)) {
            return Err(bad("field values must be visible ASCII"));
        }
    }
    let twice = |name: &str| headers.get_all(name).iter().nth(1).is_some();
    let mcp_twice = headers.keys().any(|n| n.as_str().starts_with("mcp-") && twice(n.as_str()));
    match SINGLE.iter().find(|name| twice(name)) {
        Some(name) => Err(bad(format!("the field `{name}` stands twice"))),
        None if mcp_twice => Err(bad("an `mcp-` field stands twice")),
        None => Ok(()),
    }
}

fn method(parts: &Parts) -> Result<Method, Refusal> {
    let allowed = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    allowed
        .into_iter()
        .find(|m| *m == parts.method)
        .ok_or_else(|| bad("this method is not accepted").with_status(StatusCode::METHOD_NOT_ALLOWED))
}

/// Exactly one authority, whichever way it came, and one that we answer to.
fn host(parts: &Parts, hosts: &[String]) -> Result<(), Refusal> {
    let header = parts.headers.get(HOST).map(|h| h.to_str().unwrap_or("?"));
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let host = match (header, authority) {
        (Some(h), Some(a)) if h != a => return Err(bad("`Host` and the target's authority differ")),
        (Some(h), _) => h,
        (None, Some(a)) => a,
        (None, None) => return Err(bad("`Host` is missing")),
    };
    if parts.uri.scheme_str().is_some_and(|s| s != "http" && s != "https") {
        return Err(bad("the target's scheme is not http"));
    }
    if allowed(host, hosts) {
        Ok(())
    } else {
        Err(bad("`Host` is not one that this listener answers to (`listen.allowed_hosts`)"))
    }
}

/// `reg-name[:port]`, by name alone.
pub(crate) fn allowed(host: &str, hosts: &[String]) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-.[]:".contains(&b);
    name.bytes().all(plain) && hosts.iter().any(|h| h.eq_ignore_ascii_case(name))
}

/// A web page may only speak for an origin that we answer to (DNS rebinding).
fn origin(headers: &HeaderMap, hosts: &[String]) -> Result<(), Refusal> {
    let Some(origin) = headers.get(ORIGIN).map(|o| o.to_str().unwrap_or_default()) else { return Ok(()) };
    let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    if host.is_some_and(|h| allowed(h, hosts)) {
        return Ok(());
    }
    Err(bad("`Origin` is not one that this listener answers to").with_status(StatusCode::FORBIDDEN))
}

fn framing(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !chunked || codings.next().is_some() || headers.contains_key(http::header::CONTENT_LENGTH) {
            return Err(bad("`Transfer-Encoding` must be `chunked`, once, without `Content-Length`"));
        }
    }
    if headers.get(http::header::EXPECT).is_some_and(|e| !e.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(bad("only `Expect: 100-continue` is known").with_status(StatusCode::EXPECTATION_FAILED));
    }
    if headers.contains_key(http::header::TRAILER) {
        return Err(bad("trailers are not accepted"));
    }
    let identity = |v: &HeaderValue| v.as_bytes().eq_ignore_ascii_case(b"identity");
    match headers.get(http::header::CONTENT_ENCODING) {
        Some(coding) if !identity(coding) => {
            Err(Refusal::new(Code::UnsupportedEncoding, "bodies are accepted without content coding only"))
        }
        _ => Ok(()),
    }
}

fn connection(headers: &HeaderMap) -> Result<(), Refusal> {
    let named = headers.get_all(CONNECTION).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    for name in named.map(|n| n.trim().to_ascii_lowercase()) {
        let ours = name.starts_with("holdpoint-") || name.starts_with("mcp-") || RELIED_ON.contains(&name.as_str());
        if ours {
            return Err(bad(format!("`Connection` names `{name}`, which must not be dropped")));
        }
    }
    Ok(())
}

fn token(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let bearer = headers.get(AUTHORIZATION).map(|v| {
        let text = v.to_str().unwrap_or_default();
        text.split_once(' ').filter(|(s, _)| s.eq_ignore_ascii_case("bearer")).map(|(_, t)| t.trim().to_owned())
    });
    let key = headers.get("x-api-key").and_then(|v| v.to_str().ok()).map(str::to_owned);
    match (bearer, key) {
        (Some(_), Some(_)) => Err(bad("two credentials: `Authorization` and `X-Api-Key`")),
        (Some(None), None) => Err(Refusal::new(Code::Unauthenticated, "`Authorization` must be `Bearer …`")),
        (Some(token), None) => Ok(token),
        (None, key) => Ok(key),
    }
}

fn content_type(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()) else { return Ok(None) };
    let mut parts = value.split(';');
    let essence = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    for parameter in parts {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let utf8 = value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8");
        if name.trim().eq_ignore_ascii_case("charset") && !utf8 {
            return Err(Refusal::new(Code::UnsupportedEncoding, "the charset must be UTF-8"));
        }
    }
    Ok(Some(essence))
}

/// What may be considered for the upstream: no hop-by-hop field, nothing that `Connection` names, no credential.
fn clean(headers: &HeaderMap) -> HeaderMap {
    let mut out = headers.clone();
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|n| n.trim().parse().ok())
        .collect();
    for name in named {
        out.remove(name);
    }
    for name in STRIPPED {
        out.remove(name);
    }
    let forwarding: Vec<_> = out.keys().filter(|n| n.as_str().starts_with("x-forwarded-")).cloned().collect();
    for name in forwarding {
        out.remove(name);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_head(build: impl FnOnce(http::request::Builder) -> http::request::Builder) -> Result<Head, Refusal> {
        let request = build(http::Request::builder().uri("/crm/x")).body(()).unwrap();
        check(&request.into_parts().0, &["tool".into(), "127.0.0.1".into()], false)
    }

    #[test]
    fn ambiguous_heads_are_refused() {
        let ok = |b: http::request::Builder| b.header("host", "tool:8700");
        assert!(try_head(ok).is_ok());
        let cases: Vec<(&str, &str)> = vec![
            ("host", "tool"),
            ("transfer-encoding", ",chunked"),
            ("transfer-encoding", "gzip, chunked"),
            ("x_user", "root"),
            ("expect", "y 100-continue"),
            ("connection", "close, holdpoint-run"),
            ("connection", "authorization"),
            ("origin", "null"),
            ("origin", "http://evil.com"),
            ("content-encoding", "gzip"),
            ("content-type", "application/json; charset=utf-16"),
            ("authorization", "Basic eDp5"),
            ("trailer", "authorization"),
        ];
        for (name, value) in cases {
            assert!(try_head(|b| ok(b).header(name, value)).is_err(), "{name}: {value}");
        }
    }

    #[test]
    fn hosts_are_compared_by_name() {
        let hosts = ["tool".to_owned(), "[::1]".to_owned()];
        for host in ["tool", "TOOL:80", "[::1]:8700", "[::1]"] {
            assert!(allowed(host, &hosts), "{host}");
        }
        for host in ["evil.com", "tool.evil.com", "tool@evil", "tool:", "tool:x", "", "u:p@tool", "tool/.."] {
            assert!(!allowed(host, &hosts), "{host}");
        }
    }

    #[test]
    fn what_a_hop_may_not_say_is_dropped() {
        let head = try_head(|b| {
            b.header("host", "tool")
                .header("x-forwarded-user", "root")
                .header("connection", "x-drop")
                .header("x-drop", "1")
        });
        let head = head.unwrap();
        assert!(head.headers.get("x-forwarded-user").is_none());
        assert!(head.headers.get("x-drop").is_none());
    }
}
