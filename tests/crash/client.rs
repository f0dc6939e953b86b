//! Agents and approvers: one request each, and a note of everything that they were told.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use holdpoint::call::Digest;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::site::{AGENTS, Process, key_of, token_of};
use crate::verify::{Answer, Told, What};

/// Only a proxy that hangs ever lets anybody wait so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// One thing that an agent wants; it asks again until it knows what became of it.
#[derive(Debug, Clone)]
pub struct Ask {
    pub method: &'static str,
    pub path: String,
    pub body: Value,
    pub key: Option<String>,
    pub agent: usize,
    pub evidence: Option<String>,
    /// The call and its hold, once told.
    pub call: Option<String>,
    pub answered: bool,
    /// Approved, and waits for what may never come: whoever asks again waits, too.
    pub waits: bool,
}

/// What is remembered over all processes of one directory.
#[derive(Debug, Default)]
pub struct World {
    pub asks: Mutex<Vec<Ask>>,
    /// Holds that were told: call ids.
    pub holds: Mutex<Vec<String>>,
    pub told: Mutex<Vec<Told>>,
    pub strange: Mutex<Vec<String>>,
    pub calls: AtomicU64,
    pub replays: AtomicU64,
    /// Requests that got no answer of this process.
    pub unanswered: AtomicUsize,
    names: AtomicU64,
}

pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    fn header(&self, name: &str) -> String {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
    }
}

/// Talks to one process.
pub struct Client<'a> {
    pub world: &'a World,
    pub process: &'a Process,
}

impl World {
    /// A name that nothing else has.
    pub fn name(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.names.fetch_add(1, SeqCst))
    }

    pub fn tell(&self, epoch: u64, what: What) {
        self.told.lock().unwrap().push(Told { epoch, what });
    }
}

async fn exchange(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: String) -> Option<Got> {
    let stream = TcpStream::connect(to).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", to.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    let (parts, body) = sender.send_request(request).await.ok()?.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    Some(Got { status: parts.status.as_u16(), headers: parts.headers, body })
}

