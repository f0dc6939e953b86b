//! One run of an agent: its steps, their calls with evidence, decisions and cost, in the order in which they were asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use http::StatusCode;
use serde_json::{Value, json};

use crate::call::{encode_part, money_text, visible};
use crate::store::{CallRecord, Filter, State as CallState};

use super::api::{self, Answer, Asked};
use super::ask::Asker;
use super::page::{self, Visit};
use super::problem::Problem;
use super::show::{Head, Line};
use super::who::{Visitor, Who};
use super::{Admin, Desk, find};

/// Calls of one run that are shown.
const CALLS: usize = 500;

/// Where the page of a run is.
pub(super) fn href(record: &CallRecord) -> String {
    format!("/runs/{}?agent={}", encode_part(&record.context.run), encode_part(&record.principal.agent))
}

/// Calls of one caller in one run, oldest first.
#[derive(Debug)]
struct Run {
    records: Vec<CallRecord>,
    /// There are more than are shown.
    more: bool,
}

impl Run {
    /// What this person may see of it; runs of different callers never mix, whatever they are called.
    async fn of(admin: &Admin, asker: &Asker<'_>, run: &str, agent: Option<String>) -> Result<Vec<Self>, Problem> {
        let filter = Filter { run: Some(run.to_owned()), agent, limit: CALLS, ..Filter::default() };
        let (records, next) = find::either(admin, asker, filter).await?;
        let mut by_caller: BTreeMap<_, Vec<CallRecord>> = BTreeMap::new();
        for record in records.into_iter().rev() {
            by_caller.entry(record.principal.key()).or_default().push(record);
        }
        if by_caller.is_empty() {
            return Err(Problem::not_found());
        }
        Ok(by_caller.into_values().map(|records| Self { records, more: next.is_some() }).collect())
    }

    /// Money that was moved, by currency.
    fn money(&self) -> BTreeMap<&str, i64> {
        let mut sums = BTreeMap::new();
        let moved = self.records.iter().filter(|r| r.state == CallState::Succeeded);
        for (minor, currency) in moved.filter_map(|r| r.money.as_ref()) {
            let sum: &mut i64 = sums.entry(currency.as_str()).or_default();
            *sum = sum.saturating_add(*minor);
        }
        sums
    }

    fn json(&self, asker: &Asker<'_>) -> Value {
        let (mut nodes, mut edges) = (Vec::new(), Vec::new());
        let mut before: Option<String> = None;
        let mut steps: Vec<&str> = Vec::new();
        for record in &self.records {
            let id = record.id.to_string();
            nodes.push(call_node(asker, record));
            if let Some(step) = record.context.step.as_deref() {
                if !steps.contains(&step) {
                    steps.push(step);
                    nodes.push(json!({"id": format!("step:{step}"), "kind": "step", "title": step}));
                }
                edges.push(json!({"from": format!("step:{step}"), "to": id, "kind": "contains"}));
            }
            for evidence in &record.evidence {
                let from = evidence.id.to_string();
                nodes.push(json!({
                    "id": from, "kind": "evidence", "title": evidence.title, "evidence_kind": evidence.kind, "by": evidence.by,
                }));
                edges.push(json!({"from": from, "to": id, "kind": "supports"}));
            }
            if let Some(undone) = &record.undoes {
                edges.push(json!({"from": id, "to": undone.call, "kind": "undoes"}));
            }
            edges.extend(before.replace(id.clone()).map(|from| json!({"from": from, "to": id, "kind": "next"})));
        }
        let first = self.records.first();
        json!({
            "agent": first.map(|r| &r.principal.agent), "org": first.map(|r| &r.principal.org),
            "on_behalf_of": first.and_then(|r| r.principal.acting_for.as_ref()),
            "workflow": first.map(|r| &r.context.workflow),
            "nodes": nodes, "edges": edges, "complete": !self.more,
            "cost": self.money().into_iter().map(|(c, minor)| json!({"minor": minor, "currency": c})).collect::<Vec<_>>(),
        })
    }
}

