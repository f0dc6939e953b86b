//! Sees framing that hyper smooths over: `Content-Length` beside `Transfer-Encoding` in one head, bare line feeds.
//!
//! hyper drops the length and closes afterwards, which is safe; we refuse the request outright (rule R3).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose request heads are looked at on the way.
#[derive(Debug)]
pub(super) struct Tap<S> {
    stream: S,
    head: Vec<u8>,
    in_head: bool,
    suspicious: Arc<AtomicBool>,
}

/// Heads are kept up to here; hyper refuses longer ones.
const HEAD: usize = 64 << 10;

impl<S> Tap<S> {
    pub(super) fn new(stream: S) -> (Self, Arc<AtomicBool>) {
        let suspicious = Arc::new(AtomicBool::new(false));
        (Self { stream, head: Vec::new(), in_head: true, suspicious: Arc::clone(&suspicious) }, suspicious)
    }

    fn look(&mut self, bytes: &[u8]) {
        if !self.in_head {
            return;
        }
        // HTTP/2 has its own framing.
        if self.head.is_empty() && bytes.starts_with(b"PRI ") {
            self.in_head = false;
            return;
        }
        let from = self.head.len().saturating_sub(4);
        self.head.extend_from_slice(bytes);
        let Some(recent) = self.head.get(from..) else { return };
        let end = [&b"\r\n\r\n"[..], b"\n\n", b"\n\r\n"]
            .iter()
            .filter_map(|mark| recent.windows(mark.len()).position(|w| w == *mark).map(|at| from + at + mark.len()))
            .min();
        let Some(end) = end.or_else(|| (self.head.len() > HEAD).then_some(HEAD)) else { return };
        if self.head.get(..end).is_some_and(ambiguous) {
            self.suspicious.store(true, Ordering::Relaxed);
        }
        self.head.clear();
        self.in_head = false;
    }
}

fn ambiguous(head: &[u8]) -> bool {
    let lines = || head.split(|b| *b == b'\n');
    let bare = lines().any(|l| !l.is_empty() && l.last() != Some(&b'\r'));
    let has = |name: &[u8]| {
        lines().any(|l| {
            l.get(..name.len()).is_some_and(|n| n.eq_ignore_ascii_case(name)) && l.get(name.len()) == Some(&b':')
        })
    };
    bare || (has(b"content-length") && has(b"transfer-encoding"))
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let (Poll::Ready(Ok(())), Some(new)) = (&polled, buf.filled().get(before..)) {
            let this = &mut *self;
            this.look(new);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // An answer is under way: what is read after it is the next head.
        self.in_head = true;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.in_head = true;
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
        let (mut tap, flag) = Tap::new(());
        parts.iter().for_each(|p| tap.look(p));
        flag.load(Ordering::Relaxed)
    }

    #[test]
    fn length_beside_transfer_encoding_is_seen_however_it_is_cut() {
        let head = b"POST / HTTP/1.1\r\nContent-Length: 5\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
        assert!(suspicious(&[head]));
        for at in 1..head.len() - 1 {
            assert!(suspicious(&[&head[..at], &head[at..]]), "{at}");
        }
        assert!(!suspicious(&[b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\ntransfer-encoding: x\r\n"]));
        assert!(suspicious(&[b"GET / HTTP/1.1\nHost: a\n\n"]));
    }
}
