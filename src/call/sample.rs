//! Which calls are looked at after the fact: picked by their ids, which the proxy makes, so that no agent can steer it and
//! anybody can work it out again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CallId, Digest};

/// How many calls of a million are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct SampleRate(u32);

const MILLION: u32 = 1_000_000;

impl SampleRate {
    /// None.
    pub const NONE: Self = Self(0);
    /// A fifth: what passes by a grant.
    pub const GRANTS: Self = Self(MILLION / 5);

    /// `2%`, `0.5%` or `1/50`; more than none, at most all.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(n) = text.strip_prefix("1/") {
            let n = n.parse::<u32>().ok().filter(|n| (1..=MILLION).contains(n))?;
            return Some(Self(MILLION / n));
        }
        let (whole, part) = text.strip_suffix('%').map(|n| n.split_once('.').unwrap_or((n, "0")))?;
        let digits = |t: &str| !t.is_empty() && t.len() <= 4 && t.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) {
            return None;
        }
        let ppm = whole.parse::<u32>().ok()? * 10_000 + format!("{part:0<4}").parse::<u32>().ok()?;
        (1..=MILLION).contains(&ppm).then_some(Self(ppm))
    }

    /// Whether this call is one of them: the first 64 bits of the SHA-256 of its id, modulo a million, are below the rate.
    #[must_use]
    pub fn picks(self, call: CallId) -> bool {
        let digest = Digest::of(format!("sample:{call}").as_bytes());
        let first = digest.as_bytes().iter().take(8).fold(0u64, |n, byte| (n << 8) | u64::from(*byte));
        first % u64::from(MILLION) < u64::from(self.0)
    }
}

/// What a person says of a call that has run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It should not have run.
    Bad,
    /// Somebody else must look.
    Unsure,
}

impl Verdict {
    /// The word that API, page and metrics use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Unsure => "unsure",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_exactly() {
        let rate = |text| SampleRate::parse(text).map(|r| r.0);
        assert_eq!([rate("2%"), rate("1/50"), rate("0.5%")], [Some(20_000), Some(20_000), Some(5_000)]);
        assert_eq!([rate("100%"), rate("1/1"), rate("0.0001%")], [Some(MILLION), Some(MILLION), Some(1)]);
        for wrong in ["0%", "200%", "100.1%", "2", "1/0", "2/50", "-1%", "%", ".5%", "1/", "1e1%", "0.00001%"] {
            assert_eq!(rate(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn as_many_are_picked_as_the_rate_says_and_the_same_ones_each_time() {
        let picked = |text: &str| {
            let rate = SampleRate::parse(text).unwrap();
            (0..20_000u128).filter(|n| rate.picks(CallId::from_bits(*n))).collect::<Vec<_>>()
        };
        assert_eq!((picked("100%").len(), picked("20%"), ()), (20_000, picked("1/5"), ()));
        let few = picked("2%");
        assert!((330..470).contains(&few.len()), "{}", few.len());
        let more = picked("20%");
        assert!(few.iter().all(|n| more.contains(n)), "a higher rate picks what a lower one does");
        assert!((0..99).all(|n| !SampleRate::NONE.picks(CallId::from_bits(n))));
    }
}
