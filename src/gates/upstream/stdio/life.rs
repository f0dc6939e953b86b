//! One child process from its start to its end: what is written to it, what it says, and who waits for that.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::config::StdioServer;

use super::super::started::Started;
use super::hello::{self, Hello};
use super::lines::{Line, Lines};
use super::message::{Heard, heard};
use super::process::{self, Process};
use super::supervise::Phase;

/// A line may be so long, whatever an operation allows.
const LINE: usize = 64 << 20;
const CHUNK: usize = 64 << 10;
/// How long a program may take until it has answered the handshake: the first start of a package may fetch it.
const HANDSHAKE: Duration = Duration::from_secs(60);
/// After its end what it said before is read for so long.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Lines of ours that may wait for it to read: it may ask faster than it hears.
const QUEUE: usize = 64;

/// A line to write, and who waits for the response.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) id: u64,
    pub(super) line: String,
    pub(super) started: Arc<Started>,
    pub(super) to: Caller,
}

/// Who waits for a response.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) answer: oneshot::Sender<Result<Bytes, Unanswered>>,
    pub(super) progress: mpsc::Sender<Bytes>,
}

/// Why there is no response.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// Not a byte was written.
    NotSent(String),
    /// It was written: it may have happened.
    Lost(String),
    /// It was written, and then its client cancelled it or its server was stopped.
    Cancelled,
}

/// Nobody waits any more.
#[derive(Debug)]
pub(super) struct Gone {
    pub(super) id: u64,
    /// The server is told, so that it stops.
    pub(super) cancel: bool,
}

/// Where callers leave their orders.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) gone: mpsc::UnboundedReceiver<Gone>,
    pub(super) stop: watch::Receiver<bool>,
}

/// How a life ended.
#[derive(Debug)]
pub(super) enum End {
    /// We asked for it.
    Stopped,
    /// By itself, or it was of no use.
    Died(String),
}

/// A child that lives.
#[derive(Debug)]
pub(super) struct Life {
    tool: String,
    process: Process,
    stdin: ChildStdin,
    stdout: ChildStdout,
    read: BytesMut,
    lines: Lines,
    /// Lines to write, each with the request that it is, and how much of the first one is written.
    out: VecDeque<(Option<u64>, Bytes)>,
    written: usize,
    under_way: HashMap<u64, Caller>,
    ready: bool,
    /// Why nothing more is expected of it, and since when.
    ended: Option<(String, Instant)>,
}

enum Event {
    Stop,
    Order(Order),
    Gone(Gone),
    Wrote(std::io::Result<usize>),
    Said(std::io::Result<usize>),
    Ended(String),
    Late,
}

impl Life {
    /// Starts the command.
    ///
    /// # Errors
    /// Why it cannot be started.
    pub(super) fn begin(tool: &str, server: &StdioServer) -> Result<Self, String> {
        let (process, stdin, stdout) = process::start(tool, server)?;
        Ok(Self {
            tool: tool.to_owned(),
            process,
            stdin,
            stdout,
            read: BytesMut::new(),
            lines: Lines::new(LINE),
            out: VecDeque::from([(None, hello::initialize().into())]),
            written: 0,
            under_way: HashMap::new(),
            ready: false,
            ended: None,
        })
    }

    /// Carries requests and responses until it ends, or shall end; then nobody is left waiting.
    pub(super) async fn live(mut self, desk: &mut Desk, phase: &watch::Sender<Phase>) -> End {
        let handshake = tokio::time::sleep(HANDSHAKE);
        tokio::pin!(handshake);
        let end = loop {
            let late = async {
                match (&self.ended, self.ready) {
                    (None, true) => std::future::pending().await,
                    (None, false) => handshake.as_mut().await,
                    (Some((_, since)), _) => tokio::time::sleep_until(*since + LAST_WORDS).await,
                }
            };
            let parts = Parts {
                process: self.ended.is_none().then_some(&mut self.process),
                stdin: &mut self.stdin,
                stdout: &mut self.stdout,
                read: &mut self.read,
                out: self.out.front().filter(|_| self.ended.is_none()).and_then(|(_, line)| line.get(self.written..)),
                takes: self.ready && self.ended.is_none(),
            };
            let event = next(parts, desk, late).await;
            if let ControlFlow::Break(end) = self.take(event, phase) {
                break end;
            }
        };
        self.finish(end, phase).await
    }

    fn take(&mut self, event: Event, phase: &watch::Sender<Phase>) -> ControlFlow<End> {
        match event {
            Event::Stop => return ControlFlow::Break(End::Stopped),
            Event::Order(order) => self.order(order),
            Event::Gone(gone) => self.gone(&gone),
            Event::Wrote(Ok(written)) => self.wrote(written),
            // It may have said something before it stopped reading.
            Event::Wrote(Err(e)) => self.ended = Some((format!("it does not read: {e}"), Instant::now())),
            Event::Ended(status) => self.ended = Some((status, Instant::now())),
            Event::Said(Ok(1..)) => return self.said(phase),
            Event::Said(Ok(_)) => return self.died("it closed its output"),
            Event::Said(Err(e)) => return self.died(&format!("its output cannot be read: {e}")),
            Event::Late => return self.died("it did not answer `initialize` in time"),
        }
        ControlFlow::Continue(())
    }

    /// A request is written only for a caller that waits.
    fn order(&mut self, order: Order) {
        if order.to.answer.is_closed() || !order.started.begin() {
            return;
        }
        self.under_way.insert(order.id, order.to);
        self.out.push_back((Some(order.id), order.line.into()));
    }

