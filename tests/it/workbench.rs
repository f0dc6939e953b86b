//! What policy authors see: the verbs of the workbench on the shipped policies and on recorded calls, as golden files.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Proxy, Setup, token};

/// A copy of what is shipped, with secrets that load.
pub(crate) fn shipped() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["policies", "policies/.generated", "schemas", "deploy/demo"] {
        std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        for entry in std::fs::read_dir(root.join(folder)).unwrap().map(Result::unwrap) {
            if entry.path().is_file() {
                std::fs::copy(entry.path(), dir.path().join(folder).join(entry.file_name())).unwrap();
            }
        }
    }
    for name in ["support-bot", "report-bot", "maya", "li", "sam", "omar", "crm"] {
        let path = dir.path().join("deploy/demo/secrets").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, token(name)).unwrap();
    }
    std::fs::copy(root.join("deploy/demo/holdpoint.yaml"), dir.path().join("holdpoint.yaml")).unwrap();
    edit(dir.path(), "holdpoint.yaml", "../../", "");
    edit(dir.path(), "holdpoint.yaml", "secrets/", "deploy/demo/secrets/");
    edit(dir.path(), "holdpoint.yaml", "tickets.lock.json", "deploy/demo/tickets.lock.json");
    dir
}

pub(crate) fn edit(dir: &Path, name: &str, from: &str, to: &str) {
    let path = dir.join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from} does not stand in {name}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

/// A copy of the policies beside them, changed.
fn changed(dir: &Path, from: &str, to: &str) -> PathBuf {
    let next = dir.join("next");
    std::fs::create_dir_all(&next).unwrap();
    for entry in std::fs::read_dir(dir.join("policies")).unwrap().map(Result::unwrap) {
        if entry.path().is_file() {
            std::fs::copy(entry.path(), next.join(entry.file_name())).unwrap();
        }
    }
    edit(&next, "agents.cedar", from, to);
    next
}

/// What a verb prints, standard output and then standard error, and how it ends.
pub(crate) fn said(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdpoint"));
    command.current_dir(dir).args(args).env_remove("NO_COLOR").env_remove("RUST_BACKTRACE");
    let plain = command.output().unwrap();
    let text = [plain.stdout, plain.stderr].map(|b| String::from_utf8(b).unwrap()).concat();
    let coloured = command.env("CLICOLOR_FORCE", "1").output().unwrap();
    let coloured = [coloured.stdout, coloured.stderr].map(|b| String::from_utf8(b).unwrap()).concat();
    if !args.contains(&"--json") && !text.contains(" s      now") {
        assert_eq!(bare(&coloured), text, "colour changes nothing but colour");
        // The message of a finding is one line, however long the names in it are: editors and CI read it so.
        let message = |l: &str| l.starts_with("error") || l.starts_with("warning") || l.contains('│');
        let wide = text.lines().find(|l| l.chars().count() > 80 && !message(l));
        assert_eq!(wide, None, "more than 80 columns");
    }
    (plain.status.code(), text)
}

fn bare(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        out.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    out + rest
}

macro_rules! golden {
    ($name:literal, $code:literal, $said:expr) => {{
        let (code, text) = $said;
        assert_eq!(code, Some($code), "{text}");
        insta::with_settings!({snapshot_path => "golden", prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_snapshot!($name, text);
        });
    }};
}

#[test]
fn check_says_what_is_there_and_every_mistake_at_once() {
    let dir = shipped();
    golden!("check", 0, said(dir.path(), &["check"]));
    edit(dir.path(), "policies/agents.cedar", "context.input.amountMinor > 50000", "context.input.amount > 50000");
    edit(dir.path(), "policies/agents.cedar", "@evidence(", "@evidense(");
    edit(dir.path(), "policies/people.cedar", "@id(\"four-eyes\")", "@id(\"leads-review\")");
    golden!("check_rejected", 2, said(dir.path(), &["check"]));
}

const CLAIMS: &str = r#"@id("no-refund-above-500-without-two")
forbid (principal, action == Holdpoint::Action::"crm.refund", resource)
when { context.input.amountMinor > 50000 } unless { context.approval.dual };

@id("no-refund-above-400-without-two")
forbid (principal, action == Holdpoint::Action::"crm.refund", resource)
when { context.input.amountMinor > 40000 } unless { context.approval.dual };
"#;

