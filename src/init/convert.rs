//! Schemas of OpenAPI, made JSON Schema 2020-12 that the schema gate takes.
//!
//! Only keywords that constrain a value are taken over, each only in its legal form, so that no slip of a document makes a
//! schema that does not compile. `default` is left: it says what the tool does by itself, and a schema that fills it in
//! would change what agents send. Definitions keep their names under `$defs`; recursion stays recursion.

use std::collections::{BTreeSet, HashMap, VecDeque};

use serde_json::{Map, Value, json};

use super::document::Document;
use super::merge;
use crate::gates::schema::Checker;

/// Deeper nesting in one place is left untyped.
const NESTING: usize = 48;

/// Converts the schemas of one operation.
pub(super) struct Converter<'d> {
    document: &'d Document,
    names: HashMap<&'d str, String>,
    taken: BTreeSet<String>,
    waiting: VecDeque<(String, &'d Value, usize)>,
    done: Map<String, Value>,
    /// References that are being merged into where they stand.
    inside: Vec<&'d str>,
    nesting: usize,
    /// How many references the present place is away from the root, and how many it may be.
    level: usize,
    levels: usize,
    /// What was left untyped or unchecked, and why.
    pub(super) remarks: BTreeSet<&'static str>,
}

impl<'d> Converter<'d> {
    /// References farther away from the root than `levels` are left untyped.
    pub(super) fn new(document: &'d Document, levels: usize) -> Self {
        Self {
            document,
            names: HashMap::new(),
            taken: BTreeSet::new(),
            waiting: VecDeque::new(),
            done: Map::new(),
            inside: Vec::new(),
            nesting: 0,
            level: 0,
            levels,
            remarks: BTreeSet::new(),
        }
    }

    /// The definitions that what was converted refers to.
    pub(super) fn definitions(&mut self) -> Map<String, Value> {
        while let Some((name, target, level)) = self.waiting.pop_front() {
            self.level = level;
            let converted = self.schema(target, false);
            self.done.insert(name, converted);
        }
        self.level = 0;
        std::mem::take(&mut self.done)
    }

    /// One schema. `shared`: its object is described by others, too, so nothing in it may close it.
    pub(super) fn schema(&mut self, given: &'d Value, shared: bool) -> Value {
        let Some(members) = given.as_object() else {
            return if given == &Value::Bool(false) { Value::Bool(false) } else { json!({}) };
        };
        if self.nesting >= NESTING {
            self.remarks.insert("nested too deep, so in part untyped");
            return json!({});
        }
        self.nesting += 1;
        let converted = self.object(members, shared);
        self.nesting -= 1;
        converted
    }

    fn object(&mut self, members: &'d Map<String, Value>, shared: bool) -> Value {
        if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
            return if shared { self.inlined(reference) } else { self.reference(reference) };
        }
        let parts = members.get("allOf").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let branched = members.contains_key("anyOf") || members.contains_key("oneOf");
        let many = parts.len() + usize::from(members.contains_key("properties")) + usize::from(branched) > 1;
        let mut out = self.keywords(members, shared || many);
        if let ([only], true) = (parts, out.is_empty()) {
            return nullable(self.schema(only, shared), members);
        }
        for part in parts {
            if let Value::Object(part) = self.schema(part, true) {
                merge::into(&mut out, part);
            }
        }
        bounds(members, &mut out);
        optional(members, &mut out, self.document);
        if !shared {
            settle(&mut out);
        }
        nullable(Value::Object(out), members)
    }

    /// A reference stays one; its target is converted once.
    fn reference(&mut self, reference: &'d str) -> Value {
        let Some(target) = self.document.at(reference) else {
            self.remarks.insert("a `$ref` leads nowhere, so in part untyped");
            return json!({});
        };
        if is_plain(target) {
            return self.schema(target, false);
        }
        let name = match self.names.get(reference) {
            Some(name) => name.clone(),
            None if self.level >= self.levels => {
                self.remarks.insert("too large, so in part untyped");
                return json!({});
            }
            None => {
                let last = reference.rsplit('/').next().unwrap_or_default();
                let legal = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
                let name = super::naming::unique(&last.chars().map(legal).collect::<String>(), &mut self.taken);
                self.names.insert(reference, name.clone());
                self.waiting.push_back((name.clone(), target, self.level + 1));
                name
            }
        };
        json!({"$ref": format!("#/$defs/{name}")})
    }

    /// The target in place of the reference.
    fn inlined(&mut self, reference: &'d str) -> Value {
        let Some(target) = self.document.at(reference).filter(|_| !self.inside.contains(&reference)) else {
            self.remarks.insert("a `$ref` leads nowhere, so in part untyped");
            return json!({});
        };
        self.inside.push(reference);
        let converted = self.schema(target, true);
        self.inside.pop();
        converted
    }

    fn keywords(&mut self, members: &'d Map<String, Value>, shared: bool) -> Map<String, Value> {
        let mut out = Map::new();
        for (key, value) in members {
            let taken = match key.as_str() {
                "properties" | "patternProperties" | "dependentSchemas" => self.map(value),
                "additionalProperties" if shared && value == &Value::Bool(false) => None,
                "additionalProperties" | "items" | "contains" | "propertyNames" | "not" | "if" | "then" | "else" => {
                    (value.is_object() || value.is_boolean()).then(|| self.schema(value, false))
                }
                "anyOf" | "oneOf" => self.list(value, shared),
                "prefixItems" => self.list(value, false),
                "pattern" => self.pattern(value),
                _ => plain(key, value),
            };
            out.extend(taken.map(|t| (key.clone(), t)));
        }
        out
    }

    fn map(&mut self, value: &'d Value) -> Option<Value> {
        let all = value.as_object()?;
        Some(all.iter().map(|(name, s)| (name.clone(), self.schema(s, false))).collect::<Map<_, _>>().into())
    }

    fn list(&mut self, value: &'d Value, shared: bool) -> Option<Value> {
        let all = value.as_array().filter(|a| !a.is_empty())?;
        Some(all.iter().map(|s| self.schema(s, shared)).collect::<Vec<_>>().into())
    }

    /// Only patterns that run in linear time are taken.
    fn pattern(&mut self, value: &Value) -> Option<Value> {
        let pattern = value.as_str()?;
        if Checker::new(&json!({"type": "string", "pattern": pattern})).is_ok() {
            return Some(pattern.into());
        }
        self.remarks.insert("a pattern cannot be checked in linear time, so it is left out");
        None
    }
}

