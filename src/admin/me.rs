//! Who is signed in: as whom, by what, with which rights, and where else.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Redirect};
use http::StatusCode;
use http::header::HeaderMap;

use crate::call::visible;
use crate::policy::schema::{CALL_ACTIONS, SYSTEM_ACTIONS};

use super::Desk;
use super::filled::{Filled, Nothing};
use super::page::{self, Visit};
use super::show::Head;
use super::who::{Account, Visitor, session_id};

#[derive(Debug, askama::Template)]
#[template(path = "me.html")]
struct Page {
    head: Head,
    person: String,
    groups: String,
    by: String,
    email: String,
    strong: bool,
    fresh: bool,
    names: Vec<String>,
    may: Vec<&'static str>,
    may_not: Vec<&'static str>,
    /// Sessions of the same account, this one among them.
    sessions: usize,
}

fn shown(visit: &Visit) -> Page {
    let (who, asker) = (visit.who(), visit.asker());
    let by = match &who.account {
        Account::Token(_) => format!("a token of `{}`", who.user),
        Account::Slack => "Slack".to_owned(),
        Account::Provider(signed) => format!("{} at {}", signed.sub, signed.issuer),
    };
    let mut names: Vec<String> = who.aliases.iter().chain([&who.subject]).map(|n| visible(n)).collect();
    names.sort();
    names.dedup();
    let all = SYSTEM_ACTIONS.iter().chain(CALL_ACTIONS).copied();
    let may = asker.may_on_system();
    let may_not = all.filter(|action| !may.contains(action)).collect();
    Page {
        head: visit.head(),
        person: visible(&who.person),
        groups: visible(&who.groups.join(", ")),
        by: visible(&by),
        email: who.email.as_deref().map(visible).unwrap_or_default(),
        strong: who.mfa,
        fresh: who.fresh,
        names,
        may,
        may_not,
        sessions: visit.desk.sessions.count(&who.account, visit.desk.clock.instant()),
    }
}

pub(super) async fn me(State(desk): State<Arc<Desk>>, visitor: Visitor) -> page::Answer {
    Ok(page::html(StatusCode::OK, &shown(&Visit::new(desk, visitor))))
}

/// Ends every other session of this account.
pub(super) async fn elsewhere(headers: HeaderMap, Filled { visit, .. }: Filled<Nothing>) -> page::Answer {
    if let Some(id) = session_id(&visit.snapshot, &headers) {
        visit.desk.sessions.end_others(&id, &visit.who().account);
    }
    Ok(Redirect::to("/me").into_response())
}
