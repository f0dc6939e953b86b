//! The operations of an OpenAPI document, as a tool of the draft.

use std::collections::BTreeSet;

use serde_json::Value;

use super::document::{Document, server};
use super::template::{self, Segment};
use super::{At, Operation, Remarks, Tool, arguments, effects, naming};
use crate::gates::schema::Checker;

const METHODS: [&str; 8] = ["get", "head", "post", "put", "patch", "delete", "options", "trace"];

/// The tool that a document describes. `upstream` stands above the document's own server.
///
/// # Errors
/// When it names no server that can be used, or no operation.
pub fn tool(name: &str, document: &Document, upstream: Option<&str>) -> Result<Tool, String> {
    let own = document.first_server();
    let url = upstream.or(own.as_deref()).unwrap_or_default().to_owned();
    if !usable(&url) {
        let said = if url.is_empty() { "names no server".to_owned() } else { format!("its server is `{url}`") };
        return Err(format!("{said}; say where the tool is: `--upstream https://…`"));
    }
    let mut reader = Reader {
        document,
        own,
        taken: BTreeSet::new(),
        routes: matchit::Router::new(),
        headers: BTreeSet::new(),
        operations: Vec::new(),
        left_out: Remarks::default(),
        notes: Remarks::default(),
    };
    reader.read();
    if reader.operations.is_empty() {
        let why = |(what, who): (&String, &Vec<String>)| {
            format!("; {what}: {} and others", who.first().map_or("", String::as_str))
        };
        let reasons: String = reader.left_out.0.iter().map(why).collect();
        return Err(format!("has no operation that can be taken{reasons}"));
    }
    reader.operations.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Tool {
        name: name.to_owned(),
        at: At::Url(url.trim_end_matches('/').to_owned()),
        lock: None,
        headers: reader.headers.into_iter().collect(),
        token: None,
        env: Vec::new(),
        secured: document.root().pointer("/components/securitySchemes").is_some(),
        operations: reader.operations,
        left_out: reader.left_out,
        notes: reader.notes,
    })
}

fn usable(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else { return false };
    let plain = uri.authority().is_some_and(|a| !a.as_str().contains('@')) && uri.query().is_none();
    plain && matches!(uri.scheme_str(), Some("http" | "https")) && !url.contains(['{', '}', '#'])
}

struct Reader<'d> {
    document: &'d Document,
    own: Option<String>,
    taken: BTreeSet<String>,
    routes: matchit::Router<String>,
    headers: BTreeSet<String>,
    operations: Vec<Operation>,
    left_out: Remarks,
    notes: Remarks,
}

impl<'d> Reader<'d> {
    fn read(&mut self) {
        let paths = self.document.root().get("paths").and_then(Value::as_object).into_iter().flatten();
        for (path, item) in paths {
            let Some(item) = self.document.follow(item) else {
                self.left_out.add("a `$ref` leads nowhere", path);
                continue;
            };
            for method in METHODS {
                if let Some(operation) = item.get(method).filter(|o| o.is_object()) {
                    self.operation(method, path, item, operation);
                }
            }
        }
    }

