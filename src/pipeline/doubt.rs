//! A call like one whose outcome is unknown goes to people: models ask again under new keys, and what may have
//! happened must not happen twice because of that.

use crate::call::{Needs, Outcome, Refusal, Requirement, Terms, Tier, Why, duration_text};
use crate::gates::authz::{Permit, Verdict};
use crate::signals::Entry;
use crate::store::State;

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

/// Stands where a policy's `@id` would.
const DELAY: &str = "holdpoint:delay";

impl Pipeline {
    /// A call that policy allows, of an operation that waits before it is sent: until then it can be taken back.
    pub(super) async fn delay(&self, a: &Asking<'_>, permit: &Permit, entry: &mut Entry) -> Result<Outcome, Refusal> {
        let delay = a.call.operation().delay.unwrap_or_default();
        let reason =
            format!("It is sent {} after it was asked for, and can be taken back until then.", duration_text(delay));
        let why = Why { policy: DELAY.into(), reason, at: String::new(), rung: 0 };
        let mut terms = owners(a, why);
        (terms.tier, terms.needs.people) = (permit.tier(), 0);
        self.parked(a, State::Approved, permit.policies().to_vec(), terms, entry).await
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
