//! The journal as a log for people: what a record says in a line, without what it carries.

use serde_json::Value;

use crate::call::{CallId, Digest, Fault, Timestamp};

use super::Store;

/// One record of the journal, in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its number; no gaps.
    pub seq: u64,
    /// Store time.
    pub at: Timestamp,
    /// Chain hash of the record before.
    pub prev: Digest,
    /// Its own.
    pub hash: Digest,
    /// `parked`, `voted`, `concluded` … for steps of a call, else the kind of the note or the type of the record.
    pub kind: String,
    /// The call that it is about.
    pub call: Option<CallId>,
    /// Its operation, where the record says it.
    pub operation: Option<String>,
    /// Who did it, where a person did, or whom the note is about.
    pub who: Option<String>,
    /// A stable code, where it has one; what was stopped, or goes on.
    pub code: Option<String>,
}

/// What kind of record this event is.
#[must_use]
pub fn kind_of(event: &Value) -> String {
    let text = |at: &str| event.pointer(at).and_then(Value::as_str);
    let found = text("/step").or_else(|| text("/note/kind")).or_else(|| text("/type"));
    found.unwrap_or_default().to_owned()
}

/// The person who took this step of a call, from what the step wrote.
fn who(event: &Value, kind: &str) -> Option<String> {
    let body = event.pointer("/changed").or_else(|| event.pointer("/record"))?;
    let last = |list: &str, name: &str| body.pointer(list)?.as_array()?.last()?.get(name)?.as_str();
    let text = |at: &str| body.pointer(at)?.as_str();
    let found = match kind {
        "voted" | "approved" => last("/approvals", "person"),
        "edited" => last("/edited/edits", "person"),
        "claimed" => text("/handling/claim/person"),
        "commented" => last("/handling/comments", "by"),
        "evidence_asked" => last("/handling/requests", "by"),
        "escalated" => last("/handling/escalations", "by"),
        "attached" => last("/evidence", "by"),
        "opined" => text("/opinion/person"),
        "parked" | "begun" => text("/principal/agent"),
        _ => text("/note/by"),
    };
    found.map(str::to_owned)
}

impl Logged {
    fn new((seq, at, prev, hash): (u64, Timestamp, Digest, Digest), event: &Value) -> Self {
        let text = |at: &str| event.pointer(at).and_then(Value::as_str).map(str::to_owned);
        let first = |all: &[&str]| all.iter().find_map(|at| text(at));
        let kind = kind_of(event);
        let by = match event.get("type").and_then(Value::as_str) {
            Some("note") => first(&["/note/principal", "/note/more/user", "/note/more/by"]),
            Some("grant") => first(&["/grant/ended/by", "/grant/by"]),
            Some("sample") => text("/sample/judged/by"),
            Some("paused") => text("/pause/by"),
            Some("resumed") => text("/by"),
            Some("topped_up") => text("/top_up/by"),
            _ => who(event, &kind),
        };
        let call = first(&["/id", "/record/id", "/note/call", "/grant/from", "/sample/id"]);
        Self {
            seq,
            at,
            prev,
            hash,
            call: call.and_then(|id| id.parse().ok()),
            operation: first(&["/record/operation", "/note/operation", "/grant/operation", "/sample/operation"]),
            who: by,
            code: first(&["/note/code", "/changed/note/code", "/pause/scope", "/scope"]),
            kind,
        }
    }
}

impl Store {
    /// A durable record of the journal. Blocks on the disk.
    ///
    /// # Errors
    /// When it is not there (any more), or damaged.
    pub fn logged(&self, seq: u64) -> Result<Logged, Fault> {
        let frame = self.inner.journal.reader().frame(seq);
        let frame = frame.map_err(|e| Fault::caused("a record of the journal cannot be read", e))?;
        let event = serde_json::from_str(frame.event.get());
        let event = event.map_err(|e| Fault::caused("a record of the journal is no JSON", e))?;
        Ok(Logged::new((frame.seq, frame.at, frame.prev, frame.hash), &event))
    }

    /// How many records the newest signed checkpoint covers; 0 without one that can be believed.
    #[must_use]
    pub fn signed(&self) -> u64 {
        self.inner.checkpoints.signed()
    }
}
