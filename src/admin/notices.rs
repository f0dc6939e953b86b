//! Receivers of notifications, as those who run Holdpoint see them.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use http::StatusCode;
use http::header::HeaderMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::store::AuditNote;

use super::ask::Asker;
use super::problem::Problem;
use super::who::Who;
use super::{Desk, edge};

fn permit(desk: &Desk, who: &Who, action: &'static str) -> Result<(), Problem> {
    let snapshot = desk.snapshots.current();
    Asker { snapshot: &snapshot, who, now: desk.clock.now() }.permit_system(&[action])
}

pub(super) async fn list(State(desk): State<Arc<Desk>>, who: Who) -> Result<Json<Value>, Problem> {
    permit(&desk, &who, "audit.read")?;
    Ok(Json(json!({"items": desk.notifier.list().await?, "next": null})))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Replay {
    /// Events by id; all that were given up when absent.
    ids: Option<Vec<String>>,
}

pub(super) async fn replay(
    State(desk): State<Arc<Desk>>,
    who: Who,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    permit(&desk, &who, "notify.replay")?;
    let said: Replay = edge::json(&headers, body, edge::room("")).await?;
    let done = desk.notifier.replay(&name, said.ids.as_deref()).await?;
    let count = done.ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "not_found", "there is no such receiver, or no such event in the journal")
    })?;
    let more = [("receiver", json!(name)), ("replayed", json!(count)), ("user", json!(who.person))];
    let more = more.map(|(n, v)| (n.to_owned(), v)).into();
    desk.store.append(AuditNote::plain("notify.replayed", more), true).await?;
    Ok(Json(json!({"replayed": count})))
}
