//! Calls beside a call: one member moved to where some policy's answer may turn.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::call::Timestamp;
use crate::policy::{Border, Literal, Policy, borders};

use super::Case;

/// The borders of policies, each once, in their order.
pub(super) fn all_borders<'p>(policies: impl IntoIterator<Item = &'p Policy>) -> Vec<Border> {
    let mut seen = HashSet::new();
    policies.into_iter().flat_map(borders).filter(|border| seen.insert(border.clone())).collect()
}

/// Policies that are evaluated, for one operation, while looking for calls beside calls.
const WORK: usize = 2_000_000;

/// How many calls may be asked about when each asks so many policies: few questions to large sets, so that every search
/// ends in seconds.
pub(super) fn allowance(policies: usize) -> usize {
    (WORK / policies.max(1)).clamp(200, 20_000)
}

/// A member as people name it.
pub(super) fn member(path: &[String]) -> String {
    let path = path.strip_prefix(&["input".to_owned()]).unwrap_or(path);
    path.join(".")
}

/// The value of a member in the case as a policy reads it.
fn current(case: &Case, path: &[String]) -> Option<Value> {
    let (group, rest) = path.split_first()?;
    match group.as_str() {
        "input" => rest.iter().try_fold(&case.arguments, |at, name| at.get(name)).cloned(),
        "budget" if rest == ["worstPct"] => Some(case.facts.budget.worst_pct().into()),
        "history" => {
            let h = &case.facts.history;
            Some(match rest.first()?.as_str() {
                "callsThisRun" => h.calls_this_run.into(),
                "callsLastHour" => h.calls_last_hour.into(),
                "deniedLastHour" => h.denied_last_hour.into(),
                "sumMinorToday" => h.sum_minor_today.into(),
                "firstTimeTarget" => h.first_time_target.into(),
                _ => return None,
            })
        }
        "trust" if rest == ["score"] => Some(case.facts.trust.score.into()),
        "trust" if rest == ["surprises7d"] => Some(case.facts.trust.surprises_7d.into()),
        "call" if rest == ["hourUtc"] => Some(case.facts.now.hour_utc().into()),
        "call" if rest == ["weekday"] => Some(case.facts.now.weekday().into()),
        "call" if rest == ["stage"] => Some(case.context.stage.clone().into()),
        "call" if rest == ["workflow"] => Some(case.context.workflow.clone().into()),
        _ => None,
    }
}

/// Values to try for a member, each with how far it is from the value that it has.
pub(super) fn candidates(border: &Border, case: &Case) -> Vec<(Option<Value>, u128)> {
    let now = current(case, &border.path);
    if border.presence {
        // What is given can be left out; what is not has no value that we could make up.
        return if now.is_some() { vec![(None, 1)] } else { Vec::new() };
    }
    match (&border.at, now) {
        (Literal::Long(at), Some(Value::Number(n))) => {
            let now = n.as_i64().unwrap_or_default();
            let around = [at.checked_sub(1), Some(*at), at.checked_add(1)].into_iter().flatten();
            let far = |v: i64| (i128::from(v) - i128::from(now)).unsigned_abs();
            around.filter(|v| *v != now).map(|v| (Some(v.into()), far(v))).collect()
        }
        (Literal::Decimal(at), Some(Value::Number(n))) => {
            let (Ok(at), Some(now)) = (at.parse::<f64>(), n.as_f64()) else { return Vec::new() };
            let around = [at - 0.01, at, at + 0.01].map(|v| (v * 100.0).round() / 100.0);
            around.into_iter().map(|v| (Some(json!(v)), rank((v - now).abs()))).collect()
        }
        (Literal::Text(at), Some(Value::String(now))) if *at != now => vec![(Some(at.clone().into()), 1)],
        (Literal::Bool(_), Some(Value::Bool(now))) => vec![(Some((!now).into()), 1)],
        _ => Vec::new(),
    }
}

/// A distance as a whole number of hundredths.
fn rank(distance: f64) -> u128 {
    format!("{:.0}", distance * 100.0).parse().unwrap_or(u128::MAX)
}

/// The case with one member changed.
pub(super) fn varied(case: &Case, path: &[String], value: Option<&Value>) -> Option<Case> {
    let (group, rest) = path.split_first()?;
    let mut case = case.clone();
    match group.as_str() {
        "input" => set(&mut case.arguments, rest, value)?,
        "budget" => {
            let pct = value?.as_i64()?;
            let all = &mut case.facts.budget;
            [&mut all.step, &mut all.run, &mut all.user].into_iter().for_each(|m| m.used_pct = m.used_pct.min(pct));
            all.org.used_pct = pct;
        }
        "history" => {
            let h = &mut case.facts.history;
            match rest.first()?.as_str() {
                "callsThisRun" => h.calls_this_run = value?.as_i64()?,
                "callsLastHour" => h.calls_last_hour = value?.as_i64()?,
                "deniedLastHour" => h.denied_last_hour = value?.as_i64()?,
                "sumMinorToday" => h.sum_minor_today = value?.as_i64()?,
                "firstTimeTarget" => h.first_time_target = value?.as_bool()?,
                _ => return None,
            }
        }
        "trust" => {
            let t = &mut case.facts.trust;
            match rest.first()?.as_str() {
                "score" => t.score = value?.as_i64().filter(|n| (0..=100).contains(n))?,
                "surprises7d" => t.surprises_7d = value?.as_i64().filter(|n| *n >= 0)?,
                _ => return None,
            }
        }
        "call" => match rest.first()?.as_str() {
            "hourUtc" => case.facts.now = shifted(case.facts.now, value?.as_i64()?, 0..24, HOUR)?,
            "weekday" => case.facts.now = shifted(case.facts.now, value?.as_i64()?, 1..8, DAY)?,
            "stage" => value?.as_str()?.clone_into(&mut case.context.stage),
            "workflow" => value?.as_str()?.clone_into(&mut case.context.workflow),
            _ => return None,
        },
        _ => return None,
    }
    Some(case)
}

/// Milliseconds.
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// The time moved by whole hours within its day, or by whole days within its week.
fn shifted(now: Timestamp, to: i64, within: std::ops::Range<i64>, unit: i64) -> Option<Timestamp> {
    let from = if unit == HOUR { now.hour_utc() } else { now.weekday() };
    within.contains(&to).then(|| Timestamp::from_millis(now.as_millis() + (to - from) * unit))
}

fn set(at: &mut Value, path: &[String], value: Option<&Value>) -> Option<()> {
    let (last, way) = path.split_last()?;
    let members = way.iter().try_fold(at, |at, name| at.get_mut(name))?.as_object_mut()?;
    match value {
        Some(value) => {
            members.insert(last.clone(), value.clone());
        }
        None => {
            members.remove(last)?;
        }
    }
    Some(())
}
