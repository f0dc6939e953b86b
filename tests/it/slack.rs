//! Slack, as a small server of the tests' own that checks what it is sent, and as the one that presses buttons.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use bytes::Bytes;
use holdpoint::call::Timestamp;
use holdpoint::clock::{Clock, ManualClock, SystemClock};
use holdpoint::store::State;
use http::StatusCode;
use serde_json::{Value, json};

use crate::binary::Site;
use crate::harness::{Got, Proxy, Reaction, Seen, Setup, Upstream, answer, send, token, until};
use crate::verbs::cli;
use crate::webhooks::people;

const NOW: i64 = 1_800_000_000;
const TOKEN: &str = "xoxb-tests-own-token";
const SIGNING: &str = "8f742231b10e8888abcd99yyyzzz85a5";
const CHANNEL: &str = "C0REVIEW";

/// A message as it stands in the channel.
#[derive(Debug, Clone)]
struct Message {
    ts: String,
    body: Value,
}

#[derive(Default)]
struct Inner {
    messages: Vec<Message>,
    updates: usize,
    /// What was said to one person only.
    whispers: Vec<Value>,
    /// Answers every method with this, while it is there.
    fault: Option<(u16, &'static str, &'static str)>,
}

#[derive(Clone)]
struct Slack {
    server: Upstream,
    inner: Arc<Mutex<Inner>>,
}

impl Slack {
    async fn start() -> Self {
        let slack = Self { server: Upstream::start().await, inner: Arc::default() };
        let answering = slack.clone();
        slack.server.script(move |seen| answering.respond(seen));
        slack
    }

    fn respond(&self, seen: &Seen) -> Reaction {
        let mut inner = self.inner.lock().unwrap();
        let body: Value = serde_json::from_slice(&seen.body).unwrap();
        if seen.target == "/respond" {
            assert!(!seen.headers.contains_key("authorization"), "the token goes nowhere else");
            inner.whispers.push(body);
            return answer(200, &json!({"ok": true}));
        }
        if let Some((status, error, after)) = inner.fault {
            let headers = vec![("retry-after", after.to_owned()), ("content-type", "application/json".to_owned())];
            let body = json!({"ok": false, "error": error}).to_string();
            return Reaction::Answer(StatusCode::from_u16(status).unwrap(), headers, Bytes::from(body));
        }
        if seen.headers.get("authorization").is_none_or(|t| t != &format!("Bearer {TOKEN}")) {
            return answer(200, &json!({"ok": false, "error": "invalid_auth"}));
        }
        let refused = |error: &str| answer(200, &json!({"ok": false, "error": error}));
        match seen.target.as_str() {
            "/api/chat.postMessage" if body["channel"] == "#refund-review" => {
                let ts = format!("1800000000.{:06}", inner.messages.len() + 1);
                inner.messages.push(Message { ts: ts.clone(), body });
                answer(200, &json!({"ok": true, "channel": CHANNEL, "ts": ts}))
            }
            // A reply goes by the channel's id, below a message that is there.
            "/api/chat.postMessage"
                if body["channel"] == CHANNEL && inner.messages.iter().any(|m| body["thread_ts"] == m.ts) =>
            {
                let ts = format!("1800000000.{:06}", inner.messages.len() + 1);
                inner.messages.push(Message { ts: ts.clone(), body });
                answer(200, &json!({"ok": true, "channel": CHANNEL, "ts": ts}))
            }
            "/api/chat.postMessage" => refused("channel_not_found"),
            "/api/chat.update" if body["channel"] == CHANNEL => {
                let Some(at) = inner.messages.iter().position(|m| body["ts"] == m.ts) else {
                    return refused("message_not_found");
                };
                inner.messages[at].body = body;
                inner.updates += 1;
                answer(200, &json!({"ok": true, "channel": CHANNEL, "ts": inner.messages[at].ts}))
            }
            _ => refused("unknown_method"),
        }
    }

    fn fault(&self, fault: Option<(u16, &'static str, &'static str)>) {
        self.inner.lock().unwrap().fault = fault;
    }

    fn messages(&self) -> Vec<Message> {
        self.inner.lock().unwrap().messages.clone()
    }

    /// The message number `n`, once `wanted` stands in it.
    async fn until(&self, n: usize, wanted: &str) -> Message {
        until(|| self.messages().get(n).filter(|m| m.body.to_string().contains(wanted)).cloned()).await
    }

