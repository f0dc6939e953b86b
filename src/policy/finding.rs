//! Mistakes and remarks about policies, printed as a compiler prints them.

use std::fmt;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The set does not load.
    Error,
    /// It loads; somebody should look.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    /// `error`, `warning` or `note`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// The line of source that a finding is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    /// The line; of a very long one what is around the marked part.
    pub text: String,
    /// Characters before the marked part.
    pub before: usize,
    /// Characters of the marked part, at least 1.
    pub marked: usize,
}

/// One mistake or remark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Stable code: `policy-type`, `policy-approval` …
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What would help.
    pub help: Option<String>,
    /// The file, as it was named to the loader.
    pub file: Option<String>,
    /// Line, from 1; 0 without a file.
    pub line: usize,
    /// Column in characters, from 1; 0 without a file.
    pub column: usize,
    /// The source line.
    pub snippet: Option<Snippet>,
}

impl Finding {
    /// A finding that is about no place in a file.
    #[must_use]
    pub fn new(severity: Severity, code: &'static str, message: impl Into<String>) -> Self {
        Self { severity, code, message: message.into(), help: None, file: None, line: 0, column: 0, snippet: None }
    }

    /// A mistake that keeps the set from loading.
    #[must_use]
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message)
    }

    /// With what would help.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// At bytes `start..end` of `source`.
    #[must_use]
    pub fn at(mut self, source: &Source, start: usize, end: usize) -> Self {
        let (line, column) = source.position(start);
        let (text, before) = shown(source.line(line), column.saturating_sub(1));
        let room = text.chars().count().saturating_sub(before);
        let marked = source.text.get(start..end).map_or(1, |s| s.chars().take_while(|c| *c != '\n').count());
        self.snippet = Some(Snippet { text, before, marked: marked.min(room).max(1) });
        self.file = Some(source.name.clone());
        self.line = line;
        self.column = column;
        self
    }

    /// With the marks narrowed to the last occurrence of `word` in the marked part.
    #[must_use]
    pub fn narrowed(mut self, word: &str) -> Self {
        if let Some(s) = &mut self.snippet {
            let marked: String = s.text.chars().skip(s.before).take(s.marked).collect();
            if let Some((before, _)) = marked.rsplit_once(word) {
                s.before += before.chars().count();
                s.marked = word.chars().count().max(1);
            }
        }
        self
    }

    /// Where it is, as `file:line:column`.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        self.file.as_ref().map(|f| format!("{f}:{}:{}", self.line, self.column))
    }
}

/// Characters of a line that a finding keeps, and those before the marked part: a file may be one line, and thousands of
/// findings may be about it.
const KEPT: usize = 400;
const BEFORE: usize = 100;

/// A line, or what is around the marked part of a long one; and how many characters stand before that.
fn shown(line: &str, before: usize) -> (String, usize) {
    let cut = if line.len() > KEPT { before.saturating_sub(BEFORE) } else { 0 };
    let kept = line.chars().skip(cut).take(KEPT);
    if cut == 0 { (kept.collect(), before) } else { (std::iter::once('…').chain(kept).collect(), before - cut + 1) }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]: {}", self.severity.as_str(), self.code, self.message)?;
        let Some(place) = self.place() else {
            return self.help.as_ref().map_or(Ok(()), |h| write!(f, "\n   = {h}"));
        };
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len() + 1);
        write!(f, "\n{gutter}┌─ {place}")?;
        let Some(s) = &self.snippet else { return Ok(()) };
        write!(f, "\n{number} │ {}", s.text.replace('\t', " "))?;
        write!(f, "\n{gutter}│ {}{}", " ".repeat(s.before), "^".repeat(s.marked))?;
        self.help.as_ref().map_or(Ok(()), |h| write!(f, " {h}"))
    }
}

/// One file of policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name, as findings show it.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Where each line begins.
    lines: Vec<usize>,
}

impl Source {
    /// A file and its text.
    #[must_use]
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name: name.into(), text, lines }
    }

    /// Line and column, from 1, of a byte.
    #[must_use]
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let before = self.text.get(start..).unwrap_or("").char_indices();
        (line, before.take_while(|(at, c)| start + at + c.len_utf8() <= offset).count() + 1)
    }

    fn line(&self, number: usize) -> &str {
        let start = self.lines.get(number.saturating_sub(1)).copied().unwrap_or(self.text.len());
        self.text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or("")
    }
}

/// The known word nearest to `word`, when it is near enough to be meant.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let best = known.into_iter().map(|k| (distance(word, k), k)).min()?;
    (best.0 <= 1 + word.chars().count() / 4).then_some(best.1)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let old = |k: usize| row.get(k).copied().unwrap_or(usize::MAX - 1);
            let left = next.last().copied().unwrap_or(usize::MAX - 1);
            next.push((old(j) + usize::from(ca != *cb)).min(old(j + 1) + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_reads_like_a_compiler_message() {
        let text = format!("{}when   {{ context.input.amount > 50000 }}\n", "\n".repeat(33));
        let source = Source::new("policies/crm.cedar", text);
        let start = source.text.find("context").unwrap();
        let f = Finding::error("policy-type", "no field `amount` in the input of crm.refund")
            .at(&source, start, start + "context.input.amount".len())
            .narrowed("amount")
            .with_help("did you mean `amountMinor`?");
        let want = "error[policy-type]: no field `amount` in the input of crm.refund\n   ┌─ policies/crm.cedar:34:10\n\
                    34 │ when   { context.input.amount > 50000 }\n   \
                    │                        ^^^^^^ did you mean `amountMinor`?";
        assert_eq!(f.to_string(), want);
    }

    #[test]
    fn of_a_long_line_only_what_is_around_is_kept() {
        let source = Source::new("a.cedar", format!("{}ä here {}", "x ".repeat(100_000), "y ".repeat(100_000)));
        let start = source.text.find("here").unwrap();
        let s = Finding::error("policy-type", "no").at(&source, start, start + 4).snippet.unwrap();
        assert_eq!(
            (s.text.chars().count(), s.text.chars().skip(s.before).take(s.marked).collect()),
            (401, "here".to_owned())
        );
        assert!(s.text.starts_with('…'), "{}", s.text);
    }

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        assert_eq!(nearest("suport-leads", ["finance", "support-leads"]), Some("support-leads"));
        assert_eq!(nearest("x", ["finance", "support-leads"]), None);
    }
}
