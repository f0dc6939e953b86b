//! Arguments that a schema takes, made from the schema: as few as it demands.

use serde_json::{Map, Value, json};

use crate::gates::schema::Checker;

/// References and nesting are followed this far.
const DEPTH: usize = 8;
/// Longer values are no good examples.
const LONGEST: u64 = 64;

/// The least arguments that the schema takes; `None` when none were found.
pub(super) fn of(schema: Option<&Value>) -> Option<Value> {
    let none = json!({"type": "object"});
    let schema = schema.unwrap_or(&none);
    let checker = Checker::new(schema).ok()?;
    let mut found = vec![value(schema, schema, DEPTH)?];
    let branches = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array);
    for branch in branches.into_iter().flatten() {
        let (Some(Value::Object(more)), Some(Value::Object(base))) =
            (object(branch, schema, DEPTH), found.first().cloned())
        else {
            continue;
        };
        found.push(base.into_iter().chain(more).collect::<Map<_, _>>().into());
    }
    found.into_iter().find(|v| v.is_object() && checker.accepts(v))
}

fn value(schema: &Value, root: &Value, depth: usize) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        return value(root.pointer(reference.strip_prefix('#')?)?, root, depth);
    }
    if let Some(fixed) = schema.get("const").or_else(|| schema.get("enum").and_then(|e| e.get(0))) {
        return Some(fixed.clone());
    }
    let ty = match schema.get("type") {
        Some(Value::Array(all)) => all.iter().find(|t| *t != "null").and_then(Value::as_str),
        Some(one) => one.as_str(),
        None if schema.get("properties").is_some() => Some("object"),
        None => None,
    };
    match ty {
        Some("string") => text(schema),
        Some("integer") => Some(json!(least(schema).ceil() as i64)),
        Some("number") => Some(json!(least(schema))),
        Some("boolean") => Some(json!(false)),
        Some("null") => Some(Value::Null),
        Some("object") => object(schema, root, depth),
        Some("array") => list(schema, root, depth),
        _ => branch(schema, root, depth),
    }
}

fn branch(schema: &Value, root: &Value, depth: usize) -> Option<Value> {
    match schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array) {
        Some(all) => all.iter().find_map(|s| value(s, root, depth).filter(|v| !v.is_null())),
        None => Some(json!("text")),
    }
}

fn object(schema: &Value, root: &Value, depth: usize) -> Option<Value> {
    let properties = schema.get("properties");
    let mut out = Map::new();
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        let member =
            properties.and_then(|p| p.get(name)).map_or_else(|| Some(json!("text")), |s| value(s, root, depth));
        out.insert(name.to_owned(), member?);
    }
    Some(out.into())
}

fn list(schema: &Value, root: &Value, depth: usize) -> Option<Value> {
    let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0);
    if least > LONGEST {
        return None;
    }
    let one = || schema.get("items").map_or_else(|| Some(json!("text")), |s| value(s, root, depth));
    (0..least).map(|_| one()).collect::<Option<Vec<_>>>().map(Value::from)
}

fn least(schema: &Value) -> f64 {
    let number = |key: &str| schema.get(key).and_then(Value::as_f64);
    let floor = number("minimum").or_else(|| number("exclusiveMinimum").map(|n| n + 1.0));
    let top = number("maximum").or_else(|| number("exclusiveMaximum").map(|n| n - 1.0)).unwrap_or(f64::MAX);
    floor.unwrap_or(1.0_f64.min(top))
}

fn text(schema: &Value) -> Option<Value> {
    if let Some(format) = schema.get("format").and_then(Value::as_str)
        && let Some(known) = formatted(format)
    {
        return Some(known.into());
    }
    let long = |key: &str| schema.get(key).and_then(Value::as_u64);
    let least = long("minLength").unwrap_or(0);
    if least > LONGEST {
        return None;
    }
    let most = long("maxLength").unwrap_or(LONGEST);
    let plain = ["text", "a", "A", "1", "x1", "00000000-0000-4000-8000-000000000000"];
    let padded = || "x".repeat(usize::try_from(least).unwrap_or_default());
    let fits = |t: &str| (least..=most).contains(&(t.len() as u64)) && matches(schema, t);
    plain.into_iter().map(str::to_owned).chain([padded()]).find(|t| fits(t)).map(Value::from)
}

fn matches(schema: &Value, text: &str) -> bool {
    let Some(pattern) = schema.get("pattern") else { return true };
    Checker::new(&json!({"type": "string", "pattern": pattern})).is_ok_and(|c| c.accepts(&text.into()))
}

fn formatted(format: &str) -> Option<&'static str> {
    Some(match format {
        "date-time" => "2026-01-02T03:04:05Z",
        "date" => "2026-01-02",
        "time" => "03:04:05Z",
        "duration" => "PT1M",
        "email" => "someone@example.com",
        "hostname" => "example.com",
        "ipv4" => "192.0.2.1",
        "ipv6" => "2001:db8::1",
        "uri" | "url" => "https://example.com/",
        "uri-reference" => "/",
        "uuid" => "00000000-0000-4000-8000-000000000000",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_the_least_that_the_schema_takes() {
        let schema = json!({"type": "object", "required": ["a", "b", "c", "d", "e", "f"], "properties": {
            "a": {"type": "integer", "minimum": 3}, "b": {"type": "string", "format": "date"}, "c": {"enum": ["x", "y"]},
            "d": {"$ref": "#/$defs/d"}, "e": {"type": "array", "items": {"type": "boolean"}, "minItems": 2},
            "f": {"type": ["string", "null"], "pattern": "^[0-9a-f-]{36}$"}, "g": {}},
            "$defs": {"d": {"type": "object", "required": ["k"], "properties": {"k": {"type": "number"}}}}});
        let expected = json!({"a": 3, "b": "2026-01-02", "c": "x", "d": {"k": 1.0}, "e": [false, false],
            "f": "00000000-0000-4000-8000-000000000000"});
        assert_eq!(of(Some(&schema)), Some(expected));
        assert_eq!(of(None), Some(json!({})));
    }

    #[test]
    fn what_cannot_be_made_is_not_made() {
        for member in [json!({"type": "string", "pattern": "^zz-[0-9]+$"}), json!({"$ref": "#/properties/a"})] {
            assert_eq!(of(Some(&json!({"type": "object", "required": ["a"], "properties": {"a": member}}))), None);
        }
        let choice = json!({"type": "object", "properties": {"a": {}, "b": {}},
            "anyOf": [{"required": ["a"], "properties": {"a": {"type": "string", "minLength": 99}}},
                      {"required": ["b"], "properties": {"b": {"type": "integer"}}}]});
        assert_eq!(of(Some(&choice)), Some(json!({"b": 1})));
    }
}
