//! The request exactly as it would go out, for the eyes of approvers: in full, but for what is redacted.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::call::{Digest, encode_part, visible};
use crate::snapshot::Snapshot;
use crate::store::{CallRecord, Store};

/// Stands in a URL where a redacted argument stands.
const MASK: &str = "[redacted]";

/// What goes out.
#[derive(Debug)]
pub(super) struct Exact {
    pub(super) method: String,
    pub(super) url: String,
    pub(super) content_type: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) bytes: u64,
    pub(super) sha256: Option<Digest>,
    /// JSON Pointers of arguments that no page may show.
    pub(super) redacted: Vec<String>,
    /// Their values, to keep them out of what people write.
    pub(super) secrets: Vec<String>,
    pub(super) body: Body,
}

/// The body, as far as it may be shown.
#[derive(Debug)]
pub(super) enum Body {
    Bytes(Bytes),
    /// It carries redacted arguments.
    Withheld,
    /// Not kept any more.
    Gone,
}

impl Exact {
    /// Reads it from the store.
    pub(super) async fn of(snapshot: &Snapshot, store: &Store, record: &CallRecord) -> Self {
        let request = &record.request;
        let full = store.arguments(record).await;
        let mut redacted = Vec::new();
        let mut secrets = Vec::new();
        match &full {
            Ok(full) => differing(full, &record.arguments, String::new(), &mut redacted, &mut secrets),
            // Not readable: what looks redacted counts as redacted.
            Err(fault) => {
                tracing::warn!(fault = %fault.chain(), call.id = %record.id, "arguments cannot be read");
                redacted.push(String::new());
            }
        }
        let body = match (&request.body, redacted.is_empty()) {
            (None, _) => Body::Bytes(Bytes::new()),
            (Some(_), false) => Body::Withheld,
            (Some(_), true) => store.request_body(record).await.map_or(Body::Gone, Body::Bytes),
        };
        let tool = snapshot.config.tools.iter().find(|t| t.tool.name == record.tool);
        let origin = tool.map(|t| t.upstream.origin()).unwrap_or_default();
        let path = if full.is_ok() { masked(&request.target.path, &secrets) } else { MASK.to_owned() };
        Self {
            method: request.target.method.clone(),
            url: format!("{}{path}", origin.trim_end_matches('/')),
            content_type: request.content_type.clone(),
            headers: request.headers.clone(),
            bytes: request.body.map_or(0, |b| b.len),
            // Of a body that is shown in part it would tell the rest to who guesses it.
            sha256: request.body.filter(|_| redacted.is_empty()).map(|b| b.digest),
            redacted,
            secrets,
            body,
        }
    }

    /// For the API.
    pub(super) fn json(&self) -> Value {
        let mut out = json!({
            "method": self.method,
            "url": self.url,
            "content_type": self.content_type,
            "headers": self.headers,
            "body_bytes": self.bytes,
            "body_sha256": self.sha256,
            "redacted": self.redacted,
        });
        let (name, value) = match &self.body {
            Body::Bytes(bytes) => text_or_base64("body", bytes),
            Body::Withheld => ("body_withheld".to_owned(), "it carries redacted arguments".to_owned()),
            Body::Gone => ("body_withheld".to_owned(), "it is not kept any more".to_owned()),
        };
        if let Some(members) = out.as_object_mut() {
            members.insert(name, Value::from(value));
        }
        out
    }

    /// Words of a person without the redacted values that may stand in them.
    pub(super) fn scrub(&self, text: &str) -> String {
        let long = self.secrets.iter().filter(|s| s.chars().count() >= 4);
        long.fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), MASK))
    }
}

/// A member of the API's JSON for bytes: as text where they are text, else `<name>_base64`.
pub(super) fn text_or_base64(name: &str, bytes: &[u8]) -> (String, String) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (name.to_owned(), text.to_owned()),
        Err(_) => (format!("{name}_base64"), STANDARD.encode(bytes)),
    }
}

/// Where what is shown differs from what there is: the redacted places, and the values behind them.
fn differing(full: &Value, shown: &Value, at: String, places: &mut Vec<String>, values: &mut Vec<String>) {
    match (full, shown) {
        (full, shown) if full == shown => {}
        (Value::Object(a), Value::Object(b)) if a.len() == b.len() && a.keys().all(|k| b.contains_key(k)) => {
            for (key, value) in a {
                let below = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                differing(value, b.get(key).unwrap_or(&Value::Null), below, places, values);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (value, shown)) in a.iter().zip(b).enumerate() {
                differing(value, shown, format!("{at}/{i}"), places, values);
            }
        }
        (full, _) => {
            places.push(at);
            leaves(full, values);
        }
    }
}

fn leaves(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(members) => members.values().for_each(|v| leaves(v, out)),
        Value::Array(items) => items.iter().for_each(|v| leaves(v, out)),
        Value::String(text) => out.push(text.clone()),
        other => out.push(other.to_string()),
    }
}

