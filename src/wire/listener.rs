//! The agents' listener: accept, hand out to cores, limits, timeouts, graceful stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming as HyperBody;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{AcquireError, SemaphorePermit, mpsc, watch};
use tokio_rustls::TlsAcceptor;

use crate::call::{CallId, Code, Hints, Incoming, Message, Refusal, ToolKind};
use crate::tasks;

use super::own::{OwnReply, OwnRequest, TaskRequest};
use super::reply::{self, OutBody};
use super::surface::{Edge, Mount, Surface};
use super::tap::Tap;
use super::{body, hints, ingress, json, mcp, path, rest};

/// Connections that may be open at once on one listener.
const MAX_CONNECTIONS: usize = 10_000;
/// Body limit of `/-/` requests.
const OWN_BODY: usize = 256 << 10;

/// The cores that connections are handed to, by load.
#[derive(Debug, Clone, Default)]
pub struct Cores(Vec<(mpsc::UnboundedSender<Handed>, Arc<AtomicUsize>)>);

/// A connection on its way to a core: the socket is registered there.
type Handed = (std::net::TcpStream, SocketAddr);

impl Cores {
    /// Adds a core; what it receives it must give to [`Core::run`].
    pub fn add(&mut self) -> Core {
        let (tx, rx) = mpsc::unbounded_channel();
        let load = Arc::new(AtomicUsize::new(0));
        self.0.push((tx, Arc::clone(&load)));
        Core { rx, load }
    }

