//! What an agent may ask about its own calls: below `/-/` (`contract.md` 2.1), and as MCP tasks (`mcp.md` 2.3.1).

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use crate::call::{Credentials, HoldId, HoldTimes, Outcome, Preference, Refusal, Reply};

/// A request below `/-/`.
#[derive(Debug)]
pub struct OwnRequest {
    /// Method.
    pub method: Method,
    /// Segments below `/-/`.
    pub segments: Vec<String>,
    /// What the client presented.
    pub credentials: Credentials,
    /// Address of the peer.
    pub peer: IpAddr,
    /// `Prefer`.
    pub prefer: Preference,
    /// JSON body, where there is one.
    pub json: Option<Value>,
    /// The body's bytes.
    pub body: Bytes,
}

/// Its answer.
#[derive(Debug)]
pub enum OwnReply {
    /// JSON, with further headers.
    Json(StatusCode, Value, HeaderMap),
    /// An upstream's answer as it came.
    Result(Reply),
    /// A refusal.
    Refused(Refusal),
}

/// What is asked of a hold that a client knows as a task (SEP-2663).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskVerb {
    /// `tasks/get`.
    Get,
    /// `tasks/update`: answers to questions, of which a hold has none.
    Update,
    /// `tasks/cancel`.
    Cancel,
}

impl TaskVerb {
    /// The verb of a method.
    #[must_use]
    pub fn of(method: &str) -> Option<Self> {
        match method {
            "tasks/get" => Some(Self::Get),
            "tasks/update" => Some(Self::Update),
            "tasks/cancel" => Some(Self::Cancel),
            _ => None,
        }
    }
}

/// A question about a hold that a client knows as a task.
#[derive(Debug)]
pub struct TaskRequest {
    /// What is asked.
    pub verb: TaskVerb,
    /// Of which hold.
    pub hold: HoldId,
    /// At which tool's mount.
    pub tool: String,
    /// What the client presented.
    pub credentials: Credentials,
}

/// Its answer.
#[derive(Debug)]
pub enum TaskReply {
    /// How it stands.
    Told {
        /// The hold.
        hold: HoldId,
        /// Its clocks.
        times: HoldTimes,
        /// What the client of the call would hear now.
        outcome: Outcome,
    },
    /// Taken note of.
    Done,
    /// No such task of this client.
    Refused(Refusal),
}
