//! An upstream's answer taken in: what may pass of its head, and as much of its body as must be kept back.

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use http::{Response, StatusCode};
use hyper::body::Incoming;

use crate::call::Call;

use super::endpoint::Origin;
use super::flow::{Flow, Raw};
use super::pool::Connection;
use super::unsent::Unsent;

/// What came of a send.
#[derive(Debug)]
pub enum Answer {
    /// Provably nothing was sent, with the proof.
    NotSent(Unsent),
    /// A byte may have been sent, and no whole answer came.
    Lost(Lost),
    /// The upstream answered.
    Got(Got),
}

/// How an answer was lost.
#[derive(Debug)]
pub enum Lost {
    /// The deadline passed.
    Deadline,
    /// Its client cancelled it, or its server was stopped by us: that says nothing of the server.
    Cancelled,
    /// The connection broke.
    Broken(String),
    /// The answer is not one that may pass.
    Invalid(&'static str),
}

/// An answer, as far as it has come.
#[derive(Debug)]
pub struct Got {
    /// The status.
    pub status: StatusCode,
    /// End-to-end headers that may pass.
    pub headers: HeaderMap,
    /// The body.
    pub body: GotBody,
}

/// The body of an answer.
#[derive(Debug)]
pub enum GotBody {
    /// All of it is here.
    Whole(Bytes),
    /// It still flows.
    Flow(Box<Flow>),
}

/// Of an answer to a call with effects this much is kept back whole.
pub(crate) const KEEP_BACK: usize = 256 << 10;

pub(super) async fn take_in(
    response: Response<Incoming>,
    connection: Connection,
    call: &Call,
    endpoint: &Origin,
) -> Answer {
    let (parts, body) = response.into_parts();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return Answer::Lost(Lost::Invalid("the upstream switched protocols"));
    }
    let encoded = parts.headers.get(CONTENT_ENCODING).is_some_and(|v| !v.as_bytes().eq_ignore_ascii_case(b"identity"));
    if encoded && call.request().rpc.is_some() {
        return Answer::Lost(Lost::Invalid("the upstream sent an encoded answer that was not asked for"));
    }
    let headers = passing(&parts.headers, endpoint);
    let raw = Raw::new(body, connection, call.operation().limits.answer, call.operation().limits.idle);
    let streamed = is(&parts.headers, "text/event-stream");
    let got = |body| Answer::Got(Got { status: parts.status, headers, body });
    match (&call.request().rpc, streamed) {
        (Some((id, _)), true) => got(GotBody::Flow(Box::new(Flow::events(raw, id)))),
        (None, true) => got(GotBody::Flow(Box::new(Flow::bytes(raw, Bytes::new())))),
        _ => match collect(raw).await {
            Ok(Collected::Whole(bytes)) => got(GotBody::Whole(bytes)),
            Ok(Collected::More(flow)) => got(GotBody::Flow(flow)),
            Err(why) => Answer::Lost(Lost::Broken(why)),
        },
    }
}

pub(super) fn is(headers: &HeaderMap, media_type: &str) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(media_type)
}

enum Collected {
    Whole(Bytes),
    More(Box<Flow>),
}

async fn collect(mut raw: Raw) -> Result<Collected, String> {
    let mut all = BytesMut::new();
    loop {
        match raw.next().await {
            None => return Ok(Collected::Whole(all.freeze())),
            Some(Err(why)) => return Err(why),
            Some(Ok(bytes)) => all.extend_from_slice(&bytes),
        }
        if all.len() > KEEP_BACK {
            return Ok(Collected::More(Box::new(Flow::bytes(raw, all.freeze()))));
        }
    }
}

/// Hop-by-hop fields, `Set-Cookie`, framing, and redirects elsewhere do not pass (rules R16, R17).
fn passing(headers: &HeaderMap, endpoint: &Origin) -> HeaderMap {
    const DROPPED: [&str; 14] = [
        "connection",
        "content-length",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "set-cookie",
        "set-cookie2",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "alt-svc",
        "server",
    ];
    let named: Vec<String> = headers
        .get_all("connection")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|n| n.trim().to_ascii_lowercase())
        .collect();
    let mut out = HeaderMap::new();
    for (name, value) in headers {
        let n = name.as_str();
        if !DROPPED.contains(&n) && !named.iter().any(|d| d == n) && !n.starts_with("holdpoint-") {
            out.append(name.clone(), value.clone());
        }
    }
    if let Some(location) = out.remove(LOCATION) {
        let kept =
            location.to_str().ok().and_then(|l| endpoint.location(l)).and_then(|l| HeaderValue::from_str(&l).ok());
        if let Some(kept) = kept {
            out.insert(LOCATION, kept);
        }
    }
    out
}
