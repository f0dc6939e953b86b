//! Slack as a door: a callback that Slack signed, of an account that is a reviewer's, decides as the page and the API
//! do, and of the high tier nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body as Received;
use axum::extract::State;
use http::StatusCode;
use http::header::HeaderMap;
use serde::Deserialize;
use serde_json::json;

use crate::config::{Channel, NotifyRule};
use crate::notify::slack::{Click, Said, is_decided_here, is_signed};
use crate::notify::{Look, Seen};
use crate::snapshot::Snapshots;
use crate::store::{AuditNote, CallRecord, Store};
use crate::{tasks, wire};

use super::Desk;
use super::alike::Like;
use super::api::Asked;
use super::decide::{Approve, Refuse};
use super::edge;
use super::exact::{Body, Exact, fields};
use super::foreseen::{Foreseen, Row, Shown};
use super::problem::Problem;
use super::weigh::doubts;
use super::who::Who;

/// A callback carries the message that was clicked on.
const BODY: usize = 256 << 10;

/// What approvers see of a call, for messages: the lines of the page.
pub fn look(snapshots: Arc<Snapshots>, store: Arc<Store>) -> Look {
    Arc::new(move |record| {
        let (snapshot, store) = (snapshots.current(), Arc::clone(&store));
        Box::pin(async move {
            let exact = Exact::of(&snapshot, &store, &record).await;
            let foreseen = Foreseen::of(&snapshot, &store, &record, &exact).await;
            let like = Like::counted(&store, &record);
            let doubts = doubts(&record, foreseen.as_ref(), &like);
            let mut seen = seen(&record, &exact, foreseen.as_ref().map(Shown::new));
            seen.doubts = doubts.iter().map(|d| crate::call::visible(&d.text)).collect();
            seen
        })
    })
}

fn seen(record: &CallRecord, exact: &Exact, foreseen: Option<Shown>) -> Seen {
    let show = crate::call::visible;
    let mut sent = vec![show(&format!("{} {}", exact.method, exact.url))];
    sent.extend(exact.headers.iter().map(|(name, value)| show(&format!("{name}: {value}"))));
    for field in fields(&record.arguments, &[], &exact.redacted) {
        let note = if field.note.is_empty() { String::new() } else { format!("  ({})", field.note) };
        sent.push(format!("{}  {}{note}", field.place, field.value));
    }
    // A place without a name is all of it: nothing could be read.
    let whole = !matches!(exact.body, Body::Gone) && !exact.redacted.iter().any(String::is_empty);
    let why = record.terms.iter().flat_map(|t| &t.why).map(|w| show(&format!("{} ({})", w.reason, w.policy)));
    let (why, doubts) = (why.collect(), Vec::new());
    Seen { sent, changes: foreseen.map(|f| changes(&f)).unwrap_or_default(), why, doubts, whole }
}

fn changes(shown: &Shown) -> Vec<String> {
    let why = if shown.why.is_empty() { String::new() } else { format!(": {}", shown.why) };
    let mut lines = vec![format!("{}{why}", shown.certainty)];
    let row = |r: &Row| format!("{} {}  {} → {}", r.op, r.path, r.from, r.to);
    lines.extend(shown.rows.iter().map(row));
    if shown.nothing {
        lines.push("nothing".into());
    }
    lines.extend(shown.moved.iter().map(|r| format!("moved meanwhile: {}", row(r))));
    lines
}

#[derive(Deserialize)]
struct Form {
    #[serde(default)]
    payload: Option<String>,
    #[serde(flatten)]
    _rest: BTreeMap<String, String>,
}

/// Somebody pressed a button in Slack. Answered at once; what comes of it goes into the message, or to that person.
pub(super) async fn interactions(
    State(desk): State<Arc<Desk>>,
    headers: HeaderMap,
    body: Received,
) -> Result<StatusCode, Problem> {
    let snapshot = desk.snapshots.current();
    let rules: Vec<_> = snapshot.config.notify.iter().filter_map(|r| keys(r).map(|k| (Arc::clone(r), k))).collect();
    if rules.is_empty() {
        return Err(Problem::not_found());
    }
    let body = wire::body::read(body, BODY).await?;
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let (at, signature) = (text("x-slack-request-timestamp"), text("x-slack-signature"));
    let now = desk.clock.now();
    let signed = rules.iter().filter(|(_, keys)| is_signed(keys, at, signature, &body, now));
    let signed: Vec<Arc<NotifyRule>> = signed.map(|(rule, _)| Arc::clone(rule)).collect();
    if signed.is_empty() {
        desk.metrics.unidentified.with_label_values(&["unauthenticated"]).inc();
        let text = "no signature of Slack's that holds now; is `signing_secret` that of the app, and the clock right?";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", text));
    }
    let form: Form = edge::fields(&body)?;
    let payload = form.payload.unwrap_or_default();
    // Slack asks whether somebody is there.
    if payload.is_empty() {
        return Ok(StatusCode::OK);
    }
    let Some(click) = Click::read(&payload).map_err(Problem::malformed)? else { return Ok(StatusCode::OK) };
    if let Some(again) = headers.get("x-slack-retry-num") {
        tracing::info!(?again, "Slack sends a callback again: it counts once");
    }
    tasks::spawn(answer(desk, signed, click));
    Ok(StatusCode::OK)
}

