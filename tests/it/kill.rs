//! The kill switch: an operator stops something, nothing of it is sent, and what was decided meanwhile goes out once.

use std::sync::Arc;

use holdpoint::call::Timestamp;
use holdpoint::clock::ManualClock;
use holdpoint::store::State;
use serde_json::{Value, json};

use bytes::Bytes;

use crate::harness::{Got, Proxy, Reaction, Setup, answer, page, send, sign_in};
use crate::undo::{BEFORE, setup, update};
use crate::verbs::cli;

const NOW: i64 = 1_800_000_000_000;

fn operators() -> String {
    let operate = "Holdpoint::Action::\"call.reconcile\"";
    let more = ["kill", "resume", "undo.run", "audit.read"].map(|a| format!("Holdpoint::Action::\"{a}\"")).join(", ");
    crate::harness::PEOPLE.replace(operate, &format!("{operate}, {more}"))
}

async fn start(setup: Setup) -> (Proxy, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(NOW)));
    let p = setup.people(&operators()).clock(clock.clone()).start().await;
    p.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    (p, clock)
}

async fn switch(p: &Proxy, who: &str, verb: &str, scope: &str) -> Got {
    let said = json!({"scope": scope, "reason": "it refunds everybody"});
    p.reviewer(who, "POST", &format!("/v1/{verb}"), Some(&said)).await
}

/// The call behind a held answer.
fn call_of(held: &Value) -> String {
    held["hold"].as_str().unwrap().replace("hold_", "call_")
}

#[tokio::test]
async fn what_is_stopped_is_refused_and_what_waits_is_sent_once_it_goes_on() {
    let (p, clock) = start(Setup::new()).await;
    let hold = p.refund("o_1", 8800, &[]).await.json();
    let done = switch(&p, "omar", "kill", "agent:support-bot").await;
    assert_eq!(done.status, 200, "{done:?}");
    assert_eq!((&done.json()["changed"], &done.json()["waiting"]), (&json!(true), &json!(1)));

    let reads = p.agent("GET", "/crm/customers/c_1", &[], None).await;
    for got in [p.refund("o_2", 100, &[]).await, p.refund("o_3", 8800, &[]).await, reads] {
        assert_eq!((got.status, got.code().as_str(), got.header("retry-after")), (503, "paused", "30"), "{got:?}");
        let said = got.json();
        assert_eq!((&said["scope"], &said["executed"]), (&json!("agent:support-bot"), &json!("no")), "{said}");
        assert!(!said.to_string().contains("everybody"), "why is for people: {said}");
    }
    let again = p.refund("o_1", 8800, &[]).await;
    assert_eq!((again.status, again.code().as_str()), (409, "held"));
    assert!(again.json()["detail"].as_str().unwrap().contains("stopped calls like it"), "{:?}", again.json());

    // Its 4 hours are over many times; it stands still, and people can decide.
    clock.advance(std::time::Duration::from_secs(20 * 3600));
    let id = hold["hold"].as_str().unwrap();
    let shown = p.reviewer("maya", "GET", &format!("/v1/holds/{id}"), None).await.json();
    assert_eq!(
        (&shown["state"], &shown["times"]["stopped_since"]),
        (&json!("held"), &json!("2027-01-15T08:00:00.000Z"))
    );
    let approved = p.approve("maya", id, None).await;
    assert_eq!((approved.status, &approved.json()["state"]), (200, &json!("approved")));
    let record = p.until_line(|kind, event| kind == "waiting" && event["id"] == call_of(&hold)).await;
    assert_eq!(record["changed"]["note"]["code"], "paused", "{record}");
    assert_eq!(p.upstream.count(), 0);

    let done = switch(&p, "omar", "resume", "agent:support-bot").await;
    assert_eq!((done.status, &done.json()["waiting"]), (200, &json!(1)), "{done:?}");
    clock.advance(std::time::Duration::from_secs(3));
    p.until_state(&call_of(&hold), State::Succeeded).await;
    assert_eq!(p.refund("o_1", 8800, &[]).await.status, 201);
    assert_eq!(p.refund("o_2", 100, &[]).await.status, 201);
    assert_eq!(p.upstream.count(), 2, "each was sent once");
}

