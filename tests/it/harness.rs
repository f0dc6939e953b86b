//! A proxy with its upstream in one process: real sockets on port 0, a temporary folder, a clock that tests move.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use holdpoint::admin::openapi as description;
use holdpoint::app::{self, Running};
use holdpoint::audit::Line;
use holdpoint::clock::{Clock, SystemClock};
use holdpoint::store::{CallRecord, State};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

#[path = "../../src/admin/tests/described.rs"]
mod described;

pub const SUPPORT_KEY: &str = "support-bot-key-0123456789";
pub const OTHER_KEY: &str = "other-bot-key-0123456789";
pub const CRM_TOKEN: &str = "crm-upstream-token-canary";

/// A request that reached the upstream.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

type Script = Box<dyn Fn(&Seen) -> Reaction + Send + Sync>;

/// What the upstream does with a request.
pub enum Reaction {
    /// Answers.
    Answer(StatusCode, Vec<(&'static str, String)>, Bytes),
    /// Answers only once the gate is opened.
    Wait(Arc<Notify>, Box<Reaction>),
    /// Closes the connection without an answer.
    Drop,
    /// Answers with these pieces, then breaks off unless `whole`.
    Pieces(Vec<(&'static str, String)>, Vec<Bytes>, bool),
    /// Answers with these pieces, and ends (or breaks off unless `whole`) only once the gate is opened.
    Gated(Vec<(&'static str, String)>, Vec<Bytes>, bool, Arc<Notify>),
}

/// Answers with JSON.
pub fn answer(status: u16, body: &Value) -> Reaction {
    let json = ("content-type", "application/json".to_owned());
    Reaction::Answer(StatusCode::from_u16(status).unwrap(), vec![json], Bytes::from(body.to_string()))
}

/// An upstream that records every request and counts every byte that reached it.
#[derive(Clone)]
pub struct Upstream {
    pub at: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    bytes: Arc<AtomicUsize>,
    script: Arc<Mutex<Script>>,
    pub arrived: Arc<Notify>,
}

impl Upstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let default: Script =
            Box::new(|seen| answer(200, &json!({"method": seen.method.as_str(), "target": seen.target})));
        let upstream = Self {
            at: listener.local_addr().unwrap(),
            seen: Arc::default(),
            bytes: Arc::default(),
            script: Arc::new(Mutex::new(default)),
            arrived: Arc::default(),
        };
        let serving = upstream.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        upstream
    }

    async fn serve(self, stream: TcpStream) {
        let io = Counting { inner: TokioIo::new(stream), bytes: Arc::clone(&self.bytes) };
        let service = service_fn(move |request: Request<Incoming>| {
            let me = self.clone();
            async move { me.respond(request).await }
        });
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
    }

    async fn respond(&self, request: Request<Incoming>) -> Result<Response<Out>, std::io::Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        let target = parts.uri.path_and_query().map(|p| p.to_string()).unwrap_or_default();
        let seen = Seen { method: parts.method, target, headers: parts.headers, body };
        let reaction = (self.script.lock().unwrap())(&seen);
        self.seen.lock().unwrap().push(seen);
        self.arrived.notify_one();
        react(reaction).await
    }

    pub fn script(&self, script: impl Fn(&Seen) -> Reaction + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Bytes that reached it, whether or not they made up a request.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::SeqCst)
    }
}

type Out = http_body_util::combinators::BoxBody<Bytes, std::io::Error>;

fn react(reaction: Reaction) -> std::pin::Pin<Box<dyn Future<Output = Result<Response<Out>, std::io::Error>> + Send>> {
    Box::pin(async move {
        match reaction {
            Reaction::Answer(status, headers, body) => {
                let mut response = Response::builder().status(status);
                for (name, value) in headers {
                    response = response.header(name, value);
                }
                Ok(response.body(Full::new(body).map_err(|e| match e {}).boxed()).unwrap())
            }
            Reaction::Wait(gate, then) => {
                gate.notified().await;
                react(*then).await
            }
            Reaction::Drop => Err(std::io::Error::other("dropped")),
            Reaction::Pieces(headers, pieces, whole) => {
                let mut response = Response::builder();
                for (name, value) in headers {
                    response = response.header(name, value);
                }
                let mut frames: Vec<Result<_, std::io::Error>> =
                    pieces.into_iter().map(|p| Ok(http_body::Frame::data(p))).collect();
                if !whole {
                    frames.push(Err(std::io::Error::other("cut")));
                }
                let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
                Ok(response.body(body.boxed()).unwrap())
            }
            Reaction::Gated(headers, pieces, whole, gate) => {
                let mut response = Response::builder();
                for (name, value) in headers {
                    response = response.header(name, value);
                }
                let (tx, rx) = tokio::sync::mpsc::channel(1);
                tokio::spawn(async move {
                    for piece in pieces {
                        let _ = tx.send(Ok(http_body::Frame::data(piece))).await;
                    }
                    gate.notified().await;
                    if !whole {
                        let _ = tx.send(Err(std::io::Error::other("cut"))).await;
                    }
                });
                let frames = futures_util::stream::unfold(rx, |mut rx| async { Some((rx.recv().await?, rx)) });
                Ok(response.body(BodyExt::boxed(http_body_util::StreamBody::new(frames))).unwrap())
            }
        }
    })
}

struct Counting<S> {
    inner: S,
    bytes: Arc<AtomicUsize>,
}

impl<S: hyper::rt::Read + Unpin> hyper::rt::Read for Counting<S> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        mut buf: hyper::rt::ReadBufCursor<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let before = buf.remaining();
        let mut own = vec![0u8; before.min(64 << 10)];
        let mut read = hyper::rt::ReadBuf::new(&mut own);
        let polled = std::pin::Pin::new(&mut self.inner).poll_read(cx, read.unfilled());
        if let std::task::Poll::Ready(Ok(())) = &polled {
            self.bytes.fetch_add(read.filled().len(), Ordering::SeqCst);
            buf.put_slice(read.filled());
        }
        polled
    }
}

