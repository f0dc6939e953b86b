//! Taking a call back: by an inverse call through every gate, or before it was sent.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdpoint::call::Timestamp;
use holdpoint::clock::ManualClock;
use holdpoint::store::State;
use serde_json::{Value, json};

use crate::harness::{Got, Proxy, Setup, answer};

const UPDATE: &str = "schema: update.json, redact: [/phone] }";
pub const BEFORE: &str = "schema: update.json, preview: { read: GET /customers/:customerId, diff: merge-patch }, \
                      undo: { match: PATCH /customers/:customerId, body: before, within: 1h } }";

fn people() -> String {
    crate::harness::PEOPLE
        .replace(
            "Holdpoint::Action::\"hold.approve\",",
            "Holdpoint::Action::\"hold.approve\", Holdpoint::Action::\"hold.withdraw\",",
        )
        .replace(
            "Holdpoint::Action::\"call.reconcile\"]",
            "Holdpoint::Action::\"call.reconcile\", Holdpoint::Action::\"undo.run\"]",
        )
}

pub fn setup(update: &str) -> Setup {
    Setup::new().config(UPDATE, update).people(&people())
}

/// A proxy before one customer, whom PATCH changes.
pub async fn start(setup: Setup) -> (Proxy, Arc<Mutex<Value>>) {
    let p = setup.start().await;
    let customer = Arc::new(Mutex::new(json!({"id": "c_1", "email": "old@x.example"})));
    let kept = Arc::clone(&customer);
    p.upstream.script(move |seen| {
        let mut kept = kept.lock().unwrap();
        if let (Some(all), Ok(Value::Object(patch))) = (kept.as_object_mut(), serde_json::from_slice(&seen.body)) {
            for (name, value) in patch {
                if value.is_null() {
                    all.remove(&name)
                } else {
                    all.insert(name, value)
                };
            }
        }
        answer(200, &kept)
    });
    (p, customer)
}

pub async fn update(p: &Proxy, email: &str) -> Got {
    p.agent("PATCH", "/crm/customers/c_1", &[], Some(&json!({"email": email}))).await
}

async fn undo(p: &Proxy, who: &str, call: &str) -> Got {
    let why = json!({"justification": "it was the wrong customer", "reason_code": "wrong_target"});
    p.reviewer(who, "POST", &format!("/v1/calls/{call}/undo"), Some(&why)).await
}

#[tokio::test]
async fn an_executed_call_is_put_back_by_a_call_of_its_own_and_only_once() {
    let (p, customer) = start(setup(BEFORE)).await;
    let done = update(&p, "new@x.example").await;
    assert_eq!((done.status, done.decision()), (200, "allowed"));
    let call = done.header("holdpoint-call").to_owned();
    let shown = p.reviewer("omar", "GET", &format!("/v1/calls/{call}"), None).await.json();
    let diff = json!([{"op": "replace", "path": "/email", "from": "new@x.example", "value": "old@x.example"}]);
    assert_eq!((&shown["undo"]["diff"], &shown["undo"]["operation"]), (&diff, &json!("crm.update_customer")));
    assert!(shown["me"]["can"].as_array().unwrap().contains(&json!("undo")), "{shown}");

    let got = undo(&p, "omar", &call).await;
    assert_eq!((got.status, &got.json()["state"]), (200, &json!("succeeded")), "{:?}", got.json());
    let made = got.json()["call"].as_str().unwrap().to_owned();
    assert_ne!(made, call);
    assert_eq!(*customer.lock().unwrap(), json!({"id": "c_1", "email": "old@x.example"}));
    let record = p.record(&made).await;
    let undoes = record.undoes.unwrap();
    assert_eq!((undoes.call.to_string(), undoes.person.as_str()), (call.clone(), "omar"));
    assert_eq!(undoes.reason, "it was the wrong customer");
    let seen = p.upstream.count();
    assert_eq!(undo(&p, "omar", &call).await.json()["call"], made, "twice is once");
    assert_eq!(p.upstream.seen()[seen..].iter().filter(|s| s.method == "PATCH").count(), 0);
    let shown = p.reviewer("omar", "GET", &format!("/v1/calls/{call}"), None).await.json();
    assert_eq!(shown["undo"]["by"], json!({"call": made, "state": "succeeded"}));
    let page = crate::harness::page(&p, "omar", &format!("/calls/{call}")).await;
    assert!(page.contains("Impact and undo") && page.contains(&made), "{page}");
    // What takes back can be taken back.
    assert_eq!(undo(&p, "omar", &made).await.json()["state"], "succeeded");
    assert_eq!(customer.lock().unwrap()["email"], "new@x.example");
    let metrics = crate::harness::send(p.running.admin, "GET", "/metrics", &[], b"").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    let line = r#"holdpoint_undo_total{op="crm.update_customer",reason="wrong_target",result="executed"} 3"#;
    assert!(metrics.contains(line), "{}", metrics.lines().filter(|l| l.contains("undo")).collect::<String>());
}

