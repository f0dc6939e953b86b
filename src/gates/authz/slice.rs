//! What is known of an operation before any call: its policies, its entities, what its context must hold.

use std::collections::BTreeSet;
use std::sync::Arc;

use cedar_policy::{Context, Entities, EntityUid, PolicySet};

use super::context;
use super::entities::{self, Kind};
use super::visible::Visibility;
use crate::call::{Fault, Operation, Tier};
use crate::policy::input::Record;
use crate::policy::{Lift, Loaded, Policy};

/// One operation, ready to be asked about.
pub(super) struct Slice {
    /// The policies that can apply.
    pub set: PolicySet,
    /// Whether any of them looks at the approval; if none does, higher rungs answer alike.
    pub asks_approval: bool,
    /// The approval at each rung; empty when no policy reads it.
    pub approvals: Vec<(Tier, Context)>,
    /// Which context members they read.
    pub wants: Wants,
    /// The declared arguments.
    pub input: Record,
    /// The action.
    pub action: EntityUid,
    /// The tool.
    pub tool: EntityUid,
    /// Action and tool as entities.
    pub fixed: Entities,
    /// To whom it shows.
    pub visibility: Visibility,
}

impl Slice {
    pub(super) fn new(loaded: &Loaded, operation: &Operation, policies: &[&Arc<Policy>]) -> Result<Self, Fault> {
        let input = loaded.inputs().get(&operation.name).cloned();
        let wants = Wants::of(policies);
        let fixed = [entities::action_entity(operation)?, entities::tool_entity(&operation.tool)?];
        let fixed = Entities::from_entities(fixed, None).map_err(|e| Fault::caused("entities do not fit", e))?;
        Ok(Self {
            set: set(policies)?,
            asks_approval: policies.iter().any(|p| p.lift != Lift::Never),
            approvals: if wants.group("approval") { context::approvals()? } else { Vec::new() },
            wants,
            input: input.ok_or_else(|| Fault::new("an operation is missing from its schema"))?,
            action: entities::action(&operation.name)?,
            tool: entities::uid(Kind::Tool, &operation.tool.name)?,
            fixed,
            visibility: Visibility::of(policies, operation),
        })
    }
}

/// A Cedar set of these policies.
pub(super) fn set(policies: &[&Arc<Policy>]) -> Result<PolicySet, Fault> {
    PolicySet::from_policies(policies.iter().map(|p| p.cedar.clone()))
        .map_err(|e| Fault::caused("Cedar refuses a set that it has validated", e))
}

/// Which members of the context the policies of a slice read, two levels deep. What nobody reads is not built.
#[derive(Debug, Default)]
pub(super) struct Wants {
    everything: bool,
    paths: BTreeSet<(String, Option<String>)>,
}

impl Wants {
    fn of(policies: &[&Arc<Policy>]) -> Self {
        let mut wants = Self::default();
        for policy in policies {
            let Some(reads) = &policy.reads else { return Self::everything() };
            for path in reads {
                let Some(first) = path.first() else { return Self::everything() };
                wants.paths.insert((first.clone(), path.get(1).cloned()));
            }
        }
        wants
    }

    /// Every declared member.
    pub(super) fn everything() -> Self {
        Self { everything: true, paths: BTreeSet::new() }
    }

    /// Whether anything below this member is read.
    pub(super) fn group(&self, name: &str) -> bool {
        self.everything || self.paths.iter().any(|(first, _)| first == name)
    }

    /// Whether this member of a group is read, or the group as a whole.
    pub(super) fn member(&self, group: &str, name: &str) -> bool {
        let hit =
            |(first, second): &(String, Option<String>)| first == group && second.as_deref().is_none_or(|s| s == name);
        self.everything || self.paths.iter().any(hit)
    }
}
