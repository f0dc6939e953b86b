//! What limits calls now: breakers and budgets.

use std::sync::Arc;

use axum::extract::{Path, State};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{BudgetRule, BudgetScope};
use crate::gates::breaker::State as Breaker;
use crate::store::{AuditNote, Balance, LedgerKey};

use super::Desk;
use super::api::{self, Answer, Asked};
use super::decide::WORDS;
use super::handling::given;
use super::posted::Posted;
use super::problem::Problem;
use super::who::Who;

fn breaker(desk: &Desk, (tool, state): &(String, Breaker)) -> Value {
    let now = desk.clock.instant();
    let (word, failures, after) = match state {
        Breaker::Closed { failures, .. } => ("closed", *failures, None),
        Breaker::Open { until } => ("open", 0, Some(until.saturating_duration_since(now).as_secs())),
        Breaker::HalfOpen => ("half_open", 0, None),
    };
    json!({"tool": tool, "state": word, "failures": failures, "retry_after_s": after})
}

pub(super) async fn breakers(State(admin): State<Arc<Desk>>, who: Who) -> Answer {
    let asked = Asked::new(admin, who);
    asked.asker().permit_system(&["breaker.reset", "policy.view"])?;
    let mut all = asked.admin.breakers.states();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let items: Vec<Value> = all.iter().map(|b| breaker(&asked.admin, b)).collect();
    Ok(api::ok(&json!({"items": items, "next": null}), None))
}

/// Why a breaker is closed by hand.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ResetBreaker {
    #[schemars(length(max = WORDS), pattern(r"\S"))]
    reason: String,
}

/// Lets calls flow again at once; the next failures open it anew.
pub(super) async fn reset(Path(tool): Path<String>, Posted { asked, said, .. }: Posted<ResetBreaker>) -> Answer {
    asked.asker().permit_system(&["breaker.reset"])?;
    let reason = given("reason", &said.reason)?;
    let person = asked.who().person.clone();
    let more = [("tool", json!(tool)), ("user", json!(person)), ("reason", json!(reason))];
    let known = asked.admin.breakers.states().iter().any(|(name, _)| *name == tool);
    if !known {
        return Err(Problem::not_found());
    }
    let note = AuditNote::plain("breaker.reset", more.map(|(n, v)| (n.to_owned(), v)).into());
    asked.admin.store.append(note, true).await?;
    asked.admin.breakers.reset(&tool);
    let all = asked.admin.breakers.states();
    let state = all.iter().find(|(name, _)| *name == tool).ok_or_else(Problem::not_found)?;
    Ok(api::ok(&breaker(&asked.admin, state), None))
}

fn scope(scope: BudgetScope) -> &'static str {
    match scope {
        BudgetScope::Step => "step",
        BudgetScope::Run => "run",
        BudgetScope::User => "user",
        BudgetScope::Org => "org",
    }
}

fn budget(rules: &[BudgetRule], (ledger, balance): &(LedgerKey, Balance)) -> Option<Value> {
    let rule = rules.iter().find(|r| {
        scope(r.scope) == ledger.scope && r.unit == ledger.unit && r.every.is_some() == ledger.window.is_some()
    })?;
    let taken = balance.used.saturating_add(balance.reserved);
    let pct = taken.saturating_mul(100).checked_div(rule.limit).unwrap_or(100);
    Some(json!({
        "scope": ledger.scope, "owner": ledger.owner, "unit": ledger.unit, "since": ledger.window,
        "used": balance.used, "reserved": balance.reserved, "limit": rule.limit, "used_pct": pct,
    }))
}

/// Budgets of which something is used or set aside, the fullest first.
pub(super) async fn budgets(State(admin): State<Arc<Desk>>, who: Who) -> Answer {
    let asked = Asked::new(admin, who);
    asked.asker().permit_system(&["budget.topup", "policy.view"])?;
    let rules = asked.config().budgets.clone();
    let all = asked.admin.store.ledgers().await?;
    let mut items: Vec<Value> = all.iter().filter_map(|ledger| budget(&rules, ledger)).collect();
    items.sort_by_key(|item| std::cmp::Reverse(item["used_pct"].as_i64()));
    items.truncate(1_000);
    Ok(api::ok(&json!({"items": items, "next": null}), None))
}
