//! To whom an operation shows, without arguments: by the scopes of its policies.

use std::sync::Arc;

use cedar_policy::{EntityUid, PrincipalConstraint, ResourceConstraint};

use crate::call::{Operation, Principal};
use crate::policy::Policy;

/// The scopes that decide whether an operation shows.
#[derive(Debug)]
pub(super) struct Visibility {
    permits: Vec<Who>,
    forbids: Vec<Who>,
}

/// A principal scope, as far as it can match an agent.
#[derive(Debug)]
enum Who {
    Anyone,
    Agent(String),
    Group(String),
    Org(String),
}

impl Visibility {
    pub(super) fn of(policies: &[&Arc<Policy>], operation: &Operation) -> Self {
        let mut out = Self { permits: Vec::new(), forbids: Vec::new() };
        for policy in policies.iter().filter(|p| resource_fits(&p.cedar.resource_constraint(), operation)) {
            let Some(who) = who(&policy.cedar.principal_constraint()) else { continue };
            match (policy.is_forbid(), policy.cedar.has_non_scope_constraint()) {
                (false, _) => out.permits.push(who),
                (true, false) => out.forbids.push(who),
                (true, true) => {}
            }
        }
        out
    }

    pub(super) fn shows(&self, p: &Principal) -> bool {
        self.permits.iter().any(|w| w.is(p)) && !self.forbids.iter().any(|w| w.is(p))
    }
}

impl Who {
    fn is(&self, p: &Principal) -> bool {
        match self {
            Self::Anyone => true,
            Self::Agent(id) => *id == p.agent,
            Self::Group(id) => p.groups.contains(id),
            Self::Org(id) => *id == p.org,
        }
    }
}

/// The type without its namespace, and the id.
fn parts(uid: &EntityUid) -> (&str, String) {
    (uid.type_name().basename(), uid.id().unescaped().to_owned())
}

fn inside(uid: &EntityUid) -> Option<Who> {
    match parts(uid) {
        ("Agent", id) => Some(Who::Agent(id)),
        ("AgentGroup", id) => Some(Who::Group(id)),
        ("Org", id) => Some(Who::Org(id)),
        _ => None,
    }
}

fn who(constraint: &PrincipalConstraint) -> Option<Who> {
    match constraint {
        PrincipalConstraint::Any => Some(Who::Anyone),
        PrincipalConstraint::Is(kind) => (kind.basename() == "Agent").then_some(Who::Anyone),
        PrincipalConstraint::In(uid) => inside(uid),
        PrincipalConstraint::Eq(uid) => inside(uid).filter(|w| matches!(w, Who::Agent(_))),
        PrincipalConstraint::IsIn(kind, uid) => inside(uid).filter(|_| kind.basename() == "Agent"),
    }
}

fn resource_fits(constraint: &ResourceConstraint, operation: &Operation) -> bool {
    let is_tool = |uid: &EntityUid| parts(uid) == ("Tool", operation.tool.name.clone());
    match constraint {
        ResourceConstraint::Any => true,
        ResourceConstraint::Is(kind) => kind.basename() == "Tool",
        ResourceConstraint::Eq(uid) | ResourceConstraint::In(uid) => is_tool(uid),
        ResourceConstraint::IsIn(kind, uid) => kind.basename() == "Tool" && is_tool(uid),
    }
}
