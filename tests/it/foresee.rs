//! What the proxy asks by itself with a read operation: the state of an MCP tool's target, read when a call is held and
//! again before it is sent.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use holdpoint::store::State;
use http::StatusCode;
use serde_json::{Value, json};

use crate::harness::{CRM_TOKEN, Got, Proxy, Reaction, SUPPORT_KEY, Seen, Setup, send};

const MODERN: &str = "2026-07-28";
const URL: &str = r#"upstream: { url: "http://UPSTREAM/mcp" }"#;
const BEARER: &str = r#"upstream: { url: "http://UPSTREAM/mcp", auth: { bearer: { file: secrets/crm } } }"#;
const COMMAND: &str = "upstream: { command: [python3, server.py], env: { MODE: { value: plain } } }";
const DELETE: &str = "delete_ticket: { effect: irreversible }";
const READ: &str = "{ call: get_ticket, with: { ticketId: input./ticketId } }";

fn setup(preview: &str) -> Setup {
    let with = format!("delete_ticket: {{ effect: irreversible, preview: {preview} }}");
    Setup::new().config(DELETE, &with)
}

/// A ticket as its server keeps it.
#[derive(Clone)]
struct Ticket(Arc<Mutex<Value>>);

impl Ticket {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(json!({"id": "t_1", "status": "open", "requester": {"email": "secret@x.example"}}))))
    }

    fn set(&self, pointer: &str, value: &Value) {
        *self.0.lock().unwrap().pointer_mut(pointer).unwrap() = value.clone();
    }
}

/// What is said in the modern era says so in its headers, too.
fn is_routed(asked: &Value, seen: &Seen) -> bool {
    let header = |name: &str| seen.headers.get(name).and_then(|v| v.to_str().ok());
    let version = asked["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"].as_str();
    version.is_none()
        || (header("mcp-name") == asked["params"]["name"].as_str()
            && header("mcp-method") == Some("tools/call")
            && header("mcp-protocol-version") == version)
}

fn result(asked: &Value, seen: &Seen, ticket: &Value, modern: bool) -> Result<Value, (StatusCode, Value)> {
    let method = asked["method"].as_str().unwrap_or_default();
    let bad = |text: &str| Err((StatusCode::BAD_REQUEST, json!({"code": -32600, "message": text})));
    match (method, modern) {
        ("server/discover", false) => Err((StatusCode::OK, json!({"code": -32601, "message": "Method not found"}))),
        ("server/discover", true) => Ok(json!({"supportedVersions": [MODERN]})),
        ("initialize", _) => Ok(json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}})),
        ("tools/call", false) if seen.headers.get("mcp-session-id").is_none_or(|id| id != "s-own") => bad("no session"),
        ("tools/call", true) if !is_routed(asked, seen) => bad("headers"),
        ("tools/call", _) if asked["params"]["name"] != "get_ticket" => Ok(json!({"content": []})),
        ("tools/call", true) => Ok(json!({"structuredContent": ticket, "content": [], "resultType": "complete"})),
        ("tools/call", false) => Ok(json!({"content": [{"type": "text", "text": ticket.to_string()}]})),
        _ => bad("unknown"),
    }
}

/// A server that keeps one ticket, in one era.
fn server(ticket: &Ticket, modern: bool) -> impl Fn(&Seen) -> Reaction + Send + Sync + 'static {
    let ticket = ticket.clone();
    move |seen| {
        let asked: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
        if asked["id"].is_null() {
            return Reaction::Answer(StatusCode::ACCEPTED, Vec::new(), Bytes::new());
        }
        let kept = ticket.0.lock().unwrap().clone();
        let (status, member, said) = match result(&asked, seen, &kept, modern) {
            Ok(result) => (StatusCode::OK, "result", result),
            Err((status, error)) => (status, "error", error),
        };
        let body = json!({"jsonrpc": "2.0", "id": asked["id"], member: said}).to_string();
        let mut headers = vec![("content-type", "application/json".to_owned())];
        if asked["method"] == "initialize" {
            headers.push(("mcp-session-id", "s-own".to_owned()));
        }
        Reaction::Answer(status, headers, Bytes::from(body))
    }
}