    /// What the person heard, once there are so many words.
    async fn whispers(&self, count: usize) -> Vec<String> {
        until(|| {
            let inner = self.inner.lock().unwrap();
            let all = inner.whispers.iter().map(|w| {
                assert_eq!((&w["response_type"], &w["replace_original"]), (&json!("ephemeral"), &json!(false)));
                w["text"].as_str().unwrap().to_owned()
            });
            (inner.whispers.len() >= count).then(|| all.collect())
        })
        .await
    }
}

fn actions(message: &Value) -> Vec<String> {
    let all = message["blocks"].as_array().unwrap().iter().find(|b| b["type"] == "actions").unwrap();
    all["elements"].as_array().unwrap().iter().map(|e| e["action_id"].as_str().unwrap().to_owned()).collect()
}

/// What stands in the message for people to read.
fn words(message: &Value) -> String {
    fn read(value: &Value, out: &mut String) {
        match value {
            Value::Object(o) => {
                out.push_str(o.get("text").and_then(Value::as_str).unwrap_or_default());
                out.push_str(o.get("fallback").and_then(Value::as_str).unwrap_or_default());
                o.values().for_each(|v| read(v, out));
            }
            Value::Array(a) => a.iter().for_each(|v| read(v, out)),
            _ => {}
        }
    }
    let mut out = String::new();
    read(&message["blocks"], &mut out);
    out
}

fn configured(slack: &Slack, more: &str) -> Setup {
    let notify = format!(
        "notify:\n  - {{ slack: {{ channel: \"#refund-review\", token: {{ file: secrets/slack-token }}, \
         signing_secret: {{ file: secrets/slack-signing }}, api_url: \"http://{}/api\" }}{more} }}\n\
         reviews: {{ inline_wait: 0s, url: \"http://localhost:1\" }}",
        slack.server.at
    );
    let accounts = "    slack:
      - { user: maya, groups: [support-leads], team: T01, member: U0MAYA }
      - { user: somebody, groups: [support-leads], team: T01, member: U0ANA }
      - { user: li, groups: [finance], team: T01, member: U0LI }
  people:
    - { user: ana, subjects: [\"slack:T01/U0ANA\"] }
";
    let long = include_str!("../../schemas/refund.json").replace("\"maxLength\": 500", "\"maxLength\": 5000");
    Setup::new()
        .people(&handled(&people()))
        .config("  people:\n", accounts)
        .config("reviews: { inline_wait: 0s }", &notify)
        .config(
            "        cost: { amount: /amountMinor",
            "        redact: [/customerId]\n        title: \"Refund {amountMinor|money:currency} of {customerId}\"\n        cost: { amount: /amountMinor",
        )
        .more_policies(
            "@id(\"refund-two\") @reason(\"Two teams look.\") @approvers(\"support-leads,finance\")
             forbid (principal, action == Holdpoint::Action::\"crm.refund\", resource)
             when { context.input.amountMinor > 40000 } unless { context.approval.granted };",
        )
        .file("refund.json", &long)
        .file("secrets/slack-token", TOKEN)
        .file("secrets/slack-signing", SIGNING)
}

/// Reviewers may do more about a hold than decide it.
fn handled(people: &str) -> String {
    let reject = "Holdpoint::Action::\"hold.reject\"";
    let more =
        ["hold.claim", "hold.comment", "hold.escalate"].map(|a| format!("Holdpoint::Action::\"{a}\"")).join(", ");
    people.replace(reject, &format!("{reject}, {more}"))
}

struct World {
    p: Proxy,
    slack: Slack,
    clock: Arc<ManualClock>,
    posted: AtomicUsize,
}

async fn world(more: &str) -> World {
    let slack = Slack::start().await;
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(NOW * 1000)));
    let p = configured(&slack, more).clock(clock.clone()).start().await;
    p.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    World { p, slack, clock, posted: AtomicUsize::new(0) }
}

/// A button as Slack's own client sends it: who pressed it, on which message.
struct Press<'a> {
    team: &'a str,
    member: &'a str,
    message: &'a Message,
    action: Value,
}

fn approve() -> Value {
    json!({"action_id": "approve", "type": "button", "value": "approve"})
}

