//! Schemas made ready: unknown fields refused unless the schema says otherwise, no network, linear-time patterns.

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::{Map, Value};

use crate::call::Violation;

/// A schema ready to check with.
#[derive(Debug)]
pub(super) struct Compiled {
    validator: Validator,
    schema: Value,
}

/// Keywords under which a schema is applied to the same value: closing one branch would close out the others.
const IN_PLACE: [&str; 8] = ["allOf", "anyOf", "oneOf", "not", "if", "$ref", "$dynamicRef", "dependentSchemas"];

/// Compiles a schema; none at all takes an empty object only.
pub(super) fn compile(schema: Option<&Value>) -> Result<Compiled, String> {
    let mut schema = schema.cloned().unwrap_or_else(|| serde_json::json!({"type": "object"}));
    let draft = match schema.get("$schema").and_then(Value::as_str) {
        None => Draft::Draft202012,
        Some(s) if s.trim_end_matches('#').ends_with("json-schema.org/draft/2020-12/schema") => Draft::Draft202012,
        Some(s) if s.trim_end_matches('#').ends_with("json-schema.org/draft-07/schema") => Draft::Draft7,
        Some(other) => return Err(format!("the dialect `{other}` is not 2020-12 or draft-07")),
    };
    if let Some(remote) = remote_ref(&schema) {
        return Err(format!("`$ref` to `{remote}`: only local references are followed"));
    }
    close(&mut schema, draft);
    let validator = jsonschema::options()
        .with_draft(draft)
        .offline()
        .should_validate_formats(true)
        .with_pattern_options(PatternOptions::regex())
        .build(&schema)
        .map_err(|e| e.to_string())?;
    Ok(Compiled { validator, schema })
}

fn remote_ref(schema: &Value) -> Option<&str> {
    match schema {
        Value::Object(members) => {
            let own = members.get("$ref").and_then(Value::as_str).filter(|r| !r.starts_with('#'));
            own.or_else(|| members.values().find_map(remote_ref))
        }
        Value::Array(items) => items.iter().find_map(remote_ref),
        _ => None,
    }
}

/// Refuses unknown fields in every object that lists its fields and does not say otherwise.
fn close(schema: &mut Value, draft: Draft) {
    let Some(members) = schema.as_object_mut() else { return };
    for (key, child) in members.iter_mut() {
        match (key.as_str(), child) {
            ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(all)) => {
                all.values_mut().for_each(|s| close(s, draft));
            }
            ("items" | "prefixItems" | "additionalProperties" | "contains", Value::Array(all)) => {
                all.iter_mut().for_each(|s| close(s, draft));
            }
            ("items" | "additionalProperties" | "contains", one) => close(one, draft),
            _ => {}
        }
    }
    let is_object = members.get("type").is_some_and(|t| t == "object") || members.contains_key("properties");
    let open = members.contains_key("additionalProperties") || members.contains_key("unevaluatedProperties");
    if !is_object || open {
        return;
    }
    let composed = IN_PLACE.iter().any(|k| members.contains_key(*k));
    match (composed, draft) {
        (false, _) => members.insert("additionalProperties".into(), false.into()),
        (true, Draft::Draft202012) => members.insert("unevaluatedProperties".into(), false.into()),
        // Draft-07 cannot close a composed object; its branches say what they take.
        (true, _) => None,
    };
}

impl Compiled {
    /// Fills in defaults; tells whether there were any to fill in.
    pub(super) fn fill(&self, arguments: &mut Value) -> bool {
        fill(&self.schema, arguments)
    }

    /// Every violation, with its JSON Pointer and without the value.
    pub(super) fn check(&self, arguments: &Value) -> Result<(), Vec<Violation>> {
        if self.validator.is_valid(arguments) {
            return Ok(());
        }
        Err(self.validator.iter_errors(arguments).take(100).flat_map(|e| explain(&e)).collect())
    }

    /// A null for an argument that may not be null and has a default is its absence: the default will stand there.
    pub(super) fn absent_nulls(&self, arguments: &mut Value) {
        if self.validator.is_valid(arguments) {
            return;
        }
        let properties = self.schema.get("properties").and_then(Value::as_object);
        let (Some(properties), Some(members)) = (properties, arguments.as_object_mut()) else { return };
        let defaulted = |name: &str| properties.get(name).and_then(|p| p.get("default")).is_some_and(|d| !d.is_null());
        members.retain(|name, value| !(value.is_null() && defaulted(name)));
    }

