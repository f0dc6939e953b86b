//! What no record, log or page may show.

use serde_json::Value;

/// Stands where a redacted member stood.
pub const REDACTED: &str = "[redacted]";

/// The value with everything at these JSON Pointers replaced by [`REDACTED`].
#[must_use]
pub fn redacted(value: &Value, pointers: &[String]) -> Value {
    let mut out = value.clone();
    for pointer in pointers {
        if let Some(member) = out.pointer_mut(pointer) {
            *member = Value::from(REDACTED);
        }
    }
    out
}

/// Words without the values that stand at these JSON Pointers: people and agents repeat them.
#[must_use]
pub fn scrubbed(words: String, arguments: &Value, pointers: &[String]) -> String {
    let values = pointers
        .iter()
        .filter_map(|p| arguments.pointer(p))
        .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
    values.filter(|v| v.len() >= 4).fold(words, |words, value| words.replace(&value, REDACTED))
}

/// Whether this place is at, below or above a redacted one: its value must not be shown.
#[must_use]
pub fn is_redacted(place: &str, pointers: &[String]) -> bool {
    let under = |a: &str, b: &str| a == b || a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
    pointers.iter().any(|p| under(place, p) || under(p, place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_are_replaced_and_their_neighbours_stay() {
        let v = json!({"a": {"b": "secret", "c": 1}, "d": [1]});
        let out = redacted(&v, &["/a/b".into(), "/none".into()]);
        assert_eq!(out, json!({"a": {"b": REDACTED, "c": 1}, "d": [1]}));
        assert!(is_redacted("/a/b/x", &["/a/b".into()]));
        assert!(is_redacted("/a", &["/a/b".into()]));
        assert!(!is_redacted("/a/bc", &["/a/b".into()]));
    }
}
