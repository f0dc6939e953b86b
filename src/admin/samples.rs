//! Sampled calls: looked at after they ran, with a verdict. The API, and a page that needs no script.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Redirect};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::{CallId, Verdict, visible};
use crate::store::{HoldError, JudgeSample, Sample};

use super::api::{self, Answer, Asked};
use super::ask::Asker;
use super::decide::REASONS;
use super::filled::Filled;
use super::openapi::ReasonCode;
use super::page::{self, Visit};
use super::posted::Posted;
use super::problem::Problem;
use super::show::Head;
use super::who::{Visitor, Who};
use super::{Admin, Desk};

const LINES: usize = 200;

fn shown(sample: &Sample) -> Value {
    let p = &sample.principal;
    json!({
        "id": sample.id, "op": sample.operation, "agent": p.agent, "on_behalf_of": p.acting_for,
        "workflow": sample.workflow, "title": sample.title, "input": sample.arguments, "policies": sample.policies,
        "grant": sample.grant, "recorded": sample.recorded, "at": sample.at,
        "state": if sample.is_open() { "open" } else { "judged" },
        "verdict": sample.judged.as_ref().map(|j| j.verdict), "reason_code": sample.judged.as_ref().map(|j| &j.reason_code),
        "by": sample.judged.as_ref().map(|j| &j.by), "judged_at": sample.judged.as_ref().map(|j| j.at),
    })
}

async fn all(admin: &Admin, asker: &Asker<'_>) -> Result<Vec<Arc<Sample>>, Problem> {
    asker.permit_system(&["sample.judge", "call.view"])?;
    Ok(admin.store.samples().await?)
}

/// What a person says of a sampled call.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Judge")]
pub(super) struct Said {
    verdict: Verdict,
    /// For a bad call it must be there.
    #[serde(default)]
    #[schemars(with = "Option<ReasonCode>")]
    reason_code: Option<String>,
}

async fn judge(admin: &Admin, asker: &Asker<'_>, id: &str, said: Said) -> Result<Arc<Sample>, Problem> {
    let Said { verdict, reason_code } = said;
    let known = |code: &String| {
        REASONS.contains(&code.as_str()) || (code.starts_with("x_") && (3..=42).contains(&code.len()) && plain(code))
    };
    if reason_code.as_ref().is_some_and(|code| !known(code)) || (verdict == Verdict::Bad && reason_code.is_none()) {
        let text =
            format!("a bad call has a `reason_code`: one of {}, or one that begins with `x_`", REASONS.join(", "));
        return Err(Problem::invalid(text));
    }
    let id: CallId = id.parse().map_err(|_| Problem::not_found())?;
    asker.permit_system(&["sample.judge"])?;
    let who = asker.who;
    let names = who.aliases.iter().chain([&who.subject]).cloned().collect();
    let said = JudgeSample { id, verdict, reason_code, person: who.person.clone(), names };
    let sample = admin.store.judge_sample(said).await.map_err(|error| match error {
        HoldError::AlreadyCounted => Problem::new(StatusCode::CONFLICT, "already_judged", "somebody has judged it"),
        HoldError::SelfReview => {
            let text = "you asked for this call, or run its agent: another person judges it";
            Problem::new(StatusCode::FORBIDDEN, "self_review", text)
        }
        error => Problem::of_hold(error, asker.now),
    })?;
    admin.metrics.samples.with_label_values(&[sample.operation.as_str(), verdict.as_str()]).inc();
    Ok(sample)
}