async fn tool(p: &Proxy, name: &str, arguments: &Value) -> Got {
    let bearer = format!("Bearer {SUPPORT_KEY}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-session-id", "s-own"),
    ];
    let params = json!({"name": name, "arguments": arguments});
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    send(p.agents(), "POST", "/tickets/mcp", &headers, message.to_string().as_bytes()).await
}

async fn delete(p: &Proxy) -> (String, String) {
    delete_one(p, "t_1").await
}

/// A held deletion: its hold and its call.
async fn delete_one(p: &Proxy, id: &str) -> (String, String) {
    let got = tool(p, "delete_ticket", &json!({"ticketId": id, "hard": true})).await;
    let hold = got.json()["result"]["_meta"]["dev.holdpoint/hold"]["holdId"].as_str().map(str::to_owned);
    (hold.unwrap_or_else(|| panic!("{:?}", got.body)), got.header("holdpoint-call").to_owned())
}

async fn shown(p: &Proxy, hold: &str) -> Value {
    p.reviewer("maya", "GET", &format!("/v1/holds/{hold}"), None).await.json()
}

async fn until_version(p: &Proxy, call: &str, wanted: u64) {
    let mut changes = p.running.store().watch(call.parse().unwrap()).unwrap().unwrap();
    let moved = changes.wait_for(|(_, version)| *version >= wanted);
    tokio::time::timeout(crate::harness::PATIENCE, moved).await.expect("it never moved").unwrap();
}

