//! What a call will change, as far as it may be shown: the first thing that approvers see.

use serde_json::{Value, json};

use crate::call::{Certainty, Change, Changes, REDACTED, States, changes, redacted, visible};
use crate::snapshot::Snapshot;
use crate::store::{CallRecord, Preview, Store};

use super::exact::{Exact, Field, fields};

/// The effect of one call as its preview has it.
#[derive(Debug)]
pub(super) struct Foreseen {
    preview: Preview,
    states: States,
    changes: Option<Changes>,
    moved: Option<Changes>,
    /// The states are not kept any more, or cannot be read.
    gone: bool,
}

impl Foreseen {
    /// Reads it from the store; none for a call whose target nobody looked at.
    pub(super) async fn of(s: &Snapshot, store: &Store, record: &CallRecord, exact: &Exact) -> Option<Self> {
        let preview = record.preview.as_deref()?.clone();
        let stored = store.states(record).await;
        let gone = stored.is_err();
        let stored = stored.unwrap_or_default();
        // What was to be hidden then, and what is to be hidden now.
        let today = s.operation(&record.operation).map(|o| o.redact.clone()).unwrap_or_default();
        let hide: Vec<String> = preview.redact.iter().cloned().chain(today).collect();
        let pair = |a: &Option<Value>, b: &Option<Value>| {
            let found = changes(a.as_ref()?, b.as_ref()?, &hide);
            let shown = |v: Option<Value>| v.map(|v| masked(v, &exact.secrets));
            let all = found.all.into_iter().map(|c| Change { from: shown(c.from), value: shown(c.value), ..c });
            Some(Changes { all: all.collect(), unchanged: found.unchanged })
        };
        let (changes, moved) = (pair(&stored.before, &stored.after), pair(&stored.was, &stored.before));
        let show = |v: Option<Value>| v.map(|v| masked(redacted(&v, &hide), &exact.secrets));
        let states = States { before: show(stored.before), after: show(stored.after), was: show(stored.was) };
        Some(Self { preview, states, changes, moved, gone })
    }

    /// For the API.
    pub(super) fn json(&self) -> Value {
        let p = &self.preview;
        let all = |c: &Option<Changes>| c.as_ref().map(|c| c.all.clone());
        json!({
            "certainty": p.certainty.as_str(),
            "why": self.why(),
            "before": p.target.as_ref().map(|target| json!({
                "target": target, "read_at": p.read_at, "fence": p.fence,
                "sha256": p.states.map(|s| s.digest), "state": self.states.before,
            })),
            "patch": all(&self.changes),
            "unchanged": self.changes.as_ref().map(|c| c.unchanged),
            "moved": all(&self.moved),
        })
    }

    /// How sure it is.
    pub(super) fn certainty(&self) -> Certainty {
        if self.gone { Certainty::Unknown } else { self.preview.certainty }
    }

    /// The differences, where they are known.
    pub(super) fn all(&self) -> Option<&[Change]> {
        self.changes.as_ref().map(|c| c.all.as_slice())
    }

    fn why(&self) -> Option<String> {
        if self.gone { Some("what was read is not kept any more".into()) } else { self.preview.why.clone() }
    }
}

/// A state in which no text is a redacted argument: a tool may keep one under another name.
fn masked(mut value: Value, secrets: &[String]) -> Value {
    match &mut value {
        Value::Object(members) => members.iter_mut().for_each(|(_, v)| *v = masked(v.take(), secrets)),
        Value::Array(items) => items.iter_mut().for_each(|v| *v = masked(v.take(), secrets)),
        Value::String(text) if secrets.contains(text) => value = REDACTED.into(),
        _ => {}
    }
    value
}

/// One difference as the page shows it.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) op: &'static str,
    pub(super) path: String,
    pub(super) from: String,
    pub(super) to: String,
}

pub(super) fn rows(changes: &[Change]) -> Vec<Row> {
    let text = |v: &Option<Value>| v.as_ref().map(|v| visible(&v.to_string())).unwrap_or_default();
    let row = |c: &Change| Row {
        op: c.op.as_str(),
        path: visible(if c.path.is_empty() { "(all)" } else { &c.path }),
        from: text(&c.from),
        to: text(&c.value),
    };
    changes.iter().map(row).collect()
}

/// A path is read by `GET`; a tool is asked by its name.
fn asked(target: &str) -> String {
    if target.starts_with('/') { format!("GET {target}") } else { target.to_owned() }
}

/// What the page shows.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) certainty: &'static str,
    pub(super) is_unknown: bool,
    pub(super) why: String,
    pub(super) read: String,
    pub(super) rows: Vec<Row>,
    pub(super) nothing: bool,
    pub(super) unchanged: usize,
    pub(super) moved: Vec<Row>,
    pub(super) before: Vec<Field>,
}

impl Shown {
    pub(super) fn new(foreseen: &Foreseen) -> Self {
        let p = &foreseen.preview;
        let fence = p.fence.as_deref().unwrap_or_default();
        let read = p.target.as_ref().map(|target| visible(&format!("{} · {} · {fence}", asked(target), p.read_at)));
        let before = foreseen.states.before.as_ref();
        let all = |c: &Option<Changes>| c.as_ref().map(|c| rows(&c.all)).unwrap_or_default();
        Self {
            certainty: p.certainty.as_str(),
            is_unknown: p.certainty == Certainty::Unknown,
            why: foreseen.why().as_deref().map(visible).unwrap_or_default(),
            read: read.unwrap_or_default(),
            nothing: foreseen.changes.as_ref().is_some_and(|c| c.all.is_empty()),
            unchanged: foreseen.changes.as_ref().map_or(0, |c| c.unchanged),
            rows: all(&foreseen.changes),
            moved: all(&foreseen.moved),
            before: before.map(|state| fields(state, &[], &p.redact)).unwrap_or_default(),
        }
    }
}
