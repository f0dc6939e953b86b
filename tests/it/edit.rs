//! Edit, then approve: a reviewer changes the arguments of a held call; policy decides anew, and the agent is told.

use holdpoint::store::State;
use serde_json::{Value, json};

use crate::harness::{Got, Proxy, Setup, answer};

const WAIT: (&str, &str) = ("prefer", "wait=20");

fn setup() -> Setup {
    let people = crate::harness::PEOPLE.replace(
        "Holdpoint::Action::\"hold.approve\",",
        "Holdpoint::Action::\"hold.approve\", Holdpoint::Action::\"hold.edit\",",
    );
    Setup::new().people(&people)
}

async fn start(setup: Setup) -> Proxy {
    let p = setup.start().await;
    p.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    p
}

async fn held(p: &Proxy, minor: i64) -> String {
    let got = p.refund("o_1", minor, &[]).await;
    assert_eq!(got.code(), "held", "{:?}", got.json());
    got.json()["hold"].as_str().unwrap().to_owned()
}

fn call_of(hold: &str) -> String {
    hold.replace("hold_", "call_")
}

async fn edit(p: &Proxy, who: &str, hold: &str, patch: Value) -> Got {
    let digest = p.record(&call_of(hold)).await.digest;
    let body = json!({"digest": digest, "patch": patch, "note": "The second charge was half of it."});
    p.reviewer(who, "POST", &format!("/v1/holds/{hold}/edit"), Some(&body)).await
}

fn amount(minor: i64) -> Value {
    json!([{"op": "replace", "path": "/amountMinor", "value": minor}])
}

#[tokio::test]
async fn what_was_edited_is_sent_once_and_the_agent_is_told() {
    let p = start(setup()).await;
    let hold = held(&p, 8800).await;
    let before = p.record(&call_of(&hold)).await;
    let got = edit(&p, "maya", &hold, amount(6000)).await;
    assert_eq!((got.status, &got.json()["state"], &got.json()["version"]), (200, &json!("held"), &json!(2)));
    assert_eq!(got.json()["call"]["input"]["amountMinor"], 6000);
    assert_eq!(got.json()["edited"]["asked_for"]["input"]["amountMinor"], 8800);
    assert_eq!(got.json()["edited"]["edits"][0]["by"], "maya");
    let waits = p.refund("o_1", 8800, &[]).await;
    assert_eq!((waits.code().as_str(), &waits.json()["held_outcome"]), ("held", &json!("edited")));
    let note = waits.json()["note_to_agent"].as_str().unwrap().to_owned();
    assert!(note.contains("/amountMinor 8800 → 6000") && note.contains("not executed yet"), "{note}");

    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    let told = p.refund("o_1", 8800, &[WAIT]).await;
    assert_eq!((told.status, told.json()), (201, json!({"refund": "rf_1"})));
    assert_eq!(told.header("holdpoint-held-outcome"), "edited");
    let words = told.header("holdpoint-note");
    assert!(words.contains("8800 to 6000") && words.contains("Do not send the original."), "{words}");
    assert!(words.ends_with("The second charge was half of it."), "{words}");
    let seen = p.upstream.seen();
    let sent: Value = serde_json::from_slice(&seen[0].body).unwrap();
    assert_eq!((seen.len(), sent), (1, json!({"customerId": "c_1", "amountMinor": 6000, "currency": "EUR"})));
    let record = p.record(&call_of(&hold)).await;
    assert_eq!((record.fingerprint, record.money), (before.fingerprint, Some((6000, "EUR".into()))));
    assert_ne!(record.digest, before.digest);
    let state = p.agent("GET", &format!("/-/calls/{}", call_of(&hold)), &[], None).await.json();
    assert_eq!((&state["executed"], &state["held_outcome"]), (&json!("yes"), &json!("edited")));
}

#[tokio::test]
async fn an_edit_is_decided_anew_and_its_approvals_are_void() {
    let p = start(setup()).await;
    let hold = held(&p, 60_000).await;
    assert_eq!(p.approve("maya", &hold, Some("seen")).await.status, 200);
    let old = p.record(&call_of(&hold)).await.digest;
    // Down to medium: one vote is enough then, and the one before does not count.
    let got = edit(&p, "li", &hold, amount(6000)).await;
    assert_eq!((got.status, &got.json()["tier"], &got.json()["approvals"]), (200, &json!("medium"), &json!([])));
    // Up again: two people.
    let got = edit(&p, "maya", &hold, amount(70_000)).await;
    assert_eq!((got.status, &got.json()["tier"], &got.json()["needs"]["people"]), (200, &json!("high"), &json!(2)));
    let stale = json!({"digest": old, "justification": "x"});
    let got = p.reviewer("li", "POST", &format!("/v1/holds/{hold}/approve"), Some(&stale)).await;
    assert_eq!((got.status, got.code().as_str()), (409, "digest_changed"));
    // Below what policy holds: it stays with the people that it was held for.
    let got = edit(&p, "maya", &hold, amount(100)).await;
    assert_eq!((got.status, &got.json()["state"], &got.json()["tier"]), (200, &json!("held"), &json!("high")));
    assert_eq!(p.upstream.bytes(), 0);
}