/// The names of the tools that were called upstream.
fn called(p: &Proxy) -> Vec<String> {
    let asked = |s: &Seen| serde_json::from_slice::<Value>(&s.body).unwrap_or_default();
    let calls = p.upstream.seen().iter().map(asked).filter(|m| m["method"] == "tools/call").collect::<Vec<_>>();
    calls.iter().map(|m| m["params"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_target_of_an_mcp_call_is_shown_as_it_is_now_in_both_eras() {
    for modern in [true, false] {
        let p = setup(READ).config(URL, BEARER).start().await;
        p.upstream.script(server(&Ticket::new(), modern));
        let (hold, call) = delete(&p).await;
        let change = shown(&p, &hold).await["change"].clone();
        assert_eq!(change["before"]["state"]["status"], "open", "{change}");
        assert_eq!(change["before"]["target"], r#"get_ticket {"ticketId":"t_1"}"#);
        assert_eq!((&change["certainty"], &change["patch"]), (&json!("unknown"), &Value::Null));
        let page = crate::harness::page(&p, "maya", &format!("/holds/{hold}")).await;
        assert!(page.contains("get_ticket {&#34;ticketId&#34;:&#34;t_1&#34;}") && page.contains("/status"), "{page}");
        let credential = format!("Bearer {CRM_TOKEN}");
        assert!(p.upstream.seen().iter().all(|s| s.headers["authorization"] == credential.as_str()));
        assert_eq!(called(&p), ["get_ticket"]);
        assert_eq!(p.approve("maya", &hold, None).await.status, 200);
        p.until_state(&call, State::Succeeded).await;
        assert_eq!(called(&p), ["get_ticket", "get_ticket", "delete_ticket"], "it is read again just before");
    }
}

#[tokio::test]
async fn a_moved_target_of_an_mcp_call_goes_back_to_people() {
    let p = setup(READ).start().await;
    let ticket = Ticket::new();
    p.upstream.script(server(&ticket, true));
    let (hold, call) = delete(&p).await;
    for round in 1..=3u32 {
        let before = p.record(&call).await;
        ticket.set("/status", &json!(format!("reopened {round}")));
        assert_eq!(p.approve("maya", &hold, None).await.status, 200);
        until_version(&p, &call, before.version + 2).await;
        let record = p.record(&call).await;
        assert_eq!((record.state, record.renewals, record.approvals.len()), (State::Held, round, 0));
        let now = shown(&p, &hold).await;
        assert_eq!((&now["note"]["code"], &now["change"]["moved"][0]["path"]), (&json!("moved"), &json!("/status")));
    }
    ticket.set("/status", &json!("closed"));
    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    p.until_state(&call, State::Stale).await;
    assert!(called(&p).iter().all(|name| name == "get_ticket"), "it was sent");
}

#[tokio::test]
async fn a_version_field_is_the_fence_of_an_mcp_call() {
    let fenced = "{ call: get_ticket, with: { ticketId: input./ticketId }, fence: { version: /status } }";
    let p = setup(fenced).start().await;
    let ticket = Ticket::new();
    p.upstream.script(server(&ticket, true));
    let (hold, call) = delete(&p).await;
    assert_eq!(shown(&p, &hold).await["change"]["before"]["fence"], "version:\"open\"");
    ticket.set("/requester/email", &json!("other@x.example"));
    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    p.until_state(&call, State::Succeeded).await;
}

#[tokio::test]
async fn a_server_that_is_a_command_is_read_too() {
    if !std::process::Command::new("python3").arg("--version").output().is_ok_and(|o| o.status.success()) {
        eprintln!("without python3 this test is skipped");
        return;
    }
    let server = include_str!("stdio_server.py");
    let ticket = |status: &str| json!({"id": "t_1", "status": status}).to_string();
    let p =
        setup(READ).config(URL, COMMAND).file("server.py", server).file("ticket.json", &ticket("open")).start().await;
    let (hold, call) = delete(&p).await;
    assert_eq!(shown(&p, &hold).await["change"]["before"]["state"]["status"], "open");
    let before = p.record(&call).await;
    p.rewrite("ticket.json", |_| ticket("reopened"));
    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    until_version(&p, &call, before.version + 2).await;
    assert_eq!(shown(&p, &hold).await["change"]["moved"][0]["value"], "reopened");
    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    p.until_state(&call, State::Succeeded).await;
}

#[tokio::test]
async fn what_a_server_does_not_answer_costs_the_hold_nothing_and_is_said() {
    let p = setup(READ).start().await;
    let tool_error = json!({"content": [{"type": "text", "text": "no such ticket"}], "isError": true});
    for (said, why) in [
        (json!({"result": tool_error}), "the tool says that it failed"),
        (json!({"error": {"code": -32000, "message": "busy"}}), "busy"),
        (json!({"result": {"resultType": "task", "content": []}}), "did not answer at once"),
        (json!({"result": {"structuredContent": "x".repeat(2 << 20)}}), "over the operation's limit"),
    ] {
        p.upstream.script(move |seen| {
            let asked: Value = serde_json::from_slice(&seen.body).unwrap();
            let mut body = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {}});
            if asked["method"] == "tools/call" {
                body = said.clone();
                body["jsonrpc"] = "2.0".into();
                body["id"] = asked["id"].clone();
            }
            let json = vec![("content-type", "application/json".to_owned())];
            Reaction::Answer(StatusCode::OK, json, Bytes::from(body.to_string()))
        });
        let (hold, _) = delete_one(&p, why).await;
        let change = shown(&p, &hold).await["change"].clone();
        assert_eq!((&change["certainty"], &change["before"]), (&json!("unknown"), &Value::Null));
        assert!(change["why"].as_str().unwrap().contains(why), "{why}: {change}");
    }
}

#[tokio::test]
async fn mistakes_in_a_read_of_the_proxys_own_are_found_before_anything_runs() {
    for (preview, says) in [
        ("{ read: GET /tickets/:ticketId }", "an MCP tool is read with `call`"),
        ("{ call: delete_ticket, with: { ticketId: input./ticketId } }", "has not the effect `read`"),
        ("{ call: nothing }", "`tickets.nothing` is no operation"),
        ("{ call: get_ticket }", "needs `ticketId`"),
        ("{ call: get_ticket, with: { ticketId: result./id } }", "is not `input.` and a JSON Pointer"),
        ("{ call: get_ticket, with: { ticketId: input./nobody } }", "`nobody` is no argument of this operation"),
        ("{ call: get_ticket, with: { ticketId: input./ticketId, no: input./hard } }", "`no` is no argument of"),
        ("{ call: get_ticket, with: { ticketId: input./ticketId }, diff: merge-patch }", "are no patch"),
        ("{ call: get_ticket, with: { ticketId: input./ticketId }, fence: etag }", "has no `ETag`"),
        ("{ fence: hash }", "exactly one of `read` and `call`"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = setup(preview).write(dir.path(), ([127, 0, 0, 1], 1).into());
        let mistakes = holdpoint::app::load(&path).unwrap_err().to_string();
        assert!(mistakes.contains(says), "{preview}: {mistakes}");
    }
    let own = r#"upstream: { url: "http://UPSTREAM/mcp", auth: pass_through }"#;
    let dir = tempfile::tempdir().unwrap();
    let path = setup(READ).config(URL, own).write(dir.path(), ([127, 0, 0, 1], 1).into());
    let mistakes = holdpoint::app::load(&path).unwrap_err().to_string();
    assert!(mistakes.contains("no credential of its own"), "{mistakes}");
}

const REFUND: &str = "        cost: { amount: /amountMinor, currency: /currency }\n";
const WANTS_TICKET: &str = r#"
@id("refund-ticket") @reason("Refunds need their ticket.") @approvers("support-leads") @evidence("ticket")
forbid (principal, action == Holdpoint::Action::"crm.refund", resource) unless { context.approval.granted };
"#;

/// Refunds whose order is fetched by the proxy as evidence of this kind.
fn with_evidence(rule: &str) -> Setup {
    let with = format!("{REFUND}        evidence: {rule}\n");
    let ticket_tool = "get_customer: { match: GET /customers/:customerId, effect: read }\n      \
                       get_order: { match: GET /orders/:orderId, effect: read }";
    let get_customer = "get_customer: { match: GET /customers/:customerId, effect: read }";
    let more =
        "Holdpoint::Action::\"hold.approve\", Holdpoint::Action::\"hold.edit\", Holdpoint::Action::\"artifact.view\",";
    let people = crate::harness::PEOPLE.replace("Holdpoint::Action::\"hold.approve\",", more);
    Setup::new().config(REFUND, &with).config(get_customer, ticket_tool).more_policies(WANTS_TICKET).people(&people)
}

const ORDER: &str = "{ ticket: { call: crm.get_order, with: { orderId: input./orderId }, check: { /state: paid }, \
                     redact: [/card] } }";

/// A CRM whose orders are in this state.
fn orders(state: &'static str) -> impl Fn(&Seen) -> Reaction + Send + Sync + 'static {
    move |seen| {
        let order = json!({"target": seen.target, "state": state, "card": "4111-secret"});
        crate::harness::answer(200, &if seen.method == "GET" { order } else { json!({"id": "rf_1"}) })
    }
}

async fn refund(p: &Proxy, order: &str, more: &[(&str, &str)]) -> (String, String) {
    let got = p.refund(order, 8_800, more).await;
    assert_eq!(got.code(), "held", "{:?}", got.json());
    (got.json()["hold"].as_str().unwrap().to_owned(), got.header("holdpoint-call").to_owned())
}

#[tokio::test]
async fn evidence_is_fetched_by_the_proxy_and_lifts_the_demand() {
    let p = with_evidence(ORDER).start().await;
    p.upstream.script(orders("paid"));
    let (hold, call) = refund(&p, "o_881", &[]).await;
    let seen = p.upstream.seen();
    assert_eq!((seen.len(), seen[0].target.as_str()), (1, "/v2/orders/o_881"));
    assert_eq!(seen[0].headers["authorization"], format!("Bearer {CRM_TOKEN}"));
    assert!(!format!("{:?}", seen[0].headers).contains(SUPPORT_KEY), "the agent's credential went upstream");
    let evidence = shown(&p, &hold).await["evidence"].clone();
    assert_eq!((&evidence["missing"], &evidence["unfetched"]), (&json!([]), &json!([])));
    let item = &evidence["items"][0];
    assert_eq!((&item["kind"], &item["by"], &item["verified"]), (&json!("ticket"), &json!("proxy"), &json!(true)));
    assert_eq!(item["title"], "crm.get_order: /orders/o_881");
    let content: Value = serde_json::from_str(item["content"].as_str().unwrap()).unwrap();
    assert_eq!(content, json!({"target": "/v2/orders/o_881", "state": "paid", "card": "[redacted]"}));
    let page = crate::harness::page(&p, "maya", &format!("/holds/{hold}")).await;
    assert!(page.contains("fetched by the proxy") && !page.contains("4111-secret"), "{page}");
    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    p.until_state(&call, State::Succeeded).await;
}

#[tokio::test]
async fn evidence_of_another_tool_is_fetched_over_mcp() {
    let rule = "{ ticket: { call: tickets.get_ticket, with: { ticketId: input./orderId }, check: { /status: open } } }";
    let p = with_evidence(rule).config(URL, BEARER).start().await;
    p.upstream.script(server(&Ticket::new(), true));
    let (hold, _) = refund(&p, "t_1", &[]).await;
    let item = shown(&p, &hold).await["evidence"]["items"][0].clone();
    assert_eq!(
        (&item["title"], &item["verified"]),
        (&json!(r#"tickets.get_ticket: get_ticket {"ticketId":"t_1"}"#), &json!(true))
    );
}

#[tokio::test]
async fn a_failed_check_attaches_nothing_and_is_said() {
    let p = with_evidence(ORDER).start().await;
    p.upstream.script(orders("stolen"));
    let (hold, _) = refund(&p, "o_881", &[]).await;
    let json = shown(&p, &hold).await;
    let unfetched =
        json!([{"kind": "ticket", "call": "crm.get_order", "why": "its check failed: `/state` is not \"paid\""}]);
    assert_eq!((&json["evidence"]["unfetched"], &json["evidence"]["items"]), (&unfetched, &json!([])));
    assert!(!json.to_string().contains("stolen"), "what stands there instead was told");
    assert!(json["uncertainty"].to_string().contains("evidence_unfetched"));
    let page = crate::harness::page(&p, "maya", &format!("/holds/{hold}")).await;
    assert!(page.contains("was not fetched") && page.contains("its check failed"), "{page}");
    let got = p.approve("maya", &hold, None).await;
    assert_eq!((got.status, got.code().as_str()), (422, "evidence_missing"));
}

#[tokio::test]
async fn what_cannot_be_fetched_is_missing_and_the_hold_stands() {
    let p = with_evidence(ORDER).start().await;
    for (order, why) in [("down", "answered 503"), ("torn", "the read's answer"), ("long", "limit")] {
        p.upstream.script(move |_| match order {
            "down" => crate::harness::answer(503, &json!({})),
            "torn" => Reaction::Answer(StatusCode::OK, Vec::new(), Bytes::from_static(b"{")),
            _ => crate::harness::answer(200, &json!("x".repeat(2 << 20))),
        });
        let (hold, _) = refund(&p, order, &[]).await;
        let evidence = shown(&p, &hold).await["evidence"].clone();
        assert_eq!(evidence["missing"], json!(["ticket"]));
        assert!(evidence["unfetched"][0]["why"].as_str().unwrap().contains(why), "{why}: {evidence}");
    }
}

#[tokio::test]
async fn only_what_the_proxy_fetched_for_this_very_call_is_verified() {
    let p = with_evidence(ORDER).start().await;
    p.upstream.script(orders("paid"));
    let (first, _) = refund(&p, "o_1", &[]).await;
    let fetched = shown(&p, &first).await["evidence"]["items"][0]["id"].as_str().unwrap().to_owned();
    // Another call cannot carry it off.
    let got = p.refund("o_2", 8_800, &[("holdpoint-evidence", &fetched)]).await;
    assert_eq!((got.status, got.code().as_str()), (422, "invalid_arguments"), "{:?}", got.json());
    let brought = json!({"kind": "ticket", "title": "T", "text": "trust me"});
    let own = p.agent("POST", "/-/evidence", &[], Some(&brought)).await.json()["artifact"].as_str().unwrap().to_owned();
    let (hold, _) = refund(&p, "o_2", &[("holdpoint-evidence", &own)]).await;
    let items = shown(&p, &hold).await["evidence"]["items"].clone();
    let verified: Vec<_> = items.as_array().unwrap().iter().map(|i| (i["by"].clone(), i["verified"].clone())).collect();
    assert_eq!(verified, [(json!("agent support-bot"), json!(false)), (json!("proxy"), json!(true))]);
}

#[tokio::test]
async fn an_edited_call_has_evidence_of_its_own() {
    let by_amount = "{ ticket: { call: crm.get_order, with: { orderId: input./amountMinor } } }";
    let p = with_evidence(by_amount).start().await;
    p.upstream.script(orders("paid"));
    let (hold, _) = refund(&p, "o_881", &[]).await;
    let before = shown(&p, &hold).await;
    assert_eq!(before["evidence"]["items"][0]["title"], "crm.get_order: /orders/8800");
    let patch = json!([{"op": "replace", "path": "/amountMinor", "value": 7_700}]);
    let edit = json!({"digest": before["digest"], "patch": patch, "note": "less"});
    let got = p.reviewer("maya", "POST", &format!("/v1/holds/{hold}/edit"), Some(&edit)).await;
    assert_eq!(got.status, 200, "{:?}", got.json());
    let items = shown(&p, &hold).await["evidence"]["items"].clone();
    let titles: Vec<_> = items.as_array().unwrap().iter().map(|i| i["title"].clone()).collect();
    assert_eq!(titles, ["crm.get_order: /orders/7700"]);
    p.upstream.script(|_| crate::harness::answer(500, &json!({})));
    let now = shown(&p, &hold).await;
    let patch = json!([{"op": "replace", "path": "/amountMinor", "value": 6_600}]);
    let edit = json!({"digest": now["digest"], "patch": patch, "note": "less"});
    assert_eq!(p.reviewer("maya", "POST", &format!("/v1/holds/{hold}/edit"), Some(&edit)).await.status, 200);
    let evidence = shown(&p, &hold).await["evidence"].clone();
    assert_eq!(
        (&evidence["items"], &evidence["missing"]),
        (&json!([]), &json!(["ticket"])),
        "that of another call stayed"
    );
}

#[tokio::test]
async fn mistakes_in_evidence_are_found_before_anything_runs() {
    for (rule, says) in [
        ("{ ticket: { call: crm.refund } }", "has not the effect `read`"),
        ("{ ticket: { call: get_order, with: { orderId: input./orderId } } }", "did you mean `crm.get_order`?"),
        ("{ ticket: { call: crm.get_order } }", "needs `orderId`"),
        ("{ \"a b\": { call: crm.get_order, with: { orderId: input./orderId } } }", "a kind is a word"),
        (
            "{ ticket: { call: crm.get_order, with: { orderId: input./orderId }, check: { state: paid } } }",
            "`state` is not a JSON Pointer",
        ),
        (
            "{ ticket: { call: crm.get_order, with: { orderId: input./orderId }, redact: [card] } }",
            "`card` is not a JSON Pointer",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = with_evidence(rule).write(dir.path(), ([127, 0, 0, 1], 1).into());
        let mistakes = holdpoint::app::load(&path).unwrap_err().to_string();
        assert!(mistakes.contains(says), "{rule}: {mistakes}");
    }
}