impl<S: hyper::rt::Write + Unpin> hyper::rt::Write for Counting<S> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.inner).poll_write(cx, buf)
    }
    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A proxy before its upstream. Dropped, it stops with its runtime.
pub struct Proxy {
    pub dir: tempfile::TempDir,
    pub running: Running,
    pub upstream: Upstream,
}

/// How a proxy is set up; each part can be replaced.
#[must_use]
pub struct Setup {
    config: String,
    policies: String,
    people: String,
    files: Vec<(String, String)>,
    clock: Arc<dyn Clock>,
}

pub const CONFIG: &str = include_str!("config.yaml");
pub const POLICIES: &str = include_str!("policies.cedar");
pub const PEOPLE: &str = include_str!("people.cedar");

impl Setup {
    pub fn new() -> Self {
        Self {
            config: CONFIG.into(),
            policies: POLICIES.into(),
            people: PEOPLE.into(),
            files: Vec::new(),
            clock: Arc::new(SystemClock),
        }
    }

    /// Replaces a piece of the configuration; it must stand there.
    pub fn config(mut self, from: &str, to: &str) -> Self {
        assert!(self.config.contains(from), "{from} does not stand in the configuration");
        self.config = self.config.replace(from, to);
        self
    }

    pub fn policies(mut self, text: &str) -> Self {
        self.policies = text.into();
        self
    }

    pub fn people(mut self, text: &str) -> Self {
        self.people = text.into();
        self
    }

    pub fn more_policies(mut self, text: &str) -> Self {
        self.policies.push_str(text);
        self
    }

    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.into(), text.into()));
        self
    }

    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Writes the files into `dir`.
    pub fn write(&self, dir: &Path, upstream: SocketAddr) -> PathBuf {
        let put = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("policies/agents.cedar", &self.policies);
        put("policies/people.cedar", &self.people);
        put("refund.json", include_str!("../../schemas/refund.json"));
        put("update.json", include_str!("../../schemas/update_customer.json"));
        put("tickets.lock.json", include_str!("../../deploy/demo/tickets.lock.json"));
        for (name, secret) in [("support", SUPPORT_KEY), ("other", OTHER_KEY), ("crm", CRM_TOKEN)] {
            put(&format!("secrets/{name}"), secret);
        }
        for name in ["maya", "mia", "li", "sam", "omar", "ana"] {
            put(&format!("secrets/{name}"), &token(name));
        }
        for (name, text) in &self.files {
            put(name, text);
        }
        put("holdpoint.yaml", &self.config.replace("UPSTREAM", &upstream.to_string()));
        dir.join("holdpoint.yaml")
    }

    pub async fn start(self) -> Proxy {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::start().await;
        let path = self.write(dir.path(), upstream.at);
        let config = app::load(&path).unwrap_or_else(|e| panic!("{e}"));
        let running = app::start(path, config, self.clock, 2).await.unwrap_or_else(|e| panic!("{e:#}"));
        Proxy { dir, running, upstream }
    }
}