/// A schema of a single value: standing in place it reads better than a reference to it.
fn is_plain(target: &Value) -> bool {
    let composed = ["properties", "items", "allOf", "anyOf", "oneOf", "$ref", "additionalProperties", "not"];
    target.as_object().is_some_and(|m| m.contains_key("type") && !composed.iter().any(|k| m.contains_key(*k)))
}

/// Keywords without schemas in them, in their legal form.
fn plain(key: &str, value: &Value) -> Option<Value> {
    match key {
        "type" => types(value),
        "enum" => value.as_array().filter(|a| !a.is_empty()).map(|_| value.clone()),
        "const" => Some(value.clone()),
        "format" => value.as_str().map(Value::from),
        "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" => {
            value.as_u64().map(Value::from)
        }
        "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => value.as_number().map(|_| value.clone()),
        "multipleOf" => value.as_f64().filter(|n| *n > 0.0).map(|_| value.clone()),
        "uniqueItems" => value.as_bool().map(Value::from),
        "required" => {
            let names: BTreeSet<&str> = value.as_array()?.iter().filter_map(Value::as_str).collect();
            Some(json!(names))
        }
        "dependentRequired" => value.as_object().map(|_| value.clone()),
        _ => None,
    }
}

fn types(value: &Value) -> Option<Value> {
    let known = |t: &Value| {
        let known = ["string", "number", "integer", "boolean", "object", "array", "null"];
        t.as_str().is_some_and(|t| known.contains(&t))
    };
    match value {
        Value::Array(all) => {
            let all: Vec<_> = all.iter().filter(|t| known(t)).cloned().collect();
            match all.as_slice() {
                [] => None,
                [only] => Some(only.clone()),
                _ => Some(all.into()),
            }
        }
        one => known(one).then(|| one.clone()),
    }
}

/// Exclusive bounds as 3.0 writes them: a flag beside the bound.
fn bounds(members: &Map<String, Value>, out: &mut Map<String, Value>) {
    for (flag, bound) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
        if members.get(flag) == Some(&Value::Bool(true))
            && let Some(value) = out.remove(bound)
        {
            out.insert(flag.to_owned(), value);
        }
    }
}

/// What only answers hold, requests need not.
fn optional(members: &Map<String, Value>, out: &mut Map<String, Value>, document: &Document) {
    let Some(Value::Array(required)) = out.get_mut("required") else { return };
    let mut answers = BTreeSet::new();
    read_only(members, document, ALL_OF, &mut answers);
    required.retain(|r| !r.as_str().is_some_and(|r| answers.contains(r)));
}

/// `allOf` in `allOf` is looked through this far.
const ALL_OF: usize = 8;

fn read_only<'d>(members: &'d Map<String, Value>, document: &'d Document, depth: usize, found: &mut BTreeSet<&'d str>) {
    let Some(depth) = depth.checked_sub(1) else { return };
    for (name, member) in members.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let target = document.follow(member).and_then(|m| m.get("readOnly"));
        if target.and_then(Value::as_bool) == Some(true) {
            found.insert(name);
        }
    }
    let parts = members.get("allOf").and_then(Value::as_array).into_iter().flatten();
    for part in parts.filter_map(|p| document.follow(p)?.as_object()) {
        read_only(part, document, depth, found);
    }
}

