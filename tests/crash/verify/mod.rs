//! The offline verifier: joins the journal, the upstream's own ledger and what agents and approvers were told, and names
//! what breaks an invariant. A program of its own: it reads journal records as JSON and shares no code with store or
//! pipeline, so that a mistake there is not made here once more.

mod fold;
mod join;
mod kept;
mod people;
mod told;

use std::collections::BTreeSet;
use std::time::Duration;

use holdpoint::call::Timestamp;
use serde_json::Value;

pub use join::digest;

/// One record of the journal.
#[derive(Debug, Clone)]
pub struct Line {
    pub seq: u64,
    pub at: Timestamp,
    pub event: Value,
}

/// One executed request, as the upstream wrote it down.
#[derive(Debug, Clone)]
pub struct Effect {
    /// The header that the client made up and the proxy passed on: names one asking, so one call.
    pub nonce: String,
    pub method: String,
    pub path: String,
    pub content_type: Option<String>,
    /// `sha256:…` of the body that came.
    pub body: String,
    /// The `Idempotency-Key` that it came with, where the upstream honours it.
    pub key: Option<String>,
    /// The upstream knew the key and did nothing.
    pub repeat: bool,
    /// Epoch of the process that was running; [`UNSAID`] when it died before it told.
    pub epoch: u64,
}

/// The epoch of a process that never told it.
pub const UNSAID: u64 = 0;

/// What somebody was told, and by which process.
#[derive(Debug, Clone)]
pub struct Told {
    pub epoch: u64,
    pub what: What,
}

#[derive(Debug, Clone)]
pub enum What {
    /// An agent's call was answered.
    Answer(Answer),
    /// A person's decision was confirmed with this state and version.
    Decision { person: String, action: String, call: String, state: String, version: u64 },
    /// Something was stopped, let go on or given more room (`topped_up`), for this reason: each has its own.
    Switched { scope: String, reason: String },
    /// An artifact was taken.
    Artifact(String),
    /// An agent asked how its call stands.
    State { call: String, state: String },
}

/// An answer on the agents' side.
#[derive(Debug, Clone)]
pub struct Answer {
    pub nonce: String,
    /// Whether the operation has effects: only then a record must be on the disk first.
    pub effects: bool,
    pub call: String,
    pub decision: String,
    pub status: u16,
    pub code: String,
    pub executed: String,
    /// `sha256:…` of the body.
    pub body: String,
    /// The nonce that an upstream's answer carries in its body.
    pub names: Option<String>,
}

/// All that is known of one state directory.
#[derive(Debug, Clone)]
pub struct History {
    /// What `audit::verify` said.
    pub chain: Result<(), String>,
    pub lines: Vec<Line>,
    pub effects: Vec<Effect>,
    pub told: Vec<Told>,
    /// The upstream's URL as the configuration names it.
    pub upstream: String,
    /// It ended in order.
    pub closed: bool,
    /// Accounts that are one person.
    pub linked: Vec<(String, String)>,
    /// The index was damaged on purpose: a rebuild is no finding.
    pub tampered: bool,
    /// The first record that is still there; those before it stand in the copy that this history was read from.
    pub first: u64,
    /// Epochs of processes that forgot what was older than [`KEEP`].
    pub forgetful: Vec<u64>,
}

/// How long calls are kept where retention runs; their records in the journal three times as long.
pub const KEEP: Duration = Duration::from_millis(400);

/// Collects findings; each begins with the invariant that it breaks.
#[derive(Debug, Default)]
pub struct Findings(BTreeSet<String>);

impl Findings {
    fn add(&mut self, invariant: &str, what: impl std::fmt::Display) {
        self.0.insert(format!("{invariant}: {what}"));
    }

    fn check(&mut self, holds: bool, invariant: &str, what: impl FnOnce() -> String) {
        if !holds {
            self.add(invariant, what());
        }
    }
}

/// Every violation, by name. Empty: nothing was found.
pub fn verify(history: &History) -> Vec<String> {
    let mut found = Findings::default();
    if let Err(why) = &history.chain {
        found.add("I13", format!("the chain does not hold: {why}"));
    }
    let folded = fold::fold(history, &mut found);
    for call in folded.calls.values() {
        people::check(call, &history.linked, &mut found);
    }
    fold::keys(&folded, &history.forgetful, &mut found);
    kept::check(history, &folded, &mut found);
    join::check(history, &folded, &mut found);
    told::check(history, &folded, &mut found);
    found.0.into_iter().collect()
}

/// A member as text; empty when it is not there.
fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

const FINAL: [&str; 8] =
    ["succeeded", "failed", "not_executed", "rejected", "expired", "withdrawn", "revoked", "stale"];

pub fn is_final(state: &str) -> bool {
    FINAL.contains(&state)
}

/// States that mean: no effect, ever.
fn is_never(state: &str) -> bool {
    is_final(state) && !matches!(state, "succeeded" | "failed")
}
