//! `/v1`: the admin API. Bearer tokens only, JSON only.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, ETAG, HeaderMap, IF_NONE_MATCH};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::snapshot::Snapshot;
use crate::store::{CallRecord, State as CallState};

use super::Desk;
use super::alike::Like;
use super::ask::Asker;
use super::decide::{Approve, Decision, Refuse, WORDS};
use super::exact::Exact;
use super::find;
use super::foreseen::Foreseen;
use super::grants;
use super::include::Include;
use super::listing::Listing;
use super::posted::Posted;
use super::problem::Problem;
use super::undo::Undo;
use super::view;
use super::who::{Who, bearer};

pub(super) type Answer = Result<Response, Problem>;

/// Longest time that one request waits for a change.
const MAX_WAIT: u64 = 60;
const DEFAULT_WAIT: u64 = 25;

pub(super) fn ok(value: &Value, version: Option<u64>) -> Response {
    let mut response = (StatusCode::OK, [(CONTENT_TYPE, "application/json")], value.to_string()).into_response();
    if let Some(tag) = version.and_then(|v| format!("\"{v}\"").parse().ok()) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// A version in quotes, as `If-Match` and `If-None-Match` carry it.
pub(super) fn version(headers: &HeaderMap, name: http::HeaderName) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(&name) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let number = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).and_then(|t| t.parse().ok());
    number.map(Some).ok_or_else(|| Problem::malformed(format!("`{name}` is one version in quotes, such as `\"3\"`")))
}

/// Query parameters; one that is not known is refused rather than ignored.
pub(super) fn parameters(query: Option<&str>, known: &[&str]) -> Result<Vec<(String, String)>, Problem> {
    let pairs = crate::wire::path::query(query).map_err(Problem::malformed)?;
    match pairs.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        Some((name, _)) => {
            let text = format!("the query parameter `{}` is not known", name.escape_debug());
            Err(Problem::new(StatusCode::BAD_REQUEST, "unknown_parameter", text))
        }
        None => Ok(pairs),
    }
}

/// One request: the snapshot it is judged by, and who asks.
pub(super) struct Asked {
    pub(super) admin: Arc<Desk>,
    snapshot: Arc<Snapshot>,
    who: Who,
}

impl Asked {
    pub(super) fn new(admin: Arc<Desk>, who: Who) -> Self {
        Self { snapshot: admin.snapshots.current(), admin, who }
    }

    pub(super) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    pub(super) fn config(&self) -> &crate::config::Config {
        &self.snapshot.config
    }

    pub(super) fn who(&self) -> &Who {
        &self.who
    }

    pub(super) fn asker(&self) -> Asker<'_> {
        Asker { snapshot: &self.snapshot, who: &self.who, now: self.admin.clock.now() }
    }

    pub(super) async fn hold(&self, id: &str) -> Result<CallRecord, Problem> {
        find::hold(&self.admin, &self.asker(), id).await
    }

    pub(super) async fn call(&self, id: &str) -> Result<CallRecord, Problem> {
        find::call(&self.admin, &self.asker(), id).await
    }

    pub(super) async fn exact(&self, record: &CallRecord) -> Exact {
        Exact::of(&self.snapshot, &self.admin.store, record).await
    }

    pub(super) fn decision<'a>(&'a self, record: &'a CallRecord, version: Option<u64>) -> Decision<'a> {
        Decision { admin: &self.admin, snapshot: &self.snapshot, who: &self.who, record, version }
    }

    pub(super) async fn shown(&self, record: &CallRecord, include: Include) -> Answer {
        self.admin.opened.note(&self.who.person, record);
        let exact = self.exact(record).await;
        let contents = find::contents(&self.admin, &self.asker(), record).await?;
        let foreseen = Foreseen::of(&self.snapshot, &self.admin.store, record, &exact).await;
        let undo = Undo::of(&self.snapshot, &self.admin.store, record, foreseen.as_ref()).await;
        let like = Like::of(&self.admin, &self.asker(), record).await?;
        let more = include.members(self, record, &exact, &like).await?;
        let foreseen = foreseen.as_ref();
        let parts = view::Parts { exact: &exact, contents: &contents, foreseen, undo: &undo, like: &like };
        let mut full = view::full(&self.asker(), record, &parts);
        if let Some(members) = full.as_object_mut() {
            members.extend(more);
        }
        Ok(ok(&full, Some(record.version)))
    }

    fn decided(&self, record: &CallRecord) -> Response {
        ok(&view::decided(record, self.admin.clock.now()), Some(record.version))
    }
}

pub(super) async fn me(State(admin): State<Arc<Desk>>, who: Who) -> Answer {
    let asked = Asked::new(admin, who);
    let (config, policies) = asked.snapshot.digests();
    let who = &asked.who;
    let value = json!({
        "user": who.user, "person": who.person, "groups": who.groups, "email": who.email, "mfa": who.mfa,
        "channel": who.channel, "config_digest": config, "policy_digest": policies,
        "since": asked.snapshot.since, "mode": super::policies::mode(&asked.snapshot),
        "version": env!("CARGO_PKG_VERSION"), "may": asked.asker().may_on_system(),
    });
    Ok(ok(&value, None))
}

