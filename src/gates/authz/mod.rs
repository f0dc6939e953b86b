//! Whether policy lets a call pass: the ladder of rising approval, and the only place that mints a [`Permit`].
//!
//! The same question is asked with `approval` at none, granted and dual. The first rung that allows is the
//! tier; the forbids that decided below it are why the call is held, and their annotations are its terms.
//! Any evaluation error at any rung refuses, whatever Cedar decides: Cedar skips an erring forbid and allows.

mod admin;
mod ask;
mod atoms;
mod context;
mod entities;
mod grants;
mod inspect;
mod judge;
mod obligations;
mod session;
mod slice;
#[cfg(test)]
mod tests;
mod visible;

use std::collections::HashMap;
use std::sync::Arc;

use cedar_policy::{Authorizer, PolicySet};

pub use admin::{AdminAnswer, AdminQuestion, AdminResource, HoldFacts};

pub use ask::Question;
pub use atoms::Match;
pub use inspect::{Inspection, Matched, RungAnswer};
pub use judge::Judged;

use self::ask::{Asked, Asking};
use self::slice::Slice;
use crate::call::{
    Call, CallId, Code, Digest, Facts, Fault, Operation, PolicyNote, Principal, Refusal, Terms, Tier, Why,
};
use crate::policy::{Loaded, Policy};

/// Called with the id of a policy that could not be evaluated, once for each such policy and rung.
pub type ErrorHook = Arc<dyn Fn(&str) + Send + Sync>;

/// What policy says to a call.
#[must_use]
#[derive(Debug)]
pub enum Verdict {
    /// It may run by itself.
    Allow(Permit),
    /// People must lift it first.
    Hold(Terms),
}

/// What policy says to a call that people approved.
#[must_use]
#[derive(Debug)]
pub enum Release {
    /// It may run.
    Allow(Permit),
    /// It needs more than was given: it goes back to being held, under these terms.
    Stronger(Terms),
}

/// What the approvals of a hold really add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GivenApprovals {
    /// At least one valid approval, with the evidence attached.
    pub granted: bool,
    /// Two distinct people and a written justification, inside the window.
    pub dual: bool,
}

impl GivenApprovals {
    /// The tier that they reach.
    #[must_use]
    pub const fn tier(self) -> Tier {
        match (self.granted, self.dual) {
            (_, true) => Tier::High,
            (true, false) => Tier::Medium,
            (false, false) => Tier::Low,
        }
    }
}

/// Proof that policy allowed this call. Made only here, spent once by `forward`.
#[must_use]
#[derive(Debug)]
pub struct Permit {
    call: CallId,
    tier: Tier,
    policies: Vec<String>,
    policy_digest: Digest,
}

impl Permit {
    /// The call that it is for.
    #[must_use]
    pub fn call(&self) -> CallId {
        self.call
    }

    /// How much approval it took.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// The permits that decided, by `@id`.
    #[must_use]
    pub fn policies(&self) -> &[String] {
        &self.policies
    }

    /// Digest of the policy set that decided.
    #[must_use]
    pub fn policy_digest(&self) -> Digest {
        self.policy_digest
    }
}

/// A loaded set of policies, ready to be asked.
pub struct Policies {
    loaded: Loaded,
    by_id: HashMap<String, (usize, Arc<Policy>)>,
    slices: HashMap<String, Slice>,
    /// As [`Policies::slices`], with policies in shadow, for the operations that have any.
    shadows: HashMap<String, Slice>,
    observes: bool,
    admin: PolicySet,
    authorizer: Authorizer,
    on_error: ErrorHook,
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Policies({} of {})", self.by_id.len(), self.loaded.digest())
    }
}

/// Where the ladder ended.
enum Rung {
    Allowed { tier: Tier, policies: Vec<String>, why: Vec<Why> },
    Denied(Vec<String>),
}

