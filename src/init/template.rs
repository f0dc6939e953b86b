//! Path templates of OpenAPI, as the router has them.

/// A segment of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// As it stands.
    Text(String),
    /// A parameter that fills the whole segment, by its name in the document.
    Parameter(String),
}

/// The segments of a path.
///
/// # Errors
/// Why the router cannot express it.
pub(super) fn segments(path: &str) -> Result<Vec<Segment>, &'static str> {
    let rest = path.strip_prefix('/').ok_or("the path does not begin with a slash")?;
    if rest.is_empty() {
        return Err("the root of a tool cannot be reached through a mount");
    }
    rest.split('/').map(segment).collect()
}

fn segment(text: &str) -> Result<Segment, &'static str> {
    if let Some(name) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
        let whole = !name.is_empty() && !name.contains(['{', '}']);
        return if whole { Ok(Segment::Parameter(name.to_owned())) } else { Err(MIXED) };
    }
    if text.contains(['{', '}']) {
        return Err(MIXED);
    }
    match text {
        "" => Err("the path has an empty segment or ends in a slash"),
        "." | ".." => Err("the path has dot segments"),
        _ if text.contains(['?', '#']) => Err("the path holds a query or a fragment"),
        _ if text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b)) => {
            Ok(Segment::Text(text.to_owned()))
        }
        _ => Err("the path has characters that would need encoding"),
    }
}

const MIXED: &str = "a segment of the path is a parameter only in part";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_router_cannot_express_is_named() {
        let text = |t: &str| Segment::Text(t.into());
        assert_eq!(segments("/a/{b}").unwrap(), [text("a"), Segment::Parameter("b".into())]);
        for path in ["/", "/a/", "/a/{b}.json", "/{a}{b}", "/v1/x:cancel", "/a?b=c", "/a#b", "/{}", "a", "/a/../b"] {
            assert!(segments(path).is_err(), "{path}");
        }
    }
}