    /// [`Self::check`] for MCP, whose clients say `null` for an optional argument that is not given; policies see none, too.
    pub(super) fn check_mcp(&self, arguments: &Value) -> Result<(), Vec<Violation>> {
        let Err(violations) = self.check(arguments) else { return Ok(()) };
        let required = self.schema.get("required").and_then(Value::as_array);
        let declared = |name: &String| self.schema.get("properties").and_then(|p| p.get(name));
        let optional = |name: &String| {
            declared(name).is_some_and(|d| d.get("default").is_none_or(Value::is_null))
                && !required.is_some_and(|all| all.iter().any(|r| r == name.as_str()))
        };
        let Some(members) = arguments.as_object().filter(|m| m.iter().any(|(n, v)| v.is_null() && optional(n))) else {
            return Err(violations);
        };
        let given: Map<String, Value> =
            members.iter().filter(|(n, v)| !v.is_null() || !optional(n)).map(|(n, v)| (n.clone(), v.clone())).collect();
        self.check(&Value::Object(given)).map_err(|_| violations)
    }
}

fn explain(error: &jsonschema::ValidationError<'_>) -> Vec<Violation> {
    use jsonschema::error::ValidationErrorKind as Kind;
    let pointer = error.instance_path().to_string();
    let keyword = error.kind().keyword().to_owned();
    let below = |name: &str| format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
    match error.kind() {
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => unexpected
            .iter()
            .map(|name| {
                let message = "is not a field of this operation".to_owned();
                Violation { pointer: below(name), keyword: keyword.clone(), message }
            })
            .collect(),
        Kind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            vec![Violation { pointer: below(name), keyword, message: "is required".into() }]
        }
        _ => vec![Violation { pointer, keyword, message: error.masked_with("the value").to_string() }],
    }
}

fn fill(schema: &Value, value: &mut Value) -> bool {
    let (Some(properties), Some(members)) =
        (schema.get("properties").and_then(Value::as_object), value.as_object_mut())
    else {
        return false;
    };
    fill_members(properties, members)
}

fn fill_members(properties: &Map<String, Value>, members: &mut Map<String, Value>) -> bool {
    let mut filled = false;
    for (name, schema) in properties {
        match members.get_mut(name) {
            Some(given) => filled |= fill(schema, given),
            None => {
                // Null stands for absence: to write it would be to say something.
                if let Some(default) = schema.get("default").filter(|d| !d.is_null()) {
                    members.insert(name.clone(), default.clone());
                    filled = true;
                }
            }
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wrong(schema: Value, value: Value) -> Vec<String> {
        let all = compile(Some(&schema)).unwrap().check(&value).err().unwrap_or_default();
        all.into_iter().map(|v| format!("{} {}", v.pointer, v.keyword)).collect()
    }

    #[test]
    fn every_violation_is_named_with_its_place() {
        let schema = json!({"type": "object", "required": ["a", "b"], "properties": {
            "a": {"type": "integer"}, "b": {"type": "string"}, "o": {"type": "object", "properties": {"x": {}}}}});
        let found = wrong(schema, json!({"a": "1", "z": 1, "o": {"y": 1}}));
        for expected in ["/a type", "/b required", "/z additionalProperties", "/o/y additionalProperties"] {
            assert!(found.iter().any(|f| f == expected), "{expected} in {found:?}");
        }
    }

    #[test]
    fn a_schema_may_open_itself() {
        assert!(wrong(json!({"type": "object", "additionalProperties": true}), json!({"z": 1})).is_empty());
        assert!(!wrong(json!({"type": "object"}), json!({"z": 1})).is_empty());
        let composed = json!({"type": "object", "allOf": [{"properties": {"a": {}}}], "properties": {"b": {}}});
        assert!(wrong(composed.clone(), json!({"a": 1, "b": 2})).is_empty());
        assert!(!wrong(composed, json!({"c": 1})).is_empty());
    }

    #[test]
    fn bombs_and_remote_references_do_not_compile_or_do_not_burn() {
        assert!(compile(Some(&json!({"$ref": "http://example.com/x"}))).is_err());
        assert!(compile(Some(&json!({"$schema": "http://json-schema.org/draft-04/schema#"}))).is_err());
        let slow = json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}});
        assert!(!wrong(slow, json!({"a": format!("{}!", "a".repeat(50_000))})).is_empty());
        assert!(
            compile(Some(&json!({"properties": {"a": {"pattern": "(?=x)"}}}))).is_err(),
            "look-around is not linear"
        );
    }

    #[test]
    fn values_do_not_stand_in_messages() {
        let c = compile(Some(&json!({"type": "object", "properties": {"a": {"type": "integer"}}}))).unwrap();
        let found = c.check(&json!({"a": "canary-secret"})).unwrap_err();
        assert!(!format!("{found:?}").contains("canary"));
    }

    #[test]
    fn defaults_are_filled_in_where_nothing_was_given() {
        let c = compile(Some(&json!({"type": "object", "properties": {
            "n": {"type": "integer", "default": 5}, "o": {"type": "object", "properties": {"k": {"default": "v"}}}}})))
        .unwrap();
        let mut v = json!({"o": {}});
        assert!(c.fill(&mut v));
        assert_eq!(v, json!({"n": 5, "o": {"k": "v"}}));
        assert!(!c.fill(&mut v));
    }
}
