//! The one argument object of an operation: path parameters, query parameters and the members of a JSON object body.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::convert::{Converter, settle};
use super::document::Document;
use super::naming::snake;
use super::parameter::{self, Parameter};
use super::template::Segment;

/// What is known of an operation's arguments.
#[derive(Debug)]
pub(super) struct Arguments {
    /// Their schema.
    pub(super) schema: Value,
    /// `/orders/:orderId/refunds`.
    pub(super) path: String,
    /// Request headers that it declares, and whether it demands them.
    pub(super) headers: Vec<(String, bool)>,
    /// The schema of a body that is a form.
    pub(super) form: Option<Value>,
    /// What was taken over otherwise than it stands there.
    pub(super) remarks: BTreeSet<&'static str>,
}

/// A schema that is longer is made anew with less detail.
const LARGEST: usize = 256 << 10;
/// More members than this are too many for a policy's types.
const MEMBERS: usize = 600;

/// The arguments, in as much detail as is good for them.
pub(super) fn of<'d>(document: &'d Document, item: &'d Value, operation: &'d Value, path: &[Segment]) -> Arguments {
    let parameters = parameter::all(document, item, operation);
    for levels in [usize::MAX, 4, 2, 1] {
        let found = Reader::new(document, levels).read(operation, path, &parameters);
        let mut members = MEMBERS;
        if found.schema.to_string().len() <= LARGEST && fits(&found.schema, &found.schema, 12, &mut members) {
            return found;
        }
    }
    Reader::new(document, 0).read(operation, path, &parameters)
}

/// Whether the members that policies could see, with references followed, are not too many.
fn fits(schema: &Value, root: &Value, depth: usize, left: &mut usize) -> bool {
    let target = schema.get("$ref").and_then(Value::as_str).and_then(|r| root.pointer(r.strip_prefix('#')?));
    let schema = target.unwrap_or(schema);
    let Some(depth) = depth.checked_sub(1) else { return true };
    let Some(less) = left.checked_sub(1) else { return false };
    *left = less;
    let members = schema.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::values);
    members.chain(schema.get("items")).all(|s| fits(s, root, depth, left))
}

struct Reader<'d> {
    document: &'d Document,
    converter: Converter<'d>,
    root: Map<String, Value>,
    properties: Map<String, Value>,
    required: BTreeSet<String>,
    form: Option<Value>,
}

impl<'d> Reader<'d> {
    fn new(document: &'d Document, levels: usize) -> Self {
        Self {
            document,
            converter: Converter::new(document, levels),
            root: Map::new(),
            properties: Map::new(),
            required: BTreeSet::new(),
            form: None,
        }
    }

