//! The upstream, with a ledger of its own: it lives in the test's process, so it outlives every death. By seed it answers,
//! drops before or after executing, answers too late, twice, cut short, or kills the proxy itself.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use holdpoint::call::Digest;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::chance::of_text;
use crate::verify::{Effect, UNSAID};

/// Where in a request the upstream kills the proxy.
pub const STAGES: [&str; 3] = ["upstream.received", "upstream.executed", "upstream.half"];

/// The epoch of a process that has not said it yet.
const COMING: u64 = u64::MAX;

/// Kills the proxy.
pub type Killer = Box<dyn Fn() + Send + Sync>;

/// A stage, how many passes are left until it kills, and what kills.
type Armed = Option<(String, u64, Killer)>;

#[derive(Clone)]
pub struct Upstream {
    pub at: SocketAddr,
    seed: u64,
    epoch: Arc<AtomicU64>,
    effects: Arc<Mutex<Vec<Effect>>>,
    fates: Arc<Mutex<HashMap<String, bool>>>,
    /// Keys of payouts that were made; a second request with one of them does nothing.
    keys: Arc<Mutex<HashSet<String>>>,
    /// How often each asking came.
    came: Arc<Mutex<HashMap<String, u64>>>,
    calm: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
    armed: Arc<Mutex<Armed>>,
    open: Arc<watch::Sender<usize>>,
}

/// What it does with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Answer,
    Fail,
    NotNow,
    Twice,
    Extra,
    Cut,
    DropBefore,
    DropAfter,
    /// Executes and never answers in time.
    Late,
    /// Neither executes nor answers.
    Silent,
}

struct Request {
    method: String,
    path: String,
    nonce: String,
    key: Option<String>,
    content_type: Option<String>,
    body: Vec<u8>,
}

impl Upstream {
    pub async fn start(seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self {
            at: listener.local_addr().unwrap(),
            seed,
            epoch: Arc::default(),
            effects: Arc::default(),
            fates: Arc::default(),
            keys: Arc::default(),
            came: Arc::default(),
            calm: Arc::default(),
            reads: Arc::default(),
            armed: Arc::default(),
            open: Arc::new(watch::Sender::new(0)),
        };
        let serving = upstream.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let me = serving.clone();
                me.open.send_modify(|n| *n += 1);
                tokio::spawn(async move {
                    me.serve(stream).await;
                    me.open.send_modify(|n| *n -= 1);
                });
            }
        });
        upstream
    }

    /// A process comes up; it may send before it says which epoch it is.
    pub fn coming(&self) {
        self.stamp(UNSAID);
        self.epoch.store(COMING, SeqCst);
    }

    /// Which process this is.
    pub fn epoch(&self, epoch: u64) {
        self.epoch.store(epoch, SeqCst);
        self.stamp(epoch);
    }

    fn stamp(&self, epoch: u64) {
        self.effects.lock().unwrap().iter_mut().filter(|e| e.epoch == COMING).for_each(|e| e.epoch = epoch);
    }

    pub fn effects(&self) -> Vec<Effect> {
        self.effects.lock().unwrap().clone()
    }

    /// Whether it was executed; nothing while that is not decided.
    pub fn fate(&self, nonce: &str) -> Option<bool> {
        self.fates.lock().unwrap().get(nonce).copied()
    }

    /// From now on everything is answered, or not any more.
    pub fn calm(&self, calm: bool) {
        self.calm.store(calm, SeqCst);
    }

    /// Kills at the `times`-th pass of a stage.
    pub fn arm(&self, stage: &str, times: u64, killer: Killer) {
        *self.armed.lock().unwrap() = Some((stage.to_owned(), times, killer));
    }

    pub fn disarm(&self) {
        *self.armed.lock().unwrap() = None;
    }

    /// Waits until no connection is open: what a dead process had sent is executed, or never will be.
    pub async fn quiet(&self) {
        let _ = self.open.subscribe().wait_for(|n| *n == 0).await;
    }

    fn stage(&self, name: &str) {
        let mut armed = self.armed.lock().unwrap();
        if let Some((stage, left, killer)) = armed.as_mut().filter(|(s, left, _)| s == name && *left > 0) {
            *left -= 1;
            if *left == 0 {
                assert_eq!(stage, name);
                killer();
            }
        }
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut buffer = Vec::new();
        while let Some(request) = read(&mut stream, &mut buffer).await {
            if !self.respond(&mut stream, request).await {
                return;
            }
        }
    }

    fn execute(&self, request: &Request) {
        if request.method == "GET" {
            return;
        }
        let payout = request.path.contains("/payouts/");
        let key = request.key.clone().filter(|_| payout);
        let repeat = key.clone().is_some_and(|key| !self.keys.lock().unwrap().insert(key));
        let mut effects = self.effects.lock().unwrap();
        effects.push(Effect {
            nonce: request.nonce.clone(),
            method: request.method.clone(),
            path: request.path.clone(),
            content_type: request.content_type.clone(),
            body: Digest::of(&request.body).to_string(),
            key,
            repeat,
            epoch: self.epoch.load(SeqCst),
        });
        drop(effects);
        self.stage("upstream.executed");
    }

    fn way(&self, request: &Request) -> Way {
        let before = {
            let mut came = self.came.lock().unwrap();
            let count = came.entry(request.nonce.clone()).or_default();
            *count += 1;
            *count - 1
        };
        if self.calm.load(SeqCst) { Way::Answer } else { way(self.seed, request, before) }
    }

    /// What the proxy reads of a lost call: true, or nothing at all.
    fn looked_up(&self, path: &str) -> Vec<u8> {
        let (status, body) = match path.split_once("/payouts?key=") {
            _ if self.reads.fetch_add(1, SeqCst) % 11 == 10 => ("500 Internal Server Error", json!({})),
            Some((_, key)) => {
                let there = self.keys.lock().unwrap().contains(&format!("\"{key}\""));
                ("200 OK", json!({"items": if there { vec![key] } else { vec![] }}))
            }
            None if self.effects.lock().unwrap().iter().any(|e| e.path == path) => ("200 OK", json!({"done": true})),
            None => ("404 Not Found", json!({})),
        };
        let body = body.to_string();
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body.as_bytes()].concat()
    }

    /// Whether the connection goes on.
    async fn respond(&self, stream: &mut TcpStream, request: Request) -> bool {
        if request.method == "GET" && request.nonce.is_empty() {
            return stream.write_all(&self.looked_up(&request.path)).await.is_ok();
        }
        let way = self.way(&request);
        if request.method != "GET" {
            self.stage("upstream.received");
        }
        let executes = !matches!(way, Way::NotNow | Way::DropBefore | Way::Silent);
        if executes {
            self.execute(&request);
        }
        *self.fates.lock().unwrap().entry(request.nonce.clone()).or_default() |= executes;
        let whole = match way {
            Way::DropBefore | Way::DropAfter => return false,
            Way::Late | Way::Silent => {
                // Until the proxy gives up, or dies; then it is too late for an answer, which is given all the same.
                let mut rest = [0; 64];
                while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {}
                let late = if way == Way::Late { answer(201, "Created", &request) } else { Vec::new() };
                let _ = stream.write_all(&late).await;
                return false;
            }
            Way::NotNow => answer(503, "Service Unavailable", &request),
            Way::Fail => answer(500, "Internal Server Error", &request),
            _ => answer(201, "Created", &request),
        };
        let half = whole.len() - request.nonce.len() / 2 - 4;
        let more: &[u8] = match way {
            Way::Twice => &whole,
            Way::Extra => b"HTTP/1.1 299 Extra\r\n\r\nmore than was asked for",
            _ => b"",
        };
        if stream.write_all(&whole[..half]).await.is_err() {
            return false;
        }
        if request.method != "GET" {
            self.stage("upstream.half");
        }
        if way == Way::Cut {
            return false;
        }
        let rest = [&whole[half..], more].concat();
        stream.write_all(&rest).await.is_ok() && more.is_empty()
    }
}

