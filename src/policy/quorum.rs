//! Whether the people whom `@approvers` asks for exist.

use std::collections::BTreeSet;

use super::annotations::{Approvers, TOOL_OWNER, WORKFLOW_OWNER};
use super::finding::{Finding, Severity, nearest};
use super::lint::Lift;
use super::model::Model;
use super::set::Policy;

/// The mistakes in a policy's `@approvers`: unknown groups, groups without people, a quorum that cannot be met.
pub(super) fn check(policy: &Policy, approvers: &Approvers, model: &Model) -> Vec<Finding> {
    let mut found: Vec<Finding> = approvers.groups.iter().filter_map(|g| unknown(g, model)).collect();
    found.extend(unowned(policy, approvers, model));
    if found.is_empty() && model.reviewers.is_some() {
        found.extend(cases(policy, approvers, model).iter().find_map(|c| unfillable(c, approvers.all, policy, model)));
    }
    found
}

fn unknown(group: &str, model: &Model) -> Option<Finding> {
    let teams = model.all_teams();
    if teams.contains(group) || [WORKFLOW_OWNER, TOOL_OWNER].contains(&group) {
        return None;
    }
    // Where nobody can list the reviewers, a group that nobody has named may still exist.
    let severity = if model.reviewers.is_some() { Severity::Error } else { Severity::Warning };
    let mut finding = Finding::new(severity, "policy-group", format!("there is no group `{group}`"));
    finding.help = nearest(group, teams).map(|n| format!("did you mean `{n}`?"));
    Some(finding)
}

fn unowned(policy: &Policy, approvers: &Approvers, model: &Model) -> Vec<Finding> {
    if !approvers.groups.iter().any(|g| g == WORKFLOW_OWNER) {
        return Vec::new();
    }
    let unowned = model.workflows.iter().filter(|(_, owner)| owner.is_none());
    let text = |name: &String| format!("{}: workflow `{name}` has no owner to approve its calls", policy.id);
    unowned.map(|(name, _)| Finding::error("policy-group", text(name))).collect()
}

/// The groups as they come out for each workflow and each tool that the policy covers.
fn cases(policy: &Policy, approvers: &Approvers, model: &Model) -> Vec<Vec<String>> {
    let workflows: BTreeSet<&str> = model.workflows.values().flatten().map(String::as_str).collect();
    let covered = model.operations.iter().filter(|o| policy.covers(o));
    let tools: BTreeSet<&str> = covered.map(|o| o.tool.owner.as_str()).collect();
    let mut cases = vec![Vec::new()];
    for group in &approvers.groups {
        let choices: Vec<&str> = match group.as_str() {
            WORKFLOW_OWNER => workflows.iter().copied().collect(),
            TOOL_OWNER => tools.iter().copied().collect(),
            name => vec![name],
        };
        cases = cases
            .iter()
            .flat_map(|c: &Vec<String>| choices.iter().map(|g| c.iter().cloned().chain([(*g).to_owned()]).collect()))
            .collect();
    }
    cases
}

fn unfillable(groups: &[String], all: bool, policy: &Policy, model: &Model) -> Option<Finding> {
    let people: Vec<BTreeSet<&str>> = groups.iter().map(|g| model.people_in(g)).collect();
    let missing = groups.iter().zip(&people).find(|(_, p)| p.is_empty()).map(|(g, _)| g);
    let everyone: BTreeSet<&str> = people.iter().flatten().copied().collect();
    if let Some(group) = missing.filter(|_| all || everyone.is_empty()) {
        let text = format!("nobody is in `{group}`, so nobody could release what `{}` holds", policy.id);
        return Some(Finding::error("policy-quorum", text));
    }
    if policy.lift != Lift::Dual {
        return missing.map(|group| {
            let text =
                format!("nobody is in `{group}`, one of the groups that could release what `{}` holds", policy.id);
            Finding::new(Severity::Warning, "policy-quorum", text)
        });
    }
    let places = if all { people.len() } else { 1 };
    let enough = everyone.len() >= places.max(2) && (!all || fill(&people, &mut BTreeSet::new()));
    let text = format!("`{}` needs {} distinct people of {}", policy.id, places.max(2), groups.join(", "));
    (!enough).then(|| Finding::error("policy-quorum", text).with_help("there are not as many reviewers in them"))
}

/// Whether each place can have a person of its own.
fn fill<'p>(places: &[BTreeSet<&'p str>], taken: &mut BTreeSet<&'p str>) -> bool {
    let Some((first, rest)) = places.split_first() else { return true };
    first.iter().any(|person| {
        let free = taken.insert(person);
        let filled = free && fill(rest, taken);
        if free && !filled {
            taken.remove(person);
        }
        filled
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_needs_a_person_of_its_own() {
        let set = |names: &[&'static str]| names.iter().copied().collect::<BTreeSet<_>>();
        assert!(fill(&[set(&["a", "b"]), set(&["a"])], &mut BTreeSet::new()));
        assert!(!fill(&[set(&["a"]), set(&["a"])], &mut BTreeSet::new()));
        assert!(!fill(&[set(&["a"]), set(&[])], &mut BTreeSet::new()));
    }
}
