//! Limits are exact under load: 64 clients at once, and not one call more or fewer than there is room for.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use holdpoint::call::Timestamp;
use holdpoint::clock::ManualClock;
use serde_json::json;
use tokio::sync::Notify;

use crate::harness::{Got, PATIENCE, Proxy, Reaction, Setup, answer};

const CLIENTS: usize = 64;

/// 64 refunds at once, of different orders.
async fn refunds(p: &Proxy, from: usize, minor: i64) -> Vec<Got> {
    join_all((from..from + CLIENTS).map(|i| async move { p.refund(&format!("o_{i}"), minor, &[]).await })).await
}

async fn read(p: &Proxy) -> Got {
    p.agent("GET", "/crm/customers/c_1", &[], None).await
}

fn split(all: Vec<Got>) -> (Vec<Got>, Vec<Got>) {
    all.into_iter().partition(|got| got.status == 200)
}

fn budget(rules: &str) -> Setup {
    Setup::new().config("  - { per: org, money: 10000.00 EUR, every: 30d }\n", rules)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_money_budget_lets_exactly_its_amount_through() {
    let p = budget("  - { per: org, money: 105.00 EUR, every: 30d }\n").start().await;
    let (through, refused) = split(refunds(&p, 0, 1000).await);
    assert_eq!((through.len(), p.upstream.count()), (10, 10));
    for got in &refused {
        assert_eq!((got.status, got.code().as_str()), (429, "budget_exhausted"), "{:?}", got.json());
        assert_eq!(got.json()["executed"], "no");
        assert!(!got.header("retry-after").is_empty());
    }
    // 5.00 EUR are left, to the cent.
    assert_eq!(p.refund("o_last", 501, &[]).await.code(), "budget_exhausted");
    assert_eq!(p.refund("o_last", 500, &[]).await.status, 200);
    assert_eq!(p.refund("o_cent", 1, &[]).await.code(), "budget_exhausted");
    assert_eq!(p.upstream.count(), 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_budget_of_calls_lets_exactly_its_count_through() {
    let p = budget("  - { per: run, calls: 7 }\n").start().await;
    let (through, refused) = split(refunds(&p, 0, 10).await);
    assert_eq!((through.len(), refused.len(), p.upstream.count()), (7, CLIENTS - 7, 7));
    assert!(refused.iter().all(|got| got.code() == "budget_exhausted"));
    let other = p.refund("o_x", 10, &[("holdpoint-run", "another")]).await;
    assert_eq!(other.status, 200, "another run has a budget of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_not_sent_costs_nothing() {
    let p = budget("  - { per: org, money: 100.00 EUR, every: 30d }\n")
        .config("        schema: refund.json\n", "        schema: refund.json\n        not_now: [503]\n")
        .config("breaker: { failures: 3,", "breaker: { failures: 1000,")
        .start()
        .await;
    p.upstream.script(|_| answer(503, &json!({"busy": true})));
    assert!(refunds(&p, 0, 1000).await.iter().all(|got| got.status != 200));
    p.upstream.script(|_| answer(200, &json!({})));
    let before = p.upstream.count();
    let (through, _) = split(refunds(&p, 100, 1000).await);
    assert_eq!((through.len(), p.upstream.count() - before), (10, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rate_limit_lets_exactly_its_burst_through() {
    let p =
        Setup::new().config("{ per: agent, limit: 10000/s }", "{ per: agent, limit: 1/h, burst: 20 }").start().await;
    let (through, refused) = split(join_all((0..CLIENTS).map(|_| read(&p))).await);
    assert_eq!((through.len(), p.upstream.count()), (20, 20));
    for got in &refused {
        assert_eq!((got.status, got.code().as_str()), (429, "rate_limited"));
        assert!(!got.header("retry-after").is_empty());
    }
    let last = through.iter().map(|got| got.header("ratelimit").to_owned()).min().unwrap();
    assert_eq!(last, "\"agent\";r=0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_clients_with_one_key_are_one_request() {
    let p = Setup::new().config("inline_wait: 0s", "inline_wait: 20s").start().await;
    p.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    let all = join_all((0..CLIENTS).map(|_| p.refund("o_1", 1200, &[("idempotency-key", "same")]))).await;
    assert_eq!(p.upstream.count(), 1);
    let allowed = all.iter().filter(|got| got.decision() == "allowed").count();
    let replayed = all.iter().filter(|got| got.decision() == "replayed").count();
    assert_eq!((allowed, replayed), (1, CLIENTS - 1), "{:?}", all.iter().map(Got::code).collect::<Vec<_>>());
    assert!(all.iter().all(|got| got.status == 201 && got.body == all[0].body));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_breaker_opens_after_three_failures_and_lets_one_probe_through() {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_800_000_000_000)));
    let p = Setup::new().clock(clock.clone()).start().await;
    p.upstream.script(|_| answer(500, &json!({"broken": true})));
    for _ in 0..3 {
        assert_eq!(read(&p).await.status, 500);
    }
    let all = join_all((0..CLIENTS).map(|_| read(&p))).await;
    assert!(all.iter().all(|got| (got.status, got.code().as_str()) == (503, "breaker_open")));
    assert_eq!(p.upstream.count(), 3);
    assert_eq!(all[0].header("retry-after"), "20");

    clock.advance(Duration::from_secs(19));
    assert_eq!(read(&p).await.code(), "breaker_open");
    clock.advance(Duration::from_secs(1));
    assert_eq!(probe(&p, 500).await, 500);
    assert_eq!(read(&p).await.code(), "breaker_open", "a failed probe opens it again");
    clock.advance(Duration::from_secs(20));
    assert_eq!(probe(&p, 200).await, 200);
    assert_eq!(p.upstream.count(), 5);
    p.upstream.script(|_| answer(200, &json!({})));
    let (through, _) = split(join_all((0..CLIENTS).map(|_| read(&p))).await);
    assert_eq!((through.len(), p.upstream.count()), (CLIENTS, 5 + CLIENTS));
}

/// 64 calls while the breaker may be probed: one goes and is answered with `status`, the others are refused meanwhile.
async fn probe(p: &Proxy, status: u16) -> u16 {
    let gate = Arc::new(Notify::new());
    let held = Arc::clone(&gate);
    p.upstream.script(move |_| Reaction::Wait(Arc::clone(&held), Box::new(answer(status, &json!({})))));
    let mut calls: FuturesUnordered<_> = (0..CLIENTS).map(|_| read(p)).collect();
    let before = p.upstream.count();
    for _ in 1..CLIENTS {
        let next = tokio::time::timeout(PATIENCE, calls.next()).await.expect("more than one call waits upstream");
        assert_eq!(next.unwrap().code(), "breaker_open");
    }
    assert_eq!(p.upstream.count(), before + 1);
    gate.notify_one();
    calls.next().await.unwrap().status
}
