//! The names under which calls are found again: fixed-width digests of scope and key.

use crate::call::{Digest, PrincipalKey};
use crate::store::{CallRecord, State};

/// Of an idempotency key in its scope.
pub(super) fn key(scope: &PrincipalKey, operation: &str, key: &str) -> Digest {
    Digest::of_json(&serde_json::json!(["key", scope.0, scope.1, scope.2, operation, key]))
}

/// Of the same call without its key.
pub(super) fn same_of(scope: &PrincipalKey, operation: &str, fingerprint: &Digest) -> Digest {
    Digest::of_json(&serde_json::json!(["same", scope.0, scope.1, scope.2, operation, fingerprint.to_string()]))
}

/// Of something that an operation did to a target.
pub(super) fn target(org: &str, operation: &str, target: &Digest) -> Digest {
    Digest::of_json(&serde_json::json!(["target", org, operation, target.to_string()]))
}

pub(super) fn of_record(record: &CallRecord) -> Option<Digest> {
    record.key.as_ref().map(|k| key(&record.principal.key(), &record.operation, k))
}

pub(super) fn same(record: &CallRecord) -> Digest {
    same_of(&record.principal.key(), &record.operation, &record.fingerprint)
}

/// The target that a call has made known, if it succeeded.
pub(super) fn seen_by(record: &CallRecord) -> Option<Digest> {
    let seen = record.target.as_ref().filter(|_| record.state == State::Succeeded)?;
    Some(target(&record.principal.org, &record.operation, seen))
}
