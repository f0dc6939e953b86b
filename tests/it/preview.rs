//! What a call will change: read when it is held, shown to those who decide, and read again before it is sent.

use std::sync::{Arc, Mutex};

use holdpoint::store::State;
use serde_json::{Value, json};

use crate::harness::{CRM_TOKEN, Proxy, Reaction, Setup, answer};

const HELD: &str = r#"
@id("update-review") @reason("Changes of customers need one review.") @approvers("support-leads")
forbid (principal, action == Holdpoint::Action::"crm.update_customer", resource) unless { context.approval.granted };
"#;

const UPDATE: &str = "schema: update.json, redact: [/phone] }";

/// A customer that the upstream keeps: its state, and how often it was written.
#[derive(Clone)]
struct Customer(Arc<Mutex<(Value, u64)>>);

impl Customer {
    fn set(&self, change: impl Fn(&mut Value)) {
        let mut kept = self.0.lock().unwrap();
        change(&mut kept.0);
        kept.1 += 1;
    }
}

fn setup(preview: &str) -> Setup {
    let with = format!("schema: update.json, redact: [/phone], preview: {preview} }}");
    Setup::new().config(UPDATE, &with).more_policies(HELD)
}

async fn start(preview: &str) -> (Proxy, Customer) {
    start_with(setup(preview)).await
}

async fn start_with(setup: Setup) -> (Proxy, Customer) {
    let p = setup.start().await;
    let customer = Customer(Arc::new(Mutex::new((
        json!({"id": "c_1", "email": "old@x.example", "phone": "+49-old-secret", "address": {"city": "Ulm"}}),
        7,
    ))));
    let kept = customer.clone();
    p.upstream.script(move |seen| {
        let mut kept = kept.0.lock().unwrap();
        let tag = format!("\"{}\"", kept.1);
        let answers = |body: &Value| match answer(200, body) {
            Reaction::Answer(status, mut headers, body) => {
                headers.push(("etag", tag.clone()));
                Reaction::Answer(status, headers, body)
            }
            other => other,
        };
        let patch: Option<Value> = serde_json::from_slice(&seen.body).ok();
        match (seen.method.as_str(), patch) {
            ("PATCH", Some(patch)) => {
                if seen.headers.get("if-match").is_some_and(|given| given != tag.as_str()) {
                    return answer(412, &json!({}));
                }
                let mut after = kept.0.clone();
                after.as_object_mut().unwrap().extend(patch.as_object().unwrap().clone());
                after["seen"] = json!(true);
                if !seen.target.contains("dry=1") {
                    *kept = (after.clone(), kept.1 + 1);
                }
                answers(&after)
            }
            _ => answers(&kept.0),
        }
    });
    (p, customer)
}

async fn update(p: &Proxy, body: &Value) -> String {
    let got = p.agent("PATCH", "/crm/customers/c_1", &[], Some(body)).await;
    assert_eq!(got.code(), "held", "{:?}", got.json());
    got.json()["hold"].as_str().unwrap().to_owned()
}

async fn shown(p: &Proxy, hold: &str) -> Value {
    p.reviewer("maya", "GET", &format!("/v1/holds/{hold}"), None).await.json()
}

async fn until_version(p: &Proxy, hold: &str, wanted: u64) {
    let mut changes = p.running.store().watch(call_of(hold).parse().unwrap()).unwrap().unwrap();
    let moved = changes.wait_for(|(_, version)| *version >= wanted);
    tokio::time::timeout(crate::harness::PATIENCE, moved).await.expect("it never moved").unwrap();
}

fn call_of(hold: &str) -> String {
    hold.replace("hold_", "call_")
}

#[tokio::test]
async fn approvers_see_before_and_after_and_no_secret() {
    let (p, _) = start("{ read: GET /customers/:customerId, diff: merge-patch, fence: etag }").await;
    let hold = update(&p, &json!({"email": "new@x.example", "phone": "+49-new-secret"})).await;
    let seen = p.upstream.seen();
    assert_eq!((seen.len(), seen[0].method.as_str(), seen[0].target.as_str()), (1, "GET", "/v2/customers/c_1"));
    assert_eq!(seen[0].headers["authorization"], format!("Bearer {CRM_TOKEN}"));
    let hold_json = shown(&p, &hold).await;
    let change = &hold_json["change"];
    assert_eq!((&change["certainty"], &change["before"]["fence"]), (&json!("exact"), &json!("etag:\"7\"")));
    let patch = json!([
        {"op": "replace", "path": "/email", "from": "old@x.example", "value": "new@x.example"},
        {"op": "replace", "path": "/phone", "from": "[redacted]", "value": "[redacted]"},
    ]);
    assert_eq!((&change["patch"], &change["unchanged"]), (&patch, &json!(2)));
    assert!(!hold_json.to_string().contains("secret"), "{hold_json}");
    assert!(!p.lines().iter().any(|l| l.event.get().contains("old@x.example")), "a state stands open in the journal");

    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    p.until_state(&call_of(&hold), State::Succeeded).await;
    let seen = p.upstream.seen();
    let methods: Vec<&str> = seen.iter().map(|s| s.method.as_str()).collect();
    assert_eq!(methods, ["GET", "GET", "PATCH"], "the target is read again just before");
    assert_eq!(seen[2].headers["if-match"], "\"7\"");
}

