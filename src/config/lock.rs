//! The lock file of an MCP tool: the definitions that the operator accepted, in full, with their digests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::call::Digest;

/// A lock file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Version of this format: 1.
    pub version: u32,
    /// The tool's name in the configuration.
    pub tool: String,
    /// Accepted definitions by name.
    pub tools: BTreeMap<String, Locked>,
}

/// One accepted definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// [`definition_digest`] of `definition`.
    pub digest: Digest,
    /// As the server gave it.
    pub definition: Value,
}

/// What moved between two locks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// Only in the new one.
    Added(String),
    /// In both, with other name, description, input schema or annotations.
    Changed(String),
    /// Only in the old one.
    Removed(String),
}

/// What a definition is pinned by beside its name: everything in it that a model reads or a client acts on.
const PINNED: [&str; 5] = ["description", "inputSchema", "annotations", "title", "outputSchema"];

/// The digest that pins a definition.
#[must_use]
pub fn definition_digest(definition: &Value) -> Digest {
    let part = |name: &str| definition.get(name).cloned().unwrap_or(Value::Null);
    let mut of = serde_json::json!({
        "name": part("name"),
        "description": part("description"),
        "inputSchema": part("inputSchema"),
        "annotations": part("annotations"),
    });
    for name in ["title", "outputSchema"] {
        if let (Some(value), Some(of)) = (definition.get(name), of.as_object_mut()) {
            of.insert(name.to_owned(), value.clone());
        }
    }
    Digest::of_json(&of)
}

/// A member of a definition that moved, with its old and its new text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Its name.
    pub member: &'static str,
    /// What was accepted.
    pub was: String,
    /// What the server says now.
    pub is: String,
}

/// The pinned members that differ, each as one line of JSON.
#[must_use]
pub fn moved(old: Option<&Value>, new: &Value) -> Vec<Moved> {
    let text = |v: Option<&Value>| v.map_or_else(|| "(none)".into(), |v| crate::call::visible(&v.to_string()));
    let both = |member: &'static str| (member, old.and_then(|o| o.get(member)), new.get(member));
    let differ = PINNED.into_iter().map(both).filter(|(_, was, is)| was != is);
    differ.map(|(member, was, is)| Moved { member, was: text(was), is: text(is) }).collect()
}

impl Lock {
    /// A lock of these definitions. The first of two with one name wins.
    #[must_use]
    pub fn of(tool: &str, definitions: Vec<Value>) -> Self {
        let mut tools = BTreeMap::new();
        for definition in definitions {
            let Some(name) = definition.get("name").and_then(Value::as_str).map(str::to_owned) else { continue };
            let locked = Locked { digest: definition_digest(&definition), definition };
            tools.entry(name).or_insert(locked);
        }
        Self { version: 1, tool: tool.to_owned(), tools }
    }

    /// Reads a lock and checks that each digest is that of its definition.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str, tool: &str) -> Result<Self, String> {
        let lock: Self = serde_json::from_str(text).map_err(|e| format!("not a lock file: {e}"))?;
        if lock.version != 1 {
            return Err(format!("version {} of the lock file is not one that we read", lock.version));
        }
        if lock.tool != tool {
            return Err(format!("the lock file is of the tool `{}`", lock.tool));
        }
        for (name, locked) in &lock.tools {
            if definition_digest(&locked.definition) != locked.digest {
                return Err(format!("the definition of `{name}` does not match its digest: it was edited by hand"));
            }
            if locked.definition.get("name").and_then(Value::as_str) != Some(name) {
                return Err(format!("the definition under `{name}` has another name"));
            }
        }
        Ok(lock)
    }

    /// The text of the file.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// What moved from `self` to `new`.
    #[must_use]
    pub fn differences(&self, new: &Self) -> Vec<Difference> {
        let gone = self.tools.keys().filter(|n| !new.tools.contains_key(*n)).cloned().map(Difference::Removed);
        let moved = new.tools.iter().filter_map(|(name, locked)| match self.tools.get(name) {
            None => Some(Difference::Added(name.clone())),
            Some(old) if old.digest != locked.digest => Some(Difference::Changed(name.clone())),
            Some(_) => None,
        });
        let mut all: Vec<_> = moved.chain(gone).collect();
        all.sort();
        all
    }
}

/// A name that can be pinned: plain characters only, so that no look-alike passes for another tool.
#[must_use]
pub fn is_tool_name(name: &str) -> bool {
    (1..=128).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_./-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_changed_description_is_a_changed_definition() {
        let a = Lock::of("t", vec![json!({"name": "x", "description": "a"}), json!({"name": "y"})]);
        let b = Lock::of("t", vec![json!({"name": "x", "description": "b"}), json!({"name": "z"})]);
        let moved = a.differences(&b);
        let expected =
            [Difference::Added("z".into()), Difference::Changed("x".into()), Difference::Removed("y".into())];
        assert_eq!(moved, expected);
    }

    #[test]
    fn a_lock_edited_by_hand_is_refused() {
        let text = Lock::of("t", vec![json!({"name": "x", "description": "a"})]).text();
        assert!(Lock::parse(&text, "t").is_ok());
        assert!(Lock::parse(&text.replace("\"a\"", "\"b\""), "t").is_err());
        assert!(Lock::parse(&text, "other").is_err());
    }

    #[test]
    fn look_alikes_are_no_names() {
        assert!(is_tool_name("delete_repo"));
        assert!(!is_tool_name("delete_rep\u{43e}"));
        assert!(!is_tool_name("read_file\u{200b}"));
    }
}
