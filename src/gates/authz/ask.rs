//! One question to Cedar, with any approval.

use cedar_policy::{AuthorizationError, Authorizer, Context, Decision, Entities, EntityUid, Request};

use serde_json::Value;

use super::context;
use super::entities::{self, Kind};
use super::slice::Slice;
use crate::call::{Call, CallContext, Facts, Fault, Operation, Principal, Refusal, Tier};

/// All that policy is asked about a call, but the approval. A call on its way makes one, and so does whoever wants to
/// know what policy would say.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// For what.
    pub operation: &'a Operation,
    /// The one argument object.
    pub arguments: &'a Value,
    /// In which work.
    pub context: &'a CallContext,
    /// What the proxy knows beside.
    pub facts: &'a Facts,
}

impl<'a> Question<'a> {
    /// The question of a call.
    #[must_use]
    pub fn of(principal: &'a Principal, call: &'a Call, facts: &'a Facts) -> Self {
        Self { principal, operation: call.operation(), arguments: call.arguments(), context: call.context(), facts }
    }
}

/// All of a question but the approval: built once, put at each rung.
pub(super) struct Asking<'a> {
    pub slice: &'a Slice,
    principal: EntityUid,
    entities: Entities,
    context: Context,
}

/// Stands for the policy where no question could be put at all.
const INTERNAL: &str = "(internal)";

/// Cedar's answer.
pub(super) struct Asked {
    pub allowed: bool,
    /// The policies that decided.
    pub policies: Vec<String>,
}

impl<'a> Asking<'a> {
    pub(super) fn new(slice: &'a Slice, q: &Question<'_>) -> Result<Self, Refusal> {
        let p = q.principal;
        let principal = entities::uid(Kind::Agent, &p.agent)?;
        let mut own = vec![entities::agent_entity(principal.clone(), p)?];
        if let Some(person) = p.acting_for.as_deref().filter(|_| slice.wants.member("call", "onBehalfOf")) {
            own.push(entities::user_entity(person, p.acting_for_email.as_deref(), &[])?);
        }
        let entities = slice.fixed.clone().add_entities(own, None);
        let entities = entities.map_err(|e| Fault::caused("entities do not fit", e))?;
        let context = context::build(&slice.wants, &slice.input, q)?;
        Ok(Self { slice, principal, entities, context })
    }

    /// Puts the question at a rung. Errs with the ids of the policies that could not be evaluated.
    pub(super) fn put(&self, authorizer: &Authorizer, tier: Tier) -> Result<Asked, Vec<String>> {
        let unfit = |e: Fault| {
            tracing::error!(error = %e.chain(), "a question could not be put to policy");
            vec![INTERNAL.to_owned()]
        };
        let request = self.request(tier).map_err(unfit)?;
        decide(authorizer, &request, &self.slice.set, &self.entities)
    }

    /// The question as Cedar is asked.
    pub(super) fn at(&self, tier: Tier) -> Result<(Request, &Entities), Fault> {
        Ok((self.request(tier)?, &self.entities))
    }

    fn request(&self, tier: Tier) -> Result<Request, Fault> {
        let context = self.context_at(tier)?;
        let (action, tool) = (self.slice.action.clone(), self.slice.tool.clone());
        Request::new(self.principal.clone(), action, tool, context, None)
            .map_err(|e| Fault::caused("a question does not fit", e))
    }

    fn context_at(&self, tier: Tier) -> Result<Context, Fault> {
        let context = self.context.clone();
        match self.slice.approvals.iter().find(|(t, _)| *t == tier) {
            Some((_, approval)) => {
                context.merge(approval.clone()).map_err(|e| Fault::caused("contexts do not merge", e))
            }
            None if self.slice.wants.group("approval") => Err(Fault::new("a rung has no approval")),
            None => Ok(context),
        }
    }
}

/// Asks Cedar. An error in any policy is an error, whatever the decision: Cedar skips the policy and goes on.
pub(super) fn decide(
    authorizer: &Authorizer,
    request: &Request,
    set: &cedar_policy::PolicySet,
    entities: &Entities,
) -> Result<Asked, Vec<String>> {
    let response = authorizer.is_authorized(request, set, entities);
    let broken: Vec<String> = response.diagnostics().errors().map(report).collect();
    if !broken.is_empty() {
        return Err(broken);
    }
    let policies = response.diagnostics().reason().map(ToString::to_string).collect();
    Ok(Asked { allowed: response.decision() == Decision::Allow, policies })
}

fn report(error: &AuthorizationError) -> String {
    let AuthorizationError::PolicyEvaluationError(e) = error;
    let policy = e.policy_id().to_string();
    tracing::error!(policy, error = %e.inner(), "a policy could not be evaluated; the question is refused");
    policy
}
