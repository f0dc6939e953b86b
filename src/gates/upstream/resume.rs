//! Takes up a stream of events that its server closed before the response: `GET` with `Last-Event-ID` (MCP 2025-11-25,
//! transports). A client does so by itself for a read; a call with effects is carried to its end here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request};
use http_body_util::Full;

use super::Out;
use super::answer::is;
use super::endpoint::Origin;
use super::flow::Raw;
use super::pool::{Freshness, Pool, SendError};
use super::started::Started;

/// A server that closes each stream at once must not be asked in a hot loop.
const SHORTEST: Duration = Duration::from_millis(100);
/// Unless the server says another pause; never longer than the second.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How the stream of one call is asked for again.
pub(super) struct Resume {
    pub(super) pool: Arc<Pool>,
    pub(super) endpoint: Arc<Origin>,
    pub(super) key: String,
    pub(super) path: String,
    pub(super) head: HeaderMap,
    pub(super) idle: Duration,
}

impl std::fmt::Debug for Resume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Resume({:?})", self.endpoint)
    }
}

impl Resume {
    /// What followed the event `last`.
    ///
    /// # Errors
    /// Why it cannot be had: then the outcome is unknown.
    pub(super) async fn open(&self, last: &str, retry_ms: Option<u64>, left: usize) -> Result<Raw, String> {
        let pause = retry_ms.map_or(PAUSE.0, Duration::from_millis).clamp(SHORTEST, PAUSE.1);
        tokio::time::sleep(pause).await;
        let mut head = self.head.clone();
        head.remove(CONTENT_TYPE);
        head.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        head.insert("last-event-id", HeaderValue::from_str(last).map_err(|_| "the event's id cannot be a header")?);
        let request = || -> Out {
            let mut request = Request::new(Full::new(Bytes::new()));
            *request.method_mut() = Method::GET;
            *request.uri_mut() = self.path.parse().unwrap_or_default();
            *request.headers_mut() = head.clone();
            request
        };
        let sent = self.pool.send(&self.endpoint, &self.key, Freshness::Any, &Started::default(), request).await;
        let (response, connection) = sent.map_err(SendError::why)?;
        if !response.status().is_success() || !is(response.headers(), "text/event-stream") {
            return Err(format!("the stream ended before the response, and cannot be resumed: {}", response.status()));
        }
        Ok(Raw::new(response.into_body(), connection, left, self.idle))
    }
}