#[tokio::test]
async fn an_mcp_client_hears_it_and_others_are_not_stopped() {
    let (p, _) = start(Setup::new()).await;
    assert_eq!(switch(&p, "omar", "kill", "workflow:others").await.status, 200);
    let more = [("accept", "application/json, text/event-stream")];
    let params = json!({"name": "get_ticket", "arguments": {"ticketId": "t_1"}});
    let ask = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params});
    let got = p.agent("POST", "/tickets/mcp", &more, Some(&ask)).await;
    let refusal = got.json().pointer("/result/_meta/dev.holdpoint~1refusal").cloned().unwrap_or_default();
    assert_eq!((got.status, &refusal["code"], &refusal["scope"]), (200, &json!("paused"), &json!("workflow:others")));
    let other = p.refund("o_1", 100, &[("holdpoint-workflow", "refunds")]).await;
    assert_eq!(other.status, 201, "another workflow goes on: {other:?}");
}

#[tokio::test]
async fn it_is_still_on_after_a_restart_and_says_who_and_why() {
    let (p, clock) = start(Setup::new()).await;
    let first = switch(&p, "omar", "kill", "all").await.json();
    clock.advance(std::time::Duration::from_secs(60));
    let p = p.restarted(clock.clone()).await;
    assert_eq!(p.refund("o_1", 100, &[]).await.code(), "paused");
    let second = switch(&p, "omar", "kill", "all").await.json();
    assert_eq!((&second["changed"], &second["since"]), (&json!(false), &first["since"]), "stopped once");
    let list = p.reviewer("maya", "GET", "/v1/kill", None).await.json();
    assert_eq!(
        (&list["items"][0]["by"], &list["items"][0]["reason"]),
        (&json!("omar"), &json!("it refunds everybody"))
    );
    let log = p.reviewer("omar", "GET", "/v1/audit?kind=paused", None).await.json();
    assert_eq!((&log["items"][0]["who"], &log["items"][0]["code"]), (&json!("omar"), &json!("all")), "{log}");
    p.until_metrics(&["holdpoint_pauses{scope=\"all\"} 1"]).await;
}

#[tokio::test]
async fn a_slip_stops_nothing_and_says_what_there_is() {
    let (p, _) = start(Setup::new()).await;
    for (scope, says) in [
        ("agent:suport-bot", "there is no agent `suport-bot`; there are: other-bot, support-bot"),
        ("tool:mail", "there is no tool `mail`; there are: crm, tickets"),
        ("workflow:refund", "there is no workflow `refund`; there are: others, refunds"),
        ("everything", "a scope is `all`, `agent:NAME`, `workflow:NAME` or `tool:NAME`"),
    ] {
        let got = switch(&p, "omar", "kill", scope).await;
        assert_eq!((got.status, got.code().as_str()), (422, "invalid_arguments"), "{scope}");
        assert!(got.json()["detail"].as_str().unwrap().contains(says), "{:?}", got.json());
    }
    let silent = p.reviewer("omar", "POST", "/v1/kill", Some(&json!({"scope": "all", "reason": " "}))).await;
    assert_eq!(silent.status, 422);
    assert_eq!(switch(&p, "maya", "kill", "all").await.code(), "forbidden");
    assert_eq!(switch(&p, "omar", "resume", "all").await.code(), "not_stopped");
    assert_eq!(p.refund("o_1", 100, &[]).await.status, 201);
}