#[tokio::test]
async fn a_moved_target_goes_back_to_people_with_what_changed() {
    let (p, customer) = start("{ read: GET /customers/:customerId, diff: merge-patch, fence: etag }").await;
    let body = json!({"email": "new@x.example"});
    let hold = update(&p, &body).await;
    let first = shown(&p, &hold).await;
    for round in 1..=3u64 {
        let before = p.record(&call_of(&hold)).await;
        customer.set(|c| c["address"]["city"] = json!(format!("Bonn {round}")));
        assert_eq!(p.approve("maya", &hold, None).await.status, 200);
        // The vote, and the step that takes it back.
        until_version(&p, &hold, before.version + 2).await;
        let record = p.record(&call_of(&hold)).await;
        assert_eq!((u64::from(record.renewals), record.approvals.len()), (round, 0));
        assert_ne!(record.digest, before.digest, "a vote on what was seen before would count");
        let now = shown(&p, &hold).await;
        assert_eq!(now["note"]["code"], "moved");
        assert_eq!(now["change"]["moved"][0]["path"], "/address/city", "{now}");
        assert_eq!(now["change"]["moved"][0]["value"], format!("Bonn {round}"));
    }
    let old = json!({"digest": first["digest"]});
    let got = p.reviewer("maya", "POST", &format!("/v1/holds/{hold}/approve"), Some(&old)).await;
    assert_eq!((got.status, got.code().as_str()), (409, "digest_changed"));
    customer.set(|c| c["address"] = json!("gone"));
    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    p.until_state(&call_of(&hold), State::Stale).await;
    let got = p.agent("PATCH", "/crm/customers/c_1", &[], Some(&body)).await;
    assert_eq!((got.status, got.code().as_str(), &got.json()["executed"]), (403, "stale", &json!("no")));
    assert!(p.upstream.seen().iter().all(|s| s.method == "GET"));
}

#[tokio::test]
async fn a_target_that_moves_under_the_request_changes_nothing() {
    let (p, _) = start("{ read: GET /customers/:customerId, diff: merge-patch, fence: etag }").await;
    let hold = update(&p, &json!({"email": "new@x.example"})).await;
    p.upstream.script(|seen| match seen.method.as_str() {
        "GET" => Reaction::Answer(
            http::StatusCode::OK,
            vec![("etag", "\"7\"".into())],
            bytes::Bytes::from_static(b"{\"email\":1}"),
        ),
        _ => answer(412, &json!({"error": "precondition"})),
    });
    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    let record = p.until_state(&call_of(&hold), State::NotExecuted).await;
    assert_eq!(record.note.unwrap().code, "stale");
}

#[tokio::test]
async fn a_read_that_fails_costs_the_hold_nothing() {
    let (p, _) = start("{ read: GET /customers/:customerId, diff: merge-patch }").await;
    p.upstream.script(|seen| match seen.method.as_str() {
        "GET" => answer(500, &json!({})),
        _ => answer(200, &json!({})),
    });
    let hold = update(&p, &json!({"email": "new@x.example"})).await;
    let change = shown(&p, &hold).await["change"].clone();
    assert_eq!((&change["certainty"], &change["why"]), (&json!("unknown"), &json!("the read answered 500")));
    assert_eq!(change["before"], Value::Null);
    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    p.until_state(&call_of(&hold), State::Succeeded).await;
}

#[tokio::test]
async fn what_cannot_be_read_again_waits() {
    let (p, _) = start("{ read: GET /customers/:customerId, diff: merge-patch }").await;
    let hold = update(&p, &json!({"email": "new@x.example"})).await;
    let broken = Arc::new(Mutex::new(true));
    let is_broken = Arc::clone(&broken);
    p.upstream.script(move |seen| match seen.method.as_str() {
        "GET" if *is_broken.lock().unwrap() => answer(500, &json!({})),
        _ => answer(200, &json!({"id": "c_1"})),
    });
    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    crate::harness::until(|| (p.upstream.count() >= 2).then_some(())).await;
    until_version(&p, &hold, 3).await;
    let record = p.record(&call_of(&hold)).await;
    assert_eq!((record.state, record.note.as_ref().unwrap().code.as_str()), (State::Approved, "unavailable"));
    // It can be read again, and is not as it was.
    *broken.lock().unwrap() = false;
    until_version(&p, &hold, record.version + 1).await;
    assert_eq!(p.state(&call_of(&hold)).await, State::Held);
    assert!(p.upstream.seen().iter().all(|s| s.method == "GET"));
}

