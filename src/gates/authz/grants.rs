//! Grants: whether policy lets a reviewer give one, and whether it lets a call pass by one.

use std::collections::BTreeMap;

use super::ask::Asked;
use super::{Policies, Question, broken};
use crate::call::{Call, Code, Digest, Facts, GrantCaps, Principal, Refusal, SampleRate, Terms, Tier};

use super::Permit;

impl Policies {
    /// The widest grant for calls that are held under these terms: what every deciding forbid allows.
    ///
    /// # Errors
    /// Says why there is none.
    pub fn grantable(&self, terms: &Terms) -> Result<GrantCaps, String> {
        if terms.tier != Tier::Medium {
            return Err("calls that need two people are decided one by one".to_owned());
        }
        let mut caps: Option<GrantCaps> = None;
        for why in &terms.why {
            let policy = self.by_id.get(&why.policy).map(|(_, policy)| policy);
            let Some(own) = policy.and_then(|p| p.annotations.grant.as_ref()) else {
                return Err(format!("the policy `{}` allows no grant: it has no `@grant`", why.policy));
            };
            caps = Some(caps.map_or_else(|| own.clone(), |caps| caps.and(own)));
        }
        caps.ok_or_else(|| "no policy holds it".to_owned())
    }

    /// Asks with `granted` alone, for a call whose approval is a grant. Nothing when that is not enough.
    ///
    /// # Errors
    /// [`Code::Forbidden`] when a policy could not be evaluated.
    pub fn authorize_granted(&self, p: &Principal, c: &Call, f: &Facts) -> Result<Option<Permit>, Refusal> {
        let asking = self.asking(&Question::of(p, c, f))?;
        let asked = self.ask(&asking, Tier::Medium).map_err(|policy| broken(c, Code::Forbidden, &policy))?;
        let Asked { allowed, policies } = asked;
        Ok(allowed.then(|| self.permit(c, Tier::Medium, policies)))
    }

    /// How many of the calls that these permits let run are looked at after the fact: as many as any of them says.
    #[must_use]
    pub fn sampled(&self, permit: &Permit) -> SampleRate {
        let rates = permit.policies().iter().filter_map(|id| self.by_id.get(id)?.1.annotations.sample);
        rates.max().unwrap_or(SampleRate::NONE)
    }

    /// The digests of what these policies say; `None` when one of them is not there.
    #[must_use]
    pub fn texts<'p>(&self, ids: impl IntoIterator<Item = &'p str>) -> Option<BTreeMap<String, Digest>> {
        let one = |id: &str| {
            let (_, policy) = self.by_id.get(id)?;
            Some((id.to_owned(), Digest::of(policy.cedar.to_string().as_bytes())))
        };
        ids.into_iter().map(one).collect()
    }
}
