//! Recorded calls as questions that can be asked again: read from the journal, which a running proxy may go on writing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, BufRead};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::audit::{self, Line};
use crate::call::{
    Asked, Beside, CallContext, CallId, Digest, Facts, Judgement, Principal, REDACTED, Tier, Timestamp, Would,
};
use crate::config::Config;
use crate::store::CallRecord;

pub use crate::audit::ReadError;

/// One recorded call.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Its id.
    pub id: CallId,
    /// When policy was asked.
    pub at: Timestamp,
    /// `crm.refund`.
    pub operation: String,
    /// Who asked.
    pub principal: Arc<Principal>,
    /// In which work.
    pub context: Arc<CallContext>,
    /// With which arguments; redacted ones read `[redacted]`.
    pub arguments: Arc<Value>,
    /// What was known beside; absent in records of older versions.
    pub facts: Option<Arc<Facts>>,
    /// What policy said, or would have said while it only observed.
    pub judgement: Judgement,
    /// What it would have said where it did not rule.
    pub would: Vec<Would>,
    /// Digest of the policies that said so.
    pub policy_digest: Option<Digest>,
    /// A title for people; empty for reads and refused calls.
    pub title: String,
    /// What became of it: `succeeded`, `rejected`, `read`, `refused` …
    pub state: String,
    /// Why it ended so, in words of a reviewer or of the proxy.
    pub note: String,
}

impl From<&CallRecord> for Recorded {
    fn from(r: &CallRecord) -> Self {
        Self {
            id: r.id,
            at: r.created,
            operation: r.operation.clone(),
            principal: Arc::clone(&r.principal),
            context: Arc::clone(&r.context),
            arguments: Arc::clone(&r.arguments),
            facts: r.facts.clone(),
            judgement: observed(&r.would).unwrap_or(r.tier.into()),
            would: r.would.clone(),
            policy_digest: Some(r.policy_digest),
            title: r.title.clone(),
            state: r.state.as_str().to_owned(),
            note: String::new(),
        }
    }
}

impl Recorded {
    /// Names of top-level arguments that hold something redacted.
    #[must_use]
    pub fn redacted(&self) -> BTreeSet<String> {
        let members = self.arguments.as_object().into_iter().flatten();
        members.filter(|(_, value)| hides(value)).map(|(name, _)| name.clone()).collect()
    }
}

fn hides(value: &Value) -> bool {
    match value {
        Value::String(s) => s == REDACTED,
        Value::Array(items) => items.iter().any(hides),
        Value::Object(members) => members.values().any(hides),
        _ => false,
    }
}

/// What the whole set would have said while it only observed.
fn observed(would: &[Would]) -> Option<Judgement> {
    would.iter().find(|w| w.by == Beside::Observed).map(|w| w.judgement)
}

/// What history was read.
#[derive(Debug, Default)]
pub struct History {
    /// Calls of which policy was asked, oldest first.
    pub calls: Vec<Recorded>,
    /// The journal ended in a batch that was not whole yet.
    pub torn: bool,
    /// There are more: it was told to stop, or has as much as it may have.
    pub cut: bool,
}

/// How much of a history is read.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// Calls.
    pub calls: usize,
    /// Bytes of their records.
    pub bytes: usize,
    /// Asked at each record.
    pub go_on: &'a dyn Fn() -> bool,
}

impl std::fmt::Debug for Limits<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Limits({} calls, {} bytes)", self.calls, self.bytes)
    }
}

impl Limits<'_> {
    /// All of it.
    pub const NONE: Self = Self { calls: usize::MAX, bytes: usize::MAX, go_on: &|| true };
}

