//! What makes a held call doubtful, what it weighs, and what came before it: from what the proxy knows, never from the
//! agent's words.

use std::time::Duration;

use serde_json::{Value, json};

use crate::call::{Certainty, visible};
use crate::store::{CallRecord, Filter};

use super::Admin;
use super::alike::Like;
use super::ask::Asker;
use super::find;
use super::foreseen::Foreseen;
use super::problem::Problem;

/// Calls of the run that are shown.
const STEPS: usize = 12;
/// How far it is looked back for them, and at how many concluded calls: the page must not wait for them.
const DAY: Duration = Duration::from_secs(86_400);
const LOOKS: usize = 2_000;

/// One reason to look twice.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Doubt {
    /// Stable, for programs.
    pub(super) code: &'static str,
    /// For people.
    pub(super) text: String,
}

fn doubt(code: &'static str, text: impl Into<String>) -> Doubt {
    Doubt { code, text: text.into() }
}

/// An argument has characters that a reader would not see.
pub(super) fn has_hidden(record: &CallRecord) -> bool {
    let text = record.arguments.to_string();
    visible(&text) != text
}

/// Reasons to look twice, the weightiest first.
pub(super) fn doubts(record: &CallRecord, foreseen: Option<&Foreseen>, like: &Like) -> Vec<Doubt> {
    let history = record.facts.as_ref().map(|f| f.history).unwrap_or_default();
    let all = [
        has_hidden(record).then(|| {
            doubt(
                "hidden_characters",
                "An argument has characters that a reader would not see; they are shown as escapes.",
            )
        }),
        of_preview(foreseen),
        history
            .first_time_target
            .then(|| doubt("first_time_target", "Nothing has succeeded before with this operation on this target.")),
        (!record.unfetched.is_empty()).then(|| {
            doubt(
                "evidence_unfetched",
                "The proxy was to fetch evidence, and it is not there or is not what it must be.",
            )
        }),
        like.doubt(record).map(|text| doubt("outlier_amount", text)),
        (history.denied_last_hour > 0).then(|| {
            let text = format!("Policy refused {} of this agent's calls in the hour before.", history.denied_last_hour);
            doubt("denied_before", text)
        }),
        low_trust(record),
        (record.renewals > 0)
            .then(|| doubt("moved", "It is not as it was asked for at first: something moved, or was changed, since.")),
    ];
    all.into_iter().flatten().collect()
}

/// Calls like it by this agent have surprised people of late.
fn low_trust(record: &CallRecord) -> Option<Doubt> {
    let trust = record.facts.as_ref().map(|f| f.trust).filter(|t| t.surprises_7d > 0)?;
    let (n, score) = (trust.surprises_7d, trust.score);
    let times = if n == 1 { "once".to_owned() } else { format!("{n} times") };
    let text = format!("Calls like it by this agent surprised people {times} in 7 days; trust {score} of 100.");
    Some(doubt("surprises", text))
}

fn of_preview(foreseen: Option<&Foreseen>) -> Option<Doubt> {
    match foreseen.map(Foreseen::certainty) {
        None => Some(doubt("no_preview", "Nobody looked at the target before: this operation has no preview.")),
        Some(Certainty::Unknown) => Some(doubt("preview_unknown", "What it will change is not known.")),
        Some(Certainty::Predicted) => {
            Some(doubt("preview_predicted", "The effect is worked out, not told by the tool."))
        }
        Some(Certainty::Exact) => None,
    }
}

pub(super) fn doubts_json(doubts: &[Doubt]) -> Value {
    doubts.iter().map(|d| json!({"code": d.code, "level": "warn", "text": d.text})).collect()
}

/// Budgets that were in use when it was asked for, in percent.
pub(super) fn budgets(record: &CallRecord) -> Vec<(&'static str, i64)> {
    let Some(facts) = &record.facts else { return Vec::new() };
    let b = &facts.budget;
    let all = [("step", b.step), ("run", b.run), ("user", b.user), ("org", b.org)];
    all.into_iter().map(|(scope, meter)| (scope, meter.used_pct)).filter(|(_, pct)| *pct > 0).collect()
}

/// Reasons to look twice, budgets in percent, and what came before in this run.
#[derive(Debug)]
pub(super) struct Weighed {
    pub(super) doubts: Vec<Doubt>,
    pub(super) budgets: Vec<(&'static str, i64)>,
    pub(super) path: Vec<Before>,
    /// What people said of calls like it.
    pub(super) alike: String,
    /// The one that was rejected last: where, and why.
    pub(super) last: Option<(String, String)>,
}

impl Weighed {
    pub(super) fn of(record: &CallRecord, foreseen: Option<&Foreseen>, like: &Like, path: Vec<Before>) -> Self {
        let (doubts, budgets) = (doubts(record, foreseen, like), budgets(record));
        Self { doubts, budgets, path, alike: like.words(), last: like.last() }
    }
}

/// One call of the same run.
#[derive(Debug)]
pub(super) struct Before {
    pub(super) href: String,
    pub(super) title: String,
    pub(super) state: &'static str,
    pub(super) at: String,
}

/// Calls of the same agent's run that came before this one, oldest first: those with a record of their own.
pub(super) async fn came_before(
    admin: &Admin,
    asker: &Asker<'_>,
    record: &CallRecord,
) -> Result<Vec<CallRecord>, Problem> {
    let filter = Filter {
        run: Some(record.context.run.clone()),
        agent: Some(record.principal.agent.clone()),
        before: Some(record.id),
        since: Some(record.created.minus(DAY)),
        looks: Some(LOOKS),
        limit: STEPS,
        ..Filter::default()
    };
    let (mut records, _) = find::either(admin, asker, filter).await?;
    records
        .retain(|r| r.principal.org == record.principal.org && r.principal.acting_for == record.principal.acting_for);
    records.reverse();
    Ok(records)
}

/// The same, as the page shows them.
pub(super) async fn path(admin: &Admin, asker: &Asker<'_>, record: &CallRecord) -> Result<Vec<Before>, Problem> {
    let before = |r: &CallRecord| Before {
        href: match &r.terms {
            Some(_) if !asker.may("call.view", r) => format!("/holds/{}", r.id.hold()),
            _ => format!("/calls/{}", r.id),
        },
        title: visible(&r.title),
        state: r.state_at(asker.now).as_str(),
        at: r.created.to_string(),
    };
    Ok(came_before(admin, asker, record).await?.iter().map(before).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::State;
    use crate::store::fixtures::record;

    #[test]
    fn what_is_hidden_stands_first_and_what_is_known_is_no_doubt() {
        let mut call = record(State::Held, "f", None);
        let codes = |call: &CallRecord| doubts(call, None, &Like::default()).iter().map(|d| d.code).collect::<Vec<_>>();
        assert_eq!(codes(&call), ["no_preview"]);
        call.arguments = Arc::new(json!({"note": "pay\u{202e}eman"}));
        call.renewals = 1;
        assert_eq!(codes(&call), ["hidden_characters", "no_preview", "moved"]);
    }
}
