//! The generated schema on disk, for editors: written once, compared by `check`.

use std::io;
use std::path::{Path, PathBuf};

use super::finding::Finding;

/// Where the schema of a policy directory stands.
#[must_use]
pub fn path(dir: &Path) -> PathBuf {
    dir.join(".generated").join("holdpoint.cedarschema")
}

/// Writes the schema.
///
/// # Errors
/// Those of the file system.
pub fn write(dir: &Path, text: &str) -> io::Result<()> {
    let path = path(dir);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, text)
}

/// What is wrong with the schema on disk: nothing, or that it is missing or out of date.
#[must_use]
pub fn compare(dir: &Path, text: &str) -> Option<Finding> {
    let path = path(dir);
    let shown = path.display();
    let what = match std::fs::read(&path) {
        Ok(bytes) if bytes == text.as_bytes() => return None,
        Ok(_) => format!("`{shown}` is out of date"),
        Err(e) => format!("cannot read `{shown}`: {e}"),
    };
    Some(Finding::error("policy-generated", what).with_help("write it anew from the configuration"))
}
