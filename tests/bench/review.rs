//! What approvers and agents wait for: from an agent's call to the open inbox, and from the last approval to the upstream's
//! receipt, with many holds pending. The proxy stands on core 0, agents, reviewers and the upstream on core 1.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::setup::{self, KEY, TOKEN};

/// Calls that are timed.
const TIMED: usize = 300;
/// `reviews` of the measured proxy: an agent hears at once that its call is held.
const REVIEWS: &str = "reviews: { inline_wait: 0s, max_held: { per_agent: 100000, total: 100000 } }\n";
const PEOPLE: &str = "@id(\"decide\") permit (principal in Holdpoint::Team::\"leads\", action == Holdpoint::Action::\"hold.approve\", resource);\n";

/// Measures in a process of its own, on core 1.
pub(crate) fn run(pending: usize) -> Value {
    println!("\nreviewing, {pending} holds pending, {TIMED} more one after the other");
    let out = setup::pinned("1")
        .arg(std::env::current_exe().unwrap())
        .args(["reviewing", &pending.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let found: Value = serde_json::from_slice(&out.stdout).expect("figures");
    for (name, what) in [
        ("stream", "agent's call to the event on the open inbox"),
        ("page", "agent's call to the inbox asked for anew with it"),
        ("receipt", "last approval to the upstream's receipt"),
    ] {
        let figure = |which: &str| found[name][which].as_f64().unwrap();
        println!("  {what:<48} p50 {:>6.1} ms   p99 {:>6.1} ms", figure("p50_ms"), figure("p99_ms"));
    }
    found
}

pub(crate) fn child(pending: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!("{}", runtime.block_on(measured(pending)));
}

/// When each path reached the upstream.
#[derive(Clone, Default)]
struct Receipts(Arc<Mutex<HashMap<String, Instant>>>, Arc<Notify>);

impl Receipts {
    async fn of(&self, path: &str) -> Instant {
        loop {
            let told = self.1.notified();
            if let Some(at) = self.0.lock().unwrap().get(path) {
                return *at;
            }
            told.await;
        }
    }
}

async fn upstream(receipts: Receipts) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let receipts = receipts.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                receipts.0.lock().unwrap().insert(request.uri().path().to_owned(), Instant::now());
                receipts.1.notify_waiters();
                async { Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from_static(b"{}")))) }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    at
}

/// A keep-alive connection.
struct Client {
    to: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
    headers: Vec<(&'static str, String)>,
}

impl Client {
    async fn new(to: SocketAddr, headers: Vec<(&'static str, String)>) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { to, sender, headers }
    }

    async fn open(&mut self, method: &str, path: &str, kind: &str, body: String) -> Response<Incoming> {
        let mut request = Request::builder().method(method).uri(path).header("host", self.to.to_string());
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if !body.is_empty() {
            request = request.header("content-type", kind);
        }
        self.sender.ready().await.unwrap();
        self.sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap()
    }

    async fn ask(&mut self, method: &str, path: &str, body: Option<Value>) -> (u16, Bytes) {
        let body = body.map(|b| b.to_string()).unwrap_or_default();
        let response = self.open(method, path, "application/json", body).await;
        (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes())
    }
}

/// A signed-in browser.
async fn browser(admin: SocketAddr) -> Client {
    let mut client = Client::new(admin, vec![("origin", format!("http://{admin}"))]).await;
    let form = format!("token={TOKEN}");
    let response = client.open("POST", "/sign-in", "application/x-www-form-urlencoded", form).await;
    let cookie = response.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    drop(response.into_body().collect().await.unwrap());
    client.headers.push(("cookie", cookie));
    client
}

/// The page's own stream of events, as the open inbox reads it.
struct Stream {
    body: Incoming,
    text: String,
}

impl Stream {
    async fn until(&mut self, hold: &str) -> Instant {
        while !self.text.contains(hold) {
            let frame = self.body.frame().await.expect("the stream ended").unwrap();
            self.text.push_str(&String::from_utf8_lossy(frame.data_ref().map_or(&[], |d| d)));
        }
        let seen = Instant::now();
        self.text.clear();
        seen
    }
}

async fn measured(pending: usize) -> Value {
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let receipts = Receipts::default();
    let at = upstream(receipts.clone()).await;
    let policies = format!("{PEOPLE}{}", setup::cedar(100));
    let home = temp.path().join("reviewed");
    let (_proxy, agents, admin) = setup::started(&home, at, &policies, REVIEWS);
    let mut agent = Client::new(agents, vec![("authorization", format!("Bearer {KEY}"))]).await;
    let mut reviewer = Client::new(admin, vec![("authorization", format!("Bearer {TOKEN}"))]).await;
    let mut note = setup::note(false);
    note["amountMinor"] = 900_000.into();
    let mut number = 0usize;
    let mut hold = async |agent: &mut Client| {
        number += 1;
        let path = format!("/notes/n_{number}/changes");
        let (status, body) = agent.ask("POST", &format!("/bench{path}"), Some(note.clone())).await;
        let held: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status, held["code"].as_str()), (409, Some("held")), "{held}");
        (path, held["hold"].as_str().unwrap().to_owned())
    };
    for _ in 0..pending {
        hold(&mut agent).await;
    }
    let mut page = browser(admin).await;
    let mut inbox = browser(admin).await;
    let body = inbox.open("GET", "/events", "", String::new()).await.into_body();
    let mut stream = Stream { body, text: String::new() };
    let (mut on_stream, mut on_page, mut receipt) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TIMED {
        let asked = Instant::now();
        let (path, id) = hold(&mut agent).await;
        on_stream.push(stream.until(&id).await - asked);
        let (_, text) = page.ask("GET", "/", None).await;
        assert!(String::from_utf8_lossy(&text).contains(&id), "the inbox does not show it");
        on_page.push(asked.elapsed());
        let (_, shown) = reviewer.ask("GET", &format!("/v1/holds/{id}"), None).await;
        let digest = serde_json::from_slice::<Value>(&shown).unwrap()["digest"].clone();
        let approved = Instant::now();
        let (status, body) =
            reviewer.ask("POST", &format!("/v1/holds/{id}/approve"), Some(json!({"digest": digest}))).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        receipt.push(receipts.of(&path).await - approved);
    }
    json!({"pending": pending, "stream": figures(on_stream), "page": figures(on_page), "receipt": figures(receipt)})
}

fn figures(mut all: Vec<Duration>) -> Value {
    all.sort_unstable();
    let at = |q: usize| all[(all.len() * q / 100).min(all.len() - 1)].as_secs_f64() * 1e3;
    json!({"p50_ms": at(50), "p99_ms": at(99)})
}
