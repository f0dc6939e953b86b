//! The kill switch: what is stopped, stopping it, letting it go on. API and page.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Redirect};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::{PauseScope, visible};
use crate::config::Config;
use crate::store::{Pause, PauseDone};

use super::Desk;
use super::api::{self, Answer};
use super::ask::Asker;
use super::decide::WORDS;
use super::filled::Filled;
use super::handling::given;
use super::page::{self, Visit};
use super::posted::Posted;
use super::problem::Problem;
use super::show::Head;
use super::who::{Visitor, Who};

/// Names that a refusal lists.
const LISTED: usize = 20;

/// What to stop or to let go on, and why.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Switch {
    /// `all`, `agent:NAME`, `workflow:NAME` or `tool:NAME`.
    #[schemars(length(max = 220), example = "agent:support-bot")]
    scope: String,
    /// For people; agents do not hear it.
    #[schemars(length(max = WORDS), pattern(r"\S"))]
    reason: String,
}

/// A switch of the form: the kind of scope, and a name for all but the first.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Form {
    verb: String,
    kind: String,
    #[serde(default)]
    name: String,
    reason: String,
}

impl Switch {
    fn read(&self) -> Result<(PauseScope, String), Problem> {
        let reason = given("reason", &self.reason)?;
        let scope = self.scope.parse().map_err(|e| Problem::invalid(format!("`scope`: {e}")))?;
        Ok((scope, reason))
    }
}

/// Agents that the configuration names.
fn named(config: &Config) -> impl Iterator<Item = &str> {
    let keys = config.identity.keys.iter().map(|k| k.agent.as_str());
    let certificates = config.identity.mtls.iter().flat_map(|m| m.agents.values()).map(|a| a.agent.as_str());
    keys.chain(certificates)
}

/// A misspelled name would stop nothing, and nobody would notice.
fn known(config: &Config, scope: &PauseScope) -> Result<(), Problem> {
    let (what, name, names): (_, _, BTreeSet<&str>) = match scope {
        PauseScope::All => return Ok(()),
        // Who may come with a signed token, nobody can list.
        PauseScope::Agent(_) if config.identity.jwt.is_some() => return Ok(()),
        PauseScope::Agent(name) => ("agent", name, named(config).collect()),
        PauseScope::Workflow(name) => {
            let all = config.workflows.keys().chain([&config.default_workflow]);
            ("workflow", name, all.map(String::as_str).collect())
        }
        PauseScope::Tool(name) => ("tool", name, config.tools.iter().map(|t| t.tool.name.as_str()).collect()),
    };
    if names.contains(name.as_str()) {
        return Ok(());
    }
    let listed: Vec<&str> = names.iter().take(LISTED).copied().collect();
    let more = if names.len() > listed.len() { ", …" } else { "" };
    Err(Problem::invalid(format!("there is no {what} `{}`; there are: {}{more}", visible(name), listed.join(", "))))
}

fn shown(pause: &Pause) -> Value {
    json!({"scope": pause.scope, "reason": pause.reason, "by": pause.by, "since": pause.since})
}

/// Whether anybody has heard of what is stopped: agents that come with a signed token cannot be listed.
fn is_known(desk: &Desk, config: &Config, scope: &PauseScope) -> Result<bool, Problem> {
    let PauseScope::Agent(name) = scope else { return Ok(true) };
    Ok(named(config).any(|known| known == name) || desk.store.has_seen_agent(name)?)
}

fn done(done: &PauseDone, known: bool) -> Value {
    let p = &done.pause;
    json!({
        "scope": p.scope, "reason": p.reason, "by": p.by, "since": p.since, "known": known,
        "changed": done.changed, "waiting": done.waiting, "in_flight": done.in_flight,
    })
}

async fn stop(desk: &Desk, asker: &Asker<'_>, said: &Switch) -> Result<PauseDone, Problem> {
    asker.permit_system(&["kill"])?;
    let (scope, reason) = said.read()?;
    known(&asker.snapshot.config, &scope)?;
    let done = desk.store.pause(scope, reason, asker.who.person.clone()).await.map_err(|fault| {
        tracing::error!(fault = %fault.chain(), "a stop is in force and could not be recorded");
        let text =
            "it is stopped until this process ends, and that could not be recorded: stop it again after a restart";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", text)
    })?;
    tracing::warn!(scope = %done.pause.scope, by = done.pause.by, waiting = done.waiting, "the kill switch was thrown");
    Ok(done)
}