impl Client<'_> {
    async fn send(
        &self,
        to: SocketAddr,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Option<Got> {
        match tokio::time::timeout(PATIENCE, exchange(to, method, path, headers, body)).await {
            Ok(Some(got)) => Some(got),
            Ok(None) => {
                self.world.unanswered.fetch_add(1, SeqCst);
                None
            }
            Err(_) => {
                self.world.strange.lock().unwrap().push(format!("I24: {method} {path} was never answered"));
                None
            }
        }
    }

    /// Asks, and remembers what was said. The ask learns its call.
    pub async fn ask(&self, ask: &mut Ask) -> Option<Got> {
        let nonce = self.world.name("n");
        let bearer = format!("Bearer {}", key_of(AGENTS[ask.agent]));
        let mut headers = vec![("authorization", bearer.as_str()), ("x-nonce", nonce.as_str())];
        let mut body = String::new();
        if ask.method != "GET" {
            headers.push(("content-type", "application/json"));
            body = ask.body.to_string();
        }
        headers.extend(ask.key.as_deref().map(|k| ("idempotency-key", k)));
        headers.extend(ask.evidence.as_deref().map(|e| ("holdpoint-evidence", e)));
        self.world.calls.fetch_add(1, SeqCst);
        let got = self.send(self.process.agents, ask.method, &ask.path, &headers, body).await?;
        let said = got.json();
        let word = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        let answer = Answer {
            nonce,
            effects: ask.method != "GET",
            call: got.header("holdpoint-call"),
            decision: got.header("holdpoint-decision"),
            status: got.status,
            code: word("code"),
            executed: word("executed"),
            body: Digest::of(&got.body).to_string(),
            names: said["done"].as_str().map(str::to_owned),
        };
        if answer.decision == "replayed" {
            self.world.replays.fetch_add(1, SeqCst);
        }
        ask.call = Some(answer.call.clone());
        ask.waits = said["state"] == "approved";
        ask.answered =
            ask.waits || !matches!(answer.code.as_str(), "held" | "in_flight" | "unavailable" | "upstream_unreachable");
        if answer.decision == "held" && ask.method != "GET" {
            let mut holds = self.world.holds.lock().unwrap();
            if !holds.contains(&answer.call) {
                holds.push(answer.call.clone());
            }
        }
        self.world.tell(self.process.epoch, What::Answer(answer));
        Some(got)
    }

    /// `/-/…` as an agent.
    pub async fn own(&self, agent: usize, method: &str, path: &str, body: Option<Value>) -> Option<Got> {
        let bearer = format!("Bearer {}", key_of(AGENTS[agent]));
        let mut headers = vec![("authorization", bearer.as_str())];
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        let body = body.map(|b| b.to_string()).unwrap_or_default();
        self.send(self.process.agents, method, path, &headers, body).await
    }

    pub async fn state(&self, agent: usize, call: &str) -> Option<()> {
        let got = self.own(agent, "GET", &format!("/-/calls/{call}"), None).await?;
        if let Some(state) = got.json()["state"].as_str() {
            self.world.tell(self.process.epoch, What::State { call: call.to_owned(), state: state.to_owned() });
        }
        Some(())
    }

    /// Puts a ticket, perhaps right onto a hold.
    pub async fn ticket(&self, agent: usize, call: Option<&str>) -> Option<String> {
        let path = call.map_or_else(|| "/-/evidence".to_owned(), |c| format!("/-/calls/{c}/evidence"));
        let ticket = json!({"kind": "ticket", "title": "T-1", "text": self.world.name("ticket ")});
        let got = self.own(agent, "POST", &path, Some(ticket)).await?;
        let id = got.json()["artifact"].as_str().map(str::to_owned);
        if let Some(id) = id.clone() {
            self.world.tell(self.process.epoch, What::Artifact(id));
        }
        id
    }

    pub async fn reviewer(&self, name: &str, method: &str, path: &str, body: Option<Value>) -> Option<Got> {
        let bearer = format!("Bearer {}", token_of(name));
        let mut headers = vec![("authorization", bearer.as_str())];
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        let body = body.map(|b| b.to_string()).unwrap_or_default();
        self.send(self.process.admin, method, path, &headers, body).await
    }

    /// The kill switch, and what was confirmed of it.
    pub async fn switch(&self, verb: &str, scope: &str) -> Option<()> {
        let reason = self.world.name("s");
        let said = json!({"scope": scope, "reason": reason});
        let got = self.reviewer("omar", "POST", &format!("/v1/{verb}"), Some(said)).await?;
        if got.status == 200 {
            // Who stops it a second time hears of the first.
            let first = got.json()["reason"].as_str().unwrap_or_default().to_owned();
            let reason = if verb == "kill" { first } else { reason };
            self.world.tell(self.process.epoch, What::Switched { scope: scope.to_owned(), reason });
        }
        Some(())
    }

    /// More room for a budget, and what was confirmed of it.
    pub async fn top_up(&self, id: &str, amount: u64) -> Option<()> {
        let reason = self.world.name("m");
        let said = json!({"amount": amount, "reason": reason});
        let got = self.reviewer("omar", "POST", &format!("/v1/budgets/{id}/topup"), Some(said)).await?;
        if got.status == 200 {
            self.world.tell(self.process.epoch, What::Switched { scope: "topped_up".to_owned(), reason });
        }
        Some(())
    }

    /// A decision, and what was confirmed of it.
    pub async fn decide(&self, name: &str, room: &str, call: &str, action: &str, body: Value) -> Option<u16> {
        let got = self.reviewer(name, "POST", &format!("/v1/{room}/{call}/{action}"), Some(body)).await?;
        if got.status == 200 {
            let said = got.json();
            let person = if name == "mia" { "maya" } else { name };
            self.world.tell(
                self.process.epoch,
                What::Decision {
                    person: person.to_owned(),
                    action: action.to_owned(),
                    call: call.to_owned(),
                    state: said["state"].as_str().unwrap_or_default().to_owned(),
                    version: said["version"].as_u64().unwrap_or(0),
                },
            );
        }
        Some(got.status)
    }
}
