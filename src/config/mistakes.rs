//! Mistakes in the configuration: all of them at once, each with file, line and key.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::tree::Tree;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file.
    pub file: PathBuf,
    /// Its line, 1-based.
    pub line: Option<u64>,
    /// The key, dotted: `tools.crm.mount`.
    pub key: String,
    /// What is wrong and what would help.
    pub message: String,
}

/// All mistakes of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl Mistakes {
    pub(super) fn one(path: &Path, line: Option<u64>, key: &str, message: String) -> Self {
        Self(vec![Mistake { file: path.to_owned(), line, key: key.to_owned(), message }])
    }

    /// From pairs of JSON Pointer and message.
    pub(super) fn at(path: &Path, tree: &Tree, wrong: Vec<(String, String)>) -> Self {
        let mut all: Vec<Mistake> = wrong
            .into_iter()
            .map(|(pointer, message)| Mistake {
                file: path.to_owned(),
                line: Some(tree.line(&pointer)),
                key: dotted(&pointer),
                message,
            })
            .collect();
        all.sort_by(|a, b| (a.line, &a.key).cmp(&(b.line, &b.key)));
        all.dedup();
        Self(all)
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, m) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "error[config]: {}", m.file.display())?;
            if let Some(line) = m.line {
                write!(f, ":{line}")?;
            }
            if !m.key.is_empty() {
                write!(f, ": {}", m.key)?;
            }
            write!(f, ": {}", m.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

fn dotted(pointer: &str) -> String {
    pointer.split('/').skip(1).map(|t| t.replace("~1", "/").replace("~0", "~")).collect::<Vec<_>>().join(".")
}

/// Every violation of the file's own schema: unknown keys, wrong types, missing keys.
/// `what` is the name under which `holdpoint schema` prints it.
pub(super) fn against_schema(value: &Value, schema: &Value, what: &str) -> Vec<(String, String)> {
    let Ok(validator) = jsonschema::validator_for(schema) else {
        return vec![(String::new(), "internal: the schema of this file does not compile".into())];
    };
    validator.iter_errors(value).flat_map(|e| explain(&e, what)).collect()
}

fn explain(error: &jsonschema::ValidationError<'_>, what: &str) -> Vec<(String, String)> {
    use jsonschema::error::ValidationErrorKind as Kind;
    let at = error.instance_path().to_string();
    match error.kind() {
        Kind::AdditionalProperties { unexpected } => unexpected
            .iter()
            .map(|key| (format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), unknown_key(key, what)))
            .collect(),
        Kind::Required { property } => vec![(at, format!("the key {property} is missing"))],
        // An optional part is itself or null: what is there is not null, so it is meant to be itself.
        Kind::AnyOf { context } => {
            let is_other = |e: &jsonschema::ValidationError<'_>| {
                matches!(e.kind(), Kind::Type { .. }) && e.instance_path() == error.instance_path()
            };
            let mut meant = context.iter().filter(|branch| !branch.iter().any(is_other));
            match (meant.next(), meant.next()) {
                (Some(branch), None) => branch.iter().flat_map(|e| explain(e, what)).collect(),
                _ => vec![(at, error.to_string())],
            }
        }
        _ => vec![(at, error.to_string())],
    }
}

fn unknown_key(key: &str, what: &str) -> String {
    format!("unknown key `{key}`; `holdpoint schema {what}` prints the keys that exist")
}
