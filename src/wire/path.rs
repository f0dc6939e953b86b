//! Targets in decode-once normal form (`security.md` 2.4): what does not have one is refused.

use percent_encoding::percent_decode_str;

/// Decodes the path of an origin-form target into segments.
///
/// # Errors
/// Why the path is ambiguous.
pub fn segments(path: &str) -> Result<Vec<String>, &'static str> {
    let rest = path.strip_prefix('/').ok_or("the target must be in origin form")?;
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    rest.split('/').map(segment).collect()
}

fn segment(raw: &str) -> Result<String, &'static str> {
    if raw.is_empty() {
        return Err("empty path segments (`//` or a slash at the end) are not accepted");
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,=:@%".contains(&b);
    if !raw.bytes().all(plain) {
        return Err("the path has characters that must be encoded, or `;` parameters");
    }
    let decoded = decode(raw)?;
    if decoded == "." || decoded == ".." {
        return Err("dot segments are not accepted");
    }
    if decoded.bytes().any(|b| matches!(b, b'/' | b'\\' | 0..=31 | 127)) {
        return Err("encoded slashes, backslashes and controls are not accepted");
    }
    if has_encoded_octet(&decoded) {
        return Err("double encoding is not accepted");
    }
    Ok(decoded)
}

fn decode(raw: &str) -> Result<String, &'static str> {
    let bytes = raw.as_bytes();
    let whole = |at: usize| bytes.get(at + 1..at + 3).is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit));
    let mut percents = bytes.iter().enumerate().filter(|(_, b)| **b == b'%');
    if !percents.all(|(at, _)| whole(at)) {
        return Err("a `%` without two hex digits");
    }
    percent_decode_str(raw).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| "the path is not UTF-8")
}

fn has_encoded_octet(decoded: &str) -> bool {
    decoded.as_bytes().windows(3).any(|w| matches!(w, [b'%', a, b] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()))
}

/// Decodes a query into pairs. `+` is a space, as forms and most readers have it.
///
/// # Errors
/// Why the query is ambiguous.
pub fn query(raw: Option<&str>) -> Result<Vec<(String, String)>, &'static str> {
    let Some(raw) = raw.filter(|q| !q.is_empty()) else { return Ok(Vec::new()) };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,=:@%/?[]".contains(&b);
    if !raw.bytes().all(plain) {
        return Err("the query has characters that must be encoded, or `;`");
    }
    let mut pairs: Vec<(String, String)> = Vec::new();
    for pair in raw.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(&name.replace('+', " "))?;
        let value = decode(&value.replace('+', " "))?;
        if name.is_empty() || name.chars().chain(value.chars()).any(char::is_control) {
            return Err("an empty name or a control character in the query");
        }
        if pairs.iter().any(|(n, _)| *n == name) {
            return Err("a query parameter stands twice");
        }
        pairs.push((name, value));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ambiguous_paths_are_refused() {
        for path in [
            "/safe/..%2fadmin",
            "/a/%2e%2e/admin",
            "//admin",
            "/admin;x",
            "/a/..;/admin",
            "/a%252e%252e/",
            "/admin%00.txt",
            "\\admin",
            "/a/../b",
            "/a/./b",
            "/a%5cb",
            "/a/",
            "/%zz",
            "/%f",
            "/a%ff",
            "admin",
            "/a%252fb",
            "/a%0ab",
        ] {
            assert!(segments(path).is_err(), "{path}");
        }
    }

    #[test]
    fn one_meaning_survives() {
        assert_eq!(segments("/%61dmin/a%20b").unwrap(), ["admin", "a b"]);
        assert_eq!(crate::call::encode_path(["admin", "a b", "c%"]), "/admin/a%20b/c%25");
        assert_eq!(query(Some("a=1&b=x%26y+z")).unwrap(), [("a".into(), "1".into()), ("b".into(), "x&y z".into())]);
    }

    #[test]
    fn a_name_twice_in_the_query_is_refused() {
        for q in ["id=1&id=2", "id=1;id=2", "%69d=1&id=2", "=1", "a=%0a"] {
            assert!(query(Some(q)).is_err(), "{q}");
        }
    }
}
