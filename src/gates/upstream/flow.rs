//! An answer that flows: pieces as they come, and for MCP the event that carries the response told apart.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use crate::call::sse::{Event, Splitter};

use super::pool::Connection;

/// An upstream that sends nothing for so long is taken for dead.
const IDLE: Duration = Duration::from_secs(120);

/// The raw body with its connection.
#[derive(Debug)]
pub(super) struct Raw {
    body: Incoming,
    connection: Connection,
    left: usize,
}

impl Raw {
    pub(super) fn new(body: Incoming, connection: Connection, limit: usize) -> Self {
        Self { body, connection, left: limit }
    }

    pub(super) async fn next(&mut self) -> Option<Result<Bytes, String>> {
        loop {
            let frame = match tokio::time::timeout(IDLE, self.body.frame()).await {
                Err(_) => return Some(Err("the answer stopped coming".into())),
                Ok(None) => {
                    self.connection.give_back();
                    return None;
                }
                Ok(Some(Err(e))) => return Some(Err(e.to_string())),
                Ok(Some(Ok(frame))) => frame,
            };
            // Trailers do not pass.
            let Ok(bytes) = frame.into_data() else { continue };
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
    events: Option<(Splitter, String)>,
    answered: bool,
}

impl Flow {
    pub(super) fn bytes(raw: Raw, first: Bytes) -> Self {
        let ready = if first.is_empty() { VecDeque::new() } else { VecDeque::from([Piece::Bytes(first)]) };
        Self { raw, ready, events: None, answered: false }
    }

    pub(super) fn events(raw: Raw, id: &str) -> Self {
        let limit = raw.left;
        Self { raw, ready: VecDeque::new(), events: Some((Splitter::new(limit), id.to_owned())), answered: false }
    }

    /// Whether this is a stream of MCP events.
    #[must_use]
    pub fn is_events(&self) -> bool {
        self.events.is_some()
    }

    /// The next piece; an error when the answer broke off.
    pub async fn next(&mut self) -> Option<Result<Piece, String>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some(Ok(piece));
            }
            let bytes = match self.raw.next().await {
                Some(Ok(bytes)) => bytes,
                Some(Err(why)) => return Some(Err(why)),
                None => return self.end(),
            };
            match &mut self.events {
                None => return Some(Ok(Piece::Bytes(bytes))),
                Some((splitter, id)) => match splitter.push(&bytes) {
                    Ok(events) => {
                        for event in events {
                            let piece = told(event, id);
                            self.answered |= matches!(piece, Piece::Response(..));
                            self.ready.push_back(piece);
                        }
                    }
                    Err(e) => return Some(Err(e.to_string())),
                },
            }
        }
    }

    /// A stream that ended before the response is a broken answer.
    fn end(&mut self) -> Option<Result<Piece, String>> {
        let (splitter, id) = self.events.as_mut()?;
        let rest = splitter.rest();
        if !self.answered && !id.is_empty() {
            self.answered = true;
            return Some(Err("the stream ended before the response".into()));
        }
        (!rest.is_empty()).then_some(Ok(Piece::Bytes(rest)))
    }
}

/// Whether an event carries the response with the id that was asked.
fn told(event: Event, id: &str) -> Piece {
    let Some(data) = event.data.filter(|d| !d.is_empty()) else { return Piece::Bytes(event.raw) };
    let is_response = serde_json::from_str::<Value>(&data).is_ok_and(|message| {
        let same =
            message.get("id").map(Value::to_string) == serde_json::from_str::<Value>(id).ok().map(|v| v.to_string());
        same && message.get("method").is_none() && (message.get("result").is_some() || message.get("error").is_some())
    });
    if is_response { Piece::Response(event.raw, data) } else { Piece::Bytes(event.raw) }
}
