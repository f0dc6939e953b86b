//! The Cedar schema of a configuration: what policies may name, generated.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::finding::Finding;
use super::input::{self, InputType, Member, Record};
use super::model::Model;
use crate::call::{Effects, Operation};

/// Cedar's namespace of everything here.
pub const NAMESPACE: &str = "Holdpoint";

/// Admin actions on a hold.
pub const HOLD_ACTIONS: &[&str] = &[
    "grant.create",
    "hold.approve",
    "hold.claim",
    "hold.comment",
    "hold.edit",
    "hold.escalate",
    "hold.reject",
    "hold.view",
    "hold.withdraw",
];

/// Admin actions on a hold, or on calls that have none.
pub const CALL_ACTIONS: &[&str] = &["artifact.view", "call.reconcile", "call.view", "sample.judge", "undo.run"];

/// Admin actions on the system.
pub const SYSTEM_ACTIONS: &[&str] = &[
    "audit.read",
    "breaker.reset",
    "budget.topup",
    "drain",
    "grant.revoke",
    "kill",
    "notify.replay",
    "policy.activate",
    "policy.view",
    "resume",
    "tool.accept",
];

/// The group of all admin actions.
pub const ADMIN: &str = "admin";
/// The group of all agent actions.
pub const CALL: &str = "call";

/// Whether an action, or a group of actions, belongs to the admin plane.
#[must_use]
pub fn is_admin(action: &str) -> bool {
    action == ADMIN || [HOLD_ACTIONS, CALL_ACTIONS, SYSTEM_ACTIONS].iter().any(|list| list.contains(&action))
}

/// The schema, and what each operation's `context.input` holds.
#[derive(Debug)]
pub struct Generated {
    /// In Cedar's own notation.
    pub text: String,
    /// The members of `context.input`, by operation.
    pub inputs: BTreeMap<String, Record>,
    /// Remarks about arguments that policies cannot see, and clashes of names.
    pub findings: Vec<Finding>,
}

const PRELUDE: &str = include_str!("prelude.cedarschema");

/// Generates the schema of a configuration.
#[must_use]
pub fn generate(model: &Model) -> Generated {
    let mut out = Generated { text: PRELUDE.to_owned(), inputs: BTreeMap::new(), findings: Vec::new() };
    let tools: BTreeSet<&str> = model.all_tools().into_keys().collect();
    let groups: BTreeSet<&str> = model.operations.iter().flat_map(|o| o.groups.iter().map(String::as_str)).collect();
    for tool in tools {
        line(&mut out.text, format_args!("  action {} in [\"call\"];", quoted(&format!("tool:{tool}"))));
    }
    for group in &groups {
        out.findings.extend(group_clash(group, model));
        line(&mut out.text, format_args!("  action {} in [\"call\"];", quoted(group)));
    }
    out.text.push_str("\n  // ---------- operations ----------\n");
    let mut types = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for operation in &model.operations {
        if !seen.insert(operation.name.as_str()) || is_admin(&operation.name) || operation.name == CALL {
            let what = format!("operation `{}` has the name of another action", operation.name);
            out.findings.push(Finding::error("policy-schema", what));
            continue;
        }
        declare(&mut out, operation, &mut types);
    }
    admin_plane(&mut out.text);
    out.text.push_str("}\n");
    out
}

fn group_clash(group: &str, model: &Model) -> Option<Finding> {
    let built_in = is_admin(group) || group == CALL || group.starts_with("effect:") || group.starts_with("tool:");
    (built_in || model.operations.iter().any(|o| o.name == group))
        .then(|| Finding::error("policy-schema", format!("action group `{group}` has the name of another action")))
}

