//! What a grant may be, and which arguments it lets pass. A grant is a reviewer's yes to calls like one that was
//! approved: every argument stays as it was there, but for those that the reviewer loosened.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Digest, GrantId};

/// No grant lives longer.
pub const TOP_GRANT: Duration = Duration::from_secs(30 * 86_400);

/// The widest grant that `@grant` lets a reviewer give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantCaps {
    /// How long it may live.
    pub max: Duration,
    /// How often it may be used.
    pub uses: Option<u32>,
    /// JSON Pointer to an integer argument, and what its values may add up to.
    pub sums: BTreeMap<String, i64>,
}

impl GrantCaps {
    /// What both allow.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.max = self.max.min(other.max);
        self.uses = self.uses.into_iter().chain(other.uses).min();
        for (path, most) in &other.sums {
            let own = self.sums.entry(path.clone()).or_insert(*most);
            *own = (*own).min(*most);
        }
        self
    }
}

/// How far an argument may differ from the one in the call that was approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loose {
    /// It may be anything, or missing.
    Any,
    /// It may be an integer from 0 to this.
    Max(i64),
}

/// Why a grant lets nothing pass any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GrantOver {
    /// Its time is over.
    Expired,
    /// It was used as often as it may be.
    UsedUp,
    /// What it adds up has reached its bound.
    SumReached,
    /// A person took it back.
    Revoked,
    /// The approval that it was given with is void: what was approved has moved.
    Voided,
    /// A call like those was rejected.
    Rejected,
    /// A call like those was taken back.
    Undone,
    /// A call like those was changed before people approved it.
    Edited,
    /// A call like those was judged bad after the fact.
    JudgedBad,
    /// Policy refused a call like those that nobody can release.
    NearMiss,
    /// The tool keeps failing.
    BreakerOpen,
    /// A policy that it leaned on changed.
    PolicyChanged,
    /// The argument schema changed.
    SchemaChanged,
    /// The tool, or its operation, is defined otherwise.
    ToolChanged,
}

impl GrantOver {
    /// The word that API, page and records use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::UsedUp => "used_up",
            Self::SumReached => "sum_reached",
            Self::Revoked => "revoked",
            Self::Voided => "voided",
            Self::Rejected => "rejected",
            Self::Undone => "undone",
            Self::Edited => "edited",
            Self::JudgedBad => "judged_bad",
            Self::NearMiss => "near_miss",
            Self::BreakerOpen => "breaker_open",
            Self::PolicyChanged => "policy_changed",
            Self::SchemaChanged => "schema_changed",
            Self::ToolChanged => "tool_changed",
        }
    }
}

/// What ruled when a grant was given; it ends when any of it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leans {
    /// The forbids that it lifts, by `@id`, with the digest of each one's text.
    pub forbids: BTreeMap<String, Digest>,
    /// The permits that let the call pass then, likewise.
    pub permits: BTreeMap<String, Digest>,
    /// Digest of the argument schema.
    pub schema: Digest,
    /// Digest of what the tool and its operation are.
    pub definition: Digest,
}

/// Takes the member that a JSON Pointer names out of an object; nothing for what is no member of an object.
pub fn take_out(arguments: &mut Value, path: &str) -> Option<Value> {
    let (parent, name) = path.rsplit_once('/')?;
    let name = name.replace("~1", "/").replace("~0", "~");
    arguments.pointer_mut(parent)?.as_object_mut()?.remove(&name)
}

/// Whether one of two pointers is, or is below, the other.
#[must_use]
pub fn overlap(a: &str, b: &str) -> bool {
    let below = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    below(a, b) || below(b, a)
}

/// Digest of all arguments but the loosened ones. The grant's id is in it, so that two grants do not tell by it that
/// something redacted is the same.
#[must_use]
pub fn rest_of(id: GrantId, arguments: &Value, loose: &BTreeMap<String, Loose>) -> Digest {
    let mut rest = arguments.clone();
    for path in loose.keys() {
        take_out(&mut rest, path);
    }
    Digest::of_json(&json!([id, rest]))
}

