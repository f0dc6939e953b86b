//! What is told of one call: one that somebody describes, or one that was recorded.

use serde_json::{Value, json};

use crate::call::Refusal;
use crate::gates::authz::Match;
use crate::policy::nearest;

use super::case::{AgentGiven, Given, WorkflowGiven};
use super::explain::{Explanation, Looked, explain};
use super::history::Recorded;
use super::{Bench, Case};

/// A call that nobody makes.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// `crm.refund`.
    pub operation: String,
    /// Its arguments.
    pub input: Value,
    /// Who calls.
    pub agent: String,
    /// The agent's groups.
    pub groups: Vec<String>,
    /// In which workflow, and in which stage other than its own.
    pub workflow: Option<String>,
    /// See `workflow`.
    pub stage: Option<String>,
    /// More facts; they rule over those above.
    pub given: Given,
}

impl Wanted {
    fn case(self, bench: &Bench) -> Result<Case, String> {
        let model = bench.policies.loaded().model();
        let operation = model.operations.iter().find(|o| o.name == self.operation).ok_or_else(|| {
            let near = nearest(&self.operation, model.operations.iter().map(|o| o.name.as_str()));
            let near = near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
            format!("the configuration has no operation `{}`{near}", self.operation)
        })?;
        bench.schemas.recheck(operation, &self.input).map_err(|refusal| in_words(&refusal))?;
        let agent = AgentGiven { id: Some(self.agent), groups: self.groups, ..AgentGiven::default() };
        let workflow = WorkflowGiven { name: self.workflow, stage: self.stage, step: None };
        let here = Given { agent: Some(agent), workflow: Some(workflow), ..Given::default() };
        self.given.or(&here).case(operation, self.input, model)
    }
}

/// An explanation, and what it is about.
#[derive(Debug)]
pub struct Told {
    /// The question.
    pub case: Case,
    /// What policy says to it.
    pub explained: Explanation,
    /// The record that the question was taken from.
    pub recorded: Option<Recorded>,
    /// These are the policies that judged it then.
    pub same_policies: bool,
}

impl Told {
    /// Explains a call that somebody describes.
    ///
    /// # Errors
    /// What is wrong with the description.
    pub fn wanted(bench: &Bench, wanted: Wanted) -> Result<Self, String> {
        Self::of(bench, wanted.case(bench)?, None)
    }

    /// Explains a recorded call, as far as its record tells.
    ///
    /// # Errors
    /// Why it cannot be asked about.
    pub fn recorded(bench: &Bench, recorded: Recorded) -> Result<Self, String> {
        let case = Case::recorded(&recorded, &bench.policies).map_err(|why| why.to_string())?;
        Self::of(bench, case, Some(recorded))
    }

    fn of(bench: &Bench, case: Case, recorded: Option<Recorded>) -> Result<Self, String> {
        let explained = explain(bench, &case).map_err(|refusal| in_words(&refusal))?;
        let same_policies = recorded.as_ref().is_none_or(|r| r.policy_digest == Some(bench.policies.digest()));
        Ok(Self { case, explained, recorded, same_policies })
    }

    /// All of it.
    #[must_use]
    pub fn json(&self) -> Value {
        let (e, case) = (&self.explained, &self.case);
        let rungs = e.seen.rungs.iter();
        let rungs = rungs.map(
            |r| json!({"tier": r.tier.as_str(), "allowed": r.allowed, "policies": r.policies, "broken": r.broken}),
        );
        let closest = e.closest.iter();
        let closest = closest.map(|c| json!({"tier": c.judgement.as_str(), "member": c.member, "value": c.value}));
        json!({
            "version": 1, "operation": case.operation.name, "agent": case.principal.agent,
            "workflow": case.context.workflow, "stage": case.context.stage,
            "tier": e.seen.judgement.as_str(), "because": e.seen.because, "rungs": rungs.collect::<Vec<_>>(),
            "policies": e.looked.iter().map(policy_json).collect::<Vec<_>>(),
            "needs": e.seen.terms.as_ref().map(|t| json!(t.needs)), "degrade": e.seen.degrade,
            "closest": closest.collect::<Vec<_>>(),
            "recorded": self.recorded.as_ref().map(|r| json!({
                "call": r.id.to_string(), "at": r.at.to_string(), "tier": r.judgement.as_str(), "state": r.state,
                "same_policies": self.same_policies, "facts": r.facts.is_some(),
            })),
        })
    }
}

fn policy_json(looked: &Looked) -> Value {
    let (how, why) = match &looked.how {
        Match::Yes(why) => ("matched", json!(why)),
        Match::No(why) => ("not_matched", json!(why)),
        Match::Broken(why) => ("broken", json!([why])),
    };
    json!({"policy": looked.policy, "at": looked.at, "forbid": looked.forbid, "how": how, "conditions": why})
}

fn in_words(refusal: &Refusal) -> String {
    let wrong: Vec<String> =
        refusal.errors().iter().map(|e| format!("{} {}", e.pointer, e.message).trim().to_owned()).collect();
    if wrong.is_empty() {
        return refusal.public_text().to_owned();
    }
    format!("{}: {}", refusal.public_text(), wrong.join("; "))
}
