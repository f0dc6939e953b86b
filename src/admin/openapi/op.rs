//! What one route takes and answers.

use std::collections::{BTreeMap, BTreeSet};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::call::Code;

use super::answers::ProblemDocument;

/// What the routes are about, in the order of reading.
pub(super) const TAGS: [(&str, &str); 9] = [
    ("holds", "Calls that wait, or waited, for people."),
    ("calls", "Every call with a record of its own."),
    ("grants", "Leave for calls like an approved one to pass by themselves, within bounds."),
    ("samples", "Calls that ran by themselves and are looked at afterwards."),
    ("audit", "What happened, as it was recorded."),
    ("events", "What happens, as it happens."),
    ("limits", "What limits calls now."),
    ("policies", "What rules, since when, and which tools wait for an operator."),
    ("service", "The service itself, and who asks."),
];

type Described = fn(&mut SchemaGenerator) -> Schema;

fn described<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

enum Answer {
    Json(Described),
    Events,
}

/// One route's description. Begins with what every route may answer.
pub(in crate::admin) struct Op {
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    more: &'static str,
    about: &'static str,
    open: bool,
    parameters: Vec<Value>,
    query: Vec<&'static str>,
    body: Option<Described>,
    form: Option<Described>,
    answer: Answer,
    version: bool,
    status: &'static str,
    problems: BTreeMap<u16, BTreeSet<&'static str>>,
}

impl Op {
    /// `id` names it in generated clients, `tag` is one of the table's, and it answers a `T`.
    pub(in crate::admin) fn new<T: JsonSchema>(id: &'static str, tag: &'static str, summary: &'static str) -> Self {
        let op = Self {
            id,
            tag,
            summary,
            more: "",
            about: "",
            open: false,
            parameters: Vec::new(),
            query: Vec::new(),
            body: None,
            form: None,
            answer: Answer::Json(described::<T>),
            version: false,
            status: "200",
            problems: BTreeMap::new(),
        };
        op.refuses(400, &["malformed_request", "unknown_parameter"])
            .refuses(401, &["unauthenticated"])
            .refuses(403, &["cross_origin"])
            .refuses(503, &["unavailable"])
    }

    /// It answers a stream of server-sent events.
    pub(in crate::admin) fn events(mut self) -> Self {
        self.answer = Answer::Events;
        let at = "Of the last event that was read: the stream goes on behind it.";
        self.parameter(
            "header",
            "Last-Event-ID",
            at,
            json!({"type": "string", "pattern": "^ *[0-9]* *$", "maxLength": 20}),
        )
    }

    /// No credentials are needed.
    pub(in crate::admin) fn open(mut self) -> Self {
        self.open = true;
        self.problems.remove(&401);
        self
    }

    /// More about it, in Markdown.
    pub(in crate::admin) fn more(mut self, text: &'static str) -> Self {
        self.more = text;
        self
    }

    /// What the `{…}` of its path stands for.
    pub(in crate::admin) fn about(mut self, text: &'static str) -> Self {
        self.about = text;
        self.refuses(404, &["not_found"])
    }

    fn parameter(mut self, place: &str, name: &str, about: &str, schema: Value) -> Self {
        self.parameters.push(json!({"name": name, "in": place, "description": about, "schema": schema}));
        self
    }

    fn shared(mut self, name: &str) -> Self {
        self.parameters.push(reference("parameters", name));
        self
    }

    /// It takes this query parameter.
    pub(in crate::admin) fn query(mut self, name: &'static str, about: &str, schema: Value) -> Self {
        self.query.push(name);
        self.parameter("query", name, about, schema).refuses(422, &["invalid_arguments"])
    }

    /// It is a list: lines of one answer, and where the next one begins.
    pub(in crate::admin) fn pages(self) -> Self {
        let lines = json!({"type": "integer", "minimum": 1, "maximum": 200, "default": 50});
        self.query("limit", "Lines of one answer.", lines).query(
            "cursor",
            "`next` of the answer before.",
            json!({"type": "string"}),
        )
    }

