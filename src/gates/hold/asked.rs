//! What people ask of calls beside a yes or a no: it takes a core to answer, since policy and upstreams are asked anew.

use serde_json::Value;

use crate::call::{CallId, Digest, Refusal};
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
