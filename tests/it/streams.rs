//! Answers that are long or flow: passed on as they come, their end only once the record stands.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use holdpoint::store::State;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::harness::{PATIENCE, Proxy, Reaction, SUPPORT_KEY, Setup, answer};

const JSON: (&str, &str) = ("content-type", "application/json");
const SSE: (&str, &str) = ("content-type", "text/event-stream");

fn headers(of: (&'static str, &str)) -> Vec<(&'static str, String)> {
    vec![(of.0, of.1.to_owned())]
}

fn pieces(count: usize, each: usize) -> Vec<Bytes> {
    (0..count).map(|i| Bytes::from(vec![b'a' + u8::try_from(i % 26).unwrap(); each])).collect()
}

/// A request whose answer is read piece by piece.
async fn open(p: &Proxy, method: &str, path: &str, body: String) -> http::Response<hyper::body::Incoming> {
    ask(p, method, path, body).await.unwrap()
}

/// Whether the agent sees that the answer is broken: at its head or before its end.
async fn is_broken(p: &Proxy, method: &str, path: &str, body: String) -> bool {
    match ask(p, method, path, body).await {
        Ok(response) => response.into_body().collect().await.is_err(),
        Err(_) => true,
    }
}

async fn ask(
    p: &Proxy,
    method: &str,
    path: &str,
    body: String,
) -> hyper::Result<http::Response<hyper::body::Incoming>> {
    let stream = TcpStream::connect(p.agents()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("authorization", format!("Bearer {SUPPORT_KEY}"))
        .header("accept", "application/json, text/event-stream");
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    sender.send_request(request.body(body).unwrap()).await
}

fn refund() -> String {
    json!({"customerId": "c_1", "amountMinor": 1200, "currency": "EUR"}).to_string()
}

fn text(response: &http::Response<hyper::body::Incoming>, name: &str) -> String {
    response.headers()[name].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_end_of_a_long_answer_waits_for_the_record_and_its_beginning_does_not() {
    let p = Setup::new().start().await;
    let gate = Arc::new(Notify::new());
    let held = Arc::clone(&gate);
    p.upstream.script(move |seen| match seen.method.as_str() {
        "POST" => Reaction::Gated(headers(JSON), pieces(4, 100 << 10), true, Arc::clone(&held)),
        _ => answer(200, &json!({})),
    });
    let response = open(&p, "POST", "/crm/orders/o_1/refunds", refund()).await;
    let call = text(&response, "holdpoint-call");
    let mut body = response.into_body();
    let mut got = Vec::new();
    // More than what is kept back flows while the answer has no end.
    while got.len() <= 256 << 10 {
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("the beginning does not flow");
        got.extend_from_slice(&frame.unwrap().unwrap().into_data().unwrap());
    }
    // Other calls come and go meanwhile; what has come by then is looked at.
    for _ in 0..5 {
        assert_eq!(p.agent("GET", "/crm/customers/c_1", &[], None).await.status, 200);
    }
    while let Some(Some(Ok(frame))) = body.frame().now_or_never() {
        got.extend_from_slice(&frame.into_data().unwrap());
    }
    assert!(got.len() < 400 << 10, "the last piece came before the end of the answer");
    assert_eq!(p.state(&call).await, State::Dispatching);
    gate.notify_one();
    while got.len() < 400 << 10 {
        got.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
    }
    assert_eq!(p.state(&call).await, State::Succeeded, "the last piece came before the record");
    assert!(body.frame().await.is_none());
    assert_eq!(got, pieces(4, 100 << 10).concat());
    let again = p.refund("o_1", 1200, &[]).await;
    assert_eq!((again.decision(), again.body.len(), p.upstream.count()), ("replayed", 400 << 10, 6));
    assert_eq!(again.body, got);
}

#[tokio::test]
async fn a_short_answer_is_told_only_once_the_record_stands() {
    let p = Setup::new().start().await;
    p.upstream.script(|_| Reaction::Pieces(headers(JSON), vec![Bytes::from_static(b"{\"a\":1}")], true));
    let response = open(&p, "POST", "/crm/orders/o_1/refunds", refund()).await;
    assert_eq!(p.state(&text(&response, "holdpoint-call")).await, State::Succeeded);
}

#[tokio::test]
async fn an_answer_too_long_to_keep_is_not_replayed_but_its_digest_is_told() {
    let p = Setup::new().start().await;
    p.upstream.script(|_| Reaction::Pieces(headers(JSON), pieces(12, 100 << 10), true));
    let first = p.refund("o_1", 1200, &[]).await;
    assert_eq!((first.status, first.body.len()), (200, 1200 << 10));
    let again = p.refund("o_1", 1200, &[]).await;
    assert_eq!((again.status, again.code().as_str()), (409, "invalid_answer"));
    let told = again.json();
    assert_eq!((&told["executed"], &told["answer_bytes"]), (&json!("yes"), &json!(1200 << 10)));
    assert_eq!(told["answer_digest"], holdpoint::call::Digest::of(&first.body).to_string());
    assert_eq!(p.upstream.count(), 1);
}

#[tokio::test]
async fn a_cut_answer_of_a_call_with_effects_is_an_unknown_outcome() {
    let p = Setup::new().start().await;
    p.upstream.script(|_| Reaction::Pieces(headers(JSON), pieces(1, 1000), false));
    let short = p.refund("o_1", 1200, &[]).await;
    assert_eq!((short.status, short.code().as_str()), (409, "outcome_unknown"));
    assert_eq!((&short.json()["executed"], &short.json()["retryable"]), (&json!("unknown"), &json!(false)));
    assert_eq!(p.state(short.header("holdpoint-call")).await, State::Unknown);
    let again = p.refund("o_1", 1200, &[]).await;
    assert_eq!((again.status, again.code().as_str(), p.upstream.count()), (409, "outcome_unknown", 1));

    let gate = Arc::new(Notify::new());
    let held = Arc::clone(&gate);
    p.upstream.script(move |_| Reaction::Gated(headers(JSON), pieces(4, 100 << 10), false, Arc::clone(&held)));
    let response = open(&p, "POST", "/crm/orders/o_2/refunds", refund()).await;
    let call = text(&response, "holdpoint-call");
    gate.notify_one();
    assert!(response.into_body().collect().await.is_err(), "a cut answer looks whole");
    assert_eq!(p.until_state(&call, State::Unknown).await.state, State::Unknown);
    let again = p.refund("o_2", 1200, &[]).await;
    assert_eq!((again.code().as_str(), p.upstream.count()), ("outcome_unknown", 2));
}

#[tokio::test]
async fn a_dropped_connection_after_the_request_is_an_unknown_outcome() {
    let p = Setup::new().start().await;
    p.upstream.script(|_| Reaction::Drop);
    let got = p.refund("o_1", 1200, &[]).await;
    assert_eq!((got.status, got.code().as_str()), (409, "outcome_unknown"));
    let again = p.refund("o_1", 1200, &[]).await;
    assert_eq!((again.code().as_str(), p.upstream.count()), ("outcome_unknown", 1));
    let read = p.agent("GET", "/crm/customers/c_1", &[], None).await;
    assert_eq!((read.status, read.code().as_str()), (502, "upstream_unreachable"), "a read may say so");
}

#[tokio::test]
async fn an_answer_over_the_limit_is_cut_and_never_grows_further() {
    let p = Setup::new()
        .config("        schema: refund.json\n", "        schema: refund.json\n        limits: { answer: 300KiB }\n")
        .config("effect: read }\n      update", "effect: read, limits: { answer: 300KiB } }\n      update")
        .start()
        .await;
    p.upstream.script(|_| Reaction::Pieces(headers(JSON), pieces(5, 100 << 10), true));
    assert!(is_broken(&p, "POST", "/crm/orders/o_1/refunds", refund()).await);
    p.until_line(|kind, _| kind == "concluded").await;
    let again = p.refund("o_1", 1200, &[]).await;
    assert_eq!((again.code().as_str(), p.upstream.count()), ("outcome_unknown", 1));
    assert!(is_broken(&p, "GET", "/crm/customers/c_1", String::new()).await);
}

#[tokio::test]
async fn a_reads_stream_of_events_passes_while_it_flows() {
    let p = Setup::new().start().await;
    let gate = Arc::new(Notify::new());
    let held = Arc::clone(&gate);
    let events = vec![Bytes::from_static(b"data: 1\n\n"), Bytes::from_static(b"data: 2\n\n")];
    let sent = events.clone();
    p.upstream.script(move |_| Reaction::Gated(headers(SSE), sent.clone(), true, Arc::clone(&held)));
    let response = open(&p, "GET", "/crm/customers/c_1", String::new()).await;
    assert_eq!(text(&response, "content-type"), "text/event-stream");
    let mut body = response.into_body();
    let mut got = Vec::new();
    while got.len() < 18 {
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("events do not flow");
        got.extend_from_slice(&frame.unwrap().unwrap().into_data().unwrap());
    }
    assert_eq!(got, events.concat());
    gate.notify_one();
    assert!(body.frame().await.is_none());
}

/// Events of a REST answer that have so many bytes in all.
fn rest_events(bytes: usize) -> Vec<Bytes> {
    let frame = "data: \n\n".len();
    let half = bytes / 2;
    let event = |n: usize| Bytes::from(format!("data: {}\n\n", "e".repeat(n - frame)));
    vec![event(half), event(bytes - half)]
}

const BOUND: usize = 1 << 20;

#[tokio::test]
async fn a_stream_of_events_up_to_the_bound_is_replayed_byte_for_byte() {
    for len in [40, 300 << 10, BOUND] {
        let p = Setup::new().start().await;
        let more =
            [("content-type", "text/event-stream; charset=utf-8"), ("x-books", "r\u{e9}sum\u{e9}"), ("etag", "\"7\"")];
        p.upstream.script(move |_| {
            let headers = more.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
            Reaction::Pieces(headers, rest_events(len), true)
        });
        let first = p.refund("o_1", 1200, &[]).await;
        assert_eq!((first.status, first.decision(), first.body.len()), (200, "allowed", len));
        let again = p.refund("o_1", 1200, &[]).await;
        assert_eq!((again.status, again.decision()), (200, "replayed"), "{len}: {:?}", again.json());
        assert_eq!(again.body, first.body, "{len}");
        for (name, value) in more {
            assert_eq!(again.headers[name].as_bytes(), value.as_bytes(), "{len} {name}");
            assert_eq!(again.headers[name], first.headers[name]);
        }
        assert_eq!(p.upstream.count(), 1);
    }
}

#[tokio::test]
async fn one_byte_over_the_bound_the_replay_says_so_and_gives_no_part_of_the_body() {
    let p = Setup::new().start().await;
    p.upstream.script(|_| Reaction::Pieces(headers(SSE), rest_events(BOUND + 1), true));
    let first = p.refund("o_1", 1200, &[]).await;
    assert_eq!((first.status, first.body.len()), (200, BOUND + 1));
    let again = p.refund("o_1", 1200, &[]).await;
    let told = again.json();
    assert_eq!((again.status, again.code().as_str(), &told["executed"]), (409, "invalid_answer", &json!("yes")));
    assert_eq!(told["answer_bytes"], BOUND + 1);
    assert_eq!(told["answer_digest"], holdpoint::call::Digest::of(&first.body).to_string());
    assert!(told["detail"].as_str().unwrap().contains("too long to keep") && again.body.len() < 2000);
    assert_eq!(p.upstream.count(), 1);
}

#[tokio::test]
async fn a_cut_stream_of_events_is_an_unknown_outcome() {
    let p = Setup::new().start().await;
    let gate = Arc::new(Notify::new());
    let held = Arc::clone(&gate);
    p.upstream.script(move |_| Reaction::Gated(headers(SSE), rest_events(1000), false, Arc::clone(&held)));
    let mut response = open(&p, "POST", "/crm/orders/o_1/refunds", refund()).await;
    let frame = tokio::time::timeout(PATIENCE, response.body_mut().frame()).await.expect("events do not flow");
    assert!(frame.unwrap().is_ok());
    gate.notify_one();
    assert!(response.into_body().collect().await.is_err(), "a cut stream looks whole");
    p.until_line(|kind, _| kind == "concluded").await;
    let again = p.refund("o_1", 1200, &[]).await;
    assert_eq!((again.status, again.code().as_str(), p.upstream.count()), (409, "outcome_unknown", 1));
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_stream_gets_all_of_it_later() {
    let p = Setup::new().start().await;
    let gate = Arc::new(Notify::new());
    let held = Arc::clone(&gate);
    p.upstream.script(move |_| Reaction::Gated(headers(SSE), rest_events(60 << 10), true, Arc::clone(&held)));
    let mut response = open(&p, "POST", "/crm/orders/o_1/refunds", refund()).await;
    let frame = tokio::time::timeout(PATIENCE, response.body_mut().frame()).await.expect("events do not flow");
    assert!(!frame.unwrap().unwrap().into_data().unwrap().is_empty());
    drop(response);
    gate.notify_one();
    p.until_line(|kind, _| kind == "concluded").await;
    let again = p.refund("o_1", 1200, &[]).await;
    assert_eq!((again.decision(), again.body.as_ref()), ("replayed", rest_events(60 << 10).concat().as_slice()));
    assert_eq!(p.upstream.count(), 1);
}

#[tokio::test]
async fn a_response_of_a_tool_that_is_too_long_to_keep_is_told_as_executed_under_the_new_id() {
    let p = Setup::new().start().await;
    p.upstream.script(|_| {
        let text = "x".repeat(BOUND);
        let message = json!({"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": text}]}});
        Reaction::Pieces(headers(SSE), vec![Bytes::from(format!("data: {message}\n\n"))], true)
    });
    let first = open(&p, "POST", "/tickets/mcp", comment(7)).await;
    assert!(first.into_body().collect().await.unwrap().to_bytes().len() > BOUND);
    let again = open(&p, "POST", "/tickets/mcp", comment(8)).await.into_body().collect().await.unwrap().to_bytes();
    let again: serde_json::Value = serde_json::from_slice(&again).unwrap();
    let about = &again["result"]["_meta"]["dev.holdpoint/refusal"];
    assert_eq!(
        (&again["id"], &about["executed"], &about["code"]),
        (&json!(8), &json!("yes"), &json!("invalid_answer"))
    );
    assert!(about["answer_digest"].as_str().unwrap().starts_with("sha256:"), "{about}");
    assert_eq!(p.upstream.count(), 1);
}

fn comment(id: u32) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {
        "name": "add_comment", "arguments": {"ticketId": "t_1", "text": "hi"},
        "_meta": {"dev.holdpoint/idempotency-key": "c1"},
    }})
    .to_string()
}

