//! What became of a call.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::sync::mpsc;

use super::{CallId, Executed, HoldId, Refusal, Tier, Timestamp};

/// An answer broke off: the agent's side must show it as broken, never as whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the upstream's answer broke off")]
pub struct Broken;

/// The body of a reply.
#[derive(Debug)]
pub enum ReplyBody {
    /// All of it.
    Whole(Bytes),
    /// It flows as it comes; the end comes only once the record is durable.
    Stream(mpsc::Receiver<Result<Bytes, Broken>>),
}

/// The upstream's answer as the agent gets it: status, end-to-end headers, body.
#[derive(Debug)]
pub struct Reply {
    /// The upstream's status.
    pub status: StatusCode,
    /// End-to-end headers that may pass.
    pub headers: HeaderMap,
    /// The body.
    pub body: ReplyBody,
}

/// When a call was parked and last moved, and when the hold ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldTimes {
    /// When it was parked.
    pub created: Timestamp,
    /// When it last moved.
    pub updated: Timestamp,
    /// When it ends by itself, while it is open.
    pub expires: Option<Timestamp>,
}

/// What became of a call.
#[derive(Debug)]
pub enum Outcome {
    /// Sent; this is the upstream's answer.
    Forwarded {
        /// The call.
        call: CallId,
        /// At which rung policy allowed it.
        tier: Tier,
        /// The answer.
        reply: Reply,
    },
    /// The stored answer of the same call.
    Replayed {
        /// The call that ran.
        call: CallId,
        /// The stored answer.
        reply: Reply,
    },
    /// Parked; people decide. Carries the refusal that says so to clients without async.
    Held {
        /// The hold.
        hold: HoldId,
        /// Medium or high.
        tier: Tier,
        /// Since when, and for how long.
        times: HoldTimes,
        /// The client asked for (or the operation is configured as) 202.
        accepted: bool,
        /// MCP: the `requestState` with which the client may come back at once (`reviews.mrtr_poll`).
        poll: Option<String>,
        /// `held`, with everything that helps.
        refusal: Refusal,
    },
    /// A gate said no.
    Refused(Refusal),
}

impl Outcome {
    /// `allowed`, `replayed`, `held` or `refused`: header, log and metric.
    #[must_use]
    pub const fn decision(&self) -> &'static str {
        match self {
            Self::Forwarded { .. } => "allowed",
            Self::Replayed { .. } => "replayed",
            Self::Held { .. } => "held",
            Self::Refused(_) => "refused",
        }
    }

    /// The call that it is about, as far as it says.
    #[must_use]
    pub fn call(&self) -> Option<CallId> {
        match self {
            Self::Forwarded { call, .. } | Self::Replayed { call, .. } => Some(*call),
            Self::Held { hold, .. } => Some(hold.call()),
            Self::Refused(refusal) => refusal.hold().map(HoldId::call).or(refusal.call()),
        }
    }

    /// Whether the call had its effect, as far as the agent is told.
    #[must_use]
    pub fn executed(&self) -> Executed {
        match self {
            Self::Forwarded { .. } | Self::Replayed { .. } => Executed::Yes,
            Self::Held { .. } => Executed::No,
            Self::Refused(r) => r.executed(),
        }
    }
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A call that ended, as the wire needs it to answer.
#[derive(Debug)]
pub struct Ended {
    /// The call.
    pub call: CallId,
    /// What became of it.
    pub outcome: Outcome,
    /// Header fields that the gates add: rate limits, budget warnings.
    pub headers: HeaderMap,
}