fn reject(reason: &str) -> Value {
    json!({"action_id": "reject", "type": "static_select", "selected_option": {"value": reason}})
}

fn press<'a>(member: &'a str, message: &'a Message, action: Value) -> Press<'a> {
    Press { team: "T01", member, message, action }
}

impl Press<'_> {
    fn body(&self, slack: &Slack) -> Vec<u8> {
        let blocks = self.message.body["blocks"].as_array().unwrap();
        let mut action = self.action.clone();
        action["block_id"] = blocks.iter().find(|b| b["type"] == "actions").unwrap()["block_id"].clone();
        let payload = json!({
            "type": "block_actions",
            "user": {"id": self.member, "username": "whoever", "team_id": self.team},
            "team": {"id": "T01", "domain": "acme"},
            "container": {"type": "message", "message_ts": self.message.ts, "channel_id": CHANNEL},
            "channel": {"id": CHANNEL}, "message": self.message.body,
            "response_url": format!("http://{}/respond", slack.server.at), "actions": [action],
        });
        let payload = payload.to_string();
        let encoded = percent_encoding::utf8_percent_encode(&payload, percent_encoding::NON_ALPHANUMERIC);
        format!("payload={encoded}").into_bytes()
    }
}

fn signature(secret: &str, at: i64, body: &[u8]) -> String {
    let mut signed = format!("v0:{at}:").into_bytes();
    signed.extend_from_slice(body);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), &signed);
    format!("v0={}", tag.as_ref().iter().map(|b| format!("{b:02x}")).collect::<String>())
}

async fn post(to: std::net::SocketAddr, at: i64, signature: &str, more: &[(&str, &str)], body: &[u8]) -> Got {
    let time = at.to_string();
    let mut headers = vec![
        ("content-type", "application/x-www-form-urlencoded"),
        ("x-slack-request-timestamp", time.as_str()),
        ("x-slack-signature", signature),
    ];
    headers.extend_from_slice(more);
    send(to, "POST", "/slack/interactions", &headers, body).await
}

impl World {
    fn seconds(&self) -> i64 {
        self.clock.now().as_millis() / 1000
    }

    /// A refund that is held, and its message.
    async fn held(&self, order: &str, minor: i64) -> (String, Message) {
        let held = self.p.refund(order, minor, &[("holdpoint-intent", "PLEASE-TRUST-ME")]).await;
        assert_eq!(held.code(), "held", "{held:?}");
        let n = self.posted.fetch_add(1, Ordering::SeqCst);
        let message = self.slack.until(n, held.json()["hold"].as_str().unwrap()).await;
        (held.json()["call"].as_str().unwrap().to_owned(), message)
    }

    async fn clicked(&self, press: Press<'_>) -> Got {
        let (at, body) = (self.seconds(), press.body(&self.slack));
        post(self.p.running.admin, at, &signature(SIGNING, at, &body), &[], &body).await
    }

    /// The codes of refused decisions once there are so many, and where they were taken.
    async fn refused(&self, count: usize) -> Vec<(String, String)> {
        until(|| Some(self.refused_so_far()).filter(|all| all.len() >= count)).await
    }