/// What the gate will refuse as unknown cannot be required; an object that lists nothing takes everything.
pub(super) fn settle(out: &mut Map<String, Value>) {
    let composed = ["anyOf", "oneOf", "allOf", "if", "patternProperties"].iter().any(|k| out.contains_key(*k));
    let open = composed || out.contains_key("additionalProperties");
    let bare = out.get("type").is_some_and(|t| t == "object");
    let names = out.get("properties").and_then(Value::as_object).map(|p| p.keys().cloned().collect::<BTreeSet<_>>());
    match (names, out.get_mut("required")) {
        (None, _) if !open && bare => {
            out.insert("additionalProperties".into(), true.into());
        }
        (Some(names), Some(Value::Array(required))) if !open => {
            required.retain(|r| r.as_str().is_some_and(|r| names.contains(r)));
        }
        _ => {}
    }
    if out.get("required").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        out.remove("required");
    }
}

/// `nullable: true` of 3.0.
fn nullable(schema: Value, members: &Map<String, Value>) -> Value {
    if members.get("nullable") != Some(&Value::Bool(true)) {
        return schema;
    }
    let Value::Object(mut out) = schema else { return schema };
    match out.get("type").cloned() {
        Some(Value::String(one)) => {
            out.insert("type".into(), json!([one, "null"]));
            if let Some(Value::Array(all)) = out.get_mut("enum")
                && !all.contains(&Value::Null)
            {
                all.push(Value::Null);
            }
            Value::Object(out)
        }
        None if !out.is_empty() => json!({"anyOf": [out, {"type": "null"}]}),
        _ => Value::Object(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(document: &Value, levels: usize) -> (Value, Map<String, Value>) {
        let mut document = document.clone();
        document["openapi"] = "3.0.0".into();
        let document = Document::read(&document.to_string()).unwrap();
        let mut converter = Converter::new(&document, levels);
        let schema = converter.schema(document.root().get("x").unwrap(), false);
        (schema, converter.definitions())
    }

    fn one(schema: Value) -> Value {
        converted(&json!({"x": schema}), 9).0
    }

    #[test]
    fn the_dialect_of_3_0_is_translated() {
        assert_eq!(
            one(json!({"type": "string", "nullable": true, "enum": ["a"], "example": "a", "default": "a"})),
            json!({"type": ["string", "null"], "enum": ["a", null]})
        );
        assert_eq!(
            one(
                json!({"type": "integer", "minimum": 0, "exclusiveMinimum": true, "maximum": 9, "exclusiveMaximum": false})
            ),
            json!({"type": "integer", "exclusiveMinimum": 0, "maximum": 9})
        );
        assert_eq!(
            one(json!({"type": ["string", "null"], "const": 1})),
            json!({"type": ["string", "null"], "const": 1})
        );
    }

    #[test]
    fn slips_of_documents_do_no_harm() {
        assert_eq!(one(json!({"type": "file", "required": true, "enum": [], "multipleOf": 0})), json!({}));
        assert_eq!(one(json!({"type": "string", "pattern": "^(?!x)"})), json!({"type": "string"}));
        assert_eq!(one(json!({"$ref": "#/nowhere"})), json!({}));
        assert_eq!(one(json!({"type": "object"})), json!({"type": "object", "additionalProperties": true}));
        let lost = json!({"type": "object", "properties": {"a": {}}, "required": ["a", "b"]});
        assert_eq!(one(lost)["required"], json!(["a"]));
        let answer = json!({"type": "object", "properties": {"id": {"readOnly": true}}, "required": ["id"]});
        assert_eq!(one(answer), json!({"type": "object", "properties": {"id": {}}}));
    }

    #[test]
    fn definitions_are_kept_once_and_recursion_stays() {
        let node = json!({"type": "object", "properties": {"next": {"$ref": "#/c/a%20node"}, "s": {"$ref": "#/c/s"}}});
        let document = json!({"x": {"$ref": "#/c/a%20node"}, "c": {"a node": node, "s": {"type": "string"}}});
        let (schema, definitions) = converted(&document, 9);
        assert_eq!(schema, json!({"$ref": "#/$defs/a_20node"}));
        assert_eq!(
            Value::Object(definitions),
            json!({"a_20node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/a_20node"}, "s": {"type": "string"}}}})
        );
        assert_eq!(converted(&document, 0), (json!({}), Map::new()));
    }

    #[test]
    fn all_of_is_one_object_and_its_parts_do_not_close_each_other() {
        let a = json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": false});
        let both = json!({"allOf": [{"$ref": "#/a"}, {"properties": {"b": {}}, "required": ["b", "a"]}]});
        let (schema, definitions) = converted(&json!({"x": both, "a": a}), 9);
        assert_eq!(
            schema,
            json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {}}, "required": ["a", "b"]})
        );
        assert!(definitions.is_empty());
        let (alone, _) = converted(&json!({"x": {"allOf": [{"$ref": "#/a"}], "nullable": true}, "a": a}), 9);
        assert_eq!(alone, json!({"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}));
        let (looped, _) = converted(&json!({"x": {"$ref": "#/a"}, "a": {"allOf": [{"$ref": "#/a"}, {}]}}), 9);
        assert_eq!(looped, json!({"$ref": "#/$defs/a"}));
    }
}
