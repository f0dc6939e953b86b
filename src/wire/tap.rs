//! Sees framing that hyper smooths over: `Content-Length` beside `Transfer-Encoding` in one head, bare line feeds.
//!
//! hyper drops the length and closes afterwards, which is safe; we refuse the request outright (rule R3). Bodies are
//! followed by their framing, so every head of a connection is looked at, pipelined ones too. HTTP/2 is not looked at.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Heads and chunk lines are kept up to here; hyper refuses longer ones.
const LINE: usize = 64 << 10;

/// Where in a connection the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Head,
    /// So many bytes of a body, or of a chunk with its line end.
    Body {
        left: u64,
        chunked: bool,
    },
    ChunkSize,
    Trailers,
    /// HTTP/2, or something that hyper refuses and closes after.
    Blind,
}

/// Follows the requests of one connection.
#[derive(Debug)]
struct Follower {
    at: At,
    kept: Vec<u8>,
}

impl Follower {
    /// Takes in bytes; tells whether an ambiguous head was among them.
    fn look(&mut self, mut bytes: &[u8]) -> bool {
        let mut ambiguous = false;
        while !bytes.is_empty() && self.at != At::Blind {
            if let At::Body { left, chunked } = self.at {
                let here = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                bytes = bytes.get(here..).unwrap_or_default();
                let left = left - here as u64;
                self.at = match (left, chunked) {
                    (0, true) => At::ChunkSize,
                    (0, false) => At::Head,
                    _ => At::Body { left, chunked },
                };
                continue;
            }
            let (first, rest) = bytes.split_at(1);
            self.kept.extend_from_slice(first);
            bytes = rest;
            ambiguous |= self.line_ended();
        }
        ambiguous
    }

    /// After each byte of a head or a chunk line.
    fn line_ended(&mut self) -> bool {
        let ended = match self.at {
            At::Head => {
                self.kept.ends_with(b"\r\n\r\n") || self.kept.ends_with(b"\n\n") || self.kept.ends_with(b"\n\r\n")
            }
            _ => self.kept.ends_with(b"\n"),
        };
        if self.kept == b"PRI * HTTP/2.0\r\n\r\n" || self.kept.len() > LINE {
            self.at = At::Blind;
            self.kept = Vec::new();
            return false;
        }
        // Empty lines before a request line are skipped, as hyper does.
        if self.at == At::Head && matches!(self.kept.as_slice(), b"\n" | b"\r\n") {
            self.kept.clear();
            return false;
        }
        if !ended {
            return false;
        }
        let line = std::mem::take(&mut self.kept);
        match self.at {
            At::Head => {
                self.at = after(&line);
                is_ambiguous(&line)
            }
            At::ChunkSize => {
                self.at = chunk(&line);
                false
            }
            _ => {
                if matches!(line.as_slice(), b"\n" | b"\r\n") {
                    self.at = At::Head;
                }
                false
            }
        }
    }
}

fn field<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let is = |l: &&[u8]| {
        l.get(..name.len()).is_some_and(|n| n.eq_ignore_ascii_case(name)) && l.get(name.len()) == Some(&b':')
    };
    head.split(|b| *b == b'\n').find(is).and_then(|l| l.get(name.len() + 1..)).map(<[u8]>::trim_ascii)
}

/// What follows a head.
fn after(head: &[u8]) -> At {
    if field(head, b"transfer-encoding").is_some() {
        return At::ChunkSize;
    }
    match field(head, b"content-length").map(|v| std::str::from_utf8(v).ok().and_then(|v| v.parse().ok())) {
        None | Some(Some(0)) => At::Head,
        Some(Some(left)) => At::Body { left, chunked: false },
        Some(None) => At::Blind,
    }
}

fn chunk(line: &[u8]) -> At {
    let size = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    match std::str::from_utf8(size).ok().and_then(|s| u64::from_str_radix(s, 16).ok()) {
        Some(0) => At::Trailers,
        // The chunk and its line end.
        Some(size) => At::Body { left: size.saturating_add(2), chunked: true },
        None => At::Blind,
    }
}

fn is_ambiguous(head: &[u8]) -> bool {
    let bare = head.split(|b| *b == b'\n').any(|l| !l.is_empty() && l.last() != Some(&b'\r'));
    bare || (field(head, b"content-length").is_some() && field(head, b"transfer-encoding").is_some())
}

/// A stream whose request heads are looked at on the way.
#[derive(Debug)]
pub(super) struct Tap<S> {
    stream: S,
    follower: Follower,
    suspicious: Arc<AtomicBool>,
}

impl<S> Tap<S> {
    pub(super) fn new(stream: S) -> (Self, Arc<AtomicBool>) {
        let suspicious = Arc::new(AtomicBool::new(false));
        let follower = Follower { at: At::Head, kept: Vec::new() };
        (Self { stream, follower, suspicious: Arc::clone(&suspicious) }, suspicious)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let (Poll::Ready(Ok(())), Some(new)) = (&polled, buf.filled().get(before..))
            && self.follower.look(new)
        {
            self.suspicious.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suspicious(parts: &[&[u8]]) -> bool {
        let mut follower = Follower { at: At::Head, kept: Vec::new() };
        parts.iter().fold(false, |seen, p| follower.look(p) | seen)
    }

    const BAD: &[u8] =
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";

    #[test]
    fn length_beside_transfer_encoding_is_seen_however_it_is_cut() {
        assert!(suspicious(&[BAD]));
        for at in 1..BAD.len() - 1 {
            assert!(suspicious(&[&BAD[..at], &BAD[at..]]), "{at}");
        }
        assert!(suspicious(&[b"GET / HTTP/1.1\nHost: a\n\n"]));
    }

    #[test]
    fn bodies_are_not_heads_and_pipelined_heads_are() {
        let body = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 20\r\n\r\n{\n\ntransfer-encoding";
        assert!(!suspicious(&[body]));
        let chunked =
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\n{\n\n\n}\r\n3\r\na\n\n\r\n0\r\n\r\n";
        assert!(!suspicious(&[chunked]));
        for first in [&body[..], &chunked[..], b"GET / HTTP/1.1\r\n\r\n"] {
            assert!(suspicious(&[&[first, BAD].concat()]), "a second head in the same read");
            assert!(suspicious(&[first, BAD]));
        }
    }

    #[test]
    fn http2_is_left_alone() {
        assert!(!suspicious(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"{\n\n", BAD]));
    }
}
