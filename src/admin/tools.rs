//! Tools whose definition is not the one that an operator accepted: what moved, for those who may see policies.

use std::sync::Arc;

use axum::extract::State;
use serde_json::{Value, json};

use crate::config::lock::{Moved, moved};
use crate::gates::pins::Drift;
use crate::snapshot::Snapshot;

use super::Desk;
use super::api::{Answer, ok};
use super::ask::Asker;
use super::who::Who;

/// A tool that is paused, as operators see it.
#[derive(Debug)]
pub(super) struct Paused {
    /// `tickets.get_ticket`.
    pub(super) operation: String,
    /// Nobody has ever accepted a tool of that name.
    pub(super) is_new: bool,
    /// Since when.
    pub(super) since: String,
    /// What moved.
    pub(super) moved: Vec<Moved>,
    /// What accepts it.
    pub(super) accept: String,
}

impl Paused {
    fn new(drift: &Drift, s: &Snapshot) -> Self {
        let tool = s.config.tools.iter().find(|t| t.tool.name == drift.tool);
        let pinned = tool.and_then(|t| t.pins.get(&drift.name)).map(|locked| &locked.definition);
        Self {
            operation: crate::call::visible(&format!("{}.{}", drift.tool, drift.name)),
            is_new: drift.pin.is_none(),
            since: drift.since.to_string(),
            moved: moved(pinned, &drift.definition),
            accept: format!("holdpoint lock {}", drift.tool),
        }
    }

    fn json(&self) -> Value {
        json!({"operation": self.operation, "new": self.is_new, "since": self.since, "changes": self.moved,
               "accept": format!("{}, then reload (SIGHUP)", self.accept)})
    }
}

/// All that this person may see.
pub(super) fn waiting(desk: &Desk, asker: &Asker<'_>) -> Vec<Paused> {
    let drifts = desk.pins.all();
    if drifts.is_empty() || !asker.may_system("policy.view") {
        return Vec::new();
    }
    drifts.iter().map(|d| Paused::new(d, asker.snapshot)).collect()
}

pub(super) async fn paused(State(desk): State<Arc<Desk>>, who: Who) -> Answer {
    let snapshot = desk.snapshots.current();
    let asker = Asker { snapshot: &snapshot, who: &who, now: desk.clock.now() };
    asker.permit_system(&["policy.view"])?;
    let items: Vec<Value> = waiting(&desk, &asker).iter().map(Paused::json).collect();
    Ok(ok(&json!({"items": items, "next": null}), None))
}
