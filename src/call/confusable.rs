//! Member names that some readers take for others: Go's `encoding/json` ignores case (and takes the last match), others
//! cut a name at a NUL. What we judge by one name must not reach a server under another (CVE-2026-27896).

use serde_json::{Map, Value};

/// A name as the most careless reader has it.
fn folded(name: &str) -> String {
    let plain = name.chars().filter(|c| *c != '\0' && !c.is_whitespace());
    // U+017F and U+212A fold to `s` and `k`, the only letters beyond ASCII that fold into it.
    plain
        .map(|c| match c {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}

/// The first member whose name is none of `known`, but could be read as one.
#[must_use]
pub fn confusable<'a, 'k>(
    members: &'a Map<String, Value>,
    known: impl IntoIterator<Item = &'k str>,
) -> Option<&'a str> {
    let known: Vec<&str> = known.into_iter().collect();
    let odd = |name: &&String| {
        !known.contains(&name.as_str()) && {
            let folded = folded(name);
            known.iter().any(|k| k.to_ascii_lowercase() == folded)
        }
    };
    members.keys().find(odd).map(String::as_str)
}

/// The first name among arguments, however deep, that could be read as one that the schema declares there.
#[must_use]
pub fn in_arguments<'a>(schema: &Value, value: &'a Value) -> Option<&'a str> {
    match value {
        Value::Object(members) => {
            let declared = schema.get("properties").and_then(Value::as_object)?;
            let own = confusable(members, declared.keys().map(String::as_str));
            own.or_else(|| members.iter().find_map(|(name, inner)| in_arguments(declared.get(name)?, inner)))
        }
        Value::Array(items) => {
            let each = schema.get("items")?;
            items.iter().find_map(|item| in_arguments(each, item))
        }
        _ => None,
    }
}

/// Every name in a message of MCP that something is decided by.
const MESSAGE: &[&str] = &["jsonrpc", "id", "method", "params", "result", "error"];
const PARAMS: &[&str] = &[
    "name",
    "arguments",
    "uri",
    "taskId",
    "_meta",
    "requestState",
    "inputResponses",
    "task",
    "idempotencyKey",
    "ref",
    "level",
    "notifications",
    "cursor",
    "protocolVersion",
];
const META: &[&str] = &[
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/clientCapabilities",
    "io.modelcontextprotocol/clientInfo",
    "progressToken",
];

/// The first name in a message, outside its arguments, that could be read as another.
#[must_use]
pub fn in_message(message: &Value) -> Option<&str> {
    let top = message.as_object()?;
    let params = top.get("params").and_then(Value::as_object);
    let meta = params.and_then(|p| p.get("_meta")).and_then(Value::as_object);
    confusable(top, MESSAGE.iter().copied())
        .or_else(|| confusable(params?, PARAMS.iter().copied()))
        .or_else(|| confusable(meta?, META.iter().copied()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arguments_are_looked_at_as_deep_as_they_are_declared() {
        let schema = json!({"properties": {"all": {"items": {"properties": {"amount": {}}}}, "free": {}}});
        assert_eq!(in_arguments(&schema, &json!({"all": [{"amount": 1}, {"Amount": 2}]})), Some("Amount"));
        assert_eq!(in_arguments(&schema, &json!({"all": [{"amount": 1}], "free": {"A": 1, "a": 2}})), None);
    }

    #[test]
    fn names_that_a_careless_reader_mixes_up_are_found() {
        for params in [
            json!({"name": "a", "Name": "b"}),
            json!({"name": "a", "name\u{0}": "b"}),
            json!({"arguments": {}, "argument\u{17f}": {}}),
            json!({"name": "a", "_META": {}}),
        ] {
            assert!(in_message(&json!({"method": "tools/call", "params": params})).is_some(), "{params}");
        }
        assert!(in_message(&json!({"method": "ping", "Method": "tools/call"})).is_some());
        assert!(
            in_message(&json!({"method": "x", "params": {"name": "a", "Other": 1, "arguments": {"Name": 1}}}))
                .is_none()
        );
    }
}
