//! The one argument object of a REST call: path parameters, query parameters, members of a JSON object body.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::call::{Operation, RestCall, Violation};

/// Gathers the arguments; path and query values are read by the schema's type.
pub(super) fn rest(
    schema: &Value,
    operation: &Operation,
    call: &RestCall,
    path_values: &[String],
) -> Result<Value, Violation> {
    let mut all = Map::new();
    let typed = |name: &str, text: &str| read(schema.pointer(&format!("/properties/{}", escaped(name))), text);
    for (name, text) in operation.path_params.iter().zip(path_values) {
        put(&mut all, name, typed(name, text))?;
    }
    for (name, text) in &call.query {
        put(&mut all, name, typed(name, text))?;
    }
    match &call.json {
        Some(Value::Object(members)) => {
            for (name, value) in members {
                put(&mut all, name, value.clone())?;
            }
        }
        Some(other) => put(&mut all, "body", other.clone())?,
        None if call.body.is_empty() => {}
        None => put(&mut all, "body", String::from_utf8_lossy(&call.body).into_owned().into())?,
    }
    Ok(Value::Object(all))
}

fn put(all: &mut Map<String, Value>, name: &str, value: Value) -> Result<(), Violation> {
    match all.insert(name.to_owned(), value) {
        None => Ok(()),
        Some(_) => Err(Violation {
            pointer: format!("/{}", escaped(name)),
            keyword: "twice".into(),
            message: "comes from two places: path, query or body".into(),
        }),
    }
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Text as the schema's type has it; what does not fit stays text, and the schema refuses it.
fn read(schema: Option<&Value>, text: &str) -> Value {
    let as_text = || Value::from(text);
    match schema.and_then(|s| s.get("type")).and_then(Value::as_str) {
        Some("integer") => text.parse().ok().filter(|n: &i64| n.to_string() == text).map_or_else(as_text, Value::from),
        Some("number") => number(text).unwrap_or_else(as_text),
        Some("boolean") => match text {
            "true" => true.into(),
            "false" => false.into(),
            _ => as_text(),
        },
        _ => as_text(),
    }
}

/// Only what JSON itself would write, so that no reader reads it differently.
fn number(text: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(text).ok().filter(Value::is_number)?;
    let written = value.to_string();
    (written == text).then_some(value)
}

/// The body with defaults in: every argument that is not a path or query parameter.
pub(super) fn body(arguments: &Value, operation: &Operation, call: &RestCall) -> Bytes {
    let elsewhere = |name: &String| operation.path_params.contains(name) || call.query.iter().any(|(n, _)| n == name);
    let members = arguments.as_object().into_iter().flatten();
    let members: Map<String, Value> =
        members.filter(|(n, _)| !elsewhere(n)).map(|(n, v)| (n.clone(), v.clone())).collect();
    Bytes::from(Value::Object(members).to_string())
}

/// Arguments that stand neither in the path nor in the query: defaults of a call without a body.
pub(super) fn missing_query(arguments: &Value, operation: &Operation, call: &RestCall) -> Vec<(String, String)> {
    let given = |name: &String| operation.path_params.contains(name) || call.query.iter().any(|(n, _)| n == name);
    let members = arguments.as_object().into_iter().flatten().filter(|(n, _)| !given(n) && *n != "body");
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    members.map(|(n, v)| (n.clone(), text(v))).collect()
}
