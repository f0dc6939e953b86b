//! Whether an answer of the API is one that its description has. The tests of `tests/it` use it, too.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use http::header::HeaderMap;
use jsonschema::Validator;
use serde_json::{Map, Value, json};

/// One request, and what came back.
pub(crate) struct Exchange<'a> {
    pub(crate) method: &'a str,
    /// With its query.
    pub(crate) path: &'a str,
    pub(crate) sent: &'a [u8],
    pub(crate) status: u16,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
}

/// With every object closed that does not say that it is open: a member that nobody described is found.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut document = super::description();
    for schema in document["components"]["schemas"].as_object_mut().unwrap().values_mut() {
        if schema.get("properties").is_some() && schema.get("additionalProperties").is_none() {
            schema["additionalProperties"] = false.into();
        }
    }
    document
});

static KNOWN: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);

/// The operations of a path, and its template.
fn item(path: &str) -> Option<(&'static str, &'static Map<String, Value>)> {
    let parts: Vec<&str> = path.split('/').collect();
    let fits = |template: &&String| {
        let own: Vec<&str> = template.split('/').collect();
        own.len() == parts.len() && own.iter().zip(&parts).all(|(t, p)| t == p || (t.starts_with('{') && !p.is_empty()))
    };
    let all = DOCUMENT["paths"].as_object().unwrap();
    let found = all.keys().filter(fits).min_by_key(|template| template.matches('{').count())?;
    Some((found, all[found].as_object().unwrap()))
}

fn held_against(name: String, schema: &Value, value: &Value) {
    let validator = Arc::clone(KNOWN.lock().unwrap().entry(name.clone()).or_insert_with(|| {
        let whole = json!({"allOf": [schema], "components": DOCUMENT["components"]});
        Arc::new(jsonschema::options().should_validate_formats(true).build(&whole).unwrap())
    }));
    let wrong: Vec<String> = validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(wrong.is_empty(), "{name}: {wrong:#?}\n{value:#}");
}

fn resolved(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(to) => DOCUMENT.pointer(to.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

/// Panics when the description has no such answer.
pub(crate) fn check(x: &Exchange<'_>) {
    let path = x.path.split('?').next().unwrap();
    let Some((template, item)) = item(path) else {
        // `Host` and `Origin` come first, whatever is asked for.
        return assert!(matches!(x.status, 400 | 403 | 404), "{path} is not described, and answers {}", x.status);
    };
    let Some(op) = item.get(&x.method.to_ascii_lowercase()) else {
        return assert!(matches!(x.status, 400 | 403 | 405), "{} {path} is not described: {}", x.method, x.status);
    };
    let name = format!("{} {template} {}", x.method, x.status);
    let answer = op["responses"].get(x.status.to_string()).unwrap_or_else(|| panic!("{name} is not described"));
    let kind = x.headers["content-type"].to_str().unwrap();
    let content = answer["content"].get(kind).unwrap_or_else(|| panic!("{name} is described without {kind}"));
    for (header, about) in answer.get("headers").and_then(Value::as_object).into_iter().flatten() {
        assert!(resolved(about)["required"] != true || x.headers.contains_key(header), "{name} without {header}");
    }
    if kind.contains("json") {
        let body: Value = serde_json::from_slice(x.body).unwrap();
        held_against(name.clone(), &content["schema"], &body);
    }
    if let (200..=299, Some(wanted)) = (x.status, op.get("requestBody")) {
        let Ok(sent) = serde_json::from_slice::<Value>(x.sent) else {
            return assert!(wanted["content"].get("multipart/form-data").is_some(), "{name}, by what is no JSON");
        };
        held_against(format!("{name}, as asked"), &wanted["content"]["application/json"]["schema"], &sent);
    }
}
