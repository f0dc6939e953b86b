//! Names of what happens, as receivers of notifications and readers of the event stream know it.

/// Every event that is told.
pub const EVENTS: &[&str] = &[
    "hold.created",
    "hold.updated",
    "hold.edited",
    "hold.claimed",
    "hold.escalated",
    "hold.approved",
    "hold.rejected",
    "hold.withdrawn",
    "hold.revoked",
    "hold.stale",
    "hold.expiring",
    "hold.expired",
    "hold.succeeded",
    "hold.failed",
    "hold.unknown",
    "hold.not_executed",
    "call.executed",
    "call.unknown",
    "call.undone",
    "pause.began",
    "pause.ended",
    "near_miss",
    "config.reloaded",
    "config.rejected",
];
