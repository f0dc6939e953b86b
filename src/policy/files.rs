//! The files of a policy directory, read with care: their names, sizes and encoding.

use std::path::{Path, PathBuf};

use super::finding::{Finding, Source};

/// Bytes of one file. Every policy is asked about every call that its scope covers, so a file beyond this is a mistake.
const LARGEST: u64 = 4 << 20;

/// Every `*.cedar` file below `dir`, but for hidden ones, in the order of their names; the same by their names below `dir`;
/// and what could not be read.
pub(super) fn read(dir: &Path) -> (Vec<Source>, Vec<Source>, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut sources = Vec::new();
    let mut below = Vec::new();
    for path in list(dir, &mut findings) {
        match text(&path) {
            Ok(text) => {
                // The digest must not depend on where the directory stands.
                below.push(Source::new(path.strip_prefix(dir).unwrap_or(&path).display().to_string(), text.as_str()));
                sources.push(Source::new(path.display().to_string(), text));
            }
            Err(finding) => findings.push(*finding),
        }
    }
    (sources, below, findings)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Finding {
    Finding::error("policy-file", format!("cannot read `{}`: {error}", path.display()))
}

fn list(dir: &Path, findings: &mut Vec<Finding>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
        Ok(entries) => entries,
        Err(e) => {
            findings.push(unreadable(dir, &e));
            return found;
        }
    };
    for entry in entries {
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && path.is_dir() {
            found.extend(list(&path, findings));
        } else if !hidden && path.extension().is_some_and(|e| e == "cedar") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn text(path: &Path) -> Result<String, Box<Finding>> {
    let size = std::fs::metadata(path).map_err(|e| Box::new(unreadable(path, &e)))?.len();
    if size > LARGEST {
        let text = format!("`{}` has {size} bytes; a file of policies may have {LARGEST}", path.display());
        return Err(Box::new(Finding::error("policy-file", text).with_help("split it, and keep data out of policies")));
    }
    let bytes = std::fs::read(path).map_err(|e| Box::new(unreadable(path, &e)))?;
    String::from_utf8(bytes).map_err(|e| Box::new(not_text(path, &e)))
}

/// At the first byte that is no UTF-8, with its line as far as it can be shown.
fn not_text(path: &Path, error: &std::string::FromUtf8Error) -> Finding {
    let good = error.utf8_error().valid_up_to();
    let source = Source::new(path.display().to_string(), String::from_utf8_lossy(error.as_bytes()).into_owned());
    let end = good + char::REPLACEMENT_CHARACTER.len_utf8();
    Finding::error("policy-file", "this is no UTF-8").at(&source, good, end).with_help("save the file as UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_told_with_its_place_and_what_is_too_long_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.cedar"), b"// ok\n// caf\xe9 au lait\n").unwrap();
        let long = std::fs::File::create(dir.path().join("b.cedar")).unwrap();
        long.set_len(LARGEST + 1).unwrap();
        std::fs::create_dir(dir.path().join("c.cedar")).unwrap();
        let (sources, _, findings) = read(dir.path());
        assert!(sources.is_empty());
        let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
        let [first, second] = told.as_slice() else { panic!("{told:?}") };
        assert!(first.contains("a.cedar:2:7") && first.contains("2 │ // caf\u{fffd} au lait"), "{first}");
        assert!(first.ends_with("^ save the file as UTF-8"), "{first}");
        assert!(second.contains("has 4194305 bytes; a file of policies may have 4194304"), "{second}");
    }
}
