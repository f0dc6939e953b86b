//! `Mcp-Param-*`: what stands in a header must stand in the body (MCP 2026-07-28, SEP-2243).

use http::HeaderMap;
use serde_json::Value;

use crate::call::sentinel::{HEADER_MISMATCH, decoded, encoded};
use crate::call::{Code, Refusal};

/// Checks the headers that a tool's schema asks for with `x-mcp-header`, where they are mirrored at all.
///
/// # Errors
/// `malformed_request` when one is missing or differs.
pub(super) fn check(schema: &Value, arguments: &Value, headers: &HeaderMap) -> Result<(), Refusal> {
    for (pointer, name) in annotated(schema, "", DEPTH) {
        let header = headers.get(format!("mcp-param-{name}")).and_then(|v| v.to_str().ok());
        let given = arguments.pointer(&pointer).filter(|v| !v.is_null());
        let agrees = match (given, header) {
            (None, None) => true,
            (Some(Value::String(text)), None) => text.is_empty(),
            (Some(value), Some(header)) => decoded(header).is_some_and(|text| same(value, &text)),
            _ => false,
        };
        if !agrees {
            let text = format!("`Mcp-Param-{name}` differs from the argument `{pointer}` in the body");
            return Err(Refusal::new(Code::MalformedRequest, text).with_rpc(HEADER_MISMATCH));
        }
    }
    Ok(())
}

/// The headers that a default, filled in by us, makes necessary.
pub(super) fn missing(schema: &Value, arguments: &Value, headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    };
    let absent = annotated(schema, "", DEPTH).into_iter().map(|(p, n)| (p, format!("mcp-param-{n}")));
    let absent = absent.filter(|(_, name)| !headers.contains_key(name.as_str()));
    absent.filter_map(|(p, name)| Some((name, encoded(&arguments.pointer(&p).and_then(text)?)))).collect()
}

/// Properties are followed so deep.
const DEPTH: u32 = 16;

/// Pointers of properties with the header that mirrors them; an annotation that no client may follow is left out.
fn annotated(schema: &Value, at: &str, depth: u32) -> Vec<(String, String)> {
    let properties = schema.get("properties").and_then(Value::as_object);
    let mut found = Vec::new();
    for (property, declared) in properties.into_iter().flatten().filter(|_| depth > 0) {
        let pointer = format!("{at}/{}", property.replace('~', "~0").replace('/', "~1"));
        found.extend(annotated(declared, &pointer, depth - 1));
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let name =
            declared.get("x-mcp-header").and_then(Value::as_str).filter(|n| !n.is_empty() && n.bytes().all(token));
        if let Some(name) = name.filter(|_| is_plain(declared)) {
            found.push((pointer, name.to_ascii_lowercase()));
        }
    }
    found
}

/// Text, a number or a truth value, or none.
fn is_plain(declared: &Value) -> bool {
    let plain = |t: &Value| matches!(t.as_str(), Some("string" | "integer" | "number" | "boolean" | "null"));
    match declared.get("type") {
        Some(Value::Array(all)) => all.iter().all(plain) && all.iter().any(|t| t != "null"),
        Some(one) => plain(one) && one != "null",
        None => false,
    }
}

/// Integers by value, all else by text.
fn same(value: &Value, text: &str) -> bool {
    match value {
        Value::String(own) => own == text,
        Value::Bool(own) => own.to_string() == text,
        Value::Number(own) => text.parse::<serde_json::Number>().is_ok_and(|n| n.as_f64() == own.as_f64()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn checked(arguments: &Value, headers: &[(&str, &str)]) -> bool {
        let schema = json!({"properties": {
            "region": {"type": "string", "x-mcp-header": "Region"}, "n": {"type": "integer", "x-mcp-header": "N"},
            "in": {"properties": {"deep": {"type": ["string", "null"], "x-mcp-header": "Deep"}}},
            "bad": {"type": "string", "x-mcp-header": "no such"}}});
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        check(&schema, arguments, &map).is_ok()
    }

    #[test]
    fn a_default_that_is_filled_in_is_mirrored_too() {
        let schema = json!({"properties": {"region": {"type": "string", "default": "eu", "x-mcp-header": "Region"}}});
        let made = missing(&schema, &json!({"region": "eu"}), &HeaderMap::new());
        assert_eq!(made, [("mcp-param-region".to_owned(), "eu".to_owned())]);
        assert!(missing(&schema, &json!({}), &HeaderMap::new()).is_empty());
    }

    #[test]
    fn a_mirrored_argument_must_be_the_one_in_the_body() {
        let both = json!({"region": "eu", "n": 42});
        assert!(checked(&both, &[("mcp-param-region", "eu"), ("mcp-param-n", "42.0")]));
        assert!(checked(&both, &[("mcp-param-region", "=?base64?ZXU=?="), ("mcp-param-n", "42")]));
        assert!(!checked(&both, &[("mcp-param-region", "us"), ("mcp-param-n", "42")]));
        assert!(!checked(&both, &[("mcp-param-region", "eu")]));
        assert!(!checked(&both, &[("mcp-param-region", "=?base64?!?="), ("mcp-param-n", "42")]));
        assert!(!checked(&json!({}), &[("mcp-param-region", "eu")]));
        assert!(!checked(&json!({"in": {"deep": "eu"}}), &[("mcp-param-deep", "us")]));
        assert!(checked(&json!({"in": {"deep": "eu"}}), &[("mcp-param-deep", "eu")]));
        assert!(checked(&json!({"region": null, "bad": "x"}), &[("mcp-param-other", "eu")]));
    }
}
