//! Who is told, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::file::{FileRef, SecretRef};

/// One receiver, and what it is told.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Notify {
    /// Signed posts to a URL (Standard Webhooks).
    pub(super) webhook: Option<Webhook>,
    /// Messages in a channel of Slack; medium holds are decided there.
    pub(super) slack: Option<Slack>,
    /// E-mail.
    pub(super) smtp: Option<Smtp>,
    /// Only holds of these tiers; all by default.
    pub(super) tiers: Option<Vec<NotifyTier>>,
    /// Only these events; a last part may be `*`. `[hold.*, pause.*]` by default; in Slack `[hold.*]`, by e-mail `[hold.created, hold.escalated, hold.expiring,
    /// hold.unknown]`.
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

/// Where Slack's buttons lead is set up there: `<reviews.url>/slack/interactions`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Slack {
    /// A channel that the app is in: its name, such as `#refund-review`, or its id.
    pub(super) channel: String,
    /// The bot's token (`xoxb-…`), with the scope `chat:write`.
    pub(super) token: SecretRef,
    /// What Slack signs callbacks with: *Signing Secret* among the app's credentials.
    pub(super) signing_secret: SecretRef,
    /// Is believed, too, while the secret changes.
    pub(super) previous_signing_secret: Option<SecretRef>,
    /// Base of Slack's methods; `https://slack.com/api` by default.
    pub(super) api_url: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Smtp {
    /// `smtps://user@host` (TLS, port 465) or `smtp://user@host` (port 587, STARTTLS). An `@` in the user is `%40`. On
    /// loopback `smtp://` goes without TLS, unless `ca` is given.
    pub(super) url: String,
    /// The password of that user.
    pub(super) password: Option<SecretRef>,
    /// Who writes, such as `Holdpoint <holdpoint@acme.dev>`.
    pub(super) from: String,
    /// To whom. One letter goes to all of them: a server that refuses one of them refuses it.
    pub(super) to: Vec<String>,
    /// The authority that signs the server's certificate, PEM; the system's by default.
    pub(super) ca: Option<FileRef>,
    /// What is of the medium tier is gathered for so long, then told in one letter; `5m` by default, `0s` tells it at
    /// once. What is of the high tier never waits.
    pub(super) digest: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum NotifyTier {
    Medium,
    High,
}
