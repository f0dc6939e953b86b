//! What the configuration tells policy: the nouns that policies may name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::call::{Operation, Tool};

/// A person who may review, as far as the identity source can list them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reviewer {
    /// The person; Cedar's `User::"…"`.
    pub user: String,
    /// The teams that this person is in.
    pub groups: Vec<String>,
}

/// What the configuration tells policy.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    /// Every operation; Cedar's agent actions.
    pub operations: Vec<Arc<Operation>>,
    /// Every tool; Cedar's resources. Tools of `operations` need not be repeated.
    pub tools: Vec<Arc<Tool>>,
    /// Agent groups that the configuration names. Tokens may bring others.
    pub agent_groups: BTreeSet<String>,
    /// Teams that the configuration names beside those of reviewers, tools and workflows.
    pub teams: BTreeSet<String>,
    /// Workflows and the team that owns each.
    pub workflows: BTreeMap<String, Option<String>>,
    /// The workflow of agents that name none.
    pub default_workflow: String,
    /// The stage of each workflow.
    pub stages: BTreeMap<String, String>,
    /// Stages that some workflow is in: what they demand of writes is part of the set.
    pub stages_in_force: BTreeSet<String>,
    /// Every reviewer, when the identity source can list them; `None` when it cannot.
    pub reviewers: Option<Vec<Reviewer>>,
}

impl Model {
    /// Every tool, each once, by name.
    #[must_use]
    pub fn all_tools(&self) -> BTreeMap<&str, &Arc<Tool>> {
        self.tools.iter().chain(self.operations.iter().map(|o| &o.tool)).map(|t| (t.name.as_str(), t)).collect()
    }

    /// Every team that the configuration knows.
    #[must_use]
    pub fn all_teams(&self) -> BTreeSet<&str> {
        let owners = self.all_tools().into_values().map(|t| t.owner.as_str());
        let workflows = self.workflows.values().flatten().map(String::as_str);
        let reviewers = self.reviewers.iter().flatten().flat_map(|r| r.groups.iter().map(String::as_str));
        self.teams.iter().map(String::as_str).chain(owners).chain(workflows).chain(reviewers).collect()
    }

    /// The people in a team, where the identity source can list them.
    #[must_use]
    pub fn people_in(&self, team: &str) -> BTreeSet<&str> {
        let reviewers = self.reviewers.iter().flatten();
        reviewers.filter(|r| r.groups.iter().any(|g| g == team)).map(|r| r.user.as_str()).collect()
    }
}

/// Clocks of a tier, where the deciding policies name none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierDefaults {
    /// How soon somebody should look.
    pub sla: Duration,
    /// From parking to the last vote.
    pub expires: Duration,
    /// From the last vote to the send.
    pub window: Duration,
}

/// Clocks of both tiers (`reviews:` in the configuration).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// One approval.
    pub medium: TierDefaults,
    /// Two people.
    pub high: TierDefaults,
}

impl Default for Defaults {
    fn default() -> Self {
        let minutes = |m: u64| Duration::from_secs(m * 60);
        Self {
            medium: TierDefaults { sla: minutes(15), expires: minutes(240), window: minutes(240) },
            high: TierDefaults { sla: minutes(10), expires: minutes(30), window: minutes(30) },
        }
    }
}
