//! The admin side as its users meet it: the router over a real store, the shipped policies and a clock set by hand.

mod api;
mod described;
mod doors;
mod events;
mod handling;
mod looking;
mod pages;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;
use tower::ServiceExt;

use self::described::Exchange;
use super::openapi::document as description;
use super::{Admin, router};
use crate::call::{
    ArtifactId, Call, CallContext, CallId, Checked, Digest, OutRequest, Preference, Principal, Target, Timestamp,
};
use crate::clock::{Clock, ManualClock};
use crate::gates::authz::Verdict;
use crate::gates::route::Runs;
use crate::notify::Notifier;
use crate::policy::sample::{facts, support_bot};
use crate::snapshot::{Lasting, Snapshot, Snapshots};
use crate::store::{
    AnswerBody, Begin, CallRecord, Conclusion, Made, NewArtifact, Options, Park, State, Store, arguments_of,
};
use crate::tasks::Draining;
use crate::telemetry::Metrics;

const NOW: i64 = 1_795_440_600_123;

/// Everything that one test needs.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    lasting: Lasting,
    snapshots: Arc<Snapshots>,
    pub(crate) store: Arc<Store>,
    metrics: Arc<Metrics>,
    resumed: UnboundedReceiver<CallId>,
    draining: watch::Sender<bool>,
    pub(crate) router: Router,
}

/// What came back.
struct Got {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {} {}", self.status, self.text))
    }
    fn code(&self) -> (u16, String) {
        let code = if self.text.is_empty() { String::new() } else { self.json()["code"].as_str().unwrap_or("").into() };
        (self.status.as_u16(), code)
    }
}

fn token(user: &str) -> String {
    format!("{user}-token-0123456789")
}

/// The users that the configuration names, with their groups.
const USERS: [(&str, &str, bool); 8] = [
    ("maya", "support-leads", true),
    ("noor", "support-leads", true),
    ("finn", "finance", true),
    ("lena", "finance", false),
    ("dana", "data-stewards", true),
    ("pat", "platform", true),
    ("ana", "support-leads", true),
    ("nobody", "guests", true),
];

