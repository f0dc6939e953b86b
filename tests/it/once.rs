//! A retry on the admin API is no second attempt: under way, after a hang-up, and over a restart.

use std::sync::Arc;

use holdpoint::clock::SystemClock;
use holdpoint::store::State;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::harness::{Got, Proxy, Reaction, answer, token, until};
use crate::{grants, undo};

const WISH: &str = r#"{"justification":"it was the wrong customer"}"#;

fn wish() -> Value {
    serde_json::from_str(WISH).unwrap()
}

/// Requests that reached the upstream and change something.
fn changes(p: &Proxy) -> usize {
    p.upstream.seen().iter().filter(|seen| seen.method != "GET").count()
}

#[tokio::test]
async fn who_hangs_up_and_comes_back_gets_the_answer_of_the_one_attempt() {
    let (p, _) = undo::start(undo::setup(undo::BEFORE)).await;
    let call = undo::update(&p, "new@x.example").await.header("holdpoint-call").to_owned();
    let path = format!("/v1/calls/{call}/undo");
    let gate = Arc::new(Notify::new());
    let wait = Arc::clone(&gate);
    p.upstream.script(move |seen| match seen.method.as_str() {
        "GET" => answer(200, &json!({"id": "c_1", "email": "new@x.example"})),
        _ => Reaction::Wait(Arc::clone(&wait), Box::new(answer(200, &json!({})))),
    });
    let (at, bearer) = (p.running.admin, token("omar"));
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {at}\r\nauthorization: Bearer {bearer}\r\ncontent-type: application/json\r\n\
         idempotency-key: k-1\r\ncontent-length: {}\r\n\r\n{WISH}",
        WISH.len()
    );
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    until(|| (changes(&p) == 2).then_some(())).await;
    let meanwhile = p.keyed("omar", &path, "k-1", &wish()).await;
    assert_eq!((meanwhile.status, meanwhile.code().as_str()), (409, "in_flight"), "{:?}", meanwhile.json());
    assert_eq!(meanwhile.header("retry-after"), "1");
    drop(stream);
    gate.notify_waiters();
    gate.notify_one();
    let mut got = meanwhile;
    while got.code() == "in_flight" {
        got = p.keyed("omar", &path, "k-1", &wish()).await;
    }
    assert_eq!((got.status, got.header("idempotent-replayed")), (200, "true"), "{:?}", got.json());
    assert_eq!((&got.json()["state"], changes(&p)), (&json!("succeeded"), 2));
    assert_eq!(p.record(got.json()["call"].as_str().unwrap()).await.state, State::Succeeded);
}

#[tokio::test]
async fn after_a_restart_the_same_key_undoes_nothing_twice() {
    let (p, _) = undo::start(undo::setup(undo::BEFORE)).await;
    let call = undo::update(&p, "new@x.example").await.header("holdpoint-call").to_owned();
    let path = format!("/v1/calls/{call}/undo");
    let first = p.keyed("omar", &path, "k-1", &wish()).await;
    assert_eq!((first.status, changes(&p)), (200, 2), "{:?}", first.json());
    let p = p.restarted(Arc::new(SystemClock)).await;
    let again = p.keyed("omar", &path, "k-1", &wish()).await;
    assert_eq!(
        (again.json()["call"].clone(), again.json()["state"].clone()),
        (first.json()["call"].clone(), json!("succeeded"))
    );
    assert_eq!(changes(&p), 2);
}

#[tokio::test]
async fn after_a_restart_a_grant_is_not_given_twice_and_a_hold_is_not_edited_twice() {
    let p = grants::started(grants::setup()).await;
    let (done, open) = (grants::held(&p, "o_1", 6000).await, grants::held(&p, "o_2", 6100).await);
    assert_eq!(p.approve("maya", &done, None).await.status, 200);
    p.until_state(&done.replace("hold_", "call_"), State::Succeeded).await;
    let digest = async |p: &Proxy, hold: &str| {
        p.reviewer("maya", "GET", &format!("/v1/holds/{hold}"), None).await.json()["digest"].clone()
    };
    let grant = json!({"hold": done, "digest": digest(&p, &done).await, "pins": [{"path": "/orderId", "any": true}]});
    let patch = json!([{"op": "replace", "path": "/amountMinor", "value": 6050}]);
    let edit = json!({"digest": digest(&p, &open).await, "patch": patch, "note": "less"});
    let path = format!("/v1/holds/{open}/edit");
    let both = async |p: &Proxy| {
        let given: Got = p.keyed("maya", "/v1/grants", "k-1", &grant).await;
        (given, p.keyed("maya", &path, "k-2", &edit).await)
    };
    let (given, edited) = both(&p).await;
    assert_eq!((given.status, edited.status), (200, 200), "{:?} {:?}", given.json(), edited.json());
    let (again, same) = both(&p).await;
    assert_eq!((&again.body, &same.body), (&given.body, &edited.body));
    assert_eq!((same.header("etag"), same.header("idempotent-replayed")), (edited.header("etag"), "true"));
    let p = p.restarted(Arc::new(SystemClock)).await;
    let (again, same) = both(&p).await;
    assert_eq!((again.status, again.code().as_str()), (409, "already_granted"), "{:?}", again.json());
    assert_eq!(again.json()["grant"], given.json()["id"]);
    assert_eq!((same.status, same.code().as_str()), (409, "digest_changed"), "{:?}", same.json());
    let all = p.reviewer("maya", "GET", "/v1/grants", None).await.json();
    assert_eq!(all["items"].as_array().unwrap().len(), 1);
}
