//! The page of grants, and the form on a hold's page that gives one. No script is needed.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect};
use http::StatusCode;
use serde_json::{Map, Value};

use crate::call::{Digest, GrantCaps, Loose, duration_text, visible};
use crate::store::{CallRecord, GrantUse, State as CallState};

use super::Desk;
use super::ask::Asker;
use super::decide::Approve;
use super::filled::{Filled, Nothing};
use super::grants::{self, Pin, Sum, Wanted};
use super::page::{self, Visit};
use super::problem::Problem;
use super::show::Head;
use super::who::Visitor;

/// One grant on the page.
#[derive(Debug)]
struct Row {
    id: String,
    title: String,
    operation: String,
    agent: String,
    workflow: String,
    by: String,
    why: String,
    hold: String,
    created: String,
    expires: String,
    uses: String,
    sums: Vec<String>,
    /// Argument, what it may be, whether it is loosened.
    pins: Vec<(String, String, bool)>,
    ended: Option<String>,
    can_revoke: bool,
}

impl Row {
    fn new(asker: &Asker<'_>, found: &GrantUse) -> Self {
        let g = &found.grant;
        let pin = |(path, rule, value): (String, Option<Loose>, Value)| match rule {
            None => (visible(&path), format!("only {}", visible(&value.to_string())), false),
            Some(Loose::Max(most)) => (visible(&path), format!("a number from 0 to {most}"), true),
            Some(Loose::Any) => (visible(&path), "anything".to_owned(), true),
        };
        let over = found.over_at(asker.now);
        let by = g.ended.as_ref().and_then(|end| end.by.as_deref()).map(|by| format!(" by {}", visible(by)));
        let ended = over.map(|why| format!("{}{}", why.as_str().replace('_', " "), by.unwrap_or_default()));
        let sum = |(path, most): (&String, &i64)| {
            let taken = found.sums.get(path).copied().unwrap_or(0);
            format!("{} adds up to {taken} of {most}", visible(path))
        };
        let most = g.max_uses.map_or_else(|| "as often as wanted".to_owned(), |most| most.to_string());
        Self {
            id: g.id.to_string(),
            title: visible(&g.title),
            operation: visible(&g.operation),
            agent: match &g.principal.2 {
                Some(person) => visible(&format!("{} for {person}", g.principal.1)),
                None => visible(&g.principal.1),
            },
            workflow: visible(&g.workflow),
            by: visible(&g.by),
            why: g.reason.as_deref().map(visible).unwrap_or_default(),
            hold: g.from.hold().to_string(),
            created: g.created.to_string(),
            expires: g.expires.to_string(),
            uses: format!("{} of {most}", found.used),
            sums: g.sums.iter().map(sum).collect(),
            pins: grants::pins(g).into_iter().map(pin).collect(),
            can_revoke: over.is_none() && (asker.gave(g) || asker.may_system("grant.revoke")),
            ended,
        }
    }
}

#[derive(Debug, askama::Template)]
#[template(path = "grants.html")]
struct Page {
    head: Head,
    problem: Option<String>,
    live: Vec<Row>,
    past: Vec<Row>,
}

async fn shown(visit: &Visit, problem: Option<&Problem>) -> page::Answer {
    let asker = visit.asker();
    let (mut live, mut past) = (Vec::new(), Vec::new());
    for found in grants::visible(&visit.desk, &asker).await? {
        let row = Row::new(&asker, &found);
        if row.ended.is_none() { live.push(row) } else { past.push(row) }
    }
    let status = problem.map_or(StatusCode::OK, Problem::status);
    let problem = problem.map(|p| visible(p.detail()));
    Ok(page::html(status, &Page { head: visit.head(), problem, live, past }))
}

pub(super) async fn list(State(desk): State<Arc<Desk>>, visitor: Visitor) -> page::Answer {
    shown(&Visit::new(desk, visitor), None).await
}

pub(super) async fn revoke(Path(id): Path<String>, Filled { visit, .. }: Filled<Nothing>) -> page::Answer {
    match grants::take_back(&visit.desk, &visit.asker(), &id).await {
        Ok(_) => Ok(Redirect::to("/grants").into_response()),
        Err(problem) => shown(&visit, Some(&problem)).await,
    }
}

/// What a record's page says of grants: the one by which the call passed, and the form that gives one.
#[derive(Debug)]
pub(super) struct Granting {
    pub(super) by: Option<String>,
    pub(super) form: Option<GrantForm>,
}

impl Granting {
    pub(super) fn of(asker: &Asker<'_>, record: &CallRecord, may_give: bool) -> Self {
        let form = if may_give { GrantForm::of(asker, record) } else { None };
        Self { by: record.grant.map(|id| id.to_string()), form }
    }
}

