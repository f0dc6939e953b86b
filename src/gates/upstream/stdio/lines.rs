//! Bytes to lines: how messages are cut on a pipe (MCP, stdio transport).

use bytes::{Bytes, BytesMut};

/// A line that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// All of it, without its end.
    Whole(Bytes),
    /// The beginning of one that is too long; the rest of it is skipped.
    TooLong(Bytes),
}

/// Cuts bytes into lines of at most `limit` bytes.
#[derive(Debug)]
pub(super) struct Lines {
    buffer: BytesMut,
    limit: usize,
    skipping: bool,
}

/// Of a line that is too long so much is shown.
const SHOWN: usize = 256;

impl Lines {
    pub(super) fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), limit, skipping: false }
    }

    /// Takes in bytes and gives out the lines that they end; blank ones are left out.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let (line, rest) = bytes.split_at(end);
            bytes = rest.get(1..).unwrap_or_default();
            self.take(line, &mut lines);
            self.skipping = false;
            lines.extend(self.rest());
        }
        self.take(bytes, &mut lines);
        lines
    }

    /// A part of one line.
    fn take(&mut self, part: &[u8], lines: &mut Vec<Line>) {
        if self.skipping {
            return;
        }
        self.buffer.extend_from_slice(part);
        if self.buffer.len() > self.limit {
            self.buffer.truncate(SHOWN.min(self.limit));
            lines.push(Line::TooLong(self.buffer.split().freeze()));
            self.skipping = true;
        }
    }

    /// What came after the last line end.
    pub(super) fn rest(&mut self) -> Option<Line> {
        let line = self.buffer.split().freeze();
        let text = line.trim_ascii_end();
        (!text.is_empty()).then(|| Line::Whole(line.slice(..text.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &'static str) -> Line {
        Line::Whole(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        let input = b"{\"a\":1}\n\n  \n{\"b\":2}\r\nlong line of text\nshort\ntail";
        for step in 1..input.len() {
            let mut lines = Lines::new(12);
            let mut all: Vec<Line> = input.chunks(step).flat_map(|c| lines.push(c)).collect();
            all.extend(lines.rest());
            let shown = |line: &Line| match line {
                Line::Whole(_) => line.clone(),
                Line::TooLong(head) => Line::TooLong(head.slice(..9)),
            };
            let all: Vec<Line> = all.iter().map(shown).collect();
            let long = Line::TooLong(Bytes::from_static(b"long line"));
            assert_eq!(
                all,
                [whole("{\"a\":1}"), whole("{\"b\":2}"), long, whole("short"), whole("tail")],
                "step {step}"
            );
        }
    }

    #[test]
    fn an_endless_line_takes_no_more_than_its_limit() {
        let mut lines = Lines::new(1 << 10);
        let told: Vec<Line> = (0..1_000).flat_map(|_| lines.push(&[b'x'; 100])).collect();
        assert!(matches!(told.as_slice(), [Line::TooLong(_)]) && lines.rest().is_none());
        assert_eq!(lines.push(b"xx\nnext\n"), [whole("next")]);
    }
}
