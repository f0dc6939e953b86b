//! What a policy's scope covers, and what follows from that.

use std::collections::BTreeSet;

use cedar_policy::{PolicyId, PrincipalConstraint, ResourceConstraint};

use super::finding::{Finding, Severity, nearest};
use super::input::{InputType, Record};
use super::model::Model;
use super::schema::{self, Generated};
use super::set::{Plane, Policy, scope_actions};

/// The plane that a policy's scope puts it in; with it what is wrong, when it names neither or both.
pub(super) fn plane(policy: &cedar_policy::Policy) -> Result<Plane, (Plane, &'static str)> {
    let Some(actions) = scope_actions(policy) else {
        return Err((Plane::Agent, "the scope names no action"));
    };
    let admin = actions.iter().filter(|a| schema::is_admin(a)).count();
    match admin {
        0 => Ok(Plane::Agent),
        n if n == actions.len() => Ok(Plane::Admin),
        _ => Err((Plane::Admin, "the scope mixes actions of agents with actions of the admin plane")),
    }
}

/// Whether everyone may do everything by this policy.
pub(super) fn allows_everything(policy: &Policy) -> bool {
    let everyone = matches!(policy.cedar.principal_constraint(), PrincipalConstraint::Any | PrincipalConstraint::Is(_));
    let everything = matches!(policy.cedar.resource_constraint(), ResourceConstraint::Any | ResourceConstraint::Is(_));
    let actions =
        scope_actions(&policy.cedar).is_none_or(|a| a.iter().any(|a| a == schema::CALL || a == schema::ADMIN));
    !policy.is_forbid() && everyone && everything && actions && !policy.cedar.has_non_scope_constraint()
}

/// The operations that a policy covers in which an argument is a Long without bounds.
pub(super) fn unbounded<'m>(policy: &Policy, path: &[String], model: &'m Model, generated: &Generated) -> Vec<&'m str> {
    let unbounded = |record: &Record| member_unbounded(record, path);
    let covered = model.operations.iter().filter(|o| policy.covers(o));
    covered.filter(|o| generated.inputs.get(&o.name).is_some_and(unbounded)).map(|o| o.name.as_str()).collect()
}

fn member_unbounded(record: &Record, path: &[String]) -> bool {
    let Some((name, rest)) = path.split_first() else { return false };
    match record.get(name).map(|m| (&m.ty, m.bounded)) {
        Some((InputType::Long, bounded)) => !bounded,
        Some((InputType::Record(inner), _)) => member_unbounded(inner, rest),
        _ => false,
    }
}

/// The operations that a policy covers in which a pointer of its `@grant` names no integer.
pub(super) fn unsummable<'m>(policy: &Policy, pointer: &str, model: &'m Model, generated: &Generated) -> Vec<&'m str> {
    let path: Vec<String> = pointer.split('/').skip(1).map(str::to_owned).collect();
    let is_integer =
        |o: &&crate::call::Operation| generated.inputs.get(&o.name).is_some_and(|record| is_long(record, &path));
    let covered = model.operations.iter().map(AsRef::as_ref).filter(|o| policy.covers(o));
    covered.filter(|o| !is_integer(o)).map(|o| o.name.as_str()).collect()
}

fn is_long(record: &Record, path: &[String]) -> bool {
    let Some((name, rest)) = path.split_first() else { return false };
    match record.get(name).map(|m| &m.ty) {
        Some(InputType::Long) => rest.is_empty(),
        Some(InputType::Record(inner)) => is_long(inner, rest),
        _ => false,
    }
}

/// Tools, teams and agent groups that the policy names and the configuration does not know. A tool is a
/// mistake; teams and groups may come with tokens, so they are worth a warning where a known one is near.
pub(super) fn unknown_names(policy: &Policy, model: &Model) -> Vec<Finding> {
    let tools: BTreeSet<&str> = model.all_tools().into_keys().collect();
    let teams = model.all_teams();
    let groups: BTreeSet<&str> = model.agent_groups.iter().map(String::as_str).collect();
    let named = policy.cedar.entity_literals().into_iter();
    let named: BTreeSet<(String, String)> =
        named.map(|uid| (uid.type_name().basename().to_owned(), uid.id().unescaped().to_owned())).collect();
    let judge = |(kind, name): (String, String)| {
        let (severity, what, known) = match kind.as_str() {
            "Tool" => (Severity::Error, "tool", &tools),
            "Team" => (Severity::Warning, "team", &teams),
            "AgentGroup" => (Severity::Warning, "agent group", &groups),
            _ => return None,
        };
        let near = nearest(&name, known.iter().copied());
        if known.contains(name.as_str()) || (severity == Severity::Warning && near.is_none()) {
            return None;
        }
        let finding = Finding::new(severity, "policy-name", format!("the configuration has no {what} `{name}`"));
        Some(match near {
            Some(near) => finding.with_help(format!("did you mean `{near}`?")),
            None => finding,
        })
    };
    named.into_iter().filter_map(judge).collect()
}

/// Whether the schema of an operation names this argument, top level or not.
fn declares(model: &Model, operation: &str, path: &str) -> bool {
    let schema = model.operations.iter().find(|o| o.name == operation).and_then(|o| o.schema.as_deref());
    let pointer = path.split('.').skip(1).map(|name| format!("/properties/{name}")).collect::<String>();
    schema.is_some_and(|s| s.pointer(&pointer).is_some())
}

/// Cedar's wording of a mistake in ours, where ours is shorter or knows more.
pub(super) fn reworded(mut finding: Finding, id: &PolicyId, model: &Model) -> Finding {
    let prefix = format!("for policy `{id}`, ");
    if let Some(rest) = finding.message.strip_prefix(&prefix) {
        finding.message = rest.to_owned();
    }
    // attribute `input.amount` in context for Holdpoint::Action::"crm.refund" not found
    let parts = finding.message.strip_prefix("attribute `").and_then(|m| m.strip_suffix(" not found"));
    let parts = parts.and_then(|m| m.split_once("` in context for Holdpoint::Action::"));
    let Some((path, action)) = parts.map(|(p, a)| (p.to_owned(), a.trim_matches('"').to_owned())) else {
        return finding;
    };
    let (of, field) = path.rsplit_once('.').unwrap_or(("", path.as_str()));
    if path.starts_with("input.") && declares(model, &action, &path) {
        finding.help = Some("it is an argument, of a type that policies do not know".to_owned());
    }
    finding.message = match of {
        "" => format!("no field `{field}` in the context of {action}"),
        "input" => format!("no field `{field}` in the input of {action}"),
        of => format!("no field `{field}` in `context.{of}` of {action}"),
    };
    finding.narrowed(field)
}