    fn operation(&mut self, method: &str, path: &str, item: &'d Value, operation: &'d Value) {
        let method = method.to_uppercase();
        let shown = format!("{method} {path}");
        let segments = match self.segments(&method, path, item, operation) {
            Ok(segments) => segments,
            Err(why) => return self.left_out.add(why, &shown),
        };
        let found = arguments::of(self.document, item, operation, &segments);
        let route = format!("/{method}{}", template_of(&segments));
        if let Err(why) = self.routes.insert(route, shown.clone()) {
            let other = if let matchit::InsertError::Conflict { with } = why { with } else { String::new() };
            let what = format!("matches the same requests as another path: {}", other.trim_start_matches('/'));
            return self.left_out.add(what, &shown);
        }
        let name = naming::unique(&arguments::name_of(operation, &method, path), &mut self.taken);
        let (schema, spoiled) = usable_schema(found.schema);
        for remark in found.remarks.into_iter().chain(spoiled) {
            self.notes.add(remark, &name);
        }
        for (header, required) in found.headers.into_iter().filter(|(h, _)| crate::config::may_forward(h)) {
            if required {
                self.notes.add("a header that it demands is passed on only when `forward_headers` lists it", &name);
            }
            self.headers.insert(header);
        }
        let (effect, cost, why) = effects::rest(&method, &name, Some(&schema), found.form.as_ref());
        let bodiless = matches!(method.as_str(), "GET" | "HEAD" | "DELETE");
        let plain = bodiless && says_nothing(&schema, &found.path);
        let matches = Some(format!("{method} {}", found.path));
        self.operations.push(Operation { name, matches, effect, why, schema: Some(schema), plain, cost });
    }

    fn segments(
        &self,
        method: &str,
        path: &str,
        item: &Value,
        operation: &Value,
    ) -> Result<Vec<Segment>, &'static str> {
        if matches!(method, "OPTIONS" | "TRACE") {
            return Err("the method is not let through");
        }
        let named = server(operation).or_else(|| server(item));
        if named.is_some_and(|s| self.own.as_deref().is_none_or(|own| place(own) != place(&s))) {
            return Err("it is on another server than the rest");
        }
        template::segments(path)
    }
}

/// Whether the configuration makes the same schema of the path alone.
fn says_nothing(schema: &Value, path: &str) -> bool {
    let text = serde_json::json!({"type": "string"});
    let in_path = |name: &String| path.split('/').any(|s| s.strip_prefix(':') == Some(name));
    let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    let open = schema.get("additionalProperties").is_some_and(|a| a != false);
    !open && properties.clone().all(|(name, schema)| *schema == text && in_path(name))
}

/// As the router has it; the names do not matter to it.
fn template_of(segments: &[Segment]) -> String {
    let part = |(n, s): (usize, &Segment)| match s {
        Segment::Text(text) => format!("/{text}"),
        Segment::Parameter(_) => format!("/{{p{n}}}"),
    };
    segments.iter().enumerate().map(part).collect()
}

/// What makes two URLs one server.
fn place(url: &str) -> &str {
    let rest = url.strip_prefix("https:").or_else(|| url.strip_prefix("http:")).unwrap_or(url);
    rest.trim_end_matches('/')
}

