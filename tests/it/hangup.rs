//! An agent that hangs up tears nothing in half: the record is complete, the re-call is answered, nothing is sent twice.

use std::net::SocketAddr;
use std::sync::Arc;

use holdpoint::store::State;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::harness::{Reaction, SUPPORT_KEY, Setup, answer};

/// Begins a refund over a connection of its own; `sent` bytes of its body go out. Dropped, it hangs up.
async fn begin(to: SocketAddr, minor: i64, sent: usize) -> TcpStream {
    begin_as(to, "o_1", "k1", minor, sent).await
}

async fn begin_as(to: SocketAddr, order: &str, key: &str, minor: i64, sent: usize) -> TcpStream {
    let body = json!({"customerId": "c_1", "amountMinor": minor, "currency": "EUR"}).to_string();
    let head = format!(
        "POST /crm/orders/{order}/refunds HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {SUPPORT_KEY}\r\n\
         Content-Type: application/json\r\nIdempotency-Key: {key}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body.as_bytes()[..sent.min(body.len())]).await.unwrap();
    stream
}

#[tokio::test]
async fn during_the_body_the_record_says_refused_and_the_re_call_is_a_fresh_one() {
    let p = Setup::new().start().await;
    drop(begin(p.agents(), 1200, 20).await);
    let event = p.until_line(|kind, event| kind == "call.refused" && event["note"]["agent"][1] == "support-bot").await;
    assert_eq!(event["note"]["code"], "malformed_request", "{event}");
    assert!(event["note"]["call"].is_string() && event["note"]["more"]["policy_digest"].is_string(), "{event}");
    assert_eq!(p.upstream.bytes(), 0);
    let again = p.refund("o_1", 1200, &[("idempotency-key", "k1")]).await;
    assert_eq!((again.status, again.decision(), p.upstream.count()), (200, "allowed", 1));
}

#[tokio::test]
async fn after_the_upstream_got_the_request_the_outcome_is_recorded_and_replayed() {
    let p = Setup::new().config("inline_wait: 0s", "inline_wait: 20s").start().await;
    let gate = Arc::new(Notify::new());
    let held = Arc::clone(&gate);
    p.upstream.script(move |_| Reaction::Wait(Arc::clone(&held), Box::new(answer(201, &json!({"refund": "rf_1"})))));
    let agent = begin(p.agents(), 1200, usize::MAX).await;
    p.until_seen(1).await;
    drop(agent);
    let begun = p.until_line(|kind, _| kind == "begun").await;
    gate.notify_one();
    p.until_line(|kind, _| kind == "concluded").await;
    let again = p.refund("o_1", 1200, &[("idempotency-key", "k1")]).await;
    assert_eq!((again.status, again.decision(), p.upstream.count()), (201, "replayed", 1));
    assert_eq!(again.json()["refund"], "rf_1");
    let record = p.record(again.header("holdpoint-call")).await;
    assert_eq!(record.state, State::Succeeded);
    assert!(begun.to_string().contains(&record.id.to_string()));
}

#[tokio::test]
async fn while_a_long_answer_flows_its_end_is_recorded_and_replayed() {
    let p = Setup::new().start().await;
    let gate = Arc::new(Notify::new());
    let held = Arc::clone(&gate);
    p.upstream.script(move |_| {
        let pieces = vec![bytes::Bytes::from(vec![b'a'; 200 << 10]); 3];
        Reaction::Gated(vec![("content-type", "text/plain".into())], pieces, true, Arc::clone(&held))
    });
    let agent = begin(p.agents(), 1200, usize::MAX).await;
    p.until_seen(1).await;
    // The head and the first pieces are on their way.
    agent.readable().await.unwrap();
    drop(agent);
    gate.notify_one();
    p.until_line(|kind, _| kind == "concluded").await;
    let again = p.refund("o_1", 1200, &[("idempotency-key", "k1")]).await;
    assert_eq!((again.decision(), again.body.len(), p.upstream.count()), ("replayed", 600 << 10, 1));
}

#[tokio::test]
async fn during_the_inline_wait_the_hold_stays_as_it_is() {
    let p = Setup::new().config("inline_wait: 0s", "inline_wait: 20s").start().await;
    let agent = begin(p.agents(), 6000, usize::MAX).await;
    let parked = p.until_line(|kind, _| kind == "parked").await;
    drop(agent);
    let again = p.refund("o_1", 6000, &[("idempotency-key", "k1"), ("prefer", "wait=0")]).await;
    assert_eq!((again.status, again.code().as_str()), (409, "held"));
    assert!(parked.to_string().contains(again.header("holdpoint-call")), "{parked}");
    assert_eq!(p.state(again.header("holdpoint-call")).await, State::Held);
    assert_eq!(p.upstream.bytes(), 0);
    let hold = again.json()["hold"].as_str().unwrap().to_owned();
    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    let done = p.refund("o_1", 6000, &[("idempotency-key", "k1")]).await;
    assert_eq!((done.status, done.decision(), p.upstream.count()), (200, "replayed", 1));
    assert_eq!(p.state(done.header("holdpoint-call")).await, State::Succeeded);
}

/// The proxy's tasks are interrupted wherever they happen to wait: the agent leaves after any number of turns, politely or
/// with a reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_whatever_moment_an_agent_leaves_the_call_happens_once_and_is_answered_later() {
    const MOMENTS: usize = 80;
    let p = Setup::new().start().await;
    p.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    for moment in 0..MOMENTS {
        let (order, key) = (format!("o_{moment}"), format!("k{moment}"));
        let agent = begin_as(p.agents(), &order, &key, 1, usize::MAX).await;
        for _ in 0..moment * 3 {
            tokio::task::yield_now().await;
        }
        if moment.is_multiple_of(2) {
            agent.set_zero_linger().unwrap();
        }
        drop(agent);
        let again = p.refund(&order, 1, &[("idempotency-key", &key)]).await;
        assert_eq!((again.status, again.json()["refund"].as_str()), (201, Some("rf_1")), "moment {moment}");
    }
    let mut sent: Vec<String> = p.upstream.seen().into_iter().map(|s| s.target).collect();
    sent.sort();
    sent.dedup();
    assert_eq!((sent.len(), p.upstream.count()), (MOMENTS, MOMENTS), "an order was sent twice or never");
}
