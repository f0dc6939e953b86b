//! An MCP server that is a child process, behind the proxy: both eras, several agents, its death, its end.
//! The server is a script for Python; where there is none these tests say so and pass.

use std::path::{Path, PathBuf};

use holdpoint::store::State;
use serde_json::{Value, json};

use crate::binary::{Binary, Site};
use crate::harness::{Got, OTHER_KEY, Proxy, SUPPORT_KEY, Setup, send, until};

const VERSION: &str = "2026-07-28";
const SERVER: &str = include_str!("stdio_server.py");
const URL: &str = r#"upstream: { url: "http://UPSTREAM/mcp" }"#;
const COMMAND: &str = r"upstream: { command: [python3, server.py], env: { MODE: { value: plain } } }";

fn setup(upstream: &str) -> Option<Setup> {
    if !std::process::Command::new("python3").arg("--version").output().is_ok_and(|o| o.status.success()) {
        eprintln!("without python3 this test is skipped");
        return None;
    }
    let others = "@id(\"others\") permit (principal in Holdpoint::AgentGroup::\"others\", \
                  action in Holdpoint::Action::\"effect:read\", resource);\n";
    Some(Setup::new().config(URL, upstream).file("server.py", SERVER).more_policies(others))
}

async fn post(to: std::net::SocketAddr, key: &str, more: &[(&str, &str)], body: &Value) -> Got {
    let bearer = format!("Bearer {key}");
    let mut headers = vec![
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
    ];
    headers.extend_from_slice(more);
    send(to, "POST", "/tickets/mcp", &headers, body.to_string().as_bytes()).await
}

