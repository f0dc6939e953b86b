//! Gets a small document, such as a key set, by URL.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Uri};
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
    match tokio::time::timeout(TIME, get(uri, clock)).await {
        Ok(done) => done.map_err(|why| Fault::caused("a document could not be fetched", why)),
        Err(_) => Err(Fault::new("a document could not be fetched in time")),
    }
}

async fn get(uri: Uri, clock: Arc<dyn Clock>) -> Result<Bytes, String> {
    let config = HttpServer { origin: uri.clone(), base: String::new(), auth: UpstreamAuth::None, ca: None };
    let endpoint = Origin::new("fetch", &[], &config).map_err(|e| e.chain())?;
    let pool = Arc::new(Pool::new(clock));
    let target: Uri = uri.path_and_query().map_or("/", |p| p.as_str()).parse().map_err(|_| "not a URL")?;
    let request = || {
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = target.clone();
        request.headers_mut().insert(HOST, endpoint.host_header().clone());
        request
    };
    let sent = pool.send(&endpoint, "", Freshness::Any, &Started::default(), request).await;
    let (response, connection) = sent.map_err(SendError::why)?;
    if response.status() != http::StatusCode::OK {
        return Err(format!("status {}", response.status()));
    }
    let mut flow = Flow::bytes(Raw::new(response.into_body(), connection, LIMIT, IDLE), Bytes::new());
    let mut all = Vec::new();
    while let Some(piece) = flow.next().await {
        if let Piece::Bytes(bytes) = piece? {
            all.extend_from_slice(&bytes);
        }
    }
    Ok(Bytes::from(all))
}
