//! What limits calls now: breakers and budgets.

use std::sync::Arc;

use axum::extract::{Path, State};
use http::StatusCode;
use http::header::HeaderMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::{Digest, Timestamp};
use crate::config::{BudgetRule, BudgetScope};
use crate::gates::breaker::State as Breaker;
use crate::store::{AuditNote, Balance, LedgerKey, TopUp, TopUpError};

use super::Desk;
use super::api::{self, Answer, Asked};
use super::decide::WORDS;
use super::handling::given;
use super::once;
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

/// What names a ledger in paths.
fn id(ledger: &LedgerKey) -> String {
    let digest =
        Digest::of_json(&json!([ledger.scope, ledger.owner, ledger.unit, ledger.window, ledger.every])).to_string();
    format!("bud_{}", digest.trim_start_matches("sha256:").chars().take(32).collect::<String>())
}

fn rule_of<'r>(rules: &'r [BudgetRule], ledger: &LedgerKey) -> Option<&'r BudgetRule> {
    rules.iter().find(|r| scope(r.scope) == ledger.scope && r.unit == ledger.unit && r.every == ledger.every)
}

fn budget(rules: &[BudgetRule], (ledger, balance): &(LedgerKey, Balance)) -> Option<Value> {
    let rule = rule_of(rules, ledger)?;
    let taken = i128::from(balance.used) + i128::from(balance.reserved);
    let limit = i128::from(rule.limit) + i128::from(balance.extra);
    let pct = (taken * 100).checked_div(limit).unwrap_or(100);
    let pct = i64::try_from(pct).unwrap_or(i64::MAX);
    Some(json!({
        "id": id(ledger), "extra": balance.extra, "ends": ends(rule, ledger),
        "scope": ledger.scope, "owner": ledger.owner, "unit": ledger.unit, "since": ledger.window,
        "used": balance.used, "reserved": balance.reserved, "limit": rule.limit, "used_pct": pct,
    }))
}

/// When its window is over.
fn ends(rule: &BudgetRule, ledger: &LedgerKey) -> Option<Timestamp> {
    Some(ledger.window?.plus(rule.every?))
}

/// How much more room, and why.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TopUp")]
pub(super) struct MoreRoom {
    /// Whole units: calls, or minor units of the currency.
    #[schemars(range(min = 1))]
    amount: i64,
    #[schemars(length(max = WORDS), pattern(r"\S"))]
    reason: String,
}

fn not_added(error: TopUpError) -> Problem {
    let unprocessable = |code, text: &'static str| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, text);
    match error {
        TopUpError::NotFound => Problem::not_found(),
        TopUpError::Amount => {
            Problem::invalid("`amount` is at least 1, and with it the limit must still be a number that fits")
        }
        TopUpError::KeyReused => unprocessable(
            "key_reused",
            "this `Idempotency-Key` stands for another amount; a new attempt takes a new key",
        ),
        TopUpError::Full => {
            let text = "this budget was topped up too often: raise its limit in the configuration";
            Problem::new(StatusCode::CONFLICT, "too_many", text)
        }
        TopUpError::Unavailable => Problem::unavailable(),
    }
}

/// Gives one budget more room, for as long as its window lasts or, without one, its owner is remembered. With an
/// `Idempotency-Key` a retry adds nothing, also after a restart.
pub(super) async fn top_up(
    Path(wanted): Path<String>,
    headers: HeaderMap,
    Posted { asked, said, .. }: Posted<MoreRoom>,
) -> Answer {
    asked.asker().permit_system(&["budget.topup"])?;
    let reason = given("reason", &said.reason)?;
    let rules = &asked.config().budgets;
    let found = asked.admin.store.ledgers().await?.into_iter().find(|(ledger, _)| id(ledger) == wanted);
    let (ledger, before) = found.ok_or_else(Problem::not_found)?;
    let rule = rule_of(rules, &ledger).ok_or_else(Problem::not_found)?;
    if ends(rule, &ledger).is_some_and(|end| end <= asked.admin.clock.now()) {
        let text = "its window is over, and the next one begins with all of its room";
        return Err(Problem::new(StatusCode::CONFLICT, "window_over", text));
    }
    let fits = before.extra.checked_add(said.amount).and_then(|extra| extra.checked_add(rule.limit)).is_some();
    if said.amount < 1 || !fits {
        return Err(not_added(TopUpError::Amount));
    }
    let (by, account) = (asked.who().person.clone(), &asked.who().subject);
    let key = once::key(&headers)?.map(|key| Digest::of_json(&json!([account, key])));
    let wish = TopUp { ledger: ledger.clone(), amount: said.amount, reason, by, key };
    let balance = asked.admin.store.top_up(wish).await.map_err(not_added)?;
    tracing::warn!(scope = ledger.scope, unit = ledger.unit, amount = said.amount, "a budget was given more room");
    Ok(api::ok(&budget(rules, &(ledger, balance)).ok_or_else(Problem::not_found)?, None))
}

/// Budgets of which something is used or set aside, the fullest first.
pub(super) async fn budgets(State(admin): State<Arc<Desk>>, who: Who) -> Answer {
    let asked = Asked::new(admin, who);
    asked.asker().permit_system(&["budget.topup", "policy.view"])?;
    let rules = asked.config().budgets.clone();
    let all = asked.admin.store.ledgers().await?;
    let now = asked.admin.clock.now();
    // Of one whose window is over the next begins with all of its room.
    let lives = |(l, _): &&(LedgerKey, Balance)| l.window.zip(l.every).is_none_or(|(at, every)| now < at.plus(every));
    let mut items: Vec<Value> = all.iter().filter(lives).filter_map(|ledger| budget(&rules, ledger)).collect();
    items.sort_by_key(|item| std::cmp::Reverse(item["used_pct"].as_i64()));
    items.truncate(1_000);
    Ok(api::ok(&json!({"items": items, "next": null}), None))
}
