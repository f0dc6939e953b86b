//! MCP servers that are child processes and speak over their standard input and output: one for each tool, shared by
//! all cores and all agents, kept over reloads. Holdpoint makes the handshake; clients of both eras are served from it.

mod cancel;
mod era;
mod hello;
mod life;
mod lines;
mod message;
mod process;
mod supervise;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use crate::call::Call;
use crate::config::StdioServer;
use crate::gates::idempotency::Calls;
use crate::tasks::Tracker;

use super::Manner;
use super::answer::{Answer, Got, GotBody, Lost};
use super::client::result_of;
use super::flow::{Flow, Raw};
use super::started::Started;
use super::unsent::Unsent;

use self::cancel::{Cancels, Named};
use self::era::{Read, Request, Told};
use self::hello::Hello;
use self::life::{Caller, Desk, Gone, Order, Unanswered};
use self::supervise::Phase;

/// Requests that may wait to be written.
const QUEUE: usize = 64;
/// Signs of progress that may wait for a slow client.
const PROGRESS: usize = 64;

/// The servers of all tools that are commands. Outlives every configuration version.
#[derive(Debug, Default)]
pub struct Servers {
    /// Where the children are tended; without one none is started.
    runtime: Option<Handle>,
    known: Mutex<HashMap<String, Vec<Weak<Server>>>>,
    tracker: Tracker,
}

impl Servers {
    /// Tended on this runtime.
    #[must_use]
    pub fn here() -> Self {
        Self { runtime: Handle::try_current().ok(), ..Self::default() }
    }

    /// The server of a tool: the one that is there, while its command is the same.
    pub(super) fn of(&self, tool: &str, command: &StdioServer) -> Arc<Server> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let all = known.entry(tool.to_owned()).or_default();
        all.retain(|server| server.strong_count() > 0);
        if let Some(same) = all.iter().filter_map(Weak::upgrade).find(|server| server.command == *command) {
            return same;
        }
        let server = Arc::new(Server::new(tool, command, self.runtime.clone(), self.tracker.clone()));
        all.push(Arc::downgrade(&server));
        server
    }

    /// Ends every child, and waits for that.
    pub async fn stop(&self) {
        let known = std::mem::take(&mut *self.known.lock().unwrap_or_else(PoisonError::into_inner));
        for server in known.values().flatten().filter_map(Weak::upgrade) {
            server.stop.send_replace(true);
        }
        self.tracker.idle().await;
    }
}

/// The server of one tool. Its child ends when the last configuration version that names it is gone.
#[derive(Debug)]
pub struct Server {
    tool: String,
    command: StdioServer,
    runtime: Option<Handle>,
    tracker: Tracker,
    /// Until it is started.
    desk: Mutex<Option<(Desk, watch::Sender<Phase>)>>,
    orders: mpsc::Sender<Order>,
    gone: mpsc::UnboundedSender<Gone>,
    phase: watch::Receiver<Phase>,
    stop: watch::Sender<bool>,
    next: AtomicU64,
    cancels: Cancels,
}

impl Server {
    fn new(tool: &str, command: &StdioServer, runtime: Option<Handle>, tracker: Tracker) -> Self {
        let (orders, ordered) = mpsc::channel(QUEUE);
        let (gone, left) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let (phases, phase) = watch::channel(Phase::Starting);
        let desk = Desk { orders: ordered, gone: left, stop: stopped };
        Self {
            tool: tool.to_owned(),
            command: command.clone(),
            runtime,
            tracker,
            desk: Mutex::new(Some((desk, phases))),
            orders,
            gone,
            phase,
            stop,
            next: AtomicU64::new(hello::ID + 1),
            cancels: Cancels::default(),
        }
    }

    /// Starts the child, unless it was started before.
    pub(super) fn start(&self) {
        let mut waiting = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(runtime) = &self.runtime else { return };
        if let Some((desk, phase)) = waiting.take() {
            let _here = runtime.enter();
            let work = supervise::run(self.tool.clone(), self.command.clone(), desk, phase);
            drop(self.tracker.spawn(work));
        }
    }

    /// What it said of itself, once it is there.
    ///
    /// # Errors
    /// Why it is down.
    async fn hello(&self) -> Result<Arc<Hello>, String> {
        self.start();
        if self.runtime.is_none() {
            return Err("commands are not started here".into());
        }
        let mut phase = self.phase.clone();
        let there = phase.wait_for(|phase| !matches!(phase, Phase::Starting)).await;
        match there.as_deref() {
            Ok(Phase::Ready(hello)) => Ok(Arc::clone(hello)),
            Ok(Phase::Down(why)) => Err(why.to_string()),
            Ok(Phase::Starting) | Err(_) => Err("it was stopped".into()),
        }
    }

