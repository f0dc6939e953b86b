//! How far agents are trusted, and what surprised people: API and page.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use http::StatusCode;
use serde_json::{Value, json};

use crate::call::visible;
use crate::store::{Surprise, Trusted};

use super::Desk;
use super::api::{self, Answer, Asked};
use super::ask::Asker;
use super::page::{self, Visit};
use super::problem::Problem;
use super::show::Head;
use super::who::{Visitor, Who};

/// Lines of one answer.
const MOST: usize = 1_000;
/// Surprises told of one line.
const SURPRISES: usize = 20;

/// Only these.
#[derive(Debug, Default)]
struct Wanted {
    agent: Option<String>,
    workflow: Option<String>,
    op: Option<String>,
}

impl Wanted {
    fn read(query: Option<&str>) -> Result<Self, Problem> {
        let mut wanted = Self::default();
        for (name, value) in api::parameters(query, &["agent", "workflow", "op"])? {
            let member = match name.as_str() {
                "agent" => &mut wanted.agent,
                "workflow" => &mut wanted.workflow,
                _ => &mut wanted.op,
            };
            *member = Some(value).filter(|v| !v.is_empty());
        }
        Ok(wanted)
    }

    fn fits(&self, t: &Trusted) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        same(&self.agent, &t.agent) && same(&self.workflow, &t.workflow) && same(&self.op, &t.operation)
    }
}

fn line(t: &Trusted) -> Value {
    let surprise = |s: &crate::store::Surprised| json!({"kind": s.kind.as_str(), "points": s.kind.points(), "at": s.at, "call": s.call});
    json!({
        "org": t.org, "agent": t.agent, "workflow": t.workflow, "op": t.operation,
        "score": t.trust.score, "surprises_7d": t.trust.surprises_7d,
        "surprises": t.surprises.iter().take(SURPRISES).map(surprise).collect::<Vec<_>>(),
    })
}

fn found(desk: &Desk, asker: &Asker<'_>, wanted: &Wanted) -> Result<Vec<Trusted>, Problem> {
    asker.permit_system(&["audit.read", "policy.view"])?;
    let mut all = desk.store.trusts()?;
    all.retain(|t| wanted.fits(t));
    all.truncate(MOST);
    Ok(all)
}

/// What each agent is trusted with, the least trusted first. Of what is not listed nothing is known yet: 50.
pub(super) async fn list(State(admin): State<Arc<Desk>>, RawQuery(query): RawQuery, who: Who) -> Answer {
    let asked = Asked::new(admin, who);
    let all = found(&asked.admin, &asked.asker(), &Wanted::read(query.as_deref())?)?;
    let items: Vec<Value> = all.iter().map(line).collect();
    Ok(api::ok(&json!({"items": items, "next": null}), None))
}

/// One line of the page.
#[derive(Debug)]
struct Row {
    agent: String,
    workflow: String,
    operation: String,
    stage: String,
    score: i64,
    surprises: i64,
    /// The newest ones: what, when, and the call.
    last: Vec<(&'static str, String, String)>,
}

#[derive(Debug, askama::Template)]
#[template(path = "agents.html")]
struct Page {
    head: Head,
    rows: Vec<Row>,
    /// What spends, and how much.
    points: Vec<(&'static str, i64)>,
}

fn words(kind: Surprise) -> &'static str {
    match kind {
        Surprise::Undone => "an executed call was taken back",
        Surprise::JudgedBad => "a call was judged bad after the fact",
        Surprise::Rejected => "a call was rejected as wrong or unsafe",
        Surprise::NearMiss => "policy refused a call that nobody can release",
        Surprise::Edited => "a call was changed before it was approved",
    }
}

fn row(visit: &Visit, t: &Trusted) -> Row {
    let last = |s: &crate::store::Surprised| {
        // Of what was refused there is no record of its own.
        let call = s.call.filter(|_| s.kind != Surprise::NearMiss);
        (words(s.kind), s.at.to_string(), call.map(|c| c.to_string()).unwrap_or_default())
    };
    let stage = visit.snapshot.config.workflows.get(&t.workflow).map_or("", |w| w.stage.as_str());
    Row {
        agent: visible(&t.agent),
        workflow: visible(&t.workflow),
        operation: visible(&t.operation),
        stage: stage.to_owned(),
        score: t.trust.score,
        surprises: t.trust.surprises_7d,
        last: t.surprises.iter().take(3).map(last).collect(),
    }
}

pub(super) async fn shown(State(desk): State<Arc<Desk>>, visitor: Visitor) -> page::Answer {
    let visit = Visit::new(desk, visitor);
    let all = found(&visit.desk, &visit.asker(), &Wanted::default())?;
    let rows = all.iter().map(|t| row(&visit, t)).collect();
    let points = Surprise::ALL.map(|kind| (words(kind), kind.points())).to_vec();
    Ok(page::html(StatusCode::OK, &Page { head: visit.head(), rows, points }))
}
