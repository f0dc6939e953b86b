//! Conclude: what the answer means, recorded before the agent hears its end.

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::call::{Broken, Call, Code, Digest, Executed, Outcome, Refusal, Reply, ReplyBody, Tier};
use crate::failpoint;
use crate::gates::upstream::{Answer, Flow, Got, GotBody, Lost, Piece, Unsent};
use crate::store::{AnswerBody, Conclusion, Note, State};
use crate::tasks;

use super::{Calls, InFlight};

/// An answer up to here is kept for replay; of a longer one only length and digest.
const KEPT: usize = 1 << 20;
/// Pieces that may wait for a slow agent.
const QUEUE: usize = 16;
/// An agent that takes nothing for so long gets no more of an answer.
const STALLED: std::time::Duration = std::time::Duration::from_secs(10);

pub(super) fn unknown(code: &str, text: &str) -> Conclusion {
    ended(State::Unknown, code, text)
}

fn ended(state: State, code: &str, text: &str) -> Conclusion {
    let note = Note { code: code.to_owned(), text: text.to_owned(), by: None };
    Conclusion { state, answer: None, body: AnswerBody::None, note: Some(note) }
}

impl Calls {
    /// Ends an attempt. After an effect nothing here turns the answer into a refusal: if it cannot be recorded, the
    /// agent gets it as it is, and the store refuses new calls.
    ///
    /// # Errors
    /// What provably was not sent, and what is unknown.
    pub async fn conclude(&self, mut flight: InFlight, answer: Answer, call: &Call) -> Result<Outcome, Refusal> {
        match answer {
            // The attempt before this one was lost: that this one was not sent proves nothing of the call.
            Answer::NotSent(why) if flight.attempt > 1 => self.lost(flight, Lost::Broken(why.to_string()), call).await,
            Answer::Got(got) if flight.attempt > 1 && Unsent::said(call, got.status).is_some() => {
                self.lost(flight, Lost::Invalid("an attempt was lost, and the upstream did nothing at the next"), call)
                    .await
            }
            Answer::NotSent(why) => {
                tracing::warn!(call.id = %call.id(), %why, "nothing was sent");
                let text = "the upstream cannot be reached; nothing was sent";
                self.end(&mut flight, ended(State::NotExecuted, Code::UpstreamUnreachable.as_str(), text)).await;
                Err(Refusal::new(Code::UpstreamUnreachable, text).for_call(call.id()))
            }
            Answer::Lost(lost) => self.lost(flight, lost, call).await,
            Answer::Got(got) => {
                let tier = flight.tier;
                let reply = match got.body {
                    GotBody::Whole(body) => self.whole(flight, call, got.status, got.headers, body).await,
                    GotBody::Flow(flow) => self.flowing(flight, call, got.status, got.headers, flow),
                };
                Ok(Outcome::Forwarded { call: call.id(), tier, reply })
            }
        }
    }

    async fn lost(&self, mut flight: InFlight, lost: Lost, call: &Call) -> Result<Outcome, Refusal> {
        tracing::warn!(call.id = %call.id(), ?lost, "the outcome is unknown");
        let code = if matches!(lost, Lost::Deadline) { "upstream_timeout" } else { "connection_lost" };
        self.end(&mut flight, unknown(code, "the request was sent and no whole answer came")).await;
        let text = "it may have been executed; no machine sends it again. Ask the people who own the tool";
        Err(Refusal::new(Code::OutcomeUnknown, text).with("retryable", false).for_call(call.id()))
    }

    /// Records; a failure is an alarm, not a refusal.
    async fn end(&self, flight: &mut InFlight, mut conclusion: Conclusion) {
        let Some(begun) = flight.take() else { return };
        if conclusion.state == State::NotExecuted && begun.attempt > 1 {
            let text = "an attempt was lost, and the upstream did nothing at the next one";
            conclusion = unknown("connection_lost", text);
        }
        if let Err(fault) = self.store.conclude(begun, conclusion).await {
            self.metrics.store_errors.with_label_values(&["conclude"]).inc();
            tracing::error!(fault = %fault.chain(), "an outcome could not be recorded");
        }
    }

    async fn whole(
        &self,
        mut flight: InFlight,
        call: &Call,
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
    ) -> Reply {
        let state = meaning(call, status, Some(&body));
        let kept = if body.len() <= KEPT {
            AnswerBody::Kept(body.clone())
        } else {
            AnswerBody::Digest(body.len() as u64, Digest::of(&body))
        };
        self.end(&mut flight, answered(state, status, &headers, kept)).await;
        Reply { status, headers, body: ReplyBody::Whole(body) }
    }

