//! Requests that find something out about one call: their grammar, and what their placeholders may stand for.

use serde_json::Value;

use crate::call::{Part, ReadRule, is_redacted};

use super::file;

/// Whether `:name` stands for one argument that may be seen in a URL.
pub(super) fn argument(name: &str, o: &file::Operation, schema: Option<&Value>) -> Result<(), String> {
    if is_redacted(&format!("/{name}"), &o.redact) {
        return Err(format!("`:{name}` is redacted and must not stand in a URL"));
    }
    let property = schema.and_then(|s| s.get("properties")).and_then(|p| p.get(name));
    let property = property.ok_or_else(|| format!("`:{name}` is no argument of this operation"))?;
    let kind = property.get("type").and_then(Value::as_str).unwrap_or_default();
    if matches!(kind, "object" | "array") { Err(format!("`:{name}` is no single value")) } else { Ok(()) }
}

/// `GET /refunds/:orderId?key=:key`, with one of these methods.
pub(super) fn parsed(text: &str, methods: &[&str]) -> Result<ReadRule, String> {
    let split = text.split_once(' ').filter(|(method, target)| methods.contains(method) && target.starts_with('/'));
    let (method, target) = split.ok_or_else(|| format!("`{text}` is not `{}` and a path", methods.join("` or `")))?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = path.strip_prefix('/').unwrap_or(path).split('/').map(part).collect::<Result<_, _>>()?;
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').ok_or_else(|| format!("`{pair}` is not `name=value`"))?;
        match part(name)? {
            Part::Text(name) => Ok((name, part(value)?)),
            _ => Err(format!("`{name}`: the name of a parameter stands as it is")),
        }
    };
    let query = query.split('&').filter(|p| !p.is_empty()).map(pair).collect::<Result<_, String>>()?;
    Ok(ReadRule { text: text.to_owned(), method: method.to_owned(), path, query })
}

/// A whole segment or value: as it stands, or a placeholder.
fn part(text: &str) -> Result<Part, String> {
    let braced = text.strip_prefix('{').and_then(|s| s.strip_suffix('}'));
    match text.strip_prefix(':').or(braced) {
        Some("") => Err(format!("`{text}` names nothing")),
        Some("key") => Ok(Part::Key),
        Some("call") => Ok(Part::Call),
        Some(name) => Ok(Part::Argument(name.to_owned())),
        None if text.is_empty() || matches!(text, "." | "..") => Err("an empty or dot part of the path".into()),
        None if text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~[]$,@".contains(&b)) => {
            Ok(Part::Text(text.to_owned()))
        }
        None => Err(format!("`{text}` has characters that would need encoding")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_taken_apart() {
        let rule = parsed("GET /orders/:orderId/refunds?key={key}&page[size]=1", &["GET"]).unwrap();
        let text = |t: &str| Part::Text(t.into());
        assert_eq!(rule.path, [text("orders"), Part::Argument("orderId".into()), text("refunds")]);
        assert_eq!(rule.query, [("key".into(), Part::Key), ("page[size]".into(), text("1"))]);
        assert_eq!(parsed("POST /x", &["GET", "POST"]).unwrap().method, "POST");
    }

    #[test]
    fn what_is_no_read_is_refused() {
        for text in
            ["POST /x?key=:key", "GET x", "GET //x", "GET /x?key", "GET /x?:key=1", "GET /a b", "GET /x/..", "GET /:"]
        {
            assert!(parsed(text, &["GET"]).is_err(), "{text}");
        }
    }
}
