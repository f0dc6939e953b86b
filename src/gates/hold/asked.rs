//! What people ask of calls beside a yes or a no: it takes a core to answer, since policy and upstreams are asked anew.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::call::{CallId, Digest, Loose, Refusal};
use crate::store::HoldError;

/// Who asks, for the record and to exclude.
#[derive(Debug, Clone)]
pub struct Person {
    /// The person after linking accounts.
    pub name: String,
    /// Issuer and subject that signed in, user ids and verified e-mails.
    pub aliases: Vec<String>,
}

/// Other arguments for a held call.
#[derive(Debug)]
pub struct EditAsk {
    /// The hold's call.
    pub id: CallId,
    /// `If-Match`, where given.
    pub version: Option<u64>,
    /// The digest that was seen.
    pub digest: Digest,
    /// A JSON Patch (RFC 6902) on the arguments.
    pub patch: Value,
    /// Why; kept in the record, and told to the agent.
    pub note: String,
    /// Who.
    pub by: Person,
}

/// An executed call is to be taken back.
#[derive(Debug)]
pub struct UndoAsk {
    /// The call.
    pub id: CallId,
    /// Why, in writing.
    pub reason: String,
    /// Who.
    pub by: Person,
}

/// Calls like one that people have approved, or approve now, are to pass by themselves.
#[derive(Debug, Clone)]
pub struct GrantAsk {
    /// The call that was approved.
    pub id: CallId,
    /// The digest that was seen.
    pub digest: Digest,
    /// Which arguments may differ, by JSON Pointer; the others are pinned.
    pub loose: BTreeMap<String, Loose>,
    /// How long it lives; the longest that policy allows when not given.
    pub lasts: Option<Duration>,
    /// How often it may be used; as often as policy allows when not given.
    pub max_uses: Option<u32>,
    /// What arguments may add up to, by JSON Pointer; what policy allows where not given.
    pub sums: BTreeMap<String, i64>,
    /// Why, in writing.
    pub reason: Option<String>,
    /// Who.
    pub by: Person,
    /// `page`, `cli`, `api`.
    pub channel: &'static str,
}

/// Why it was not done. Nothing has changed then.
#[derive(Debug)]
pub enum Denied {
    /// It is not a thing that can be done to this call, by this code and in these words.
    Cannot(&'static str, String),
    /// The hold is not as it was seen.
    Hold(HoldError),
    /// A gate refuses.
    Refused(Refusal),
}

impl From<HoldError> for Denied {
    fn from(error: HoldError) -> Self {
        Self::Hold(error)
    }
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<crate::call::Fault> for Denied {
    fn from(fault: crate::call::Fault) -> Self {
        Self::Refused(fault.into())
    }
}
