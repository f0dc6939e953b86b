//! The second listener: review pages, admin API, health, metrics. It never shares a port with agents.
//!
//! `edge` is what every request meets first, `who` proves the reviewer, `ask` puts the question to Cedar's admin
//! plane, `decide` takes a decision to the store. `api` and `page` are two doors to the same steps. Nothing here
//! runs a call: an approved one is told to whoever sends, by its id.

mod alike;
mod amend;
mod api;
mod ask;
mod audit;
mod brought;
mod chat;
mod cookies;
mod decide;
mod drain;
mod edge;
mod events;
mod exact;
mod filled;
mod find;
mod foreseen;
mod grant_page;
mod grants;
mod group;
mod handling;
mod health;
mod include;
mod kill;
mod limits;
mod listing;
mod me;
mod notices;
mod oidc;
mod once;
mod openapi;
mod page;
mod policies;
mod posted;
mod problem;
mod receipts;
mod run;
mod samples;
mod serve;
mod sessions;
mod show;
mod sign_in;
mod talk;
#[cfg(test)]
pub(crate) mod tests;
mod tools;
mod trust;
mod undo;
mod v1;
mod view;
mod weigh;
mod who;
mod workbench;

use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc::UnboundedSender;

use crate::call::CallId;
use crate::clock::Clock;
use crate::gates::breaker::Breakers;
use crate::gates::hold::{Denied, EditAsk, GrantAsk, UndoAsk};
use crate::gates::pins::Pins;
use crate::notify::Notifier;
use crate::policy::Source;
use crate::snapshot::Snapshots;
use crate::store::{CallRecord, Grant, Store};
use crate::tasks::Draining;
use crate::telemetry::Metrics;
use crate::workbench::check::Report;

pub use chat::look;
pub use drain::Drain;
pub use openapi::document as openapi;
pub use serve::serve;

use self::group::Opened;
use self::sessions::Sessions;

/// Puts the files as they are now in force, for the person who asks; or says everything that is wrong with them.
pub type Reload = Arc<dyn Fn(String) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What the files as they are now would come to, or these policies with the rest of them; puts nothing in force. Takes its
/// time, on whatever thread asks.
pub type Rehearse = Arc<dyn Fn(Option<&[Source]>) -> Report + Send + Sync>;

/// Asks a core for what takes policy and upstreams; nothing when this proxy is about to stop.
pub type Ask<Q, A> = Arc<dyn Fn(Q) -> BoxFuture<'static, Option<A>> + Send + Sync>;

/// What the admin side works with.
pub struct Admin {
    /// The version in force, and whoever may review under it.
    pub snapshots: Arc<Snapshots>,
    /// Holds and calls.
    pub store: Arc<Store>,
    /// Counts decisions, and is shown to scrapers.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Hears of every call that people have just approved and that the proxy sends.
    pub resume: UnboundedSender<CallId>,
    /// Makes another call of a held one.
    pub edit: Ask<EditAsk, Result<CallRecord, Denied>>,
    /// Takes an executed call back.
    pub undo: Ask<UndoAsk, Result<CallRecord, Denied>>,
    /// The grant that a reviewer may give, or why not.
    pub grant: Ask<GrantAsk, Result<Grant, Denied>>,
    /// Reads configuration, schemas and policies again, for this person.
    pub reload: Reload,
    /// Tries them, or other policies.
    pub rehearse: Rehearse,
    /// Who is told of what happens.
    pub notifier: Arc<Notifier>,
    /// Tools that wait for an operator.
    pub pins: Arc<Pins>,
    /// Which tools are failing.
    pub breakers: Arc<Breakers>,
    /// Stops this process in order.
    pub drain: Drain,
    /// No new calls are taken: not ready.
    pub draining: Draining,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Admin")
    }
}

/// The admin side of one process: its parts, and who is signed in.
#[derive(Debug)]
struct Desk {
    admin: Arc<Admin>,
    sessions: Sessions,
    opened: Opened,
    streams: events::Streams,
    oidc: oidc::Oidc,
    attempts: once::Attempts,
    benches: workbench::Benches,
}

impl Deref for Desk {
    type Target = Admin;
    fn deref(&self) -> &Admin {
        &self.admin
    }
}

/// Everything that the admin listener answers.
pub fn router(admin: Arc<Admin>) -> Router {
    let desk = Arc::new(Desk {
        admin,
        sessions: Sessions::default(),
        opened: Opened::default(),
        streams: events::Streams::default(),
        oidc: oidc::Oidc::default(),
        attempts: once::Attempts::default(),
        benches: workbench::Benches::default(),
    });
    let nothing = || async { problem::Problem::not_found() };
    let wrong_method = || async {
        let status = http::StatusCode::METHOD_NOT_ALLOWED;
        problem::Problem::new(status, "method_not_allowed", "this resource does not take this method")
    };
    Router::new()
        .route("/livez", get(health::live))
        .route("/startupz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .nest("/v1", v1::api().router().layer(from_fn_with_state(Arc::clone(&desk), once::guard)))
        .route("/slack/interactions", post(chat::interactions))
        .merge(pages())
        .fallback(nothing)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&desk), edge::guard))
        .with_state(desk)
}

fn pages() -> Router<Arc<Desk>> {
    Router::new()
        .route("/", get(page::inbox))
        .route("/style.css", get(page::style))
        .route("/holdpoint.js", get(page::script))
        .route("/events", get(events::page))
        .route("/sign-in", get(sign_in::form).post(sign_in::by_token))
        .route("/sign-in/oidc", get(sign_in::to_provider))
        .route("/sign-in/callback", get(sign_in::from_provider))
        .route("/sign-out", post(sign_in::out))
        .route("/holds/{id}", get(page::hold))
        .route("/clusters/{id}", get(group::group_page).post(group::group_form))
        .route("/holds/{id}/approve", post(page::approve))
        .route("/holds/{id}/reject", post(page::reject))
        .route("/holds/{id}/edit", post(amend::edit_form))
        .route("/holds/{id}/withdraw", post(page::withdraw))
        .route("/holds/{id}/grant", post(grant_page::give))
        .route("/holds/{id}/claim", post(handling::claim_form))
        .route("/holds/{id}/release", post(handling::release_form))
        .route("/holds/{id}/comments", post(handling::comment_form))
        .route("/holds/{id}/evidence", post(handling::bring_form))
        .route("/holds/{id}/evidence/{piece}", get(brought::taken_away))
        .route("/holds/{id}/evidence-requests", post(handling::ask_form))
        .route("/holds/{id}/escalate", post(handling::escalate_form))
        .route("/samples", get(samples::samples_page))
        .route("/samples/{id}", post(samples::form))
        .route("/grants", get(grant_page::list))
        .route("/grants/{id}/revoke", post(grant_page::revoke))
        .route("/policies", get(page::policies))
        .route("/audit", get(audit::shown))
        .route("/agents", get(trust::shown))
        .route("/stop", get(kill::stopped).post(kill::switched))
        .route("/me", get(me::me))
        .route("/me/sign-out-elsewhere", post(me::elsewhere))
        .route("/runs/{run}", get(run::shown))
        .route("/calls", get(page::calls))
        .route("/calls/{id}", get(page::call))
        .route("/calls/{id}/reconcile", post(page::reconcile))
        .route("/calls/{id}/undo", post(undo::form))
}