#[tokio::test]
async fn what_a_stopped_agent_did_can_be_taken_back() {
    let p = setup(BEFORE).people(&operators()).start().await;
    p.upstream.script(|_| answer(200, &json!({"id": "c_1", "email": "old@x.example"})));
    let call = update(&p, "new@x.example").await.header("holdpoint-call").to_owned();
    let undo = async || {
        let why = json!({"justification": "it was the wrong customer"});
        p.reviewer("omar", "POST", &format!("/v1/calls/{call}/undo"), Some(&why)).await
    };
    assert_eq!(switch(&p, "omar", "kill", "tool:crm").await.status, 200);
    let stopped = undo().await;
    assert_ne!(stopped.status, 200, "nothing goes to a stopped tool: {stopped:?}");
    assert_eq!(switch(&p, "omar", "kill", "agent:support-bot").await.status, 200);
    assert_eq!(switch(&p, "omar", "resume", "tool:crm").await.status, 200);
    let undone = undo().await;
    assert_eq!((undone.status, &undone.json()["state"]), (200, &json!("succeeded")), "{undone:?}");
    assert_eq!(update(&p, "newer@x.example").await.code(), "paused");
}

#[tokio::test]
async fn the_page_warns_everybody_and_those_who_may_stop_and_resume() {
    let (p, _) = start(Setup::new()).await;
    let post = async |name: &str, body: String| {
        let cookie = sign_in(&p, name).await;
        let shown = send(p.running.admin, "GET", "/stop", &[("cookie", &cookie)], b"").await;
        let text = String::from_utf8_lossy(&shown.body).into_owned();
        let csrf = text.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let form = ("content-type", "application/x-www-form-urlencoded");
        let origin = format!("http://{}", p.running.admin);
        let headers = [("cookie", cookie.as_str()), form, ("origin", origin.as_str())];
        send(p.running.admin, "POST", "/stop", &headers, format!("csrf={csrf}&{body}").as_bytes()).await
    };
    let kill = "verb=kill&kind=agent&name=support-bot&reason=%3Cb%3Eodd%3C%2Fb%3E";
    assert_eq!(post("maya", kill.into()).await.status, 403);
    let slip = post("omar", "verb=kill&kind=agent&name=nobody&reason=x".into()).await;
    assert!(slip.status == 422 && String::from_utf8_lossy(&slip.body).contains("there is no agent"), "{slip:?}");
    assert_eq!(post("omar", kill.into()).await.status, 303);
    let inbox = page(&p, "maya", "/").await;
    assert!(inbox.contains("Stopped: agent support-bot") && inbox.contains("&#60;b&#62;odd"), "{inbox}");
    assert_eq!(p.refund("o_1", 100, &[]).await.code(), "paused");
    assert_eq!(post("omar", "verb=resume&kind=agent&name=support-bot&reason=fine".into()).await.status, 303);
    assert!(!page(&p, "maya", "/").await.contains("Stopped: "));
    assert_eq!(p.refund("o_1", 100, &[]).await.status, 201);
}

