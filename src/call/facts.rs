//! What the proxy knows about a call beside the call itself: everything that policy may see and that
//! code computes. A fact that nothing computes has no field here and none in the generated schema.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CallContext, Principal, Tier, Timestamp};

/// Facts for one decision, gathered once. Records keep them, so that the question can be asked again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Facts {
    /// The time of the decision.
    pub now: Timestamp,
    /// Kinds of evidence that are attached.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub evidence: BTreeSet<String>,
    /// Address of the peer that sent the call.
    pub source_ip: IpAddr,
    /// How much of each budget is used.
    #[serde(default, skip_serializing_if = "is_default")]
    pub budget: Meters,
    /// What this agent did of late.
    #[serde(default, skip_serializing_if = "is_default")]
    pub history: History,
    /// How far this agent is trusted with this operation, in the workflow in which it is trusted least.
    #[serde(default, skip_serializing_if = "is_default")]
    pub trust: Trust,
}

/// What was nothing is not written down.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What policy says to a call, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// It runs by itself.
    Low,
    /// One person lets it pass.
    Medium,
    /// Two people let it pass.
    High,
    /// Nobody does.
    Deny,
}

impl Judgement {
    /// The word that tests, records and metrics use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Deny => "deny",
        }
    }
}

impl From<Tier> for Judgement {
    fn from(tier: Tier) -> Self {
        match tier {
            Tier::Low => Self::Low,
            Tier::Medium => Self::Medium,
            Tier::High => Self::High,
        }
    }
}

/// What does not rule, but was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Beside {
    /// The whole set, while `policies.mode` is `observe`.
    Observed,
    /// The set as it would be with its shadow policies.
    Shadow,
}

/// What policy would have said where it does not rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Would {
    /// Who would have said it.
    pub by: Beside,
    /// What.
    pub judgement: Judgement,
    /// The policies that decide.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
}

/// A question to policy as the notes of reads and of refused calls keep it. Redacted arguments are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Who asked.
    pub principal: Arc<Principal>,
    /// In which work.
    pub context: CallContext,
    /// With which arguments.
    pub arguments: Value,
    /// What was known beside.
    pub facts: Facts,
    /// What policy said.
    pub judgement: Judgement,
    /// What it would have said where it does not rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub would: Vec<Would>,
}

/// How much of one budget is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Meter {
    /// Used and reserved, in percent of the limit, rounded down; 0 where no budget is configured.
    #[serde(default)]
    pub used_pct: i64,
    /// What is left in minor units, for money budgets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_minor: Option<i64>,
}

/// The budgets that apply to a call: the worst meter of each scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Meters {
    /// This step of the run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub step: Meter,
    /// This run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub run: Meter,
    /// The person acted for, or the agent where there is none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub user: Meter,
    /// The organisation.
    #[serde(default, skip_serializing_if = "is_default")]
    pub org: Meter,
}

impl Meters {
    /// The highest percentage of all scopes.
    #[must_use]
    pub fn worst_pct(&self) -> i64 {
        [self.step, self.run, self.user, self.org].iter().map(|m| m.used_pct).max().unwrap_or(0)
    }
}

/// How far an agent is trusted with one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Trust {
    /// 0 to 100. Surprises spend it at once; what goes as it should earns it back slowly.
    pub score: i64,
    /// Surprises in the last seven days.
    #[serde(default, skip_serializing_if = "is_default")]
    pub surprises_7d: i64,
}

impl Default for Trust {
    /// Of which nothing is known.
    fn default() -> Self {
        Self { score: 50, surprises_7d: 0 }
    }
}

/// What an agent did of late, from the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct History {
    /// Calls begun in this run before this one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub calls_this_run: i64,
    /// Calls of this agent in the last hour before this one, refused ones included.
    #[serde(default, skip_serializing_if = "is_default")]
    pub calls_last_hour: i64,
    /// Calls of this agent that policy refused in the last hour.
    #[serde(default, skip_serializing_if = "is_default")]
    pub denied_last_hour: i64,
    /// Money that this agent moved since midnight UTC, in minor units of the operation's currency.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sum_minor_today: i64,
    /// Nothing succeeded before with this operation on this target (`target:` in the configuration).
    #[serde(default, skip_serializing_if = "is_default")]
    pub first_time_target: bool,
}