/// What one use takes of each sum; `None` when a bounded argument is missing, negative, no integer or too large.
#[must_use]
pub fn spent_on(arguments: &Value, loose: &BTreeMap<String, Loose>, sums: &BTreeMap<String, i64>) -> Option<Vec<i64>> {
    let number = |path: &str| arguments.pointer(path).and_then(Value::as_i64).filter(|n| *n >= 0);
    for (path, rule) in loose {
        if let Loose::Max(most) = rule
            && number(path).is_none_or(|n| n > *most)
        {
            return None;
        }
    }
    sums.keys().map(|path| number(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loose(all: &[(&str, Loose)]) -> BTreeMap<String, Loose> {
        all.iter().map(|(path, rule)| ((*path).to_owned(), *rule)).collect()
    }

    #[test]
    fn every_argument_is_pinned_unless_it_is_loosened() {
        let id = GrantId::from_bits(7);
        let asked = json!({"order": "o_1", "amount": 90, "who": {"id": "c_1", "name": "Ann"}, "tags": ["a"]});
        let rules = loose(&[("/amount", Loose::Max(100)), ("/who/name", Loose::Any)]);
        let same = |other: &Value| rest_of(id, other, &rules) == rest_of(id, &asked, &rules);
        assert!(same(&json!({"order": "o_1", "amount": 5, "who": {"id": "c_1", "name": "Bob"}, "tags": ["a"]})));
        assert!(same(&json!({"order": "o_1", "amount": 5, "who": {"id": "c_1"}, "tags": ["a"]})));
        for other in [
            json!({"order": "o_2", "amount": 5, "who": {"id": "c_1"}, "tags": ["a"]}),
            json!({"order": "o_1", "amount": 5, "who": {"id": "c_2"}, "tags": ["a"]}),
            json!({"order": "o_1", "amount": 5, "who": {"id": "c_1"}, "tags": ["a", "b"]}),
            json!({"order": "o_1", "amount": 5, "who": {"id": "c_1"}}),
            json!({"order": "o_1", "amount": 5, "who": {"id": "c_1"}, "tags": ["a"], "more": null}),
        ] {
            assert!(!same(&other), "{other}");
        }
        assert_ne!(rest_of(GrantId::from_bits(8), &asked, &rules), rest_of(id, &asked, &rules));
    }

    #[test]
    fn bounded_arguments_are_integers_from_zero_on() {
        let rules = loose(&[("/amount", Loose::Max(100))]);
        let sums = BTreeMap::from([("/amount".to_owned(), 500)]);
        let spent = |value: Value| spent_on(&json!({"amount": value}), &rules, &sums);
        assert_eq!((spent(json!(100)), spent(json!(0))), (Some(vec![100]), Some(vec![0])));
        for wrong in [json!(101), json!(-1), json!(1.5), json!("5"), json!(null), json!([5])] {
            assert_eq!(spent(wrong.clone()), None, "{wrong}");
        }
        assert_eq!(spent_on(&json!({}), &rules, &sums), None);
    }

    #[test]
    fn caps_are_what_all_allow() {
        let caps = |max, uses, sums: &[(&str, i64)]| GrantCaps {
            max: Duration::from_secs(max),
            uses,
            sums: sums.iter().map(|(path, most)| ((*path).to_owned(), *most)).collect(),
        };
        let both = caps(60, Some(9), &[("/a", 5)]).and(&caps(90, Some(4), &[("/a", 7), ("/b", 1)]));
        assert_eq!(both, caps(60, Some(4), &[("/a", 5), ("/b", 1)]));
        assert_eq!(caps(60, None, &[]).and(&caps(50, Some(4), &[])), caps(50, Some(4), &[]));
    }

    #[test]
    fn pointers_overlap_by_whole_names() {
        assert!(overlap("/a", "/a") && overlap("/a/b", "/a") && overlap("/a", "/a/b"));
        assert!(!overlap("/a", "/ab") && !overlap("/a/b", "/a/c"));
    }
}
