//! Connections to upstreams, kept by the core that made them. Nothing is ever re-sent unless it was provably unsent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::clock::Clock;
use crate::failpoint;
use crate::tasks;

use super::endpoint::Origin;
use super::started::Started;
use super::unsent::Unsent;
use super::{CONNECT, Out};

type Sender = SendRequest<Full<Bytes>>;

/// How long an idle connection may serve: a request with effects takes one idle for less than a second, or every
/// keep-alive race would become an unknown outcome.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Freshness {
    /// For reads.
    Any,
    /// For calls with effects.
    Recent,
}

impl Freshness {
    const fn limit(self) -> Duration {
        match self {
            Self::Any => Duration::from_secs(60),
            Self::Recent => Duration::from_secs(1),
        }
    }
}

/// Why no answer came.
#[derive(Debug)]
pub(crate) enum SendError {
    /// Provably nothing was sent.
    NotSent(Unsent),
    /// A byte may have been sent.
    Broken(String),
}

const IDLE_PER_UPSTREAM: usize = 64;

impl SendError {
    /// In words, where it makes no difference whether anything was sent.
    pub(crate) fn why(self) -> String {
        match self {
            Self::NotSent(unsent) => unsent.to_string(),
            Self::Broken(why) => why,
        }
    }
}

/// Idle connections of one core.
#[derive(Debug)]
pub struct Pool {
    idle: Mutex<HashMap<String, Vec<(Sender, Instant)>>>,
    clock: Arc<dyn Clock>,
}

/// A connection in use; goes back to the pool when the answer was read to its end.
#[derive(Debug)]
pub(crate) struct Connection {
    pool: Arc<Pool>,
    key: String,
    sender: Option<Sender>,
}

impl Connection {
    /// The answer was read to its end: the connection may serve again.
    pub(crate) fn give_back(&mut self) {
        if let Some(sender) = self.sender.take() {
            self.pool.put(&self.key, sender);
        }
    }
}

impl Pool {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { idle: Mutex::new(HashMap::new()), clock }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<(Sender, Instant)>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, key: &str, freshness: Freshness) -> Option<Sender> {
        let now = self.clock.instant();
        let mut idle = self.lock();
        let all = idle.get_mut(key)?;
        while let Some((sender, since)) = all.pop() {
            let young = now.saturating_duration_since(since) < freshness.limit();
            if young && !sender.is_closed() && sender.is_ready() {
                return Some(sender);
            }
            // The last one is the youngest: the others are no younger.
            if !young && matches!(freshness, Freshness::Any) {
                all.clear();
            } else if !young {
                all.push((sender, since));
                return None;
            }
        }
        None
    }

    fn put(&self, key: &str, sender: Sender) {
        let now = self.clock.instant();
        let mut idle = self.lock();
        let all = idle.entry(key.to_owned()).or_default();
        if all.len() < IDLE_PER_UPSTREAM && !sender.is_closed() {
            all.push((sender, now));
        }
    }

    /// Sends one request; `started` is set from the moment on at which a byte may be on the wire. A kept connection that turns out dead before anything went out is replaced once.
    pub(super) async fn send(
        self: &Arc<Self>,
        endpoint: &Origin,
        key: &str,
        freshness: Freshness,
        started: &Started,
        request: impl Fn() -> Out,
    ) -> Result<(Response<Incoming>, Connection), SendError> {
        if let Some(sender) = self.take(key, freshness) {
            match self.attempt(key, sender, started, request()).await {
                Err(SendError::NotSent(_)) => {}
                done => return done,
            }
        }
        failpoint::hit("send.connect");
        let sender = connect(endpoint).await.map_err(|why| SendError::NotSent(Unsent::NoConnection(why)))?;
        failpoint::hit("send.connected");
        self.attempt(key, sender, started, request()).await
    }

    async fn attempt(
        self: &Arc<Self>,
        key: &str,
        mut sender: Sender,
        started: &Started,
        request: Out,
    ) -> Result<(Response<Incoming>, Connection), SendError> {
        if let Err(e) = sender.ready().await {
            return Err(SendError::NotSent(Unsent::GivenBack(e.to_string())));
        }
        if !started.begin() {
            return Err(SendError::NotSent(Unsent::Ours("the caller gave up".into())));
        }
        failpoint::hit("send.request");
        match failpoint::after("send.handed", sender.try_send_request(request)).await {
            Ok(response) => {
                failpoint::hit("send.head");
                let connection = Connection { pool: Arc::clone(self), key: key.to_owned(), sender: Some(sender) };
                Ok((response, connection))
            }
            Err(mut e) => match e.take_message() {
                Some(_) => {
                    started.undo();
                    Err(SendError::NotSent(Unsent::GivenBack(e.error().to_string())))
                }
                None => Err(SendError::Broken(e.error().to_string())),
            },
        }
    }
}

async fn connect(endpoint: &Origin) -> Result<Sender, String> {
    let (host, port) = endpoint.address();
    let made = tokio::time::timeout(CONNECT, async {
        let stream = TcpStream::connect((host, port)).await.map_err(|e| format!("cannot connect: {e}"))?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        match endpoint.tls() {
            None => handshake(stream).await,
            Some((connector, name)) => {
                let tls = connector.connect(name.clone(), stream).await.map_err(|e| format!("TLS failed: {e}"))?;
                handshake(tls).await
            }
        }
    });
    made.await.map_err(|_| "connecting took too long".to_owned())?
}

async fn handshake<S>(stream: S) -> Result<Sender, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_headers(100).max_buf_size(256 << 10);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    tasks::spawn(async move {
        if let Err(e) = connection.await {
            tracing::debug!(error = %e, "a connection to an upstream ended");
        }
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[tokio::test]
    async fn a_request_that_a_dead_connection_never_took_was_not_sent() {
        let pool = Arc::new(Pool::new(Arc::new(SystemClock)));
        let (ours, theirs) = tokio::io::duplex(1 << 10);
        let sender = handshake(ours).await.unwrap();
        drop(theirs);
        let started = Started::default();
        let sent = pool.attempt("k", sender, &started, Out::new(Full::default())).await;
        assert!(matches!(sent, Err(SendError::NotSent(Unsent::GivenBack(_)))), "{sent:?}");
        assert!(!started.is_begun(), "a deadline that passes now would call it lost");
    }

    #[tokio::test]
    async fn a_connection_that_ends_after_the_first_byte_proves_nothing() {
        let pool = Arc::new(Pool::new(Arc::new(SystemClock)));
        let (ours, mut theirs) = tokio::io::duplex(1 << 10);
        let sender = handshake(ours).await.unwrap();
        let reads = tasks::spawn(async move {
            tokio::io::AsyncReadExt::read(&mut theirs, &mut [0; 1]).await.unwrap();
        });
        let sent = pool.attempt("k", sender, &Started::default(), Out::new(Full::default())).await;
        assert!(matches!(sent, Err(SendError::Broken(_))), "{sent:?}");
        reads.await.unwrap();
    }
}
