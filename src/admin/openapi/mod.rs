//! The admin API's description, OpenAPI 3.1: made of the table that makes the routes, so that there is no route without it.
//!
//! A route says what it takes and answers as an [`Op`]. Requests are described by the types that read them, answers by
//! those in `answers`, against which tests hold every answer they get.

mod answers;
mod beside;
mod included;
mod op;
mod told;
mod words;

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::middleware::{Next, from_fn};
use axum::routing::{MethodRouter, delete, get, post};
use std::sync::Arc;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::Desk;
use super::api::parameters;
use super::problem::Problem;

pub(super) use answers::*;
pub(super) use beside::*;
use included::Included;
pub(super) use op::Op;
pub(super) use told::*;
pub(super) use words::*;

/// Where it is served; needs no credentials, since it says of no call.
pub(super) const PATH: &str = "/openapi.json";

/// Routes of the admin API, each with its description.
pub(super) struct Api {
    router: Router<Arc<Desk>>,
    paths: Map<String, Value>,
    requests: SchemaGenerator,
    answers: SchemaGenerator,
}

impl Api {
    pub(super) fn new() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|s| {
                s.definitions_path = "/components/schemas".into();
                s.meta_schema = None;
            })
        };
        Self {
            router: Router::new(),
            paths: Map::new(),
            requests: settings().for_deserialize().into_generator(),
            answers: settings().for_serialize().into_generator(),
        }
    }

    pub(super) fn get<H: Handler<T, Arc<Desk>>, T: 'static>(self, path: &str, handler: H, op: Op) -> Self {
        self.route("get", path, get(handler), op)
    }

    pub(super) fn post<H: Handler<T, Arc<Desk>>, T: 'static>(self, path: &str, handler: H, op: Op) -> Self {
        self.route("post", path, post(handler), op.changes())
    }

    pub(super) fn delete<H: Handler<T, Arc<Desk>>, T: 'static>(self, path: &str, handler: H, op: Op) -> Self {
        self.route("delete", path, delete(handler), op.changes())
    }

    /// A query parameter that the description does not have is refused rather than ignored.
    fn route(mut self, method: &str, path: &str, handler: MethodRouter<Arc<Desk>>, op: Op) -> Self {
        let known: Arc<[&'static str]> = op.query_names().into();
        let check = move |request: Request, next: Next| {
            let known = Arc::clone(&known);
            async move {
                parameters(request.uri().query(), &known)?;
                Ok::<_, Problem>(next.run(request).await)
            }
        };
        self.router = self.router.route(path, handler.layer(from_fn(check)));
        let item = self.paths.entry(format!("/v1{path}")).or_insert_with(|| json!({}));
        if let Some(item) = item.as_object_mut() {
            item.insert(method.to_owned(), op.json(path, &mut self.requests, &mut self.answers));
        }
        self
    }

    pub(super) fn router(self) -> Router<Arc<Desk>> {
        self.router
    }

    /// The whole document.
    pub(super) fn document(mut self) -> Value {
        let schemas = united(self.requests.take_definitions(true), self.answers.take_definitions(true));
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Holdpoint admin API",
                "version": env!("CARGO_PKG_VERSION"),
                "summary": "Holds, calls, grants and samples, for reviewers and their tools.",
                "description": ABOUT,
                "license": {"name": "MIT", "identifier": "MIT"},
            },
            "servers": [{"url": "/", "description": "The admin listener (`listen.admin`)."}],
            "security": [{"bearer": []}],
            "tags": op::TAGS.map(|(name, text)| json!({"name": name, "description": text})),
            "paths": self.paths,
            "components": {
                "securitySchemes": {"bearer": {
                    "type": "http", "scheme": "bearer",
                    "description": "A reviewer's token (`identity.reviewers.tokens`). No cookie of a browser opens this API.",
                }},
                "parameters": op::parameters(),
                "headers": op::headers(),
                "schemas": schemas,
            },
        })
    }
}

const ABOUT: &str = "\
What a person may see and do is decided by policy (Cedar, admin plane): what one may not see answers as if it did not exist.

Every refusal is a problem document (RFC 9457) with a stable `code`. A path that is not in here answers 404 `not_found`, \
a method that a path does not take 405 `method_not_allowed`; a `Host` or `Origin` that is not this listener's is refused \
before anything else.

Decisions carry the `digest` of what was read, and may carry `If-Match` with the version that was read: what changed in \
between is not decided by accident.

Every POST and DELETE takes an `Idempotency-Key`. The same request of the same account under the same key gets the first \
answer again, with `Idempotent-Replayed: true`, for an hour; a refusal is such an answer, too, unless it says when to come \
again. Answers are kept in memory. After a restart, digests, votes that count once and an undo's own key still keep a second \
effect away; what is bound to none of these, such as a comment, is kept from standing twice by `If-Match`.";

/// The schemas of both kinds, without a name that stands for two things.
fn united(requests: Map<String, Value>, answers: Map<String, Value>) -> Map<String, Value> {
    let mut all = requests;
    for (name, schema) in answers {
        let other = all.insert(name.clone(), schema.clone()).is_some_and(|first| first != schema);
        debug_assert!(!other, "`{name}` is the name of a request and of an answer");
    }
    all.sort_keys();
    all
}

/// The description of everything below `/v1`, as `GET /v1/openapi.json` answers it.
#[must_use]
pub fn document() -> Value {
    super::v1::api().document()
}
