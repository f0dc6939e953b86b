//! Receivers of notifications: told at least once, signed, whatever happens to them or to us.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use holdpoint::call::Timestamp;
use holdpoint::clock::{Clock, ManualClock, SystemClock};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::binary::Site;
use crate::harness::{PEOPLE, POLICIES, Proxy, Reaction, Seen, Setup, Upstream, answer, until};
use crate::verbs::cli;

const NOW: i64 = 1_800_000_000;
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OLD: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

struct World {
    p: Proxy,
    receiver: Upstream,
    status: Arc<AtomicU16>,
    clock: Arc<ManualClock>,
}

/// Operators see the receivers, and tell one again.
pub fn people() -> String {
    let operate = "Holdpoint::Action::\"call.reconcile\"";
    PEOPLE.replace(
        operate,
        &format!("{operate}, Holdpoint::Action::\"audit.read\", Holdpoint::Action::\"notify.replay\""),
    )
}

/// A configuration that tells this receiver.
fn telling(receiver: &Upstream, more: &str) -> Setup {
    let notify = format!(
        "notify:\n  - {{ webhook: {{ url: \"http://{}/hook?a=b\", secret: {{ file: secrets/hook }}, \
         previous_secret: {{ file: secrets/old-hook }} }}{more} }}\nreviews: {{ inline_wait: 0s, url: \"http://localhost:1\" }}",
        receiver.at
    );
    Setup::new()
        .people(&people())
        .config("reviews: { inline_wait: 0s }", &notify)
        .config(
            "        cost: { amount: /amountMinor",
            "        redact: [/customerId]\n        title: \"Refund {amountMinor|money:currency} of {customerId}\"\n        cost: { amount: /amountMinor",
        )
        .file("secrets/hook", SECRET)
        .file("secrets/old-hook", OLD)
}

/// A receiver that answers with `status`.
async fn receiving() -> (Upstream, Arc<AtomicU16>) {
    let (receiver, status) = (Upstream::start().await, Arc::new(AtomicU16::new(204)));
    let told = Arc::clone(&status);
    receiver.script(move |_| {
        Reaction::Answer(StatusCode::from_u16(told.load(Ordering::SeqCst)).unwrap(), vec![], Bytes::new())
    });
    (receiver, status)
}

async fn world(more: &str) -> World {
    let (receiver, status) = receiving().await;
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(NOW * 1000)));
    let p = telling(&receiver, more).clock(clock.clone()).start().await;
    p.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    World { p, receiver, status, clock }
}

/// What arrived, once both signatures hold.
fn checked(seen: &Seen, now: i64) -> (String, Value) {
    let header = |name: &str| seen.headers[name].to_str().unwrap().to_owned();
    let (id, time) = (header("webhook-id"), header("webhook-timestamp"));
    assert!((time.parse::<i64>().unwrap() - now).abs() <= 300, "{time}");
    let mut text = format!("{id}.{time}.").into_bytes();
    text.extend_from_slice(&seen.body);
    let by = |secret: &str| {
        let raw = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        format!("v1,{}", STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &raw), &text)))
    };
    assert_eq!(header("webhook-signature"), format!("{} {}", by(SECRET), by(OLD)));
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/hook?a=b"));
    (id, serde_json::from_slice(&seen.body).unwrap())
}

impl World {
    async fn told(&self, count: usize) -> Vec<(String, Value)> {
        until(|| (self.receiver.count() >= count).then_some(())).await;
        let now = self.clock.now().as_millis() / 1000;
        self.receiver.seen().iter().map(|s| checked(s, now)).collect()
    }

    async fn list(&self) -> Value {
        self.p.reviewer("omar", "GET", "/v1/webhooks", None).await.json()["items"][0].clone()
    }

    fn count(&self, result: &str) -> u64 {
        self.p.running.metrics().notifications.with_label_values(&["webhook", result]).get()
    }
}