#[test]
fn check_proves_what_policies_claim() {
    let dir = shipped();
    let claims = dir.path().join("claims.txt");
    let prove = ["check", "--prove", "--claims", "claims.txt"];
    std::fs::write(
        &claims,
        CLAIMS
            .replace("amountMinor > 4", "amountMnor > 4")
            .replace("dual };\n\n", "dual };\npermit (principal, action, resource);\n"),
    )
    .unwrap();
    golden!("check_claims", 2, said(dir.path(), &prove));
    std::fs::write(&claims, CLAIMS).unwrap();
    let none = Command::new(env!("CARGO_BIN_EXE_holdpoint"))
        .current_dir(dir.path())
        .args(prove)
        .env("CVC5", "/nowhere")
        .output()
        .unwrap();
    let text = String::from_utf8(none.stderr).unwrap();
    assert!(none.status.code() == Some(1) && text.contains("install it (Debian: cvc5)"), "{text}");
    if Command::new("cvc5").arg("--version").output().is_err() {
        println!("cvc5 is not installed: nothing was proved");
        return;
    }
    golden!("check_proved", 2, said(dir.path(), &prove));
    edit(
        dir.path(),
        "policies/agents.cedar",
        "context.input.amountMinor > 50000",
        "context.input.amountMinor * 2 > 80000",
    );
    let (code, text) = said(dir.path(), &prove);
    // Where a policy errs, Cedar would skip it, and the solver knows no bounds of schemas.
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("8 of 9 policies never err, 0 of 2 claims hold"), "{text}");
    assert!(text.contains("refund-dual: not proved that it never errs on crm.refund"), "{text}");
}

#[test]
fn test_says_what_failed_and_why_and_what_was_never_tested() {
    let dir = shipped();
    golden!("test", 0, said(dir.path(), &["test", "--coverage"]));
    edit(
        dir.path(),
        "policies/agents.cedar",
        "context.input.amountMinor > 50000",
        "context.input.amountMinor > 880000",
    );
    std::fs::remove_file(dir.path().join("policies/people.test.yaml")).unwrap();
    golden!("test_failed", 2, said(dir.path(), &["test"]));
    let (code, _) = said(dir.path(), &["test", "--junit", "junit.xml", "--json"]);
    assert_eq!(code, Some(2));
    let junit = std::fs::read_to_string(dir.path().join("junit.xml")).unwrap();
    assert!(junit.contains("tests=\"27\" failures=\"2\"") && !junit.contains("row"), "{junit}");
    assert!(junit.contains("amountMinor 88000 ≤ 880000"), "{junit}");
}

#[test]
fn a_test_file_that_is_wrong_is_told_by_line() {
    let dir = shipped();
    edit(
        dir.path(),
        "policies/agents.test.yaml",
        "expect: { tier: low, because: [reads-auto] }",
        "expect: { teir: low }",
    );
    edit(dir.path(), "policies/people.test.yaml", "version: 1", "version: 2");
    golden!("test_unreadable", 2, said(dir.path(), &["test"]));
}

#[test]
fn explain_says_why_and_what_is_closest() {
    let dir = shipped();
    let input = json!({"customerId": "c_204", "orderId": "o_1", "amountMinor": 88000, "currency": "EUR"}).to_string();
    let op = ["explain", "--op", "crm.refund", "--input", &input, "--group", "support"];
    golden!("explain", 0, said(dir.path(), &[&op[..], &["--given", "{ budget: { worstPct: 81 } }"]].concat()));
    let limit = json!({"customerId": "c_204", "creditLimitMinor": 5}).to_string();
    let never = ["explain", "--op", "crm.update_customer", "--input", &limit, "--group", "support"];
    golden!("explain_never", 0, said(dir.path(), &never));
    let (code, json) = said(dir.path(), &[&op[..], &["--json"]].concat());
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["tier"], &json["needs"]["people"]), (Some(0), &json!("high"), &json!(2)));
    golden!("explain_unknown", 1, said(dir.path(), &["explain", "--op", "crm.refnd"]));
}

#[test]
fn diff_says_what_tightens_and_what_loosens() {
    let dir = shipped();
    let _ = changed(dir.path(), "amountMinor > 50000", "amountMinor > 80000");
    edit(&dir.path().join("next"), "agents.cedar", "@sla(\"15m\")", "@sla(\"5m\")");
    edit(
        &dir.path().join("next"),
        "agents.cedar",
        "action in Holdpoint::Action::\"effect:read\"",
        "action == Holdpoint::Action::\"crm.get_order\"",
    );
    golden!("diff", 3, said(dir.path(), &["diff", "policies", "next"]));
    golden!("diff_none", 0, said(dir.path(), &["diff", "policies", "policies"]));
}

