//! A call like one whose outcome is unknown goes to people: models ask again under new keys, and what may have
//! happened must not happen twice because of that.

use crate::call::{Needs, Refusal, Requirement, Terms, Tier, Why};
use crate::gates::authz::Verdict;

use super::{Asking, Pipeline};

/// Stands where a policy's `@id` would; no policy can be named so.
const DUPLICATE: &str = "holdpoint:possible-duplicate";

impl Pipeline {
    /// What policy said, unless the call may be a duplicate of one that may have happened: then it is held.
    pub(super) fn doubted(&self, a: &Asking<'_>, verdict: Verdict) -> Result<Verdict, Refusal> {
        let operation = a.call.operation();
        if operation.effects.is_read() {
            return Ok(verdict);
        }
        let Some(other) = self.store.unknown_like(a.principal, &operation.name, &a.call.fingerprint())? else {
            return Ok(verdict);
        };
        let reason = format!("Possible duplicate of {other}, whose outcome is not known.");
        let why = Why { policy: DUPLICATE.into(), reason, at: String::new(), rung: 1 };
        Ok(Verdict::Hold(match verdict {
            Verdict::Hold(mut terms) => {
                terms.why.push(why);
                terms
            }
            Verdict::Allow(_) => owners(a, why),
        }))
    }
}

/// Those who own the tool can look whether it has happened.
fn owners(a: &Asking<'_>, why: Why) -> Terms {
    let groups = vec![a.call.operation().tool.owner.clone()];
    let requirement = Requirement { policy: why.policy.clone(), groups, all: false };
    let (sla, expires, window) = a.s.config.reviews.medium;
    Terms {
        tier: Tier::Medium,
        why: vec![why],
        needs: Needs { people: 1, requirements: vec![requirement], justification: false, evidence: Vec::new() },
        sla,
        expires,
        window,
        policy_digest: a.s.policies.digest(),
    }
}