    /// Sends one call, and takes in what comes of it.
    pub(super) async fn send(self: &Arc<Self>, call: &Call, manner: Manner<'_>, started: &Arc<Started>) -> Answer {
        match era::read(call.request()) {
            Err(why) => Answer::NotSent(Unsent::Ours(why.into())),
            Ok(Read::Told(told)) => got(told),
            Ok(Read::Greet(greeting)) => match self.hello().await {
                Ok(hello) if greeting.wants_session() => in_session(got(greeting.told(&hello))),
                Ok(hello) => got(greeting.told(&hello)),
                Err(why) => Answer::NotSent(Unsent::NoConnection(why)),
            },
            Ok(Read::Cancel(id)) => {
                self.cancel(call, &id);
                got(Told::empty(StatusCode::ACCEPTED))
            }
            Ok(Read::Forward(request)) => self.carry(request, call, manner, started).await,
        }
    }

    async fn carry(
        self: &Arc<Self>,
        request: Request,
        call: &Call,
        manner: Manner<'_>,
        started: &Arc<Started>,
    ) -> Answer {
        let accepts = |(name, value): &(String, String)| name == "accept" && value.contains("text/event-stream");
        let streams = request.wants_progress() && !manner.own_session && call.request().headers.iter().any(accepts);
        // What was begun durably is carried to its end, too.
        let reads = !Calls::is_claimed(call);
        let mut waiting = match self.ask(request, reads, started).await {
            Ok(waiting) => waiting,
            Err(unanswered) => return unanswered.into(),
        };
        // A call with effects is carried to its end, whoever wants to hear of it.
        let session = session(call).filter(|_| reads);
        waiting.named = session.map(|s| self.cancels.name(s, waiting.request.id(), waiting.id));
        let limits = &call.operation().limits;
        loop {
            match waiting.next().await {
                Heard::Progress(line) if streams => {
                    let telling = Telling::of(waiting, &line);
                    return streamed(telling, limits.answer, limits.idle);
                }
                Heard::Progress(_) => {}
                Heard::Response(Err(unanswered)) => return unanswered.into(),
                Heard::Response(Ok(line)) if line.len() > limits.answer => {
                    return Answer::Lost(Lost::Invalid("the answer is over the operation's limit"));
                }
                Heard::Response(Ok(line)) => return waiting.told(&line).map_or_else(invalid, got),
            }
        }
    }

    /// The server hears of it, and so does whoever waits for the answer.
    fn cancel(&self, call: &Call, id: &str) {
        let ours = session(call).and_then(|s| self.cancels.find(s, id));
        let told = ours.map(|id| self.gone.send(Gone { id, cancel: true }));
        tracing::debug!(tool.name = self.tool, ?told, "a client cancels a request");
    }

    /// Puts a request where it is written, once the server is there.
    async fn ask(
        self: &Arc<Self>,
        request: Request,
        cancel: bool,
        started: &Arc<Started>,
    ) -> Result<Waiting, Unanswered> {
        self.hello().await.map_err(Unanswered::NotSent)?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let line = request.line(id).map_err(|why| Unanswered::NotSent(why.into()))?;
        let (answer, answered) = oneshot::channel();
        let (progress, told) = mpsc::channel(PROGRESS);
        let order = Order { id, line, started: Arc::clone(started), to: Caller { answer, progress } };
        let gone = self.gone.clone();
        let waiting = Waiting {
            _server: Arc::clone(self),
            id,
            request,
            answered,
            told,
            gone,
            cancel,
            done: false,
            started: Arc::clone(started),
            named: None,
        };
        let left = self.orders.send(order).await;
        left.map_err(|_| Unanswered::NotSent("it was stopped".into()))?;
        Ok(waiting)
    }

    /// The result of a request of the proxy's own, as it came.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn result(self: &Arc<Self>, method: &str, params: &Value) -> Result<String, String> {
        let mut waiting = self.ask(Request::own(method, params), true, &Arc::default()).await?;
        let line = loop {
            if let Heard::Response(response) = waiting.next().await {
                break response?;
            }
        };
        result_of(method, std::str::from_utf8(&line).map_err(|_| "the server's response is not UTF-8")?)
    }
}

impl From<Unanswered> for Answer {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::NotSent(why) => Self::NotSent(Unsent::NoConnection(why)),
            Unanswered::Lost(why) => Self::Lost(Lost::Broken(why)),
            Unanswered::Cancelled => Self::Lost(Lost::Cancelled),
        }
    }
}

