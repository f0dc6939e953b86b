//! What retention has taken. It is said in the journal first, and holds from that record on: whatever of it index or
//! journal still have is not told any more, after a restart and from a rebuilt index neither.

use serde::{Deserialize, Serialize};

use crate::call::{CallId, Timestamp};
use crate::store::{Artifact, CallRecord};

use super::index::Stored;

/// Concluded calls and evidence from before these times are gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Forgotten {
    /// Of calls: when their last step was.
    pub(super) calls: Timestamp,
    /// Of evidence: when it was put.
    pub(super) artifacts: Timestamp,
}

/// The index finds what is old by its id, whose first 48 bits are the milliseconds of its making (RFC 9562, UUIDv7).
fn made_before(bits: u128, end: Timestamp) -> bool {
    bits < first_bits(end)
}

/// Ids made before `end` are smaller.
pub(super) fn first_bits(end: Timestamp) -> u128 {
    u128::from(u64::try_from(end.as_millis()).unwrap_or(0)) << 80
}

impl Forgotten {
    /// Both of them: what is gone stays so, though retention may be set to keep more now.
    pub(super) fn and(self, other: Self) -> Self {
        Self { calls: self.calls.max(other.calls), artifacts: self.artifacts.max(other.artifacts) }
    }

    pub(super) fn has_stored(&self, id: CallId, stored: &Stored) -> bool {
        stored.updated < self.calls && made_before(id.bits(), self.calls)
    }

    pub(super) fn has_call(&self, record: &CallRecord) -> bool {
        record.state.is_final() && record.updated < self.calls && made_before(record.id.bits(), self.calls)
    }

    pub(super) fn has_artifact(&self, artifact: &Artifact) -> bool {
        let evidence = &artifact.evidence;
        evidence.at < self.artifacts && made_before(evidence.id.bits(), self.artifacts)
    }
}
