//! What an operator stops with the kill switch: everything, or one agent, workflow or tool.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Code, Refusal, Timestamp};

/// What is stopped: `all`, `agent:NAME`, `workflow:NAME` or `tool:NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PauseScope {
    /// Every call.
    All,
    /// Calls of this agent, in every organisation.
    Agent(String),
    /// Calls in this workflow.
    Workflow(String),
    /// Calls to this tool.
    Tool(String),
}

/// What a pause is compared with.
#[derive(Debug, Clone, Copy)]
pub struct Stopped<'a> {
    /// The agent.
    pub agent: &'a str,
    /// The workflow.
    pub workflow: &'a str,
    /// The tool.
    pub tool: &'a str,
    /// A person takes back what was done: that an agent or a workflow is stopped must not prevent it.
    pub is_undo: bool,
}

/// When a stopped caller may ask again; nobody knows when it goes on.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// The longest name.
const LONGEST: usize = 200;

/// The text names no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a scope is `all`, `agent:NAME`, `workflow:NAME` or `tool:NAME`")]
pub struct NoScope;

impl PauseScope {
    /// The kinds, as metrics name them.
    pub const KINDS: [&'static str; 4] = ["all", "agent", "workflow", "tool"];

    /// Its kind: one of [`PauseScope::KINDS`].
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Agent(_) => "agent",
            Self::Workflow(_) => "workflow",
            Self::Tool(_) => "tool",
        }
    }

    /// What its callers hear. Why it was stopped is for people.
    #[must_use]
    pub fn refusal(&self, since: Timestamp) -> Refusal {
        let what = match self {
            Self::All => "all calls were".to_owned(),
            Self::Agent(name) => format!("agent {name} was"),
            Self::Workflow(name) => format!("workflow {name} was"),
            Self::Tool(name) => format!("tool {name} was"),
        };
        let text = format!("{what} stopped by an operator; nothing was sent. People who may `resume` let it go on");
        let refusal = Refusal::new(Code::Paused, text).with("reason", "stopped").with("scope", self.to_string());
        refusal.with("since", since.to_string()).with_retry_after(ASK_AGAIN)
    }

    /// Whether it stops this call.
    #[must_use]
    pub fn stops(&self, call: Stopped<'_>) -> bool {
        match self {
            Self::All => true,
            Self::Agent(name) => name == call.agent && !call.is_undo,
            Self::Workflow(name) => name == call.workflow && !call.is_undo,
            Self::Tool(name) => name == call.tool,
        }
    }
}

impl fmt::Display for PauseScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Agent(name) => write!(f, "agent:{name}"),
            Self::Workflow(name) => write!(f, "workflow:{name}"),
            Self::Tool(name) => write!(f, "tool:{name}"),
        }
    }
}

impl FromStr for PauseScope {
    type Err = NoScope;
    fn from_str(text: &str) -> Result<Self, NoScope> {
        if text == "all" {
            return Ok(Self::All);
        }
        let (kind, name) = text.split_once(':').ok_or(NoScope)?;
        if name.is_empty() || name.len() > LONGEST || name.chars().any(char::is_control) {
            return Err(NoScope);
        }
        let name = name.to_owned();
        match kind {
            "agent" => Ok(Self::Agent(name)),
            "workflow" => Ok(Self::Workflow(name)),
            "tool" => Ok(Self::Tool(name)),
            _ => Err(NoScope),
        }
    }
}

impl Serialize for PauseScope {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PauseScope {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(is_undo: bool) -> Stopped<'static> {
        Stopped { agent: "bot", workflow: "refunds", tool: "crm", is_undo }
    }

    #[test]
    fn a_scope_stops_what_it_names_and_nothing_else() {
        for (text, calls, undos) in [
            ("all", true, true),
            ("agent:bot", true, false),
            ("agent:bot2", false, false),
            ("workflow:refunds", true, false),
            ("workflow:bot", false, false),
            ("tool:crm", true, true),
            ("tool:refunds", false, false),
        ] {
            let scope: PauseScope = text.parse().unwrap();
            assert_eq!((scope.stops(call(false)), scope.stops(call(true))), (calls, undos), "{text}");
            assert_eq!(scope.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        let long = format!("agent:{}", "a".repeat(LONGEST + 1));
        for text in ["", "everything", "agent", "agent:", "ALL", "group:x", "agent:a\nb", &long] {
            assert_eq!(text.parse::<PauseScope>(), Err(NoScope), "{text}");
        }
    }
}
