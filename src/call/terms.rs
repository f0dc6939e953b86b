//! Under which terms a call is held: what policy demands before it may run.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much human assent a call needs: the rung of the ladder at which policy allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Runs by itself.
    Low,
    /// One approval.
    Medium,
    /// Two distinct people and a written justification, inside a window.
    High,
}

impl Tier {
    /// `low`, `medium` or `high`, as records, metrics and pages write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// A forbid that decided at some rung below the one that allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Why {
    /// The policy's `@id`.
    pub policy: String,
    /// Its `@reason`.
    pub reason: String,
    /// `file:line`.
    pub at: String,
    /// 1: `granted` would lift it; 2: only `dual` would.
    pub rung: u8,
}

/// One policy's demand for approvers, never merged with another's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// The policy whose `@approvers` this is.
    pub policy: String,
    /// Groups to fill.
    pub groups: Vec<String>,
    /// All of the groups (`a,b`) or any one of them (`a|b`).
    pub all: bool,
}

/// What the approvals of a hold must add up to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Distinct people: 1 for medium, 2 for high, or more where the groups demand it.
    pub people: usize,
    /// Groups to fill, per deciding policy.
    pub requirements: Vec<Requirement>,
    /// A written justification is demanded.
    pub justification: bool,
    /// Kinds of evidence that must be attached before a vote counts.
    pub evidence: Vec<String>,
}

impl Needs {
    /// Every group that is asked, by name, each once.
    #[must_use]
    pub fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> =
            self.requirements.iter().flat_map(|r| r.groups.iter()).map(String::as_str).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}

/// The terms of a hold. Obligations are read from each deciding policy and never merged by key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Medium or high.
    pub tier: Tier,
    /// Why it is held: the deciding forbids, lowest rung first.
    pub why: Vec<Why>,
    /// What lifts them.
    pub needs: Needs,
    /// Shortest `@sla` of the deciding policies, else the tier's default.
    pub sla: Duration,
    /// Shortest `@expires`: from parking to the last vote.
    pub expires: Duration,
    /// Shortest `@window`: from the last vote to the send.
    pub window: Duration,
    /// Digest of the policy set that decided.
    pub policy_digest: super::Digest,
}
