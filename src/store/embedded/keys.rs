//! The names under which calls are found again: fixed-width digests of scope and key.

use crate::call::{Digest, Principal};
use crate::store::{CallRecord, Question, State};

/// Room for most names.
const USUAL: usize = 512;

/// A digest of these parts, each with its length before it, so that no two lists of parts look alike.
fn named(parts: &[&[u8]]) -> Digest {
    let mut named = Vec::with_capacity(USUAL);
    for part in parts {
        named.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        named.extend_from_slice(part);
    }
    Digest::of(&named)
}

fn scoped(kind: &str, scope: &Principal, operation: &str, last: &[u8]) -> Digest {
    let (person, none) = match &scope.acting_for {
        Some(person) => (person.as_str(), "some"),
        None => ("", "none"),
    };
    let texts = [kind, &scope.org, &scope.agent, none, person, operation].map(str::as_bytes);
    let [a, b, c, d, e, f] = texts;
    named(&[a, b, c, d, e, f, last])
}

/// Of an idempotency key in its scope.
pub(super) fn key(scope: &Principal, operation: &str, key: &str) -> Digest {
    scoped("key", scope, operation, key.as_bytes())
}

/// Of the same call without its key.
pub(super) fn same_of(scope: &Principal, operation: &str, fingerprint: &Digest) -> Digest {
    scoped("same", scope, operation, fingerprint.as_bytes())
}

/// Of something that an operation did to a target.
pub(super) fn target(org: &str, operation: &str, target: &Digest) -> Digest {
    named(&[b"target", org.as_bytes(), operation.as_bytes(), target.as_bytes()])
}

pub(super) fn of_question(q: &Question<'_>) -> Option<Digest> {
    q.key.map(|k| key(q.principal, q.operation, k))
}

pub(super) fn of_record(record: &CallRecord) -> Option<Digest> {
    record.key.as_ref().map(|k| key(&record.principal, &record.operation, k))
}

pub(super) fn same(record: &CallRecord) -> Digest {
    same_of(&record.principal, &record.operation, &record.fingerprint)
}

/// The target that a call has made known, if it succeeded.
pub(super) fn seen_by(record: &CallRecord) -> Option<Digest> {
    let seen = record.target.as_ref().filter(|_| record.state == State::Succeeded)?;
    Some(target(&record.principal.org, &record.operation, seen))
}