    /// It takes a JSON body.
    pub(in crate::admin) fn body<T: JsonSchema>(mut self) -> Self {
        self.body = Some(described::<T>);
        self.refuses(408, &["malformed_request"])
            .refuses(413, &["body_too_large"])
            .refuses(415, &["unsupported_encoding"])
            .refuses(422, &["invalid_arguments"])
    }

    /// Or the same as `multipart/form-data`.
    pub(in crate::admin) fn or_form<T: JsonSchema>(mut self) -> Self {
        self.form = Some(described::<T>);
        self
    }

    /// It takes the version that was read.
    pub(in crate::admin) fn if_match(self) -> Self {
        self.shared("IfMatch").refuses(412, &["version_changed"])
    }

    /// It takes the version that is known already.
    pub(in crate::admin) fn if_none_match(self) -> Self {
        self.parameter("header", "If-None-Match", "The version that is known already.", version())
    }

    /// What it does goes on after the answer.
    pub(in crate::admin) fn accepted(mut self) -> Self {
        self.status = "202";
        self
    }

    /// Its answer carries the record's version.
    pub(in crate::admin) fn versioned(mut self) -> Self {
        self.version = true;
        self
    }

    /// With these codes it may be refused.
    pub(in crate::admin) fn refuses(mut self, status: u16, codes: &[&'static str]) -> Self {
        self.problems.entry(status).or_default().extend(codes);
        self
    }

    /// It sends a new call, or another one, through the gates: any of them may refuse it.
    pub(in crate::admin) fn gated(self) -> Self {
        let all = Code::ALL.iter().filter(|code| !matches!(code, Code::Unauthenticated | Code::MalformedRequest));
        all.fold(self, |op, code| op.refuses(code.status().as_u16(), &[code.as_str()]))
    }

    /// It changes something.
    pub(super) fn changes(self) -> Self {
        self.shared("IdempotencyKey")
            .refuses(408, &["malformed_request"])
            .refuses(409, &["in_flight"])
            .refuses(413, &["body_too_large"])
            .refuses(422, &["key_reused"])
    }

    pub(super) fn query_names(&self) -> Vec<&'static str> {
        self.query.clone()
    }

    /// As a member of a path item.
    pub(super) fn json(self, path: &str, requests: &mut SchemaGenerator, answers: &mut SchemaGenerator) -> Value {
        let changes = self.problems.get(&409).is_some_and(|codes| codes.contains("in_flight"));
        let mut parameters: Vec<Value> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| {
                let schema = json!({"type": "string", "minLength": 1});
                json!({"name": name, "in": "path", "required": true, "description": self.about, "schema": schema})
            })
            .collect();
        parameters.extend(self.parameters);
        if !self.open {
            parameters.push(reference("parameters", "Channel"));
        }
        let mut responses = Map::new();
        responses.insert(self.status.to_owned(), answer(&self.answer, self.version, changes, answers));
        for (status, codes) in &self.problems {
            responses.insert(status.to_string(), problem(*status, codes, changes, answers));
        }
        let mut out = json!({
            "operationId": self.id, "tags": [self.tag], "summary": self.summary,
            "parameters": parameters, "responses": responses,
        });
        let kinds = [("application/json", self.body), ("multipart/form-data", self.form)];
        let content: Map<String, Value> = kinds
            .into_iter()
            .filter_map(|(kind, schema)| Some((kind.to_owned(), json!({"schema": schema?(requests)}))))
            .collect();
        let body = (!content.is_empty()).then(|| json!({"required": true, "content": content}));
        let more = (!self.more.is_empty()).then(|| json!(self.more));
        let security = self.open.then(|| json!([]));
        if let Some(out) = out.as_object_mut() {
            let optional = [("description", more), ("requestBody", body), ("security", security)];
            out.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        }
        out
    }
}

/// A version in quotes, as a header.
fn version() -> Value {
    json!({"type": "string", "pattern": "^\"[0-9]{1,19}\"$", "examples": ["\"3\""]})
}

fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

