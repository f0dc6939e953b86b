//! The names of the points behind each step of the state machine, for crash tests.

use crate::failpoint;
use crate::store::Step;

/// A step is in the journal's queue, and perhaps not on the disk.
pub(super) fn queued(step: Step) {
    failpoint::hit(match step {
        Step::Parked => "parked.queued",
        Step::Begun => "begun.queued",
        Step::BegunAgain => "begun_again.queued",
        Step::Found => "found.queued",
        Step::NotFound => "not_found.queued",
        Step::Voted => "voted.queued",
        Step::Approved => "approved.queued",
        Step::Attached => "attached.queued",
        Step::Renewed => "renewed.queued",
        Step::Edited => "edited.queued",
        Step::Claimed => "claimed.queued",
        Step::Unclaimed => "unclaimed.queued",
        Step::Commented => "commented.queued",
        Step::EvidenceAsked => "evidence_asked.queued",
        Step::Escalated => "escalated.queued",
        Step::Halted => "halted.queued",
        Step::Continued => "continued.queued",
        Step::Expiring => "expiring.queued",
        Step::Waiting => "waiting.queued",
        Step::Rejected => "rejected.queued",
        Step::Withdrawn => "withdrawn.queued",
        Step::Revoked => "revoked.queued",
        Step::Expired => "expired.queued",
        Step::Concluded => "concluded.queued",
        Step::Died => "died.queued",
        Step::Opined => "opined.queued",
        Step::Collected => "collected.queued",
        Step::Reconciled => "reconciled.queued",
    });
}
