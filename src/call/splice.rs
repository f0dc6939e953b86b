//! Changes a few places of a JSON text and leaves every other byte as it came.

use std::ops::Range;

/// Replacements, each of a range of the text.
#[derive(Debug, Default)]
pub struct Edits(Vec<(Range<usize>, String)>);

impl Edits {
    /// Replaces `part`, which must be borrowed from `whole`; what is not from there is left alone.
    pub fn replace(&mut self, whole: &str, part: &str, by: impl Into<String>) {
        if let Some(at) = range(whole, part) {
            self.0.push((at, by.into()));
        }
    }

    /// Replaces everything from the beginning of `first` to the end of `last`.
    pub fn replace_span(&mut self, whole: &str, first: &str, last: &str, by: impl Into<String>) {
        if let (Some(from), Some(to)) = (range(whole, first), range(whole, last)) {
            self.0.push((from.start..to.end, by.into()));
        }
    }

    /// Puts a member into `object`, which must be the text of a JSON object borrowed from `whole`.
    pub fn insert_member(&mut self, whole: &str, object: &str, member: &str) {
        let (Some(at), Some(inside)) = (range(whole, object), object.strip_prefix('{')) else { return };
        let comma = if inside.trim_start().starts_with('}') { "" } else { "," };
        self.0.push((at.start + 1..at.start + 1, format!("{member}{comma}")));
    }

    /// The text with all replacements made; none when there are none.
    #[must_use]
    pub fn apply(mut self, whole: &str) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        self.0.sort_by_key(|(at, _)| at.start);
        let mut out = String::with_capacity(whole.len());
        let mut done = 0;
        for (at, by) in self.0 {
            out.push_str(whole.get(done..at.start)?);
            out.push_str(&by);
            done = at.end;
        }
        out.push_str(whole.get(done..)?);
        Some(out)
    }
}

/// Where a borrowed part stands in its whole.
fn range(whole: &str, part: &str) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    (start + part.len() <= whole.len()).then(|| start..start + part.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    #[derive(serde::Deserialize)]
    struct Two<'a> {
        #[serde(borrow)]
        a: &'a RawValue,
        #[serde(borrow)]
        b: &'a RawValue,
    }

    #[test]
    fn every_other_byte_stays() {
        let text = r#"{ "b" : {"x":1 },  "a":{ } , "z":1e2}"#;
        let two: Two<'_> = serde_json::from_str(text).unwrap();
        let mut edits = Edits::default();
        edits.insert_member(text, two.a.get(), "\"n\":1");
        edits.insert_member(text, two.b.get(), "\"n\":2");
        assert_eq!(edits.apply(text).unwrap(), r#"{ "b" : {"n":2,"x":1 },  "a":{"n":1 } , "z":1e2}"#);
        let mut edits = Edits::default();
        edits.replace(text, two.a.get(), "7");
        edits.replace(text, "elsewhere", "8");
        assert_eq!(edits.apply(text).unwrap(), r#"{ "b" : {"x":1 },  "a":7 , "z":1e2}"#);
        assert!(Edits::default().apply(text).is_none());
    }
}
