//! How deep policies nest. Whatever reads a policy walks down its tree, and a tree that is too deep ends the process, not
//! the walk: so the text is measured before anything reads it.

use super::finding::{Finding, Source};

/// Steps down the tree of one policy.
const DEEPEST: usize = 256;
/// A bracket takes more room than an operator: the grammar has a rule for each level of precedence.
const BRACKET: usize = 3;
/// Room for the deepest policy, where a frame is largest: without optimisations.
const STACK: usize = 128 << 20;

/// A thread with room for the deepest policy.
pub fn roomy() -> std::thread::Builder {
    std::thread::Builder::new().name("policies".to_owned()).stack_size(STACK)
}

/// Runs what reads policies where there is room for the deepest one. `None` when it panicked.
pub(super) fn with_room<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| roomy().spawn_scoped(scope, work).ok()?.join().ok())
}

/// How many policies a text has, about: what is between semicolons.
#[must_use]
pub fn count(text: &str) -> usize {
    Measure::of(text).count()
}

/// The first policy of a file that nests too deep.
pub(super) fn too_deep(source: &Source) -> Option<Finding> {
    let (start, depth) = Measure::of(&source.text).find(|(_, depth)| *depth > DEEPEST)?;
    let what = format!("this policy nests about {depth} levels deep; it may nest {DEEPEST}");
    let help = "write long `||` chains as a set, `[…].contains(…)`, and split what is left";
    Some(Finding::error("policy-deep", what).at(source, start, start + 1).with_help(help))
}

/// What stands between two commas, or between brackets without one.
#[derive(Default)]
struct Level {
    /// Operators, each a step down to its left.
    operators: usize,
    /// Members, calls and indices in a row, `a.b.c()["d"]`, now and at most.
    members: usize,
    longest: usize,
    /// The deepest bracket.
    inner: usize,
    /// The deepest part before a comma.
    before: usize,
}

impl Level {
    /// A token, and the text behind it.
    fn take(&mut self, token: &str, rest: &str) {
        match token {
            "," | ";" => *self = Self { before: self.depth(), ..Self::default() },
            "." => self.members += 1,
            "+" | "-" | "*" | "!" | "if" => self.operator(),
            // The first character of two.
            "&" | "|" if rest.starts_with(token) => self.operator(),
            "<" | ">" | "=" | "in" | "has" | "like" | "is" | "then" | "else" => self.operand_ends(),
            _ => {}
        }
    }

    fn operator(&mut self) {
        self.operand_ends();
        self.operators += 1;
    }

    fn operand_ends(&mut self) {
        self.longest = self.longest.max(self.members);
        self.members = 0;
    }

    fn depth(&mut self) -> usize {
        self.operand_ends();
        self.before.max(self.operators + self.longest + self.inner)
    }
}

/// Policies of a text in their order: where each begins, and how deep it is at most.
struct Measure<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Measure<'t> {
    const fn of(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    /// The next token that counts: a word, or one character.
    fn token(&mut self) -> Option<(usize, &'t str)> {
        loop {
            let rest = self.text.get(self.at..)?;
            let first = rest.chars().next()?;
            let (start, is_word) = (self.at, |c: char| c.is_alphanumeric() || c == '_');
            let length = match first {
                '"' => quoted(rest),
                '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
                c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
                c => c.len_utf8(),
            };
            self.at += length;
            if !first.is_whitespace() && !rest.starts_with("//") {
                return Some((start, rest.get(..length)?));
            }
        }
    }
}

/// Bytes of the string at the beginning.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

impl Iterator for Measure<'_> {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        let (start, mut token) = self.token()?;
        let mut open = vec![Level::default()];
        loop {
            let is_outside = open.len() == 1;
            match token {
                "(" | "[" | "{" => {
                    // It may be a call, or an index.
                    open.last_mut()?.members += 1;
                    open.push(Level::default());
                }
                ")" | "]" | "}" if !is_outside => close(&mut open)?,
                ";" if is_outside => break,
                _ => open.last_mut()?.take(token, self.text.get(self.at..).unwrap_or_default()),
            }
            match self.token() {
                Some((_, next)) => token = next,
                None => break,
            }
        }
        while open.len() > 1 {
            close(&mut open)?;
        }
        Some((start, open.pop()?.depth()))
    }
}

fn close(open: &mut Vec<Level>) -> Option<()> {
    let depth = open.pop()?.depth() + BRACKET;
    let outer = open.last_mut()?;
    outer.inner = outer.inner.max(depth);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depths(text: &str) -> Vec<usize> {
        Measure::of(text).map(|(_, depth)| depth).collect()
    }

    #[test]
    fn depth_is_that_of_the_tree_and_not_that_of_the_text() {
        assert_eq!(depths("permit (principal, action, resource); // a ( comment (\n@id(\"((\\\"(\") forbid;"), [4, 4]);
        assert_eq!(depths("a && b && c; a || (b || (c))"), [2, 10]);
        assert_eq!(depths("a.b.c < d.e && f.g.h() > 1"), [7]);
        let wide = format!("[{}].contains(context.input.x)", vec!["\"a.b.c\" && 1"; 1000].join(","));
        assert_eq!(depths(&wide), [8]);
        assert_eq!(depths("a[\"b\"][\"c\"][\"d\"]"), [6]);
        assert_eq!(depths("if a then b else if c then d else e"), [2]);
        assert_eq!(depths(&"(".repeat(5)), [20], "what is never closed counts");
        assert_eq!(depths("))) ]"), [0]);
    }

    #[test]
    fn the_policy_that_is_too_deep_is_told() {
        let chain = |n: usize| vec!["context.input.amountMinor > 5"; n].join(" || ");
        let text = |n| {
            format!(
                "permit (principal, action, resource);\nforbid (principal, action, resource) when {{ {} }};",
                chain(n)
            )
        };
        assert!(too_deep(&Source::new("a.cedar", text(250))).is_none());
        let found = too_deep(&Source::new("a.cedar", text(300))).unwrap();
        assert_eq!((found.code, found.line, found.column), ("policy-deep", 2, 1));
    }

    #[test]
    fn there_is_room_and_a_panic_is_no_end() {
        assert_eq!(with_room(|| 5), Some(5));
        assert_eq!(
            with_room(|| {
                let n: [u8; 0] = [];
                n.first().copied().unwrap()
            }),
            None
        );
    }
}