fn message(id: &Value, method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

async fn legacy(p: &Proxy, method: &str, params: Value) -> Got {
    post(p.agents(), SUPPORT_KEY, &[], &message(&json!(1), method, &params)).await
}

async fn modern(p: &Proxy, method: &str, mut params: Value) -> Got {
    let name = params["name"].as_str().unwrap_or_default().to_owned();
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = VERSION.into();
    let mut headers = vec![("mcp-protocol-version", VERSION), ("mcp-method", method)];
    if !name.is_empty() {
        headers.push(("mcp-name", &name));
    }
    post(p.agents(), SUPPORT_KEY, &headers, &message(&json!("m-1"), method, &params)).await
}

fn get_ticket(id: &str) -> Value {
    json!({"name": "get_ticket", "arguments": {"ticketId": id}})
}

fn text(got: &Got) -> String {
    got.json()["result"]["content"][0]["text"].as_str().unwrap_or_default().to_owned()
}

/// What the server has read.
fn seen(dir: &Path) -> Vec<Value> {
    let lines = std::fs::read_to_string(dir.join("seen.jsonl")).unwrap_or_default();
    lines.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
}

fn calls(dir: &Path) -> Vec<Value> {
    seen(dir).into_iter().filter(|m| m["method"] == "tools/call").collect()
}

fn pids(dir: &Path) -> Vec<u32> {
    let lines = std::fs::read_to_string(dir.join("pids")).unwrap_or_default();
    lines.lines().filter_map(|l| l.parse().ok()).collect()
}

/// Neither running nor a zombie.
fn is_gone(pid: u32) -> bool {
    !PathBuf::from(format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn clients_of_both_eras_list_and_call() {
    let Some(setup) = setup(COMMAND) else { return };
    let p = setup.start().await;
    let hello = legacy(&p, "initialize", json!({"protocolVersion": "2025-11-25", "capabilities": {}})).await;
    assert_eq!((hello.status, &hello.json()["result"]["protocolVersion"]), (200, &json!("2025-06-18")));
    assert_eq!(hello.json()["result"]["capabilities"], json!({"tools": {}}), "what cannot be delivered is not offered");
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(post(p.agents(), SUPPORT_KEY, &[], &ready).await.status, 202);
    let found = modern(&p, "server/discover", json!({})).await;
    assert_eq!(found.json()["result"]["supportedVersions"], json!([VERSION]));
    assert_eq!(found.json()["result"]["resultType"], "complete");
    for got in [legacy(&p, "tools/list", json!({})).await, modern(&p, "tools/list", json!({})).await] {
        assert_eq!(got.json()["result"]["tools"].as_array().map(Vec::len), Some(4), "{:?}", got.body);
    }
    let listed = modern(&p, "tools/list", json!({})).await.json();
    assert_eq!(
        (&listed["result"]["cacheScope"], &listed["result"]["ttlMs"], &listed["id"]),
        (&json!("private"), &json!(60_000), &json!("m-1"))
    );
    let old = legacy(&p, "tools/call", get_ticket("t_1")).await;
    assert_eq!((old.json()["id"].clone(), old.decision()), (json!(1), "allowed"));
    assert_eq!(text(&old), r#"get_ticket {"ticketId": "t_1"}"#);
    assert!(old.json()["result"]["resultType"].is_null());
    let new = modern(&p, "tools/call", get_ticket("t_2")).await;
    assert_eq!(
        (text(&new).as_str(), &new.json()["result"]["resultType"]),
        (r#"get_ticket {"ticketId": "t_2"}"#, &json!("complete"))
    );
    let seen = seen(p.dir.path());
    assert_eq!(seen.iter().filter(|m| m["method"] == "initialize").count(), 1, "a second handshake");
    assert!(seen.iter().all(|m| !m.to_string().contains("io.modelcontextprotocol")), "{seen:?}");
    let ids: std::collections::BTreeSet<_> = seen.iter().filter_map(|m| m["id"].as_u64()).collect();
    assert_eq!(ids.len(), seen.iter().filter(|m| m["id"].is_number()).count(), "an id was used twice");
}

#[tokio::test]
async fn what_an_old_server_has_not_is_said_in_each_eras_words() {
    let Some(setup) = setup(COMMAND) else { return };
    let p = setup.start().await;
    let old = legacy(&p, "prompts/list", json!({})).await;
    assert_eq!((old.status, &old.json()["error"]["code"]), (200, &json!(-32601)), "{:?}", old.body);
    for method in ["prompts/list", "ping"] {
        let new = modern(&p, method, json!({})).await;
        assert_eq!((new.status, &new.json()["error"]["code"]), (404, &json!(-32601)), "{:?}", new.body);
    }
    let bearer = format!("Bearer {SUPPORT_KEY}");
    let head = [("authorization", bearer.as_str()), ("accept", "text/event-stream")];
    assert_eq!(send(p.agents(), "GET", "/tickets/mcp", &head, b"").await.status, 405);
    assert_eq!(send(p.agents(), "DELETE", "/tickets/mcp", &head, b"").await.status, 204);
}

#[tokio::test]
async fn two_agents_with_equal_ids_get_each_their_own() {
    let Some(setup) = setup(COMMAND) else { return };
    let p = setup.start().await;
    let (one, other) = (
        message(&json!(7), "tools/call", &get_ticket("pair-a")),
        message(&json!(7), "tools/call", &get_ticket("pair-b")),
    );
    let (a, b) = tokio::join!(post(p.agents(), SUPPORT_KEY, &[], &one), post(p.agents(), OTHER_KEY, &[], &other));
    assert_eq!((text(&a).as_str(), text(&b).as_str()), ("pair-a", "pair-b"));
    assert_eq!((&a.json()["id"], &b.json()["id"]), (&json!(7), &json!(7)));
}

#[tokio::test]
async fn progress_reaches_the_client_that_asked_for_it() {
    let Some(setup) = setup(COMMAND) else { return };
    let p = setup.start().await;
    let mut params = get_ticket("t_1");
    params["_meta"] = json!({"progressToken": "p 1"});
    for got in [legacy(&p, "tools/call", params.clone()).await, modern(&p, "tools/call", params).await] {
        assert_eq!(got.header("content-type"), "text/event-stream");
        let body = String::from_utf8(got.body.to_vec()).unwrap();
        let data = body.split("\n\n").filter_map(|e| e.strip_prefix("event: message\ndata: "));
        let events: Vec<Value> = data.map(|d| serde_json::from_str(d).unwrap()).collect();
        let steps: Vec<_> = events.iter().map(|e| e["params"]["progress"].clone()).collect();
        assert_eq!(steps, [json!(1), json!(2), json!(null)], "{body}");
        assert!(events[..2].iter().all(|e| e["params"]["progressToken"] == "p 1"), "{body}");
        assert!(events[2]["result"]["content"].is_array() && events[2]["id"] != json!(null), "{body}");
    }
}

#[tokio::test]
async fn what_is_no_answer_is_skipped_and_questions_are_answered_here() {
    let Some(setup) = setup(COMMAND) else { return };
    let p = setup.start().await;
    let got = legacy(&p, "tools/call", get_ticket("noise")).await;
    assert_eq!(text(&got), r#"get_ticket {"ticketId": "noise"}"#);
    let answers = until(|| {
        let all: Vec<Value> = seen(p.dir.path()).into_iter().filter(|m| m["method"].is_null()).collect();
        (all.len() == 2).then_some(all)
    })
    .await;
    assert_eq!(answers[0], json!({"jsonrpc": "2.0", "id": "s1", "result": {}}));
    assert_eq!((&answers[1]["id"], &answers[1]["error"]["code"]), (&json!("s2"), &json!(-32601)));
    let huge = legacy(&p, "tools/call", get_ticket("huge")).await;
    assert_eq!(huge.json()["result"]["isError"], true, "an answer over the limit passed");
    assert_eq!(text(&legacy(&p, "tools/call", get_ticket("t")).await), r#"get_ticket {"ticketId": "t"}"#);
}

#[tokio::test]
async fn a_child_that_dies_under_a_call_leaves_it_unknown_and_is_started_again() {
    let Some(setup) = setup(COMMAND) else { return };
    let p = setup.start().await;
    let comment = json!({"name": "add_comment", "arguments": {"ticketId": "die", "text": "x"}});
    let got = legacy(&p, "tools/call", comment).await;
    let refusal = &got.json()["result"]["_meta"]["dev.holdpoint/refusal"];
    assert_eq!(
        (&refusal["code"], &refusal["executed"]),
        (&json!("outcome_unknown"), &json!("unknown")),
        "{:?}",
        got.body
    );
    assert_eq!(p.state(got.header("holdpoint-call")).await, State::Unknown);
    // While it is down nothing is sent; then it is there again.
    let down = legacy(&p, "tools/call", get_ticket("t_0")).await;
    let refusal = &down.json()["result"]["_meta"]["dev.holdpoint/refusal"];
    assert_eq!(
        (&refusal["code"], &refusal["executed"]),
        (&json!("upstream_unreachable"), &json!("no")),
        "{:?}",
        down.body
    );
    until(|| (pids(p.dir.path()).len() == 2).then_some(())).await;
    assert_eq!(text(&legacy(&p, "tools/call", get_ticket("t_1")).await), r#"get_ticket {"ticketId": "t_1"}"#);
    assert_eq!(calls(p.dir.path()).len(), 2, "a call was sent twice");
}

#[tokio::test]
async fn a_read_whose_client_hangs_up_is_cancelled_at_the_server() {
    let Some(setup) = setup(COMMAND) else { return };
    let p = setup.start().await;
    let asked = message(&json!(1), "tools/call", &get_ticket("wait"));
    {
        let call = post(p.agents(), SUPPORT_KEY, &[], &asked);
        tokio::pin!(call);
        let arrived = until(|| (!calls(p.dir.path()).is_empty()).then_some(()));
        tokio::select! {
            got = &mut call => panic!("an answer: {got:?}"),
            () = arrived => {}
        }
    }
    let cancelled = until(|| seen(p.dir.path()).into_iter().find(|m| m["method"] == "notifications/cancelled")).await;
    assert_eq!(cancelled["params"]["requestId"], calls(p.dir.path())[0]["id"]);
}

#[tokio::test]
async fn a_client_cancels_its_own_read_and_no_other() {
    let Some(setup) = setup(COMMAND) else { return };
    let p = setup.start().await;
    let hello = legacy(&p, "initialize", json!({"protocolVersion": "2025-06-18", "capabilities": {}})).await;
    let other = legacy(&p, "initialize", json!({"protocolVersion": "2025-06-18", "capabilities": {}})).await;
    let (mine, theirs) = (hello.header("mcp-session-id"), other.header("mcp-session-id"));
    assert!(!mine.is_empty() && mine != theirs);
    let to = p.agents();
    let asked = message(&json!(7), "tools/call", &get_ticket("wait"));
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}});
    let own = [("mcp-session-id", mine)];
    let (got, ()) = tokio::join!(post(to, SUPPORT_KEY, &own, &asked), async {
        until(|| (!calls(p.dir.path()).is_empty()).then_some(())).await;
        // Neither another session nor another agent in this one.
        assert_eq!(post(to, SUPPORT_KEY, &[("mcp-session-id", theirs)], &cancel).await.status, 202);
        assert_eq!(post(to, OTHER_KEY, &[("mcp-session-id", mine)], &cancel).await.status, 404);
        assert_eq!(text(&legacy(&p, "tools/call", get_ticket("t")).await), r#"get_ticket {"ticketId": "t"}"#);
        assert!(seen(p.dir.path()).iter().all(|m| m["method"] != "notifications/cancelled"));
        assert_eq!(post(to, SUPPORT_KEY, &[("mcp-session-id", mine)], &cancel).await.status, 202);
    });
    assert_eq!(got.json()["result"]["isError"], true, "{:?}", got.body);
    let cancelled = until(|| seen(p.dir.path()).into_iter().find(|m| m["method"] == "notifications/cancelled")).await;
    assert_eq!(cancelled["params"]["requestId"], calls(p.dir.path())[0]["id"]);
}

#[tokio::test]
async fn a_call_with_effects_is_carried_to_its_deadline_and_is_unknown_then() {
    let Some(setup) = setup(&COMMAND.replace("[python3, server.py]", "[python3, server.py], timeout: 2s")) else {
        return;
    };
    let p = setup.start().await;
    let comment = json!({"name": "add_comment", "arguments": {"ticketId": "wait", "text": "x"}});
    let got = legacy(&p, "tools/call", comment).await;
    let refusal = &got.json()["result"]["_meta"]["dev.holdpoint/refusal"];
    assert_eq!(refusal["code"], "outcome_unknown", "{:?}", got.body);
    assert!(seen(p.dir.path()).iter().all(|m| m["method"] != "notifications/cancelled"));
}

#[tokio::test]
async fn what_waits_behind_a_server_that_does_not_read_was_not_sent() {
    let deaf = COMMAND.replace("plain } }", "deaf } }, timeout: 3s");
    let Some(setup) = setup(&deaf) else { return };
    let p = setup.start().await;
    let mut comment = json!({"name": "add_comment", "arguments": {"ticketId": "t", "text": "x"}});
    // A pipe takes 64 KiB: one call fits, one is cut, one waits.
    comment["_meta"] = json!({"pad": "x".repeat(50_000)});
    let asked = message(&json!(1), "tools/call", &comment);
    let one = || post(p.agents(), SUPPORT_KEY, &[], &asked);
    let (a, b, c) = tokio::join!(one(), one(), one());
    let refused = |got: &Got| got.json()["result"]["_meta"]["dev.holdpoint/refusal"].clone();
    let mut codes: Vec<String> = [&a, &b, &c].iter().map(|g| refused(g)["code"].to_string()).collect();
    codes.sort();
    assert_eq!(codes, ["\"outcome_unknown\"", "\"outcome_unknown\"", "\"upstream_unreachable\""], "{:?}", a.body);
}

#[tokio::test]
async fn a_held_call_is_sent_once_when_it_is_approved() {
    let Some(setup) = setup(COMMAND) else { return };
    let p = setup.start().await;
    let hard = json!({"name": "delete_ticket", "arguments": {"ticketId": "t_1", "hard": true}});
    let held = legacy(&p, "tools/call", hard.clone()).await;
    assert_eq!(held.decision(), "held");
    let hold = held.json()["result"]["_meta"]["dev.holdpoint/hold"]["holdId"].as_str().unwrap().to_owned();
    assert!(calls(p.dir.path()).is_empty(), "a held call was sent");
    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    p.until_state(held.header("holdpoint-call"), State::Succeeded).await;
    let again = modern(&p, "tools/call", hard).await;
    assert_eq!(text(&again), r#"delete_ticket {"hard": true, "ticketId": "t_1"}"#, "{:?}", again.body);
    assert_eq!(calls(p.dir.path()).len(), 1);
}

#[tokio::test]
async fn a_reload_keeps_the_child_while_its_command_is_the_same() {
    let Some(setup) = setup(COMMAND) else { return };
    let p = setup.start().await;
    assert_eq!(text(&legacy(&p, "tools/call", get_ticket("a")).await), r#"get_ticket {"ticketId": "a"}"#);
    p.rewrite("holdpoint.yaml", |t| t.replace("10000/s", "9999/s"));
    p.running.reload().await.unwrap();
    assert_eq!(text(&legacy(&p, "tools/call", get_ticket("b")).await), r#"get_ticket {"ticketId": "b"}"#);
    assert_eq!(pids(p.dir.path()).len(), 1, "it was started anew");
    p.rewrite("holdpoint.yaml", |t| t.replace("value: plain", "value: other"));
    p.running.reload().await.unwrap();
    assert_eq!(text(&legacy(&p, "tools/call", get_ticket("c")).await), r#"get_ticket {"ticketId": "c"}"#);
    let both = pids(p.dir.path());
    assert_eq!(both.len(), 2);
    until(|| is_gone(both[0]).then_some(())).await;
    p.running.stop().await;
    assert!(is_gone(both[1]), "a child outlived the proxy");
}

async fn stopped(site: &Site, binary: Binary) -> (Vec<u32>, String) {
    let log = std::sync::Arc::clone(&binary.log);
    assert_eq!(binary.stop().await, Some(0));
    let log = log.lock().unwrap().join("\n");
    (pids(site.dir.path()), log)
}

#[tokio::test]
async fn the_binary_logs_what_the_server_says_and_leaves_nothing_behind() {
    for mode in ["plain", "stubborn"] {
        let Some(setup) = setup(&COMMAND.replace("plain", mode)) else { return };
        let site = Site::new(setup).await;
        let binary = site.start().await;
        let got = post(binary.agents, SUPPORT_KEY, &[], &message(&json!(1), "tools/call", &get_ticket("t"))).await;
        assert_eq!(got.status, 200);
        let (pids, log) = stopped(&site, binary).await;
        assert_eq!(pids.len(), 1);
        assert!(pids.iter().all(|pid| is_gone(*pid)), "a child outlived the proxy");
        let said: Vec<Value> = log.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
        let says = |part: &str| {
            said.iter().any(|l| l["tool.name"] == "tickets" && l["said"].as_str().is_some_and(|s| s.contains(part)))
        };
        assert!(says(&format!("started with MODE={mode} and")) && says("RUST_LOG=None"), "{log}");
        assert!(says("a line\\u{1b}[31m with \\u{202e} tricks"), "{log}");
        assert!(says("its input was closed"), "{log}");
    }
}

#[tokio::test]
async fn a_command_that_cannot_be_started_refuses_and_the_log_says_why() {
    let Some(setup) = setup(&COMMAND.replace("python3, server.py", "no-such-program-here")) else { return };
    let site = Site::new(setup).await;
    let binary = site.start().await;
    let body =
        message(&json!(1), "tools/call", &json!({"name": "add_comment", "arguments": {"ticketId": "t", "text": "x"}}));
    let got = post(binary.agents, SUPPORT_KEY, &[], &body).await;
    let refusal = &got.json()["result"]["_meta"]["dev.holdpoint/refusal"];
    assert_eq!(
        (&refusal["code"], &refusal["executed"]),
        (&json!("upstream_unreachable"), &json!("no")),
        "{:?}",
        got.body
    );
    let (_, log) = stopped(&site, binary).await;
    assert!(log.contains("`no-such-program-here` cannot be started"), "{log}");
}

#[tokio::test]
async fn lock_starts_the_command_for_that_moment() {
    let Some(setup) = setup(COMMAND) else { return };
    let site = Site::new(setup).await;
    let config = site.dir.path().join("holdpoint.yaml");
    let (code, said) = Site::run(&["lock", "tickets", "--config", config.to_str().unwrap()]);
    assert_eq!((code, said.trim()), (Some(0), "tickets  4 tools, 0 differences"));
    let pids = pids(site.dir.path());
    assert!(pids.len() == 1 && is_gone(pids[0]));
}

#[test]
fn mistakes_about_commands_are_told() {
    let dir = tempfile::tempdir().unwrap();
    for (upstream, at, why) in [
        ("{ }", "upstream", "exactly one of `url` and `command`"),
        (r#"{ url: "http://x", command: [a] }"#, "upstream", "exactly one of `url` and `command`"),
        ("{ command: [] }", "upstream/command", "must name a program"),
        ("{ command: [./nowhere] }", "upstream/command", "is not a file"),
        ("{ command: [a], cwd: nowhere }", "upstream/cwd", "is not a folder"),
        ("{ command: [a], auth: pass_through }", "upstream/auth", "does not go with `command`"),
        ("{ command: [a], forward_headers: [x-a] }", "upstream/forward_headers", "does not go with `command`"),
        (r#"{ url: "http://x", cwd: . }"#, "upstream/cwd", "does not go with `url`"),
        ("{ command: [a], env: { A: { value: x, env: B } } }", "upstream/env/A", "exactly one of"),
        ("{ command: [a], env: { A=B: { value: x } } }", "upstream/env/A=B", "no name of an environment variable"),
        ("{ command: [a], env: { A: { env: HOLDPOINT_NOT_SET } } }", "upstream/env/A", "is not set"),
    ] {
        let setup = Setup::new().config(URL, &format!("upstream: {upstream}"));
        let path = setup.write(dir.path(), "127.0.0.1:1".parse().unwrap());
        let told = holdpoint::app::load(&path).unwrap_err().to_string();
        assert!(told.contains(why) && told.contains(&at.replace('/', ".")), "{upstream}: {told}");
    }
    for rule in ["idempotency: { upstream: header }", "not_now: [503]"] {
        let setup = Setup::new().config(URL, COMMAND);
        let setup =
            setup.config("add_comment: { effect: write }", &format!("add_comment: {{ effect: write, {rule} }}"));
        let path = setup.write(dir.path(), "127.0.0.1:1".parse().unwrap());
        let told = holdpoint::app::load(&path).unwrap_err().to_string();
        assert!(told.contains("needs an upstream with a `url`, not a `command`"), "{rule}: {told}");
    }
    let setup = Setup::new().config(
        r#"{ url: "http://UPSTREAM/v2", timeout: 5s, auth: { bearer: { file: secrets/crm } } }"#,
        "{ command: [a] }",
    );
    let path = setup.write(dir.path(), "127.0.0.1:1".parse().unwrap());
    assert!(holdpoint::app::load(&path).unwrap_err().to_string().contains("only a tool of `kind: mcp`"));
}