fn declare(out: &mut Generated, operation: &Operation, types: &mut BTreeSet<String>) {
    let (record, findings) = input::members(operation);
    out.findings.extend(findings);
    let mut name = type_name(&operation.name);
    while !types.insert(name.clone()) {
        name.push('_');
    }
    line(&mut out.text, format_args!("  type {name} = {};", record_text(&record)));
    let groups = action_groups(operation).iter().map(|g| quoted(g)).collect::<Vec<_>>().join(", ");
    line(&mut out.text, format_args!("  action {} in [{groups}] appliesTo {{", quoted(&operation.name)));
    out.text.push_str("    principal: [Agent], resource: [Tool],\n");
    line(
        &mut out.text,
        format_args!(
            "    context: {{ input: {name}, call: Call, approval: Approval, budget: Budget, history: History, trust: Trust }} }};"
        ),
    );
    out.inputs.insert(operation.name.clone(), record);
}

/// The groups that an operation's action stands in directly.
#[must_use]
pub fn action_groups(operation: &Operation) -> Vec<String> {
    let mut groups = vec![format!("tool:{}", operation.tool.name)];
    groups.extend(operation.effects.names().into_iter().map(|e| format!("effect:{e}")));
    for group in &operation.groups {
        if !groups.contains(group) {
            groups.push(group.clone());
        }
    }
    groups
}

/// Every action and group that an operation's action is in, itself included.
#[must_use]
pub fn action_ancestors(operation: &Operation) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = action_groups(operation).into_iter().collect();
    let Effects { money, irreversible, .. } = operation.effects;
    if money || irreversible {
        all.insert("effect:write".to_owned());
    }
    all.insert(CALL.to_owned());
    all.insert(operation.name.clone());
    all
}

fn admin_plane(text: &mut String) {
    text.push_str("\n  // ---------- the admin plane ----------\n");
    for (actions, resources) in [(HOLD_ACTIONS, "Hold"), (CALL_ACTIONS, "Hold, System"), (SYSTEM_ACTIONS, "System")] {
        let names = actions.iter().map(|a| quoted(a)).collect::<Vec<_>>().join(", ");
        line(text, format_args!("  action {names} in [\"admin\"] appliesTo {{"));
        line(
            text,
            format_args!(
                "    principal: [User], resource: [{resources}],\n    \
                 context: {{ mfa: __cedar::Bool, channel: __cedar::String, now: __cedar::datetime }} }};"
            ),
        );
    }
}

fn record_text(record: &Record) -> String {
    let mut members = Vec::new();
    for (name, Member { ty, required, has_len, .. }) in record {
        let mark = if *required { "" } else { "?" };
        members.push(format!("{}{mark}: {}", attribute(name), type_text(ty)));
        if *has_len {
            members.push(format!("{}{mark}: __cedar::Long", attribute(&format!("{name}_len"))));
        }
    }
    if members.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", members.join(", ")) }
}

fn type_text(ty: &InputType) -> String {
    match ty {
        InputType::String => "__cedar::String".to_owned(),
        InputType::Long => "__cedar::Long".to_owned(),
        InputType::Decimal => "__cedar::decimal".to_owned(),
        InputType::Bool => "__cedar::Bool".to_owned(),
        InputType::Record(record) => record_text(record),
        InputType::Set(of) => format!("Set<{}>", type_text(of)),
    }
}

/// `crm.get_customer` → `CrmGetCustomerInput`.
fn type_name(operation: &str) -> String {
    let mut name = String::new();
    for word in operation.split(|c: char| !c.is_ascii_alphanumeric()) {
        let mut letters = word.chars();
        name.extend(letters.next().map(|c| c.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        name.insert_str(0, "Op");
    }
    name + "Input"
}

/// Words that Cedar keeps for itself, and those that are awkward bare.
const RESERVED: &[&str] =
    &["true", "false", "if", "then", "else", "in", "is", "like", "has", "__cedar", "namespace", "type", "entity"];

fn attribute(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !RESERVED.contains(&name);
    if plain { name.to_owned() } else { quoted(name) }
}

/// A string literal of Cedar.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.escape_debug())
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    if writeln!(text, "{what}").is_err() {
        text.push('\n');
    }
}
