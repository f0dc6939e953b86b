//! Reads that the proxy makes by itself: with its own credential, of operations that change nothing, for what people
//! must decide about. No agent asks, so no policy is asked; its tool must be working and be the one that was accepted.

use std::time::Duration;

use crate::call::{Call, Operation, OwnRead, Refusal, Stopped};
use crate::gates::breaker::State;
use crate::gates::upstream::{Endpoint, Read};
use crate::snapshot::Snapshot;

use super::Pipeline;

/// Longest that a call waits for one of them.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a read for this operation may take.
pub(super) fn patience(operation: &Operation) -> Duration {
    PATIENCE.min(operation.limits.deadline)
}

impl Pipeline {
    /// Asks an operation with arguments that are taken from a call.
    ///
    /// # Errors
    /// In words, why nothing was found out: that says nothing of the call.
    pub(super) async fn own_read(&self, s: &Snapshot, rule: &OwnRead, call: &Call) -> Result<Read, String> {
        let operation = s.operation(&rule.operation).ok_or("its read operation is gone")?;
        let (endpoint, base) = self.answering(s, &operation.tool.name)?;
        self.pins.check(operation).map_err(|refusal| words(&refusal))?;
        let asked = s.schemas.own(operation, rule.arguments(call.arguments())?).map_err(|refusal| words(&refusal))?;
        self.upstreams.read_by(endpoint, base, operation, asked, patience(operation)).await
    }

    /// Nothing goes to a stopped tool, whoever wants to know; that an agent or a workflow is stopped is no matter.
    pub(super) fn tool_is_stopped(&self, tool: &str) -> bool {
        self.store.stopping(Stopped { agent: "", workflow: "", tool, is_undo: true }).is_some()
    }

    /// Where a tool is reached, while it works and nobody has stopped it.
    pub(super) fn answering<'s>(&self, s: &'s Snapshot, tool: &str) -> Result<(&'s Endpoint, &'s str), String> {
        let failing =
            self.breakers.states().into_iter().any(|(t, state)| t == tool && !matches!(state, State::Closed { .. }));
        if failing {
            return Err("its tool is failing and is not asked".into());
        }
        if self.tool_is_stopped(tool) {
            return Err("its tool is stopped by an operator and is not asked".into());
        }
        let endpoint = s.endpoints.get(tool).ok_or("its tool is gone")?;
        Ok((endpoint, base(s, tool)))
    }
}

/// Base path of a tool's upstream.
pub(super) fn base<'s>(s: &'s Snapshot, tool: &str) -> &'s str {
    s.config.tools.iter().find(|t| t.tool.name == tool).map_or("", |t| t.upstream.base())
}

fn words(refusal: &Refusal) -> String {
    let places = refusal.errors().iter().map(|v| format!("`{}` {}", v.pointer, v.message));
    let places: Vec<String> = places.collect();
    let more = if places.is_empty() { String::new() } else { format!(": {}", places.join("; ")) };
    format!("{}{more}", refusal.public_text())
}
