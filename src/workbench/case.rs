//! One question to policy, written down: by a test, by the command line, or by the record of a call.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::call::{AuthMethod, CallContext, Facts, History, Meter, Meters, Operation, Principal, Timestamp, Trust};
use crate::gates::authz::{Policies, Question};
use crate::policy::Model;

use super::history::Recorded;

/// All that policy is asked about a call, kept.
#[derive(Debug, Clone)]
pub struct Case {
    /// Who asks.
    pub principal: Arc<Principal>,
    /// For what.
    pub operation: Arc<Operation>,
    /// The argument object.
    pub arguments: Value,
    /// In which work.
    pub context: CallContext,
    /// What the proxy knew.
    pub facts: Facts,
}

impl Case {
    /// The question, as policy is asked it.
    #[must_use]
    pub fn question(&self) -> Question<'_> {
        Question {
            principal: &self.principal,
            operation: &self.operation,
            arguments: &self.arguments,
            context: &self.context,
            facts: &self.facts,
        }
    }
}

/// Why a recorded call cannot be asked about again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unasked {
    /// The configuration has no such operation any more.
    Unknown(String),
    /// Policies read an argument that records do not show.
    Redacted(String),
    /// Today's schema has another shape than the arguments that were recorded.
    Unfit(String),
}

impl std::fmt::Display for Unasked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "the configuration has no operation `{name}`"),
            Self::Unfit(what) => write!(f, "the recorded arguments do not fit ({what})"),
            Self::Redacted(what) => write!(f, "policies read an argument that records do not show ({what})"),
        }
    }
}

impl Case {
    /// A recorded call, as far as its record tells. What these policies read must be there.
    ///
    /// # Errors
    /// Why it cannot be asked about.
    pub fn recorded(recorded: &Recorded, policies: &Policies) -> Result<Self, Unasked> {
        let operation = policies.loaded().model().operations.iter().find(|o| o.name == recorded.operation);
        let operation = operation.ok_or_else(|| Unasked::Unknown(recorded.operation.clone()))?;
        let mut arguments = (*recorded.arguments).clone();
        for name in recorded.redacted() {
            if policies.reads(operation, &name) {
                return Err(Unasked::Redacted(format!("{}: {name}", recorded.operation)));
            }
            if let Some(members) = arguments.as_object_mut() {
                members.remove(&name);
            }
        }
        let nothing = || Facts {
            now: recorded.at,
            evidence: BTreeSet::new(),
            source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            budget: Meters::default(),
            history: History::default(),
            trust: Trust::default(),
        };
        Ok(Self {
            principal: Arc::clone(&recorded.principal),
            operation: Arc::clone(operation),
            arguments,
            context: (*recorded.context).clone(),
            facts: recorded.facts.as_deref().cloned().unwrap_or_else(nothing),
        })
    }

    /// The money that the call moves, where its operation says which argument that is.
    #[must_use]
    pub fn money(&self) -> Option<(i64, String)> {
        let (amount, currency) = self.operation.cost.amount.as_ref()?;
        let amount = self.arguments.pointer(amount)?.as_i64()?;
        Some((amount, self.arguments.pointer(currency)?.as_str()?.to_owned()))
    }
}

/// The agent of a test.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AgentGiven {
    /// Its id; `agent` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its one group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its groups, when there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Its organisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// The team that owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The person it acts for; `context.call.onBehalfOf`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
    /// Verified claims; `principal.getTag("…")`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, String>,
}

/// The work in which a call of a test stands.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkflowGiven {
    /// Its name; the configuration's `default_workflow` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `assist`, `verify`, `execute` or `checkpointed`; that of the configuration when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// The step, in the agent's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// How much of one budget is used.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MeterGiven {
    /// In percent of the limit.
    #[serde(default)]
    pub used_pct: i64,
    /// What is left, in minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_minor: Option<i64>,
}

/// The budgets of a test.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BudgetGiven {
    /// The highest percentage; put on the organisation where no scope says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_pct: Option<i64>,
    /// This step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<MeterGiven>,
    /// This run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<MeterGiven>,
    /// The person acted for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<MeterGiven>,
    /// The organisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<MeterGiven>,
}

/// What the agent did of late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct HistoryGiven {
    /// Calls begun in this run before this one.
    #[serde(skip_serializing_if = "is_zero")]
    pub calls_this_run: i64,
    /// Calls of this agent in the last hour.
    #[serde(skip_serializing_if = "is_zero")]
    pub calls_last_hour: i64,
    /// Those of them that policy refused.
    #[serde(skip_serializing_if = "is_zero")]
    pub denied_last_hour: i64,
    /// Money moved since midnight UTC, in minor units.
    #[serde(skip_serializing_if = "is_zero")]
    pub sum_minor_today: i64,
    /// Nothing succeeded before on this target.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub first_time_target: bool,
}

/// How far the agent is trusted with this operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct TrustGiven {
    /// 0 to 100; 50, with which everybody begins, when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub score: Option<i64>,
    /// Surprises in the last seven days.
    #[serde(rename = "surprises7d", skip_serializing_if = "is_zero")]
    pub surprises_7d: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// What a test gives beside the call itself; what is absent comes from `defaults`, and then from nothing spent and
