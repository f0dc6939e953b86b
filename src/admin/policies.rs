//! Which policies rule, since when, and what those in shadow would have said; and putting the files as they are now in
//! force.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use serde_json::{Value, json};

use crate::policy::{Lift, Plane, Policy};
use crate::snapshot::Snapshot;
use crate::telemetry::Metrics;

use super::Desk;
use super::api::{Answer, ok};
use super::ask::Asker;
use super::problem::Problem;
use super::who::Who;

/// One policy, as operators see it.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: String,
    /// `permit`, `forbid`.
    pub(super) effect: &'static str,
    /// What lifts it: `nobody`, `one approval`, `two people`; empty for permits.
    pub(super) lift: &'static str,
    pub(super) plane: &'static str,
    pub(super) at: String,
    pub(super) reason: String,
    pub(super) shadow: bool,
    /// Calls that it decided since the process started.
    pub(super) hits: u64,
    /// Calls that it would have tightened or loosened since the process started, for policies in shadow and while the
    /// whole set observes.
    pub(super) tightened: u64,
    pub(super) loosened: u64,
}

impl Row {
    fn new(policy: &Policy, metrics: &Metrics) -> Self {
        let count = |change: &str| {
            let counter = metrics.shadow_decisions.get_metric_with_label_values(&[policy.id.as_str(), change]);
            counter.map_or(0, |c| c.get())
        };
        Self {
            id: policy.id.clone(),
            effect: if policy.is_forbid() { "forbid" } else { "permit" },
            lift: match (policy.is_forbid(), policy.lift) {
                (false, _) => "",
                (true, Lift::Never) => "nobody",
                (true, Lift::Granted) => "one approval",
                (true, Lift::Dual) => "two people",
            },
            plane: if policy.plane == Plane::Admin { "people" } else { "agents" },
            at: policy.at.clone(),
            reason: policy.reason.clone(),
            shadow: policy.shadow,
            hits: metrics.policy_hits.get_metric_with_label_values(&[policy.id.as_str()]).map_or(0, |c| c.get()),
            tightened: count("tightens"),
            loosened: count("loosens"),
        }
    }

    fn json(&self) -> Value {
        json!({
            "id": self.id, "effect": self.effect, "lifted_by": self.lift, "plane": self.plane, "at": self.at,
            "reason": self.reason, "hits": self.hits, "mode": if self.shadow { "shadow" } else { "enforce" },
            "would_have_tightened": self.tightened, "would_have_loosened": self.loosened,
        })
    }
}

/// `enforce` or `observe`.
pub(super) fn mode(s: &Snapshot) -> &'static str {
    if s.policies.observes() { "observe" } else { "enforce" }
}

/// Every policy of the version in force.
pub(super) fn rows(desk: &Desk, s: &Snapshot) -> Vec<Row> {
    s.policies.loaded().policies().iter().map(|p| Row::new(p, &desk.metrics)).collect()
}

fn shown(desk: &Desk, s: &Snapshot) -> Value {
    let (config, policies) = s.digests();
    let items: Vec<Value> = rows(desk, s).iter().map(Row::json).collect();
    json!({
        "policy_digest": policies, "config_digest": config, "since": s.since, "mode": mode(s),
        "files": s.policies.loaded().files(), "items": items, "next": null,
    })
}

pub(super) async fn list(State(desk): State<Arc<Desk>>, who: Who) -> Answer {
    let snapshot = desk.snapshots.current();
    Asker { snapshot: &snapshot, who: &who, now: desk.clock.now() }.permit_system(&["policy.view"])?;
    Ok(ok(&shown(&desk, &snapshot), None))
}

/// Reads configuration, schemas and policies again: all or nothing. What is in force answers whether the person may.
pub(super) async fn activate(State(desk): State<Arc<Desk>>, who: Who) -> Answer {
    {
        let snapshot = desk.snapshots.current();
        Asker { snapshot: &snapshot, who: &who, now: desk.clock.now() }.permit_system(&["policy.activate"])?;
    }
    if let Err(why) = (desk.reload)(who.person.clone()).await {
        let text = format!("the files were rejected; what was in force stays so\n{why}");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "policy_rejected", text));
    }
    Ok(ok(&shown(&desk, &desk.snapshots.current()), None))
}
