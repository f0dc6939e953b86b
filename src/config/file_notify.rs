//! Who is told, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::file::SecretRef;

/// One receiver, and what it is told.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Notify {
    /// Signed posts to a URL (Standard Webhooks).
    pub(super) webhook: Webhook,
    /// Only holds of these tiers; all by default.
    pub(super) tiers: Option<Vec<NotifyTier>>,
    /// Only these events; a last part may be `*`. `[hold.*]` by default.
    pub(super) events: Option<Vec<String>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Webhook {
    /// Where events are posted.
    pub(super) url: String,
    /// Signs them: `whsec_` and 24 to 64 bytes in base64.
    pub(super) secret: SecretRef,
    /// Signs them, too, while receivers change over to another secret.
    pub(super) previous_secret: Option<SecretRef>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum NotifyTier {
    Medium,
    High,
}