    fn read(mut self, operation: &'d Value, path: &[Segment], parameters: &[Parameter<'d>]) -> Arguments {
        self.query(parameters);
        self.body(operation);
        let path = self.path(path, parameters);
        let headers = parameters
            .iter()
            .filter(|p| p.place == "header")
            .map(|p| (p.name.to_ascii_lowercase(), p.required()))
            .collect();
        let definitions = self.converter.definitions();
        self.root.insert("type".into(), "object".into());
        self.root.insert("properties".into(), self.properties.into());
        self.root.insert("required".into(), json!(self.required));
        settle(&mut self.root);
        if !definitions.is_empty() {
            self.root.insert("$defs".into(), definitions.into());
        }
        Arguments { schema: self.root.into(), path, headers, form: self.form, remarks: self.converter.remarks }
    }

    fn query(&mut self, parameters: &[Parameter<'d>]) {
        for parameter in parameters.iter().filter(|p| p.place == "query") {
            for argument in parameter.arguments(self.document, &mut self.converter) {
                if argument.required {
                    self.required.insert(argument.name.clone());
                }
                self.properties.insert(argument.name, argument.schema);
            }
        }
    }

    /// The names in the path are ours, so one that stands elsewhere, too, gives way.
    fn path(&mut self, path: &[Segment], parameters: &[Parameter<'d>]) -> String {
        let mut out = String::new();
        for segment in path {
            out.push('/');
            match segment {
                Segment::Text(text) => out.push_str(text),
                Segment::Parameter(name) => {
                    let declared = parameters.iter().find(|p| p.place == "path" && p.name == name);
                    let argument = declared.and_then(|p| p.arguments(self.document, &mut self.converter).pop());
                    let free = self.free(name);
                    let schema = argument.map_or_else(|| json!({"type": "string"}), |a| a.schema);
                    self.properties.insert(free.clone(), schema);
                    self.required.insert(free.clone());
                    out.push(':');
                    out.push_str(&free);
                }
            }
        }
        out
    }

    fn free(&mut self, name: &str) -> String {
        let legal = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' };
        let mut free: String = name.chars().map(legal).collect();
        if self.properties.contains_key(&free) {
            self.converter.remarks.insert("a path parameter has another name, since query or body has the same one");
        }
        while self.properties.contains_key(&free) {
            free = format!("path_{free}");
        }
        free
    }

    fn body(&mut self, operation: &'d Value) {
        let Some(body) = operation.get("requestBody").and_then(|b| self.document.follow(b)) else { return };
        let required = body.get("required").and_then(Value::as_bool) == Some(true);
        let Some(content) = body.get("content").and_then(Value::as_object).filter(|c| !c.is_empty()) else { return };
        let Some(media) =
            content.get("application/json").or_else(|| content.iter().find(|(k, _)| is_json(k)).map(|p| p.1))
        else {
            return self.text(content, required);
        };
        let converted = match media.get("schema") {
            Some(schema) => self.converter.schema(schema, true),
            None => json!({}),
        };
        match shape(&converted) {
            Shape::Object => self.object(converted, required),
            Shape::Choice => self.choice(converted, required),
            Shape::Other => self.member("body", converted, required),
            Shape::Any => {
                self.converter.remarks.insert("its body has no schema, so every member is taken");
                self.root.insert("additionalProperties".into(), true.into());
            }
        }
    }

    /// A body that is no JSON is one text. A form without fields is none.
    fn text(&mut self, content: &'d Map<String, Value>, required: bool) {
        let schema = content.values().find_map(|media| self.document.follow(media.get("schema")?));
        let fields = schema.and_then(|s| s.get("properties")).and_then(Value::as_object);
        if fields.is_some_and(Map::is_empty) && !required {
            return;
        }
        self.form = schema.cloned();
        self.converter.remarks.insert("its body is no JSON, so it is one text, `body`");
        self.member("body", json!({"type": "string"}), required);
    }

    fn member(&mut self, name: &str, schema: Value, required: bool) {
        if self.properties.contains_key(name) {
            self.converter.remarks.insert("a name stands in query and body; the body's schema was taken");
        }
        self.properties.insert(name.to_owned(), schema);
        if required {
            self.required.insert(name.to_owned());
        }
    }

    /// The members of a body that is an object, among the other arguments.
    fn object(&mut self, schema: Value, required: bool) {
        if !self.members(schema, required) {
            self.root.entry("additionalProperties").or_insert(true.into());
        }
    }

    /// Takes a body's keywords over; tells whether it lists members.
    fn members(&mut self, schema: Value, required: bool) -> bool {
        let Value::Object(mut members) = schema else { return false };
        let needed: BTreeSet<String> = names(members.remove("required").as_ref());
        let properties = members.remove("properties");
        let listed = properties.as_ref().and_then(Value::as_object).into_iter().flatten();
        for (name, schema) in listed.clone() {
            self.member(name, schema.clone(), required && needed.contains(name));
        }
        let lists = listed.count() > 0;
        let elsewhere = ["type", "minProperties", "maxProperties", "propertyNames", "patternProperties"];
        self.root.extend(members.into_iter().filter(|(key, _)| !elsewhere.contains(&key.as_str())));
        lists
    }

    /// A body of one of several shapes. `anyOf`: shapes that were meant to differ often overlap.
    fn choice(&mut self, schema: Value, required: bool) {
        let Value::Object(mut members) = schema else { return };
        let shapes = members.remove("oneOf").or_else(|| members.remove("anyOf"));
        let mut branches = Vec::new();
        for one in shapes.as_ref().and_then(Value::as_array).into_iter().flatten() {
            match shape(one) {
                Shape::Other if one.get("type").is_some_and(|t| t == "null") => {}
                Shape::Other => branches.push(json!({"properties": {"body": one}, "required": ["body"]})),
                Shape::Any => branches.push(json!({"additionalProperties": true})),
                Shape::Object | Shape::Choice => branches.push(one.clone()),
            }
        }
        self.common(&branches, required);
        self.members(Value::Object(members), required);
        if required && !branches.is_empty() {
            self.root.insert("anyOf".into(), branches.into());
        } else if branches.iter().any(|b| b.get("properties").is_none()) {
            self.root.insert("additionalProperties".into(), true.into());
        }
    }

    /// What the shapes have in common can be typed for policies.
    fn common(&mut self, branches: &[Value], required: bool) {
        let of = |b: &Value| b.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
        for (name, schema) in branches.iter().flat_map(of) {
            match self.properties.get_mut(&name) {
                Some(known) if *known != schema => *known = json!({}),
                _ => {
                    self.properties.insert(name, schema);
                }
            }
        }
        let needed = branches.iter().map(|b| names(b.get("required"))).reduce(|a, b| &a & &b).unwrap_or_default();
        if required {
            self.required.extend(needed);
        }
    }
}

enum Shape {
    Object,
    Choice,
    Other,
    Any,
}

/// Only what cannot be an object is no object: a branch may say no more than what is required.
fn shape(schema: &Value) -> Shape {
    let is_object = match schema.get("type") {
        Some(Value::Array(all)) => all.iter().any(|t| t == "object"),
        Some(one) => one == "object",
        None => !["enum", "const", "items"].iter().any(|key| schema.get(*key).is_some()),
    };
    let Some(members) = schema.as_object().filter(|_| is_object) else { return Shape::Other };
    if members.contains_key("oneOf") || members.contains_key("anyOf") {
        Shape::Choice
    } else if members.is_empty() {
        Shape::Any
    } else {
        Shape::Object
    }
}

fn names(required: Option<&Value>) -> BTreeSet<String> {
    let all = required.and_then(Value::as_array).into_iter().flatten();
    all.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn is_json(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || kind.ends_with("+json") || kind == "*/*" || kind == "application/*"
}

/// A word for an operation that has no `operationId`, or an illegal one.
pub(super) fn name_of(operation: &Value, method: &str, path: &str) -> String {
    let given = operation.get("operationId").and_then(Value::as_str).map(snake).unwrap_or_default();
    if given.is_empty() { super::naming::of_path(method, path) } else { given }
}
