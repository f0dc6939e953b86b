//! The admin plane: what people may do with holds and with Holdpoint itself. Only admin policies are asked.

use std::collections::HashSet;

use cedar_policy::{Context, Entities, Entity, Request, RestrictedExpression};

use super::entities::{self, Kind};
use super::{Policies, ask, context};
use crate::call::{Fault, PolicyNote, Tier, Timestamp};
use crate::policy::schema;

/// May this person do this?
#[derive(Debug, Clone, PartialEq)]
pub struct AdminQuestion<'a> {
    /// The person; Cedar's `User::"…"`.
    pub user: &'a str,
    /// The teams that were proven.
    pub groups: &'a [String],
    /// The verified e-mail.
    pub email: Option<&'a str>,
    /// `hold.approve` …
    pub action: &'a str,
    /// What it is done to.
    pub resource: AdminResource<'a>,
    /// Whether a fresh second factor was proven.
    pub mfa: bool,
    /// `page`, `api`, `cli`, `slack` …
    pub channel: &'a str,
    /// The time of the decision.
    pub now: Timestamp,
}

/// What an admin action is done to.
#[derive(Debug, Clone, PartialEq)]
pub enum AdminResource<'a> {
    /// One hold.
    Hold(HoldFacts<'a>),
    /// Holdpoint itself, or a call that has no hold.
    System,
}

/// What policies may know of a hold.
#[derive(Debug, Clone, PartialEq)]
pub struct HoldFacts<'a> {
    /// Its id.
    pub id: String,
    /// The tool of its call.
    pub tool: &'a str,
    /// Its tier.
    pub tier: Tier,
    /// The workflow of its call.
    pub workflow: &'a str,
    /// The person for whom the agent acts.
    pub requested_by: Option<&'a str>,
    /// Every team that some requirement names.
    pub approvers: Vec<&'a str>,
    /// The money at stake, in minor units.
    pub amount_minor: Option<i64>,
}

/// The answer, and the policies that decided.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminAnswer {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Permits that allow it, or forbids that refuse it; empty when no permit applies or nothing could be decided.
    pub because: Vec<PolicyNote>,
}

impl Policies {
    /// Whether a person may do something. An evaluation error refuses.
    pub fn admin(&self, question: &AdminQuestion<'_>) -> AdminAnswer {
        let no = AdminAnswer { allowed: false, because: Vec::new() };
        if !schema::is_admin(question.action) {
            return no;
        }
        let prepared = self.admin_entities(question).and_then(|e| Ok((self.admin_request(question)?, e)));
        let (request, entities) = match prepared {
            Ok(ready) => ready,
            Err(fault) => {
                tracing::error!(fault = %fault.chain(), action = question.action, "an admin question does not fit");
                return no;
            }
        };
        match ask::decide(&self.authorizer, &request, &self.admin, &entities) {
            Ok(asked) => AdminAnswer { allowed: asked.allowed, because: self.notes(&asked.policies) },
            Err(broken) => {
                broken.iter().for_each(|id| (self.on_error)(id));
                no
            }
        }
    }

    fn admin_request(&self, q: &AdminQuestion<'_>) -> Result<Request, Fault> {
        let pairs = [
            ("mfa".to_owned(), RestrictedExpression::new_bool(q.mfa)),
            ("channel".to_owned(), entities::text(q.channel)),
            ("now".to_owned(), context::datetime(q.now)),
        ];
        let context = Context::from_pairs(pairs).map_err(|e| Fault::caused("no admin context", e))?;
        let resource = match &q.resource {
            AdminResource::Hold(hold) => entities::uid(Kind::Hold, &hold.id)?,
            AdminResource::System => entities::uid(Kind::System, "holdpoint")?,
        };
        let (user, action) = (entities::uid(Kind::User, q.user)?, entities::action(q.action)?);
        Request::new(user, action, resource, context, Some(self.loaded.schema()))
            .map_err(|e| Fault::caused("an admin question is outside the schema", e))
    }

    pub(super) fn admin_entities(&self, q: &AdminQuestion<'_>) -> Result<Entities, Fault> {
        let action =
            Entity::new_no_attrs(entities::action(q.action)?, HashSet::from([entities::action(schema::ADMIN)?]));
        let mut all = vec![action, entities::user_entity(q.user, q.email, q.groups)?];
        if let AdminResource::Hold(hold) = &q.resource {
            let tool = self.loaded.model().all_tools().get(hold.tool).copied().cloned();
            all.extend(tool.map(|t| entities::tool_entity(&t)).transpose()?);
            all.push(hold_entity(hold)?);
        }
        Entities::from_entities(all, None).map_err(|e| Fault::caused("entities do not fit", e))
    }
}

fn hold_entity(hold: &HoldFacts<'_>) -> Result<Entity, Fault> {
    let entity = |kind: Kind, id: &str| entities::uid(kind, id).map(RestrictedExpression::new_entity_uid);
    let teams = hold.approvers.iter().map(|t| entity(Kind::Team, t)).collect::<Result<Vec<_>, _>>()?;
    let mut attributes = vec![
        ("tool".to_owned(), entity(Kind::Tool, hold.tool)?),
        ("tier".to_owned(), entities::text(hold.tier.as_str())),
        ("workflow".to_owned(), entities::text(hold.workflow)),
        ("approvers".to_owned(), RestrictedExpression::new_set(teams)),
    ];
    if let Some(person) = hold.requested_by {
        attributes.push(("requestedBy".to_owned(), entity(Kind::User, person)?));
    }
    attributes.extend(hold.amount_minor.map(|a| ("amountMinor".to_owned(), RestrictedExpression::new_long(a))));
    entities::entity(entities::uid(Kind::Hold, &hold.id)?, attributes, HashSet::new(), Vec::new())
}
