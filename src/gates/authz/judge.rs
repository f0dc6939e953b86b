//! What rules, and what is asked beside it: policies in shadow, and the whole set while it only observes.

use crate::call::{Beside, Call, Code, Facts, Judgement, Principal, Refusal, Tier, Would};

use super::{Policies, Question, Verdict};

/// What policy says to a call on its way.
#[must_use]
#[derive(Debug)]
pub struct Judged {
    /// What rules.
    pub verdict: Result<Verdict, Refusal>,
    /// The same as one word.
    pub judgement: Judgement,
    /// What would have been said where it does not rule, when that is something else.
    pub would: Vec<Would>,
}

/// A verdict as a word, and the policies behind it.
fn summed(verdict: &Result<Verdict, Refusal>) -> (Judgement, Vec<String>) {
    match verdict {
        Ok(Verdict::Allow(permit)) => (Judgement::Low, permit.policies().to_vec()),
        Ok(Verdict::Hold(terms)) => (terms.tier.into(), terms.why.iter().map(|w| w.policy.clone()).collect()),
        Err(refusal) => (Judgement::Deny, refusal.policies().iter().map(|n| n.id.clone()).collect()),
    }
}

impl Policies {
    /// The same set, asked but not obeyed: whatever policy says, the call may run, and what it would have said is told.
    #[must_use]
    pub fn observing(mut self) -> Self {
        self.observes = true;
        self
    }

    /// Whether verdicts are only told.
    #[must_use]
    pub fn observes(&self) -> bool {
        self.observes
    }

    /// [`Policies::authorize`], and what is asked beside it.
    pub fn judge(&self, p: &Principal, c: &Call, f: &Facts) -> Judged {
        let verdict = self.authorize(p, c, f);
        let (judgement, policies) = summed(&verdict);
        let mut would: Vec<Would> = self.in_shadow(&Question::of(p, c, f), judgement, &policies).into_iter().collect();
        let refused_otherwise = verdict.as_ref().is_err_and(|refusal| refusal.code() != Code::Forbidden);
        if !self.observes || refused_otherwise || judgement == Judgement::Low {
            return Judged { verdict, judgement, would };
        }
        would.push(Would { by: Beside::Observed, judgement, policies });
        let verdict = Ok(Verdict::Allow(self.permit(c, Tier::Low, Vec::new())));
        Judged { verdict, judgement: Judgement::Low, would }
    }

    /// What the set would say with its shadow policies, when that is something else.
    fn in_shadow(&self, q: &Question<'_>, judgement: Judgement, policies: &[String]) -> Option<Would> {
        let slice = self.shadows.get(&q.operation.name)?;
        let seen = self.inspect_in(slice, q).ok()?;
        let same = |a: &[String], b: &[String]| a.len() == b.len() && a.iter().all(|id| b.contains(id));
        let alike = seen.judgement == judgement && same(&seen.because, policies);
        (!alike).then_some(Would { by: Beside::Shadow, judgement: seen.judgement, policies: seen.because })
    }
}
