//! Receivers of notifications: addresses, keys, and that what they ask for exists.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::call::{Digest, EVENTS, Tier};

use super::super::Secret;
use super::super::used::{Channel, NotifyRule, Webhook};
use super::identity::safe_url;
use super::{Ctx, file};

pub(super) fn notify(ctx: &mut Ctx<'_>, all: &[file::Notify]) -> Vec<Arc<NotifyRule>> {
    let mut rules: Vec<Arc<NotifyRule>> = Vec::new();
    for (i, n) in all.iter().enumerate() {
        let Some(rule) = receiver(ctx, i, n) else { continue };
        if rules.iter().any(|r| r.name == rule.name) {
            ctx.err(format!("/notify/{i}/webhook/url"), "another receiver has this URL; put what it is told into one");
        }
        rules.push(Arc::new(rule));
    }
    rules
}

fn receiver(ctx: &mut Ctx<'_>, i: usize, n: &file::Notify) -> Option<NotifyRule> {
    let channel = webhook(ctx, &format!("/notify/{i}/webhook"), &n.webhook);
    let events = n.events.clone().unwrap_or_else(|| vec!["hold.*".into()]);
    for (k, name) in events.iter().enumerate() {
        let known = |e: &&str| name.strip_suffix('*').map_or(*e == name, |start| e.starts_with(start));
        if !EVENTS.iter().any(known) {
            ctx.err(format!("/notify/{i}/events/{k}"), format!("no event `{name}`; there are {}", EVENTS.join(", ")));
        }
    }
    let tiers = n.tiers.iter().flatten().map(|t| match t {
        file::NotifyTier::Medium => Tier::Medium,
        file::NotifyTier::High => Tier::High,
    });
    let (channel, address) = channel?;
    let digest = Digest::of(address.as_bytes()).to_string();
    let short: String = digest.chars().skip("sha256:".len()).take(12).collect();
    Some(NotifyRule { name: format!("{}-{short}", channel.kind()), channel, tiers: tiers.collect(), events })
}

/// A receiver of signed posts, and what tells it from the others.
fn webhook(ctx: &mut Ctx<'_>, at: &str, w: &file::Webhook) -> Option<(Channel, String)> {
    let url = ctx.ok(&format!("{at}/url"), safe_url(&w.url));
    let secrets = [("secret", Some(&w.secret)), ("previous_secret", w.previous_secret.as_ref())];
    let mut keys = Vec::new();
    for (name, reference) in secrets {
        let Some(reference) = reference else { continue };
        let at = format!("{at}/{name}");
        let text = ctx.secret(&at, reference);
        keys.extend(text.and_then(|text| ctx.ok(&at, signing(text))));
    }
    Some((Channel::Webhook(Webhook { url: url?, keys }), w.url.clone()))
}

/// `whsec_` and base64, as Standard Webhooks writes its symmetric keys; kept as the text behind the prefix.
fn signing(text: String) -> Result<Secret, String> {
    let raw = text.strip_prefix("whsec_").map(|rest| STANDARD.decode(rest));
    match raw {
        Some(Ok(bytes)) if (24..=64).contains(&bytes.len()) => Ok(Secret::new(text)),
        _ => {
            Err("must be `whsec_` and 24 to 64 bytes in base64; `echo whsec_$(openssl rand -base64 32)` makes one"
                .into())
        }
    }
}
