//! Who is told of what happens: addresses and credentials.

use std::time::Duration;

use http::Uri;
use lettre::message::Mailbox;
use lettre::transport::smtp::client::Tls;

use crate::call::Tier;

use super::Secret;

/// One receiver, and what it is told.
#[derive(Debug)]
pub struct NotifyRule {
    /// Tells it from the others: its kind, and a digest of its address.
    pub name: String,
    /// How it is told.
    pub channel: Channel,
    /// Only holds of these tiers; empty means all.
    pub tiers: Vec<Tier>,
    /// Names of events; `hold.*` means all that begin so.
    pub events: Vec<String>,
}

/// How a receiver is told.
#[derive(Debug)]
pub enum Channel {
    /// Signed posts.
    Webhook(Webhook),
    /// Messages in a channel, from which medium holds are decided.
    Slack(Slack),
    /// E-mail.
    Smtp(Smtp),
}

/// A channel in Slack.
#[derive(Debug)]
pub struct Slack {
    /// Base of Slack's methods, without a slash at its end.
    pub api: Uri,
    /// Name or id.
    pub channel: String,
    /// Posts as the app's bot.
    pub token: Secret,
    /// What Slack signs callbacks with: the secret in force first.
    pub signing: Vec<Secret>,
}

/// A mail server, and who is written to.
#[derive(Debug)]
pub struct Smtp {
    /// Its name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: Tls,
    /// Account and password.
    pub login: Option<(String, Secret)>,
    /// Who writes.
    pub from: Mailbox,
    /// To whom; one letter goes to all.
    pub to: Vec<Mailbox>,
    /// What is of the medium tier waits so long, so that one letter tells all of it.
    pub digest: Duration,
}

/// A receiver of signed posts.
#[derive(Debug)]
pub struct Webhook {
    /// Where events are posted.
    pub url: Uri,
    /// Keys that sign them: the one in force first.
    pub keys: Vec<Secret>,
}

impl Channel {
    /// The word that names and metrics use.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Slack(_) => "slack",
            Self::Smtp(_) => "smtp",
        }
    }

    /// Where it leads, without what may be a credential.
    #[must_use]
    pub fn to(&self) -> String {
        let host = |url: &Uri| url.authority().map(ToString::to_string).unwrap_or_default();
        match self {
            Self::Webhook(w) => format!("{}://{}", w.url.scheme_str().unwrap_or_default(), host(&w.url)),
            Self::Slack(s) => format!("{} at {}", s.channel, host(&s.api)),
            Self::Smtp(s) => {
                let to: Vec<String> = s.to.iter().map(|m| m.email.to_string()).collect();
                format!("{} by {}:{}", to.join(", "), s.host, s.port)
            }
        }
    }
}

impl NotifyRule {
    /// How long an event of this tier waits for others, to be told with them in one.
    #[must_use]
    pub fn gathers(&self, event: &str, tier: Option<Tier>) -> Option<Duration> {
        // What is soon over would be over.
        let waits = event != "hold.expiring";
        match &self.channel {
            Channel::Smtp(smtp) if waits && tier == Some(Tier::Medium) && !smtp.digest.is_zero() => Some(smtp.digest),
            _ => None,
        }
    }

    /// Whether it wants to hear of an event, and of holds of this tier.
    #[must_use]
    pub fn wants(&self, event: &str, tier: Option<Tier>) -> bool {
        let named = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => event.starts_with(start),
            None => event == pattern,
        };
        let fits = self.tiers.is_empty() || tier.is_none_or(|t| self.tiers.contains(&t));
        fits && self.events.iter().any(named)
    }
}
