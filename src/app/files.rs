//! Files that changed under a running proxy: looked at every few seconds by content, since a mounted folder is swapped
//! as a whole and tells nobody.

use std::path::{Path, PathBuf};

use crate::call::Digest;
use crate::config::Config;

/// What the files of a version hold: configuration, what it names but secrets, policies. Equal when nothing changed.
pub(super) fn fingerprint(path: &Path, config: &Config) -> Digest {
    let mut files = vec![path.to_owned()];
    files.extend(config.covered.iter().cloned());
    policies(&config.policy_dir, &mut files);
    let mut all = Vec::new();
    for file in files {
        let content = std::fs::read(&file).map_or(Digest::of(b"unreadable"), |bytes| Digest::of(&bytes));
        all.extend(file.as_os_str().as_encoded_bytes());
        all.push(0);
        all.extend(content.to_string().as_bytes());
    }
    Digest::of(&all)
}

fn policies(dir: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = entries.map(|e| e.path()).collect();
    all.sort();
    for path in all {
        let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.is_dir() {
            policies(&path, found);
        } else if !hidden && path.extension().is_some_and(|e| e == "cedar") {
            found.push(path);
        }
    }
}

/// Decides when changed files are to be loaded: once they hold still for two looks, and each content once.
#[derive(Debug)]
pub(super) struct Watch {
    tried: Digest,
    seen: Digest,
}

impl Watch {
    /// Begins with what was loaded.
    pub(super) fn new(loaded: Digest) -> Self {
        Self { tried: loaded, seen: loaded }
    }

    /// Somebody has just tried to load this.
    pub(super) fn tried(&mut self, content: Digest) {
        self.tried = content;
    }

    /// Whether to load now.
    pub(super) fn due(&mut self, now: Digest) -> bool {
        let still = self.seen == now;
        self.seen = now;
        let due = still && self.tried != now;
        if due {
            self.tried = now;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_still_is_loaded_once() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|t| Digest::of(t));
        let mut watch = Watch::new(a);
        let due: Vec<bool> = [a, b, c, c, c, a, a, a].into_iter().map(|now| watch.due(now)).collect();
        assert_eq!(due, [false, false, false, true, false, false, true, false]);
        watch.tried(b);
        assert!(!watch.due(b) && !watch.due(b), "what was tried by hand is not tried again");
    }
}
