//! Colour on a terminal that wants it, and columns that fit 80.

use std::io::IsTerminal;

/// How text is marked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    on: bool,
}

impl Paint {
    /// As the terminal and `NO_COLOR` say (no-color.org); in a file or a pipe only with `CLICOLOR_FORCE`.
    pub(super) fn here() -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty() && v != "0");
        Self { on: !set("NO_COLOR") && (std::io::stdout().is_terminal() || set("CLICOLOR_FORCE")) }
    }

    fn dress(self, code: &str, text: &str) -> String {
        if self.on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    pub(super) fn good(self, text: &str) -> String {
        self.dress("32", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.dress("1;31", text)
    }

    pub(super) fn warn(self, text: &str) -> String {
        self.dress("33", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.dress("2", text)
    }
}

/// Words in lines of at most `width` characters; what is longer stands alone.
pub(super) fn wrapped(words: &[String], separator: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (i, word) in words.iter().enumerate() {
        let last = i + 1 == words.len();
        let word = if last { word.clone() } else { format!("{word}{separator}") };
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_fill_lines() {
        let words: Vec<String> = ["aaa", "bbb", "cc"].into_iter().map(str::to_owned).collect();
        assert_eq!(wrapped(&words, ",", 9), ["aaa, bbb,", "cc"]);
    }
}
