//! Budgets per step, run, user and organisation: what a call would charge, and how full each scope is.
//!
//! The reserving itself is part of the store's `begin`, all scopes or none; settling is part of `conclude`.

use serde_json::Value;

use crate::call::{Call, Code, Meter, Meters, Principal, Refusal, Timestamp, Violation, money_text};
use crate::config::{BudgetRule, BudgetScope};
use crate::store::{Balance, Charge, LedgerKey};

/// The budgets of one configuration version.
#[derive(Debug)]
pub struct Budgets(Vec<BudgetRule>);

/// A scope that is nearly spent, for `Holdpoint-Budget`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// `run`.
    pub scope: &'static str,
    /// Percent used.
    pub used: i64,
}

impl Budgets {
    /// These rules.
    #[must_use]
    pub fn new(rules: Vec<BudgetRule>) -> Self {
        Self(rules)
    }

    /// What a call moves, in minor units and currency; nothing when it moves no money.
    ///
    /// # Errors
    /// `invalid_arguments` when the amount is not a whole number of minor units that is at least 0, or the currency
    /// is not three capital letters.
    pub fn money(call: &Call) -> Result<Option<(i64, String)>, Refusal> {
        let cost = &call.operation().cost;
        if let Some(fixed) = &cost.money {
            return Ok(Some(fixed.clone()));
        }
        let Some((amount_at, currency_at)) = &cost.amount else { return Ok(None) };
        let amount = call.arguments().pointer(amount_at).and_then(Value::as_i64).filter(|a| *a >= 0);
        let currency = call.arguments().pointer(currency_at).and_then(Value::as_str).filter(|c| is_currency(c));
        match (amount, currency) {
            (Some(amount), Some(currency)) => Ok(Some((amount, currency.to_owned()))),
            (None, _) => Err(unpriced(
                amount_at,
                "must be a whole number of minor units, at least 0: it says what the call costs",
            )),
            (_, None) => Err(unpriced(currency_at, "must be a currency code such as EUR: it says what the call costs")),
        }
    }

    /// What a call charges, one entry for each budget that it falls under.
    ///
    /// # Errors
    /// As [`Budgets::money`].
    pub fn charges(&self, principal: &Principal, call: &Call, now: Timestamp) -> Result<Vec<Charge>, Refusal> {
        let money = Self::money(call)?;
        let amount = |rule: &BudgetRule| match (&money, rule.unit.as_str()) {
            (_, "calls") => Some(call.operation().cost.calls),
            (Some((amount, currency)), unit) if currency == unit => Some(*amount),
            _ => None,
        };
        let charge = |rule: &BudgetRule| {
            let ledger = ledger(rule, principal, call, now)?;
            Some(Charge { ledger, amount: amount(rule)?, limit: rule.limit })
        };
        Ok(self.0.iter().filter_map(charge).collect())
    }

    /// The ledgers that a call falls under, in the order of the rules that apply.
    #[must_use]
    pub fn ledgers(&self, principal: &Principal, call: &Call, now: Timestamp) -> Vec<(usize, LedgerKey)> {
        let all = self.0.iter().enumerate();
        all.filter_map(|(i, rule)| ledger(rule, principal, call, now).map(|l| (i, l))).collect()
    }

    /// How full each scope is: the worst of its budgets.
    #[must_use]
    pub fn meters(&self, ledgers: &[(usize, LedgerKey)], balances: &[Balance]) -> Meters {
        let mut meters = Meters::default();
        for ((i, _), balance) in ledgers.iter().zip(balances) {
            let Some(rule) = self.0.get(*i) else { continue };
            let slot = match rule.scope {
                BudgetScope::Step => &mut meters.step,
                BudgetScope::Run => &mut meters.run,
                BudgetScope::User => &mut meters.user,
                BudgetScope::Org => &mut meters.org,
            };
            let meter = meter(rule, balance);
            slot.used_pct = slot.used_pct.max(meter.used_pct);
            if let Some(left) = meter.remaining_minor {
                slot.remaining_minor = Some(slot.remaining_minor.map_or(left, |l| l.min(left)));
            }
        }
        meters
    }

