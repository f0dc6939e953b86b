//! A process that is told over the admin API to stop: as by SIGTERM, and with an answer.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::binary::{Binary, Site};
use crate::harness::{PATIENCE, PEOPLE, Reaction, Setup, answer, until};

fn setup() -> Setup {
    let operate = "Holdpoint::Action::\"call.reconcile\"";
    let more = ["drain", "audit.read"].map(|a| format!("Holdpoint::Action::\"{a}\"")).join(", ");
    let people = PEOPLE.replace(operate, &format!("{operate}, {more}"));
    Setup::new().people(&people).config("reviews: { inline_wait: 0s }", "reviews: { inline_wait: 60s }")
}

async fn held(binary: &Binary) -> Vec<Value> {
    let list = binary.reviewer("maya", "GET", "/v1/holds?state=held", "").await;
    list.json()["items"].as_array().unwrap().clone()
}

/// The only hold, once it is there.
async fn one_held(binary: &Binary) -> String {
    let there = async {
        loop {
            if let [hold] = &held(binary).await[..] {
                return hold["id"].as_str().unwrap().to_owned();
            }
        }
    };
    tokio::time::timeout(PATIENCE, there).await.expect("nothing is held")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_drains_it_and_nothing_that_was_accepted_is_lost() {
    let site = Site::new(setup()).await;
    let gate = Arc::new(Notify::new());
    let opened = Arc::clone(&gate);
    let sent = move || Reaction::Wait(Arc::clone(&opened), Box::new(answer(201, &json!({"refund": "rf_1"}))));
    site.upstream.script(move |seen| if seen.method == "POST" { sent() } else { answer(200, &json!({})) });
    let first = site.start().await;
    let drain = |who: &'static str, reason: &'static str| {
        let (first, said) = (&first, json!({"reason": reason}).to_string());
        async move { first.reviewer(who, "POST", "/v1/drain", &said).await }
    };
    assert_eq!(drain("maya", "a new version").await.code(), "forbidden");
    assert_eq!(drain("omar", " ").await.status, 422);
    assert_eq!(first.get("/crm/customers/c_1").await.status, 200, "nothing has begun");

    let rest = async {
        until(|| site.upstream.seen().iter().any(|s| s.method == "POST").then_some(())).await;
        let hold = one_held(&first).await;
        let at = format!("/v1/holds/{hold}/wait?timeout=60");
        let (polled, asked) = tokio::join!(first.reviewer("maya", "GET", &at, ""), drain("omar", "a new version"));
        assert_eq!((polled.status, &polled.json()["state"]), (200, &json!("held")), "a long poll ends: {polled:?}");
        assert_eq!((asked.status, &asked.json()["draining"]), (202, &json!(true)), "{asked:?}");
        let late = first.refund("o_3", 1200, &[]).await;
        assert_eq!((late.status, late.code().as_str()), (503, "unavailable"), "{late:?}");
        assert!(!late.header("retry-after").is_empty());
        assert_eq!(first.reviewer("maya", "GET", "/readyz", "").await.status, 503);
        assert_eq!(drain("omar", "and again").await.status, 202);
        gate.notify_one();
        hold
    };
    let (waiting, sent, hold) = tokio::join!(first.refund("o_1", 8800, &[]), first.refund("o_2", 1200, &[]), rest);
    assert_eq!((waiting.status, waiting.json()["hold"].as_str()), (409, Some(&*hold)), "a handle: {waiting:?}");
    assert_eq!((sent.status, sent.json()), (201, json!({"refund": "rf_1"})));
    assert_eq!(first.ends().await, Some(0));

    let second = site.start().await;
    assert_eq!(one_held(&second).await, hold);
    let log = second.reviewer("omar", "GET", "/v1/audit?kind=drain.begun", "").await.json();
    assert_eq!((log["items"].as_array().unwrap().len(), &log["items"][0]["who"]), (1, &json!("omar")), "{log}");
    assert_eq!(second.stop().await, Some(0));
    assert_eq!(Site::verify(&site.state()).0, Some(0));
}
