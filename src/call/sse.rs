//! Server-sent events, split without changing a byte (WHATWG HTML, section 9.2).
//!
//! Sans-io: bytes go in, whole events come out together with the exact bytes that carried them.

use bytes::{Bytes, BytesMut};

/// One event and the bytes it came in, blank line included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The exact bytes, terminating blank line included.
    pub raw: Bytes,
    /// The `data` lines joined by line feeds; `None` when there is no `data` line.
    pub data: Option<String>,
    /// The `id`, from which a client may resume.
    pub id: Option<String>,
    /// The `retry` time, ms.
    pub retry: Option<u64>,
}

impl Event {
    /// The same event with other data, which must have no line end in it.
    #[must_use]
    pub fn with_data(&self, data: &str) -> Bytes {
        let text = String::from_utf8_lossy(&self.raw);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut out = String::with_capacity(data.len() + 64);
        let is_data = |line: &&str| line.split(':').next() == Some("data");
        for line in text.split(['\n', '\r']).filter(|l| !l.is_empty() && !is_data(l)) {
            out.push_str(line);
            out.push('\n');
        }
        out.push_str("data: ");
        out.push_str(&data.replace(['\n', '\r'], " "));
        out.push_str("\n\n");
        Bytes::from(out)
    }
}

/// An event was larger than allowed, or not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is too large or not UTF-8")]
pub struct BadStream;

/// Cuts a byte stream into events.
#[derive(Debug)]
pub struct Splitter {
    buffer: BytesMut,
    /// Where the line begins that is not yet whole.
    line: usize,
    /// Up to here there is no line end in it.
    scanned: usize,
    limit: usize,
}

impl Splitter {
    /// A splitter that refuses events over `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), line: 0, scanned: 0, limit }
    }

    /// Takes in bytes and gives out the events that they complete.
    ///
    /// # Errors
    /// [`BadStream`] when one event grows past the limit or is not UTF-8.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, BadStream> {
        self.buffer.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.next_end() {
            (self.line, self.scanned) = (0, 0);
            events.push(parse(self.buffer.split_to(end).freeze())?);
        }
        if self.buffer.len() > self.limit {
            return Err(BadStream);
        }
        Ok(events)
    }

    /// What came after the last whole event.
    #[must_use]
    pub fn rest(&mut self) -> Bytes {
        (self.line, self.scanned) = (0, 0);
        self.buffer.split().freeze()
    }

    /// The end of the first event in the buffer: just after its blank line.
    fn next_end(&mut self) -> Option<usize> {
        let mut at = self.scanned;
        while let Some(byte) = self.buffer.get(at) {
            if !matches!(byte, b'\n' | b'\r') {
                at += 1;
                self.scanned = at;
                continue;
            }
            let end = match (byte, self.buffer.get(at + 1)) {
                (b'\r', Some(b'\n')) => at + 2,
                // A carriage return at the end may be half of CRLF: wait for more.
                (b'\r', None) => return None,
                _ => at + 1,
            };
            if at == self.line {
                return Some(end);
            }
            at = end;
            (self.line, self.scanned) = (end, end);
        }
        None
    }
}

fn parse(raw: Bytes) -> Result<Event, BadStream> {
    let text = std::str::from_utf8(&raw).map_err(|_| BadStream)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut data, mut id, mut retry): (Option<String>, Option<String>, Option<u64>) = (None, None, None);
    for line in text.split(['\n', '\r']) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match (field, &mut data) {
            ("data", Some(all)) => {
                all.push('\n');
                all.push_str(value);
            }
            ("data", None) => data = Some(value.to_owned()),
            ("id", _) if !value.contains('\0') => id = Some(value.to_owned()),
            ("retry", _) => retry = value.parse().ok(),
            _ => {}
        }
    }
    Ok(Event { raw, data, id, retry })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(input: &[u8], step: usize) -> (Vec<Event>, Bytes) {
        let mut s = Splitter::new(1 << 16);
        let all = input.chunks(step).flat_map(|c| s.push(c).unwrap()).collect();
        (all, s.rest())
    }

    #[test]
    fn bytes_in_are_bytes_out_however_they_are_cut() {
        let input = b": hi\n\nid: 1\r\ndata: a\r\ndata: b\r\n\r\nevent: x\rdata:c\r\rdata\n\ntail";
        for step in 1..input.len() {
            let (all, rest) = events(input, step);
            let mut joined: Vec<u8> = all.iter().flat_map(|e| e.raw.to_vec()).collect();
            joined.extend_from_slice(&rest);
            assert_eq!(joined, input, "step {step}");
            let data: Vec<_> = all.iter().map(|e| e.data.as_deref()).collect();
            assert_eq!(data, [None, Some("a\nb"), Some("c"), Some("")], "step {step}");
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut s = Splitter::new(10);
        assert!(s.push(b"data: 0123456789").is_err());
    }
}