fn types(told: &[(String, Value)]) -> Vec<&str> {
    told.iter().map(|(_, body)| body["type"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_becomes_of_a_hold_is_told_signed_and_without_what_is_redacted() {
    let w = world("").await;
    let held = w.p.refund("o_1", 8800, &[]).await.json();
    let (hold, call) = (held["hold"].as_str().unwrap().to_owned(), held["call"].clone());
    let told = w.told(1).await;
    let (_, body) = &told[0];
    assert_eq!((body["type"].as_str(), body["data"]["id"].as_str()), (Some("hold.created"), Some(&*hold)));
    assert_eq!(body["data"]["links"]["html"], format!("http://localhost:1/holds/{hold}"));
    assert_eq!((body["data"]["tier"].as_str(), body["data"]["op"].as_str()), (Some("medium"), Some("crm.refund")));
    assert!(body["data"]["title"].as_str().unwrap().starts_with("Refund 88.00 EUR of "), "{body}");
    assert_eq!(w.p.approve("maya", &hold, None).await.status, 200);
    let told = w.told(3).await;
    assert_eq!(types(&told), ["hold.created", "hold.approved", "hold.succeeded"]);
    let versions: Vec<u64> = told.iter().map(|(_, b)| b["data"]["version"].as_u64().unwrap()).collect();
    assert!(versions.is_sorted() && told.iter().all(|(_, b)| call.is_null() || b["data"]["call"] == call), "{told:?}");
    assert_eq!(told.iter().map(|(id, _)| id).collect::<BTreeSet<_>>().len(), 3);
    for seen in w.receiver.seen() {
        let text = format!("{:?} {}", seen.headers, String::from_utf8_lossy(&seen.body));
        assert!(!text.contains("c_1\"") && !text.contains("c_1 ") && !text.contains("whsec_"), "{text}");
    }
    until(|| (w.count("delivered") == 3).then_some(())).await;
}

#[tokio::test]
async fn who_checks_signatures_finds_a_forged_or_an_old_one() {
    let w = world("").await;
    assert_eq!(w.p.refund("o_1", 8800, &[]).await.code(), "held");
    w.told(1).await;
    let seen = w.receiver.seen().remove(0);
    let holds = |seen: &Seen, now: i64| std::panic::catch_unwind(|| checked(seen, now)).is_ok();
    assert!(holds(&seen, NOW));
    let mut other = seen.clone();
    other.body = Bytes::from(String::from_utf8_lossy(&seen.body).replace("medium", "high"));
    assert!(!holds(&other, NOW), "another body");
    let mut later = seen.clone();
    later.headers.insert("webhook-timestamp", (NOW + 1).into());
    assert!(!holds(&later, NOW), "another time");
    let mut renamed = seen.clone();
    renamed.headers.insert("webhook-id", "evt_1_0_0000000000000000".parse().unwrap());
    assert!(!holds(&renamed, NOW), "another event");
    assert!(!holds(&seen, NOW + 301), "sent again after five minutes");
}

#[tokio::test]
async fn only_what_was_asked_for_is_told() {
    let w = world(", tiers: [high], events: [\"hold.*\", near_miss]").await;
    assert_eq!(w.p.refund("o_1", 8800, &[]).await.code(), "held");
    let change = json!({"creditLimitMinor": 4711});
    let refused = w.p.agent("PATCH", "/crm/customers/c_1", &[], Some(&change)).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "forbidden"), "{refused:?}");
    assert_eq!(w.p.refund("o_2", 88_000, &[]).await.code(), "held");
    let told = w.told(2).await;
    assert_eq!(types(&told), ["near_miss", "hold.created"], "{told:?}");
    let near = &told[0].1["data"];
    assert_eq!((&near["agent"], &near["op"]), (&json!("support-bot"), &json!("crm.update_customer")));
    assert!(near["policies"] == json!(["credit-never"]) && !near.to_string().contains("4711"), "{near}");
    assert_eq!(told[1].1["data"]["tier"], "high");
}

#[tokio::test]
async fn a_receiver_that_fails_is_told_again_later_and_the_same() {
    let w = world("").await;
    w.status.store(500, Ordering::SeqCst);
    let held = w.p.refund("o_1", 8800, &[]).await;
    assert_eq!(held.code(), "held", "no call waits for a receiver");
    w.told(1).await;
    until(|| (w.count("failed") == 1).then_some(())).await;
    assert_eq!(w.p.refund("o_2", 8800, &[]).await.code(), "held");
    until(|| w.p.lines().iter().filter(|l| l.kind() == "parked").nth(1).map(drop)).await;
    let mut waits = w.list().await;
    while waits["waiting"].as_array().unwrap().len() < 2 {
        tokio::task::yield_now().await;
        waits = w.list().await;
    }
    assert_eq!((waits["waiting"][0]["why"].as_str(), w.receiver.count()), (Some("status 500"), 1), "{waits}");
    w.status.store(200, Ordering::SeqCst);
    w.clock.advance(Duration::from_secs(7));
    let told = w.told(3).await;
    assert_eq!(told[0], told[1], "the same words under the same id");
    assert_ne!(told[1].0, told[2].0);
    until(|| (w.count("delivered") == 2).then_some(())).await;
    assert_eq!(w.list().await["waiting"], json!([]));
}

#[tokio::test]
async fn what_was_given_up_is_kept_and_told_again_when_asked() {
    let w = world("").await;
    w.status.store(410, Ordering::SeqCst);
    assert_eq!(w.p.refund("o_1", 8800, &[]).await.code(), "held");
    until(|| (w.count("dead") == 1).then_some(())).await;
    let list = w.list().await;
    let (name, id) = (list["name"].as_str().unwrap().to_owned(), list["dead"][0]["id"].as_str().unwrap().to_owned());
    assert_eq!(
        (list["dead"][0]["type"].as_str(), list["dead"][0]["why"].as_str()),
        (Some("hold.created"), Some("status 410"))
    );
    assert!(!list.to_string().contains("a=b"), "an address may carry a credential: {list}");
    assert_eq!(w.p.reviewer("maya", "GET", "/v1/webhooks", None).await.status, 403);
    let path = format!("/v1/webhooks/{name}/replay");
    assert_eq!(w.p.reviewer("maya", "POST", &path, Some(&json!({}))).await.status, 403);
    let (code, said) = cli(&w.p, "omar", &["webhooks", "ls"]).await;
    assert!(code == Some(0) && said.contains(&name) && said.contains(&id) && said.contains("status 410"), "{said}");
    let (code, said) = cli(&w.p, "omar", &["webhooks", "replay", "webhook-none"]).await;
    assert!(code == Some(2) && said.contains("no such receiver"), "{said}");
    let (code, said) = cli(&w.p, "omar", &["webhooks", "replay", &name, "evt_x"]).await;
    assert!(code == Some(2) && said.contains("no such event"), "{said}");
    w.status.store(200, Ordering::SeqCst);
    let (code, said) = cli(&w.p, "omar", &["webhooks", "replay", &name]).await;
    assert!(code == Some(0) && said.contains("1 told again"), "{said}");
    let told = w.told(2).await;
    assert_eq!((&told[0], &told[0].0), (&told[1], &id));
    until(|| (w.count("delivered") == 1).then_some(())).await;
    // What arrived can be told again, too.
    assert_eq!(w.p.reviewer("omar", "POST", &path, Some(&json!({"ids": [id]}))).await.json()["replayed"], 1);
    assert_eq!(w.told(3).await[2].0, id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_a_receiver_is_told_it_is_told_again_after_the_start() {
    let (receiver, _) = receiving().await;
    receiver.script(|_| Reaction::Wait(Arc::new(Notify::new()), Box::new(answer(200, &json!({})))));
    let site = Site::new(telling(&receiver, "")).await;
    let first = site.start().await;
    assert_eq!(first.refund("o_1", 6000, &[]).await.code(), "held");
    until(|| (receiver.count() == 1).then_some(())).await;
    assert_eq!(first.refund("o_2", 6000, &[]).await.code(), "held");
    first.kill();
    receiver.script(|_| answer(200, &json!({})));
    let second = site.start().await;
    until(|| (receiver.count() >= 3).then_some(())).await;
    let now = SystemClock.now().as_millis() / 1000;
    let told: Vec<_> = receiver.seen().iter().map(|s| checked(s, now)).collect();
    assert_eq!(told[0], told[1], "under the same id: receivers know it");
    assert_eq!(types(&told), ["hold.created"; 3]);
    assert_ne!(told[1].1["data"]["id"], told[2].1["data"]["id"], "what was not even begun is told, too");
    assert_eq!(second.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_records_that_nobody_wants_keep_no_receiver_behind() {
    let (receiver, _) = receiving().await;
    let site = Site::new(telling(&receiver, "")).await;
    site.upstream.script(|_| answer(200, &json!({})));
    let first = site.start().await;
    for _ in 0..1500 {
        assert_eq!(first.get("/crm/customers/c_1").await.status, 200);
    }
    assert_eq!(first.refund("o_1", 6000, &[]).await.code(), "held");
    until(|| (receiver.count() == 1).then_some(())).await;
    assert_eq!(first.stop().await, Some(0));
    let second = site.start().await;
    assert_eq!(second.refund("o_2", 6000, &[]).await.code(), "held");
    // What arrived just before the stop may come once more, under its old id.
    let ids = || receiver.seen().iter().map(|s| s.headers["webhook-id"].as_bytes().to_vec()).collect::<BTreeSet<_>>();
    until(|| (ids().len() == 2).then_some(())).await;
    assert_eq!(second.stop().await, Some(0));
}

#[test]
fn receivers_that_could_not_work_are_mistakes() {
    let hook = "url: \"https://hooks.test/x\", secret: { file: secrets/hook }";
    let rows = [
        ("url: \"http://hooks.test/x\", secret: { file: secrets/hook }", "", "must be https"),
        ("url: \"https://u:p@hooks.test/x\", secret: { file: secrets/hook }", "", "must be https"),
        ("url: \"https://hooks.test/x\", secret: { file: secrets/maya }", "", "must be `whsec_`"),
        ("url: \"https://hooks.test/x\"", "", "secret"),
        (hook, ", events: [budget.threshold]", "no event `budget.threshold`; there are hold.created"),
        (hook, ", events: [\"held.*\"]", "no event `held.*`"),
        (hook, ", tiers: [low]", "low"),
        (hook, &format!(" }}\n  - {{ webhook: {{ {hook} }}"), "another receiver has this URL"),
    ];
    for (hook, more, wanted) in rows {
        let dir = tempfile::tempdir().unwrap();
        let notify = format!("notify:\n  - {{ webhook: {{ {hook} }}{more} }}\n");
        let setup = Setup::new().config("reviews: { inline_wait: 0s }", &notify).file("secrets/hook", SECRET);
        let wrong = holdpoint::app::load(&setup.write(dir.path(), "127.0.0.1:9".parse().unwrap())).unwrap_err();
        assert!(wrong.to_string().contains(wanted), "{hook}{more}: {wrong}");
    }
}

#[tokio::test]
async fn grants_samples_and_the_kill_switch_are_told_too() {
    let (receiver, _) = receiving().await;
    let reason = "@reason(\"Refunds need one review.\")";
    let policies = POLICIES
        .replace(reason, &format!("{reason} @grant(\"max=1h,uses=5\")"))
        .replace("@id(\"reads\")", "@id(\"reads\") @sample(\"100%\")");
    let operate = "Holdpoint::Action::\"audit.read\"";
    let more =
        ["kill", "resume", "sample.judge", "grant.revoke"].map(|a| format!("Holdpoint::Action::\"{a}\"")).join(", ");
    let grants = "@id(\"grants\") permit (principal in Holdpoint::Team::\"support-leads\", action == \
                  Holdpoint::Action::\"grant.create\", resource);";
    let people = people().replace(operate, &format!("{operate}, {more}")) + grants;
    let events = ", events: [\"grant.*\", \"sample.*\", \"pause.*\"]";
    let p = telling(&receiver, events).policies(&policies).people(&people).start().await;
    p.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    let told = async |count: usize| -> Vec<Value> {
        until(|| (receiver.count() >= count).then_some(())).await;
        receiver.seen().iter().map(|s| serde_json::from_slice(&s.body).unwrap()).collect()
    };
    let held = p.refund("o_1", 6000, &[]).await.json();
    let hold = held["hold"].as_str().unwrap();
    let digest = p.reviewer("maya", "GET", &format!("/v1/holds/{hold}"), None).await.json()["digest"].clone();
    let vote = json!({"digest": digest, "grant": {"pins": [{"path": "/orderId", "any": true}]}});
    let got = p.reviewer("maya", "POST", &format!("/v1/holds/{hold}/approve"), Some(&vote)).await;
    assert_eq!(got.status, 200, "{got:?}");
    let grant = got.json()["grant"]["id"].clone();
    assert_eq!(told(1).await[0]["data"]["id"], grant);
    let ended = p.reviewer("omar", "DELETE", &format!("/v1/grants/{}", grant.as_str().unwrap()), None).await;
    assert_eq!(ended.status, 200, "{ended:?}");
    let read = p.agent("GET", "/crm/customers/c_1", &[], None).await;
    let call = read.header("holdpoint-call").to_owned();
    told(3).await;
    let said = p.reviewer("omar", "POST", &format!("/v1/samples/{call}"), Some(&json!({"verdict": "good"}))).await;
    assert_eq!(said.status, 200, "{said:?}");
    for verb in ["kill", "resume"] {
        let said = json!({"scope": "tool:crm", "reason": "odd"});
        assert_eq!(p.reviewer("omar", "POST", &format!("/v1/{verb}"), Some(&said)).await.status, 200);
    }
    let all = told(6).await;
    let types: Vec<&str> = all.iter().map(|e| e["type"].as_str().unwrap()).collect();
    let wanted = ["grant.created", "grant.ended", "sample.created", "sample.verdict", "pause.began", "pause.ended"];
    assert_eq!(types, wanted, "{all:?}");
    assert_eq!((&all[1]["data"]["ended"]["why"], &all[1]["data"]["ended"]["by"]), (&json!("revoked"), &json!("omar")));
    assert_eq!((&all[3]["data"]["verdict"], &all[3]["data"]["call"]), (&json!("good"), &json!(call)));
    assert_eq!((&all[4]["data"]["scope"], &all[4]["data"]["by"]), (&json!("tool:crm"), &json!("omar")));
}
