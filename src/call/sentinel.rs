//! Values of `Mcp-Name` and `Mcp-Param-*`: plain text, or `=?base64?…?=` (MCP 2026-07-28, SEP-2243).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The JSON-RPC code of a header that disagrees with the body.
pub const HEADER_MISMATCH: i32 = -32020;

/// `=?base64?…?=`, or the plain text.
#[must_use]
pub fn decoded(text: &str) -> Option<String> {
    let Some(inner) = text.strip_prefix("=?base64?").and_then(|t| t.strip_suffix("?=")) else {
        return Some(text.to_owned());
    };
    String::from_utf8(STANDARD.decode(inner).ok()?).ok()
}

/// As it may stand in a header: plain where every reader reads it alike, else in base64.
#[must_use]
pub fn encoded(text: &str) -> String {
    let visible = text.bytes().all(|b| (0x20..=0x7e).contains(&b));
    let trimmed = text.trim() == text && !text.is_empty();
    if visible && trimmed && !text.starts_with("=?base64?") {
        return text.to_owned();
    }
    format!("=?base64?{}?=", STANDARD.encode(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_header_can_carry_is_encoded() {
        for text in ["pay", "a b", "ä", " a", "a\n", "", "=?base64?eA==?="] {
            assert_eq!(decoded(&encoded(text)).unwrap(), text);
            assert!(encoded(text).bytes().all(|b| (0x20..=0x7e).contains(&b)));
        }
        assert_eq!(encoded("pay"), "pay");
    }
}
