//! Sends a call that has a permit, once, and takes in the answer. Tells apart what was provably not sent, what may
//! have happened, and what the upstream said.

mod answer;
mod catalog;
mod client;
mod endpoint;
mod fetch;
mod flow;
mod pool;
mod probe;
mod read;
mod resume;
mod session;
mod started;
mod stdio;
mod unsent;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use http::{Method, Request};
use http_body_util::Full;
use tokio::sync::Semaphore;

use crate::call::{Call, Digest, OutRequest};
use crate::clock::Clock;
use crate::config::UpstreamAuth;
use crate::failpoint;
use crate::gates::authz::Permit;
use crate::tasks;

pub use answer::{Answer, Got, GotBody, Lost};
pub use catalog::catalog;
pub use endpoint::{Endpoint, Endpoints, Origin};
pub use fetch::{exchange, fetch};
pub use flow::{Flow, Piece};
pub use pool::Pool;
pub use probe::{Finding, Probed};
pub use read::Read;
pub use stdio::{Server, Servers};
pub use unsent::Unsent;

use self::pool::{Freshness, SendError};
use self::started::Started;

/// A request as hyper sends it.
pub(crate) type Out = Request<Full<Bytes>>;

/// What the transport needs to know beside the call.
#[derive(Debug, Clone, Copy)]
pub struct Manner<'a> {
    /// The client's own credential, for `auth: pass_through`.
    pub token: Option<&'a str>,
    /// The proxy sends a stored call by itself: an MCP session of its own is opened for it.
    pub own_session: bool,
}

/// The upstreams of one core: its pool of connections.
#[derive(Debug)]
pub struct Upstreams {
    pool: Arc<Pool>,
    clock: Arc<dyn Clock>,
    /// Reads of the proxy's own that may be under way: an upstream that hangs must not gather them.
    probes: Semaphore,
}

impl Upstreams {
    /// An empty pool.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { pool: Arc::new(Pool::new(Arc::clone(&clock))), clock, probes: Semaphore::new(PROBES) }
    }

    /// Sends the call. The permit is spent here: without one nothing is sent, and none is sent twice.
    ///
    /// Read-only calls may flow at once; of calls with effects up to 256 KiB are kept back whole.
    pub async fn forward(&self, endpoint: &Arc<Endpoint>, permit: Permit, call: &Call, manner: Manner<'_>) -> Answer {
        debug_assert_eq!(permit.call(), call.id());
        drop(permit);
        let left = call.deadline().saturating_duration_since(self.clock.instant());
        let started = Arc::new(Started::default());
        let sent = async {
            match &**endpoint {
                Endpoint::Http(origin) => self.send(origin, call, manner, &started).await,
                Endpoint::Stdio(server) => server.send(call, manner, &started).await,
            }
        };
        match tokio::time::timeout(left, sent).await {
            Ok(answer) => answer,
            Err(_) if started.withdraw() => {
                Answer::NotSent(Unsent::Ours("the deadline passed before anything was sent".into()))
            }
            Err(_) => Answer::Lost(Lost::Deadline),
        }
    }

    async fn send(&self, endpoint: &Arc<Origin>, call: &Call, manner: Manner<'_>, started: &Started) -> Answer {
        let mut head = match head(endpoint, call, manner.token) {
            Ok(head) => head,
            Err(why) => return Answer::NotSent(Unsent::Ours(why)),
        };
        // A stored call has no session that lives: `(own)` stands in its place.
        let stored = |v: &HeaderValue| manner.own_session || v == "(own)";
        let legacy_session = head.get("mcp-session-id").is_some_and(stored);
        if legacy_session {
            match session::open(&self.pool, endpoint, call, &head).await {
                Ok(own) => head = own,
                Err(why) => return Answer::NotSent(Unsent::NoSession(why)),
            }
        }
        let freshness = if call.operation().effects.is_read() { Freshness::Any } else { Freshness::Recent };
        let key = pool_key(endpoint, manner.token);
        let request = || request(call.request(), &head);
        let answer = match self.pool.send(endpoint, &key, freshness, started, request).await {
            Ok((response, connection)) => {
                let mut answer = answer::take_in(response, connection, call, endpoint).await;
                self.resumable(&mut answer, endpoint, call, (key, head.clone()));
                failpoint::after("send.answer", answer)
            }
            Err(SendError::NotSent(why)) => Answer::NotSent(why),
            Err(SendError::Broken(why)) => Answer::Lost(Lost::Broken(why)),
        };
        if legacy_session {
            // Its session ends with the answer: nobody listens to what is beside it.
            let answer = session::gathered(answer).await;
            let (pool, endpoint, call) = (Arc::clone(&self.pool), Arc::clone(endpoint), call.clone());
            // A server that does not answer this must not cost the call its answer.
            tasks::spawn(async move {
                let closing = session::close(&pool, &endpoint, &call, &head);
                if tokio::time::timeout(CONNECT, closing).await.is_err() {
                    tracing::debug!("an own MCP session was not ended in time");
                }
            });
            return answer;
        }
        answer
    }
}

