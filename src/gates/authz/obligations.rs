//! The terms of a hold: read from each deciding policy, never merged by key.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Policies, Question};
use crate::call::{Code, Needs, Refusal, Requirement, Terms, Tier, Why};
use crate::policy::{Approvers, Policy, TOOL_OWNER, TierDefaults, WORKFLOW_OWNER};

impl Policies {
    /// What lifts the forbids that decided.
    pub(super) fn terms(&self, q: &Question<'_>, tier: Tier, why: Vec<Why>) -> Result<Terms, Refusal> {
        let found = why.iter().filter_map(|w| Some((w.rung, &self.by_id.get(&w.policy)?.1)));
        let (rungs, policies): (Vec<u8>, Vec<&Arc<Policy>>) = found.unzip();
        let clocks: Vec<TierDefaults> = rungs.iter().zip(&policies).map(|(rung, p)| self.clocks(*rung, p)).collect();
        let requirements = policies.iter().filter_map(|p| self.requirement(p, q).transpose());
        let requirements: Vec<Requirement> = requirements.collect::<Result<_, _>>()?;
        let evidence: BTreeSet<&String> = policies.iter().flat_map(|p| &p.annotations.evidence).collect();
        Ok(Terms {
            tier,
            needs: Needs {
                people: people(tier, &requirements),
                requirements,
                justification: tier == Tier::High || policies.iter().any(|p| p.annotations.justify),
                evidence: evidence.into_iter().cloned().collect(),
            },
            sla: shortest(clocks.iter().map(|c| c.sla)),
            expires: shortest(clocks.iter().map(|c| c.expires)),
            window: shortest(clocks.iter().map(|c| c.window)),
            why,
            policy_digest: self.digest(),
        })
    }

    /// The clocks of one deciding policy: its own, else those of the tier at which it is lifted.
    fn clocks(&self, rung: u8, policy: &Policy) -> TierDefaults {
        let defaults = self.loaded.defaults();
        let tier = if rung >= 2 { defaults.high } else { defaults.medium };
        let own = &policy.annotations;
        TierDefaults {
            sla: own.sla.unwrap_or(tier.sla),
            expires: own.expires.unwrap_or(tier.expires),
            window: own.window.unwrap_or(tier.window),
        }
    }

    fn requirement(&self, policy: &Policy, q: &Question<'_>) -> Result<Option<Requirement>, Refusal> {
        let Some(Approvers { groups, all }) = &policy.annotations.approvers else { return Ok(None) };
        let groups = groups.iter().map(|g| self.resolve(g, q)).collect::<Result<_, _>>()?;
        Ok(Some(Requirement { policy: policy.id.clone(), groups, all: *all }))
    }

    fn resolve(&self, group: &str, q: &Question<'_>) -> Result<String, Refusal> {
        match group {
            TOOL_OWNER => Ok(q.operation.tool.owner.clone()),
            WORKFLOW_OWNER => {
                let owner = self.loaded.model().workflows.get(&q.context.workflow).cloned().flatten();
                let text = "the workflow of this call has no owner who could approve it";
                owner.ok_or_else(|| Refusal::new(Code::Forbidden, text))
            }
            named => Ok(named.to_owned()),
        }
    }
}

/// One person, or for high two, and one for each group of a policy that wants all of its groups:
/// at high, one vote fills one place.
fn people(tier: Tier, requirements: &[Requirement]) -> usize {
    let places = requirements.iter().filter(|r| r.all).map(|r| r.groups.len()).max().unwrap_or(0);
    if tier == Tier::High { places.max(2) } else { 1 }
}

/// At least one policy decided, or the call would not be held.
fn shortest(all: impl Iterator<Item = Duration>) -> Duration {
    all.min().unwrap_or(Duration::ZERO)
}
