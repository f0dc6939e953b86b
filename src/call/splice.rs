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

    /// Puts an item at the front of `array`, which must be the text of a JSON array borrowed from `whole`.
    pub fn insert_item(&mut self, whole: &str, array: &str, item: &str) {
        let (Some(at), Some(inside)) = (range(whole, array), array.strip_prefix('[')) else { return };
        let comma = if inside.trim_start().starts_with(']') { "" } else { "," };
        self.0.push((at.start + 1..at.start + 1, format!("{item}{comma}")));
    }

    /// Takes out the member whose value is `value`, with its name and its comma.
    pub fn remove_member(&mut self, whole: &str, value: &str) {
        let Some(at) = range(whole, value) else { return };
        let (Some(before), Some(after)) = (whole.get(..at.start), whole.get(at.end..)) else { return };
        let Some(name) = before.trim_end().strip_suffix(':').map(str::trim_end).and_then(|b| b.strip_suffix('"'))
        else {
            return;
        };
        // A quote that is escaped stands in the name; the one before the name is not.
        let quotes = name.char_indices().rev().filter(|(_, c)| *c == '"');
        let escaped =
            |i: usize| name.get(..i).is_some_and(|n| n.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1);
        let Some(start) = quotes.map(|(i, _)| i).find(|i| !escaped(*i)) else { return };
        let front = whole.get(..start).unwrap_or_default().trim_end();
        let tail = after.len() - after.trim_start().len();
        let (from, to) = match (after.trim_start().starts_with(','), front.ends_with(',')) {
            (true, _) => (start, at.end + tail + 1),
            (false, true) => (front.len() - 1, at.end),
            (false, false) => (start, at.end),
        };
        self.0.push((from..to, String::new()));
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
    fn a_member_goes_with_its_comma() {
        for (text, left) in [
            (r#"{"a":1,"b":2}"#, r#"{"b":2}"#),
            (r#"{ "b":2 , "a" : 1 }"#, r#"{ "b":2  }"#),
            (r#"{"a":1, "z":0,"b":2}"#, r#"{ "z":0,"b":2}"#),
        ] {
            let two: Two<'_> = serde_json::from_str(text).unwrap();
            let mut edits = Edits::default();
            edits.remove_member(text, two.a.get());
            assert_eq!(edits.apply(text).unwrap(), left);
        }
        let text = r#"{"b\"":3,"\u0061":{"a\"b":[1]}}"#;
        let mut edits = Edits::default();
        edits.remove_member(text, text.get(18..30).unwrap());
        let left = edits.apply(text).unwrap();
        assert_eq!(left, r#"{"b\"":3}"#);
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