#[tokio::test]
async fn an_undo_passes_every_gate_and_who_wants_it_does_not_approve_it() {
    let held = r#"
@id("undo-review") @reason("Old addresses need a look.") @approvers("platform|support-leads")
forbid (principal, action == Holdpoint::Action::"crm.update_customer", resource)
when { context.input has email && context.input.email == "old@x.example" } unless { context.approval.granted };
"#;
    let people = people().replace(
        "principal in Holdpoint::Team::\"finance\"",
        "principal in Holdpoint::Team::\"finance\" || principal in Holdpoint::Team::\"platform\"",
    );
    let (p, customer) = start(setup(BEFORE).more_policies(held).people(&people)).await;
    let call = update(&p, "new@x.example").await.header("holdpoint-call").to_owned();
    let got = undo(&p, "omar", &call).await;
    assert_eq!((got.status, &got.json()["state"]), (200, &json!("held")), "{:?}", got.json());
    let hold = got.json()["hold"].as_str().unwrap().to_owned();
    let own = p.approve("omar", &hold, None).await;
    assert_eq!((own.status, own.code().as_str()), (403, "self_review"));
    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    p.until_state(&hold.replace("hold_", "call_"), State::Succeeded).await;
    assert_eq!(customer.lock().unwrap()["email"], "old@x.example");
}

#[tokio::test]
async fn an_undo_is_counted_by_the_rates_like_any_call() {
    let limit = "rates:\n  - { per: agent+operation, operations: [crm.update_customer], limit: 1/h, burst: 1 }\n";
    let (p, customer) = start(setup(BEFORE).config("rates:\n", limit)).await;
    let call = update(&p, "new@x.example").await.header("holdpoint-call").to_owned();
    let got = undo(&p, "omar", &call).await;
    assert_eq!((got.status, got.code().as_str()), (429, "rate_limited"), "{:?}", got.json());
    assert_eq!(customer.lock().unwrap()["email"], "new@x.example");
}

#[tokio::test]
async fn what_cannot_be_undone_says_why() {
    let time = Arc::new(ManualClock::at(Timestamp::from_millis(1_800_000_000_000)));
    let (p, _) = start(setup(BEFORE).clock(time.clone())).await;
    let refund = p.refund("o_1", 100, &[]).await.header("holdpoint-call").to_owned();
    let call = update(&p, "new@x.example").await.header("holdpoint-call").to_owned();
    for (who, call, status, code) in [
        ("omar", refund.as_str(), 409, "not_undoable"),
        ("maya", call.as_str(), 404, "not_found"),
        ("omar", "call_01KAQ8Z3T9AAAAAAAAAAAAAAAA", 404, "not_found"),
    ] {
        let got = undo(&p, who, call).await;
        assert_eq!((got.status, got.code().as_str()), (status, code), "{who} {call}");
    }
    let silent = json!({"justification": "  "});
    let got = p.reviewer("omar", "POST", &format!("/v1/calls/{call}/undo"), Some(&silent)).await;
    assert_eq!((got.status, got.code().as_str()), (422, "justification_required"));
    time.advance(Duration::from_secs(3600));
    let got = undo(&p, "omar", &call).await;
    assert_eq!((got.status, got.code().as_str()), (409, "undo_too_late"));
}

#[tokio::test]
async fn an_undo_takes_its_arguments_from_the_answer_of_an_mcp_tool() {
    let undoes = "add_comment: { effect: write, undo: { call: delete_ticket, with: { ticketId: result./ticket } } }";
    let p = Setup::new().config("add_comment: { effect: write }", undoes).people(&people()).start().await;
    p.upstream.script(|seen| {
        let message: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
        let text = json!({"ticket": "t_9"}).to_string();
        let result = json!({"content": [{"type": "text", "text": text}], "resultType": "complete"});
        answer(200, &json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
    });
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "add_comment", "arguments": {"ticketId": "t_1", "text": "hello"},
        "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "it", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}}}});
    let headers = [
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "add_comment"),
    ];
    let done = p.agent("POST", "/tickets/mcp", &headers, Some(&body)).await;
    assert_eq!(done.decision(), "allowed", "{:?}", done.json());
    let got = undo(&p, "omar", done.header("holdpoint-call")).await;
    assert_eq!((got.status, &got.json()["state"]), (200, &json!("succeeded")), "{:?}", got.json());
    let seen = p.upstream.seen();
    let sent: Value = serde_json::from_slice(&seen[1].body).unwrap();
    assert_eq!(sent["params"]["name"], "delete_ticket");
    assert_eq!(sent["params"]["arguments"], json!({"ticketId": "t_9"}));
    assert_eq!(seen[1].headers["mcp-name"], "delete_ticket");
    let able = &sent["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"];
    assert_eq!(able, &json!({}), "nobody is there to answer its server");
}

