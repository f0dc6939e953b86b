//! What `?include=` adds to a hold or call. Descriptions only, as in `answers`.
#![expect(dead_code, reason = "read by the derive that makes schemas of them")]

use schemars::JsonSchema;

use crate::call::{Digest, HoldId, Timestamp};
use crate::store::State;

use super::answers::{Alike, Money, Sent};
use super::beside::Node;

/// What was asked for with `include`.
#[derive(JsonSchema)]
pub(super) struct Included {
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<Raw>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<Trace>,
    #[serde(skip_serializing_if = "Option::is_none")]
    similar: Option<Similar>,
}

/// What goes out, for a shell.
#[derive(JsonSchema)]
struct Raw {
    #[serde(flatten)]
    sent: Sent,
    /// Without the credential that the proxy adds. `null` where the body is not shown.
    curl: Option<String>,
}

/// How it got here.
#[derive(JsonSchema)]
struct Trace {
    /// As the agent's `traceparent` says it.
    trace_id: Option<String>,
    traceparent: Option<String>,
    tracestate: Option<String>,
    run: String,
    step: Option<String>,
    /// Calls of this run before it that have a record of their own and that the asking person may see, oldest first, at most 12.
    path: Vec<Node>,
}

/// Calls like it.
#[derive(JsonSchema)]
struct Similar {
    #[serde(flatten)]
    alike: Alike,
    /// The others of its cluster that wait, the odd ones first.
    held: Vec<SimilarHold>,
}

#[derive(JsonSchema)]
struct SimilarHold {
    hold: HoldId,
    title: String,
    state: State,
    digest: Digest,
    code: String,
    amount: Option<Money>,
    created: Timestamp,
    expires: Option<Timestamp>,
    /// What is odd about it.
    odd: Vec<String>,
}