impl Upstreams {
    /// A call with effects is carried to its end, whatever its server closes on the way.
    fn resumable(&self, answer: &mut Answer, endpoint: &Arc<Origin>, call: &Call, (key, head): (String, HeaderMap)) {
        let Answer::Got(Got { body: GotBody::Flow(flow), .. }) = answer else { return };
        if call.operation().effects.is_read() || !head.contains_key("mcp-session-id") {
            return;
        }
        flow.resume_by(resume::Resume {
            pool: Arc::clone(&self.pool),
            endpoint: Arc::clone(endpoint),
            key,
            path: call.request().target.path.clone(),
            head,
            idle: call.operation().limits.idle,
        });
    }
}

/// Pools are kept apart by upstream and credential (rule R15).
fn pool_key(endpoint: &Origin, token: Option<&str>) -> String {
    let own = token.filter(|_| endpoint.passes_through()).map(|t| Digest::of(t.as_bytes()).to_string());
    format!("{}\n{}", endpoint.id(), own.unwrap_or_default())
}

/// The outgoing head: from an allow-list, with the proxy's own `Host` and credential (rule R9).
fn head(endpoint: &Origin, call: &Call, token: Option<&str>) -> Result<HeaderMap, String> {
    let mut head = HeaderMap::new();
    for (name, value) in &call.request().headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            head.insert(name, value);
        }
    }
    if let Some(content_type) = call.request().content_type.as_deref().and_then(|t| HeaderValue::from_str(t).ok()) {
        head.insert(CONTENT_TYPE, content_type);
    }
    own(&mut head, endpoint);
    if let Some(key) = call.upstream_key().and_then(|k| HeaderValue::from_str(&format!("\"{k}\"")).ok()) {
        head.insert("idempotency-key", key);
    }
    credential(&mut head, endpoint, token)?;
    Ok(head)
}

/// What every request of ours carries.
fn own(head: &mut HeaderMap, endpoint: &Origin) {
    head.insert(HOST, endpoint.host_header().clone());
    head.insert(USER_AGENT, HeaderValue::from_static(concat!("holdpoint/", env!("CARGO_PKG_VERSION"))));
    head.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

fn credential(head: &mut HeaderMap, endpoint: &Origin, token: Option<&str>) -> Result<(), String> {
    match endpoint.auth() {
        UpstreamAuth::None => {}
        UpstreamAuth::Header(name, secret) => {
            let mut value =
                HeaderValue::from_str(secret.reveal()).map_err(|_| "the credential is not a header value")?;
            value.set_sensitive(true);
            head.insert(name.clone(), value);
        }
        UpstreamAuth::PassThrough => {
            let token = token.ok_or("the client's own credential is not here: the call is sent when it comes back")?;
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| "not a header value")?;
            value.set_sensitive(true);
            head.insert(AUTHORIZATION, value);
        }
    }
    Ok(())
}

fn request(out: &OutRequest, head: &HeaderMap) -> Out {
    let mut request = Request::new(Full::new(out.body.clone()));
    *request.method_mut() = Method::from_bytes(out.target.method.as_bytes()).unwrap_or(Method::POST);
    *request.uri_mut() = out.target.path.parse().unwrap_or_default();
    *request.headers_mut() = head.clone();
    request
}

/// Reads of its own that one core has under way.
const PROBES: usize = 16;

/// How long a connection may take to be made.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);