/// The same request, the same way; when it comes again, another one.
fn way(seed: u64, request: &Request, before: u64) -> Way {
    let again = if before == 0 { String::new() } else { format!("#{before}") };
    match of_text(seed, &format!("{}{again}", request.nonce)).below(100) {
        _ if request.method == "GET" => Way::Answer,
        // What may be sent again is lost more often.
        n if may_come_again(request) && n >= 70 => {
            if n % 2 == 0 {
                Way::DropBefore
            } else {
                Way::DropAfter
            }
        }
        0..4 => Way::Fail,
        4..8 => Way::NotNow,
        8..11 => Way::Twice,
        11..14 => Way::Extra,
        14..17 => Way::Cut,
        17..20 => Way::DropBefore,
        20..23 => Way::DropAfter,
        23..25 => Way::Late,
        25 => Way::Silent,
        _ => Way::Answer,
    }
}

fn may_come_again(request: &Request) -> bool {
    ["/payouts/", "/marks/", "/files/"].iter().any(|p| request.path.contains(p))
}

/// Names the asking in its body, so that one call's answer is never taken for another's.
fn answer(status: u16, reason: &str, request: &Request) -> Vec<u8> {
    let pad = if request.path.contains("/exports/") { "x".repeat(300 << 10) } else { String::new() };
    let body = json!({"a": pad, "done": request.nonce}).to_string();
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nx-upstream: {}\r\n\r\n",
        body.len(),
        request.nonce
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        more(stream, buffer).await?;
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let fields: Vec<(String, String)> =
        lines.filter_map(|l| l.split_once(':')).map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())).collect();
    let field = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let length = field("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    while buffer.len() < end + 4 + length {
        more(stream, buffer).await?;
    }
    let body = buffer[end + 4..end + 4 + length].to_vec();
    buffer.drain(..end + 4 + length);
    let nonce = field("x-nonce").unwrap_or_default();
    let key = field("idempotency-key");
    Some(Request { method, path, nonce, key, content_type: field("content-type"), body })
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut part = [0; 4096];
    let n = stream.read(&mut part).await.ok().filter(|n| *n > 0)?;
    buffer.extend_from_slice(&part[..n]);
    Some(())
}
