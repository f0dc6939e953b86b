//! A pause: what the kill switch has stopped, by whom, why. Sans-io.

use serde::{Deserialize, Serialize};

use crate::call::{PauseScope, Stopped, Timestamp};

use super::CallRecord;

/// While it is on, no call in its scope begins, and the clocks of those that wait stand still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// What is stopped.
    pub scope: PauseScope,
    /// Why, in writing; for people only.
    pub reason: String,
    /// Who (after linking accounts).
    pub by: String,
    /// From when on.
    pub since: Timestamp,
}

/// What a step on pauses came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseDone {
    /// The pause.
    pub pause: Pause,
    /// Whether something changed: the same scope is not stopped twice.
    pub changed: bool,
    /// Calls whose clocks stand still now, or go on.
    pub waiting: usize,
    /// Calls in its scope that were begun before, and whose end is not known yet: nothing can take those back.
    pub in_flight: usize,
}

impl CallRecord {
    /// What a pause is compared with.
    #[must_use]
    pub fn stopped(&self) -> Stopped<'_> {
        Stopped {
            agent: &self.principal.agent,
            workflow: &self.context.workflow,
            tool: &self.tool,
            is_undo: self.undoes.is_some(),
        }
    }
}
