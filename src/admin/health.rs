//! Health and metrics: no credential, nothing about any call.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName};

use crate::call::Terms;
use crate::store::{CallRecord, Filter, State as CallState};

use super::Desk;
use super::ask::Asker;
use super::problem::Problem;
use super::who::Who;

type Check = (&'static str, bool);

impl Desk {
    /// Configuration and policies are loaded as long as there is a snapshot; upstreams do not count.
    fn checks(&self) -> [Check; 7] {
        let store = self.store.health();
        [
            ("config and policies loaded", true),
            ("store writable", store.writable),
            ("journal and index keep up", store.keeps_up()),
            ("room on the disk of the state (8 MiB)", store.has_room()),
            ("checkpoints are signed", store.signs),
            ("history is the one that was signed", store.history.is_ok()),
            ("not draining", !self.draining.is_on()),
        ]
    }

    fn is_ready(&self) -> bool {
        self.checks().iter().all(|(_, ok)| *ok)
    }
}

fn text(status: StatusCode, text: String) -> Response {
    let kind: (HeaderName, &str) = (CONTENT_TYPE, "text/plain; charset=utf-8");
    (status, [kind], text).into_response()
}

fn answer(checks: &[Check], verbose: bool) -> Response {
    let ok = checks.iter().all(|(_, ok)| *ok);
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut out = String::new();
    if verbose {
        for (what, ok) in checks {
            out.push_str(&format!("[{}] {what}\n", if *ok { "+" } else { "-" }));
        }
    }
    out.push_str(if ok { "ok\n" } else { "not ready\n" });
    text(status, out)
}

fn is_verbose(query: Option<&str>) -> bool {
    query.is_some_and(|q| q.split('&').any(|p| p == "verbose" || p.starts_with("verbose=")))
}

/// The loop turns. It is also the answer to whether it has started: this listener opens last, after recovery.
pub(super) async fn live() -> Response {
    text(StatusCode::OK, "ok\n".to_owned())
}

pub(super) async fn ready(State(admin): State<Arc<Desk>>, RawQuery(query): RawQuery) -> Response {
    answer(&admin.checks(), is_verbose(query.as_deref()))
}

/// Holds to which none of the configured reviewers could give the next vote: they would wait in vain. Whoever comes from a
/// provider cannot be listed; then nothing is said.
async fn without_approver(desk: &Desk) -> Result<(), Problem> {
    let (snapshot, gauge) = (desk.snapshots.current(), &desk.metrics.holds_without_approver);
    gauge.reset();
    if snapshot.config.identity.oidc.is_some() {
        return Ok(());
    }
    let reviewers: Vec<Who> = snapshot
        .config
        .identity
        .reviewers
        .iter()
        .filter_map(|r| Who::by_token_digest(&snapshot, &r.digest, "page"))
        .collect();
    let now = desk.clock.now();
    let held = Filter { states: vec![CallState::Held], holds_only: true, limit: usize::MAX, ..Filter::default() };
    let stuck = |r: &&CallRecord| {
        let snapshot = &snapshot;
        // Evidence can still come, and a claim ends: what counts is whether there is a person.
        let mut bare = (*r).clone();
        (bare.handling, bare.terms) = (None, bare.terms.map(without_evidence));
        !reviewers.iter().any(|who| Asker { snapshot, who, now }.can_approve(&bare))
    };
    let held = desk.store.list(held).await?;
    let count = held.iter().filter(stuck).count();
    gauge.with_label_values::<&str>(&[]).set(i64::try_from(count).unwrap_or(i64::MAX));
    Ok(())
}

fn without_evidence(mut terms: Terms) -> Terms {
    terms.needs.evidence.clear();
    terms
}

pub(super) async fn metrics(State(admin): State<Arc<Desk>>) -> Result<Response, Problem> {
    let metrics = &admin.metrics;
    metrics.holds.reset();
    for count in admin.store.open_calls()? {
        let labels = [count.state.as_str(), count.tier.as_str()];
        metrics.holds.with_label_values(&labels).set(i64::try_from(count.calls).unwrap_or(i64::MAX));
    }
    without_approver(&admin).await?;
    metrics.grants.reset();
    for live in admin.store.grants().await?.iter().filter(|g| g.over_at(admin.clock.now()).is_none()) {
        metrics.grants.with_label_values(&[live.grant.operation.as_str()]).inc();
    }
    metrics.ready.set(i64::from(admin.is_ready()));
    let snapshot = admin.snapshots.current();
    let (config, policies) = snapshot.digests();
    let mode = super::policies::mode(&snapshot);
    let labels = [env!("CARGO_PKG_VERSION"), &config.to_string(), &policies.to_string(), mode];
    metrics.info.reset();
    metrics.info.with_label_values(&labels).set(1);
    let kind = (CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    Ok((StatusCode::OK, [kind], metrics.text()?).into_response())
}