    fn hand_out(&self, stream: std::net::TcpStream, peer: SocketAddr) {
        let total: usize = self.0.iter().map(|(_, load)| load.load(Ordering::Relaxed)).sum();
        if total >= MAX_CONNECTIONS {
            tracing::warn!(connections = total, "too many connections; one is dropped");
            return;
        }
        if let Some((tx, load)) = self.0.iter().min_by_key(|(_, load)| load.load(Ordering::Relaxed)) {
            load.fetch_add(1, Ordering::Relaxed);
            if tx.send((stream, peer)).is_err() {
                load.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

/// Accepts connections until told to stop.
pub async fn accept(listener: TcpListener, cores: Cores, mut stop: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => return,
        };
        match accepted {
            Ok((stream, peer)) => match stream.into_std() {
                Ok(stream) => cores.hand_out(stream, peer),
                Err(e) => tracing::warn!(error = %e, "a connection was lost before it was served"),
            },
            Err(e) => {
                tracing::warn!(error = %e, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Ends when the flag is set, or its owner is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let seen = stop.wait_for(|s| *s).await.is_ok();
    tracing::trace!(seen, "stop");
}

/// The receiving end of one core.
#[derive(Debug)]
pub struct Core {
    rx: mpsc::UnboundedReceiver<Handed>,
    load: Arc<AtomicUsize>,
}

impl Core {
    /// Serves the connections handed to this core until told to stop, then until they have ended.
    pub async fn run(
        mut self,
        edge: Arc<Edge>,
        tls: Option<TlsAcceptor>,
        mut stop: watch::Receiver<bool>,
        linger: Duration,
    ) {
        let (alive, mut over) = mpsc::channel::<()>(1);
        loop {
            let next = tokio::select! {
                next = self.rx.recv() => next,
                () = stopped(&mut stop) => None,
            };
            let Some((stream, peer)) = next else { break };
            let (edge, tls, stop) = (Arc::clone(&edge), tls.clone(), stop.clone());
            let load = Arc::clone(&self.load);
            let alive = alive.clone();
            tasks::spawn(async move {
                if let Err(e) = connection(stream, peer, edge, tls, stop).await {
                    tracing::debug!(error = %e, peer = %peer, "connection ended early");
                }
                load.fetch_sub(1, Ordering::Relaxed);
                drop(alive);
            });
        }
        drop(alive);
        let ended = tokio::time::timeout(linger, over.recv()).await.is_ok();
        tracing::debug!(ended, "this core's connections");
    }
}

async fn connection(
    stream: std::net::TcpStream,
    peer: SocketAddr,
    edge: Arc<Edge>,
    tls: Option<TlsAcceptor>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = TcpStream::from_std(stream)?;
    let Some(acceptor) = tls else { return serve(stream, peer, None, edge, stop).await };
    let handshake = tokio::time::timeout(Duration::from_secs(10), acceptor.accept(stream));
    let stream = handshake.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|all| all.first());
    let certificate = certificate.map(|c| Bytes::copy_from_slice(c));
    serve(stream, peer, certificate, edge, stop).await
}

async fn serve<S>(
    stream: S,
    peer: SocketAddr,
    certificate: Option<Bytes>,
    edge: Arc<Edge>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (tap, suspicious) = Tap::new(stream);
    let service = service_fn(move |request: Request<HyperBody>| {
        let (here, gone) = watch::channel(());
        let from = From { peer, certificate: certificate.clone(), gone };
        let suspicious = suspicious.load(Ordering::Relaxed);
        // In its own task from the first byte on: who hangs up must not tear a call in half.
        let work = edge.tracker.spawn(answer(request, from, Arc::clone(&edge), suspicious));
        async move {
            let answer = tasks::join(work).await.unwrap_or_else(|fault| reply::problem(&fault.into()));
            drop(here);
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let builder = limits();
    let connection = builder.serve_connection(TokioIo::new(tap), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended.map_err(|e| io::Error::other(e.to_string()))
}

/// The numbers of rule R14, pinned rather than left to defaults.
fn limits() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10))
        .max_headers(64)
        .max_buf_size(64 << 10)
        .half_close(false)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .max_header_list_size(16 << 10)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

struct From {
    peer: SocketAddr,
    certificate: Option<Bytes>,
    gone: watch::Receiver<()>,
}

async fn answer(request: Request<HyperBody>, from: From, edge: Arc<Edge>, suspicious: bool) -> Response<OutBody> {
    let (parts, body) = request.into_parts();
    let surface = (edge.surface)();
    let head = match ingress::check(&parts, &surface.allowed_hosts, suspicious) {
        Ok(head) => head,
        Err(refusal) => {
            (edge.refused)(refusal.code().as_str());
            return unfit(&parts, &surface, &refusal);
        }
    };
    if head.segments.first().is_some_and(|s| s == "-") {
        return own(head, body, from, &edge).await;
    }
    match surface.mount(&head.segments) {
        Some((mount, below)) => {
            let below = below.to_vec();
            let mount = mount.clone();
            tool(head, below, mount, body, from, edge).await
        }
        None => {
            (edge.refused)(Code::UnknownTool.as_str());
            reply::problem(&Refusal::new(Code::UnknownTool, "no tool is mounted at this path"))
        }
    }
}

/// The answer to a head that breaks the rules: to MCP clients in JSON-RPC, or a modern one takes us for an old server.
fn unfit(parts: &http::request::Parts, surface: &Surface, refusal: &Refusal) -> Response<OutBody> {
    let segments = path::segments(parts.uri.path()).unwrap_or_default();
    match surface.mount(&segments) {
        Some((mount, _)) if mount.kind == ToolKind::Mcp => {
            mcp::refuse(&mcp::Unreadable { asked: mcp::asked(&parts.headers), refusal: refusal.clone() })
        }
        _ => reply::problem(refusal),
    }
}

/// Room for one body: its announced length, or the limit.
async fn room<'a>(edge: &'a Edge, body: &HyperBody, limit: usize) -> Result<SemaphorePermit<'a>, AcquireError> {
    let announced = body.size_hint().upper().unwrap_or(u64::MAX).min(limit as u64);
    edge.room.acquire_many(u32::try_from(announced.div_ceil(1024)).unwrap_or(u32::MAX)).await
}

async fn tool(
    head: ingress::Head,
    below: Vec<String>,
    mount: Mount,
    body: HyperBody,
    from: From,
    edge: Arc<Edge>,
) -> Response<OutBody> {
    if mount.kind == ToolKind::Mcp
        && let Err(wrong) = mcp::method(&head, &below)
    {
        (edge.refused)(wrong.refusal.code().as_str());
        return mcp::refuse(&wrong);
    }
    // Held to the end of the call: what is in memory at once is bounded, whoever sends it.
    let Ok(_room) = room(&edge, &body, mount.body_limit).await else {
        let full = Refusal::new(Code::Unavailable, "too many bodies at once").with_retry_after(Duration::from_secs(1));
        return match mount.kind {
            ToolKind::Rest => reply::problem(&full),
            ToolKind::Mcp => mcp::refuse(&mcp::Unreadable { asked: mcp::asked(&head.headers), refusal: full }),
        };
    };
    let body = body::read(body, mount.body_limit).await;
    match mount.kind {
        ToolKind::Rest => {
            let message = body.and_then(|b| rest::message(&head, &below, b)).unwrap_or_else(Message::Broken);
            let hints = hints::from_headers(&head.headers);
            let (message, hints) = merged(message, hints);
            let prefer = hints.prefer;
            let ended = (edge.handle)(incoming(head, mount.tool, from, hints, message, &edge)).await;
            reply::rest(ended, prefer)
        }
        ToolKind::Mcp => mcp_call(head, mount, body, from, &edge).await,
    }
}

async fn mcp_call(
    head: ingress::Head,
    mount: Mount,
    body: Result<Bytes, Refusal>,
    from: From,
    edge: &Edge,
) -> Response<OutBody> {
    let read = body
        .map_err(|refusal| Box::new(mcp::Unreadable { asked: mcp::asked(&head.headers), refusal }))
        .and_then(|body| mcp::message(&head, body));
    match read {
        Err(wrong) => {
            let message = Message::Broken(wrong.refusal.clone());
            let ended = (edge.handle)(incoming(head, mount.tool, from, Hints::default(), message, edge)).await;
            // Who could not prove itself learns nothing else.
            match ended.outcome {
                crate::call::Outcome::Refused(ref r) if r.code() == Code::Unauthenticated => {
                    mcp::answer(ended, &wrong.asked)
                }
                _ => mcp::refuse(&wrong),
            }
        }
        Ok((mcp::Read::Task(verb, hold), asked)) => {
            let credentials = head.credentials(from.certificate);
            let request = TaskRequest { verb, hold, tool: mount.tool, credentials };
            mcp::task((edge.task)(request).await, &asked)
        }
        Ok((mcp::Read::Tool(message), asked)) => {
            let hints = match &message {
                Message::Mcp(m) => hints::from_meta(&m.message, &head.headers),
                _ => hints::from_headers(&head.headers),
            };
            let (message, mut hints) = merged(message, hints);
            hints.poll.clone_from(&asked.poll);
            let ended = (edge.handle)(incoming(head, mount.tool, from, hints, message, edge)).await;
            mcp::answer(ended, &asked)
        }
    }
}

/// Bad hints make the whole message one that is refused once its sender is known.
fn merged(message: Message, hints: Result<Hints, Refusal>) -> (Message, Hints) {
    match hints {
        Ok(hints) => (message, hints),
        Err(refusal) => (Message::Broken(refusal), Hints::default()),
    }
}

fn incoming(head: ingress::Head, tool: String, from: From, hints: Hints, message: Message, edge: &Edge) -> Incoming {
    Incoming {
        id: CallId::new(),
        received: edge.clock.now(),
        peer: from.peer.ip(),
        credentials: head.credentials(from.certificate),
        tool,
        hints,
        headers: head.headers,
        message,
        gone: from.gone,
    }
}

async fn own(head: ingress::Head, body: HyperBody, from: From, edge: &Edge) -> Response<OutBody> {
    let Ok(_room) = room(edge, &body, OWN_BODY).await else {
        return reply::problem(
            &Refusal::new(Code::Unavailable, "too many bodies at once").with_retry_after(Duration::from_secs(1)),
        );
    };
    let read = body::read(body, OWN_BODY).await.and_then(|bytes| {
        let json = match (bytes.is_empty(), head.content_type.as_deref()) {
            (true, _) => None,
            (false, Some("application/json")) => {
                Some(json::read(&bytes).map_err(|e| Refusal::new(Code::MalformedRequest, e.to_string()))?)
            }
            _ => return Err(Refusal::new(Code::UnsupportedEncoding, "`Content-Type` must be `application/json`")),
        };
        let prefer = hints::from_headers(&head.headers)?.prefer;
        let credentials = head.credentials(from.certificate);
        let segments = head.segments.iter().skip(1).cloned().collect();
        Ok(OwnRequest { method: head.method, segments, credentials, peer: from.peer.ip(), prefer, json, body: bytes })
    });
    let answer = match read {
        Ok(request) => (edge.own)(request).await,
        Err(refusal) => OwnReply::Refused(refusal),
    };
    match answer {
        OwnReply::Json(status, value, headers) => {
            let mut response = reply::whole(status, "application/json", value.to_string());
            response.headers_mut().extend(headers);
            response
        }
        OwnReply::Result(stored) => reply::upstream(stored),
        OwnReply::Refused(refusal) => reply::problem(&refusal),
    }
}
