//! Receivers of notifications: addresses, keys, and that what they ask for exists.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::call::{Digest, EVENTS, Tier};

use super::super::Secret;
use super::super::used_notify::{Channel, NotifyRule, Slack, Webhook};
use super::identity::safe_url;
use super::{Ctx, file, smtp};

/// A channel, and what tells it from others of its kind.
pub(super) type Told = Option<(Channel, String)>;

pub(super) fn notify(ctx: &mut Ctx<'_>, file: &file::File) -> Vec<Arc<NotifyRule>> {
    let mut rules: Vec<Arc<NotifyRule>> = Vec::new();
    for (i, n) in file.notify.iter().enumerate() {
        let Some(rule) = receiver(ctx, i, n) else { continue };
        let at = format!("/notify/{i}/{}", rule.channel.kind());
        if rules.iter().any(|r| r.name == rule.name) {
            let (key, what) = match &rule.channel {
                Channel::Webhook(_) => ("url", "URL"),
                Channel::Slack(_) => ("channel", "channel"),
                Channel::Smtp(_) => ("to", "server and these addresses"),
            };
            ctx.err(format!("{at}/{key}"), format!("another receiver has this {what}; put what it is told into one"));
        }
        if !matches!(rule.channel, Channel::Webhook(_)) && file.reviews.url.is_none() {
            ctx.err(at, "needs `reviews.url`: what is told here links to the page");
        }
        rules.push(Arc::new(rule));
    }
    if !file.identity.reviewers.slack.is_empty() && !file.notify.iter().any(|n| n.slack.is_some()) {
        ctx.err("/identity/reviewers/slack", "nobody can decide in Slack: no receiver of `notify` has `slack`");
    }
    rules
}

fn receiver(ctx: &mut Ctx<'_>, i: usize, n: &file::Notify) -> Option<NotifyRule> {
    let at = |kind: &str| format!("/notify/{i}/{kind}");
    let told = match (&n.webhook, &n.slack, &n.smtp) {
        (Some(w), None, None) => webhook(ctx, &at("webhook"), w),
        (None, Some(s), None) => slack(ctx, &at("slack"), s),
        (None, None, Some(s)) => smtp::smtp(ctx, &at("smtp"), s),
        _ => {
            ctx.err(format!("/notify/{i}"), "give exactly one of `webhook`, `slack` and `smtp`");
            None
        }
    };
    let by_mail: &[&str] = &["hold.created", "hold.escalated", "hold.expiring", "hold.unknown"];
    let usual: &[&str] = match (&n.webhook, &n.smtp) {
        (_, Some(_)) => by_mail,
        (Some(_), _) => &["hold.*", "pause.*"],
        _ => &["hold.*"],
    };
    let events = n.events.clone().unwrap_or_else(|| usual.iter().map(|e| (*e).to_owned()).collect());
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
    let (channel, address) = told?;
    let digest = Digest::of(address.as_bytes()).to_string();
    let short: String = digest.chars().skip("sha256:".len()).take(12).collect();
    Some(NotifyRule { name: format!("{}-{short}", channel.kind()), channel, tiers: tiers.collect(), events })
}

/// Each secret that is given, where `check` lets it pass.
fn secrets(
    ctx: &mut Ctx<'_>,
    at: &str,
    given: &[(&str, Option<&file::SecretRef>)],
    check: impl Fn(String) -> Result<Secret, &'static str>,
) -> Vec<Secret> {
    let mut all = Vec::new();
    for (name, reference) in given {
        let Some(reference) = reference else { continue };
        let at = format!("{at}/{name}");
        let text = ctx.secret(&at, reference);
        all.extend(text.and_then(|text| ctx.ok(&at, check(text).map_err(str::to_owned))));
    }
    all
}

/// A receiver of signed posts.
fn webhook(ctx: &mut Ctx<'_>, at: &str, w: &file::Webhook) -> Told {
    let url = ctx.ok(&format!("{at}/url"), safe_url(&w.url));
    let keys =
        secrets(ctx, at, &[("secret", Some(&w.secret)), ("previous_secret", w.previous_secret.as_ref())], standard);
    Some((Channel::Webhook(Webhook { url: url?, keys }), w.url.clone()))
}

/// `whsec_` and base64, as Standard Webhooks writes its symmetric keys; kept as the text behind the prefix.
fn standard(text: String) -> Result<Secret, &'static str> {
    let raw = text.strip_prefix("whsec_").map(|rest| STANDARD.decode(rest));
    match raw {
        Some(Ok(bytes)) if (24..=64).contains(&bytes.len()) => Ok(Secret::new(text)),
        _ => Err("must be `whsec_` and 24 to 64 bytes in base64; `echo whsec_$(openssl rand -base64 32)` makes one"),
    }
}

fn is_visible(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic())
}

/// A channel in Slack.
fn slack(ctx: &mut Ctx<'_>, at: &str, s: &file::Slack) -> Told {
    let api = s.api_url.as_deref().unwrap_or("https://slack.com/api").trim_end_matches('/');
    let plain = |uri: http::Uri| match uri.query() {
        Some(_) => Err("has a query: give the part before a method's name, such as `https://slack.com/api`".into()),
        None => Ok(uri),
    };
    let uri = ctx.ok(&format!("{at}/api_url"), safe_url(api).and_then(plain));
    let name = s.channel.strip_prefix('#').unwrap_or(&s.channel);
    if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c == '#' || c == '@') {
        let text = format!("`{}` is neither a channel's name, such as `#refund-review`, nor its id", s.channel);
        ctx.err(format!("{at}/channel"), text);
    }
    let token = secrets(ctx, at, &[("token", Some(&s.token))], |text| match text.starts_with("xox") {
        true if is_visible(&text) => Ok(Secret::new(text)),
        _ => Err("must be the token of the app's bot, `xoxb-…`"),
    });
    let given =
        [("signing_secret", Some(&s.signing_secret)), ("previous_signing_secret", s.previous_signing_secret.as_ref())];
    let signing = secrets(ctx, at, &given, |text| match text.len() {
        16.. if is_visible(&text) => Ok(Secret::new(text)),
        _ => Err("must be the app's signing secret: at least 16 visible ASCII characters"),
    });
    let (token, channel) = (token.into_iter().next()?, s.channel.clone());
    Some((Channel::Slack(Slack { api: uri?, channel, token, signing }), format!("{api} {}", s.channel)))
}
