//! A request of the API that changes something: who sends it, what it says, and which version was read.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Request};
use http::header::IF_MATCH;
use serde::de::DeserializeOwned;

use super::api::{self, Asked};
use super::problem::Problem;
use super::who::Who;
use super::{Desk, edge};

/// A JSON body that a reviewer sent, read as strictly as every body here.
pub(super) struct Posted<T> {
    pub(super) asked: Asked,
    pub(super) said: T,
    /// `If-Match`, where given.
    pub(super) version: Option<u64>,
}

impl<T: DeserializeOwned> FromRequest<Arc<Desk>> for Posted<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, desk: &Arc<Desk>) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let who = Who::from_request_parts(&mut parts, desk).await?;
        let said = edge::json(&parts.headers, body, edge::room(parts.uri.path())).await?;
        let version = api::version(&parts.headers, IF_MATCH)?;
        Ok(Self { asked: Asked::new(Arc::clone(desk), who), said, version })
    }
}
