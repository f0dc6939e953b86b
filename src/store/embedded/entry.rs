//! What the store writes into the journal: one entry per step, with the whole record after it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::call::{CallId, Digest, Timestamp};
use crate::journal::Render;
use crate::store::{Artifact, AuditNote, CallRecord, Step};

use super::Recovery;
use super::ledger::LedgersImage;
use super::tally::TallyImage;

/// The event of one frame.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Entry {
    /// First in every segment: what older segments still carry.
    Snapshot(Box<Image>),
    /// A process took the store over.
    Epoch { epoch: u64, key_id: Digest, pid: u32 },
    /// A step of a call; the record is the one after it.
    Call { step: Step, record: Arc<CallRecord> },
    /// The outcome was handed to the agent.
    Collected { id: CallId, at: Timestamp },
    /// An artifact was put.
    Artifact { artifact: Arc<Artifact> },
    /// Anything that is no step of a call with effects.
    Note { note: AuditNote },
    /// What an open found and did.
    Recovery { recovery: Recovery },
    /// An orderly end: nothing that was recorded before it is missing.
    Closed { epoch: u64 },
}

/// The state that older segments carry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Image {
    pub(super) epoch: u64,
    pub(super) key_id: Option<Digest>,
    pub(super) calls: Vec<Arc<CallRecord>>,
    pub(super) ledgers: LedgersImage,
    pub(super) tally: TallyImage,
}

impl Entry {
    /// Its JSON, made later in the journal's thread.
    pub(super) fn render(self: Arc<Self>) -> Render {
        Box::new(move || serde_json::to_string(&*self).and_then(RawValue::from_string).map_err(|e| e.to_string()))
    }
}