pub(super) async fn holds(State(admin): State<Arc<Desk>>, who: Who, RawQuery(query): RawQuery) -> Answer {
    let listing = Listing::of_holds(query.as_deref())?;
    listing.answer(&Asked::new(admin, who), "hold.view").await
}

pub(super) async fn calls(State(admin): State<Arc<Desk>>, who: Who, RawQuery(query): RawQuery) -> Answer {
    let listing = Listing::of_calls(query.as_deref())?;
    listing.answer(&Asked::new(admin, who), "call.view").await
}

pub(super) async fn hold(
    State(admin): State<Arc<Desk>>,
    who: Who,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    let include = Include::of(query.as_deref())?;
    let asked = Asked::new(admin, who);
    let record = asked.hold(&id).await?;
    asked.shown(&record, include).await
}

pub(super) async fn call(
    State(admin): State<Arc<Desk>>,
    who: Who,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    let include = Include::of(query.as_deref())?;
    let asked = Asked::new(admin, who);
    let record = find::call(&asked.admin, &asked.asker(), &id).await?;
    asked.shown(&record, include).await
}

/// Waits until the hold differs from what it was, or from the version of `If-None-Match`.
pub(super) async fn wait(
    State(admin): State<Arc<Desk>>,
    who: Who,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let timeout = match parameters(query.as_deref(), &["timeout"])?.first() {
        None => DEFAULT_WAIT,
        Some((_, text)) => {
            let seconds = text.parse().ok().filter(|s| *s <= MAX_WAIT);
            seconds.ok_or_else(|| Problem::invalid(format!("`timeout` is 0 to {MAX_WAIT} seconds")))?
        }
    };
    let known = version(&headers, IF_NONE_MATCH)?;
    let asked = Asked::new(Arc::clone(&admin), who);
    let id = asked.hold(&id).await?.id.hold().to_string();
    let changes = admin.store.watch(asked.hold(&id).await?.id)?;
    // Read after subscribing: what changed before is seen here, what changes after wakes us.
    let record = asked.hold(&id).await?;
    let known = known.unwrap_or(record.version);
    if let Some(mut changes) = changes
        && record.version == known
        && !record.state_at(admin.clock.now()).is_final()
    {
        let moved = changes.wait_for(|(_, version)| *version != known);
        tokio::select! {
            in_time = tokio::time::timeout(Duration::from_secs(timeout), moved) => {
                tracing::trace!(in_time = in_time.is_ok(), "waited for a hold");
            }
            () = admin.draining.on() => {}
        }
    }
    // Time has passed: who asks, and what may be seen, is asked anew.
    let asked = Asked::new(Arc::clone(&admin), bearer(&admin.snapshots.current(), &headers)?);
    let record = asked.hold(&id).await?;
    asked.shown(&record, Include::default()).await
}

pub(super) async fn approve(Path(id): Path<String>, Posted { asked, said, version }: Posted<Approve>) -> Answer {
    let record = asked.hold(&id).await?;
    let granted = said.grant.is_some();
    let done = asked.decision(&record, version).approve(said).await?;
    if !granted {
        return Ok(asked.decided(&done));
    }
    let mut answer = view::decided(&done, asked.admin.clock.now());
    if let Some(members) = answer.as_object_mut() {
        members.extend(grants::given_with(&asked, &done).await?);
    }
    Ok(ok(&answer, Some(done.version)))
}

pub(super) async fn reject(Path(id): Path<String>, Posted { asked, said, version }: Posted<Refuse>) -> Answer {
    let record = asked.hold(&id).await?;
    let exact = asked.exact(&record).await;
    let done = asked.decision(&record, version).reject(said, &exact).await?;
    Ok(asked.decided(&done))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Withdraw {
    /// Not empty.
    #[schemars(length(max = WORDS), pattern(r"\S"))]
    reason: String,
}

pub(super) async fn withdraw(Path(id): Path<String>, Posted { asked, said, version }: Posted<Withdraw>) -> Answer {
    let record = asked.hold(&id).await?;
    let exact = asked.exact(&record).await;
    let done = asked.decision(&record, version).withdraw(said.reason, &exact).await?;
    Ok(asked.decided(&done))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Reconcile")]
pub(super) struct Settle {
    outcome: Outcome,
    /// Not empty.
    #[schemars(length(max = WORDS), pattern(r"\S"))]
    reason: String,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Succeeded,
    NotExecuted,
}

pub(super) async fn reconcile(Path(id): Path<String>, Posted { asked, said, version }: Posted<Settle>) -> Answer {
    let record = find::call(&asked.admin, &asked.asker(), &id).await?;
    let outcome = match said.outcome {
        Outcome::Succeeded => CallState::Succeeded,
        Outcome::NotExecuted => CallState::NotExecuted,
    };
    let exact = asked.exact(&record).await;
    let done = asked.decision(&record, version).reconcile(outcome, said.reason, &exact).await?;
    Ok(asked.decided(&done))
}
