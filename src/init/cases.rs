//! Tests of the drafted policies: one for each effect of each tool, with arguments that its schema takes, and one for
//! each policy of people.

use std::fmt::Write as _;

use super::{AGENT, AGENTS, Guess, OWNERS, Operation, REVIEWER, Tool, WORKFLOW, example, yaml};

/// How many operations are tried for one test.
const TRIES: usize = 40;

/// The test file.
pub(super) fn text(tools: &[Tool]) -> String {
    let tests: String = tools.iter().flat_map(|t| Guess::ALL.map(|g| (t, g))).filter_map(|(t, g)| one(t, g)).collect();
    let tests = if tests.is_empty() { " []\n".to_owned() } else { format!("\n{tests}") };
    format!(
        "# Drafted by `holdpoint init`; `holdpoint test` runs it.\n\
         version: 1\n\
         defaults:\n  \
           agent:    {{ id: {AGENT}, group: {AGENTS} }}\n  \
           workflow: {{ name: {WORKFLOW}, stage: execute }}\n  \
           now:      2026-01-02T12:00:00Z\n\
         tests:{tests}"
    )
}

/// What a person does, and who may.
const PEOPLE: [(&str, &str, &str); 5] = [
    ("an owner decides what asks for the owners", "action: hold.approve", "allow: true, because: [owners-review]"),
    (
        "a requester cannot approve their own call",
        "action: hold.approve, requestedBy: first-reviewer",
        "allow: false, because: [four-eyes]",
    ),
    (
        "a high hold wants a second factor",
        "action: hold.approve, tier: high, mfa: false",
        "allow: false, because: [high-tier-needs-mfa-and-page]",
    ),
    ("who decides sees the evidence", "action: artifact.view", "allow: true, because: [reviewers-read-evidence]"),
    ("an owner reads the audit log", "action: audit.read, system: true", "allow: true, because: [owners-operate]"),
];

/// `people.test.yaml`: one test for each policy of people.
pub(super) fn people() -> String {
    let test = |(name, review, expect): &(&str, &str, &str)| {
        let who = format!("user: {REVIEWER}, group: {OWNERS}");
        format!("  - name: {name}\n    review: {{ {who}, {review} }}\n    expect: {{ {expect} }}\n")
    };
    let tests: String = PEOPLE.iter().map(test).collect();
    format!("# Drafted by `holdpoint init`; `holdpoint test` runs it.\nversion: 1\ntests:\n{tests}")
}

fn one(tool: &Tool, effect: Guess) -> Option<String> {
    let (operation, input) = chosen(tool, effect)?;
    let call = format!("{}.{}", tool.name, operation.name);
    let (what, expect) = match effect {
        Guess::Read => ("a read runs by itself", "{ tier: low, because: [reads-run] }".to_owned()),
        Guess::Write => ("a write runs by itself", "{ tier: low, because: [writes-run] }".to_owned()),
        Guess::Irreversible => ("what cannot be taken back waits for a person", held()),
        Guess::Money => ("money waits for a person", held()),
    };
    let mut out = String::new();
    let name = yaml::scalar(&format!("{}: {what}", tool.name));
    let call = yaml::scalar(&call);
    // Writing to a string cannot fail.
    write!(out, "  - name: {name}\n    call: {call}\n    input: {input}\n    expect: {expect}\n").ok()?;
    Some(out)
}

fn held() -> String {
    format!("{{ tier: medium, because: [floor], approvers: [{OWNERS}] }}")
}

/// The operation with the shortest arguments, of the first that have any.
fn chosen(tool: &Tool, effect: Guess) -> Option<(&Operation, String)> {
    let all = tool.operations.iter().filter(|o| o.effect == effect);
    let made = all.take(TRIES).filter_map(|o| Some((o, example::of(o.schema.as_ref())?.to_string())));
    made.min_by_key(|(_, input)| input.len())
}