#[tokio::test]
async fn the_tools_own_dry_run_is_exact_and_sends_no_effect() {
    let dry = "{ read: GET /customers/:customerId, diff: { dry-run: \"PATCH /customers/:customerId?dry=1\" } }";
    let (p, customer) = start(dry).await;
    let hold = update(&p, &json!({"email": "new@x.example"})).await;
    let seen = p.upstream.seen();
    assert_eq!(seen[1].target, "/v2/customers/c_1?dry=1");
    assert_eq!(seen[1].body.as_ref(), br#"{"email":"new@x.example"}"#);
    let change = shown(&p, &hold).await["change"].clone();
    assert_eq!(change["certainty"], "exact");
    assert_eq!(change["patch"][1], json!({"op": "add", "path": "/seen", "value": true}), "only the tool knows this");
    assert_eq!(customer.0.lock().unwrap().1, 7);
}

#[tokio::test]
async fn a_read_operation_stands_in_for_a_request() {
    let call = "{ call: get_customer, with: { customerId: input./customerId }, diff: merge-patch, fence: etag }";
    let (p, _) = start(call).await;
    let hold = update(&p, &json!({"email": "new@x.example", "phone": "+49-new-secret"})).await;
    let shown = shown(&p, &hold).await;
    let change = &shown["change"];
    assert_eq!((&change["certainty"], &change["before"]["target"]), (&json!("exact"), &json!("/customers/c_1")));
    assert_eq!((&change["patch"][0]["path"], &change["before"]["fence"]), (&json!("/email"), &json!("etag:\"7\"")));
    assert!(!shown.to_string().contains("secret"), "{shown}");
    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    p.until_state(&call_of(&hold), State::Succeeded).await;
    let seen = p.upstream.seen();
    let asked: Vec<_> = seen.iter().map(|s| (s.method.as_str(), s.target.as_str())).collect();
    let target = "/v2/customers/c_1";
    assert_eq!(asked, [("GET", target), ("GET", target), ("PATCH", target)]);
    assert_eq!(seen[2].headers["if-match"], "\"7\"");
    assert!(seen.iter().all(|s| s.headers["authorization"] == format!("Bearer {CRM_TOKEN}").as_str()));
}

#[tokio::test]
async fn without_a_diff_the_state_is_shown_and_the_effect_unknown() {
    let (p, _) = start("{ read: GET /customers/:customerId, fence: { version: /address/city } }").await;
    let hold = update(&p, &json!({"email": "new@x.example"})).await;
    let change = shown(&p, &hold).await["change"].clone();
    assert_eq!((&change["certainty"], &change["patch"]), (&json!("unknown"), &Value::Null));
    assert_eq!(change["before"]["fence"], "version:\"Ulm\"");
    assert_eq!(change["before"]["state"]["email"], "old@x.example");
    assert_eq!(change["before"]["state"]["phone"], "[redacted]");
}

#[tokio::test]
async fn a_preview_of_another_thing_is_predicted_and_the_page_shows_it() {
    let (p, _) = start("{ read: \"GET /customers/:customerId/card\", diff: merge-patch }").await;
    let hold = update(&p, &json!({"email": "<b>\u{202e}new"})).await;
    assert_eq!(shown(&p, &hold).await["change"]["certainty"], "predicted");
    let page = crate::harness::page(&p, "maya", &format!("/holds/{hold}")).await;
    assert!(page.contains("What will change") && page.contains("predicted"), "{page}");
    assert!(page.contains("&#60;b&#62;\\u{202e}new"), "{page}");
    assert!(!page.contains("old-secret"));
}

#[tokio::test]
async fn mistakes_in_a_preview_are_found_before_anything_runs() {
    for (preview, says) in [
        ("{ read: POST /customers/:customerId }", "is not `GET` and a path"),
        ("{ read: GET /customers/:nobody }", "is no argument of this operation"),
        ("{ read: GET /customers/:key }", "mean nothing before the call was sent"),
        ("{ read: GET /customers/:phone }", "must not stand in a URL"),
        ("{ read: GET /customers/:customerId, fence: { version: rev } }", "is not a JSON Pointer"),
        (
            "{ read: GET /customers/:customerId, diff: { dry-run: PATCH /customers/:customerId } }",
            "is the operation itself",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = setup(preview).write(dir.path(), ([127, 0, 0, 1], 1).into());
        let mistakes = holdpoint::app::load(&path).unwrap_err().to_string();
        assert!(mistakes.contains(says), "{preview}: {mistakes}");
    }
}