fn yaml(dir: &Path, users: &[(&str, &str, bool)]) -> String {
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for schema in ["refund.json", "update_customer.json"] {
        std::fs::copy(root.join("schemas").join(schema), dir.join(schema)).unwrap();
    }
    let any = r#"{"type":"object","properties":{"ticketId":{"type":"string"},"hard":{"type":"boolean"},"body":{"type":"string"},"query":{"type":"string"}},"additionalProperties":false}"#;
    write("any.json", any);
    write("agent.key", "agent-key-0123456789");
    let mut tokens = String::new();
    for (user, group, mfa) in users {
        write(&format!("{user}.token"), &token(user));
        tokens.push_str(&format!(
            "      - {{ user: {user}, groups: [{group}], email: {user}@acme.dev, mfa: {mfa}, token: {{ file: {user}.token }} }}\n"
        ));
    }
    format!(
        r#"
version: 1
listen: {{ allowed_hosts: [localhost, 127.0.0.1] }}
state: {{ path: state }}
policies: {{ dir: {policies} }}
identity:
  org: acme
  agents:
    api_keys:
      - {{ agent: support-bot, group: support, owner: support-leads, key: {{ file: agent.key }} }}
  people:
    - {{ user: noor, subjects: ["token:noor", "token:noor2"] }}
  reviewers:
    tokens:
{tokens}
default_workflow: refunds
workflows: {{ refunds: {{ owner: support-leads, stage: execute }} }}
tools:
  crm:
    kind: rest
    owner: support-leads
    env: prod
    mount: /crm
    upstream: {{ url: "http://127.0.0.1:9/v2" }}
    operations:
      get_customer: {{ match: "GET /customers/:customerId", effect: read }}
      get_order: {{ match: "GET /orders/:orderId", effect: read }}
      update_customer: {{ match: "PATCH /customers/:customerId", effect: write, schema: update_customer.json }}
      refund:
        match: POST /orders/:orderId/refunds
        effect: [money, irreversible]
        schema: refund.json
        cost: {{ amount: /amountMinor, currency: /currency }}
        redact: [/customerId]
        target: /customerId
        title: "Refund {{amountMinor|money:currency}} on order {{orderId}}"
  tickets:
    kind: rest
    owner: support-leads
    env: prod
    mount: /tickets
    upstream: {{ url: "http://127.0.0.1:9" }}
    operations:
      search_tickets: {{ match: POST /search, effect: read, schema: any.json }}
      get_ticket: {{ match: "GET /tickets/:ticketId", effect: read }}
      add_comment: {{ match: POST /comments, effect: write, schema: any.json }}
      delete_ticket: {{ match: POST /delete, effect: irreversible, schema: any.json }}
"#,
        policies = root.join("policies").display(),
    )
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(NOW)));
        let lasting = Lasting {
            servers: Arc::default(),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            runs: Arc::new(Runs::default()),
            fetch: Arc::new(|_| Box::pin(async { Err(crate::call::Fault::new("no network in tests")) })),
            on_policy_error: Arc::new(|_| {}),
        };
        let snapshots = Arc::new(Snapshots::new(snapshot(dir.path(), &lasting, &USERS)));
        let options = Options { segment_bytes: 1 << 20, preallocate: 1 << 16, ..Options::default() };
        let state = dir.path().join("state");
        let (store, _) = Store::open(&state, Arc::clone(&clock) as Arc<dyn Clock>, options).unwrap();
        let (store, metrics) = (Arc::new(store), Arc::new(Metrics::new().unwrap()));
        let (resume, resumed) = unbounded_channel();
        let (draining, drained) = watch::channel(false);
        let stop = draining.clone();
        let time = Arc::clone(&clock) as Arc<dyn Clock>;
        let (told, counted) = (Arc::clone(&store), Arc::clone(&metrics));
        let look = crate::admin::look(Arc::clone(&snapshots), Arc::clone(&store));
        let notifier = Notifier::open(&state, told, Arc::clone(&snapshots), time, counted, look).unwrap();
        let breakers = Arc::new(crate::gates::breaker::Breakers::new(Arc::clone(&clock) as Arc<dyn Clock>));
        breakers.configure(snapshots.current().config.tools.iter().map(|t| (t.tool.name.clone(), t.breaker)));
        let admin = Admin {
            notifier,
            edit: Arc::new(|_| Box::pin(async { None })),
            undo: Arc::new(|_| Box::pin(async { None })),
            grant: Arc::new(|_| Box::pin(async { None })),
            reload: Arc::new(|_| Box::pin(async { Err("there are no files".to_owned()) })),
            rehearse: Arc::new(|_| panic!("there are no files")),
            pins: Arc::default(),
            breakers: Arc::clone(&breakers),
            snapshots: Arc::clone(&snapshots),
            store: Arc::clone(&store),
            metrics: Arc::clone(&metrics),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            resume,
            drain: Arc::new(move || stop.send_modify(|on| *on = true)),
            draining: Draining::new(drained),
        };
        let router = router(Arc::new(admin));
        Self { dir, clock, lasting, snapshots, store, metrics, resumed, draining, router }
    }

    /// Another version of the configuration, with these users.
    fn reload(&self, users: &[(&str, &str, bool)]) {
        self.snapshots.replace(snapshot(self.dir.path(), &self.lasting, users));
    }

    /// A second person who settles unknown calls.
    pub(crate) fn with_petra(&self) {
        let mut users = USERS.to_vec();
        users.push(("petra", "platform", true));
        self.reload(&users);
    }

    async fn send(&self, request: Request<Body>) -> Got {
        let (method, uri) = (request.method().to_string(), request.uri().to_string());
        let (head, body) = request.into_parts();
        let sent = axum::body::to_bytes(body, 1 << 24).await.unwrap();
        let request = Request::from_parts(head, Body::from(sent.clone()));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = crate::wire::body::read(body, 1 << 24).await.unwrap();
        if uri.starts_with("/v1/") {
            let (status, headers) = (parts.status.as_u16(), &parts.headers);
            let x = Exchange { method: &method, path: &uri, sent: &sent, status, headers, body: &bytes };
            described::check(&x);
        }
        Got { status: parts.status, headers: parts.headers, text: String::from_utf8_lossy(&bytes).into_owned() }
    }

    async fn get(&self, user: &str, path: &str) -> Got {
        self.send(ask("GET", path).header("authorization", bearer(user)).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, user: &str, path: &str, body: Value) -> Got {
        let request = ask("POST", path).header("authorization", bearer(user));
        let request = request.header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    /// A held refund with its evidence; `change` may spoil the call first.
    pub(crate) async fn hold(&self, amount: i64) -> CallRecord {
        self.hold_of("crm.refund", refund(amount), support_bot(), &["ticket", "order"]).await
    }

    pub(crate) async fn hold_of(
        &self,
        operation: &str,
        arguments: Value,
        principal: Principal,
        evidence: &[&str],
    ) -> CallRecord {
        let snapshot = self.snapshots.current();
        let mut artifacts = Vec::new();
        for kind in evidence {
            let artifact = NewArtifact {
                id: ArtifactId::new(),
                kind: (*kind).to_owned(),
                title: format!("<script>{kind}</script>"),
                by: principal.agent.clone(),
                principal_key: principal.key(),
                content: Bytes::from_static(b"<script>evidence</script>"),
            };
            artifacts.push(self.store.put_artifact(artifact).await.unwrap());
        }
        let call = call(&snapshot, operation, arguments, &principal, artifacts.clone());
        let Verdict::Hold(terms) = snapshot.policies.authorize(&principal, &call, &facts()).unwrap() else {
            panic!("policy lets it run")
        };
        let money = call.arguments().get("amountMinor").and_then(Value::as_i64).map(|a| (a, "EUR".to_owned()));
        let made = Made {
            state: State::Held,
            tier: terms.tier,
            policies: terms.why.iter().map(|w| w.policy.clone()).collect(),
            facts: None,
            would: Vec::new(),
            terms: Some(terms),
            charges: Vec::new(),
            money,
            config_digest: snapshot.config.digest,
            policy_digest: snapshot.policies.digest(),
            now: self.clock.now(),
        };
        let park = Park {
            record: CallRecord::fresh(&call, &principal, made),
            body: call.request().body.clone(),
            arguments: arguments_of(&call),
            states: Bytes::new(),
            evidence: artifacts,
            max_per_agent: 100,
            max_total: 1000,
        };
        self.store.park(park).await.unwrap()
    }

    /// A call that was never held, and of which nobody knows what became.
    pub(crate) async fn unknown(&self) -> CallRecord {
        let snapshot = self.snapshots.current();
        let (principal, now) = (support_bot(), self.clock.now());
        let call = call(&snapshot, "crm.refund", refund(1200), &principal, Vec::new());
        let made = Made {
            state: State::Dispatching,
            tier: crate::call::Tier::Low,
            policies: vec!["support-may-attempt".to_owned()],
            facts: None,
            would: Vec::new(),
            terms: None,
            charges: Vec::new(),
            money: Some((1200, "EUR".to_owned())),
            config_digest: snapshot.config.digest,
            policy_digest: snapshot.policies.digest(),
            now,
        };
        let begin = Begin {
            record: CallRecord::fresh(&call, &principal, made),
            body: call.request().body.clone(),
            arguments: arguments_of(&call),
            states: Bytes::new(),
            charges: Vec::new(),
            release: false,
        };
        let (begun, _) = self.store.begin(begin).await.unwrap();
        let conclusion = Conclusion { state: State::Unknown, answer: None, body: AnswerBody::None, note: None };
        self.store.conclude(begun, conclusion).await.unwrap().as_ref().clone()
    }
}

fn snapshot(dir: &Path, lasting: &Lasting, users: &[(&str, &str, bool)]) -> Snapshot {
    let config = crate::config::parse(&yaml(dir, users), &dir.join("holdpoint.yaml"));
    let config = config.unwrap_or_else(|e| panic!("{e}"));
    Snapshot::build(config, lasting, None).unwrap_or_else(|e| panic!("{e}"))
}

fn refund(amount: i64) -> Value {
    json!({"orderId": "o_881", "customerId": "c_204_secret", "amountMinor": amount, "currency": "EUR"})
}

#[expect(clippy::disallowed_methods, reason = "tests of the admin side need calls without the schema gate")]
fn call(s: &Snapshot, name: &str, arguments: Value, principal: &Principal, evidence: Vec<ArtifactId>) -> Call {
    let checked = Checked {
        id: CallId::new(),
        operation: Arc::clone(s.operation(name).unwrap()),
        request: OutRequest {
            target: Target { method: "POST".to_owned(), path: "/v2/orders/o_881/refunds?for=c_204_secret".to_owned() },
            content_type: Some("application/json".to_owned()),
            body: Bytes::from(arguments.to_string()),
            headers: vec![("accept".to_owned(), "application/json".to_owned())],
            rpc: None,
        },
        arguments,
        key: Some(CallId::new().to_string()),
        key_derived: false,
        named_run: None,
        context: CallContext {
            workflow: "refunds".to_owned(),
            stage: "execute".to_owned(),
            run: "run<script>1".to_owned(),
            step: Some("<script>step".to_owned()),
            intent: Some("</script><img src=x onerror=alert(1)> trust me\u{202e}".to_owned()),
            confidence: Some(0.62),
            source_ip: None,
        },
        evidence,
        source_ip: std::net::IpAddr::from([127, 0, 0, 1]),
        prefer: Preference::default(),
        poll: None,
        deadline: Instant::now(),
    };
    Call::checked(checked, principal)
}

fn bearer(user: &str) -> String {
    format!("Bearer {}", token(user))
}

fn ask(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header("host", "localhost:8701")
}

/// A form with a file, as browsers write it: its media type, and its bytes.
fn with_file(pairs: &[(&str, &str)], name: &str, file: &[u8]) -> (&'static str, Vec<u8>) {
    let part = |n: &str, v: &str| format!("--b0\r\nContent-Disposition: form-data; name=\"{n}\"\r\n\r\n{v}\r\n");
    let mut body: String = pairs.iter().map(|(n, v)| part(n, v)).collect();
    body += &format!(
        "--b0\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: text/html\r\n\r\n"
    );
    ("multipart/form-data; boundary=b0", [body.as_bytes(), file, b"\r\n--b0--\r\n"].concat())
}
