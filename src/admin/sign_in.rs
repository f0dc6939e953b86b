//! Signing in and out: by token, or at the provider. A sign-in is recorded before it counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use http::header::{HeaderMap, SET_COOKIE};
use serde::Deserialize;

use crate::snapshot::Snapshot;
use crate::store::AuditNote;

use super::Desk;
use super::filled::{Filled, Nothing};
use super::oidc::{Came, Trouble};
use super::page::{Answer, html, next_path};
use super::problem::Problem;
use super::show::SignIn;
use super::who::{Who, session_id};
use super::{cookies, edge};

impl SignIn {
    fn new(snapshot: &Snapshot, next: &str, problem: Option<String>) -> Self {
        let identity = &snapshot.config.identity;
        Self {
            next: next.to_owned(),
            problem,
            by_token: !identity.reviewers.is_empty() || identity.oidc.is_none(),
            provider: identity
                .oidc
                .as_ref()
                .map(|o| o.discovery.authority().map(ToString::to_string).unwrap_or_default()),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct Query {
    next: Option<String>,
    /// `1`: the provider asks again, however lately it did.
    fresh: Option<String>,
}

impl Query {
    fn read(query: Option<String>) -> Result<Self, Problem> {
        edge::fields(query.unwrap_or_default().as_bytes())
    }

    fn next(&self) -> &str {
        self.next.as_deref().map_or("/", next_path)
    }
}

pub(super) async fn form(State(desk): State<Arc<Desk>>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::read(query)?;
    Ok(html(StatusCode::OK, &SignIn::new(&desk.snapshots.current(), query.next(), None)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignInForm {
    token: Option<String>,
    next: Option<String>,
}

/// A reviewer's token, once, for a session.
pub(super) async fn by_token(State(desk): State<Arc<Desk>>, headers: HeaderMap, body: Body) -> Answer {
    edge::same_origin(&headers)?;
    let form: SignInForm = edge::form(&headers, body).await?;
    let snapshot = desk.snapshots.current();
    let next = form.next.as_deref().map_or("/", next_path);
    let Some(who) = Who::by_token(&snapshot, form.token.as_deref().unwrap_or_default().trim(), "page") else {
        desk.metrics.unidentified.with_label_values(&["unauthenticated"]).inc();
        let page = SignIn::new(&snapshot, next, Some("This is not a reviewer's token.".into()));
        return Ok(html(StatusCode::UNAUTHORIZED, &page));
    };
    begin(&desk, &snapshot, &headers, who, next).await
}

/// The session of somebody who has just proven who it is.
async fn begin(desk: &Desk, snapshot: &Snapshot, headers: &HeaderMap, who: Who, next: &str) -> Answer {
    let mut more = BTreeMap::from([("channel".to_owned(), "page".into()), ("subject".to_owned(), who.subject.into())]);
    more.insert("mfa".to_owned(), who.mfa.into());
    let note = AuditNote {
        kind: "admin.signed_in".to_owned(),
        call: None,
        principal: Some(who.person),
        agent: None,
        run: None,
        operation: None,
        code: None,
        more,
    };
    desk.store.append(note, true).await?;
    if let Some(old) = session_id(snapshot, headers) {
        desk.sessions.end(&old);
    }
    let id = desk.sessions.begin(who.account, desk.clock.instant())?;
    let mut response = Redirect::to(next).into_response();
    response.headers_mut().append(SET_COOKIE, cookies::set(snapshot, headers, cookies::SESSION, &id, None)?);
    Ok(response)
}

/// The browser goes to the provider, with what binds its way back to it.
pub(super) async fn to_provider(
    State(desk): State<Arc<Desk>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Query::read(query)?;
    let (next, fresh) = (query.next().to_owned(), query.fresh.as_deref() == Some("1"));
    let snapshot = desk.snapshots.current();
    let Some(rule) = &snapshot.config.identity.oidc else { return Err(Problem::not_found().into()) };
    // Cookies are of one host: the way begins on the one to which it leads back.
    let page = rule.redirect_uri.trim_end_matches("/sign-in/callback");
    let host = headers.get(http::header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    if page.split_once("://").is_none_or(|(_, public)| public != host) {
        let fresh = if fresh { "&fresh=1" } else { "" };
        return Ok(Redirect::to(&format!("{page}/sign-in/oidc?next={next}{fresh}")).into_response());
    }
    match desk.oidc.depart(rule, &desk.clock, &next, fresh).await {
        Ok((to, cookie)) => {
            let mut response = Redirect::to(&to).into_response();
            let cookie = cookies::set(&snapshot, &headers, cookies::SIGN_IN, &cookie, Some(600))?;
            response.headers_mut().append(SET_COOKIE, cookie);
            Ok(response)
        }
        Err(trouble) => Ok(troubled(&desk, &snapshot, &next, &trouble)),
    }
}

/// The browser comes back.
pub(super) async fn from_provider(
    State(desk): State<Arc<Desk>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Answer {
    let snapshot = desk.snapshots.current();
    let Some(rule) = &snapshot.config.identity.oidc else { return Err(Problem::not_found().into()) };
    let came = Came::read(query.as_deref().unwrap_or_default(), cookies::read(&snapshot, &headers, cookies::SIGN_IN));
    let arrived = match came {
        Ok(came) => desk.oidc.arrive(rule, &desk.clock, came).await,
        Err(trouble) => Err(trouble),
    };
    let mut response = match arrived {
        Ok((signed, next)) => match Who::of_provider(&snapshot.config.identity, &signed, desk.clock.now()) {
            Ok(who) => begin(&desk, &snapshot, &headers, who, next_path(&next)).await?,
            Err(why) => troubled(&desk, &snapshot, &next, &Trouble::Nobody(why)),
        },
        Err(trouble) => troubled(&desk, &snapshot, "/", &trouble),
    };
    let gone = cookies::set(&snapshot, &headers, cookies::SIGN_IN, "", Some(0))?;
    response.headers_mut().append(SET_COOKIE, gone);
    Ok(response)
}

fn troubled(desk: &Desk, snapshot: &Snapshot, next: &str, trouble: &Trouble) -> Response {
    if let Trouble::Unavailable(fault) = trouble {
        tracing::error!(fault = %fault.chain(), "the sign-in provider");
    } else {
        desk.metrics.unidentified.with_label_values(&["unauthenticated"]).inc();
        tracing::warn!(why = %trouble, "a sign-in at the provider was refused");
    }
    html(trouble.status(), &SignIn::new(snapshot, next_path(next), Some(trouble.to_string())))
}

pub(super) async fn out(headers: HeaderMap, Filled { visit, .. }: Filled<Nothing>) -> Answer {
    if let Some(id) = session_id(&visit.snapshot, &headers) {
        visit.desk.sessions.end(&id);
    }
    let mut response = Redirect::to("/sign-in").into_response();
    let gone = cookies::set(&visit.snapshot, &headers, cookies::SESSION, "", Some(0))?;
    response.headers_mut().insert(SET_COOKIE, gone);
    Ok(response)
}
