//! The store by itself, in this process: 64 tasks that each begin and conclude calls, beside the raw journal loop that
//! writes two records of the same sizes. What HTTP and the other gates cost is not in here.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdpoint::call::{CallId, Digest};
use holdpoint::clock::SystemClock;
use holdpoint::store::{AnswerBody, Begin, CallRecord, Conclusion, Options, State, Store};
use serde_json::json;

/// What one run of the store came to.
pub(crate) struct Run {
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    /// Bytes of journal for one call.
    pub(crate) bytes_per_call: f64,
    /// Frames for one `fdatasync`.
    pub(crate) frames_per_sync: f64,
}

/// Calls with a request and an answer of 1 KiB each, from so many tasks on two threads.
pub(crate) fn run(dir: &Path, clients: usize, time: Duration) -> Run {
    let home = dir.join("store");
    let (store, _) = Store::open(&home, Arc::new(SystemClock), Options::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let end = Instant::now() + time;
    let mut all: Vec<u64> = runtime.block_on(async {
        let workers: Vec<_> = (0..clients).map(|n| tokio::spawn(calls(store.clone(), n, end))).collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.await.unwrap());
        }
        all
    });
    let stats = store.journal().stats();
    let (syncs, frames, bytes) = (stats.syncs.load(Relaxed), stats.frames.load(Relaxed), stats.bytes.load(Relaxed));
    drop(store);
    std::fs::remove_dir_all(home).unwrap();
    all.sort_unstable();
    let count = all.len() as f64;
    Run {
        per_second: count / time.as_secs_f64(),
        p50_us: all[all.len() / 2] as f64 / 1000.0,
        bytes_per_call: bytes as f64 / count,
        frames_per_sync: frames as f64 / syncs as f64,
    }
}

async fn calls(store: Store, client: usize, end: Instant) -> Vec<u64> {
    let mut latencies = Vec::new();
    let answer = Bytes::from("y".repeat(1024));
    let pattern = record();
    while Instant::now() < end {
        let mut record = pattern.clone();
        record.id = CallId::new();
        record.key = Some(format!("key-{client}-{}", latencies.len()));
        record.fingerprint = Digest::of(record.key.as_ref().unwrap().as_bytes());
        record.digest = record.fingerprint;
        let body = Bytes::from(record.arguments.to_string());
        let started = Instant::now();
        let begin = Begin { arguments: Bytes::new(), body, charges: record.charges.clone(), record, release: false };
        let (begun, _) = store.begin(begin).await.unwrap();
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        let body = AnswerBody::Kept(answer.clone());
        let conclusion = Conclusion { state: State::Succeeded, answer: Some((201, headers)), body, note: None };
        store.conclude(begun, conclusion).await.unwrap();
        latencies.push(u64::try_from(started.elapsed().as_nanos()).unwrap());
    }
    latencies
}

/// A call as the proxy records it: one charge for each of three scopes, a kilobyte of arguments.
fn record() -> CallRecord {
    let digest = Digest::of(b"bench");
    let charge = |scope: &str, owner: &str| json!({"ledger": {"scope": scope, "owner": owner, "unit": "calls", "window": null}, "amount": 1, "limit": 1_000_000_000});
    let principal =
        json!({"agent": "bench", "groups": ["bench"], "org": "default", "method": "api_key", "subject": "key|bench"});
    let record = json!({
        "id": CallId::new(), "version": 1, "state": "dispatching", "operation": "bench.changes", "tool": "bench",
        "effects": ["write"], "principal": principal, "context": {"workflow": "w", "stage": "execute", "run": "r_1"},
        "keep": {"secs": 604_800, "nanos": 0}, "fingerprint": digest, "digest": digest,
        "request": {"target": {"method": "POST", "path": "/notes/n_1/changes"}, "content_type": "application/json"},
        "arguments": {"author": "bench", "amountMinor": 1200, "urgent": false, "noteId": "n_1", "text": "x".repeat(900)},
        "schema_digest": digest, "config_digest": digest, "policy_digest": digest, "tier": "low", "policies": ["all"],
        "title": "bench.changes", "created": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z",
        "charges": [charge("run", "default/bench/r"), charge("user", "default/bench"), charge("org", "default")],
    });
    serde_json::from_value(record).unwrap()
}
