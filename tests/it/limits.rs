//! What limits calls, as operators see it: budgets in use, and a breaker that they close by hand.

use serde_json::{Value, json};

use crate::harness::{PEOPLE, Proxy, Setup, answer};

async fn start() -> Proxy {
    let operate = "Holdpoint::Action::\"call.reconcile\"";
    let more = ["policy.view", "breaker.reset"].map(|a| format!("Holdpoint::Action::\"{a}\"")).join(", ");
    Setup::new().people(&PEOPLE.replace(operate, &format!("{operate}, {more}"))).start().await
}

async fn items(p: &Proxy, path: &str) -> Vec<Value> {
    let got = p.reviewer("omar", "GET", path, None).await;
    assert_eq!(got.status, 200, "{got:?}");
    got.json()["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn budgets_in_use_are_shown_with_their_limits() {
    let p = start().await;
    p.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    assert_eq!(items(&p, "/v1/budgets").await, Vec::<Value>::new());
    assert_eq!(p.refund("o_1", 1200, &[]).await.status, 201);
    let all = items(&p, "/v1/budgets").await;
    let one = &all[0];
    assert_eq!((&one["scope"], &one["owner"], &one["unit"]), (&json!("org"), &json!("acme"), &json!("EUR")), "{all:?}");
    assert_eq!((&one["used"], &one["reserved"], &one["limit"]), (&json!(1200), &json!(0), &json!(1_000_000)));
    assert_eq!(p.reviewer("maya", "GET", "/v1/budgets", None).await.status, 403);
}

#[tokio::test]
async fn a_breaker_that_opened_is_closed_by_hand() {
    let p = start().await;
    p.upstream.script(|_| answer(500, &json!({"error": "down"})));
    let read = async || p.agent("GET", "/crm/customers/c_1", &[], None).await;
    for _ in 0..3 {
        assert_eq!(read().await.status, 500);
    }
    assert_eq!(read().await.code(), "breaker_open");
    let crm = async || items(&p, "/v1/breakers").await.into_iter().find(|b| b["tool"] == "crm").unwrap();
    let open = crm().await;
    assert!(open["state"] == "open" && open["retry_after_s"].as_u64().is_some_and(|s| s <= 20), "{open}");
    p.upstream.script(|_| answer(200, &json!({"id": "c_1"})));
    let said = json!({"reason": "it is up again"});
    let got = p.reviewer("omar", "POST", "/v1/breakers/crm/reset", Some(&said)).await;
    assert_eq!((got.status, &got.json()["state"]), (200, &json!("closed")), "{got:?}");
    assert_eq!(read().await.status, 200, "calls flow at once");
    let note = p.until_line(|kind, _| kind == "breaker.reset").await;
    assert_eq!(note["note"]["more"]["user"], "omar", "{note}");
}
