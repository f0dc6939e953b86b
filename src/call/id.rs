//! Identifiers: UUIDv7 in Crockford base 32 behind a prefix that names the kind.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const LENGTH: usize = 26;

fn encode(value: u128, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    for i in (0..LENGTH).rev() {
        let digit = usize::try_from((value >> (5 * i)) & 31).unwrap_or(0);
        let symbol = ALPHABET.get(digit).copied().unwrap_or(b'0');
        fmt::Write::write_char(out, char::from(symbol))?;
    }
    Ok(())
}

fn decode(text: &str) -> Option<u128> {
    if text.len() != LENGTH {
        return None;
    }
    text.bytes().try_fold(0u128, |value, byte| {
        let digit = ALPHABET.iter().position(|s| *s == byte)?;
        let high = value.checked_mul(32)?;
        high.checked_add(u128::try_from(digit).ok()?)
    })
}

/// The text is not an identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id that begins with `{prefix}_`")]
pub struct IdError {
    text: String,
    prefix: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id whose order is its time of making.
            #[must_use]
            #[expect(clippy::new_without_default, reason = "an id is never a default")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// From the 128 bits that identify it.
            #[must_use]
            pub const fn from_bits(bits: u128) -> Self {
                Self(Uuid::from_u128(bits))
            }

            /// The 128 bits; big-endian order is time order.
            #[must_use]
            pub const fn bits(self) -> u128 {
                self.0.as_u128()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!($prefix, "_"))?;
                encode(self.bits(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix(concat!($prefix, "_"))
                    .and_then(decode)
                    .map(Self::from_bits)
                    .ok_or_else(|| IdError { text: text.to_owned(), prefix: $prefix })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'_, str>::deserialize(d)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

id!(
    /// One call, from its arrival on.
    CallId,
    "call"
);
id!(
    /// One held call: the same 128 bits as its [`CallId`], since a hold is a view of the call's record.
    HoldId,
    "hold"
);
id!(
    /// A stored artifact, such as a piece of evidence.
    ArtifactId,
    "art"
);
id!(
    /// A leave that a reviewer gave for calls like one that was approved.
    GrantId,
    "grant"
);
id!(
    /// The receipt of a call that was concluded: the same bits as its [`CallId`].
    ReceiptId,
    "rcpt"
);

impl CallId {
    /// The hold that this call would have, if it is held.
    #[must_use]
    pub const fn hold(self) -> HoldId {
        HoldId::from_bits(self.bits())
    }

    /// The receipt of this call.
    #[must_use]
    pub const fn receipt(self) -> ReceiptId {
        ReceiptId::from_bits(self.bits())
    }
}

impl HoldId {
    /// The call that is held.
    #[must_use]
    pub const fn call(self) -> CallId {
        CallId::from_bits(self.bits())
    }
}

/// The short code of a digest: its first 40 bits as `7F3A-91C2-0B`, for comparing two channels by eye.
#[must_use]
pub fn short_code(digest: &super::Digest) -> String {
    let mut code = String::with_capacity(12);
    for (i, byte) in digest.as_bytes().iter().take(5).enumerate() {
        if i == 2 || i == 4 {
            code.push('-');
        }
        code.push_str(&format!("{byte:02X}"));
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_itself_and_sorts_by_time() {
        let (a, b) = (CallId::new(), CallId::new());
        assert_eq!(a.to_string().parse::<CallId>().unwrap(), a);
        assert_eq!(a.to_string() < b.to_string(), a < b);
        assert_eq!(a.hold().call(), a);
    }

    #[test]
    fn another_prefix_is_another_kind() {
        let hold = CallId::new().hold().to_string();
        assert!(hold.parse::<CallId>().is_err());
        assert!("call_1".parse::<CallId>().is_err());
    }
}
