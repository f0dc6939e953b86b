//! A grant: a reviewer's yes to calls like one that was approved, within bounds. Sans-io.
//!
//! What it has let pass is charged like a budget: to ledgers of its own, in the same step as the begin, and given back
//! when the call ends as not executed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::call::{CallId, Digest, GrantId, GrantOver, Leans, Loose, PrincipalKey, Tier, Timestamp, rest_of, spent_on};

use super::{Balance, CallRecord, Charge, HoldError, LedgerKey, State};

/// The scope of ledgers that count what grants have let pass.
const SCOPE: &str = "grant";
/// The unit in which uses are counted; sums are counted by the pointer to what is added up.
const USES: &str = "uses";

/// A reviewer's yes to calls like one that was approved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    /// Its id.
    pub id: GrantId,
    /// Calls of this operation.
    pub operation: String,
    /// Its tool.
    pub tool: String,
    /// By this caller, for the same person.
    pub principal: PrincipalKey,
    /// In this workflow.
    pub workflow: String,
    /// The call that was approved.
    pub from: CallId,
    /// Its title.
    pub title: String,
    /// Its arguments, with redacted members replaced.
    pub arguments: Arc<Value>,
    /// Which of them may differ, by JSON Pointer; the others are as they were.
    pub loose: BTreeMap<String, Loose>,
    /// Digest of those that may not differ.
    pub rest: Digest,
    /// How often it may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_uses: Option<u32>,
    /// What arguments may add up to, by JSON Pointer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sums: BTreeMap<String, i64>,
    /// What ruled when it was given.
    pub leans: Leans,
    /// Who gave it (after linking accounts).
    pub by: String,
    /// Identities that are this person: no call of their own passes by it.
    pub aliases: Vec<String>,
    /// `page`, `cli`, `api`.
    pub channel: String,
    /// Why, in writing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was given.
    pub created: Timestamp,
    /// From then on it lets nothing pass.
    pub expires: Timestamp,
    /// How it ended before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<GrantEnd>,
}

/// How a grant ended before its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantEnd {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub why: GrantOver,
    /// Who took it back, where a person did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// A grant, and what it has let pass: calls that are open count as if they had happened.
#[derive(Debug, Clone, PartialEq)]
pub struct GrantUse {
    /// The grant.
    pub grant: Arc<Grant>,
    /// How often it was used.
    pub used: i64,
    /// What was added up, by JSON Pointer.
    pub sums: BTreeMap<String, i64>,
}

impl GrantUse {
    /// Why it lets nothing pass at `now`; `None` while it does.
    #[must_use]
    pub fn over_at(&self, now: Timestamp) -> Option<GrantOver> {
        let reached = || self.grant.sums.iter().any(|(path, most)| self.sums.get(path).is_some_and(|sum| sum >= most));
        match (self.grant.over_at(now), self.grant.max_uses) {
            (Some(over), _) => Some(over),
            (None, Some(most)) if self.used >= i64::from(most) => Some(GrantOver::UsedUp),
            (None, _) => reached().then_some(GrantOver::SumReached),
        }
    }
}

impl Grant {
    /// Why it lets nothing pass at `now`, whatever was used of it.
    #[must_use]
    pub fn over_at(&self, now: Timestamp) -> Option<GrantOver> {
        let ended = self.ended.as_ref().map(|end| end.why);
        ended.or_else(|| (now >= self.expires).then_some(GrantOver::Expired))
    }

    /// Whether a call is of the kind that it is for: who, what, in which work.
    #[must_use]
    pub fn is_about(&self, record: &CallRecord) -> bool {
        self.operation == record.operation
            && self.principal == record.principal.key()
            && self.workflow == record.context.workflow
    }

    /// Whether it lets these arguments pass, and what that takes of it.
    #[must_use]
    pub fn takes(&self, arguments: &Value) -> Option<Vec<Charge>> {
        if rest_of(self.id, arguments, &self.loose) != self.rest {
            return None;
        }
        let spent = spent_on(arguments, &self.loose, &self.sums)?;
        let sums = self.sums.iter().zip(spent).map(|((path, most), amount)| self.charge(path, amount, *most));
        let limit = self.max_uses.map_or(i64::MAX, i64::from);
        Some(std::iter::once(self.charge(USES, 1, limit)).chain(sums).collect())
    }

    fn charge(&self, unit: &str, amount: i64, limit: i64) -> Charge {
        Charge { ledger: self.ledger(unit), amount, limit }
    }

    fn ledger(&self, unit: &str) -> LedgerKey {
        LedgerKey { scope: SCOPE.into(), owner: self.id.to_string(), unit: unit.to_owned(), window: None, every: None }
    }

    /// Whether these charges count a use of it.
    pub(super) fn counts(&self, charges: &[Charge]) -> bool {
        charges.iter().any(|c| c.amount == 1 && c.ledger == self.ledger(USES))
    }

    /// With what the ledgers say of it.
    pub(super) fn used(self: &Arc<Self>, balance: impl Fn(&LedgerKey) -> Balance) -> GrantUse {
        let taken = |unit: &str| {
            let Balance { used, reserved, .. } = balance(&self.ledger(unit));
            used.saturating_add(reserved)
        };
        let sums = self.sums.keys().map(|path| (path.clone(), taken(path))).collect();
        GrantUse { grant: Arc::clone(self), used: taken(USES), sums }
    }

    /// Every name of who gave it.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.by.as_str()).chain(self.aliases.iter().map(String::as_str))
    }

    /// Whether people have said yes to the call that it comes from, one approval was enough, and who gives it neither
    /// asked for that call nor runs its agent.
    ///
    /// # Errors
    /// Says what is not so.
    pub(super) fn check_origin(&self, record: &CallRecord, now: Timestamp) -> Result<(), HoldError> {
        let people = record.terms.as_ref().is_some_and(|t| t.tier == Tier::Medium && record.meets(&t.needs));
        let approved = matches!(record.state_at(now), State::Approved | State::Dispatching | State::Succeeded);
        if !people || record.approvals.is_empty() || !approved {
            return Err(HoldError::NotApproved);
        }
        if super::votes::is_own_call(record, || self.names()) {
            return Err(HoldError::SelfReview);
        }
        Ok(())
    }
}

/// Whether a ledger counts what a grant has let pass.
#[must_use]
pub fn is_grants(ledger: &LedgerKey) -> bool {
    ledger.scope == SCOPE
}
