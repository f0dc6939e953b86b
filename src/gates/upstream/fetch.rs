//! Small exchanges with servers that are no tools: key sets, sign-in providers, receivers of notifications.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::Full;

use crate::call::{Fault, IDLE};
use crate::clock::Clock;
use crate::config::{HttpServer, UpstreamAuth};

use super::endpoint::Origin;
use super::flow::{Flow, Piece, Raw};
use super::pool::{Freshness, Pool, SendError};
use super::started::Started;

const LIMIT: usize = 1 << 20;
const TIME: Duration = Duration::from_secs(10);

/// Gets `uri`: status 200, at most 1 MiB, within 10 s, no redirects.
///
/// # Errors
/// A fault that says what went wrong.
pub async fn fetch(uri: Uri, clock: Arc<dyn Clock>) -> Result<Bytes, Fault> {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = uri;
    let (parts, document) = exchange(request, clock).await?.into_parts();
    match parts.status {
        StatusCode::OK => Ok(document),
        status => Err(Fault::caused("a document could not be fetched", format!("status {status}"))),
    }
}

/// Sends one request to its URI on a connection of its own and reads the answer, whatever its status: at most 1 MiB,
/// within 10 s, no redirects.
///
/// # Errors
/// A fault that says what went wrong; the request may have arrived all the same.
pub async fn exchange(request: Request<Bytes>, clock: Arc<dyn Clock>) -> Result<Response<Bytes>, Fault> {
    let at = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let none = |why: String| Fault::caused("a server did not answer", format!("{at}: {why}"));
    match tokio::time::timeout(TIME, send(request, clock)).await {
        Ok(done) => done.map_err(none),
        Err(_) => Err(none("not within 10 s".into())),
    }
}

async fn send(given: Request<Bytes>, clock: Arc<dyn Clock>) -> Result<Response<Bytes>, String> {
    let origin = given.uri().clone();
    let target: Uri = origin.path_and_query().map_or("/", |p| p.as_str()).parse().map_err(|_| "not a URL")?;
    let config = HttpServer { origin, base: String::new(), auth: UpstreamAuth::None, ca: None };
    let endpoint = Origin::new("fetch", &[], &config).map_err(|e| e.chain())?;
    let pool = Arc::new(Pool::new(clock));
    let request = || {
        let mut request = given.clone().map(Full::new);
        *request.uri_mut() = target.clone();
        request.headers_mut().insert(HOST, endpoint.host_header().clone());
        request
    };
    let sent = pool.send(&endpoint, "", Freshness::Any, &Started::default(), request).await;
    let (response, connection) = sent.map_err(SendError::why)?;
    let (parts, body) = response.into_parts();
    let mut flow = Flow::bytes(Raw::new(body, connection, LIMIT, IDLE), Bytes::new());
    let mut all = Vec::new();
    while let Some(piece) = flow.next().await {
        if let Piece::Bytes(bytes) = piece? {
            all.extend_from_slice(&bytes);
        }
    }
    Ok(Response::from_parts(parts, Bytes::from(all)))
}