fn plain(code: &str) -> bool {
    code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

pub(super) async fn list(State(admin): State<Arc<Desk>>, who: Who, RawQuery(query): RawQuery) -> Answer {
    let (mut open, mut op, mut before, mut limit) = (None, None, None, 50);
    for (name, value) in api::parameters(query.as_deref(), &["state", "op", "limit", "cursor"])? {
        match name.as_str() {
            "state" if value == "open" || value == "judged" => open = Some(value == "open"),
            "state" => return Err(Problem::invalid("`state` is open or judged")),
            "op" => op = Some(value),
            "limit" => {
                let given = value.parse().ok().filter(|n| (1..=LINES).contains(n));
                limit = given.ok_or_else(|| Problem::invalid(format!("`limit` is 1 to {LINES}")))?;
            }
            _ => {
                let id = value.parse::<CallId>();
                before = Some(id.map_err(|_| Problem::invalid("`cursor` is not one that was given here"))?);
            }
        }
    }
    let asked = Asked::new(admin, who);
    let mut found = all(&asked.admin, &asked.asker()).await?;
    found.retain(|s| {
        open.is_none_or(|open| s.is_open() == open)
            && op.as_ref().is_none_or(|op| s.operation == *op)
            && before.is_none_or(|before| s.id < before)
    });
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|s| s.id);
    let items: Vec<Value> = found.iter().map(|s| shown(s)).collect();
    Ok(api::ok(&json!({"items": items, "next": next}), None))
}

pub(super) async fn verdict(Path(id): Path<String>, Posted { asked, said, .. }: Posted<Said>) -> Answer {
    let sample = judge(&asked.admin, &asked.asker(), &id, said).await?;
    Ok(api::ok(&shown(&sample), None))
}

/// One line of the page.
#[derive(Debug)]
struct Row {
    id: String,
    title: String,
    agent: String,
    workflow: String,
    at: String,
    input: String,
    why: String,
    recorded: bool,
    said: String,
    can_judge: bool,
}

impl Row {
    fn new(asker: &Asker<'_>, sample: &Sample) -> Self {
        let word = |j: &crate::store::Judged| {
            let code = j.reason_code.as_ref().map(|code| format!(", {code}")).unwrap_or_default();
            visible(&format!("{}{code} ({})", j.verdict.as_str(), j.by))
        };
        Self {
            id: sample.id.to_string(),
            title: visible(&sample.title),
            agent: visible(&sample.principal.agent),
            workflow: visible(&sample.workflow),
            at: sample.at.to_string(),
            input: visible(&sample.arguments.to_string()),
            why: if sample.grant.is_some() { "passed by a grant".into() } else { visible(&sample.policies.join(", ")) },
            recorded: sample.recorded,
            said: sample.judged.as_ref().map(word).unwrap_or_default(),
            can_judge: sample.is_open() && asker.may_system("sample.judge") && !asker.is_callers(&sample.principal),
        }
    }
}

#[derive(Debug, askama::Template)]
#[template(path = "samples.html")]
struct Page {
    head: Head,
    problem: Option<String>,
    open: Vec<Row>,
    judged: Vec<Row>,
    reasons: &'static [&'static str],
}

async fn paged(visit: &Visit, problem: Option<&Problem>) -> page::Answer {
    let asker = visit.asker();
    let (mut open, mut judged) = (Vec::new(), Vec::new());
    for sample in all(&visit.desk, &asker).await?.iter().take(LINES) {
        if sample.is_open() { &mut open } else { &mut judged }.push(Row::new(&asker, sample));
    }
    let status = problem.map_or(StatusCode::OK, Problem::status);
    let problem = problem.map(|p| visible(p.detail()));
    Ok(page::html(status, &Page { head: visit.head(), problem, open, judged, reasons: &REASONS }))
}

pub(super) async fn samples_page(State(desk): State<Arc<Desk>>, visitor: Visitor) -> page::Answer {
    paged(&Visit::new(desk, visitor), None).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Form {
    verdict: Verdict,
    reason_code: Option<String>,
}

pub(super) async fn form(Path(id): Path<String>, Filled { visit, said: form }: Filled<Form>) -> page::Answer {
    let said = Said { verdict: form.verdict, reason_code: form.reason_code };
    match judge(&visit.desk, &visit.asker(), &id, said).await {
        Ok(_) => Ok(Redirect::to("/samples").into_response()),
        Err(problem) => paged(&visit, Some(&problem)).await,
    }
}