/// A schema that does not compile whatever was done for it says nothing but the names.
fn usable_schema(schema: Value) -> (Value, Option<&'static str>) {
    if Checker::new(&schema).is_ok() {
        return (schema, None);
    }
    let open = serde_json::json!({"type": "object", "additionalProperties": true});
    (open, Some("its schema does not compile, so its arguments are not checked"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(paths: Value) -> Tool {
        let document = json!({"openapi": "3.0.0", "servers": [{"url": "https://x.dev/v1/"}], "paths": paths});
        tool("x", &Document::read(&document.to_string()).unwrap(), None).unwrap()
    }

    #[test]
    fn operations_have_unique_names_and_what_cannot_be_taken_is_named() {
        let t = read(json!({
            "/a": {"get": {"operationId": "same"}, "post": {"operationId": "same"}, "options": {}},
            "/a/{x}": {"get": {}}, "/a/{y}": {"get": {}}, "/a/{x}/{y}/z": {"delete": {"operationId": "日本"}},
            "/f/{n}.json": {"get": {}},
            "/far": {"servers": [{"url": "https://y.dev"}], "get": {}, "put": {"servers": [{"url": "https://x.dev/v1/"}]}},
        }));
        let names: Vec<_> = t.operations.iter().map(|o| (o.name.as_str(), o.matches.as_deref().unwrap())).collect();
        let expected = [
            ("delete_a_by_x_by_y_z", "DELETE /a/:x/:y/z"),
            ("get_a_by_x", "GET /a/:x"),
            ("put_far", "PUT /far"),
            ("same", "GET /a"),
            ("same_2", "POST /a"),
        ];
        assert_eq!(names, expected);
        let left: Vec<_> = t.left_out.0.values().flatten().map(String::as_str).collect();
        assert_eq!(left, ["GET /f/{n}.json", "GET /far", "GET /a/{y}", "OPTIONS /a"]);
        assert_eq!(t.at, At::Url("https://x.dev/v1".into()));
    }

    #[test]
    fn path_query_and_body_are_one_object() {
        let schema = json!({"type": "object", "required": ["id", "n"], "properties":
            {"id": {"type": "string"}, "n": {"$ref": "#/components/schemas/N"}}});
        let document = json!({"openapi": "3.0.0", "servers": [{"url": "https://x.dev"}],
            "components": {"schemas": {"N": {"type": "object", "properties": {"n": {"$ref": "#/components/schemas/N"}}}}},
            "paths": {"/a/{id}": {"parameters": [{"name": "id", "in": "path", "schema": {"type": "integer"}}],
                "put": {"parameters": [{"name": "dry", "in": "query", "required": true, "schema": {"type": "boolean"}},
                    {"name": "X-Trace", "in": "header"}, {"name": "Authorization", "in": "header"}],
                    "requestBody": {"required": true, "content": {"application/json": {"schema": schema}}}}}}});
        let t = tool("x", &Document::read(&document.to_string()).unwrap(), None).unwrap();
        let o = &t.operations[0];
        assert_eq!(o.matches.as_deref(), Some("PUT /a/:path_id"));
        let expected = json!({"type": "object", "required": ["dry", "id", "n", "path_id"], "properties": {
            "dry": {"type": "boolean"}, "id": {"type": "string"}, "path_id": {"type": "integer"}, "n": {"$ref": "#/$defs/N"}},
            "$defs": {"N": {"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}}}});
        assert_eq!(o.schema, Some(expected));
        assert_eq!(t.headers, ["x-trace"]);
    }

    #[test]
    fn bodies_of_every_shape_find_their_place() {
        let one = |kind: &str, schema: Value| {
            let t = read(
                json!({"/a": {"post": {"requestBody": {"required": true, "content": {kind: {"schema": schema}}}}}}),
            );
            t.operations[0].schema.clone().unwrap()
        };
        let list = json!({"type": "array", "items": {"type": "string"}});
        let whole = one("application/json", list.clone());
        assert_eq!(whole, json!({"type": "object", "required": ["body"], "properties": {"body": list}}));
        let form = one("application/x-www-form-urlencoded", json!({"type": "object", "properties": {"a": {}}}));
        assert_eq!(form["properties"], json!({"body": {"type": "string"}}));
        let any = one("application/json", json!({}));
        assert_eq!(any["additionalProperties"], true);
        let labels = json!({"type": "object", "required": ["labels"], "properties": {"labels": list}});
        let choice = one("application/vnd.x+json; v=1", json!({"oneOf": [labels, list]}));
        let accepts = |v: Value| Checker::new(&choice).unwrap().accepts(&v);
        assert!(accepts(json!({"labels": ["a"]})));
        assert!(accepts(json!({"body": ["a"]})));
        assert!(!accepts(json!({"body": [1]})));
        assert!(!accepts(json!({"labels": ["a"], "other": 1})));
        assert!(!accepts(json!({})));
    }

    #[test]
    fn a_document_without_a_server_asks_for_one() {
        for servers in [json!([]), json!([{"url": "/v1"}]), json!([{"url": "https://{host}/v1"}])] {
            let document = json!({"openapi": "3.1.0", "servers": servers, "paths": {"/a": {"get": {}}}});
            let document = Document::read(&document.to_string()).unwrap();
            assert!(tool("x", &document, None).unwrap_err().contains("--upstream"));
            assert!(tool("x", &document, Some("http://127.0.0.1:1")).is_ok());
        }
    }
}