#[tokio::test]
async fn from_a_terminal() {
    let (p, _) = start(Setup::new()).await;
    let (code, said) = cli(&p, "omar", &["kill"]).await;
    assert_eq!((code, said.as_str()), (Some(0), "nothing is stopped\n"));
    let (code, said) = cli(&p, "omar", &["kill", "all", "--reason", "fire"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("stopped: all  since 2027-01-15T08:00:00.000Z  by omar: fire\n0 calls wait"), "{said}");
    let (_, said) = cli(&p, "omar", &["kill"]).await;
    assert_eq!(said, "all  since 2027-01-15T08:00:00.000Z  by omar: fire\n");
    let (code, said) = cli(&p, "omar", &["kill", "all"]).await;
    assert!(code == Some(1) && said.contains("--reason"), "{said}");
    let (code, said) = cli(&p, "omar", &["kill", "group:x", "--reason", "x"]).await;
    assert!(code == Some(1) && said.contains("a scope is `all`"), "{said}");
    let (code, said) = cli(&p, "omar", &["resume", "all", "--reason", "out"]).await;
    assert_eq!((code, said.as_str()), (Some(0), "all goes on; 0 calls that waited have their clocks back\n"));
    let (code, said) = cli(&p, "omar", &["resume", "all", "--reason", "out"]).await;
    assert!(code == Some(2) && said.contains("is not stopped"), "{code:?} {said}");
}

/// Whatever an MCP client says beside calls is said by who is stopped, too; only what ends something passes.
#[tokio::test]
async fn a_stopped_client_says_nothing_to_a_server_any_more() {
    let (p, _) = start(Setup::new()).await;
    p.upstream.script(|_| answer(200, &json!({"jsonrpc": "2.0", "id": 1, "result": {}})));
    let accept = ("accept", "application/json, text/event-stream");
    let post = async |body: Value| p.agent("POST", "/tickets/mcp", &[accept], Some(&body)).await;
    assert_eq!(switch(&p, "omar", "kill", "agent:support-bot").await.status, 200);
    let answers = json!({"jsonrpc": "2.0", "id": "srv-1", "result": {"action": "accept", "content": {"amount": 1}}});
    let begin = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}});
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
    for body in [answers, begin, list] {
        let got = post(body.clone()).await;
        assert!(String::from_utf8_lossy(&got.body).contains("stopped by an operator"), "{body}: {got:?}");
    }
    let stream = p.agent("GET", "/tickets/mcp", &[("accept", "text/event-stream")], None).await;
    assert_eq!(stream.status, 503, "{stream:?}");
    assert_eq!(p.upstream.count(), 0);
    post(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}})).await;
    assert_eq!(p.upstream.count(), 1);
}

/// A stopped tool is left alone by the proxy itself.
#[tokio::test]
async fn nothing_is_read_of_a_stopped_tool() {
    let held = "@id(\"look\") @reason(\"Addresses need a look.\") @approvers(\"support-leads\")\n\
                forbid (principal, action == Holdpoint::Action::\"crm.update_customer\", resource) unless { context.approval.granted };";
    let people = operators().replace(
        "Holdpoint::Action::\"hold.reject\"",
        "Holdpoint::Action::\"hold.reject\", Holdpoint::Action::\"hold.edit\"",
    );
    let p = setup(BEFORE).more_policies(held).people(&people).start().await;
    p.upstream.script(|_| answer(200, &json!({"id": "c_1", "email": "old@x.example"})));
    let hold = update(&p, "new@x.example").await.json()["hold"].as_str().unwrap().to_owned();
    assert_eq!(switch(&p, "omar", "kill", "tool:crm").await.status, 200);
    let seen = p.upstream.count();
    let digest = p.reviewer("maya", "GET", &format!("/v1/holds/{hold}"), None).await.json()["digest"].clone();
    let patch = json!([{"op": "replace", "path": "/email", "value": "other@x.example"}]);
    let said = json!({"digest": digest, "patch": patch, "note": "another"});
    let got = p.reviewer("maya", "POST", &format!("/v1/holds/{hold}/edit"), Some(&said)).await;
    assert_eq!(got.status, 200, "{got:?}");
    assert!(got.json()["change"].to_string().contains("stopped by an operator"), "{}", got.json()["change"]);
    assert_eq!(p.upstream.count(), seen);
}

/// A stream has no end of its own: the kill switch ends it.
#[tokio::test]
async fn a_stream_that_is_open_ends_when_its_listener_is_stopped() {
    let (p, _) = start(Setup::new()).await;
    let never = Arc::new(tokio::sync::Notify::new());
    let head = vec![("content-type", "text/event-stream".to_owned())];
    let piece = Bytes::from_static(b"data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\n\n");
    let gate = Arc::clone(&never);
    p.upstream.script(move |_| Reaction::Gated(head.clone(), vec![piece.clone()], true, Arc::clone(&gate)));
    let listens = p.agent("GET", "/tickets/mcp", &[("accept", "text/event-stream")], None);
    let stops = async {
        p.until_seen(1).await;
        switch(&p, "omar", "kill", "tool:tickets").await
    };
    let (heard, stopped) = tokio::join!(listens, stops);
    assert_eq!((heard.status, stopped.status), (200, 200), "{heard:?}");
}
