//! SHA-256 digests and the canonical JSON they are taken over (RFC 8785).

use std::fmt;

use aws_lc_rs::digest as sha;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A SHA-256 digest; `sha256:<hex>` in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of these exact bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(sha::digest(&sha::SHA256, bytes).as_ref());
        Self(out)
    }

    /// Of the RFC 8785 form of `value`.
    #[must_use]
    pub fn of_json(value: &serde_json::Value) -> Self {
        Self::of(&canonical(value))
    }

    /// From 32 bytes that are a digest already.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The RFC 8785 form of `value`. Total: every number that serde_json holds can be written.
#[must_use]
pub fn canonical(value: &serde_json::Value) -> Vec<u8> {
    serde_json_canonicalizer::to_vec(value).unwrap_or_else(|_| value.to_string().into_bytes())
}

const PREFIX: &[u8; 7] = b"sha256:";
const HEX: &[u8; 16] = b"0123456789abcdef";

impl Digest {
    /// Calls `show` with its text. Records are full of digests: no formatter, no allocation.
    fn with_text<T>(&self, show: impl FnOnce(&str) -> T) -> T {
        let mut text = [0; PREFIX.len() + 64];
        let (prefix, digits) = text.split_at_mut(PREFIX.len());
        prefix.copy_from_slice(PREFIX);
        let digit = |n: u8| HEX.get(usize::from(n & 15)).copied().unwrap_or(b'?');
        for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
            *pair = [digit(byte >> 4), digit(byte)];
        }
        show(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.write_str(text))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Digest {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not `sha256:` and 64 hex digits");
        let hex = text.strip_prefix("sha256:").filter(|h| h.len() == 64 && h.is_ascii()).ok_or_else(wrong)?;
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(out))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.with_text(|text| s.serialize_str(text))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(d)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn member_order_does_not_change_a_digest() {
        let a: serde_json::Value = serde_json::from_str(r#"{"b":1,"a":[1.0,"x"]}"#).unwrap();
        assert_eq!(Digest::of_json(&a), Digest::of_json(&json!({"a": [1, "x"], "b": 1})));
    }

    #[test]
    fn text_and_back() {
        let d = Digest::of(b"abc");
        assert_eq!(d.to_string().parse::<Digest>().unwrap(), d);
        assert!(d.to_string().starts_with("sha256:ba7816bf"));
    }
}
