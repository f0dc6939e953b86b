//! Other files of ours that are written as strictly as the configuration: test files.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::mistakes::{Mistakes, against_schema};
use super::tree::{self, Tree};

/// A strict YAML file, with the line of every key.
#[derive(Debug)]
pub struct Document {
    path: PathBuf,
    tree: Tree,
}

impl Document {
    /// Reads a file: UTF-8, no duplicate keys, anchors bounded.
    ///
    /// # Errors
    /// What cannot be read, with its place.
    pub fn read(path: &Path) -> Result<Self, Mistakes> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Mistakes::one(path, None, "", format!("cannot read this file: {e}")))?;
        Self::parse(&text, path)
    }

    /// As [`Document::read`], from text.
    ///
    /// # Errors
    /// As [`Document::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, Mistakes> {
        Ok(Self { path: path.to_owned(), tree: tree::parse(text, path)? })
    }

    /// The whole document as JSON.
    #[must_use]
    pub fn value(&self) -> Value {
        self.tree.value()
    }

    /// The line, from 1, on which the node at a JSON Pointer stands.
    #[must_use]
    pub fn line(&self, pointer: &str) -> u64 {
        self.tree.line(pointer)
    }

    /// A mistake at a JSON Pointer.
    #[must_use]
    pub fn mistake(&self, pointer: &str, message: impl Into<String>) -> Mistakes {
        Mistakes::at(&self.path, &self.tree, vec![(pointer.to_owned(), message.into())])
    }

    /// The value as a type, held against the type's own schema, which `holdpoint schema` prints as `what`. `at` is
    /// the JSON Pointer at which the value stands.
    ///
    /// # Errors
    /// Every violation, with its line.
    pub fn typed<T: DeserializeOwned + JsonSchema>(&self, value: Value, at: &str, what: &str) -> Result<T, Mistakes> {
        let schema = serde_json::to_value(schemars::schema_for!(T)).unwrap_or_default();
        let wrong = against_schema(&value, &schema, what);
        if !wrong.is_empty() {
            let below = wrong.into_iter().map(|(pointer, message)| (format!("{at}{pointer}"), message)).collect();
            return Err(Mistakes::at(&self.path, &self.tree, below));
        }
        serde_json::from_value(value).map_err(|e| self.mistake(at, e.to_string()))
    }
}
