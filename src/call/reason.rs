//! Why a reviewer says no.

/// Reasons that a reviewer gives with a no; `x_…` adds local ones.
pub const REASONS: [&str; 10] = [
    "wrong_target",
    "wrong_amount",
    "duplicate",
    "not_needed",
    "missing_evidence",
    "policy_gap",
    "unsafe",
    "suspected_injection",
    "wrong_time",
    "other",
];