/// nothing done before.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Given {
    /// Who calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentGiven>,
    /// In which work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<WorkflowGiven>,
    /// The time of the decision, RFC 3339; noon of Monday 2026-01-05 when absent everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
    /// How much is spent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetGiven>,
    /// What the agent did of late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<HistoryGiven>,
    /// How far the agent is trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<TrustGiven>,
    /// Kinds of evidence that are attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<BTreeSet<String>>,
    /// Where the call came from; loopback when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ip: Option<IpAddr>,
}

/// Monday 2026-01-05, 12:00 UTC.
const NOON: i64 = 1_767_614_400_000;

impl Given {
    /// What is absent here, from there.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        let other = other.clone();
        Self {
            agent: self.agent.or(other.agent),
            workflow: self.workflow.or(other.workflow),
            now: self.now.or(other.now),
            budget: self.budget.or(other.budget),
            history: self.history.or(other.history),
            trust: self.trust.or(other.trust),
            evidence: self.evidence.or(other.evidence),
            source_ip: self.source_ip.or(other.source_ip),
        }
    }

    /// A case of these facts.
    ///
    /// # Errors
    /// A fact that is none, in words.
    pub fn case(self, operation: &Arc<Operation>, arguments: Value, model: &Model) -> Result<Case, String> {
        let now = self.now()?;
        let source_ip = self.source_ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let facts = Facts {
            now,
            evidence: self.evidence.unwrap_or_default(),
            source_ip,
            budget: meters(self.budget.unwrap_or_default())?,
            history: history(self.history.unwrap_or_default()),
            trust: trust(self.trust.unwrap_or_default())?,
        };
        Ok(Case {
            principal: Arc::new(principal(self.agent.unwrap_or_default())),
            operation: Arc::clone(operation),
            arguments,
            context: context(self.workflow.unwrap_or_default(), model)?,
            facts,
        })
    }

    /// The time of the decision.
    ///
    /// # Errors
    /// When it is no time.
    pub fn now(&self) -> Result<Timestamp, String> {
        let Some(text) = &self.now else { return Ok(Timestamp::from_millis(NOON)) };
        text.parse().map_err(|_| format!("`now: {text}` is no time such as 2026-11-23T13:00:00Z"))
    }
}

fn principal(agent: AgentGiven) -> Principal {
    let id = agent.id.unwrap_or_else(|| "agent".to_owned());
    Principal {
        groups: agent.group.into_iter().chain(agent.groups).collect(),
        org: agent.org.unwrap_or_else(|| "default".to_owned()),
        owner: agent.owner,
        operator: None,
        acting_for: agent.on_behalf_of,
        acting_for_email: None,
        claims: agent.claims,
        method: AuthMethod::ApiKey,
        subject: format!("test|{id}"),
        agent: id,
    }
}

/// The stages that a workflow can be in.
pub const STAGES: [&str; 4] = ["assist", "verify", "execute", "checkpointed"];

fn context(given: WorkflowGiven, model: &Model) -> Result<CallContext, String> {
    let name = given.name.unwrap_or_else(|| model.default_workflow.clone());
    if !model.workflows.contains_key(&name) {
        let known: Vec<&str> = model.workflows.keys().map(String::as_str).collect();
        return Err(format!("the configuration has no workflow `{name}`; it has {}", known.join(", ")));
    }
    let stage = given.stage.or_else(|| model.stages.get(&name).cloned()).unwrap_or_else(|| "execute".to_owned());
    if !STAGES.contains(&stage.as_str()) {
        return Err(format!("`{stage}` is no stage; there are {}", STAGES.join(", ")));
    }
    Ok(CallContext { workflow: name, stage, run: "test".to_owned(), step: given.step, ..CallContext::default() })
}

fn meters(given: BudgetGiven) -> Result<Meters, String> {
    let meter = |m: Option<MeterGiven>| {
        m.map_or_else(Meter::default, |m| Meter { used_pct: m.used_pct, remaining_minor: m.remaining_minor })
    };
    let mut all =
        Meters { step: meter(given.step), run: meter(given.run), user: meter(given.user), org: meter(given.org) };
    match given.worst_pct {
        Some(worst) if all.worst_pct() < worst && given.org.is_none() => all.org.used_pct = worst,
        Some(worst) if all.worst_pct() != worst => {
            return Err(format!("`budget.worstPct: {worst}` does not fit the scopes beside it"));
        }
        _ => {}
    }
    Ok(all)
}

fn trust(given: TrustGiven) -> Result<Trust, String> {
    let score = given.score.unwrap_or(Trust::default().score);
    if !(0..=100).contains(&score) {
        return Err(format!("`trust.score: {score}` is not 0 to 100"));
    }
    if given.surprises_7d < 0 {
        return Err(format!("`trust.surprises7d: {}` is less than nothing", given.surprises_7d));
    }
    Ok(Trust { score, surprises_7d: given.surprises_7d })
}

fn history(given: HistoryGiven) -> History {
    History {
        calls_this_run: given.calls_this_run,
        calls_last_hour: given.calls_last_hour,
        denied_last_hour: given.denied_last_hour,
        sum_minor_today: given.sum_minor_today,
        first_time_target: given.first_time_target,
    }
}
