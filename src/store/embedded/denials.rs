//! What reviewers refuse for a while beside the call that they rejected: calls like it.

use serde::{Deserialize, Serialize};

use crate::call::{CallId, PrincipalKey, Timestamp};
use crate::store::{CallRecord, State};

/// One rejection that stands for calls like it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Denial {
    call: CallId,
    principal: PrincipalKey,
    operation: String,
    workflow: String,
    until: Timestamp,
}

/// Those that are not over.
#[derive(Debug, Default)]
pub(super) struct Denials(Vec<Denial>);

impl Denials {
    /// Takes in what a rejected call says of others.
    pub(super) fn follow(&mut self, record: &CallRecord) {
        let Some(until) = record.deny_alike.filter(|_| matches!(record.state, State::Rejected | State::Revoked)) else {
            return;
        };
        self.0.retain(|d| d.call != record.id && d.until > record.updated);
        self.0.push(Denial {
            call: record.id,
            principal: record.principal.key(),
            operation: record.operation.clone(),
            workflow: record.context.workflow.clone(),
            until,
        });
    }

    /// The rejection that stands for this call, too: of the same caller, for the same person, operation and workflow.
    /// What takes another call back is never meant, nor what policy allows by itself.
    pub(super) fn of(&self, record: &CallRecord, now: Timestamp) -> Option<CallId> {
        let held = record.state == State::Held && record.undoes.is_none();
        let principal = record.principal.key();
        let meant = |d: &&Denial| {
            now < d.until
                && d.principal == principal
                && d.operation == record.operation
                && d.workflow == record.context.workflow
        };
        self.0.iter().rev().filter(|_| held).find(meant).map(|d| d.call)
    }

    pub(super) fn image(&mut self, now: Timestamp) -> Vec<Denial> {
        self.0.retain(|d| now < d.until);
        self.0.clone()
    }

    pub(super) fn restore(image: &[Denial]) -> Self {
        Self(image.to_vec())
    }
}
