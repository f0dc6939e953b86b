//! What a call will make of its target: the state before, the state after, and what tells that it has moved since.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Digest, OwnRead, REDACTED, ReadRule, is_redacted};

/// How the effect of an operation is foreseen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviewRule {
    /// Reads the target.
    pub read: PreviewRead,
    /// Makes the state after of the state before; without it, what comes after is not known.
    pub diff: Option<DiffRule>,
    /// Tells whether the target has moved.
    pub fence: FenceRule,
}

/// How a target is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PreviewRead {
    /// By a request of its own (REST).
    Request(ReadRule),
    /// By a read operation of the same tool.
    Call(OwnRead),
}

/// What the request does to the state before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiffRule {
    /// Its body is a merge patch (RFC 7396).
    MergePatch,
    /// Its body is a JSON Patch (RFC 6902).
    JsonPatch,
    /// Its body takes the place of what was there.
    Replace,
    /// The tool answers this request, which has no effect, with the state after.
    DryRun(ReadRule),
}

/// What tells that a target has moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FenceRule {
    /// The `ETag` of the read; its bytes where there is none.
    Etag,
    /// The value at this JSON Pointer; the bytes where there is none.
    Version(String),
    /// The bytes of the read.
    Hash,
}

/// How much is known of what a call will change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// The tool says so, or the request replaces or patches the very thing that was read.
    Exact,
    /// It is worked out from another thing than the request goes to.
    Predicted,
    /// Nobody can say.
    Unknown,
}

impl Certainty {
    /// `exact`, `predicted` or `unknown`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Predicted => "predicted",
            Self::Unknown => "unknown",
        }
    }
}

/// The states that a preview is made of, as they are sealed beside a record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct States {
    /// As it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// As it will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
    /// As approvers saw it before it moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<Value>,
}

impl DiffRule {
    /// The state after, where the request's body says it.
    ///
    /// # Errors
    /// In words, when the body does not fit the state before.
    pub fn apply(&self, before: &Value, body: &[u8]) -> Result<Value, String> {
        let given = |_| "the body is no JSON".to_owned();
        let mut after = before.clone();
        match self {
            Self::DryRun(_) => return Err("only the tool can say".into()),
            Self::Replace => after = serde_json::from_slice(body).map_err(given)?,
            Self::MergePatch => json_patch::merge(&mut after, &serde_json::from_slice(body).map_err(given)?),
            Self::JsonPatch => {
                let patch: json_patch::Patch =
                    serde_json::from_slice(body).map_err(|_| "the body is no JSON Patch".to_owned())?;
                json_patch::patch(&mut after, &patch).map_err(|e| format!("the patch does not apply: {e}"))?;
            }
        }
        Ok(after)
    }
}

impl FenceRule {
    /// What stands for the state that was read: `etag:"9"`, `version:7` or `sha256:…`.
    #[must_use]
    pub fn of(&self, etag: Option<&str>, state: &Value, bytes: &[u8]) -> String {
        let found = match self {
            Self::Etag => etag.map(|tag| format!("{ETAG}{tag}")),
            Self::Version(pointer) => state.pointer(pointer).filter(|v| !v.is_null()).map(|v| format!("version:{v}")),
            Self::Hash => None,
        };
        found.unwrap_or_else(|| Digest::of(bytes).to_string())
    }
}

const ETAG: &str = "etag:";

/// The entity tag of a fence that may stand in `If-Match`: a strong one (RFC 9110, 13.1.1).
#[must_use]
pub fn strong_etag(fence: &str) -> Option<&str> {
    fence.strip_prefix(ETAG).filter(|tag| tag.starts_with('"'))
}

/// What approvers vote on: the call, and the state of its target where they were shown one.
#[must_use]
pub fn seen_digest(call: Digest, fence: Option<&str>) -> Digest {
    fence.map_or(call, |fence| Digest::of_json(&serde_json::json!({"call": call, "target": fence})))
}

/// One place that two states differ in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// What happens there.
    pub op: ChangeOp,
    /// JSON Pointer.
    pub path: String,
    /// What was there.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub from: Option<Value>,
    /// What will be.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub value: Option<Value>,
}

/// A member that is there, be it `null`.
fn there<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(d).map(Some)
}

/// What happens at one place (RFC 6902's names).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeOp {
    /// Nothing was there.
    Add,
    /// Nothing will be there.
    Remove,
    /// Something else was there.
    Replace,
}

impl ChangeOp {
    /// `add`, `remove` or `replace`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Remove => "remove",
            Self::Replace => "replace",
        }
    }
}

/// How two states differ.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// In document order.
    pub all: Vec<Change>,
    /// Members and items that are the same in both, counted where they stand whole.
    pub unchanged: usize,
}

/// How one state becomes another. What stands at, below or above these JSON Pointers is not told, only that it differs.
#[must_use]
pub fn changes(before: &Value, after: &Value, redact: &[String]) -> Changes {
    let mut out = Changes::default();
    compare(before, after, String::new(), &mut out);
    for change in out.all.iter_mut().filter(|c| is_redacted(&c.path, redact)) {
        for value in [&mut change.from, &mut change.value].into_iter().flatten() {
            *value = REDACTED.into();
        }
    }
    out
}