const PROGRESS: &str = ": hello\nevent: message\nid: 1\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\
                        \"params\":{\"progress\":1}}\r\n\r\n";
const RESPONSE: &str = "id: 2\ndata: {\"jsonrpc\":\"2.0\", \"id\":7,\ndata:  \"result\":{\"content\":[{\"type\":\
                        \"text\",  \"text\":\"added\"}]}}\n\n";

#[tokio::test]
async fn events_of_a_tool_call_pass_unchanged_and_the_response_is_replayed_as_json() {
    let p = Setup::new().start().await;
    let gate = Arc::new(Notify::new());
    let held = Arc::clone(&gate);
    p.upstream.script(move |_| {
        // Cut in the middle of an event.
        let (a, b) = RESPONSE.split_at(20);
        let sent = [PROGRESS, a, b].map(|s| Bytes::from_static(s.as_bytes())).to_vec();
        Reaction::Gated(headers(SSE), sent, true, Arc::clone(&held))
    });
    let response = open(&p, "POST", "/tickets/mcp", comment(7)).await;
    let call = text(&response, "holdpoint-call");
    assert_eq!(text(&response, "content-type"), "text/event-stream");
    let mut body = response.into_body();
    let mut got = Vec::new();
    while got.len() < PROGRESS.len() + RESPONSE.len() {
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("events do not flow");
        got.extend_from_slice(&frame.unwrap().unwrap().into_data().unwrap());
    }
    assert_eq!(String::from_utf8(got).unwrap(), format!("{PROGRESS}{RESPONSE}"));
    assert_eq!(p.state(&call).await, State::Succeeded, "the response was told before the record stood");
    gate.notify_one();
    assert!(body.frame().await.is_none());

    let again = open(&p, "POST", "/tickets/mcp", comment(8)).await;
    assert_eq!(text(&again, "content-type"), "application/json");
    assert_eq!((text(&again, "holdpoint-decision"), text(&again, "holdpoint-call")), ("replayed".into(), call));
    let again = again.into_body().collect().await.unwrap().to_bytes();
    // The result member byte for byte, the id the new one.
    let expected = "{\"jsonrpc\":\"2.0\",\"id\":8,\"result\":{\"content\":[{\"type\":\"text\",  \"text\":\"added\"}]}}";
    assert_eq!(String::from_utf8(again.to_vec()).unwrap(), expected);
    assert_eq!(p.upstream.count(), 1);
}

#[tokio::test]
async fn a_stream_that_ends_before_its_response_is_an_unknown_outcome() {
    let p = Setup::new().start().await;
    p.upstream.script(|_| Reaction::Pieces(headers(SSE), vec![Bytes::from_static(PROGRESS.as_bytes())], true));
    assert!(is_broken(&p, "POST", "/tickets/mcp", comment(7)).await);
    p.until_line(|kind, _| kind == "concluded").await;
    let again = open(&p, "POST", "/tickets/mcp", comment(8)).await.into_body().collect().await.unwrap().to_bytes();
    let again: serde_json::Value = serde_json::from_slice(&again).unwrap();
    assert_eq!((&again["id"], &again["result"]["isError"]), (&json!(8), &json!(true)));
    let about = &again["result"]["_meta"]["dev.holdpoint/refusal"];
    assert_eq!((&about["code"], &about["executed"]), (&json!("outcome_unknown"), &json!("unknown")));
    assert_eq!(p.upstream.count(), 1);
}
