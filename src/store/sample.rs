//! A call that ran and is looked at after the fact.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::call::{CallId, GrantId, Principal, Timestamp, Verdict};

/// A call that was picked to be looked at after it ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The call.
    pub id: CallId,
    /// Its operation.
    pub operation: String,
    /// Who called.
    pub principal: Arc<Principal>,
    /// In which workflow.
    pub workflow: String,
    /// Its title.
    pub title: String,
    /// Its arguments, with redacted members replaced.
    pub arguments: Arc<Value>,
    /// The permits that let it run.
    pub policies: Vec<String>,
    /// The grant by which it passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantId>,
    /// There is a record of the call; of a plain read there is only this.
    pub recorded: bool,
    /// When it was sent.
    pub at: Timestamp,
    /// What was said of it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged: Option<Judged>,
}

/// What a person said of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The verdict.
    pub verdict: Verdict,
    /// Why, by code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<String>,
    /// Who (after linking accounts).
    pub by: String,
    /// When.
    pub at: Timestamp,
}

impl Sample {
    /// Whether somebody must still look at it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.judged.as_ref().is_none_or(|judged| judged.verdict == Verdict::Unsure)
    }
}

/// A verdict on a sampled call. Eligibility by admin-plane policy was asked just before.
#[derive(Debug, Clone)]
pub struct JudgeSample {
    /// The call.
    pub id: CallId,
    /// The verdict.
    pub verdict: Verdict,
    /// Why, by code.
    pub reason_code: Option<String>,
    /// The person after linking accounts.
    pub person: String,
    /// All names of this person: who asked for a call, or runs its agent, does not judge it.
    pub names: Vec<String>,
}