    /// A longer answer flows as it comes; its end waits for the record.
    fn flowing(&self, flight: InFlight, call: &Call, status: StatusCode, headers: HeaderMap, flow: Box<Flow>) -> Reply {
        let (tx, rx) = mpsc::channel(QUEUE + 1);
        let last_word = Mutex::new(tx.clone().try_reserve_owned().ok());
        let pump =
            Pump { calls: self.clone(), call: call.clone(), status, headers: headers.clone(), to: tx, last_word };
        self.tracker.spawn(pump.run(flight, flow));
        Reply { status, headers, body: ReplyBody::Stream(rx) }
    }
}

/// Carries a flowing answer of a call with effects to its end, whether or not the agent still listens.
struct Pump {
    calls: Calls,
    call: Call,
    status: StatusCode,
    headers: HeaderMap,
    to: mpsc::Sender<Result<Bytes, Broken>>,
    /// Room for saying that the answer is broken, to an agent that does not read; taken once that was said.
    last_word: Mutex<Option<mpsc::OwnedPermit<Result<Bytes, Broken>>>>,
}

impl Pump {
    async fn run(self, mut flight: InFlight, mut flow: Box<Flow>) {
        let left = self.call.deadline().saturating_duration_since(self.calls.clock.instant());
        let whole = tokio::time::timeout(left, self.carry(&mut flight, &mut flow)).await;
        if !matches!(whole, Ok(Ok(()))) {
            let lost = unknown("answer_cut", "the answer broke off before its end");
            self.calls.end(&mut flight, lost).await;
            self.send(Err(Broken)).await;
        }
    }

    /// Passes pieces on, holding the last one (or the event with the response) back until the record is durable.
    async fn carry(&self, flight: &mut InFlight, flow: &mut Flow) -> Result<(), String> {
        let read = if self.call.request().rpc.is_some() { self.call.operation().limits.answer } else { KEPT };
        let mut spool = Spool { limit: read, ..Spool::default() };
        let mut last: Option<Bytes> = None;
        while let Some(piece) = flow.next().await {
            match piece? {
                Piece::Bytes(bytes) => {
                    // What comes before the response may be a question that the server waits for.
                    if flow.is_events() {
                        self.send(Ok(bytes)).await;
                        continue;
                    }
                    spool.take(&bytes);
                    if let Some(before) = last.replace(bytes) {
                        self.send(Ok(before)).await;
                    }
                }
                Piece::Response(raw, message) => {
                    self.respond(flight, message).await;
                    self.send(Ok(raw)).await;
                }
            }
        }
        if !flow.is_answered() {
            return Err("the stream ended before the response".into());
        }
        if flight.begun.is_some() {
            let state = match (&self.call.request().rpc, spool.bytes()) {
                // Too long to read whole: what it means is not known, and nobody guesses.
                (Some(_), None) => State::Unknown,
                (_, bytes) => meaning(&self.call, self.status, bytes.as_ref()),
            };
            self.calls.end(flight, answered(state, self.status, &self.headers, spool.kept())).await;
        }
        failpoint::hit("flow.last");
        if let Some(bytes) = last {
            self.send(Ok(bytes)).await;
        }
        Ok(())
    }

