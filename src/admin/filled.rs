//! A form of one of our own pages: who posted it, that this page wrote it, and what it says.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::HeaderMap;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::page::{Visit, Wrong};
use super::problem::Problem;
use super::who::Visitor;
use super::{Desk, edge};

/// A form that a signed-in person posted from a page of this session. It cannot be had in any other way.
pub(super) struct Filled<T> {
    pub(super) visit: Visit,
    pub(super) said: T,
}

/// What a form says that only asks for something to be done.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

impl<T: DeserializeOwned> FromRequest<Arc<Desk>> for Filled<T> {
    type Rejection = Response;

    async fn from_request(request: Request, desk: &Arc<Desk>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let visitor = Visitor::from_request_parts(&mut parts, desk).await?;
        let read = async {
            let mut fields: Map<String, Value> = edge::form(&parts.headers, body).await?;
            own_form(&visitor, &parts.headers, fields.remove("csrf"))?;
            serde_json::from_value(Value::Object(fields)).map_err(|e| Problem::invalid(e.to_string()))
        };
        match read.await {
            Ok(said) => Ok(Self { visit: Visit::new(Arc::clone(desk), visitor), said }),
            Err(problem) => Err(Wrong::from(problem).into_response()),
        }
    }
}

/// From this origin, with the word that only this session's pages carry.
pub(super) fn own_form(visitor: &Visitor, headers: &HeaderMap, csrf: Option<Value>) -> Result<(), Problem> {
    edge::same_origin(headers)?;
    if csrf.as_ref().and_then(Value::as_str).is_some_and(|word| visitor.session.wrote(word)) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "cross_origin", "this form is not of your session; load the page again"))
}
