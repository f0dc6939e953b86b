//! The store by itself, in this process: 64 tasks that each begin and conclude calls, beside the raw journal loop that
//! writes two records of the same sizes. What HTTP and the other gates cost is not in here.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdpoint::call::{CallId, Digest, Timestamp};
use holdpoint::clock::{Clock as _, ManualClock, SystemClock};
use holdpoint::store::{AnswerBody, Begin, CallRecord, Conclusion, Keep, Options, Shortened, State, Store};
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
    let pattern = Pattern::new();
    while Instant::now() < end {
        let record = pattern.fresh(&format!("{client}-{}", latencies.len()));
        let started = Instant::now();
        pattern.call(&store, record).await;
        latencies.push(u64::try_from(started.elapsed().as_nanos()).unwrap());
    }
    latencies
}

/// What every call has, made before the clock runs: in the proxy the bodies come from the network.
struct Pattern {
    record: CallRecord,
    request: Bytes,
    answer: Bytes,
}

impl Pattern {
    fn new() -> Self {
        let record = record();
        let request = Bytes::from(record.arguments.to_string());
        Self { record, request, answer: Bytes::from("y".repeat(1024)) }
    }

    fn fresh(&self, name: &str) -> CallRecord {
        let mut record = self.record.clone();
        record.id = CallId::new();
        record.key = Some(format!("key-{name}"));
        record.fingerprint = Digest::of(name.as_bytes());
        record.digest = record.fingerprint;
        record
    }

    async fn call(&self, store: &Store, record: CallRecord) {
        let (body, charges) = (self.request.clone(), record.charges.clone());
        let begin = Begin { arguments: Bytes::new(), states: Bytes::new(), body, charges, record, release: false };
        let (begun, _) = store.begin(begin).await.unwrap();
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        let body = AnswerBody::Kept(self.answer.clone());
        let conclusion = Conclusion { state: State::Succeeded, answer: Some((201, headers)), body, note: None };
        store.conclude(begun, conclusion).await.unwrap();
    }
}

/// Records so many calls, spread evenly over the `days` before now, each made of the same record by `vary`.
pub(crate) fn fill(home: &Path, count: u64, days: u64, vary: fn(&mut CallRecord, u64)) {
    let now = SystemClock.now();
    let span = days * 86_400_000;
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(now.as_millis() - i64::try_from(span).unwrap())));
    let step = Duration::from_micros(span * 1000 / count);
    let (store, _) = Store::open(home, clock.clone(), Options::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let next = Arc::new(AtomicU64::new(0));
        let worker = |_| {
            let (store, clock, next) = (store.clone(), clock.clone(), next.clone());
            tokio::spawn(async move {
                let pattern = Pattern::new();
                loop {
                    let n = next.fetch_add(1, Relaxed);
                    if n >= count {
                        return;
                    }
                    clock.advance(step);
                    let mut record = pattern.fresh(&n.to_string());
                    record.created = clock.now();
                    vary(&mut record, n);
                    pattern.call(&store, record).await;
                }
            })
        };
        for worker in (0..64).map(worker).collect::<Vec<_>>() {
            worker.await.unwrap();
        }
    });
}

/// Takes away what is older than so many days; returns seconds, segments gone, segments without payloads now.
pub(crate) fn shorten(home: &Path, calls: u64, audit: u64) -> (f64, Shortened) {
    let (store, _) = Store::open(home, Arc::new(SystemClock), Options::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let days = |n: u64| Duration::from_secs(n * 86_400);
    let started = Instant::now();
    let keep = Keep { calls: days(calls), artifacts: days(calls), audit: days(audit) };
    let done = runtime.block_on(store.shorten(keep)).unwrap();
    (started.elapsed().as_secs_f64(), done)
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
