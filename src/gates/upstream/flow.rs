//! An answer that flows: pieces as they come, and for MCP the event that carries the response told apart.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use crate::call::sse::{Event, Splitter};
use crate::gates::session::Listener;

use super::pool::Connection;
use super::resume::Resume;
use super::stdio::Telling;

/// The raw body, and where it comes from.
#[derive(Debug)]
pub(super) struct Raw {
    from: Source,
    left: usize,
    idle: Duration,
}

#[derive(Debug)]
enum Source {
    Http(Incoming, Connection),
    /// Events that are made of what a child process says.
    Stdio(Box<Telling>),
}

impl Source {
    /// The next bytes; none of trailers, which do not pass.
    async fn next(&mut self) -> Option<Result<Option<Bytes>, String>> {
        match self {
            Self::Stdio(telling) => telling.next().await.map(|told| told.map(Some)),
            Self::Http(body, connection) => match body.frame().await {
                None => {
                    connection.give_back();
                    None
                }
                Some(Err(e)) => Some(Err(e.to_string())),
                Some(Ok(frame)) => Some(Ok(frame.into_data().ok())),
            },
        }
    }
}

impl Raw {
    /// At most `limit` bytes, and never silent for longer than `idle`.
    pub(super) fn new(body: Incoming, connection: Connection, limit: usize, idle: Duration) -> Self {
        Self { from: Source::Http(body, connection), left: limit, idle }
    }

    /// The same, of a child process.
    pub(super) fn of(telling: Telling, limit: usize, idle: Duration) -> Self {
        Self { from: Source::Stdio(Box::new(telling)), left: limit, idle }
    }

    pub(super) async fn next(&mut self) -> Option<Result<Bytes, String>> {
        loop {
            let bytes = match tokio::time::timeout(self.idle, self.from.next()).await {
                Err(_) => return Some(Err("the answer stopped coming".into())),
                Ok(None) => return None,
                Ok(Some(Err(why))) => return Some(Err(why)),
                Ok(Some(Ok(None))) => continue,
                Ok(Some(Ok(Some(bytes)))) => bytes,
            };
            match self.left.checked_sub(bytes.len()) {
                Some(left) => self.left = left,
                None => return Some(Err("the answer is over the operation's limit".into())),
            }
            return Some(Ok(bytes));
        }
    }
}

/// A part of a flowing answer.
#[derive(Debug)]
pub enum Piece {
    /// Bytes as they came.
    Bytes(Bytes),
    /// The event that carries the response: its bytes, and the JSON-RPC message in it.
    Response(Bytes, String),
}

/// An answer that flows.
#[derive(Debug)]
pub struct Flow {
    raw: Raw,
    ready: VecDeque<Piece>,
    events: Option<Events>,
    over: Option<Over>,
}

/// When a stream without an end of its own is over.
struct Over(BoxFuture<'static, ()>);

impl std::fmt::Debug for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Over")
    }
}

/// What is known of a stream of events.
#[derive(Debug)]
struct Events {
    splitter: Splitter,
    /// The id of the request whose response is looked for.
    id: String,
    answered: bool,
    last_id: Option<String>,
    retry: Option<u64>,
    resume: Option<Box<Resume>>,
    listener: Option<Listener>,
}

/// One event may be so long, whatever the answer may be.
const EVENT: usize = 16 << 20;

impl Flow {
    pub(super) fn bytes(raw: Raw, first: Bytes) -> Self {
        let ready = if first.is_empty() { VecDeque::new() } else { VecDeque::from([Piece::Bytes(first)]) };
        Self { raw, ready, events: None, over: None }
    }

    pub(super) fn events(raw: Raw, id: &str) -> Self {
        let splitter = Splitter::new(raw.left.min(EVENT));
        let events = Events {
            splitter,
            id: id.to_owned(),
            answered: false,
            last_id: None,
            retry: None,
            resume: None,
            listener: None,
        };
        Self { raw, ready: VecDeque::new(), events: Some(events), over: None }
    }

