//! More room in one ledger, given by a person.

use serde::{Deserialize, Serialize};

use crate::call::Digest;

use super::LedgerKey;

/// What one person adds to the room of one ledger, until that ledger ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopUp {
    /// Which one.
    pub ledger: LedgerKey,
    /// Whole units, at least 1.
    pub amount: i64,
    /// Why, in writing.
    pub reason: String,
    /// Who (after linking accounts).
    pub by: String,
    /// Names this attempt: the same one counts once, also after a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
}

/// Why nothing was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopUpError {
    /// Nothing was ever used or set aside in it, or it has ended.
    #[error("there is no such ledger")]
    NotFound,
    /// Less than 1, or more than can be counted.
    #[error("not an amount that can be added")]
    Amount,
    /// The key stands for another amount.
    #[error("the key stands for another amount")]
    KeyReused,
    /// As many attempts with keys as one ledger remembers.
    #[error("topped up too often")]
    Full,
    /// It cannot be recorded.
    #[error("the store cannot be written")]
    Unavailable,
}
