//! Percent-encoding of what goes out: everything but RFC 3986's unreserved characters.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

const OUT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// One path segment, query name or query value, encoded once.
#[must_use]
pub fn encode_part(text: &str) -> String {
    utf8_percent_encode(text, OUT).to_string()
}

/// A path of these decoded segments, each encoded once, with a slash before each.
#[must_use]
pub fn encode_path<'a>(segments: impl IntoIterator<Item = &'a str>) -> String {
    segments.into_iter().flat_map(|s| ["/".to_owned(), encode_part(s)]).collect()
}