#[tokio::test]
async fn a_delayed_call_waits_and_can_be_taken_back_until_it_is_sent() {
    let time = Arc::new(ManualClock::at(Timestamp::from_millis(1_800_000_000_000)));
    let (p, customer) = start(setup("schema: update.json, delay: 10m }").clock(time.clone())).await;
    let first = update(&p, "first@x.example").await;
    assert_eq!((first.status, first.code().as_str(), &first.json()["state"]), (409, "held", &json!("approved")));
    assert_eq!(first.header("holdpoint-tier"), "low");
    let call = first.header("holdpoint-call").to_owned();
    assert_eq!(p.agent("DELETE", &format!("/-/calls/{call}"), &[], None).await.json()["state"], "withdrawn");
    time.advance(Duration::from_secs(601));
    let second = update(&p, "second@x.example").await;
    let call = second.header("holdpoint-call").to_owned();
    let record = p.record(&call).await;
    let wait = record.not_before.unwrap().since(record.created);
    assert_eq!((record.state, wait), (State::Approved, Duration::from_secs(600)));
    // A person of the tool's owner takes another one back.
    let third = update(&p, "third@x.example").await.json()["hold"].as_str().unwrap().to_owned();
    let path = format!("/v1/holds/{third}/withdraw");
    assert_eq!(p.reviewer("maya", "POST", &path, Some(&json!({"reason": "a typing mistake"}))).await.status, 200);
    assert_eq!(p.upstream.bytes(), 0);
    time.advance(Duration::from_secs(599));
    assert_eq!(update(&p, "second@x.example").await.code(), "held", "one second too early");
    assert_eq!(p.upstream.bytes(), 0);
    time.advance(Duration::from_secs(1));
    p.until_state(&call, State::Succeeded).await;
    assert_eq!((customer.lock().unwrap()["email"].as_str(), p.upstream.count()), (Some("second@x.example"), 1));
}

#[tokio::test]
async fn a_held_call_of_a_delayed_operation_waits_after_its_last_vote() {
    let time = Arc::new(ManualClock::at(Timestamp::from_millis(1_800_000_000_000)));
    let held = r#"
@id("update-review") @reason("Changes need one review.") @approvers("support-leads")
forbid (principal, action == Holdpoint::Action::"crm.update_customer", resource) unless { context.approval.granted };
"#;
    let (p, _) = start(setup("schema: update.json, delay: 10m }").more_policies(held).clock(time.clone())).await;
    let hold = update(&p, "new@x.example").await.json()["hold"].as_str().unwrap().to_owned();
    time.advance(Duration::from_secs(700));
    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    let record = p.record(&hold.replace("hold_", "call_")).await;
    assert_eq!(record.not_before.unwrap(), record.approvals[0].at.plus(Duration::from_secs(600)));
    assert_eq!(p.upstream.bytes(), 0);
    time.advance(Duration::from_secs(600));
    p.until_state(&hold.replace("hold_", "call_"), State::Succeeded).await;
}

#[tokio::test]
async fn mistakes_in_undo_and_delay_are_found_before_anything_runs() {
    for (rule, says) in [
        ("undo: { match: PUT /customers/:customerId, body: before }", "is the `match` of no operation"),
        ("undo: { match: PATCH /customers/:customerId, body: before }", "needs the state before"),
        ("undo: { call: nothing }", "is no operation of this tool"),
        ("undo: { call: refund, with: { orderId: answer./id } }", "is not `result`, `input` or `before`"),
        ("undo: { call: refund, with: { orderId: id } }", "and a JSON Pointer"),
        ("delay: 10m, release: collect", "needs `release: approval`"),
        ("delay: 0s", "must be longer than nothing"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = setup(&format!("schema: update.json, {rule} }}")).write(dir.path(), ([127, 0, 0, 1], 1).into());
        let mistakes = holdpoint::app::load(&path).unwrap_err().to_string();
        assert!(mistakes.contains(says), "{rule}: {mistakes}");
    }
    let never = setup("schema: update.json, undo: none }");
    let dir = tempfile::tempdir().unwrap();
    assert!(holdpoint::app::load(&never.write(dir.path(), ([127, 0, 0, 1], 1).into())).is_ok());
}

#[tokio::test]
async fn an_mcp_agent_hears_that_a_delayed_call_is_approved_and_waits() {
    let p = Setup::new()
        .config("add_comment: { effect: write }", "add_comment: { effect: write, delay: 5m }")
        .start()
        .await;
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "add_comment", "arguments": {"ticketId": "t_1", "text": "hello"},
        "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "it", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {}}}});
    let headers = [
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "add_comment"),
    ];
    let told = p.agent("POST", "/tickets/mcp", &headers, Some(&body)).await.json();
    let text = told["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("APPROVED, NOT EXECUTED YET") && text.contains("It is sent at"), "{told}");
    assert!(told["result"]["_meta"]["dev.holdpoint/hold"]["notBefore"].is_string(), "{told}");
    let hold = told["result"]["_meta"]["dev.holdpoint/hold"]["holdId"].as_str().unwrap();
    let page = crate::harness::page(&p, "maya", &format!("/holds/{hold}")).await;
    assert!(page.contains("Policy allows it by itself") && page.contains("sent at"), "{page}");
    assert_eq!(p.upstream.bytes(), 0);
}
