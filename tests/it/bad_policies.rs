//! Sets of policies that no author meant to write: each is refused with a message that helps, in good time.

use std::fmt::Write as _;
use std::path::Path;

use crate::workbench::{edit, said, said_raw, shipped};

/// One more file of policies beside the shipped ones; what `check` says.
fn with_file(bytes: &[u8]) -> (Option<i32>, String) {
    let dir = shipped();
    std::fs::write(dir.path().join("policies/more.cedar"), bytes).unwrap();
    said(dir.path(), &["check"])
}

#[track_caller]
fn refused(got: (Option<i32>, String), wanted: &[&str]) {
    let (code, text) = got;
    assert!(code == Some(2) && wanted.iter().all(|w| text.contains(w)), "{code:?} {text}");
}

const LIMIT: &str = "forbid (principal, action == Holdpoint::Action::\"crm.refund\", resource)\n";

#[test]
fn files_that_are_no_policies_are_told() {
    refused(with_file(b"@id(\"caf\xe9\")"), &["policies/more.cedar:1:9", "no UTF-8"]);
    let mut long = LIMIT.as_bytes().to_vec();
    long.resize(10 << 20, b'/');
    refused(with_file(&long), &["has 10485760 bytes", "split it"]);
    refused(with_file(b"\0\0\0"), &["policies/more.cedar:1:1"]);
    refused(with_file(b"permit (principal, action, resource"), &["more.cedar:1:36", "expected"]);
}

/// A tree that is too deep would end whichever process reads it.
#[test]
fn policies_that_nest_without_an_end_are_told() {
    let chain = vec!["context.input.amountMinor > 5"; 5000].join(" || ");
    let ifs = format!("{}true{}", "if true then ".repeat(5000), " else false".repeat(5000));
    for when in [
        format!("{}true", "!(".repeat(20_000)),
        chain,
        ifs,
        format!("context{} > 1", ".a".repeat(5000)),
        format!("context{} > 1", "[\"a\"]".repeat(5000)),
    ] {
        let text = format!("// long\n\npermit (principal, action, resource) when {{ {when} }};");
        refused(with_file(text.as_bytes()), &["error[policy-deep]", "policies/more.cedar:3:1", "it may nest 256"]);
    }
    let deep = format!("{LIMIT}when {{ {} }};", vec!["context.input.amountMinor > 5"; 250].join(" || "));
    let (code, text) = with_file(deep.as_bytes());
    assert!(code == Some(2) && text.contains("this policy has no `@id`") && !text.contains("policy-deep"), "{text}");
}

#[test]
fn what_a_policy_may_not_have_is_told() {
    let twice = format!("@id(\"refund-dual\") @reason(\"Twice.\") {LIMIT};");
    refused(with_file(twice.as_bytes()), &["`@id(\"refund-dual\")` stands already at policies/agents.cedar:"]);
    let colour = format!("@id(\"x\") @reason(\"Red.\") @aprovers(\"finance\") {LIMIT};");
    refused(with_file(colour.as_bytes()), &["`@aprovers` is no annotation", "did you mean `@approvers`?"]);
}

#[test]
fn groups_that_go_in_circles_are_told() {
    let dir = shipped();
    edit(
        dir.path(),
        "holdpoint.yaml",
        "effect: [money, irreversible]",
        "effect: money\n        groups: [crm.get_order]",
    );
    edit(
        dir.path(),
        "holdpoint.yaml",
        "get_order:    { match: GET /orders/:orderId, effect: read }",
        "get_order:    { match: GET /orders/:orderId, effect: read, groups: [crm.refund] }",
    );
    let wanted = ["`crm.get_order` has the name of another action", "`crm.refund` has the name of another action"];
    refused(said(dir.path(), &["check"]), &wanted);
}

#[test]
fn a_schema_that_no_policy_can_read_is_told() {
    let dir = shipped();
    edit(dir.path(), "schemas/refund.json", "\"type\": \"integer\",", "\"type\": [\"integer\", \"null\"],");
    refused(
        said(dir.path(), &["check"]),
        &["an argument, of a type that policies do not know", "crm.refund: 'amountMinor'"],
    );
    let dir = shipped();
    edit(dir.path(), "schemas/refund.json", "\"integer\"", "\"integre\"");
    refused(said(dir.path(), &["check"]), &["integre"]);
}

/// Forbids by amount, each with a customer of its own.
fn many(path: &Path, count: usize, member: &str) {
    let mut text = String::new();
    for i in 0..count {
        write!(text, "@id(\"p-{i}\") @reason(\"r\") @approvers(\"support-leads\") @sla(\"15m\")\n{LIMIT}").unwrap();
        writeln!(text, "when {{ context.input.{member} > {i} && context.input.customerId == \"c{i}\" }}").unwrap();
        writeln!(text, "unless {{ context.approval.granted }};").unwrap();
    }
    std::fs::write(path, text).unwrap();
}

/// Five thousand policies are a lot, and load; where many are wrong, each is told.
#[test]
fn five_thousand_policies_are_read() {
    let dir = shipped();
    let path = dir.path().join("policies/many.cedar");
    many(&path, 5000, "amountMinor");
    let (code, text) = said_raw(dir.path(), &["check", "--json"]);
    assert!(code == Some(0) && text.contains("\"count\": 5018"), "{text}");
    many(&path, 300, "amountMnor");
    let (code, text) = said_raw(dir.path(), &["check"]);
    assert_eq!((code, text.matches("did you mean `amountMinor`?").count()), (Some(2), 300));
}
