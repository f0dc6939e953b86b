//! What people do about a hold beside deciding, as agents and receivers of notifications hear of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdpoint::call::Timestamp;
use holdpoint::clock::ManualClock;
use http::StatusCode;
use serde_json::{Value, json};

use crate::harness::{OTHER_KEY, PEOPLE, Proxy, Reaction, Setup, Upstream, answer, until};

const NOW: i64 = 1_800_000_000_000;
const HOOK: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn people() -> String {
    let reject = "Holdpoint::Action::\"hold.reject\"";
    let more =
        ["hold.claim", "hold.comment", "hold.escalate"].map(|a| format!("Holdpoint::Action::\"{a}\"")).join(", ");
    PEOPLE.replace(reject, &format!("{reject}, {more}"))
}

fn setup(reviews: &str) -> (Setup, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(NOW)));
    let setup = Setup::new().people(&people()).config("reviews: { inline_wait: 0s }", reviews).clock(clock.clone());
    (setup, clock)
}

async fn world(reviews: &str) -> (Proxy, Arc<ManualClock>) {
    let (setup, clock) = setup(reviews);
    let p = setup.start().await;
    p.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    (p, clock)
}

async fn post(p: &Proxy, name: &str, hold: &str, verb: &str, body: Value) -> Value {
    let got = p.reviewer(name, "POST", &format!("/v1/holds/{hold}/{verb}"), Some(&body)).await;
    assert_eq!(got.status, 200, "{got:?}");
    got.json()
}

#[tokio::test]
async fn a_hold_that_nobody_decides_is_brought_before_others_rung_by_rung() {
    let receiver = Upstream::start().await;
    receiver.script(|_| Reaction::Answer(StatusCode::NO_CONTENT, vec![], Bytes::new()));
    let ladder = format!(
        "reviews: {{ inline_wait: 0s, escalate: [ {{ after: 1x, to: finance-managers }}, {{ after: 20m, to: pagerduty }} ] }}\n\
         notify:\n  - {{ webhook: {{ url: \"http://{}/\", secret: {{ file: secrets/hook }} }}, events: [hold.escalated] }}",
        receiver.at
    );
    let (setup, clock) = setup(&ladder);
    let p = setup.file("secrets/hook", HOOK).start().await;
    let hold = p.refund("o_1", 8800, &[]).await.json()["hold"].as_str().unwrap().to_owned();
    let told = |count: usize| {
        let receiver = receiver.clone();
        async move {
            until(|| (receiver.count() >= count).then_some(())).await;
            let last = receiver.seen().pop().unwrap();
            serde_json::from_slice::<Value>(&last.body).unwrap()["data"].clone()
        }
    };
    clock.advance(Duration::from_secs(15 * 60));
    let first = told(1).await;
    assert_eq!(
        (first["id"].as_str(), &first["escalated"]["to"]),
        (Some(&*hold), &json!("finance-managers")),
        "{first}"
    );
    assert_eq!(first["escalated"]["after"], "1x");
    let by_hand = post(&p, "maya", &hold, "escalate", json!({"reason": "I am not sure"})).await;
    assert_eq!(by_hand["escalation"][1]["to"], "pagerduty", "the next rung");
    assert_eq!(told(2).await["escalated"]["by"], "maya");
    clock.advance(Duration::from_secs(5 * 60));
    assert_eq!(told(3).await["escalated"]["after"], "20m");
    let seen = p.reviewer("maya", "GET", &format!("/v1/holds/{hold}"), None).await.json();
    assert_eq!((seen["escalation"].as_array().unwrap().len(), seen["state"].as_str()), (3, Some("held")));
}

