//! A new version of everything, or the old one stays: under load, all or nothing.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use holdpoint::audit::Line;
use serde_json::Value;

use crate::binary::Site;
use crate::harness::{Proxy, Setup, event, until};

const POLICIES: &str = "policies/agents.cedar";
const CONFIG: &str = "holdpoint.yaml";

/// Every pair of digests that a record names, wherever it stands in it.
fn digests(value: &Value, found: &mut BTreeSet<(String, String)>) {
    if let Value::Object(members) = value {
        let text = |name: &str| members.get(name).and_then(Value::as_str).map(str::to_owned);
        found.extend(text("config_digest").zip(text("policy_digest")));
    }
    match value {
        Value::Object(members) => members.values().for_each(|v| digests(v, found)),
        Value::Array(all) => all.iter().for_each(|v| digests(v, found)),
        _ => {}
    }
}

fn of_kind(lines: &[Line], kind: &str) -> Vec<Value> {
    lines.iter().filter(|l| l.kind() == kind).map(event).collect()
}

fn counted(p: &Proxy, result: &str) -> u64 {
    let name = format!("holdpoint_config_reloads_total{{result=\"{result}\"}} ");
    let metrics = p.running.metrics().text().unwrap();
    metrics.lines().find_map(|l| l.strip_prefix(&name)).map_or(0, |n| n.parse().unwrap())
}

/// Calls that go on and on, 8 at a time, until told to stop; how many there were.
async fn load(p: &Proxy, stop: &AtomicBool, done: &AtomicUsize) {
    join_all((0..8).map(|client| async move {
        let mut i = 0;
        while !stop.load(Ordering::SeqCst) {
            let got = match i % 3 {
                0 => p.agent("GET", "/crm/customers/c_1", &[], None).await,
                1 => p.refund(&format!("o_{client}_{i}"), 100, &[]).await,
                _ => p.refund(&format!("o_{client}_{i}"), 6000, &[]).await,
            };
            let expected = if i % 3 == 2 { "held" } else { "allowed" };
            // What is held is capped; that is not what this test is about.
            assert!(got.decision() == expected || got.code() == "rate_limited", "{:?}", got.json());
            done.fetch_add(1, Ordering::SeqCst);
            i += 1;
        }
    }))
    .await;
}

/// Waits until that many more calls have gone.
async fn more(done: &AtomicUsize, count: usize) {
    let before = done.load(Ordering::SeqCst);
    until(|| (done.load(Ordering::SeqCst) >= before + count).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_version_changes_nothing_under_load_and_says_where_it_is_wrong() {
    let p = Setup::new().start().await;
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let reloads = async {
        more(&done, 24).await;
        p.rewrite(POLICIES, |t| t.replace("context.input.amountMinor > 5000 }", "context.input.amount > 5000 }"));
        let said = p.running.reload().await.unwrap_err().to_string();
        assert!(said.contains("agents.cedar:6") && said.contains("refund-review"), "file, line and policy: {said}");
        assert!(said.contains("amount"), "{said}");
        assert_eq!(counted(&p, "rejected"), 1);
        more(&done, 24).await;

        p.rewrite(POLICIES, |t| t.replace("context.input.amount > 5000 }", "context.input.amountMinor > 5000 }"));
        p.rewrite(CONFIG, |t| t.replace("    mount: /crm\n", "    mounted: /crm\n"));
        let said = p.running.reload().await.unwrap_err().to_string();
        assert!(said.contains("holdpoint.yaml:") && said.contains("mounted"), "file, line and key: {said}");
        assert_eq!(counted(&p, "rejected"), 2);
        more(&done, 24).await;

        p.rewrite(CONFIG, |t| t.replace("    mounted: /crm\n", "    mount: /crm\n"));
        p.rewrite(POLICIES, |t| t.replace("> 5000 }", "> 5500 }"));
        p.running.reload().await.unwrap();
        assert_eq!((counted(&p, "rejected"), counted(&p, "ok")), (2, 1));
        more(&done, 24).await;
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(load(&p, &stop, &done), reloads);
    until(|| (of_kind(&p.lines(), "call.read").len() >= 30).then_some(())).await;

    let lines = p.lines();
    let (loaded, reloaded) = (of_kind(&lines, "config.loaded"), of_kind(&lines, "config.reloaded"));
    assert_eq!((loaded.len(), reloaded.len(), of_kind(&lines, "config.rejected").len()), (1, 1, 2));
    let mut known = BTreeSet::new();
    loaded.iter().chain(&reloaded).for_each(|e| digests(e, &mut known));
    assert_eq!(known.len(), 2);
    let mut calls = BTreeSet::new();
    let mut records = 0;
    for kind in ["begun", "parked", "call.read", "call.refused"] {
        for event in of_kind(&lines, kind) {
            let mut named = BTreeSet::new();
            digests(&event, &mut named);
            assert_eq!(named.len(), 1, "a record without the version that decided: {event}");
            calls.extend(named);
            records += 1;
        }
    }
    assert!(records >= 72, "{records}");
    assert_eq!(calls, known, "a record names a version that never was in force");
}

#[tokio::test]
async fn every_mistake_of_a_version_is_told_at_once() {
    let p = Setup::new().start().await;
    p.rewrite(CONFIG, |t| {
        t.replace("timeout: 5s", "timeout: soon").replace("schema: refund.json", "schema: nowhere.json")
    });
    let said = p.running.reload().await.unwrap_err().to_string();
    assert!(said.contains("soon") && said.contains("nowhere.json"), "{said}");
    assert!(p.refund("o_1", 100, &[]).await.status == 200);
}

#[tokio::test]
async fn what_needs_a_restart_is_refused_by_name() {
    let p = Setup::new().start().await;
    p.rewrite(CONFIG, |t| t.replace("state:    { path: state }", "state:    { path: elsewhere }"));
    let said = p.running.reload().await.unwrap_err().to_string();
    assert!(said.contains("state.path") && said.contains("restart"), "{said}");
    assert!(!p.dir.path().join("elsewhere").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_reloads_the_real_binary_or_leaves_it_as_it_is() {
    let site = Site::new(Setup::new()).await;
    let running = site.start().await;
    assert_eq!(running.refund("o_1", 4000, &[]).await.decision(), "allowed");
    let path = site.dir.path().join(POLICIES);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("> 5000", "> 5000 +")).unwrap();
    running.signal("HUP");
    until(|| running.logged().contains("the old one stays in force").then_some(())).await;
    assert!(running.logged().contains("agents.cedar:"), "{}", running.logged());
    assert_eq!(running.refund("o_2", 4000, &[]).await.decision(), "allowed");
    let metrics = running.reviewer("omar", "GET", "/metrics", "").await;
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(metrics.contains("holdpoint_config_reloads_total{result=\"rejected\"} 1"), "{metrics}");

    std::fs::write(&path, text.replace("> 5000", "> 3000")).unwrap();
    running.signal("HUP");
    until(|| running.logged().contains("a new version is in force").then_some(())).await;
    assert_eq!(running.refund("o_3", 4000, &[]).await.decision(), "held");
    assert_eq!(running.stop().await, Some(0));
}
