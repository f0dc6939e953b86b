//! What the wire needs from the rest: the mounts, and where a message goes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::call::{Ended, Incoming, ToolKind};
use crate::clock::Clock;
use crate::tasks::Tracker;

use super::own::{OwnReply, OwnRequest, TaskReply, TaskRequest};

/// A tool's place below the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its path segments.
    pub segments: Vec<String>,
    /// The tool.
    pub tool: String,
    /// REST or MCP.
    pub kind: ToolKind,
    /// The largest body that any of its operations takes.
    pub body_limit: usize,
}

/// What one configuration version shows to agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surface {
    /// Host names without port.
    pub allowed_hosts: Vec<String>,
    /// Mounts; none is a prefix of another.
    pub mounts: Vec<Mount>,
}

impl Surface {
    /// The mount that these segments are below, and the segments that remain.
    #[must_use]
    pub fn mount<'a>(&self, segments: &'a [String]) -> Option<(&Mount, &'a [String])> {
        self.mounts.iter().find_map(|m| segments.strip_prefix(m.segments.as_slice()).map(|rest| (m, rest)))
    }
}

type Future1<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Answer<Q, A> = Box<dyn Fn(Q) -> Future1<A> + Send + Sync>;

/// Where the agents' listener hands its messages on; one for each core.
pub struct Edge {
    /// Today's mounts and hosts.
    pub surface: Box<dyn Fn() -> Arc<Surface> + Send + Sync>,
    /// Carries a message through the gates.
    pub handle: Answer<Incoming, Ended>,
    /// Answers `/-/…`: an agent's questions about its own calls.
    pub own: Answer<OwnRequest, OwnReply>,
    /// Answers questions about holds that a client knows as tasks.
    pub task: Answer<TaskRequest, TaskReply>,
    /// Counts what was refused before anybody was identified.
    pub refused: Box<dyn Fn(&'static str) + Send + Sync>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Counts calls under way.
    pub tracker: Tracker,
    /// Room for request bodies in memory, KiB, shared by all cores.
    pub room: Arc<Semaphore>,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Edge")
    }
}