#[tokio::test]
async fn that_a_hold_is_nearly_over_is_told_once_and_leaves_it_as_it_was() {
    let receiver = Upstream::start().await;
    receiver.script(|_| Reaction::Answer(StatusCode::NO_CONTENT, vec![], Bytes::new()));
    let told = format!(
        "reviews: {{ inline_wait: 0s, medium: {{ expires: 100m }} }}\n\
         notify:\n  - {{ webhook: {{ url: \"http://{}/\", secret: {{ file: secrets/hook }} }}, events: [\"hold.exp*\"] }}",
        receiver.at
    );
    let (setup, clock) = setup(&told);
    let p = setup.file("secrets/hook", HOOK).start().await;
    let hold = p.refund("o_1", 8800, &[]).await.json()["hold"].as_str().unwrap().to_owned();
    let at = format!("/v1/holds/{hold}");
    let before = p.reviewer("maya", "GET", &at, None).await;
    let heard = |count: usize| {
        let receiver = receiver.clone();
        async move {
            until(|| (receiver.count() >= count).then_some(())).await;
            let said = |r: &bytes::Bytes| serde_json::from_slice::<Value>(r).unwrap();
            receiver.seen().iter().map(|r| said(&r.body)).collect::<Vec<_>>()
        }
    };
    clock.advance(Duration::from_secs(80 * 60));
    let first = heard(1).await.remove(0);
    assert_eq!((&first["type"], first["data"]["id"].as_str()), (&json!("hold.expiring"), Some(&*hold)), "{first}");
    assert_eq!(first["data"]["expires"], before.json()["times"]["expires"]);
    let after = p.reviewer("maya", "GET", &at, None).await;
    assert_eq!(after.header("etag"), before.header("etag"), "nobody who is deciding is disturbed");
    let p = p.restarted(clock.clone()).await;
    clock.advance(Duration::from_secs(20 * 60));
    let names: Vec<Value> = heard(2).await.iter().map(|e| e["type"].clone()).collect();
    assert_eq!(names, ["hold.expiring", "hold.expired"]);
    drop(p);
}

#[tokio::test]
async fn the_agent_hears_what_evidence_is_asked_for_until_it_is_brought() {
    let (p, _) = world("reviews: { inline_wait: 0s }").await;
    let held = p.refund("o_1", 8800, &[]).await.json();
    let (hold, call) = (held["hold"].as_str().unwrap().to_owned(), held["call"].as_str().unwrap().to_owned());
    let asked = json!({"kinds": ["ticket"], "message_to_agent": "which ticket?"});
    post(&p, "maya", &hold, "evidence-requests", asked).await;
    post(&p, "maya", &hold, "comments", json!({"text": "only between us"})).await;
    let again = p.refund("o_1", 8800, &[]).await.json();
    assert_eq!((again["hold"].as_str(), &again["evidence_asked"]), (Some(&*hold), &json!(["ticket"])), "{again}");
    let words = again["detail"].as_str().unwrap();
    assert!(words.contains("asks for evidence (ticket)") && words.contains("which ticket?"), "{words}");
    assert!(!again.to_string().contains("between us"), "comments are for reviewers");
    let ticket = json!({"kind": "ticket", "title": "T-1", "text": "charged twice"});
    let brought = p.agent("POST", &format!("/-/calls/{call}/evidence"), &[], Some(&ticket)).await;
    assert_eq!(brought.status, 201, "{brought:?}");
    let then = p.refund("o_1", 8800, &[]).await.json();
    assert!(then.get("evidence_asked").is_none(), "{then}");
}

#[tokio::test]
async fn what_is_like_a_rejected_call_is_refused_for_a_while_also_after_a_restart() {
    let (p, clock) = world("reviews: { inline_wait: 0s }").await;
    let hold = p.refund("o_1", 8800, &[]).await.json()["hold"].as_str().unwrap().to_owned();
    let digest = p.reviewer("maya", "GET", &format!("/v1/holds/{hold}"), None).await.json()["digest"].clone();
    let no = json!({"digest": digest, "reason_code": "suspected_injection", "deny_alike_minutes": 30});
    assert_eq!(post(&p, "maya", &hold, "reject", no).await["state"], "rejected");
    let like = p.refund("o_2", 8900, &[]).await;
    assert_eq!((like.status, like.code().as_str()), (403, "rejected"), "{like:?}");
    let said = like.json();
    assert_eq!(
        (said["alike_to"].as_str(), &said["reason_code"]),
        (Some(&*hold), &json!("suspected_injection")),
        "{said}"
    );
    assert_eq!(like.header("retry-after"), "1800");
    assert_eq!(p.refund("o_2", 1200, &[]).await.status, 201, "what policy allows by itself runs");
    let other = json!({"customerId": "c_1", "amountMinor": 8800, "currency": "EUR"});
    let got = p.agent_as(OTHER_KEY, "POST", "/crm/orders/o_3/refunds", &[], Some(&other)).await;
    assert_ne!(got.code(), "rejected", "another agent: {got:?}");
    let p = p.restarted(clock.clone()).await;
    assert_eq!(p.refund("o_4", 8900, &[]).await.code(), "rejected");
    clock.advance(Duration::from_secs(30 * 60));
    assert_eq!(p.refund("o_4", 8900, &[]).await.code(), "held");
}