#[tokio::test]
async fn an_editor_never_has_the_last_of_two_words() {
    let p = start(setup()).await;
    let hold = held(&p, 70_000).await;
    assert_eq!(edit(&p, "li", &hold, amount(60_000)).await.status, 200);
    assert_eq!(p.approve("maya", &hold, Some("seen")).await.status, 200);
    let got = p.approve("li", &hold, Some("mine")).await;
    assert_eq!((got.status, got.code().as_str()), (403, "self_review"));
    assert_eq!(p.state(&call_of(&hold)).await, State::Held);
}

#[tokio::test]
async fn what_cannot_be_edited_stays_as_it_was() {
    let p = start(setup().more_policies(
        r#"
@id("no-dollars") @reason("Refunds are in euros.") forbid (principal, action == Holdpoint::Action::"crm.refund", resource)
when { context.input.currency == "USD" };
"#,
    ))
    .await;
    let hold = held(&p, 8800).await;
    let before = p.record(&call_of(&hold)).await;
    for (who, patch, status, code) in [
        ("maya", json!([{"op": "replace", "path": "/amountMinor", "value": "much"}]), 422, "invalid_arguments"),
        ("maya", json!([{"op": "add", "path": "/operation", "value": "crm.delete"}]), 422, "invalid_arguments"),
        ("maya", json!([{"op": "replace", "path": "/orderId", "value": ""}]), 422, "invalid_arguments"),
        ("maya", json!([{"op": "replace", "path": "/orderId", "value": ".."}]), 422, "invalid_arguments"),
        ("maya", json!([{"op": "test", "path": "/amountMinor", "value": 1}]), 422, "invalid_arguments"),
        ("maya", json!([]), 422, "invalid_arguments"),
        ("maya", json!({"amountMinor": 1}), 422, "invalid_arguments"),
        ("maya", json!([{"op": "replace", "path": "/currency", "value": "USD"}]), 422, "policy_forbids_now"),
        ("ana", amount(6000), 403, "self_review"),
        ("sam", amount(6000), 404, "not_found"),
    ] {
        let got = edit(&p, who, &hold, patch.clone()).await;
        assert_eq!((got.status, got.code().as_str()), (status, code), "{who} {patch} {:?}", got.json());
    }
    let other = json!({"digest": format!("sha256:{}", "0".repeat(64)), "patch": amount(6000), "note": "x"});
    let got = p.reviewer("maya", "POST", &format!("/v1/holds/{hold}/edit"), Some(&other)).await;
    assert_eq!((got.status, got.code().as_str()), (409, "digest_changed"));
    assert_eq!(p.record(&call_of(&hold)).await, before);
    for round in 0..4 {
        assert_eq!(edit(&p, "maya", &hold, amount(6000 + round)).await.status, 200);
    }
    assert_eq!(p.state(&call_of(&hold)).await, State::Stale, "edited too often");
    let got = edit(&p, "maya", &hold, amount(7000)).await;
    assert_eq!((got.status, got.code().as_str()), (409, "stale"));
    assert_eq!(p.upstream.bytes(), 0);
}

#[tokio::test]
async fn path_and_redacted_arguments_change_and_no_secret_is_told() {
    let held_updates = r#"
@id("update-review") @reason("Changes need one review.") @approvers("support-leads")
forbid (principal, action == Holdpoint::Action::"crm.update_customer", resource) unless { context.approval.granted };
"#;
    let p = start(setup().more_policies(held_updates)).await;
    let body = json!({"email": "a@x.example", "phone": "+49-first-secret"});
    let got = p.agent("PATCH", "/crm/customers/c_1", &[], Some(&body)).await;
    let hold = got.json()["hold"].as_str().unwrap().to_owned();
    let patch = json!([
        {"op": "replace", "path": "/phone", "value": "+49-other-secret"},
        {"op": "replace", "path": "/customerId", "value": "c 2/3"},
    ]);
    let got = edit(&p, "maya", &hold, patch).await;
    assert_eq!(got.status, 200, "{:?}", got.json());
    assert!(!got.json().to_string().contains("secret"), "{:?}", got.json());
    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    p.until_state(&call_of(&hold), State::Succeeded).await;
    let seen = p.upstream.seen();
    let sent: Value = serde_json::from_slice(&seen[0].body).unwrap();
    assert_eq!(seen[0].target, "/v2/customers/c%202%2F3");
    assert_eq!(sent, json!({"email": "a@x.example", "phone": "+49-other-secret"}));
    assert!(!p.lines().iter().any(|l| l.event.get().contains("secret")), "a secret stands open in the journal");
}

