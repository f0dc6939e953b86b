//! What the proxy knows about a call beside the call itself: everything that policy may see and that
//! code computes. A fact that nothing computes has no field here and none in the generated schema.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// Facts for one decision, gathered once.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The time of the decision.
    pub now: Timestamp,
    /// Kinds of evidence that are attached.
    pub evidence: BTreeSet<String>,
    /// Address of the peer that sent the call.
    pub source_ip: IpAddr,
    /// How much of each budget is used.
    pub budget: Meters,
    /// What this agent did of late.
    pub history: History,
}

/// How much of one budget is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Meter {
    /// Used and reserved, in percent of the limit, rounded down; 0 where no budget is configured.
    pub used_pct: i64,
    /// What is left in minor units, for money budgets.
    pub remaining_minor: Option<i64>,
}

/// The budgets that apply to a call: the worst meter of each scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Meters {
    /// This step of the run.
    pub step: Meter,
    /// This run.
    pub run: Meter,
    /// The person acted for, or the agent where there is none.
    pub user: Meter,
    /// The organisation.
    pub org: Meter,
}

impl Meters {
    /// The highest percentage of all scopes.
    #[must_use]
    pub fn worst_pct(&self) -> i64 {
        [self.step, self.run, self.user, self.org].iter().map(|m| m.used_pct).max().unwrap_or(0)
    }
}

/// What an agent did of late, from the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// Calls begun in this run before this one.
    pub calls_this_run: i64,
    /// Calls of this agent in the last hour before this one, refused ones included.
    pub calls_last_hour: i64,
    /// Calls of this agent that policy refused in the last hour.
    pub denied_last_hour: i64,
    /// Money that this agent moved since midnight UTC, in minor units of the operation's currency.
    pub sum_minor_today: i64,
    /// Nothing succeeded before with this operation on this target (`target:` in the configuration).
    pub first_time_target: bool,
}