fn keys(rule: &NotifyRule) -> Option<&[crate::config::Secret]> {
    match &rule.channel {
        Channel::Slack(slack) => Some(&slack.signing),
        _ => None,
    }
}

/// Decides; who pressed the button hears why it did not count.
async fn answer(desk: Arc<Desk>, signed: Vec<Arc<NotifyRule>>, click: Click) {
    let Err(problem) = decide(&desk, &signed, &click).await else { return };
    let reasons = problem.reasons().join(" ");
    let text = format!("Not counted ({}): {}. {reasons}", problem.code(), problem.detail());
    let (Some(url), Some(rule)) = (&click.answer, signed.first()) else { return };
    if let Err(fault) = desk.notifier.whisper(rule, url, text.trim_end()).await {
        tracing::warn!(fault = %fault.chain(), receiver = rule.name, "nobody was told why a click did not count");
    }
}

async fn decide(desk: &Arc<Desk>, signed: &[Arc<NotifyRule>], click: &Click) -> Result<(), Problem> {
    let snapshot = desk.snapshots.current();
    let Some(who) = Who::of_slack(&snapshot.config.identity, &click.team, &click.member) else {
        return Err(stranger(desk, click).await);
    };
    let asked = Asked::new(Arc::clone(desk), who);
    let record = asked.hold(&click.hold.to_string()).await?;
    let decision = asked.decision(&record, Some(click.version));
    let action = if click.said == Said::Approve { "hold.approve" } else { "hold.reject" };
    if let Err(problem) = suits(desk, signed, click, &record).await {
        return decision.noted(action, Err(problem)).await.map(drop);
    }
    let digest = click.digest;
    match &click.said {
        Said::Approve => {
            let said = Approve { digest, group: None, justification: None, confirm: None, grant: None };
            decision.approve(said).await.map(drop)
        }
        Said::Reject(reason) => {
            let exact = asked.exact(&record).await;
            let said = Refuse { digest, reason_code: reason.clone(), message_to_agent: None, deny_alike_minutes: None };
            decision.reject(said, &exact).await.map(drop)
        }
    }
}

/// Whether this message, of this hold, may decide it: whatever its buttons look like.
async fn suits(desk: &Desk, signed: &[Arc<NotifyRule>], click: &Click, record: &CallRecord) -> Result<(), Problem> {
    let elsewhere = |text: &'static str| Err(Problem::new(StatusCode::FORBIDDEN, "channel_not_allowed", text));
    if !signed.iter().any(|rule| desk.notifier.stands_for(rule, click.hold, &click.channel, &click.ts)) {
        return elsewhere("this is not the message that stands for this hold; open it on the page");
    }
    let seen = desk.notifier.seen(record).await;
    if !is_decided_here(record, &seen) {
        return elsewhere("this is decided on the page only");
    }
    Ok(())
}

/// An account that is nobody's here: it decides nothing, and that it tried is recorded.
async fn stranger(desk: &Desk, click: &Click) -> Problem {
    let account = format!("slack:{}/{}", click.team, click.member);
    let note = AuditNote {
        kind: "admin.refused".to_owned(),
        call: Some(click.hold.call()),
        principal: Some(account.clone()),
        agent: None,
        run: None,
        operation: None,
        code: Some("unknown_account".to_owned()),
        more: BTreeMap::from([("channel".to_owned(), json!("slack"))]),
    };
    if let Err(fault) = desk.store.append(note, false).await {
        tracing::error!(fault = %fault.chain(), "a refused click could not be recorded");
    }
    let text =
        format!("{account} is no reviewer's account; whoever runs Holdpoint links it in `identity.reviewers.slack`");
    Problem::new(StatusCode::FORBIDDEN, "unknown_account", text)
}
