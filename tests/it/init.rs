//! `holdpoint init`: what it drafts loads, holds what it must, and overwrites nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::binary::Site;
use crate::harness::{Upstream, send};

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it");

fn holdpoint(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_holdpoint")).args(args).output().unwrap()
}

fn drafted(dir: &Path, more: &[&str]) -> Value {
    let dir = dir.to_str().unwrap();
    let out = holdpoint(&[&["init", "--json", "--dir", dir], more].concat());
    let told = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.status.code(), Some(0), "{told}");
    serde_json::from_slice(&out.stdout).unwrap()
}

fn file(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn json_file(dir: &Path, name: &str) -> Value {
    serde_json::from_str(&file(dir, name)).unwrap()
}

#[test]
fn two_documents_make_a_configuration_that_loads() {
    let dir = tempfile::tempdir().unwrap();
    let dir = &dir.path().join("new");
    let (orders, notes) = (format!("{HERE}/init_orders.yaml"), format!("{HERE}/init_notes.json"));
    let documents = ["--openapi", &orders, "--openapi", &notes];
    let upstream = ["--upstream", "https://orders.acme.dev/v1", "--upstream", "https://notes.acme.dev/v2"];
    let told = drafted(dir, &[&documents[..], &upstream].concat());

    let tool = |n: usize| told["tools"][n].clone();
    assert_eq!(tool(0)["name"], "acme_orders");
    assert_eq!(tool(0)["guessed"], json!({"read": 2, "write": 2, "irreversible": 1, "money": 1}));
    assert_eq!(tool(0)["left_out"][0]["operations"], json!(["GET /orders/{id}.pdf"]));
    assert_eq!(tool(1)["guessed"], json!({"read": 0, "write": 2, "irreversible": 0, "money": 0}));

    let config = file(dir, "holdpoint.yaml");
    for part in [
        "get_order: { match: GET /orders/:id, effect: read }  # guessed",
        "match: PUT /orders/:path_id",
        "cost: { amount: /amount, currency: /currency }",
        "# policies see no headers; agents may send what you list: forward_headers: [x-acme-trace]",
    ] {
        assert!(config.contains(part), "`{part}` is not in\n{config}");
    }
    let made = json_file(dir, "schemas/acme_orders/create_order.json");
    assert_eq!(made["required"], json!(["customer", "lines"]));
    assert_eq!(made["properties"]["lines"]["items"], json!({"$ref": "#/$defs/Line"}));
    assert_eq!(made["$defs"]["Line"]["properties"]["count"]["type"], json!(["integer", "null"]));
    let refund = json_file(dir, "schemas/acme_orders/refund_order.json");
    let amount = json!({"type": "integer", "exclusiveMinimum": 0, "maximum": 100_000});
    assert_eq!(refund["properties"]["amount"], amount);
    assert_eq!(refund["properties"]["note"], json!({"type": ["string", "null"]}));
    let states = json_file(dir, "schemas/acme_orders/list_orders.json");
    assert_eq!(states["properties"]["filter[state]"]["enum"], json!(["open", "no"]));
    let tests = file(dir, "policies/floor.test.yaml");
    assert_eq!(tests.matches("because: [floor]").count(), 2, "{tests}");

    let config = dir.join("holdpoint.yaml");
    let checked = holdpoint(&["check", "--json", "--config", config.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(0), "{}", String::from_utf8_lossy(&checked.stdout));
    let policies = dir.join("policies");
    let tested = holdpoint(&["test", policies.to_str().unwrap(), "--config", config.to_str().unwrap()]);
    assert_eq!(tested.status.code(), Some(0), "{}", String::from_utf8_lossy(&tested.stdout));
    let said = String::from_utf8_lossy(&tested.stdout);
    assert!(!said.contains("never tested"), "{said}");
    let agent = dir.join("secrets/first-agent");
    assert_eq!(std::fs::metadata(&agent).unwrap().permissions().mode() & 0o777, 0o600);

    let before = file(dir, "secrets/first-agent");
    let again = holdpoint(&["init", "--openapi", &orders, "--dir", dir.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("holdpoint.yaml"));
    assert_eq!(file(dir, "secrets/first-agent"), before);
}

#[test]
fn what_cannot_be_drafted_from_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("old.yaml");
    std::fs::write(&old, "swagger: '2.0'\n").unwrap();
    let new = dir.path().join("new");
    let notes = format!("{HERE}/init_notes.json");
    for (document, said) in [(old.to_str().unwrap(), "swagger2openapi"), (&notes, "--upstream")] {
        let out = holdpoint(&["init", "--openapi", document, "--dir", new.to_str().unwrap()]);
        assert_eq!(out.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&out.stderr).contains(said));
        assert!(!new.exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_serves_reads_and_holds_what_cannot_be_taken_back() {
    let site =
        Site { dir: tempfile::tempdir().unwrap(), upstream: Upstream::start().await, clock: None, envs: Vec::new() };
    let dir = site.dir.path();
    let url = format!("http://{}", site.upstream.at);
    drafted(dir, &["--openapi", &format!("{HERE}/init_orders.yaml"), "--upstream", &url, "--name", "orders"]);
    let config = file(dir, "holdpoint.yaml").replace("127.0.0.1:8700, ", "127.0.0.1:0, ").replace(":8701 ", ":0 ");
    let config = config.replace("mode: observe", "mode: enforce");
    std::fs::write(dir.join("holdpoint.yaml"), config).unwrap();
    let key = format!("Bearer {}", file(dir, "secrets/first-agent"));
    let proxy = site.start().await;
    let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
    let ask = async |method: &str, path: &str, body: &Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let got = send(proxy.agents, method, &format!("/orders{path}"), &headers, body.as_bytes()).await;
        (got.status, got.code())
    };
    assert_eq!(ask("GET", "/orders/o1", &Value::Null).await.0, 200);
    assert_eq!(ask("GET", "/orders?filter[state]=open&limit=5", &Value::Null).await.0, 200);
    assert_eq!(ask("GET", "/orders?limit=500", &Value::Null).await.1, "invalid_arguments");
    let base = json!({"id": "o1", "customer": "c1", "parent": {"customer": "c2"}});
    assert_eq!(ask("PUT", "/orders/o1?dry_run=true", &base).await.0, 200);
    assert_eq!(ask("PUT", "/orders/o1", &json!({"customer": "c1", "other": 1})).await.1, "invalid_arguments");
    let refund = json!({"amount": 100, "currency": "EUR"});
    assert_eq!(ask("POST", "/orders/o1/refunds", &refund).await.1, "held");
    assert_eq!(ask("DELETE", "/orders/o1", &Value::Null).await.1, "held");
}

const SERVER: &str = r#"
import json, sys
schema = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
tools = [{"name": name, "inputSchema": schema} for name in ("get_note", "add_note", "delete_note")]
for line in sys.stdin:
    asked = json.loads(line)
    if asked.get("method") == "initialize":
        result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "n", "version": "1"}}
    elif asked.get("method") == "tools/list":
        result = {"tools": tools}
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}))
"#;

#[test]
fn a_server_on_standard_output_is_asked_and_pinned() {
    if !Command::new("python3").arg("--version").output().is_ok_and(|o| o.status.success()) {
        eprintln!("without python3 this test is skipped");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = &dir.path().join("new");
    let script = dir.with_file_name("notes-server.py");
    std::fs::write(&script, SERVER).unwrap();
    let command = format!("python3 -u '{}'", script.display());
    let told = drafted(dir, &["--mcp-command", &command]);
    assert_eq!(told["tools"][0]["name"], "notes");
    assert_eq!(told["tools"][0]["guessed"], json!({"read": 1, "write": 1, "irreversible": 1, "money": 0}));
    let lock = json_file(dir, "notes.lock.json");
    assert_eq!(lock["tools"].as_object().map(serde_json::Map::len), Some(3), "{lock}");
    let config = dir.join("holdpoint.yaml");
    let locked = holdpoint(&["lock", "--dry-run", "--config", config.to_str().unwrap()]);
    assert_eq!(locked.status.code(), Some(0), "{}", String::from_utf8_lossy(&locked.stdout));
}
