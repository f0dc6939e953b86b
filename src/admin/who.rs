//! Who speaks on the admin side: a reviewer of the configuration in force, by token or by session.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::response::Response;
use http::header::{AUTHORIZATION, COOKIE, HeaderMap};
use http::request::Parts;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::call::{Digest, Principal};
use crate::config::{IdentityConfig, Reviewer};
use crate::snapshot::Snapshot;

use super::Desk;
use super::page;
use super::problem::Problem;
use super::sessions::Live;

/// A reviewer who proved it.
#[derive(Debug, Clone)]
pub(super) struct Who {
    /// As configured; whose groups count.
    pub(super) user: String,
    /// The person, after linking accounts.
    pub(super) person: String,
    /// What signed in.
    pub(super) subject: String,
    pub(super) groups: Vec<String>,
    pub(super) email: Option<String>,
    pub(super) mfa: bool,
    /// Every name of this person, to exclude.
    pub(super) aliases: Vec<String>,
    /// Digest of the token.
    pub(super) digest: Digest,
    /// `page`, `api` or `cli`.
    pub(super) channel: &'static str,
}

fn same(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}

/// The person behind the first of these accounts that configuration links.
pub(super) fn linked<'a>(identity: &'a IdentityConfig, accounts: &[&str]) -> Option<&'a str> {
    let of = |account: &&str| identity.people.iter().find(|(known, _)| same(known, account)).map(|(_, p)| p.as_str());
    accounts.iter().find_map(of)
}

/// The person for whom an agent acts, after linking; else as the token says.
pub(super) fn acted_for<'a>(identity: &'a IdentityConfig, principal: &'a Principal) -> Option<&'a str> {
    let subject = principal.acting_for.as_deref()?;
    let whole = identity.jwt.as_ref().map(|j| format!("{}|{subject}", j.issuer)).unwrap_or_default();
    let accounts = [whole.as_str(), subject, principal.acting_for_email.as_deref().unwrap_or_default()];
    Some(linked(identity, &accounts).unwrap_or(subject))
}

/// Looks at every reviewer, whoever fits.
fn by_digest<'a>(reviewers: &'a [Reviewer], digest: &Digest) -> Option<&'a Reviewer> {
    let (mut found, mut index) = (Choice::from(0), 0u32);
    for (i, reviewer) in (0u32..).zip(reviewers) {
        let fits = digest.as_bytes().ct_eq(reviewer.digest.as_bytes());
        index.conditional_assign(&i, fits);
        found |= fits;
    }
    if bool::from(found) { reviewers.get(usize::try_from(index).ok()?) } else { None }
}

impl Who {
    fn new(identity: &IdentityConfig, reviewer: &Reviewer, channel: &'static str) -> Self {
        let (subject, spelled) = (format!("token|{}", reviewer.user), format!("token:{}", reviewer.user));
        let email = reviewer.email.as_deref().unwrap_or_default();
        let person = linked(identity, &[&subject, &spelled, email]).unwrap_or(&reviewer.user).to_owned();
        let own = [reviewer.user.clone(), spelled, person.clone()];
        let mut aliases: Vec<String> = own.into_iter().chain(reviewer.email.clone()).collect();
        for (account, _) in identity.people.iter().filter(|(_, p)| same(p, &person)) {
            aliases.push(account.clone());
            // What a token's claim says is the part behind its issuer.
            let issuer = identity.jwt.as_ref().map(|j| format!("{}|", j.issuer));
            aliases.extend(issuer.and_then(|i| account.strip_prefix(i.as_str()).map(str::to_owned)));
        }
        aliases.retain(|a| !a.is_empty());
        Self {
            user: reviewer.user.clone(),
            person,
            subject,
            groups: reviewer.groups.clone(),
            email: reviewer.email.clone(),
            mfa: reviewer.mfa,
            aliases,
            digest: reviewer.digest,
            channel,
        }
    }

    /// By the token itself.
    pub(super) fn by_token(snapshot: &Snapshot, token: &str, channel: &'static str) -> Option<Self> {
        Self::by_token_digest(snapshot, &Digest::of(token.as_bytes()), channel)
    }

    /// By the digest of a token that was proven earlier: still one of today's?
    pub(super) fn by_token_digest(snapshot: &Snapshot, digest: &Digest, channel: &'static str) -> Option<Self> {
        let identity = &snapshot.config.identity;
        by_digest(&identity.reviewers, digest).map(|r| Self::new(identity, r, channel))
    }

    /// Whether one of these names is this person's.
    pub(super) fn is_any_of<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> bool {
        let own = || [&self.person, &self.subject].into_iter().chain(&self.aliases);
        names.into_iter().any(|n| !n.is_empty() && own().any(|o| same(o, n)))
    }
}

/// Says who calls the API: by bearer token alone, so that no cookie of a browser opens it.
pub(super) fn bearer(snapshot: &Snapshot, headers: &HeaderMap) -> Result<Who, Problem> {
    let channel = match headers.get("holdpoint-channel").map(|c| c.to_str().unwrap_or("?")) {
        None | Some("api") => "api",
        Some("cli") => "cli",
        Some(_) => return Err(Problem::malformed("`Holdpoint-Channel` is `api` or `cli`")),
    };
    let text = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()).ok_or_else(Problem::unauthenticated)?;
    let token = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, t)| t.trim());
    let token = token.filter(|t| !t.is_empty()).ok_or_else(Problem::unauthenticated)?;
    Who::by_token(snapshot, token, channel).ok_or_else(Problem::unauthenticated)
}

impl FromRequestParts<Arc<Desk>> for Who {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Arc<Desk>) -> Result<Self, Problem> {
        bearer(&admin.snapshots.current(), &parts.headers).inspect_err(|problem| {
            admin.metrics.unidentified.with_label_values(&[problem.code()]).inc();
        })
    }
}

/// Who looks at the page.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    pub(super) who: Who,
    pub(super) session: Live,
}

/// Name of the session's cookie: over TLS no other host or path can set it.
pub(super) fn cookie_name(snapshot: &Snapshot) -> &'static str {
    if snapshot.config.listen.tls.is_some() { "__Host-holdpoint" } else { "holdpoint" }
}

/// The session's id, when exactly one came.
pub(super) fn session_id(snapshot: &Snapshot, headers: &HeaderMap) -> Option<String> {
    let name = cookie_name(snapshot);
    let cookies = headers.get_all(COOKIE).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(';'));
    let mut ours = cookies.filter_map(|c| c.trim().split_once('=')).filter(|(n, _)| *n == name).map(|(_, v)| v);
    let first = ours.next()?;
    if ours.next().is_some() { None } else { Some(first.to_owned()) }
}

impl Visitor {
    /// The session's reviewer must still be one, with the same token.
    fn find(desk: &Desk, headers: &HeaderMap) -> Option<Self> {
        let snapshot = desk.snapshots.current();
        let id = session_id(&snapshot, headers)?;
        let session = desk.sessions.find(&id, desk.clock.instant())?;
        let who = Who::by_token_digest(&snapshot, &session.reviewer, "page");
        if who.is_none() {
            desk.sessions.end(&id);
        }
        Some(Self { who: who?, session })
    }
}

impl FromRequestParts<Arc<Desk>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, desk: &Arc<Desk>) -> Result<Self, Response> {
        Self::find(desk, &parts.headers).ok_or_else(|| page::signed_out(&parts.method, &parts.uri))
    }
}