#[tokio::test]
async fn an_mcp_call_is_edited_in_place_and_its_agent_reads_it() {
    let p = start(setup()).await;
    p.upstream.script(|seen| {
        let message: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
        let result = json!({"content": [{"type": "text", "text": "done"}], "resultType": "complete"});
        answer(200, &json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
    });
    let call = |id: u64| {
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {
            "name": "delete_ticket", "arguments": {"ticketId": "t_1", "hard": true},
            "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": {"name": "it", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {}}}})
    };
    let headers = [
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "delete_ticket"),
    ];
    let got = p.agent("POST", "/tickets/mcp", &headers, Some(&call(1))).await;
    let hold = got.json()["result"]["_meta"]["dev.holdpoint/hold"]["holdId"].as_str().expect("held").to_owned();
    let patch = json!([{"op": "replace", "path": "/ticketId", "value": "t_2"}]);
    let got = edit(&p, "maya", &hold, patch).await;
    assert_eq!(got.status, 200, "{:?}", got.json());
    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    p.until_state(&call_of(&hold), State::Succeeded).await;
    let sent: Value = serde_json::from_slice(&p.upstream.seen().last().unwrap().body).unwrap();
    assert_eq!(sent["params"]["arguments"], json!({"ticketId": "t_2", "hard": true}));
    assert_eq!(sent["params"]["name"], "delete_ticket");
    let told = p.agent("POST", "/tickets/mcp", &headers, Some(&call(2))).await.json();
    let words = told["result"]["content"][0]["text"].as_str().unwrap();
    assert!(words.contains("/ticketId \"t_1\" → \"t_2\"") && words.contains("Do not send the original"), "{told}");
    assert_eq!(told["result"]["content"][1]["text"], "done");
    assert_eq!(told["result"]["_meta"]["dev.holdpoint/edited"]["held_outcome"], "edited");
}

#[tokio::test]
async fn the_form_on_the_page_edits_without_a_script() {
    let p = start(setup()).await;
    let hold = held(&p, 8800).await;
    let cookie = crate::harness::sign_in(&p, "maya").await;
    let path = format!("/holds/{hold}");
    let page = crate::harness::send(p.running.admin, "GET", &path, &[("cookie", &cookie)], b"").await;
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    let field = |name: &str| {
        let rest = page.split_once(&format!("name=\"{name}\" value=\"")).unwrap().1;
        rest.split_once('"').unwrap().0.to_owned()
    };
    assert!(page.contains("Change its arguments"), "{page}");
    let written = json!({"orderId": "o_1", "customerId": "c_1", "amountMinor": 6100, "currency": "EUR"}).to_string();
    let encoded = |text: &str| holdpoint::call::encode_part(text);
    let form = format!(
        "csrf={}&digest={}&arguments={}&note=half",
        encoded(&field("csrf")),
        encoded(&field("digest")),
        encoded(&written)
    );
    let origin = format!("http://{}", p.running.admin);
    let headers = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("origin", origin.as_str()),
        ("cookie", cookie.as_str()),
    ];
    let got = crate::harness::send(p.running.admin, "POST", &format!("{path}/edit"), &headers, form.as_bytes()).await;
    assert_eq!(got.status, 303, "{:?}", String::from_utf8_lossy(&got.body));
    let record = p.record(&call_of(&hold)).await;
    assert_eq!((record.renewals, &record.arguments["amountMinor"]), (1, &json!(6100)));
    let page = crate::harness::page(&p, "maya", &path).await;
    assert!(page.contains("Changed by a reviewer") && page.contains("8800") && page.contains("6100"), "{page}");
}

#[tokio::test]
async fn an_edit_after_the_preview_was_taken_out_of_the_configuration_can_be_sent() {
    let held_updates = r#"
@id("update-review") @reason("Changes need one review.") @approvers("support-leads")
forbid (principal, action == Holdpoint::Action::"crm.update_customer", resource) unless { context.approval.granted };
"#;
    let preview = "schema: update.json, preview: { read: GET /customers/:customerId, diff: merge-patch } }";
    let setup = setup().more_policies(held_updates).config("schema: update.json, redact: [/phone] }", preview);
    let p = start(setup).await;
    let got = p.agent("PATCH", "/crm/customers/c_1", &[], Some(&json!({"email": "a@x.example"}))).await;
    let hold = got.json()["hold"].as_str().unwrap().to_owned();
    p.rewrite("holdpoint.yaml", |text| text.replace(preview, "schema: update.json }"));
    p.running.reload().await.unwrap();
    let patch = json!([{"op": "replace", "path": "/email", "value": "b@x.example"}]);
    let got = edit(&p, "maya", &hold, patch).await;
    assert_eq!((got.status, &got.json()["change"]["certainty"]), (200, &json!("unknown")), "{:?}", got.json());
    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    p.until_state(&call_of(&hold), State::Succeeded).await;
}