    fn gone(&mut self, gone: &Gone) {
        if self.under_way.remove(&gone.id).is_some() && gone.cancel {
            let params = serde_json::json!({"requestId": gone.id, "reason": "the client hung up"});
            let told = serde_json::json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params});
            self.write(format!("{told}\n"));
        }
    }

    fn write(&mut self, line: String) {
        if self.out.len() < QUEUE {
            self.out.push_back((None, line.into()));
        }
    }

    fn wrote(&mut self, written: usize) {
        self.written += written;
        if self.out.front().is_some_and(|(_, line)| self.written >= line.len()) {
            self.out.pop_front();
            self.written = 0;
        }
    }

    fn said(&mut self, phase: &watch::Sender<Phase>) -> ControlFlow<End> {
        let bytes = self.read.split();
        for line in self.lines.push(&bytes) {
            match line {
                Line::Whole(line) => self.heard(line, phase)?,
                Line::TooLong(head) => self.skipped(&head, "it is too long"),
            }
        }
        ControlFlow::Continue(())
    }

    fn heard(&mut self, line: Bytes, phase: &watch::Sender<Phase>) -> ControlFlow<End> {
        let Ok(text) = std::str::from_utf8(&line) else {
            self.skipped(&line, "it is not UTF-8");
            return ControlFlow::Continue(());
        };
        match heard(text) {
            Heard::Response(hello::ID) if !self.ready => return self.greeted(text, phase),
            Heard::Response(id) => match self.under_way.remove(&id) {
                Some(caller) => drop(caller.answer.send(Ok(line))),
                None => tracing::debug!(tool.name = self.tool, id, "a response that nobody waits for"),
            },
            Heard::Progress(id) => {
                // Who reads slowly misses some.
                let told = self.under_way.get(&id).map(|caller| caller.progress.try_send(line));
                tracing::trace!(tool.name = self.tool, id, ?told, "progress");
            }
            Heard::Asked(answer) => self.write(answer),
            Heard::Told(method) => {
                tracing::debug!(tool.name = self.tool, method = method.escape_debug().to_string(), "for nobody");
            }
            Heard::Noise(why) => self.skipped(&line, why),
        }
        ControlFlow::Continue(())
    }

    fn greeted(&mut self, line: &str, phase: &watch::Sender<Phase>) -> ControlFlow<End> {
        match Hello::read(line) {
            Ok(hello) => {
                self.ready = true;
                self.write(hello::initialized());
                phase.send_replace(Phase::Ready(Arc::new(hello)));
                ControlFlow::Continue(())
            }
            Err(why) => self.died(&why),
        }
    }

    fn skipped(&self, line: &[u8], why: &str) {
        let head = String::from_utf8_lossy(line.get(..line.len().min(200)).unwrap_or_default()).into_owned();
        let line = crate::call::visible(&head);
        tracing::warn!(tool.name = self.tool, why, line, "a line of the tool's server was skipped");
    }

    /// Ends the process, and tells everybody who waits.
    async fn finish(self, end: End, phase: &watch::Sender<Phase>) -> End {
        let unwritten = self.out.front().filter(|_| self.written == 0).and_then(|(id, _)| *id);
        let Self { process, stdin, stdout, under_way, .. } = self;
        drop((stdin, stdout));
        let why = match &end {
            End::Stopped => "the tool's server was stopped".to_owned(),
            End::Died(why) => format!("the tool's server is gone: {why}"),
        };
        phase.send_replace(Phase::Down(why.as_str().into()));
        for (id, caller) in under_way {
            let unanswered =
                if Some(id) == unwritten { Unanswered::NotSent(why.clone()) } else { Unanswered::Lost(why.clone()) };
            drop(caller.answer.send(Err(unanswered)));
        }
        let status = process.bury().await;
        match end {
            End::Died(why) if why != status => End::Died(format!("{why}; {status}")),
            end => end,
        }
    }

    /// What is known of its end already says more.
    fn died(&mut self, why: &str) -> ControlFlow<End> {
        ControlFlow::Break(End::Died(self.ended.take().map_or_else(|| why.to_owned(), |(why, _)| why)))
    }
}

/// What the next event is waited for with.
struct Parts<'a> {
    process: Option<&'a mut Process>,
    stdin: &'a mut ChildStdin,
    stdout: &'a mut ChildStdout,
    read: &'a mut BytesMut,
    out: Option<&'a [u8]>,
    takes: bool,
}

/// Each of these may be dropped and begun again without a loss.
async fn next(parts: Parts<'_>, desk: &mut Desk, late: impl Future<Output = ()>) -> Event {
    let Parts { process, stdin, stdout, read, out, takes } = parts;
    read.reserve(CHUNK);
    let ended = async {
        match process {
            Some(process) => process.ended().await,
            None => std::future::pending().await,
        }
    };
    let write = async {
        match out {
            Some(bytes) => stdin.write(bytes).await,
            None => std::future::pending().await,
        }
    };
    // A request is begun when the one before it is written: until then it may still be withdrawn.
    let takes = takes && out.is_none();
    tokio::select! {
        _ = desk.stop.wait_for(|stop| *stop) => Event::Stop,
        Some(gone) = desk.gone.recv() => Event::Gone(gone),
        wrote = write => Event::Wrote(wrote),
        said = stdout.read_buf(read) => Event::Said(said),
        status = ended => Event::Ended(status),
        Some(order) = desk.orders.recv(), if takes => Event::Order(order),
        () = late => Event::Late,
    }
}