impl Policies {
    /// Prepares a loaded set: one slice for each operation, the admin plane apart.
    ///
    /// # Errors
    /// A fault, when Cedar does not take what it has validated.
    pub fn new(loaded: Loaded, on_error: ErrorHook) -> Result<Self, Fault> {
        let mut slices = HashMap::new();
        let mut shadows = HashMap::new();
        for operation in &loaded.model().operations {
            slices.insert(operation.name.clone(), Slice::new(&loaded, operation, &loaded.slice(operation))?);
            let with_shadow = loaded.with_shadow(operation);
            if with_shadow.iter().any(|p| p.shadow) {
                shadows.insert(operation.name.clone(), Slice::new(&loaded, operation, &with_shadow)?);
            }
        }
        let admin = slice::set(&loaded.admin())?;
        let by_id = loaded.policies().iter().enumerate().map(|(i, p)| (p.id.clone(), (i, Arc::clone(p)))).collect();
        let authorizer = Authorizer::new();
        Ok(Self { loaded, by_id, slices, shadows, observes: false, admin, authorizer, on_error })
    }

    /// The set as it was loaded.
    #[must_use]
    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// Digest of the set.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.loaded.digest()
    }

    /// Whether a call may run by itself, or what it needs.
    ///
    /// # Errors
    /// [`Code::Forbidden`] when no approval would help, or a policy could not be evaluated.
    pub fn authorize(&self, p: &Principal, c: &Call, f: &Facts) -> Result<Verdict, Refusal> {
        let q = Question::of(p, c, f);
        let asking = self.asking(&q)?;
        match self.climb(&asking).map_err(|policy| broken(c, Code::Forbidden, &policy))? {
            Rung::Allowed { tier: Tier::Low, policies, .. } => Ok(Verdict::Allow(self.permit(c, Tier::Low, policies))),
            Rung::Allowed { tier, why, .. } => Ok(Verdict::Hold(self.terms(&q, tier, why)?)),
            Rung::Denied(ids) => Err(self.denied(c, Code::Forbidden, &ids)),
        }
    }

    /// Asks again for a call that people approved, with today's facts and what their approvals add up to.
    ///
    /// # Errors
    /// [`Code::Revoked`] when policy denies it now, or could not be evaluated.
    pub fn authorize_release(
        &self,
        p: &Principal,
        c: &Call,
        f: &Facts,
        approvals: &GivenApprovals,
    ) -> Result<Release, Refusal> {
        let q = Question::of(p, c, f);
        let asking = self.asking(&q)?;
        let given = approvals.tier();
        let revoked = |policy: String| broken(c, Code::Revoked, &policy);
        let asked = self.ask(&asking, given).map_err(revoked)?;
        if asked.allowed {
            return Ok(Release::Allow(self.permit(c, given, asked.policies)));
        }
        match self.climb(&asking).map_err(revoked)? {
            Rung::Allowed { tier, why, .. } if tier > given => Ok(Release::Stronger(self.terms(&q, tier, why)?)),
            Rung::Allowed { .. } => Err(self.denied(c, Code::Revoked, &asked.policies)),
            Rung::Denied(ids) => Err(self.denied(c, Code::Revoked, &ids)),
        }
    }

    /// What policy demands of this call today; nothing when it would run by itself.
    ///
    /// # Errors
    /// [`Code::Revoked`] when policy denies it now, or could not be evaluated.
    pub fn demands(&self, p: &Principal, c: &Call, f: &Facts) -> Result<Option<Terms>, Refusal> {
        let q = Question::of(p, c, f);
        let asking = self.asking(&q)?;
        match self.climb(&asking).map_err(|policy| broken(c, Code::Revoked, &policy))? {
            Rung::Allowed { tier: Tier::Low, .. } => Ok(None),
            Rung::Allowed { tier, why, .. } => self.terms(&q, tier, why).map(Some),
            Rung::Denied(ids) => Err(self.denied(c, Code::Revoked, &ids)),
        }
    }

    /// Whether a principal may know of an operation: some permit's scope fits, and no unconditional forbid does.
    #[must_use]
    pub fn visible(&self, p: &Principal, operation: &Operation) -> bool {
        self.slices.get(&operation.name).is_some_and(|s| self.observes || s.visibility.shows(p))
    }

    /// Whether a call of this operation by this principal may come to be held.
    #[must_use]
    pub fn may_hold(&self, p: &Principal, operation: &Operation) -> bool {
        !self.observes && self.slices.get(&operation.name).is_some_and(|s| s.asks_approval && s.visibility.shows(p))
    }

    fn asking<'a>(&'a self, q: &Question<'_>) -> Result<Asking<'a>, Refusal> {
        Asking::new(self.slice(q)?, q)
    }

    fn slice(&self, q: &Question<'_>) -> Result<&Slice, Fault> {
        self.slices.get(&q.operation.name).ok_or_else(|| Fault::new("an operation is unknown to the policy set"))
    }

    /// The ladder. Errs with the id of a policy that could not be evaluated.
    fn climb(&self, asking: &Asking<'_>) -> Result<Rung, String> {
        let mut below: Vec<Vec<String>> = Vec::new();
        for tier in [Tier::Low, Tier::Medium, Tier::High] {
            let Asked { allowed, policies } = self.ask(asking, tier)?;
            if allowed {
                return Ok(Rung::Allowed { tier, policies, why: self.why(&below) });
            }
            below.push(policies);
            if !asking.slice.asks_approval {
                break;
            }
        }
        Ok(Rung::Denied(below.pop().unwrap_or_default()))
    }

    fn ask(&self, asking: &Asking<'_>, tier: Tier) -> Result<Asked, String> {
        let outcome = asking.put(&self.authorizer, tier);
        outcome.map_err(|broken| {
            broken.iter().for_each(|id| (self.on_error)(id));
            broken.into_iter().next().unwrap_or_default()
        })
    }

    /// The forbids that decided below the rung that allowed, each with the rung that lifts it.
    fn why(&self, below: &[Vec<String>]) -> Vec<Why> {
        let mut found: Vec<(u8, usize, Why)> = Vec::new();
        for id in below.iter().flatten() {
            let Some((order, policy)) = self.by_id.get(id) else { continue };
            let rung = if below.get(1).is_some_and(|second| second.contains(id)) { 2 } else { 1 };
            if found.iter().all(|(_, known, _)| known != order) {
                let (reason, at) = (policy.reason.clone(), policy.at.clone());
                found.push((rung, *order, Why { policy: id.clone(), reason, at, rung }));
            }
        }
        found.sort_by_key(|(rung, order, _)| (*rung, *order));
        found.into_iter().map(|(_, _, why)| why).collect()
    }

    fn permit(&self, call: &Call, tier: Tier, mut policies: Vec<String>) -> Permit {
        policies.sort();
        Permit { call: call.id(), tier, policies, policy_digest: self.digest() }
    }

    fn notes(&self, ids: &[String]) -> Vec<PolicyNote> {
        let mut found: Vec<_> = ids.iter().filter_map(|id| self.by_id.get(id)).collect();
        found.sort_by_key(|(order, _)| *order);
        found.into_iter().map(|(_, p)| PolicyNote { id: p.id.clone(), reason: p.reason.clone() }).collect()
    }

    /// The answer to a call that no approval can lift. Says reasons, never thresholds.
    fn denied(&self, call: &Call, code: Code, ids: &[String]) -> Refusal {
        let notes = self.notes(ids);
        let text = match notes.as_slice() {
            [] => "no policy permits this call; no approval would change that".to_owned(),
            notes => notes.iter().map(|n| format!("{} (policy `{}`)", n.reason, n.id)).collect::<Vec<_>>().join(" "),
        };
        let mut refusal = Refusal::new(code, text).for_call(call.id()).with_policies(notes);
        if let Some(instead) = self.degrade(ids) {
            refusal = refusal.with("degrade", instead);
        }
        refusal
    }

    /// What to do instead, where a policy among these says so.
    fn degrade(&self, ids: &[String]) -> Option<String> {
        ids.iter().filter_map(|id| self.by_id.get(id)).find_map(|(_, p)| p.annotations.degrade.clone())
    }
}

fn broken(call: &Call, code: Code, policy: &str) -> Refusal {
    let text = "a policy could not be evaluated for this call, so it was refused";
    Refusal::new(code, text).for_call(call.id()).with("policy_error", policy)
}