/// Parameters that many routes take.
pub(super) fn parameters() -> Value {
    let header = |name: &str, about: &str, schema: Value| json!({"name": name, "in": "header", "description": about, "schema": schema});
    let key = "Any name of this attempt, the same for each retry of it: 1 to 255 characters of `A-Z a-z 0-9 _ . : -`, bare or \
               in double quotes.";
    let pattern = r#"^("[A-Za-z0-9_.:-]{1,255}"|[A-Za-z0-9_.:-]{1,255})$"#;
    let channel = json!({"type": "string", "enum": ["api", "cli"], "default": "api"});
    json!({
        "IdempotencyKey": header("Idempotency-Key", key, json!({"type": "string", "pattern": pattern})),
        "IfMatch": header("If-Match", "The version that was read: refused when it changed since.", version()),
        "Channel": header("Holdpoint-Channel", "Through what the person acts; records and policies see it.", channel),
    })
}

/// Headers that many answers carry.
pub(super) fn headers() -> Value {
    let header = |about: &str, required: bool, schema: Value| json!({"description": about, "required": required, "schema": schema});
    let seconds = json!({"type": "integer", "minimum": 0});
    let first = "This is the answer that the first request with this `Idempotency-Key` got.";
    let proof = "What proof is needed (RFC 6750, RFC 9470).";
    json!({
        "Version": header("The record's version, for `If-Match`.", true, version()),
        "Replayed": header(first, false, json!({"type": "string", "const": "true"})),
        "ComeAgain": header("Seconds after which to come again.", true, seconds.clone()),
        "MayComeAgain": header("Seconds after which to come again.", false, seconds),
        "Proof": header(proof, true, json!({"type": "string"})),
        "MayProve": header(proof, false, json!({"type": "string"})),
    })
}

fn header(name: &str, what: &str) -> (String, Value) {
    (name.to_owned(), reference("headers", what))
}

fn replayed(changes: bool) -> Option<(String, Value)> {
    changes.then(|| header("Idempotent-Replayed", "Replayed"))
}

fn answer(answer: &Answer, versioned: bool, changes: bool, answers: &mut SchemaGenerator) -> Value {
    let etag = versioned.then(|| header("ETag", "Version"));
    let headers: Map<String, Value> = etag.into_iter().chain(replayed(changes)).collect();
    let (about, content) = match answer {
        Answer::Json(schema) => ("Done, or found.", json!({"application/json": {"schema": schema(answers)}})),
        Answer::Events => (
            "Events until the stream ends; whoever comes back says where it was.",
            json!({"text/event-stream": {"schema": {"type": "string"}}}),
        ),
    };
    let mut out = json!({"description": about, "content": content});
    if let Some(out) = out.as_object_mut().filter(|_| !headers.is_empty()) {
        out.insert("headers".to_owned(), headers.into());
    }
    out
}

fn problem(status: u16, codes: &BTreeSet<&'static str>, changes: bool, answers: &mut SchemaGenerator) -> Value {
    let later = match status {
        503 => Some("ComeAgain"),
        409 | 429 | 502 | 504 => Some("MayComeAgain"),
        _ => None,
    };
    let proof = match status {
        401 => Some("Proof"),
        _ => codes.contains("step_up_required").then_some("MayProve"),
    };
    let headers = [("Retry-After", later), ("WWW-Authenticate", proof)];
    let headers = headers.into_iter().filter_map(|(name, what)| Some(header(name, what?)));
    let headers: Map<String, Value> =
        headers.chain(replayed(changes && (400..500).contains(&status) && status != 401)).collect();
    let all: Vec<String> = codes.iter().map(|code| format!("`{code}`")).collect();
    let base: Schema = described::<ProblemDocument>(answers);
    let schema =
        json_schema!({"allOf": [base, {"properties": {"status": {"const": status}, "code": {"enum": codes}}}]});
    json!({
        "description": format!("Refused: {}.", all.join(", ")),
        "headers": headers,
        "content": {"application/problem+json": {"schema": schema}},
    })
}
