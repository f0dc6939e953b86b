//! One sentence about a call, from the operation's template and checked, redacted arguments. Never agent text.

use serde_json::Value;

use super::{Operation, money_text};

/// Fills the template: `{name}`, or `{amountMinor|money:currency}`. Without a template, names the operation.
#[must_use]
pub fn title(operation: &Operation, arguments: &Value) -> String {
    let Some(template) = &operation.title else { return operation.name.clone() };
    let mut out = String::new();
    let mut rest = template.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((field, tail)) = after.split_once('}') else {
            out.push('{');
            rest = after;
            break;
        };
        out.push_str(&filled(field, arguments));
        rest = tail;
    }
    out.push_str(rest);
    out
}

fn filled(field: &str, arguments: &Value) -> String {
    let (name, format) = field.split_once('|').unwrap_or((field, ""));
    let text = |name: &str| match arguments.get(name) {
        None => "(none)".to_owned(),
        Some(Value::String(s)) => visible(s),
        Some(other) => other.to_string(),
    };
    let amount = arguments.get(name).and_then(Value::as_i64);
    match (format.strip_prefix("money:"), amount) {
        (Some(currency), Some(minor)) => money_text(minor, &text(currency)),
        _ => text(name),
    }
}

/// Text with every character that hides, reorders or breaks lines as a visible escape.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

/// Controls, and what is invisible or changes the order of what stands around it (Unicode default-ignorable, bidi,
/// separators, private use, and spaces that are not U+0020).
#[must_use]
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(u32::from(c),
            0xAD | 0x34F | 0x61C | 0x115F..=0x1160 | 0x17B4..=0x17B5 | 0x180B..=0x180F | 0x200B..=0x200F
            | 0x2028..=0x202E | 0x2060..=0x206F | 0x2800 | 0x3164 | 0xE000..=0xF8FF | 0xFE00..=0xFE0F | 0xFEFF
            | 0xFFA0 | 0xFFF0..=0xFFFB | 0x1BCA0..=0x1BCA3 | 0x1D173..=0x1D17A | 0xE0000..=0xE0FFF
            | 0xF0000..=0x0010_FFFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_shown() {
        assert_eq!(visible("a\u{202e}b\u{200b}c\u{e0041}\n"), "a\\u{202e}b\\u{200b}c\\u{e0041}\\u{a}");
        assert_eq!(visible("Größe 12 €"), "Größe 12 €");
    }
}
