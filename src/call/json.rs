//! The one strict JSON reader: what it accepts, every reader reads alike.
//!
//! Refused beyond RFC 8259: repeated keys (after unescaping), depth over 64, more than 10,000 nodes, a byte order
//! mark, and numbers that i64, f64 and decimal readers would read differently.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

const DEPTH: u32 = 64;
const NODES: u32 = 10_000;
const MAX_SAFE: u64 = (1 << 53) - 1;

/// Why a text is not JSON as we accept it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotStrict(String);

/// Reads a whole text.
///
/// # Errors
/// [`NotStrict`] with what is wrong, and where.
pub fn read(bytes: &[u8]) -> Result<Value, NotStrict> {
    let value = read_any_number(bytes)?;
    numbers(std::str::from_utf8(bytes).map_err(|_| NotStrict("the body is not UTF-8".into()))?)?;
    Ok(value)
}

/// Reads a whole text in which numbers decide nothing, such as the bounds in a tool's schema.
///
/// # Errors
/// [`NotStrict`] with what is wrong, and where.
pub fn read_any_number(bytes: &[u8]) -> Result<Value, NotStrict> {
    let text = std::str::from_utf8(bytes).map_err(|_| NotStrict("the body is not UTF-8".into()))?;
    if text.starts_with('\u{feff}') {
        return Err(NotStrict("the body begins with a byte order mark".into()));
    }
    let mut nodes = NODES;
    let mut de = serde_json::Deserializer::from_str(text);
    let seed = Strict { depth: DEPTH, nodes: &mut nodes };
    let value = seed.deserialize(&mut de).map_err(|e| NotStrict(format!("not JSON as accepted here: {e}")))?;
    de.end().map_err(|e| NotStrict(format!("not JSON as accepted here: {e}")))?;
    Ok(value)
}

struct Strict<'a> {
    depth: u32,
    nodes: &'a mut u32,
}

impl Strict<'_> {
    fn inner<E: de::Error>(&mut self) -> Result<Strict<'_>, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("nested deeper than 64"))?;
        Ok(Strict { depth, nodes: self.nodes })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        *self.nodes = self.nodes.checked_sub(1).ok_or_else(|| de::Error::custom("more than 10000 values"))?;
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self.inner()?)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(self.inner()?)?;
            if members.insert(key.clone(), value).is_some() {
                return Err(de::Error::custom(format!("the key `{}` stands twice", key.escape_debug())));
            }
        }
        Ok(Value::Object(members))
    }
}

/// Checks every number token of a text that is valid JSON.
fn numbers(text: &str) -> Result<(), NotStrict> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at + 1),
            b'-' | b'0'..=b'9' => {
                let len = bytes.iter().skip(at).take_while(|b| b"+-.eE0123456789".contains(b)).count();
                number(text.get(at..at + len).unwrap_or_default())?;
                at += len;
            }
            _ => at += 1,
        }
    }
    Ok(())
}

fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

fn number(token: &str) -> Result<(), NotStrict> {
    let wrong = |why: &str| Err(NotStrict(format!("the number `{token}` {why}")));
    if !token.contains(['.', 'e', 'E']) {
        let digits = token.strip_prefix('-').unwrap_or(token);
        return match digits.parse::<u64>() {
            Ok(0) if token.starts_with('-') => wrong("is a negative zero"),
            Ok(n) if n <= MAX_SAFE => Ok(()),
            _ => wrong("is beyond ±(2^53−1), where readers differ; send it as a string"),
        };
    }
    let Ok(value) = token.parse::<f64>() else { return wrong("cannot be read") };
    if !value.is_finite() {
        return wrong("is too large");
    }
    if decimal(token) != decimal(&format!("{value:e}")) || (value == 0.0 && token.starts_with('-')) {
        return wrong("has more digits than every reader keeps; send it as a string");
    }
    Ok(())
}

/// Sign, significant digits and exponent of a decimal text, so that equal values compare equal.
fn decimal(token: &str) -> Option<(bool, String, i64)> {
    let (mantissa, exponent) = token.split_once(['e', 'E']).unwrap_or((token, "0"));
    let exponent: i64 = exponent.parse().ok()?;
    let negative = mantissa.starts_with('-');
    let (whole, part) =
        mantissa.trim_start_matches('-').split_once('.').unwrap_or((mantissa.trim_start_matches('-'), ""));
    let digits = format!("{whole}{part}");
    let trimmed = digits.trim_start_matches('0');
    let significant = trimmed.trim_end_matches('0');
    if significant.is_empty() {
        return Some((negative, String::new(), 0));
    }
    let dropped = i64::try_from(trimmed.len() - significant.len()).ok()?;
    let exponent = exponent.checked_sub(i64::try_from(part.len()).ok()?)?.checked_add(dropped)?;
    Some((negative, significant.to_owned(), exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_readers_read_differently_is_refused() {
        let deep = format!("{}1{}", "[".repeat(65), "]".repeat(65));
        let wide = format!("[{}1]", "1,".repeat(10_001));
        let cases = [
            r#"{"to":"a","to":"b"}"#,
            r#"{"to":"a","\u0074o":"b"}"#,
            r#"{"x":[{"a":1,"a":2}]}"#,
            "9007199254740993",
            "1e309",
            "12345678901234567890123",
            "-0",
            "-0.0",
            "0.1000000000000000055511151231257827",
            r#""\ud800""#,
            "\u{feff}{}",
            "{} {}",
            "NaN",
            deep.as_str(),
            wide.as_str(),
        ];
        for case in cases {
            assert!(read(case.as_bytes()).is_err(), "{case}");
        }
        assert!(read(b"\"\xff\"").is_err());
    }

    #[test]
    fn plain_json_is_read() {
        for case in
            ["1", "-1", "1.5", "1e2", "0.1", "100.00", "9007199254740991", r#"{"a":{"b":[1,"-0 1e999",null]}}"#, "0.0"]
        {
            assert!(read(case.as_bytes()).is_ok(), "{case}");
        }
    }
}
