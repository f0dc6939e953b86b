//! What reviewers type: edits, groups and undos against a proxy that runs.

use std::process::Stdio;

use holdpoint::store::State;
use serde_json::json;

use crate::harness::{PEOPLE, Proxy, Setup, answer, token};

/// The command line as this person, without a terminal: its exit code, and what it said.
pub async fn cli(p: &Proxy, name: &str, args: &[&str]) -> (Option<i32>, String) {
    let url = format!("http://{}", p.running.admin);
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_holdpoint"));
    command.args(args).args(["--url", &url]).env("HOLDPOINT_TOKEN", token(name)).stdin(Stdio::null());
    let out = command.output().await.unwrap();
    let said = [out.stdout, out.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (out.status.code(), said.concat())
}

async fn start() -> Proxy {
    let people = PEOPLE
        .replace(
            "Holdpoint::Action::\"hold.reject\"",
            "Holdpoint::Action::\"hold.reject\", Holdpoint::Action::\"hold.edit\"",
        )
        .replace(
            "Holdpoint::Action::\"call.reconcile\"",
            "Holdpoint::Action::\"call.reconcile\", Holdpoint::Action::\"undo.run\"",
        );
    let update = "schema: update.json, preview: { read: GET /customers/:customerId, diff: merge-patch }, \
                  undo: { match: PATCH /customers/:customerId, body: before } }";
    let p = Setup::new().people(&people).config("schema: update.json, redact: [/phone] }", update).start().await;
    p.upstream.script(|_| answer(200, &json!({"id": "c_1", "email": "old@x.example"})));
    p
}

async fn held(p: &Proxy, order: &str) -> String {
    let got = p.refund(order, 8800, &[]).await;
    got.json()["hold"].as_str().expect("held").to_owned()
}

#[tokio::test]
async fn a_hold_is_edited_and_shows_both_versions() {
    let p = start().await;
    let hold = held(&p, "o_1").await;
    let args = ["holds", "edit", &hold, "--set", "amountMinor=6000", "--note", "half of it"];
    let (code, said) = cli(&p, "maya", &args).await;
    assert!(code == Some(0) && said.contains(&format!("{hold}: held")), "{said}");
    let (code, said) = cli(&p, "maya", &["holds", "show", &hold]).await;
    assert!(code == Some(0) && said.contains("CHANGED BY A REVIEWER"), "{said}");
    assert!(said.contains("/amountMinor  8800 -> 6000") && said.contains("half of it"), "{said}");
    let (code, said) = cli(&p, "maya", &["holds", "edit", &hold, "--patch", "{", "--note", "x"]).await;
    assert!(code == Some(1) && said.contains("the patch is no JSON"), "{said}");
    let (code, said) = cli(&p, "ana", &["holds", "edit", &hold, "--set", "amountMinor=1", "--note", "x"]).await;
    assert!(code == Some(2) && said.contains("self_review"), "{said}");
}

#[tokio::test]
async fn a_group_is_listed_and_rejected_and_not_approved_unread() {
    let p = start().await;
    let (one, two) = (held(&p, "o_1").await, held(&p, "o_2").await);
    let shown = p.reviewer("maya", "GET", &format!("/v1/holds/{one}"), None).await.json();
    let cluster = shown["alike"]["cluster"].as_str().unwrap().to_owned();
    let (code, said) = cli(&p, "maya", &["holds", "group", &cluster]).await;
    assert!(code == Some(0) && said.matches("crm.refund").count() == 2, "{said}");
    let (code, said) = cli(&p, "maya", &["holds", "group", &cluster, "--approve"]).await;
    assert!(code == Some(1) && said.contains("nobody can be asked here"), "{said}");
    let (code, said) = cli(&p, "maya", &["holds", "group", &cluster, "--reject", "duplicate"]).await;
    assert!(code == Some(0) && said.contains(&format!("{two}: rejected")), "{said}");
    let (code, said) = cli(&p, "maya", &["holds", "group", &cluster]).await;
    assert!(code == Some(2) && said.contains("not_found"), "{said}");
    assert_eq!(p.upstream.bytes(), 0);
}

#[tokio::test]
async fn a_call_is_taken_back() {
    let p = start().await;
    let done = p.agent("PATCH", "/crm/customers/c_1", &[], Some(&json!({"email": "new@x.example"}))).await;
    let call = done.header("holdpoint-call").to_owned();
    let (code, said) = cli(&p, "omar", &["calls", "undo", &call, "--reason", "wrong customer"]).await;
    assert!(code == Some(0) && said.contains("taken back by call_"), "{said}");
    let (code, said) = cli(&p, "omar", &["calls", "show", &call]).await;
    assert!(code == Some(0) && said.contains("TAKING IT BACK") && said.contains("crm.update_customer"), "{said}");
    assert_eq!(p.state(&call).await, State::Succeeded);
    let (code, said) = cli(&p, "omar", &["calls", "undo", &call, "--reason", " "]).await;
    assert!(code == Some(2) && said.contains("justification_required"), "{said}");
}