    /// A stream that its server closes before the response is taken up again where it ended (2025-11-25, transports).
    pub(super) fn resume_by(&mut self, resume: Resume) {
        if let Some(events) = &mut self.events {
            events.resume = Some(Box::new(resume));
        }
    }

    /// Its events are this principal's to resume from.
    pub fn heard_by(&mut self, listener: Listener) {
        if let Some(events) = &mut self.events {
            events.listener = Some(listener);
        }
    }

    /// It ends there, whatever its server still has to say.
    pub fn ends_when(&mut self, over: BoxFuture<'static, ()>) {
        self.over = Some(Over(over));
    }

    /// Whether this is a stream of MCP events.
    #[must_use]
    pub fn is_events(&self) -> bool {
        self.events.is_some()
    }

    /// Whether the response was among them.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.events.as_ref().is_none_or(|e| e.answered)
    }

    /// The next piece; an error when the answer broke off.
    pub async fn next(&mut self) -> Option<Result<Piece, String>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some(Ok(piece));
            }
            let bytes = match &mut self.over {
                Some(over) => tokio::select! {
                    biased;
                    () = &mut over.0 => return None,
                    bytes = self.raw.next() => bytes,
                },
                None => self.raw.next().await,
            };
            let bytes = match bytes {
                Some(Ok(bytes)) => bytes,
                Some(Err(why)) => return Some(Err(why)),
                None => match self.end().await {
                    Ok(true) => continue,
                    Ok(false) => return self.ready.pop_front().map(Ok),
                    Err(why) => return Some(Err(why)),
                },
            };
            let Some(events) = &mut self.events else { return Some(Ok(Piece::Bytes(bytes))) };
            match events.take(&bytes) {
                Ok(pieces) => self.ready.extend(pieces),
                Err(why) => return Some(Err(why)),
            }
        }
    }

    /// After the last byte: what is left of a stream of events, and whether it goes on.
    async fn end(&mut self) -> Result<bool, String> {
        let Some(events) = &mut self.events else { return Ok(false) };
        if let (false, Some(last), Some(resume)) = (events.answered, &events.last_id, &events.resume) {
            drop(events.splitter.rest());
            self.raw = resume.open(last, events.retry, self.raw.left).await?;
            return Ok(true);
        }
        let rest = events.splitter.rest();
        if !rest.is_empty() {
            self.ready.push_back(Piece::Bytes(rest));
        }
        Ok(false)
    }
}

impl Events {
    fn take(&mut self, bytes: &[u8]) -> Result<Vec<Piece>, String> {
        let events = self.splitter.push(bytes).map_err(|e| e.to_string())?;
        let mut pieces = Vec::with_capacity(events.len());
        for event in events {
            self.last_id = event.id.clone().or(self.last_id.take());
            self.retry = event.retry.or(self.retry);
            if let (Some(listener), Some(id)) = (&self.listener, &event.id) {
                listener.told(id);
            }
            let piece = told(event, &self.id);
            self.answered |= matches!(piece, Piece::Response(..));
            pieces.push(piece);
        }
        Ok(pieces)
    }
}

/// Whether an event carries the response with the id that was asked.
fn told(event: Event, id: &str) -> Piece {
    let Some(data) = event.data.filter(|d| !d.is_empty()) else { return Piece::Bytes(event.raw) };
    if id.is_empty() {
        return Piece::Bytes(event.raw);
    }
    let is_response = serde_json::from_str::<Value>(&data).is_ok_and(|message| {
        let same =
            message.get("id").map(Value::to_string) == serde_json::from_str::<Value>(id).ok().map(|v| v.to_string());
        same && message.get("method").is_none() && (message.get("result").is_some() || message.get("error").is_some())
    });
    if is_response { Piece::Response(event.raw, data) } else { Piece::Bytes(event.raw) }
}