/// A path and query in which no part is a redacted value.
fn masked(path: &str, secrets: &[String]) -> String {
    let encoded: Vec<String> = secrets.iter().map(|s| encode_part(s)).collect();
    let mut out = String::with_capacity(path.len());
    for piece in path.split_inclusive(['/', '?', '&', '=']) {
        let part = piece.trim_end_matches(['/', '?', '&', '=']);
        let end = piece.get(part.len()..).unwrap_or_default();
        let hide = !part.is_empty() && encoded.iter().any(|s| s == part);
        out.push_str(if hide { MASK } else { part });
        out.push_str(end);
    }
    out
}

/// One argument, as the page and the terminal show it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// JSON Pointer, in visible characters.
    pub(super) place: String,
    /// As JSON text, in visible characters.
    pub(super) value: String,
    /// Length of that value in bytes: of a string's own text, else of its JSON.
    pub(super) bytes: usize,
    /// What a glance may miss.
    pub(super) note: String,
    /// Money, its currency, or the target.
    pub(super) risky: bool,
}

/// Every argument, one leaf per field: the risky ones first, then by place.
pub(super) fn fields(arguments: &Value, risky: &[String], redacted: &[String]) -> Vec<Field> {
    let mut all = Vec::new();
    flatten(arguments, String::new(), &mut all);
    let mut all: Vec<Field> = all.into_iter().map(|(place, value)| field(&place, value, risky, redacted)).collect();
    all.sort_by(|a, b| (!a.risky, &a.place).cmp(&(!b.risky, &b.place)));
    all
}

fn flatten<'v>(value: &'v Value, at: String, out: &mut Vec<(String, &'v Value)>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (key, value) in members {
                flatten(value, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (i, value) in items.iter().enumerate() {
                flatten(value, format!("{at}/{i}"), out);
            }
        }
        leaf => out.push((at, leaf)),
    }
}

fn field(place: &str, value: &Value, risky: &[String], redacted: &[String]) -> Field {
    // As JSON, so that a backslash that was sent differs from an escape that is shown.
    let text = value.to_string();
    let hidden = visible(place) != place || visible(&text) != text || has_escapes(value);
    let foreign = place.chars().chain(text.chars()).filter(|c| !c.is_ascii()).count();
    let edge = |s: &str| s.trim() != s || s.contains("  ");
    let spaced = edge(place) || place.split('/').any(edge) || value.as_str().is_some_and(edge);
    let mut notes = Vec::new();
    if redacted.iter().any(|r| r == place) {
        notes.push("redacted".to_owned());
    }
    if hidden {
        notes.push("has hidden characters".to_owned());
    }
    if foreign > 0 {
        notes.push(format!("{foreign} characters outside ASCII"));
    }
    if spaced {
        notes.push("has white space at an edge, or several spaces in a row".to_owned());
    }
    Field {
        place: visible(place),
        value: visible(&text),
        bytes: value.as_str().map_or(text.len(), str::len),
        note: notes.join("; "),
        risky: risky.iter().any(|r| r == place),
    }
}

/// A string whose JSON text has escapes for characters that would not be seen.
fn has_escapes(value: &Value) -> bool {
    value.as_str().is_some_and(|s| visible(s) != s)
}

/// Bytes as text in which everything can be seen; a line break is shown, and breaks the line.
pub(super) fn visible_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for line in chunk.valid().split_inclusive('\n') {
            out.push_str(&visible(line));
            if line.ends_with('\n') {
                out.push('\n');
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_redacted_is_found_by_comparing() {
        let full = json!({"a": {"b": "s3cret/x", "c": 1}, "d": ["[redacted]", 7]});
        let shown = json!({"a": {"b": "[redacted]", "c": 1}, "d": ["[redacted]", 7]});
        let (mut places, mut values) = (Vec::new(), Vec::new());
        differing(&full, &shown, String::new(), &mut places, &mut values);
        assert_eq!((places, values.clone()), (vec!["/a/b".to_owned()], vec!["s3cret/x".to_owned()]));
        assert_eq!(masked("/v1/s3cret%2Fx/y?q=s3cret%2Fx&z=s3cret", &values), "/v1/[redacted]/y?q=[redacted]&z=s3cret");
    }

    #[test]
    fn fields_hide_nothing() {
        let arguments = json!({"amount ": 1, "amount": "1\u{202e}0", "deep": {"x": [], "y": "\\u{202e}"}, "z": "а"});
        let all = fields(&arguments, &["/amount".to_owned()], &[]);
        let shown: Vec<_> = all.iter().map(|f| (f.place.as_str(), f.value.as_str())).collect();
        let want =
            [("/amount", "\"1\\u{202e}0\""), ("/amount ", "1"), ("/deep/x", "[]"), ("/deep/y", "\"\\\\u{202e}\"")];
        assert_eq!(shown[..4], want);
        assert!(all[0].risky && all[0].note.contains("hidden"));
        assert!(all[1].note.contains("white space"));
        assert!(!all[3].note.contains("hidden"));
        assert!(all[4].note.contains("outside ASCII"));
        assert_eq!(visible_bytes(b"a\n\xff\x00b"), "a\\u{a}\n\\xff\\u{0}b");
    }
}