    /// The response of an MCP stream is the answer that a replay gives.
    async fn respond(&self, flight: &mut InFlight, message: String) {
        let body = Bytes::from(message);
        let state = meaning(&self.call, self.status, Some(&body));
        let kept = if body.len() <= KEPT {
            AnswerBody::Kept(body)
        } else {
            AnswerBody::Digest(body.len() as u64, Digest::of(&body))
        };
        let mut headers = self.headers.clone();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        self.calls.end(flight, answered(state, self.status, &headers, kept)).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<mpsc::OwnedPermit<Result<Bytes, Broken>>>> {
        self.last_word.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An agent that has stopped reading is let go after a while: the answer is recorded all the same.
    async fn send(&self, piece: Result<Bytes, Broken>) {
        if self.lock().is_none() {
            return;
        }
        let sent = tokio::time::timeout(STALLED, self.to.send(piece)).await;
        if !matches!(sent, Ok(Ok(()))) {
            // What it has read so far must not look whole.
            let said = self.lock().take().map(|room| room.send(Err(Broken))).is_some();
            tracing::debug!(call.id = %self.call.id(), said, "the agent has hung up or does not read");
        }
    }
}

/// Keeps a flowing body for replay, up to a bound; its digest in any case.
struct Spool {
    kept: Option<BytesMut>,
    limit: usize,
    len: u64,
    digest: Context,
}

impl Default for Spool {
    fn default() -> Self {
        Self { kept: Some(BytesMut::new()), limit: KEPT, len: 0, digest: Context::new(&SHA256) }
    }
}

impl Spool {
    fn take(&mut self, bytes: &Bytes) {
        self.len += bytes.len() as u64;
        self.digest.update(bytes);
        match &mut self.kept {
            Some(kept) if kept.len() + bytes.len() <= self.limit => kept.extend_from_slice(bytes),
            _ => self.kept = None,
        }
    }

    /// All of it, while it is short enough to be read.
    fn bytes(&self) -> Option<Bytes> {
        self.kept.as_ref().map(|k| Bytes::copy_from_slice(k))
    }

    fn kept(self) -> AnswerBody {
        if let Some(kept) = self.kept.filter(|k| k.len() <= KEPT) {
            return AnswerBody::Kept(kept.freeze());
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(self.digest.finish().as_ref());
        AnswerBody::Digest(self.len, Digest::from_bytes(digest))
    }
}

fn answered(state: State, status: StatusCode, headers: &HeaderMap, body: AnswerBody) -> Conclusion {
    let text = |(n, v): (&http::HeaderName, &http::HeaderValue)| {
        std::str::from_utf8(v.as_bytes()).ok().map(|v| (n.as_str().to_owned(), v.to_owned()))
    };
    let headers = headers.iter().filter_map(text).collect();
    let (code, text) = match status {
        StatusCode::PRECONDITION_FAILED => {
            (Code::Stale, "its target moved in the instant it was sent; nothing was done, ask anew")
        }
        _ => (Code::UpstreamUnreachable, "the upstream said: not now; nothing was done"),
    };
    let note = || Note { code: code.as_str().into(), text: text.into(), by: None };
    let note = (state == State::NotExecuted).then(note);
    Conclusion { state, answer: Some((status.as_u16(), headers)), body, note }
}

/// What a whole answer means for the call.
fn meaning(call: &Call, status: StatusCode, body: Option<&Bytes>) -> State {
    if Unsent::said(call, status).is_some() {
        return State::NotExecuted;
    }
    if call.request().rpc.is_none() {
        return if status.is_success() || status.is_redirection() { State::Succeeded } else { State::Failed };
    }
    let message = body.and_then(|b| serde_json::from_slice::<Value>(b).ok());
    let is_error = message
        .as_ref()
        .is_some_and(|m| m.get("error").is_some() || m.pointer("/result/isError") == Some(&Value::Bool(true)));
    if status.is_success() && !is_error { State::Succeeded } else { State::Failed }
}

/// The outcome of a plain read: nothing was claimed, nothing is recorded but a note.
///
/// # Errors
/// Why there is no answer.
pub fn read_outcome(answer: Answer, call: &Call, tier: Tier) -> Result<Outcome, Refusal> {
    let refuse =
        |code, text: &'static str| Err(Refusal::new(code, text).with_executed(Executed::No).for_call(call.id()));
    match answer {
        Answer::NotSent(why) => {
            tracing::warn!(call.id = %call.id(), %why, "nothing was sent");
            refuse(Code::UpstreamUnreachable, "the upstream cannot be reached")
        }
        Answer::Lost(Lost::Deadline) => refuse(Code::UpstreamTimeout, "the upstream did not answer in time"),
        Answer::Lost(Lost::Cancelled) => refuse(Code::Withdrawn, "it was cancelled before its answer came"),
        Answer::Lost(Lost::Broken(why)) => {
            tracing::warn!(call.id = %call.id(), why, "an answer broke off");
            refuse(Code::UpstreamUnreachable, "the upstream's answer broke off")
        }
        Answer::Lost(Lost::Invalid(why)) => refuse(Code::InvalidAnswer, why),
        Answer::Got(Got { status, headers, body }) => {
            let body = match body {
                GotBody::Whole(bytes) => ReplyBody::Whole(bytes),
                GotBody::Flow(flow) => ReplyBody::Stream(stream(flow)),
            };
            Ok(Outcome::Forwarded { call: call.id(), tier, reply: Reply { status, headers, body } })
        }
    }
}

/// A read's answer as it comes; when the agent hangs up, the upstream's connection is closed.
fn stream(mut flow: Box<Flow>) -> mpsc::Receiver<Result<Bytes, Broken>> {
    let (tx, rx) = mpsc::channel(QUEUE);
    tasks::spawn(async move {
        loop {
            let next = tokio::select! {
                next = flow.next() => next,
                () = tx.closed() => return,
            };
            let piece = match next {
                None => return,
                Some(Ok(Piece::Bytes(bytes) | Piece::Response(bytes, _))) => Ok(bytes),
                Some(Err(_)) => Err(Broken),
            };
            if tx.send(piece).await.is_err() {
                return;
            }
        }
    });
    rx
}
