//! An MCP session of the proxy's own, for a stored legacy call that it sends by itself: the agent's session may be
//! gone by the time people have decided.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::json;

use crate::call::{Call, IDLE};

use super::Out;
use super::answer::{Answer, Got, GotBody, Lost};
use super::endpoint::Origin;
use super::flow::{Flow, Piece, Raw};
use super::pool::{Connection, Freshness, Pool, SendError};
use super::started::Started;

const SESSION: &str = "mcp-session-id";

/// Opens a session; gives the head of the call with its id in it.
pub(super) async fn open(
    pool: &Arc<Pool>,
    endpoint: &Arc<Origin>,
    call: &Call,
    head: &HeaderMap,
) -> Result<HeaderMap, String> {
    let version = head.get("mcp-protocol-version").and_then(|v| v.to_str().ok()).unwrap_or("2025-03-26");
    let hello = json!({"jsonrpc": "2.0", "id": "holdpoint", "method": "initialize", "params": {
        "protocolVersion": version, "capabilities": {},
        "clientInfo": {"name": "holdpoint", "version": env!("CARGO_PKG_VERSION")}}});
    let mut own = head.clone();
    own.remove(SESSION);
    own.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    own.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let (response, connection) = send(pool, endpoint, call, &own, Method::POST, hello.to_string()).await?;
    if !response.status().is_success() {
        return Err(format!("the upstream refused a session: {}", response.status()));
    }
    let id = response.headers().get(SESSION).cloned();
    drain(response, connection, "\"holdpoint\"").await?;
    if let Some(id) = id {
        own.insert(SESSION, id);
    }
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let (response, connection) = send(pool, endpoint, call, &own, Method::POST, ready.to_string()).await?;
    drain(response, connection, "").await?;
    Ok(own)
}

/// Ends it; whether that works makes no difference to the call.
pub(super) async fn close(pool: &Arc<Pool>, endpoint: &Arc<Origin>, call: &Call, head: &HeaderMap) {
    if let Err(why) = send(pool, endpoint, call, head, Method::DELETE, String::new()).await {
        tracing::debug!(why, "an own MCP session was not ended");
    }
}

/// The answer whole: of a stream of events only the response counts.
pub(super) async fn gathered(answer: Answer) -> Answer {
    let Answer::Got(Got { status, mut headers, body: GotBody::Flow(mut flow) }) = answer else { return answer };
    let mut all = Vec::new();
    while let Some(piece) = flow.next().await {
        match piece {
            Ok(Piece::Bytes(_)) if flow.is_events() => {}
            Ok(Piece::Bytes(bytes)) => all.extend_from_slice(&bytes),
            Ok(Piece::Response(_, message)) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                return Answer::Got(Got { status, headers, body: GotBody::Whole(Bytes::from(message)) });
            }
            Err(why) => return Answer::Lost(Lost::Broken(why)),
        }
    }
    if !flow.is_events() {
        return Answer::Got(Got { status, headers, body: GotBody::Whole(Bytes::from(all)) });
    }
    Answer::Lost(Lost::Broken("the stream ended before the response".into()))
}

async fn send(
    pool: &Arc<Pool>,
    endpoint: &Origin,
    call: &Call,
    head: &HeaderMap,
    method: Method,
    body: String,
) -> Result<(Response<Incoming>, Connection), String> {
    let body = Bytes::from(body);
    let request = || -> Out {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = method.clone();
        *request.uri_mut() = call.request().target.path.parse().unwrap_or_default();
        *request.headers_mut() = head.clone();
        request
    };
    let key = format!("{}\nown session", endpoint.id());
    pool.send(endpoint, &key, Freshness::Recent, &Started::default(), request).await.map_err(SendError::why)
}

/// Reads an answer to its end, or to the response in its stream of events.
async fn drain(response: Response<Incoming>, connection: Connection, id: &str) -> Result<(), String> {
    let events = super::answer::is(response.headers(), "text/event-stream");
    let raw = Raw::new(response.into_body(), connection, 1 << 20, IDLE);
    let mut flow = if events { Flow::events(raw, id) } else { Flow::bytes(raw, Bytes::new()) };
    while let Some(piece) = flow.next().await {
        if let Piece::Response(..) = piece? {
            break;
        }
    }
    Ok(())
}
