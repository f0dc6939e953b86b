//! What policy would say, in full: for tests, explanations, replays and comparisons. Nothing here mints a permit.

use std::collections::HashMap;

use super::atoms::{self, Match};
use super::slice::Slice;
use super::{Asked, Asking, Policies, Question};
use crate::call::{Judgement, Operation, Refusal, Terms, Tier};
use crate::policy::Policy;

/// Cedar's answer at one rung.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RungAnswer {
    /// With how much approval it was asked.
    pub tier: Tier,
    /// Whether it was allowed.
    pub allowed: bool,
    /// The policies that decided.
    pub policies: Vec<String>,
    /// The policies that could not be evaluated; then the call is refused, whatever the rest says.
    pub broken: Vec<String>,
}

/// Everything that policy says to one question.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// The end of the ladder.
    pub judgement: Judgement,
    /// Why: the permits for a call that runs by itself, else the forbids, in the order of the set.
    pub because: Vec<String>,
    /// The rungs that were asked.
    pub rungs: Vec<RungAnswer>,
    /// What lifts it, for medium and high.
    pub terms: Option<Terms>,
    /// `@degrade` of what denies it.
    pub degrade: Option<String>,
}

impl Inspection {
    /// The policies that could not be evaluated.
    #[must_use]
    pub fn broken(&self) -> &[String] {
        self.rungs.last().map_or(&[], |r| r.broken.as_slice())
    }
}

/// How one policy took a question.
#[derive(Debug, Clone)]
pub struct Matched<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// Whether it applies, and by what.
    pub how: Match,
}

impl Policies {
    /// Climbs the whole ladder and keeps every answer.
    ///
    /// # Errors
    /// As [`Policies::authorize`], when no question can be put: arguments that policy cannot represent, a workflow
    /// without an owner.
    pub fn inspect(&self, q: &Question<'_>) -> Result<Inspection, Refusal> {
        self.inspect_in(self.slice(q)?, q)
    }

    pub(super) fn inspect_in(&self, slice: &Slice, q: &Question<'_>) -> Result<Inspection, Refusal> {
        let asking = Asking::new(slice, q)?;
        let mut rungs: Vec<RungAnswer> = Vec::new();
        for tier in [Tier::Low, Tier::Medium, Tier::High] {
            let rung = self.rung(&asking, tier);
            let over = rung.allowed || !rung.broken.is_empty() || !asking.slice.asks_approval;
            rungs.push(rung);
            if over {
                break;
            }
        }
        self.concluded(q, rungs)
    }

    /// Whether policies of an operation read one of its arguments, in shadow or not.
    #[must_use]
    pub fn reads(&self, operation: &Operation, argument: &str) -> bool {
        let of = |slices: &HashMap<String, Slice>| {
            slices.get(&operation.name).is_some_and(|s| s.wants.member("input", argument))
        };
        of(&self.slices) || of(&self.shadows)
    }

    fn rung(&self, asking: &Asking<'_>, tier: Tier) -> RungAnswer {
        match asking.put(&self.authorizer, tier) {
            Ok(Asked { allowed, policies }) => {
                RungAnswer { tier, allowed, policies: self.in_order(policies), broken: Vec::new() }
            }
            Err(broken) => RungAnswer { tier, allowed: false, policies: Vec::new(), broken: self.in_order(broken) },
        }
    }

    fn concluded(&self, q: &Question<'_>, rungs: Vec<RungAnswer>) -> Result<Inspection, Refusal> {
        let below: Vec<Vec<String>> = rungs.iter().filter(|r| !r.allowed).map(|r| r.policies.clone()).collect();
        let (judgement, because, terms) = match rungs.last() {
            Some(last) if last.allowed && last.tier == Tier::Low => (Judgement::Low, last.policies.clone(), None),
            Some(last) if last.allowed => {
                let why = self.why(&below);
                let because = why.iter().map(|w| w.policy.clone()).collect();
                (last.tier.into(), because, Some(self.terms(q, last.tier, why)?))
            }
            Some(last) if last.broken.is_empty() => (Judgement::Deny, last.policies.clone(), None),
            Some(last) => (Judgement::Deny, last.broken.clone(), None),
            None => (Judgement::Deny, Vec::new(), None),
        };
        let degrade = (judgement == Judgement::Deny).then(|| self.degrade(&because)).flatten();
        Ok(Inspection { judgement, because, rungs, terms, degrade })
    }

    fn in_order(&self, mut ids: Vec<String>) -> Vec<String> {
        ids.sort_by_key(|id| self.by_id.get(id).map_or(usize::MAX, |(order, _)| *order));
        ids
    }

    /// How each policy of the operation's slice takes the question when nothing is approved, in the order of the set.
    ///
    /// # Errors
    /// As [`Policies::inspect`].
    pub fn matches(&self, q: &Question<'_>) -> Result<Vec<Matched<'_>>, Refusal> {
        let asking = self.asking(q)?;
        let slice = self.loaded.slice(q.operation);
        slice.into_iter().map(|policy| Ok(Matched { policy, how: atoms::matched(&asking, policy)? })).collect()
    }
}