async fn go_on(desk: &Desk, asker: &Asker<'_>, said: &Switch) -> Result<PauseDone, Problem> {
    asker.permit_system(&["resume"])?;
    let (scope, reason) = said.read()?;
    let by = asker.who.person.clone();
    let Some(done) = desk.store.lift(&scope, reason, by.clone()).await? else {
        let on: Vec<String> = desk.store.pauses().iter().map(|p| visible(&p.scope.to_string())).collect();
        let on = if on.is_empty() { "nothing is".to_owned() } else { on.join(", ") };
        let text = format!("`{}` is not stopped; stopped: {on}", visible(&scope.to_string()));
        return Err(Problem::new(StatusCode::CONFLICT, "not_stopped", text));
    };
    tracing::warn!(scope = %scope, by, waiting = done.waiting, "the kill switch was lifted");
    Ok(done)
}

/// What is stopped: for all who review, since nothing that they approve is sent.
pub(super) async fn list(State(admin): State<Arc<Desk>>, _: Who) -> Answer {
    let items: Vec<Value> = admin.store.pauses().iter().map(shown).collect();
    Ok(api::ok(&json!({"items": items, "next": null}), None))
}

pub(super) async fn kill(Posted { asked, said, .. }: Posted<Switch>) -> Answer {
    let stopped = stop(&asked.admin, &asked.asker(), &said).await?;
    let known = is_known(&asked.admin, asked.config(), &stopped.pause.scope)?;
    Ok(api::ok(&done(&stopped, known), None))
}

pub(super) async fn resume(Posted { asked, said, .. }: Posted<Switch>) -> Answer {
    Ok(api::ok(&done(&go_on(&asked.admin, &asked.asker(), &said).await?, true), None))
}

/// One pause on a page.
#[derive(Debug)]
pub(super) struct Row {
    /// As a sentence: `agent support-bot`.
    pub(super) what: String,
    kind: &'static str,
    name: String,
    pub(super) by: String,
    pub(super) since: String,
    pub(super) reason: String,
}

impl Row {
    pub(super) fn new(pause: &Pause) -> Self {
        let kind = pause.scope.kind();
        let name = match &pause.scope {
            PauseScope::All => "",
            PauseScope::Agent(name) | PauseScope::Workflow(name) | PauseScope::Tool(name) => name.as_str(),
        };
        let what = if kind == "all" { "every call".to_owned() } else { format!("{kind} {}", visible(name)) };
        let (by, reason) = (visible(&pause.by), visible(&pause.reason));
        Self { what, kind, name: name.to_owned(), by, since: pause.since.to_string(), reason }
    }
}

#[derive(Debug, askama::Template)]
#[template(path = "stop.html")]
struct Page {
    head: Head,
    may_kill: bool,
    may_resume: bool,
    problem: String,
}

fn page(visit: &Visit, problem: Option<&Problem>) -> Page {
    let may = visit.asker().may_on_system();
    let problem = problem.map(|p| p.detail().to_owned()).unwrap_or_default();
    Page { head: visit.head(), may_kill: may.contains(&"kill"), may_resume: may.contains(&"resume"), problem }
}

pub(super) async fn stopped(State(desk): State<Arc<Desk>>, visitor: Visitor) -> page::Answer {
    Ok(page::html(StatusCode::OK, &page(&Visit::new(desk, visitor), None)))
}

/// The form of the page, either way.
pub(super) async fn switched(Filled { visit, said }: Filled<Form>) -> page::Answer {
    if said.kind == "all" && !said.name.trim().is_empty() {
        let problem = Problem::invalid("every call has no name: choose what is stopped, or leave the name out");
        return Ok(page::html(problem.status(), &page(&visit, Some(&problem))));
    }
    let scope = if said.kind == "all" { said.kind } else { format!("{}:{}", said.kind, said.name.trim()) };
    let wanted = Switch { scope, reason: said.reason };
    let done = match said.verb.as_str() {
        "kill" => stop(&visit.desk, &visit.asker(), &wanted).await,
        "resume" => go_on(&visit.desk, &visit.asker(), &wanted).await,
        _ => Err(Problem::malformed("`verb` is `kill` or `resume`")),
    };
    match done {
        Ok(_) => Ok(Redirect::to("/stop").into_response()),
        Err(problem) => Ok(page::html(problem.status(), &page(&visit, Some(&problem)))),
    }
}