/// The token of a reviewer.
pub fn token(name: &str) -> String {
    format!("{name}-reviewer-token-0123456789")
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
    pub fn decision(&self) -> &str {
        self.header("holdpoint-decision")
    }
}

/// One request on a connection of its own.
pub async fn send(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Got {
    try_send(to, method, path, headers, body).await.expect("no answer")
}

/// One request on a connection of its own; nothing when no whole answer comes.
pub async fn try_send(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], sent: &[u8]) -> Option<Got> {
    let stream = TcpStream::connect(to).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", to.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(sent))).unwrap();
    let (parts, body) = sender.send_request(request).await.ok()?.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    if path.starts_with("/v1/") {
        let (status, headers) = (parts.status.as_u16(), &parts.headers);
        described::check(&described::Exchange { method, path, sent, status, headers, body: &body });
    }
    Some(Got { status: parts.status.as_u16(), headers: parts.headers, body })
}

/// How long a test waits for what must come. Only a test that fails ever waits so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls for what nothing announces.
pub async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let mut beat = tokio::time::interval(Duration::from_millis(2));
    let found = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            beat.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("it never came")
}

/// The records of a state directory. A batch that is being written ends the list.
pub fn lines(state: &Path) -> Vec<Line> {
    holdpoint::audit::lines(state, 0).unwrap().map_while(Result::ok).collect()
}

/// The event of a record as JSON.
pub fn event(line: &Line) -> Value {
    serde_json::from_str(line.event.get()).unwrap()
}

/// The word that a signed-in person's forms carry, and the cookie that goes with it.
pub async fn sign_in(p: &Proxy, name: &str) -> String {
    let origin = format!("http://{}", p.running.admin);
    let headers = [("content-type", "application/x-www-form-urlencoded"), ("origin", origin.as_str())];
    let form = format!("token={}", token(name));
    let got = send(p.running.admin, "POST", "/sign-in", &headers, form.as_bytes()).await;
    assert_eq!(got.status, 303, "{got:?}");
    got.header("set-cookie").split(';').next().unwrap().to_owned()
}

/// A page as this person sees it.
pub async fn page(p: &Proxy, name: &str, path: &str) -> String {
    let cookie = sign_in(p, name).await;
    let got = send(p.running.admin, "GET", path, &[("cookie", &cookie)], b"").await;
    assert_eq!(got.status, 200, "{got:?}");
    String::from_utf8(got.body.to_vec()).unwrap()
}

impl Proxy {
    pub fn agents(&self) -> SocketAddr {
        self.running.agents
    }

    /// As the support agent.
    pub async fn agent(&self, method: &str, path: &str, more: &[(&str, &str)], body: Option<&Value>) -> Got {
        self.agent_as(SUPPORT_KEY, method, path, more, body).await
    }