    /// The fullest scope that is past its warning mark.
    #[must_use]
    pub fn warning(&self, ledgers: &[(usize, LedgerKey)], balances: &[Balance]) -> Option<Warning> {
        let past = |((i, _), balance): (&(usize, LedgerKey), &Balance)| {
            let rule = self.0.get(*i)?;
            let used = meter(rule, balance).used_pct;
            (used >= rule.warn_at).then_some(Warning { scope: scope_name(rule.scope), used })
        };
        ledgers.iter().zip(balances).filter_map(past).max_by_key(|w| w.used)
    }

    /// The refusal for a ledger without room.
    #[must_use]
    pub fn exhausted(charge: &Charge, now: Timestamp) -> Refusal {
        let l = &charge.ledger;
        let most =
            if l.unit == "calls" { format!("{} calls", charge.limit) } else { money_text(charge.limit, &l.unit) };
        let text = format!("the {} budget ({most}) has no room for this call", l.scope);
        let refusal =
            Refusal::new(Code::BudgetExhausted, text).with("scope", l.scope.as_str()).with("unit", l.unit.as_str());
        match (l.window, l.every) {
            (Some(start), Some(every)) => {
                let end = start.plus(every);
                refusal.with("resets", end.to_string()).with_retry_after(end.since(now))
            }
            _ => refusal,
        }
    }
}

fn is_currency(c: &str) -> bool {
    c.len() == 3 && c.bytes().all(|b| b.is_ascii_uppercase())
}

fn unpriced(pointer: &str, message: &str) -> Refusal {
    let violation = Violation { pointer: pointer.to_owned(), keyword: "cost".into(), message: message.to_owned() };
    Refusal::new(Code::InvalidArguments, "the cost of this call is unknown").with_errors(vec![violation])
}

const fn scope_name(scope: BudgetScope) -> &'static str {
    match scope {
        BudgetScope::Step => "step",
        BudgetScope::Run => "run",
        BudgetScope::User => "user",
        BudgetScope::Org => "org",
    }
}

/// Which ledger of a rule a call falls under. Owners are made of verified identity; run and step stand inside it.
fn ledger(rule: &BudgetRule, p: &Principal, call: &Call, now: Timestamp) -> Option<LedgerKey> {
    let who = serde_json::json!([p.org, p.agent, p.acting_for]);
    let context = call.context();
    let owner = match rule.scope {
        BudgetScope::Org => p.org.clone(),
        BudgetScope::User => match &p.acting_for {
            Some(user) => serde_json::json!([p.org, "user", user]).to_string(),
            None => serde_json::json!([p.org, "agent", p.agent]).to_string(),
        },
        BudgetScope::Run => serde_json::json!([who, context.run]).to_string(),
        // A call that names no step stands in the one unnamed step of its run.
        BudgetScope::Step => serde_json::json!([who, context.run, context.step]).to_string(),
    };
    let window = rule.every.map(|every| {
        let length = i64::try_from(every.as_millis()).unwrap_or(i64::MAX).max(1);
        Timestamp::from_millis(now.as_millis().div_euclid(length).saturating_mul(length))
    });
    let (scope, unit, every) = (scope_name(rule.scope).to_owned(), rule.unit.clone(), rule.every);
    Some(LedgerKey { scope, owner, unit, window, every })
}

fn meter(rule: &BudgetRule, balance: &Balance) -> Meter {
    let taken = balance.used.saturating_add(balance.reserved);
    let limit = rule.limit.saturating_add(balance.extra);
    let used_pct = match limit {
        0 => 100,
        limit => i64::try_from(i128::from(taken) * 100 / i128::from(limit)).unwrap_or(i64::MAX),
    };
    let remaining_minor = (rule.unit != "calls").then(|| limit.saturating_sub(taken));
    Meter { used_pct, remaining_minor }
}
