//! Who calls, proven.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Digest;

/// How a principal proved itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// A configured key, found by its digest.
    ApiKey,
    /// A signed token of the configured issuer.
    Jwt,
    /// A client certificate of the configured authority.
    Mtls,
}

/// A proven caller: an agent, possibly on behalf of a person. Every field comes from verified
/// identity or from configuration, never from a header that the client may set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The agent's id; Cedar's `Agent::"…"`.
    pub agent: String,
    /// The agent groups it is in.
    pub groups: Vec<String>,
    /// Its organisation.
    pub org: String,
    /// The team that owns it, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The one person who runs it, where configuration names one: never its approver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// The person it acts for, from a verified claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acting_for: Option<String>,
    /// The verified e-mail of that person, where the token has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acting_for_email: Option<String>,
    /// Verified claims that policy may read as tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, String>,
    /// How it proved itself.
    pub method: AuthMethod,
    /// Issuer and subject, `issuer|subject`: what proved it, for the records.
    pub subject: String,
}

/// The scope of keys and of what a caller may see again: (org, agent, acting-for).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PrincipalKey(pub String, pub String, pub Option<String>);

impl Principal {
    /// The scope in which this principal's keys, runs and calls live.
    #[must_use]
    pub fn key(&self) -> PrincipalKey {
        PrincipalKey(self.org.clone(), self.agent.clone(), self.acting_for.clone())
    }
}

impl PrincipalKey {
    /// A fixed-width name for indexes. Collisions are those of SHA-256.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_json(&serde_json::json!([self.0, self.1, self.2]))
    }
}
