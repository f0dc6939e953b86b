//! Tool definitions that are not the ones that the operator accepted: such a tool is paused until they are.
//!
//! `serve` never asks a server for its list; it looks at every list that passes. What was seen is kept in memory: after a
//! restart the first list shows it again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::call::method::Role;
use crate::call::{Code, Digest, Operation, Refusal, Timestamp, ToolKind};
use crate::config::Config;
use crate::config::lock::definition_digest;

/// A definition that a server gave and nobody has accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Drift {
    /// The tool in the configuration.
    pub tool: String,
    /// The name in `tools/call`.
    pub name: String,
    /// What the lock file held then; none for a new tool.
    pub pin: Option<Digest>,
    /// As the server gave it first.
    pub definition: Value,
    /// Digest of that definition.
    pub digest: Digest,
    /// Digest of the definition that the server gave last.
    pub last: Digest,
    /// When it was seen first.
    pub since: Timestamp,
}

/// What a definition in a list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saw {
    /// The accepted one.
    Accepted,
    /// Not seen before, and not accepted.
    News,
    /// Known to wait for an operator.
    Paused,
}

/// Definitions kept for operators; a server that invents names without end is cut off here, and shows none of them.
const KEPT: usize = 10_000;

/// What was seen. Shared by all cores.
#[derive(Debug, Default)]
pub struct Pins(Mutex<BTreeMap<(String, String), Drift>>);

impl Pins {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), Drift>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A server gave a definition: is it the accepted one, and has it been so since it was accepted? What was seen first
    /// is kept for operators: a server that takes it back hides nothing.
    pub fn saw(&self, tool: &str, name: &str, pin: Option<Digest>, definition: &Value, now: Timestamp) -> Saw {
        let digest = definition_digest(definition);
        let mut all = self.lock();
        let key = (tool.to_owned(), name.to_owned());
        if let Some(known) = all.get_mut(&key) {
            known.last = digest;
            return Saw::Paused;
        }
        if pin == Some(digest) {
            return Saw::Accepted;
        }
        // A pinned tool is always remembered: it must not act.
        if all.len() >= KEPT && pin.is_none() {
            return Saw::Paused;
        }
        let (tool, name) = key.clone();
        let (definition, last) = (definition.clone(), digest);
        all.insert(key, Drift { tool, name, pin, definition, digest, last, since: now });
        Saw::News
    }

    /// A tool that was seen with another definition does not act, even if its server has changed it back: who changes
    /// a definition once is looked at first.
    ///
    /// # Errors
    /// `paused`.
    pub fn check(&self, operation: &Operation) -> Result<(), Refusal> {
        if operation.tool.kind != ToolKind::Mcp || operation.role != Role::Call {
            return Ok(());
        }
        let all = self.lock();
        if all.is_empty() || !all.contains_key(&(operation.tool.name.clone(), operation.short.clone())) {
            return Ok(());
        }
        let text = "this tool's definition has changed since it was accepted; an operator must look at it first";
        Err(Refusal::new(Code::Paused, text).with("reason", "definition_changed"))
    }

    /// All that wait for an operator.
    #[must_use]
    pub fn all(&self) -> Vec<Drift> {
        self.lock().values().cloned().collect()
    }

    /// A version of the configuration came into force: a lock file that holds what the server says now, and did not
    /// before, is an operator's word. A reload with the same lock accepts nothing.
    pub fn accepted(&self, config: &Config) {
        self.lock().retain(|_, drift| {
            let Some(tool) = config.tools.iter().find(|t| t.tool.name == drift.tool) else { return false };
            let pin = tool.pins.get(&drift.name).map(|locked| locked.digest);
            pin.is_none() || pin == drift.pin || pin != Some(drift.last)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Effects;
    use crate::policy::sample;
    use serde_json::json;

    #[test]
    fn a_changed_tool_stays_paused_whatever_its_server_says_next() {
        let pins = Pins::default();
        let tool = sample::tool("tickets", ToolKind::Mcp);
        let read = sample::operation(&tool, "get_ticket", Effects::default(), None);
        let other = sample::operation(&tool, "add_comment", Effects::default(), None);
        let now = Timestamp::from_millis(0);
        pins.check(&read).unwrap();
        let good = json!({"name": "get_ticket", "description": "reads"});
        let evil = json!({"name": "get_ticket", "description": "evil"});
        let pin = Some(definition_digest(&good));
        let saw = |definition: &Value| pins.saw("tickets", "get_ticket", pin, definition, now);
        assert_eq!([saw(&good), saw(&evil), saw(&evil)], [Saw::Accepted, Saw::News, Saw::Paused]);
        assert_eq!(saw(&good), Saw::Paused);
        assert_eq!(pins.all()[0].definition, evil, "what an operator must see is gone");
        assert_eq!(pins.check(&read).unwrap_err().code(), Code::Paused);
        pins.check(&other).unwrap();
        assert_eq!(pins.all().len(), 1);
    }
}