impl From<Unanswered> for String {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::NotSent(why) | Unanswered::Lost(why) => why,
            Unanswered::Cancelled => "it was cancelled".into(),
        }
    }
}

const SESSION: &str = "mcp-session-id";

fn session(call: &Call) -> Option<&str> {
    call.request().headers.iter().find(|(name, _)| name == SESSION).map(|(_, id)| id.as_str())
}

/// The session gate knows whose it is from here on; nothing else is kept of it.
fn in_session(mut answer: Answer) -> Answer {
    let id = uuid::Uuid::now_v7().simple().to_string();
    if let (Answer::Got(got), Ok(id)) = (&mut answer, HeaderValue::from_str(&id)) {
        got.headers.insert(SESSION, id);
    }
    answer
}

fn invalid(why: &'static str) -> Answer {
    Answer::Lost(Lost::Invalid(why))
}

fn got(told: Told) -> Answer {
    let mut headers = HeaderMap::new();
    if !told.body.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if told.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static(Method::POST.as_str()));
    }
    Answer::Got(Got { status: told.status, headers, body: GotBody::Whole(Bytes::from(told.body)) })
}

/// A client that waits for its response.
#[derive(Debug)]
struct Waiting {
    /// A reload that drops the tool ends its server only once nobody waits any more.
    _server: Arc<Server>,
    id: u64,
    request: Request,
    answered: oneshot::Receiver<Result<Bytes, Unanswered>>,
    told: mpsc::Receiver<Bytes>,
    gone: mpsc::UnboundedSender<Gone>,
    /// The server is told when nobody waits any more. A call with effects is carried to its end.
    cancel: bool,
    done: bool,
    started: Arc<Started>,
    /// By what its client may cancel it.
    named: Option<Named>,
}

enum Heard {
    Progress(Bytes),
    Response(Result<Bytes, Unanswered>),
}

impl Waiting {
    /// Progress before the response. May be dropped and asked again.
    async fn next(&mut self) -> Heard {
        tokio::select! {
            biased;
            Some(line) = self.told.recv() => Heard::Progress(line),
            response = &mut self.answered => {
                self.done = true;
                Heard::Response(response.unwrap_or_else(|_| Err(self.dropped())))
            }
        }
    }

    /// It was cancelled, or whoever was to answer is gone.
    fn dropped(&self) -> Unanswered {
        let why = "the request was cancelled, or the server was stopped".to_owned();
        if self.started.withdraw() { Unanswered::NotSent(why) } else { Unanswered::Cancelled }
    }

    fn told(&self, line: &Bytes) -> Result<Told, &'static str> {
        self.request.told(std::str::from_utf8(line).map_err(|_| "the server's response is not UTF-8")?)
    }

    fn progress(&self, line: &Bytes) -> Option<Bytes> {
        std::str::from_utf8(line).ok().and_then(|line| self.request.progress(line)).map(|m| event(&m))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.done && self.gone.send(Gone { id: self.id, cancel: self.cancel }).is_err() {
            tracing::trace!("the server is gone, too");
        }
    }
}

/// An answer in events: progress as it comes, then the response.
#[derive(Debug)]
pub(super) struct Telling {
    waiting: Waiting,
    ready: VecDeque<Bytes>,
}

impl Telling {
    fn of(waiting: Waiting, first: &Bytes) -> Self {
        let ready = waiting.progress(first).into_iter().collect();
        Self { waiting, ready }
    }

    /// The next event's bytes.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, String>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(Ok(bytes));
            }
            if self.waiting.done {
                return None;
            }
            match self.waiting.next().await {
                Heard::Progress(line) => self.ready.extend(self.waiting.progress(&line)),
                Heard::Response(Err(unanswered)) => return Some(Err(unanswered.into())),
                Heard::Response(Ok(line)) => {
                    return Some(self.waiting.told(&line).map(|told| event(&told.body)).map_err(str::to_owned));
                }
            }
        }
    }
}

/// One message as an event: JSON on one line.
fn event(message: &str) -> Bytes {
    Bytes::from(format!("event: message\ndata: {}\n\n", message::one_line(message)))
}

fn streamed(telling: Telling, limit: usize, idle: Duration) -> Answer {
    let id = telling.waiting.request.id().to_owned();
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    let flow = Flow::events(Raw::of(telling, limit, idle), &id);
    Answer::Got(Got { status: StatusCode::OK, headers, body: GotBody::Flow(Box::new(flow)) })
}