    pub async fn agent_as(
        &self,
        key: &str,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Got {
        let bearer = format!("Bearer {key}");
        let mut headers = vec![("authorization", bearer.as_str())];
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        headers.extend_from_slice(more);
        let bytes = body.map(|b| b.to_string().into_bytes()).unwrap_or_default();
        send(self.agents(), method, path, &headers, &bytes).await
    }

    pub async fn refund(&self, order: &str, minor: i64, more: &[(&str, &str)]) -> Got {
        let body = json!({"customerId": "c_1", "amountMinor": minor, "currency": "EUR"});
        self.agent("POST", &format!("/crm/orders/{order}/refunds"), more, Some(&body)).await
    }

    /// As a reviewer on the admin API.
    pub async fn reviewer(&self, name: &str, method: &str, path: &str, body: Option<&Value>) -> Got {
        let bearer = format!("Bearer {}", token(name));
        let mut headers = vec![("authorization", bearer.as_str())];
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        let bytes = body.map(|b| b.to_string().into_bytes()).unwrap_or_default();
        send(self.running.admin, method, path, &headers, &bytes).await
    }

    /// Reads the hold and approves what was read.
    pub async fn approve(&self, name: &str, hold: &str, justification: Option<&str>) -> Got {
        let digest = self.reviewer(name, "GET", &format!("/v1/holds/{hold}"), None).await.json()["digest"].clone();
        let mut vote = json!({"digest": digest});
        if let Some(words) = justification {
            vote["justification"] = words.into();
        }
        self.reviewer(name, "POST", &format!("/v1/holds/{hold}/approve"), Some(&vote)).await
    }

    /// As a reviewer who names the attempt.
    pub async fn keyed(&self, name: &str, path: &str, key: &str, body: &Value) -> Got {
        let bearer = format!("Bearer {}", token(name));
        let json = ("content-type", "application/json");
        let headers = [("authorization", bearer.as_str()), json, ("idempotency-key", key)];
        send(self.running.admin, "POST", path, &headers, body.to_string().as_bytes()).await
    }

    /// The same proxy, stopped and started: what was in memory alone is gone.
    pub async fn restarted(self, clock: Arc<dyn Clock>) -> Self {
        let Self { dir, running, upstream } = self;
        running.stop().await;
        let path = dir.path().join("holdpoint.yaml");
        // The state is free once the last request on the old listeners has ended.
        let started = async {
            loop {
                let config = app::load(&path).unwrap_or_else(|e| panic!("{e}"));
                if let Ok(running) = app::start(path.clone(), config, Arc::clone(&clock), 2).await {
                    break running;
                }
                tokio::task::yield_now().await;
            }
        };
        let running = tokio::time::timeout(PATIENCE, started).await.expect("it did not start again");
        Self { dir, running, upstream }
    }

    /// The record of a call, as the store has it now.
    pub async fn record(&self, call: &str) -> CallRecord {
        self.running.store().get(call.parse().unwrap()).await.unwrap().expect("no such call")
    }

    /// Where the call stands.
    pub async fn state(&self, call: &str) -> State {
        self.record(call).await.state
    }

    /// Waits until the call is in this state.
    pub async fn until_state(&self, call: &str, state: State) -> CallRecord {
        let mut changes = self.running.store().watch(call.parse().unwrap()).unwrap().expect("no such call");
        let moved = changes.wait_for(|(s, _)| *s == state);
        tokio::time::timeout(PATIENCE, moved).await.expect("never got there").unwrap();
        self.record(call).await
    }

    /// Writes a file of the configuration anew; a reload reads it.
    pub fn rewrite(&self, name: &str, change: impl Fn(String) -> String) {
        let path = self.dir.path().join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        let changed = change(text.clone());
        assert_ne!(text, changed, "{name} stays as it is");
        std::fs::write(path, changed).unwrap();
    }

    /// The journal's records so far, oldest first.
    pub fn lines(&self) -> Vec<Line> {
        lines(&self.dir.path().join("state"))
    }

    /// Waits for a journal record.
    pub async fn until_line(&self, wanted: impl Fn(&str, &Value) -> bool) -> Value {
        until(|| {
            let found = self.lines().into_iter().map(|l| (l.kind(), event(&l)));
            found.into_iter().find(|(kind, event)| wanted(kind, event)).map(|(_, event)| event)
        })
        .await
    }

    /// Waits until the metrics have all of these lines.
    pub async fn until_metrics(&self, lines: &[&str]) {
        let looks = async {
            loop {
                let got = send(self.running.admin, "GET", "/metrics", &[], b"").await;
                let text = String::from_utf8_lossy(&got.body).into_owned();
                if lines.iter().all(|line| text.lines().any(|l| l == *line)) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, looks).await.unwrap_or_else(|_| panic!("never told: {lines:?}"));
    }

    /// Waits until the upstream has seen so many requests.
    pub async fn until_seen(&self, count: usize) {
        until(|| (self.upstream.count() >= count).then_some(())).await;
    }
}
