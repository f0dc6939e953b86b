//! The second listener: review pages, admin API, health, metrics. It never shares a port with agents.
//!
//! `edge` is what every request meets first, `who` proves the reviewer, `ask` puts the question to Cedar's admin
//! plane, `decide` takes a decision to the store. `api` and `page` are two doors to the same steps. Nothing here
//! runs a call: an approved one is told to whoever sends, by its id.

mod api;
mod ask;
mod decide;
mod edge;
mod exact;
mod find;
mod health;
mod page;
mod problem;
mod serve;
mod sessions;
#[cfg(test)]
mod tests;
mod view;
mod who;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tokio::sync::mpsc::UnboundedSender;

use crate::call::CallId;
use crate::clock::Clock;
use crate::snapshot::Snapshots;
use crate::store::Store;
use crate::telemetry::Metrics;

pub use serve::serve;

use self::sessions::Sessions;

/// What the admin side works with.
#[derive(Debug)]
pub struct Admin {
    snapshots: Arc<Snapshots>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    resume: UnboundedSender<CallId>,
    started: Arc<AtomicBool>,
    draining: Arc<AtomicBool>,
    sessions: Sessions,
}

impl Admin {
    /// Over these parts. `resume` receives every call that people have just approved and that the proxy sends;
    /// `started` is set once agents are served, `draining` once no new calls are taken.
    #[must_use]
    pub fn new(
        snapshots: Arc<Snapshots>,
        store: Arc<Store>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        resume: UnboundedSender<CallId>,
        started: Arc<AtomicBool>,
        draining: Arc<AtomicBool>,
    ) -> Self {
        Self { snapshots, store, metrics, clock, resume, started, draining, sessions: Sessions::default() }
    }
}

/// Everything that the admin listener answers.
#[must_use]
pub fn router(admin: Arc<Admin>) -> Router {
    let nothing = || async { problem::Problem::not_found() };
    let wrong_method = || async {
        let status = http::StatusCode::METHOD_NOT_ALLOWED;
        problem::Problem::new(status, "method_not_allowed", "this resource does not take this method")
    };
    Router::new()
        .route("/livez", get(health::live))
        .route("/startupz", get(health::started))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .nest("/v1", v1())
        .merge(pages())
        .fallback(nothing)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&admin), edge::guard))
        .with_state(admin)
}

fn v1() -> Router<Arc<Admin>> {
    Router::new()
        .route("/me", get(api::me))
        .route("/holds", get(api::holds))
        .route("/holds/{id}", get(api::hold))
        .route("/holds/{id}/wait", get(api::wait))
        .route("/holds/{id}/approve", post(api::approve))
        .route("/holds/{id}/reject", post(api::reject))
        .route("/holds/{id}/withdraw", post(api::withdraw))
        .route("/calls", get(api::calls))
        .route("/calls/{id}", get(api::call))
        .route("/calls/{id}/reconcile", post(api::reconcile))
}

fn pages() -> Router<Arc<Admin>> {
    Router::new()
        .route("/", get(page::inbox))
        .route("/style.css", get(page::style))
        .route("/sign-in", get(page::sign_in_form).post(page::sign_in))
        .route("/sign-out", post(page::sign_out))
        .route("/holds/{id}", get(page::hold))
        .route("/holds/{id}/approve", post(page::approve))
        .route("/holds/{id}/reject", post(page::reject))
        .route("/calls", get(page::calls))
        .route("/calls/{id}", get(page::call))
}
