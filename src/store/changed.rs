//! What a step changes of a record: the members that differ, whole. A record is read back from its first, full
//! frame and the changes after it, whatever version of the state machine wrote them.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::call::{Digest, Terms, Tier, Timestamp};

use super::{
    Approval, CallRecord, Charge, Edited, Evidence, Handling, Note, Opinion, Preview, Resend, State, StoredAnswer,
    StoredRequest, Unfetched,
};

/// A member that is there, be it `null`.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

macro_rules! changed {
    ($($member:ident: $type:ty),* $(,)?) => {
        /// The members of a [`CallRecord`] that a step gave another value; `null`: it has none any more.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        pub(super) struct Changed {
            $(#[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
            $member: Option<$type>,)*
        }

        impl Changed {
            /// What leads from one record to the next.
            pub(super) fn between(old: &CallRecord, new: &CallRecord) -> Self {
                Self { $($member: (old.$member != new.$member).then(|| new.$member.clone()),)* }
            }

            /// Makes the next record of the one before.
            pub(super) fn apply(self, record: &mut CallRecord) {
                $(if let Some(value) = self.$member {
                    record.$member = value;
                })*
            }
        }
    };
}

impl Changed {
    /// Whether a replay would make the next record of the old one: nothing that changed is left out.
    pub(super) fn leads(&self, old: &CallRecord, new: &CallRecord) -> bool {
        let mut replayed = old.clone();
        self.clone().apply(&mut replayed);
        let same = CallRecord { seq: new.seq, frames: new.frames.clone(), ..replayed };
        same == *new
    }
}

changed! {
    version: u64,
    state: State,
    digest: Digest,
    request: StoredRequest,
    arguments: Arc<Value>,
    schema_digest: Digest,
    title: String,
    target: Option<Digest>,
    money: Option<(i64, String)>,
    edited: Option<Box<Edited>>,
    not_before: Option<Timestamp>,
    config_digest: Digest,
    policy_digest: Digest,
    tier: Tier,
    policies: Vec<String>,
    terms: Option<Terms>,
    preview: Option<Box<Preview>>,
    handling: Option<Box<Handling>>,
    deny_alike: Option<Timestamp>,
    approvals: Vec<Approval>,
    evidence: Vec<Evidence>,
    unfetched: Vec<Unfetched>,
    updated: Timestamp,
    expires: Option<Timestamp>,
    window_closes: Option<Timestamp>,
    halted: Option<Timestamp>,
    renewals: u32,
    attempt: u32,
    epoch: u64,
    begun: Option<Timestamp>,
    quiet_for: Duration,
    quiet_after: Option<Timestamp>,
    resend: Option<Resend>,
    charges: Vec<Charge>,
    answer: Option<StoredAnswer>,
    note: Option<Note>,
    opinion: Option<Box<Opinion>>,
    collected: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixtures::{START, record};

    #[test]
    fn what_changed_is_written_read_and_applied() {
        let old = record(State::Held, "f", None);
        let mut new = CallRecord { state: State::Succeeded, version: 7, expires: None, ..old.clone() };
        new.collected = Some(START);
        let text = serde_json::to_string(&Changed::between(&old, &new)).unwrap();
        assert!(text.contains("\"expires\":null") && !text.contains("window_closes"), "{text}");
        let mut read = old;
        serde_json::from_str::<Changed>(&text).unwrap().apply(&mut read);
        assert_eq!(read, new);
    }
}