fn compare(before: &Value, after: &Value, at: String, out: &mut Changes) {
    match (before, after) {
        (a, b) if a == b => out.unchanged += 1,
        (Value::Object(a), Value::Object(b)) => {
            for (name, old) in a {
                let below = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                match b.get(name) {
                    Some(new) => compare(old, new, below, out),
                    None => {
                        out.all.push(Change { op: ChangeOp::Remove, path: below, from: Some(old.clone()), value: None })
                    }
                }
            }
            for (name, new) in b.iter().filter(|(name, _)| !a.contains_key(*name)) {
                let path = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                out.all.push(Change { op: ChangeOp::Add, path, from: None, value: Some(new.clone()) });
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (old, new)) in a.iter().zip(b).enumerate() {
                compare(old, new, format!("{at}/{i}"), out);
            }
        }
        (a, b) => {
            out.all.push(Change { op: ChangeOp::Replace, path: at, from: Some(a.clone()), value: Some(b.clone()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ChangeOp::{Add, Remove, Replace};
    use super::*;
    use serde_json::json;

    fn op(op: ChangeOp, path: &str, from: Value, value: Value) -> Change {
        let some = |v: Value| Some(v).filter(|v| !v.is_null());
        Change { op, path: path.into(), from: some(from), value: some(value) }
    }

    #[test]
    fn each_kind_of_request_makes_its_state() {
        let before = json!({"a": 1, "b": {"c": 2, "d": 3}});
        let merged = DiffRule::MergePatch.apply(&before, br#"{"b":{"c":null},"e":4}"#).unwrap();
        assert_eq!(merged, json!({"a": 1, "b": {"d": 3}, "e": 4}));
        let patched = DiffRule::JsonPatch.apply(&before, br#"[{"op":"replace","path":"/a","value":9}]"#).unwrap();
        assert_eq!(patched, json!({"a": 9, "b": {"c": 2, "d": 3}}));
        assert_eq!(DiffRule::Replace.apply(&before, b"{}").unwrap(), json!({}));
        assert!(DiffRule::JsonPatch.apply(&before, br#"[{"op":"remove","path":"/z"}]"#).is_err());
        assert!(DiffRule::MergePatch.apply(&before, b"no").is_err());
    }

    #[test]
    fn changes_say_what_was_and_count_what_stays() {
        let before = json!({"a/b": 1, "gone": [1], "list": [1, 2], "same": {"x": 1}, "deep": {"x": 1, "y": 2}});
        let after = json!({"a/b": 2, "list": [1, 3], "same": {"x": 1}, "deep": {"x": 1, "y": null}, "new": true});
        let found = changes(&before, &after, &[]);
        let wanted = [
            op(Replace, "/a~1b", json!(1), json!(2)),
            op(Remove, "/gone", json!([1]), Value::Null),
            op(Replace, "/list/1", json!(2), json!(3)),
            Change { value: Some(Value::Null), ..op(Replace, "/deep/y", json!(2), Value::Null) },
            op(Add, "/new", Value::Null, json!(true)),
        ];
        let mut all = found.all.clone();
        all.sort_by_key(|c| wanted.iter().position(|w| w.path == c.path));
        assert_eq!(all, wanted);
        assert_eq!(found.unchanged, 3);
    }

    #[test]
    fn what_is_redacted_is_not_told() {
        let found = changes(&json!({"who": {"mail": "a"}}), &json!({"who": {"mail": "b"}}), &["/who/mail".into()]);
        assert_eq!(found.all, [op(Replace, "/who/mail", json!(REDACTED), json!(REDACTED))]);
        let added = changes(&json!({}), &json!({"who": {"mail": "b"}}), &["/who/mail".into()]);
        assert_eq!(added.all, [op(Add, "/who", Value::Null, json!(REDACTED))], "its parent would show it");
    }

    #[test]
    fn a_fence_falls_back_to_the_bytes() {
        let state = json!({"v": 7});
        assert_eq!(FenceRule::Etag.of(Some("\"9\""), &state, b"x"), "etag:\"9\"");
        assert_eq!(FenceRule::Version("/v".into()).of(None, &state, b"x"), "version:7");
        let hash = Digest::of(b"x").to_string();
        for rule in [FenceRule::Etag, FenceRule::Version("/none".into()), FenceRule::Hash] {
            assert_eq!(rule.of(None, &state, b"x"), hash);
        }
        assert_eq!(strong_etag("etag:\"9\""), Some("\"9\""));
        assert_eq!(strong_etag("etag:W/\"9\""), None);
        assert_eq!(strong_etag(&hash), None);
        let call = Digest::of(b"call");
        assert_eq!(seen_digest(call, None), call);
        assert_ne!(seen_digest(call, Some("etag:\"9\"")), seen_digest(call, Some("etag:\"10\"")));
    }
}
