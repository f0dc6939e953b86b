//! What limits calls, as operators see it: budgets in use, and a breaker that they close by hand.

use std::sync::Arc;
use std::time::Duration;

use holdpoint::call::Timestamp;
use holdpoint::clock::ManualClock;
use serde_json::{Value, json};

use crate::harness::{PEOPLE, Proxy, Setup, answer};
use crate::verbs::cli;

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

#[tokio::test]
async fn a_budget_without_room_gets_more_and_keeps_it_over_a_restart() {
    let operate = "Holdpoint::Action::\"call.reconcile\"";
    let more = ["policy.view", "budget.topup"].map(|a| format!("Holdpoint::Action::\"{a}\"")).join(", ");
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_800_000_000_000)));
    let setup = Setup::new().people(&PEOPLE.replace(operate, &format!("{operate}, {more}"))).clock(clock.clone());
    let p = setup.config("money: 10000.00 EUR, every: 30d", "money: 20.00 EUR, every: 30d").start().await;
    p.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    assert_eq!(p.refund("o_1", 1500, &[]).await.status, 201);
    assert_eq!(p.refund("o_2", 1500, &[]).await.code(), "budget_exhausted");
    let budget = async |p: &Proxy| items(p, "/v1/budgets").await.remove(0);
    let at = format!("/v1/budgets/{}/topup", budget(&p).await["id"].as_str().unwrap());
    let said = json!({"amount": 1000, "reason": "returns week"});
    assert_eq!(p.reviewer("maya", "POST", &at, Some(&said)).await.code(), "forbidden");
    for wrong in
        [json!({"amount": 0, "reason": "x"}), json!({"amount": -1, "reason": "x"}), json!({"amount": 1, "reason": ""})]
    {
        assert_eq!(p.reviewer("omar", "POST", &at, Some(&wrong)).await.status, 422, "{wrong}");
    }
    let (code, text) = cli(
        &p,
        "omar",
        &["budgets", "topup", &at[12..48], "--amount", "1000", "--reason", "returns week", "--key", "k"],
    )
    .await;
    assert!(
        code == Some(0) && text.contains("50 %: 1500 used, 0 set aside of 2000 + 1000 added EUR, until "),
        "{text}"
    );
    let p = p.restarted(clock.clone()).await;
    let again = cli(
        &p,
        "omar",
        &["budgets", "topup", &at[12..48], "--amount", "1000", "--reason", "returns week", "--key", "k"],
    )
    .await;
    assert_eq!(again, (code, text), "the same attempt adds nothing, also after a restart");
    assert_eq!(p.refund("o_2", 1500, &[]).await.status, 201);
    let full = budget(&p).await;
    assert_eq!(
        (&full["used_pct"], &full["extra"], &full["limit"]),
        (&json!(100), &json!(1000), &json!(2000)),
        "{full}"
    );
    let refused = p.refund("o_3", 1, &[]).await;
    assert_eq!(refused.code(), "budget_exhausted");
    let words = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(words.contains("the org budget (30.00 EUR) has no room"), "{words}");
    let note = p.until_line(|kind, _| kind == "topped_up").await;
    assert_eq!((&note["top_up"]["by"], &note["top_up"]["reason"]), (&json!("omar"), &json!("returns week")), "{note}");
    clock.advance(Duration::from_secs(30 * 86_400));
    let late = p.reviewer("omar", "POST", &at, Some(&said)).await;
    assert_eq!((late.status, late.code().as_str()), (409, "window_over"));
    assert_eq!(p.refund("o_4", 1500, &[]).await.status, 201, "a new window");
    assert_eq!(p.refund("o_5", 600, &[]).await.code(), "budget_exhausted", "and nobody has added to it");
    assert_eq!(p.reviewer("omar", "POST", "/v1/budgets/bud_x/topup", Some(&said)).await.status, 404);
}

/// Two budgets of one scope and unit are two, also when their windows begin together.
#[tokio::test]
async fn a_daily_and_a_monthly_budget_are_counted_apart() {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(0)));
    let both = "money: 20.00 EUR, every: 1d }\n  - { per: org, money: 100.00 EUR, every: 30d";
    let operate = "Holdpoint::Action::\"call.reconcile\"";
    let more = ["policy.view", "budget.topup"].map(|a| format!("Holdpoint::Action::\"{a}\"")).join(", ");
    let setup = Setup::new().people(&PEOPLE.replace(operate, &format!("{operate}, {more}"))).clock(clock.clone());
    let p = setup.config("money: 10000.00 EUR, every: 30d", both).start().await;
    p.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    assert_eq!(p.refund("o_1", 1500, &[]).await.status, 201);
    let told = items(&p, "/v1/budgets").await;
    let used: Vec<_> = told.iter().map(|b| (b["limit"].as_i64().unwrap(), b["used"].as_i64().unwrap())).collect();
    assert_eq!(used, [(2000, 1500), (10_000, 1500)], "{told:?}");
    let at = format!("/v1/budgets/{}/topup", told[1]["id"].as_str().unwrap());
    let said = json!({"amount": 1000, "reason": "more"});
    clock.advance(Duration::from_secs(3 * 86_400));
    let got = p.reviewer("omar", "POST", &at, Some(&said)).await;
    assert_eq!((got.status, &got.json()["extra"]), (200, &json!(1000)), "the month is not over: {got:?}");
    assert_eq!(items(&p, "/v1/budgets").await.len(), 1, "of the day that is over nobody needs to know");
    assert_eq!(p.refund("o_2", 1900, &[]).await.status, 201);
    assert_eq!(p.refund("o_3", 200, &[]).await.code(), "budget_exhausted");
}
