//! `kill -9` at every stage of a call, then a start on the same directory: nothing is lost, nothing is sent twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::Notify;

use crate::binary::{Binary, Site};
use crate::harness::{Got, Reaction, Setup, answer, until};

const WAIT: (&str, &str) = ("prefer", "wait=20");

async fn site(setup: Setup) -> Site {
    let site = Site::new(setup).await;
    site.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    site
}

async fn seen(site: &Site, count: usize) {
    until(|| (site.upstream.count() >= count).then_some(())).await;
}

/// An upstream that never answers a refund; what arrives is seen.
fn silent(site: &Site) {
    site.upstream.script(|seen| match seen.method.as_str() {
        "POST" => Reaction::Wait(Arc::new(Notify::new()), Box::new(answer(201, &json!({})))),
        _ => answer(500, &json!({})),
    });
}

async fn verified(site: &Site, running: Binary) {
    assert_eq!(running.stop().await, Some(0));
    let (code, said) = Site::verify(&site.state());
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_a_hold_waits_the_hold_still_waits() {
    let site = site(Setup::new()).await;
    let first = site.start().await;
    let held = first.refund("o_1", 6000, &[]).await;
    assert_eq!(held.code(), "held");
    first.kill();
    let second = site.start().await;
    let again = second.refund("o_1", 6000, &[]).await;
    assert_eq!((again.code(), again.json()["hold"].clone()), ("held".into(), held.json()["hold"].clone()));
    assert_eq!(again.json()["expires"], held.json()["expires"], "its time began anew");
    assert_eq!(site.upstream.bytes(), 0);
    let hold = held.json()["hold"].as_str().unwrap().to_owned();
    assert_eq!(second.approve("maya", &hold).await.status, 200);
    let got = second.refund("o_1", 6000, &[WAIT]).await;
    assert_eq!((got.status, got.json(), site.upstream.count()), (201, json!({"refund": "rf_1"}), 1));
    verified(&site, second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_two_votes_the_first_still_counts() {
    let site = site(Setup::new()).await;
    let first = site.start().await;
    let hold = first.refund("o_1", 60_000, &[]).await.json()["hold"].as_str().unwrap().to_owned();
    assert_eq!(first.approve("maya", &hold).await.status, 200);
    first.kill();
    let second = site.start().await;
    assert_eq!(second.approve("mia", &hold).await.code(), "already_counted");
    assert_eq!(second.approve("li", &hold).await.status, 200);
    assert_eq!(second.refund("o_1", 60_000, &[WAIT]).await.status, 201);
    assert_eq!(site.upstream.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_after_the_last_vote_the_call_is_sent_once_after_the_start() {
    let site = site(Setup::new()).await;
    silent(&site);
    let first = site.start().await;
    let hold = first.refund("o_1", 6000, &[]).await.json()["hold"].as_str().unwrap().to_owned();
    // The breaker keeps it from being sent.
    for _ in 0..3 {
        assert_eq!(first.get("/crm/customers/c_1").await.status, 500);
    }
    assert_eq!(first.approve("maya", &hold).await.status, 200);
    assert_eq!(first.refund("o_1", 6000, &[]).await.json()["state"], "approved");
    first.kill();
    assert!(site.upstream.seen().iter().all(|s| s.method == "GET"));
    site.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    let second = site.start().await;
    let got = second.refund("o_1", 6000, &[WAIT]).await;
    assert_eq!((got.status, got.decision(), got.json()), (201, "replayed", json!({"refund": "rf_1"})));
    assert_eq!(site.upstream.seen().iter().filter(|s| s.method == "POST").count(), 1);
    verified(&site, second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_after_the_last_vote_a_call_with_the_clients_credential_waits_for_the_client() {
    let site = site(Setup::new().config("auth: { bearer: { file: secrets/crm } }", "auth: pass_through")).await;
    let first = site.start().await;
    let hold = first.refund("o_1", 6000, &[]).await.json()["hold"].as_str().unwrap().to_owned();
    assert_eq!(first.approve("maya", &hold).await.status, 200);
    first.kill();
    let second = site.start().await;
    assert_eq!(site.upstream.bytes(), 0);
    let got = second.refund("o_1", 6000, &[]).await;
    assert_eq!((got.status, site.upstream.count()), (201, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_after_the_send_the_outcome_is_unknown_and_told_so() {
    let site = site(Setup::new()).await;
    silent(&site);
    let first = site.start().await;
    let hold = first.refund("o_2", 6000, &[]).await.json()["hold"].as_str().unwrap().to_owned();
    let fresh = async { first.try_refund("o_1", 1200, &[("idempotency-key", "k1")]).await };
    let derived = async { first.try_refund("o_3", 1200, &[]).await };
    let rest = async {
        seen(&site, 2).await;
        assert_eq!(first.approve("maya", &hold).await.status, 200);
        seen(&site, 3).await;
        first.signal("KILL");
    };
    let (fresh, derived, ()) = tokio::join!(fresh, derived, rest);
    assert!(fresh.is_none() && derived.is_none(), "an answer that nobody gave");
    first.kill();
    site.upstream.script(|_| answer(201, &json!({"refund": "rf_2"})));
    let second = site.start().await;
    for (order, minor, more) in
        [("o_1", 1200, &[("idempotency-key", "k1")][..]), ("o_2", 6000, &[]), ("o_3", 1200, &[])]
    {
        for _ in 0..2 {
            let again = second.refund(order, minor, more).await;
            assert_eq!((again.status, again.code().as_str()), (409, "outcome_unknown"), "{:?}", again.json());
            let told = again.json();
            assert_eq!((&told["executed"], &told["retryable"]), (&json!("unknown"), &json!(false)));
        }
    }
    assert_eq!(site.upstream.count(), 3);
    assert!(second.logged().contains("unknown"), "recovery does not say what it found");
    verified(&site, second).await;
}

/// Every other one without a key of its own.
async fn refund_and_count(running: &Binary, i: usize, over: &AtomicUsize) -> (usize, Option<Got>) {
    let key = format!("k{i}");
    let more = [("idempotency-key", key.as_str())];
    let got = running.try_refund(&format!("o_{i}"), 100, if i.is_multiple_of(2) { &more } else { &[] }).await;
    over.fetch_add(1, Ordering::SeqCst);
    (i, got)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_again_and_again_every_answer_stays_true() {
    const NEW: usize = 16;
    let site = site(Setup::new()).await;
    let mut told: HashMap<usize, Got> = HashMap::new();
    for round in 0..4 {
        let running = site.start().await;
        let before = site.upstream.count();
        let over = AtomicUsize::new(0);
        // Those of the rounds before, and new ones.
        let orders = NEW * (round + 1);
        let calls = join_all((0..orders).map(|i| refund_and_count(&running, i, &over)));
        let killer = async {
            // Each round a little further into the storm.
            if round < 3 {
                let enough = || site.upstream.count() > before + 4 * round || over.load(Ordering::SeqCst) == orders;
                until(|| enough().then_some(())).await;
                running.signal("KILL");
            }
        };
        let (answers, ()) = tokio::join!(calls, killer);
        for (i, got) in answers.into_iter().filter_map(|(i, got)| Some((i, got?))) {
            if let Some(before) = told.get(&i) {
                assert_eq!((before.status, &before.body), (got.status, &got.body), "o_{i} was told otherwise before");
            }
            if got.status == 201 {
                told.insert(i, got);
            } else {
                assert_eq!(got.code(), "outcome_unknown", "{:?}", got.json());
            }
        }
        if round == 3 {
            verified(&site, running).await;
        } else {
            running.kill();
        }
    }
    let mut sent: HashMap<String, usize> = HashMap::new();
    for request in site.upstream.seen() {
        *sent.entry(request.target).or_default() += 1;
    }
    assert!(sent.values().all(|n| *n == 1), "sent twice: {sent:?}");
    assert!(told.keys().all(|i| sent.contains_key(&format!("/v2/orders/o_{i}/refunds"))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_it_ends_what_is_under_way_and_begins_nothing_new() {
    let site = site(Setup::new()).await;
    let gate = Arc::new(Notify::new());
    let held = Arc::clone(&gate);
    site.upstream.script(move |seen| match seen.method.as_str() {
        "POST" => Reaction::Wait(Arc::clone(&held), Box::new(answer(201, &json!({"refund": "rf_1"})))),
        _ => answer(200, &json!({})),
    });
    let first = site.start().await;
    let rest = async {
        seen(&site, 1).await;
        first.signal("TERM");
        // The signal needs a moment; reads tell when it has arrived.
        let draining = async { while first.get("/crm/customers/c_1").await.status == 200 {} };
        tokio::time::timeout(crate::harness::PATIENCE, draining).await.expect("it does not drain");
        for minor in [1200, 6000] {
            let late = first.refund("o_2", minor, &[]).await;
            assert_eq!((late.status, late.code().as_str()), (503, "unavailable"));
            assert_eq!(late.json()["executed"], "no");
        }
        gate.notify_one();
    };
    let (got, ()) = tokio::join!(first.refund("o_1", 1200, &[]), rest);
    assert_eq!((got.status, got.json()), (201, json!({"refund": "rf_1"})));
    assert_eq!(first.stop().await, Some(0));
    assert_eq!(site.upstream.seen().iter().filter(|s| s.method == "POST").count(), 1);
    let second = site.start().await;
    assert_eq!(second.refund("o_1", 1200, &[]).await.decision(), "replayed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_one_directory_ends_and_says_who_holds_it() {
    let site = site(Setup::new()).await;
    let first = site.start().await;
    let (code, said) = site.fails();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&site.state().display().to_string()), "{said}");
    assert!(said.contains("process"), "{said}");
    assert_eq!(first.refund("o_1", 1200, &[]).await.status, 201, "the first one goes on");
    first.kill();
    // The kernel has freed the lock.
    let third = site.start().await;
    assert_eq!(third.refund("o_1", 1200, &[]).await.decision(), "replayed");
}

/// Journal and index are those of an earlier time; key and checkpoint are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn started_on_a_state_that_was_rolled_back_it_sends_nothing_with_effects() {
    let site = site(Setup::new()).await;
    let first = site.start().await;
    assert_eq!(first.refund("o_1", 1200, &[]).await.status, 201);
    assert_eq!(first.stop().await, Some(0));
    let (state, saved) = (site.state(), tempfile::tempdir().unwrap());
    let copied = |from: &std::path::Path, to: &std::path::Path| {
        let done = std::process::Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap();
        assert!(done.success());
    };
    ["journal", "index"].iter().for_each(|part| copied(&state.join(part), &saved.path().join(part)));
    let second = site.start().await;
    assert_eq!(second.refund("o_2", 1200, &[]).await.status, 201);
    assert_eq!(second.stop().await, Some(0));
    for part in ["journal", "index"] {
        std::fs::remove_dir_all(state.join(part)).unwrap();
        copied(&saved.path().join(part), &state.join(part));
    }
    let third = site.start().await;
    let got = third.refund("o_2", 1200, &[]).await;
    assert_eq!((got.status, got.code().as_str()), (503, "unavailable"), "{:?}", got.json());
    assert_eq!(got.json()["executed"], "no");
    assert_eq!(site.upstream.count(), 2, "it does not know that this refund was made");
}