/// The events of which policy was asked. Members that are not needed are not looked at.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    Call {
        record: Box<Kept>,
    },
    Step {
        id: CallId,
        changed: Changed,
    },
    Note {
        note: Noted,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Kept {
    id: CallId,
    state: String,
    operation: String,
    principal: Arc<Principal>,
    context: Arc<CallContext>,
    arguments: Arc<Value>,
    tier: Tier,
    policy_digest: Digest,
    #[serde(default)]
    facts: Option<Arc<Facts>>,
    #[serde(default)]
    would: Vec<Would>,
    title: String,
    created: Timestamp,
    #[serde(default)]
    note: Option<Words>,
}

#[derive(Deserialize, Default)]
struct Words {
    #[serde(default)]
    text: String,
}

#[derive(Deserialize)]
struct Changed {
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    note: Option<Words>,
}

#[derive(Deserialize)]
struct Noted {
    kind: String,
    #[serde(default)]
    call: Option<CallId>,
    #[serde(default)]
    operation: Option<String>,
    #[serde(default)]
    more: BTreeMap<String, Value>,
}

/// Reads the calls of a state folder, or of a file that `holdpoint audit export` wrote, that were judged at or after
/// `since`, as far as the limits go.
///
/// # Errors
/// When it cannot be read, or a record is bad.
pub fn read(path: &Path, since: Timestamp, limits: Limits<'_>) -> Result<History, ReadError> {
    let mut reading = Reading { history: History::default(), known: HashMap::new(), since, bytes: 0 };
    if path.is_dir() {
        for line in audit::lines(path, first_since(path, since)?)? {
            let over = reading.history.calls.len() > limits.calls || reading.bytes > limits.bytes;
            if over || !(limits.go_on)() {
                reading.history.cut = true;
                break;
            }
            match line {
                Ok(line) => reading.line(&line),
                Err(ReadError::Bad(bad)) if bad.torn => reading.history.torn = true,
                Err(e) => return Err(e),
            }
        }
    } else {
        let file = io::BufReader::new(std::fs::File::open(path)?);
        for text in file.lines().skip(1) {
            let line: Line = serde_json::from_str(&text?).map_err(io::Error::from)?;
            reading.line(&line);
        }
    }
    Ok(reading.history)
}

/// The first record of the newest segment that began before `since`: what was judged later stands in it or behind it.
fn first_since(state: &Path, since: Timestamp) -> io::Result<u64> {
    let all = crate::journal::segments(&state.join("journal"))?;
    let before = |s: &crate::journal::Segment| s.begins().ok().flatten().is_some_and(|at| at < since);
    let found = all.iter().rev().find(|s| before(s)).or(all.first());
    Ok(found.map_or(1, |s| s.first))
}

/// How long after its making a call may have been judged, and its record been written.
const LATEST: Duration = Duration::from_secs(3600);

/// The call with this id, from the records of a state folder around the time that it was made.
///
/// # Errors
/// As [`read`].
pub fn one(state: &Path, id: CallId) -> Result<Option<Recorded>, ReadError> {
    let made = Timestamp::from_millis(i64::try_from(id.bits() >> 80).unwrap_or(i64::MAX));
    let (since, until) = (made.minus(Duration::from_secs(60)), made.plus(LATEST));
    let mut reading =
        Reading { history: History::default(), known: HashMap::new(), since: Timestamp::from_millis(0), bytes: 0 };
    let text = id.to_string();
    for line in audit::lines(state, first_since(state, since)?)? {
        match line {
            Ok(line) if line.at > until => break,
            Ok(line) if line.event.get().contains(&text) => reading.line(&line),
            Ok(_) => {}
            Err(ReadError::Bad(bad)) if bad.torn => {}
            Err(e) => return Err(e),
        }
    }
    Ok(reading.history.calls.into_iter().find(|call| call.id == id))
}

struct Reading {
    history: History,
    known: HashMap<CallId, usize>,
    since: Timestamp,
    /// Of the calls' records.
    bytes: usize,
}

/// Bytes that one JSON value takes in memory, roughly.
const VALUE: usize = 64;

impl Reading {
    fn line(&mut self, line: &Line) {
        let before = self.history.calls.len();
        match serde_json::from_str(line.event.get()) {
            Ok(Event::Call { record }) => self.kept(*record),
            Ok(Event::Step { id, changed }) => self.changed(id, changed),
            Ok(Event::Note { note }) => self.noted(note, line.at),
            Ok(Event::Other) | Err(_) => {}
        }
        if self.history.calls.len() > before {
            // A value takes more room in memory than it does in the text.
            let text = line.event.get();
            self.bytes += text.len() + VALUE * text.bytes().filter(|b| *b == b',').count();
        }
    }

    fn kept(&mut self, kept: Kept) {
        let note = kept.note.map(|n| n.text).unwrap_or_default();
        if let Some(known) = self.known.get(&kept.id).and_then(|i| self.history.calls.get_mut(*i)) {
            // The first step in each segment is written whole.
            (known.state, known.note) = (kept.state, note);
            return;
        }
        if kept.created < self.since {
            return;
        }
        self.known.insert(kept.id, self.history.calls.len());
        self.history.calls.push(Recorded {
            id: kept.id,
            at: kept.created,
            operation: kept.operation,
            principal: kept.principal,
            context: kept.context,
            arguments: kept.arguments,
            facts: kept.facts,
            judgement: observed(&kept.would).unwrap_or(kept.tier.into()),
            would: kept.would,
            policy_digest: Some(kept.policy_digest),
            title: kept.title,
            state: kept.state,
            note,
        });
    }

    fn changed(&mut self, id: CallId, changed: Changed) {
        let Some(known) = self.known.get(&id).and_then(|i| self.history.calls.get_mut(*i)) else { return };
        if let Some(state) = changed.state {
            known.state = state;
        }
        if let Some(words) = changed.note {
            known.note = words.text;
        }
    }

    fn noted(&mut self, mut note: Noted, at: Timestamp) {
        let judged = ["call.read", "call.refused"].contains(&note.kind.as_str());
        if !judged || at < self.since {
            return;
        }
        let asked = note.more.remove("asked").and_then(|v| serde_json::from_value::<Asked>(v).ok());
        let (Some(asked), Some(id), Some(operation)) = (asked, note.call, note.operation) else {
            // What only carries the protocol, and what another gate refused, was never judged.
            return;
        };
        let policy_digest = note.more.get("policy_digest").and_then(|v| serde_json::from_value(v.clone()).ok());
        self.known.insert(id, self.history.calls.len());
        self.history.calls.push(Recorded {
            id,
            at: asked.facts.now,
            operation,
            principal: asked.principal,
            context: Arc::new(asked.context),
            arguments: Arc::new(asked.arguments),
            facts: Some(Arc::new(asked.facts)),
            judgement: observed(&asked.would).unwrap_or(asked.judgement),
            would: asked.would,
            policy_digest,
            title: String::new(),
            state: note.kind.trim_start_matches("call.").to_owned(),
            note: String::new(),
        });
    }
}

/// The folder in which a configuration keeps its records.
#[must_use]
pub fn folder(config: &Config) -> &Path {
    &config.state.path
}