    fn refused_so_far(&self) -> Vec<(String, String)> {
        let lines = self.p.lines().into_iter().filter(|l| l.kind() == "admin.refused");
        let of = |event: Value, name: &str| event.pointer(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        lines
            .map(|l| crate::harness::event(&l))
            .map(|e| (of(e.clone(), "/note/code"), of(e, "/note/more/channel")))
            .collect()
    }

    /// A click that must not count: what the person hears.
    async fn vain(&self, press: Press<'_>) -> String {
        let before = self.slack.inner.lock().unwrap().whispers.len();
        assert_eq!(self.clicked(press).await.status, 200);
        self.slack.whispers(before + 1).await.pop().unwrap()
    }
}

#[tokio::test]
async fn a_medium_hold_is_shown_whole_and_approved_by_a_button() {
    let w = world("").await;
    let (call, message) = w.held("o_1", 8800).await;
    let body = &message.body;
    let record = w.p.record(&call).await;
    let (hold, code) = (record.id.hold().to_string(), holdpoint::call::short_code(&record.digest));
    let shown = words(body);
    assert!(
        shown.contains("Refund 88.00 EUR of ") && shown.contains(&code) && shown.contains("medium tier"),
        "{shown}"
    );
    assert!(shown.contains("Needs 1 person of support-leads; 0 so far"), "{shown}");
    assert!(shown.contains(&record.expires.unwrap().to_string()), "{shown}");
    assert!(shown.contains("/amountMinor  8800") && shown.contains("/orderId  \"o_1\""), "what will be sent: {shown}");
    assert!(!body.to_string().contains("PLEASE-TRUST-ME"), "no word of the agent's");
    assert!(!body.to_string().contains("c_1\\\"") && shown.contains("(redacted)"), "{shown}");
    assert_eq!(actions(body), ["approve", "reject", "open"]);
    assert!(body.to_string().contains(&format!("http://localhost:1/holds/{hold}")));
    assert!(body["text"].as_str().unwrap().contains(&code), "{}", body["text"]);

    assert_eq!(w.clicked(press("U0MAYA", &message, approve())).await.status, 200);
    let done = w.p.until_state(&call, State::Succeeded).await;
    assert_eq!((done.approvals[0].person.as_str(), done.approvals[0].channel.as_str()), ("maya", "slack"));
    assert_eq!(done.approvals[0].subject, "slack|T01/U0MAYA");
    let after = w.slack.until(0, "succeeded").await;
    assert!(words(&after.body).contains("Approved by maya (slack)"), "{}", words(&after.body));
    assert_eq!((after.ts, actions(&after.body)), (message.ts.clone(), vec!["open".to_owned()]));
    assert_eq!((w.slack.messages().len(), w.p.upstream.count()), (1, 1));
}

#[tokio::test]
async fn a_callback_that_comes_again_counts_once() {
    let w = world("").await;
    let (call, message) = w.held("o_1", 45_000).await;
    let (at, body) = (w.seconds(), press("U0MAYA", &message, approve()).body(&w.slack));
    let signed = signature(SIGNING, at, &body);
    let again = [("x-slack-retry-num", "1"), ("x-slack-retry-reason", "http_timeout")];
    assert_eq!(post(w.p.running.admin, at, &signed, &[], &body).await.status, 200);
    w.slack.until(0, "1 so far").await;
    for round in 1..=3 {
        assert_eq!(post(w.p.running.admin, at, &signed, &again, &body).await.status, 200);
        let heard = w.slack.whispers(round).await;
        assert!(heard[round - 1].contains("version_changed"), "{heard:?}");
    }
    let record = w.p.record(&call).await;
    assert_eq!((record.state, record.approvals.len()), (State::Held, 1));
    // On the message as it is now the same person is not counted either; another one is.
    let newer = w.slack.until(0, "1 so far").await;
    assert!(w.vain(press("U0MAYA", &newer, approve())).await.contains("already_counted"));
    assert_eq!(w.p.approve("mia", record.id.hold().to_string().as_str(), None).await.code(), "already_counted");
    assert_eq!(w.clicked(press("U0LI", &newer, approve())).await.status, 200);
    w.p.until_state(&call, State::Succeeded).await;
    assert!(w.vain(press("U0LI", &newer, approve())).await.contains("already_decided"));
    assert_eq!(w.p.upstream.count(), 1);
}

#[tokio::test]
async fn a_no_has_a_reason() {
    let w = world("").await;
    let (call, message) = w.held("o_1", 8800).await;
    assert!(w.vain(press("U0MAYA", &message, reject("because"))).await.contains("invalid_arguments"));
    assert_eq!(w.clicked(press("U0MAYA", &message, reject("wrong_amount"))).await.status, 200);
    let done = w.p.until_state(&call, State::Rejected).await;
    let note = done.note.unwrap();
    assert_eq!((note.code.as_str(), note.by.as_deref()), ("wrong_amount", Some("maya")));
    let after = w.slack.until(0, "rejected by maya: wrong_amount").await;
    assert_eq!(actions(&after.body), ["open"]);
    assert_eq!(w.p.upstream.bytes(), 0);
}

#[tokio::test]
async fn only_slack_is_believed_and_for_five_minutes() {
    let w = world("").await;
    let (call, message) = w.held("o_1", 8800).await;
    let (now, body) = (w.seconds(), press("U0MAYA", &message, approve()).body(&w.slack));
    let admin = w.p.running.admin;
    let good = signature(SIGNING, now, &body);
    let other = press("U0LI", &message, approve()).body(&w.slack);
    let (old, early) = (now - 301, now + 301);
    let forged = [
        (now, signature("another-secret-of-somebody", now, &body), &body),
        (now, good.clone(), &other),
        (now - 1, good.clone(), &body),
        (now, good.replace("v0=", ""), &body),
        (now, String::new(), &body),
        (old, signature(SIGNING, old, &body), &body),
        (early, signature(SIGNING, early, &body), &body),
    ];
    for (i, (at, signature, body)) in forged.iter().enumerate() {
        let got = post(admin, *at, signature, &[], body).await;
        assert_eq!((got.status, got.code().as_str()), (401, "unauthenticated"), "{i}: {got:?}");
    }
    // No token of a reviewer stands for the signature, no signature for a token, and the door's own checks stay.
    let bearer = format!("Bearer {}", token("maya"));
    let form = ("content-type", "application/x-www-form-urlencoded");
    let got = send(admin, "POST", "/slack/interactions", &[form, ("authorization", &bearer)], &body).await;
    assert_eq!(got.status, 401, "{got:?}");
    let hold = w.p.record(&call).await.id.hold();
    let path = format!("/v1/holds/{hold}/approve");
    let got = send(admin, "POST", &path, &[("x-slack-signature", &good), form], &body).await;
    assert_eq!(got.status, 401, "{got:?}");
    let got = post(admin, now, &good, &[("origin", "https://evil.test")], &body).await;
    assert_eq!((got.status, got.code().as_str()), (403, "cross_origin"), "{got:?}");
    assert_eq!(w.p.record(&call).await.version, 1);
    assert_eq!(w.slack.inner.lock().unwrap().whispers.len(), 0);
    // What Slack sends beside clicks is answered, and does nothing.
    for text in ["ssl_check=1", "payload=%7B%22type%22%3A%22view_closed%22%2C%22user%22%3A%7B%22id%22%3A%22U%22%7D%7D"]
    {
        let got = post(admin, now, &signature(SIGNING, now, text.as_bytes()), &[], text.as_bytes()).await;
        assert_eq!(got.status, 200, "{got:?}");
    }
    let got = post(admin, now, &signature(SIGNING, now, b"payload=x"), &[], b"payload=x").await;
    assert_eq!((got.status, got.code().as_str()), (400, "malformed_request"), "{got:?}");
    // The signature itself was good.
    assert_eq!(post(admin, now, &good, &[], &body).await.status, 200);
    w.p.until_state(&call, State::Succeeded).await;
}

#[tokio::test]
async fn an_account_counts_when_it_is_linked_and_for_nobody_else() {
    let w = world("").await;
    let (call, message) = w.held("o_1", 8800).await;
    let stranger = w.vain(press("U0EVE", &message, approve())).await;
    assert!(stranger.contains("unknown_account") && stranger.contains("slack:T01/U0EVE"), "{stranger}");
    let elsewhere = Press { team: "T99", ..press("U0MAYA", &message, approve()) };
    assert!(w.vain(elsewhere).await.contains("unknown_account"), "the same id in another workspace");
    // The bot's operator is ana, and this account is linked to her by `identity.people`.
    assert!(w.vain(press("U0ANA", &message, approve())).await.contains("self_review"));
    assert!(w.vain(press("U0LI", &message, approve())).await.contains("not_in_group"));
    let record = w.p.record(&call).await;
    assert_eq!((record.state, record.version), (State::Held, 1));
    let slack = |code: &str| (code.to_owned(), "slack".to_owned());
    let wanted = ["unknown_account", "unknown_account", "self_review", "not_in_group"].map(slack);
    assert_eq!(w.refused(4).await, wanted, "each of them is recorded");
    assert_eq!(w.p.upstream.bytes(), 0);
}

#[tokio::test]
async fn of_the_high_tier_nothing_is_decided_here() {
    let w = world("").await;
    let (call, message) = w.held("o_1", 88_000).await;
    assert_eq!(actions(&message.body), ["open"]);
    let shown = words(&message.body);
    assert!(shown.contains("high tier") && shown.contains("decided on the page only"), "{shown}");
    assert!(!shown.contains("/amountMinor"), "its arguments stay on the page: {shown}");
    for action in [approve(), reject("unsafe")] {
        let heard = w.vain(press("U0MAYA", &message, action)).await;
        assert!(heard.contains("channel_not_allowed"), "{heard}");
    }
    let record = w.p.record(&call).await;
    assert_eq!((record.state, record.version, record.approvals.len()), (State::Held, 1, 0));
    let slack = ("channel_not_allowed".to_owned(), "slack".to_owned());
    assert_eq!(w.refused(2).await, [slack.clone(), slack]);
    // On the page's side it goes its way, and the message follows.
    assert_eq!(w.p.approve("maya", &record.id.hold().to_string(), Some("double charge")).await.status, 200);
    let after = w.slack.until(0, "1 so far").await;
    assert_eq!((after.ts, actions(&after.body)), (message.ts, vec!["open".to_owned()]));
}

#[tokio::test]
async fn what_does_not_fit_whole_is_opened_and_not_decided() {
    let w = world("").await;
    let send = |reason: String| {
        let body = json!({"customerId": "c_1", "amountMinor": 8800, "currency": "EUR", "reason": reason});
        let agent = &w.p;
        async move { agent.agent("POST", "/crm/orders/o_1/refunds", &[], Some(&body)).await }
    };
    let held = send(format!("fine\u{202e}{}", "x".repeat(3000))).await;
    let message = w.slack.until(0, held.json()["hold"].as_str().unwrap()).await;
    assert_eq!(actions(&message.body), ["open"]);
    assert!(!message.body.to_string().contains("xxx"), "not even a part of it");
    assert!(w.vain(press("U0MAYA", &message, approve())).await.contains("channel_not_allowed"));
    let held = send("pay\u{202e}eman".into()).await;
    let message = w.slack.until(1, held.json()["hold"].as_str().unwrap()).await;
    let shown = words(&message.body);
    assert!(shown.contains("pay\\u{202e}eman") && shown.contains("has hidden characters"), "{shown}");
    assert_eq!(actions(&message.body).len(), 3);
    assert_eq!(w.p.upstream.bytes(), 0);
}

#[tokio::test]
async fn buttons_decide_on_the_message_that_stands_for_the_hold_alone() {
    let w = world("").await;
    let (call, real) = w.held("o_1", 8800).await;
    let (_, other) = w.held("o_2", 6000).await;
    // The buttons of one hold on the message of another: whoever posted that.
    let swapped = Message { ts: other.ts.clone(), body: real.body.clone() };
    assert!(w.vain(press("U0MAYA", &swapped, approve())).await.contains("channel_not_allowed"));
    assert_eq!(w.p.record(&call).await.version, 1);
    // A message that somebody removed is posted anew.
    w.slack.inner.lock().unwrap().messages[0].ts = "gone".into();
    let hold = w.p.record(&call).await.id.hold().to_string();
    assert_eq!(w.p.approve("maya", &hold, None).await.status, 200);
    let anew = w.slack.until(2, "Approved by maya (api)").await;
    assert_eq!(anew.body["channel"], "#refund-review");
}

#[tokio::test]
async fn who_has_it_in_hand_what_was_said_and_before_whom_it_was_brought() {
    let w = world("").await;
    let (call, message) = w.held("o_1", 45_000).await;
    let hold = w.p.record(&call).await.id.hold();
    let post = async |name: &str, verb: &str, body: Value| {
        let got = w.p.reviewer(name, "POST", &format!("/v1/holds/{hold}/{verb}"), Some(&body)).await;
        assert_eq!(got.status, 200, "{got:?}");
    };
    post("li", "claim", json!({})).await;
    let claimed = w.slack.until(0, "li has it in hand until").await;
    assert!(w.vain(press("U0MAYA", &message, approve())).await.contains("version_changed"));
    assert!(w.vain(press("U0MAYA", &claimed, approve())).await.contains("claimed_by_other"));
    // A message that changes calls nobody: below it stands what does.
    post("li", "escalate", json!({"to": "finance <!channel>", "reason": "who knows this customer?"})).await;
    let call_out = w.slack.until(1, "Brought before").await;
    assert_eq!((&call_out.body["thread_ts"], &call_out.body["channel"]), (&json!(message.ts), &json!(CHANNEL)));
    assert!(call_out.body["text"].as_str().unwrap().contains("finance &lt;!channel&gt;"), "{}", call_out.body);
    assert!(!call_out.body.to_string().contains("who knows"), "words of people stay on the page");
    let escalated = w.slack.until(0, "Brought before").await;
    assert_eq!(actions(&escalated.body), ["approve", "reject", "open"]);
    // What others said is to be read first, where it stands.
    post("li", "comments", json!({"text": "ask the customer"})).await;
    let said = w.slack.until(0, "words or evidence to read").await;
    assert!(!said.body.to_string().contains("ask the customer"));
    assert!(w.vain(press("U0LI", &said, approve())).await.contains("channel_not_allowed"));
    assert_eq!(w.p.record(&call).await.state, State::Held);
}

#[tokio::test]
async fn slack_is_left_alone_as_long_as_it_asks_and_given_up_when_it_says_no() {
    let w = world("").await;
    let count = |result: &str| w.p.running.metrics().notifications.with_label_values(&["slack", result]).get();
    w.slack.fault(Some((429, "ratelimited", "30")));
    assert_eq!(w.p.refund("o_1", 8800, &[]).await.code(), "held");
    until(|| (count("failed") == 1).then_some(())).await;
    let list = w.p.reviewer("omar", "GET", "/v1/webhooks", None).await.json()["items"][0].clone();
    assert_eq!(list["waiting"][0]["attempts"], 0, "that was no attempt: {list}");
    w.slack.fault(None);
    w.clock.advance(Duration::from_secs(29));
    assert_eq!(w.p.refund("o_2", 8800, &[]).await.code(), "held");
    until(|| w.p.lines().iter().filter(|l| l.kind() == "parked").nth(1).map(drop)).await;
    assert_eq!((w.slack.messages().len(), w.slack.server.count()), (0, 1));
    w.clock.advance(Duration::from_secs(2));
    w.slack.until(1, "held").await;
    w.slack.fault(Some((200, "not_in_channel", "")));
    assert_eq!(w.p.refund("o_3", 8800, &[]).await.code(), "held");
    until(|| (count("dead") == 1).then_some(())).await;
    let (code, said) = cli(&w.p, "omar", &["webhooks", "ls"]).await;
    assert!(code == Some(0) && said.contains("slack-") && said.contains("#refund-review at 127.0.0.1"), "{said}");
    assert!(said.contains("not_in_channel") && !said.contains("xoxb"), "{said}");
    let name = said.split_whitespace().find(|w| w.starts_with("slack-")).unwrap().to_owned();
    w.slack.fault(None);
    let (code, said) = cli(&w.p, "omar", &["webhooks", "replay", &name]).await;
    assert!(code == Some(0) && said.contains("1 told again"), "{said}");
    w.slack.until(2, "held").await;
    until(|| (count("delivered") == 3).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_the_same_message_goes_on() {
    let slack = Slack::start().await;
    let site = Site::new(configured(&slack, "")).await;
    site.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    let first = site.start().await;
    let held = first.refund("o_1", 8800, &[]).await.json();
    let hold = held["hold"].as_str().unwrap();
    let message = slack.until(0, hold).await;
    // Only once it is kept which message it is may the process go.
    until(|| {
        let dir = std::fs::read_dir(site.state().join("outbox")).unwrap();
        let kept = dir.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "json"));
        let mut kept = kept.map(|p| std::fs::read_to_string(p).unwrap_or_default());
        kept.any(|text| text.contains(&message.ts)).then_some(())
    })
    .await;
    first.kill();
    let second = site.start().await;
    let now = SystemClock.now().as_millis() / 1000;
    let body = press("U0MAYA", &message, approve()).body(&slack);
    assert_eq!(post(second.admin, now, &signature(SIGNING, now, &body), &[], &body).await.status, 200);
    let after = slack.until(0, "succeeded").await;
    assert_eq!((after.ts, slack.messages().len()), (message.ts, 1), "the same message, in place");
    assert_eq!(second.stop().await, Some(0));
}

#[tokio::test]
async fn what_is_no_hold_is_a_message_of_its_own() {
    let w = world(", events: [\"hold.*\", near_miss]").await;
    let change = json!({"creditLimitMinor": 4711});
    let refused = w.p.agent("PATCH", "/crm/customers/c_1", &[], Some(&change)).await;
    assert_eq!(refused.code(), "forbidden");
    let message = w.slack.until(0, "near_miss").await;
    let shown = words(&message.body);
    assert!(shown.contains("op: crm.update_customer") && shown.contains("agent: support-bot"), "{shown}");
    assert!(!message.body.to_string().contains("4711"), "{}", message.body);
}

#[test]
fn set_ups_that_could_not_work_are_mistakes() {
    let slack =
        "channel: \"#c\", token: { file: secrets/slack-token }, signing_secret: { file: secrets/slack-signing }";
    let notify = |slack: &str| {
        format!("notify:\n  - {{ slack: {{ {slack} }} }}\nreviews: {{ inline_wait: 0s, url: \"http://localhost:1\" }}")
    };
    let people =
        |entry: &str| format!("    slack:\n      - {{ user: maya, groups: [support-leads], {entry} }}\n  people:\n");
    let good = people("team: T01, member: U01");
    let rows = [
        (notify(slack), good.clone(), ""),
        (notify(&slack.replace("#c", "# c")), good.clone(), "neither a channel's name"),
        (
            notify(&slack.replace("secrets/slack-token", "secrets/maya")),
            good.clone(),
            "must be the token of the app's bot",
        ),
        (notify(&slack.replace("secrets/slack-signing", "secrets/short")), good.clone(), "signing secret"),
        (notify(&format!("{slack}, api_url: \"http://slack.test/api\"")), good.clone(), "must be https"),
        (
            notify(slack).replace(", url: \"http://localhost:1\"", ""),
            good.clone(),
            "notify.0.slack: needs `reviews.url`",
        ),
        (
            notify(&format!("{slack} }}, smtp: {{ url: \"smtp://localhost\", from: a@b.test, to: [c@d.test]")),
            good.clone(),
            "exactly one of",
        ),
        (
            notify(&format!("{slack} }} }}\n  - {{ slack: {{ {slack}")),
            good.clone(),
            "another receiver has this channel",
        ),
        (notify(slack), people("team: acme, member: U01"), "not the id of a workspace"),
        (notify(slack), people("team: T01, member: maya@acme.test"), "not the id of a member"),
        (
            notify(slack),
            good.replace("  people:", "      - { user: li, team: T01, member: U01 }\n  people:"),
            "already that of `maya`",
        ),
        ("reviews: { inline_wait: 0s }".to_owned(), good, "nobody can decide in Slack"),
    ];
    for (notify, people, wanted) in rows {
        let dir = tempfile::tempdir().unwrap();
        let setup = Setup::new()
            .config("reviews: { inline_wait: 0s }", &notify)
            .config("  people:\n", &people)
            .file("secrets/slack-token", TOKEN)
            .file("secrets/slack-signing", SIGNING)
            .file("secrets/short", "short");
        match holdpoint::app::load(&setup.write(dir.path(), "127.0.0.1:9".parse().unwrap())) {
            Ok(_) => assert_eq!(wanted, "", "{notify}\n{people}"),
            Err(wrong) => assert!(!wanted.is_empty() && wrong.to_string().contains(wanted), "{wanted}: {wrong}"),
        }
    }
}

#[tokio::test]
async fn doctor_says_what_keeps_buttons_from_working() {
    let slack = Slack::start().await;
    let said = |setup: Setup| {
        let dir = tempfile::tempdir().unwrap();
        let config = setup.write(dir.path(), "127.0.0.1:9".parse().unwrap());
        Site::run(&["doctor", "--quick", "--config", config.to_str().unwrap()]).1
    };
    let near = said(configured(&slack, ""));
    assert!(
        near.contains("hint Slack reaches buttons by https over the internet: not at `http://localhost:1`"),
        "{near}"
    );
    assert!(!near.contains("no account in Slack") && !near.contains("callbacks of Slack are refused"), "{near}");
    let far = configured(&slack, "").config("url: \"http://localhost:1\"", "url: \"https://page.test\"");
    let accounts = "      - { user: maya, groups: [support-leads], team: T01, member: U0MAYA }
      - { user: somebody, groups: [support-leads], team: T01, member: U0ANA }
      - { user: li, groups: [finance], team: T01, member: U0LI }\n";
    let far = said(far.config(accounts, "").config("    slack:\n", "    slack: []\n"));
    assert!(far.contains("hint no account in Slack is a reviewer's"), "{far}");
    assert!(far.contains("BAD  `page.test` of `reviews.url` is not in `listen.allowed_hosts`"), "{far}");
}