/// A call as a node of its run.
pub(super) fn call_node(asker: &Asker<'_>, record: &CallRecord) -> Value {
    let approvals: Vec<&str> = record.approvals.iter().map(|a| a.person.as_str()).collect();
    json!({
        "id": record.id, "kind": "call", "title": record.title, "op": record.operation,
        "state": record.state_at(asker.now).as_str(), "tier": record.tier.as_str(), "at": record.created,
        "hold": record.terms.as_ref().map(|_| record.id.hold()), "approved_by": approvals,
    })
}

fn agent(query: Option<&str>) -> Result<Option<String>, Problem> {
    Ok(api::parameters(query, &["agent"])?.into_iter().map(|(_, value)| value).next_back())
}

pub(super) async fn show(
    State(admin): State<Arc<Desk>>,
    who: Who,
    Path(run): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    let agent = agent(query.as_deref())?;
    let asked = Asked::new(admin, who);
    let runs = Run::of(&asked.admin, &asked.asker(), &run, agent).await?;
    let asker = asked.asker();
    let items: Vec<Value> = runs.iter().map(|r| r.json(&asker)).collect();
    Ok(api::ok(&json!({"id": run, "items": items}), None))
}

/// Calls of one step.
#[derive(Debug)]
struct Step {
    name: String,
    /// Each with what was brought, and who approved.
    lines: Vec<(Line, String)>,
}

/// One caller's part of the page.
#[derive(Debug)]
struct Part {
    caller: String,
    workflow: String,
    steps: Vec<Step>,
    cost: String,
    more: bool,
}

impl Part {
    fn new(asker: &Asker<'_>, run: &Run) -> Self {
        let mut steps: Vec<Step> = Vec::new();
        for record in &run.records {
            let name = record.context.step.as_deref().map(visible).unwrap_or_default();
            if steps.last().is_none_or(|last| last.name != name) {
                steps.push(Step { name, lines: Vec::new() });
            }
            if let Some(step) = steps.last_mut() {
                // Where this person may see it: a hold's page shows its call, too.
                let hold = record.terms.is_some() && !asker.may("call.view", record);
                step.lines.push((Line::new(asker, record, hold), beside(record)));
            }
        }
        let caller = run.records.first().map(|r| match &r.principal.acting_for {
            Some(person) => visible(&format!("{} for {person}", r.principal.agent)),
            None => visible(&r.principal.agent),
        });
        let cost: Vec<String> = run.money().into_iter().map(|(c, minor)| visible(&money_text(minor, c))).collect();
        Self {
            caller: caller.unwrap_or_default(),
            workflow: run.records.first().map(|r| visible(&r.context.workflow)).unwrap_or_default(),
            steps,
            cost: cost.join(", "),
            more: run.more,
        }
    }
}

/// Evidence and decisions in a few words.
fn beside(record: &CallRecord) -> String {
    let kinds: Vec<&str> = record.evidence.iter().map(|e| e.kind.as_str()).collect();
    let people: Vec<&str> = record.approvals.iter().map(|a| a.person.as_str()).collect();
    let said = [("evidence", kinds), ("approved by", people)];
    let said = said.iter().filter(|(_, all)| !all.is_empty()).map(|(what, all)| format!("{what} {}", all.join(", ")));
    let note = record.note.as_ref().map(|n| n.code.clone());
    visible(&said.chain(note).collect::<Vec<_>>().join(" · "))
}

#[derive(Debug, askama::Template)]
#[template(path = "run.html")]
struct Page {
    head: Head,
    run: String,
    parts: Vec<Part>,
}

pub(super) async fn shown(
    State(desk): State<Arc<Desk>>,
    visitor: Visitor,
    Path(run): Path<String>,
    RawQuery(query): RawQuery,
) -> page::Answer {
    let agent = agent(query.as_deref())?;
    let visit = Visit::new(desk, visitor);
    let runs = Run::of(&visit.desk, &visit.asker(), &run, agent).await?;
    let parts = runs.iter().map(|r| Part::new(&visit.asker(), r)).collect();
    Ok(page::html(StatusCode::OK, &Page { head: visit.head(), run: visible(&run), parts }))
}
