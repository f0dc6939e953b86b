//! Ids, digests, times and closed sets of words, as schemas.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use crate::call::{ArtifactId, CallId, Digest, GrantId, HoldId, PauseScope, ReceiptId, Timestamp};
use crate::store::State;

use super::super::decide::REASONS;

/// Schemas with a name of their own.
macro_rules! words {
    ($($name:ty = $title:literal: $schema:tt;)*) => {
        $(impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                $title.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        })*
    };
}

/// Why a reviewer says no, as requests carry it.
pub(in crate::admin) struct ReasonCode;

/// Other arguments for a call, as a JSON Patch (RFC 6902).
pub(in crate::admin) struct ArgumentPatch;

/// Any JSON at all.
pub(in crate::admin) struct Json;

words! {
    CallId = "CallId": {"type": "string", "pattern": "^call_[0-9A-HJKMNP-TV-Z]{26}$"};
    HoldId = "HoldId": {"type": "string", "pattern": "^hold_[0-9A-HJKMNP-TV-Z]{26}$", "description": "The same 26 characters as its call's."};
    GrantId = "GrantId": {"type": "string", "pattern": "^grant_[0-9A-HJKMNP-TV-Z]{26}$"};
    ReceiptId = "ReceiptId": {"type": "string", "pattern": "^rcpt_[0-9A-HJKMNP-TV-Z]{26}$", "description": "The same 26 characters as its call's."};
    ArtifactId = "ArtifactId": {"type": "string", "pattern": "^art_[0-9A-HJKMNP-TV-Z]{26}$"};
    Digest = "Digest": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"};
    Timestamp = "Timestamp": {"type": "string", "format": "date-time", "description": "RFC 3339, UTC."};
    PauseScope = "PauseScope": {"type": "string", "pattern": "^(all|(agent|workflow|tool):.{1,200})$"};
    Json = "Json": {"description": "Any JSON."};
    State = "State": {"type": "string", "enum": (State::ALL.map(State::as_str))};
    ReasonCode = "ReasonCode": {
        "type": "string",
        "description": "Why a reviewer says no; `x_…` is a local word.",
        "pattern": (format!("^({}|x_[a-z0-9_]{{1,40}})$", REASONS.join("|")))
    };
    ArgumentPatch = "ArgumentPatch": {
        "type": "array",
        "description": "RFC 6902, on the arguments.",
        "items": {
            "type": "object",
            "properties": {
                "op": {"type": "string", "enum": ["add", "remove", "replace", "move", "copy", "test"]},
                "path": {"type": "string", "description": "JSON Pointer."},
                "from": {"type": "string", "description": "JSON Pointer."},
                "value": (Value::Bool(true))
            },
            "required": ["op", "path"]
        }
    };
}
