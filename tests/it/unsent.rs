//! What proves that nothing was sent: each member of the list says `executed: no`, and the key is free again.

use std::time::Duration;

use holdpoint::store::{Filter, State};
use serde_json::json;

use crate::harness::{Setup, answer};

const KEY: (&str, &str) = ("idempotency-key", "k1");

#[tokio::test]
async fn without_a_connection_nothing_was_executed_and_an_open_breaker_begins_nothing() {
    for url in ["http://no-such-host.invalid/v2", "http://127.0.0.1:1/v2", "https://UPSTREAM/v2"] {
        let p = Setup::new().config("http://UPSTREAM/v2", url).start().await;
        for _ in 0..3 {
            let got = p.refund("o_1", 1200, &[KEY]).await;
            assert_eq!((got.status, got.code().as_str()), (502, "upstream_unreachable"), "{url}: {:?}", got.json());
            assert_eq!(got.json()["executed"], "no", "{url}");
            assert_eq!(p.state(got.header("holdpoint-call")).await, State::NotExecuted, "{url}");
        }
        let got = p.refund("o_1", 1200, &[KEY]).await;
        assert_eq!((got.code().as_str(), &got.json()["executed"]), ("breaker_open", &json!("no")), "{url}");
        let calls = p.running.store().list(Filter { limit: 10, ..Filter::default() }).await.unwrap();
        assert_eq!(calls.len(), 3, "{url}: a call that an open breaker refused was begun");
        assert_eq!(p.upstream.count(), 0);
    }
}

#[tokio::test]
async fn a_status_that_is_configured_as_not_now_frees_the_key_and_no_other_does() {
    let p = Setup::new()
        .config("        schema: refund.json\n", "        schema: refund.json\n        not_now: [503]\n")
        .config("failures: 3,", "failures: 99,")
        .start()
        .await;
    p.upstream.script(|_| answer(503, &json!({})));
    let got = p.refund("o_1", 1200, &[KEY]).await;
    assert_eq!((got.status, p.state(got.header("holdpoint-call")).await), (503, State::NotExecuted));
    p.upstream.script(|_| answer(500, &json!({})));
    let got = p.refund("o_1", 1200, &[KEY]).await;
    assert_eq!(
        (got.status, got.decision(), p.state(got.header("holdpoint-call")).await),
        (500, "allowed", State::Failed)
    );
    p.upstream.script(|_| answer(201, &json!({})));
    assert_eq!(p.refund("o_1", 1200, &[KEY]).await.decision(), "replayed", "an error is an answer");
    assert_eq!(p.upstream.count(), 2);
}

#[tokio::test]
async fn a_deadline_that_passes_before_the_first_byte_was_written_is_no_unknown() {
    // Accepts, and never answers the TLS handshake.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/v2", listener.local_addr().unwrap());
    let p = Setup::new().config("http://UPSTREAM/v2", &url).config("timeout: 5s", "timeout: 200ms").start().await;
    let got = tokio::time::timeout(Duration::from_secs(20), p.refund("o_1", 1200, &[KEY])).await.unwrap();
    assert_eq!((got.status, &got.json()["executed"]), (502, &json!("no")), "{:?}", got.json());
    assert_eq!(p.state(got.header("holdpoint-call")).await, State::NotExecuted);
}