/// Calls of every kind, with what became of them.
async fn recorded() -> Proxy {
    let p = Setup::new().start().await;
    for i in 0..3 {
        assert_eq!(p.refund(&format!("o_{i}"), 1000 + i, &[]).await.status, 200);
    }
    assert_eq!(p.agent("GET", "/crm/customers/c_1", &[], None).await.status, 200);
    let limit = json!({"creditLimitMinor": 5});
    assert_eq!(p.agent("PATCH", "/crm/customers/c_1", &[], Some(&limit)).await.code(), "forbidden");
    let secret = json!({"phone": "+43 1 4000", "email": "a@example.org"});
    assert_eq!(p.agent("PATCH", "/crm/customers/c_1", &[], Some(&secret)).await.status, 200);
    let held = p.refund("o_9", 8800, &[]).await;
    let hold = held.json()["hold"].as_str().unwrap().to_owned();
    let digest = p.reviewer("maya", "GET", &format!("/v1/holds/{hold}"), None).await.json()["digest"].clone();
    let no = json!({"digest": digest, "reason_code": "duplicate", "message_to_agent": "paid back in October"});
    let rejected = p.reviewer("maya", "POST", &format!("/v1/holds/{hold}/reject"), Some(&no)).await;
    assert_eq!(rejected.status, 200, "{:?}", rejected.json());
    p.until_line(|kind, event| kind == "call.read" && event["note"]["more"]["asked"].is_object()).await;
    p
}

/// Ids and seconds are not the same twice.
fn steady(text: &str) -> String {
    let mut out = String::new();
    for word in text.split_inclusive([' ', '\n', ':']) {
        let id = word.starts_with("call_") && word.trim_end().trim_end_matches(':').len() == 31;
        out.push_str(&if id { word.replace(word.trim_end(), "call_…") } else { word.to_owned() });
    }
    let (head, rest) = out.split_once('\n').unwrap();
    let seconds = head.split_whitespace().find(|w| w.contains('.')).unwrap_or("0.0").to_owned();
    format!("{}\n{rest}", head.replace(&seconds, "0.0"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_finds_a_loosening_and_explain_tells_a_recorded_call() {
    let p = recorded().await;
    let dir = p.dir.path().to_owned();
    let next = changed(&dir, "amountMinor > 5000 }", "amountMinor > 9000 }");
    edit(
        &next,
        "agents.cedar",
        "when { context.input has creditLimitMinor }",
        "when { context.input has email && context.input.email like \"*@acme.dev\" }",
    );
    let (code, text) = said(&dir, &["replay", "--policies", "next"]);
    golden!("replay", 3, (code, steady(&text)));
    let (code, text) = said(&dir, &["replay", "--policies", "policies"]);
    golden!("replay_none", 0, (code, steady(&text)));
    // What records do not show cannot be asked about.
    edit(
        &next,
        "agents.cedar",
        "context.input has email && context.input.email like \"*@acme.dev\"",
        "context.input has phone && context.input.phone like \"+43*\"",
    );
    let (code, json) = said(&dir, &["replay", "--policies", "next", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["calls"]), (Some(3), &json!(6)));
    assert_eq!(
        json["not_asked"][0]["why"],
        "policies read an argument that records do not show (crm.update_customer: phone)"
    );

    let lines = p.lines();
    let parked = lines.iter().find(|l| l.kind() == "parked").map(crate::harness::event).unwrap();
    let id = parked["record"]["id"].as_str().unwrap();
    let (code, text) = said(&dir, &["explain", &id[id.len() - 8..]]);
    assert!(code == Some(0) && text.starts_with("MEDIUM  crm.refund  88.00 EUR  by support-bot in others"), "{text}");
    assert!(text.contains("as medium by these policies; it is rejected"), "{text}");
    // The export says the same without the state folder.
    let export = dir.join("log.jsonl");
    assert_eq!(said(&dir, &["audit", "export", "state", "-o", "log.jsonl"]).0, Some(0));
    let from_export = said(&dir, &["explain", id, "--log", export.to_str().unwrap()]);
    assert_eq!(from_export, (Some(0), text));

    let (code, test) = said_raw(&dir, &["test", "--from", id]);
    assert_eq!(code, Some(0), "{test}");
    std::fs::write(dir.join("policies/from.test.yaml"), &test).unwrap();
    let (code, text) = said(&dir, &["test"]);
    assert!(code == Some(0) && text.contains("1 passed, 0 failed"), "{text}\n{test}");
    assert!(!test.contains("o_9") && !test.contains("c_1"), "{test}");
}

/// As [`said`], for what is no text for 80 columns.
pub(crate) fn said_raw(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_holdpoint")).current_dir(dir).args(args).output().unwrap();
    (out.status.code(), String::from_utf8(out.stdout).unwrap())
}