/// The form on a hold's page.
#[derive(Debug)]
pub(super) struct GrantForm {
    /// It is not approved yet: the form approves it, too.
    pub(super) approves: bool,
    pub(super) max: String,
    pub(super) minutes: u64,
    pub(super) uses: Option<u32>,
    pub(super) sums: Vec<(String, i64)>,
    /// Argument, its value, whether it is an integer.
    pub(super) rows: Vec<(String, String, bool)>,
}

impl GrantForm {
    /// For a hold from which this person may give one.
    fn of(asker: &Asker<'_>, record: &CallRecord) -> Option<Self> {
        let caps: GrantCaps = asker.snapshot.policies.grantable(record.terms.as_ref()?).ok()?;
        let mut rows = Vec::new();
        leaves("", &record.arguments, &mut rows);
        Some(Self {
            approves: record.state_at(asker.now) == CallState::Held,
            max: duration_text(caps.max),
            minutes: caps.max.as_secs() / 60,
            uses: caps.uses,
            sums: caps.sums.into_iter().collect(),
            rows: rows.into_iter().map(|(path, value)| (path, visible(&value.to_string()), value.is_i64())).collect(),
        })
    }
}

/// Everything that can be loosened by itself.
fn leaves(path: &str, value: &Value, all: &mut Vec<(String, Value)>) {
    match value.as_object().filter(|members| !members.is_empty()) {
        Some(members) => members.iter().for_each(|(name, value)| {
            let name = name.replace('~', "~0").replace('/', "~1");
            leaves(&format!("{path}/{name}"), value, all);
        }),
        None => all.push((path.to_owned(), value.clone())),
    }
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, Problem> {
    text.trim()
        .parse()
        .map_err(|_| Problem::invalid(format!("`{}` is not a number that it may be", name.escape_debug())))
}

/// What was chosen for each argument, and how long, how often, how much.
fn wanted(form: &Map<String, Value>) -> Result<Wanted, Problem> {
    let mut wanted = Wanted::default();
    for (name, value) in form {
        let text = value.as_str().unwrap_or_default();
        match (name.as_str(), name.split_once(' ')) {
            ("digest" | "justification", _) => {}
            ("minutes", _) => wanted.minutes = Some(number(name, text)?),
            ("uses", _) => wanted.max_uses = Some(number(name, text)?),
            (_, Some(("any", path))) => wanted.pins.push(Pin::any(path)),
            (_, Some(("max", path))) => wanted.pins.push(Pin::max(path, number(name, text)?)),
            (_, Some(("sum", path))) => wanted.max_sums.push(Sum::new(path, number(name, text)?)),
            _ => return Err(Problem::malformed("a field is none of this form")),
        }
    }
    Ok(wanted)
}

/// Approves the hold and gives a grant for calls like it; of an approved one only the latter.
pub(super) async fn give(
    Path(id): Path<String>,
    Filled { visit, said: form }: Filled<Map<String, Value>>,
) -> page::Answer {
    let record = visit.hold(&id).await?;
    let done = given(&visit, &record, &form).await;
    if done.is_ok() {
        return Ok(Redirect::to("/grants").into_response());
    }
    visit.after(record.id, done).await
}

async fn given(visit: &Visit, record: &CallRecord, form: &Map<String, Value>) -> Result<CallRecord, Problem> {
    let wanted = wanted(form)?;
    let digest: Digest = serde_json::from_value(form.get("digest").cloned().unwrap_or_default())
        .map_err(|_| Problem::malformed("`digest` is no digest"))?;
    let justification = form.get("justification").and_then(Value::as_str).map(str::to_owned);
    let decision = visit.decision(record);
    if record.state_at(visit.asker().now) == CallState::Held {
        let said = Approve { digest, group: None, justification, confirm: None, grant: Some(wanted) };
        return decision.approve(said).await;
    }
    decision.grant(&wanted, digest, justification).await.map(|_| record.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_form_says_what_may_differ() {
        let form = json!({"minutes": "30", "any /who/name": "on", "max /amount": "90", "sum /amount": "500"});
        let wanted = wanted(form.as_object().unwrap()).unwrap();
        assert_eq!((wanted.minutes, wanted.max_uses, wanted.pins.len(), wanted.max_sums.len()), (Some(30), None, 2, 1));
        for wrong in [json!({"minutes": "-1"}), json!({"max /a": "much"}), json!({"other": "1"})] {
            assert!(super::wanted(wrong.as_object().unwrap()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lists_are_loosened_as_a_whole() {
        let mut rows = Vec::new();
        leaves("", &json!({"a": 1, "o": {"x/y": "v", "none": {}}, "l": [{"k": 1}]}), &mut rows);
        let paths: Vec<&str> = rows.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths.len(), 4);
        assert!(["/a", "/o/x~1y", "/o/none", "/l"].iter().all(|p| paths.contains(p)), "{paths:?}");
    }
}
