//! What the store writes into the journal: one entry per step, with the whole record after it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::call::{CallId, Digest, PauseScope};
use crate::journal::{Reader, Render};
use crate::store::changed::Changed;
use crate::store::{Artifact, AuditNote, CallRecord, Grant, Pause, Sample, Step, TopUp};

use super::Recovery;
use super::alike::DecisionsImage;
use super::denials::Denial;
use super::forgotten::Forgotten;
use super::ledger::LedgersImage;
use super::tally::TallyImage;
use super::trust::TrustsImage;

/// The event of one frame.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Entry {
    /// First in every segment: what older segments still carry.
    Snapshot(Box<Image>),
    /// A process took the store over.
    Epoch { epoch: u64, key_id: Digest, pid: u32 },
    /// A step of a call, with the whole record after it: the first step in each segment is written so.
    Call { step: Step, record: Arc<CallRecord> },
    /// A later step of a call, with what it changed. Who writes it knows the next record already.
    Step {
        step: Step,
        id: CallId,
        changed: Box<Changed>,
        #[serde(skip)]
        next: Option<Arc<CallRecord>>,
    },
    /// An artifact was put.
    Artifact { artifact: Arc<Artifact> },
    /// A grant as it is from now on.
    Grant { grant: Arc<Grant> },
    /// A sampled call as it is from now on.
    Sample { sample: Arc<Sample> },
    /// The kill switch stops something from now on.
    Paused { pause: Pause },
    /// What it had stopped goes on.
    Resumed { scope: PauseScope, reason: String, by: String },
    /// A person gave a ledger more room.
    ToppedUp { top_up: TopUp },
    /// Retention took what is older.
    Forgotten(Forgotten),
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
    #[serde(default)]
    pub(super) grants: Vec<Arc<Grant>>,
    #[serde(default)]
    pub(super) denials: Vec<Denial>,
    #[serde(default)]
    pub(super) decisions: DecisionsImage,
    #[serde(default)]
    pub(super) samples: Vec<Arc<Sample>>,
    #[serde(default)]
    pub(super) forgotten: Forgotten,
    #[serde(default)]
    pub(super) pauses: Vec<Pause>,
    #[serde(default)]
    pub(super) trusts: TrustsImage,
}

/// The record that these frames of one call add up to.
///
/// # Errors
/// When a frame cannot be read or is none of a call.
pub(super) fn fold(reader: &Reader, frames: &[u64]) -> Result<CallRecord, String> {
    let mut folded: Option<CallRecord> = None;
    for seq in frames {
        let frame = reader.frame(*seq).map_err(|e| format!("record {seq}: {e}"))?;
        let entry: Entry = serde_json::from_str(frame.event.get()).map_err(|e| format!("record {seq}: {e}"))?;
        folded = match (entry, folded) {
            (Entry::Call { record, .. }, _) => Some(followed(Arc::unwrap_or_clone(record), *seq)),
            (Entry::Step { changed, .. }, Some(mut record)) => {
                changed.apply(&mut record);
                Some(followed(record, *seq))
            }
            _ => return Err(format!("record {seq} is no step of this call")),
        };
    }
    folded.ok_or_else(|| "a call without frames".to_owned())
}

/// Payloads of the frame that is being written get its number.
pub(super) fn placed(record: &mut CallRecord, seq: u64) {
    record.payloads_mut().filter(|p| p.seq == 0).for_each(|p| p.seq = seq);
}

/// The record with the frame that it stands in now.
pub(super) fn followed(mut record: CallRecord, seq: u64) -> CallRecord {
    record.seq = seq;
    record.frames.push(seq);
    record
}

impl Entry {
    /// Its JSON, made later in the journal's thread.
    pub(super) fn render(self: Arc<Self>) -> Render {
        Box::new(move |out| serde_json::to_writer(out, &*self).map_err(|e| e.to_string()))
    }
}
