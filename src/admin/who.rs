//! Who speaks on the admin side: a reviewer of the configuration in force, by token or by session.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::response::Response;
use http::Method;
use http::header::{AUTHORIZATION, HeaderMap};
use http::request::Parts;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::call::{Digest, Principal, Timestamp};
use crate::config::{IdentityConfig, OidcRule, Reviewer};
use crate::snapshot::Snapshot;

use super::Desk;
use super::cookies;
use super::page;
use super::problem::Problem;
use super::sessions::Live;

/// What signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Account {
    /// A configured token, by its digest.
    Token(Digest),
    /// An account of the provider.
    Provider(Arc<SignedIn>),
    /// An account in Slack; it has no session.
    Slack,
}

/// What an ID token proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SignedIn {
    pub(super) issuer: String,
    pub(super) client_id: String,
    pub(super) sub: String,
    /// As the configured claim names the person.
    pub(super) name: Option<String>,
    pub(super) groups: Vec<String>,
    /// Verified by the provider.
    pub(super) email: Option<String>,
    /// When the person proved to the provider who it is.
    pub(super) at: Option<Timestamp>,
    /// A second factor was proven then.
    pub(super) strong: bool,
}

impl Account {
    pub(super) fn is_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Token(a), Self::Token(b)) => a == b,
            (Self::Provider(a), Self::Provider(b)) => (&a.issuer, &a.sub) == (&b.issuer, &b.sub),
            _ => false,
        }
    }
}

/// A sign-in, and a second factor, count as fresh for so long.
pub(super) const FRESH: Duration = Duration::from_secs(15 * 60);

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
    /// Signed in just now; a token whose entry says `mfa` always is.
    pub(super) fresh: bool,
    /// Every name of this person, to exclude.
    pub(super) aliases: Vec<String>,
    pub(super) account: Account,
    /// `page`, `api`, `cli` or `slack`.
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

/// With every account of the people who bear one of these names.
fn aliases(identity: &IdentityConfig, mut own: Vec<String>) -> Vec<String> {
    let theirs = identity.people.iter().filter(|(_, p)| own.iter().any(|o| same(o, p)));
    let accounts: Vec<String> = theirs.map(|(account, _)| account.clone()).collect();
    for account in accounts {
        // What a token's claim says is the part behind its issuer.
        let issuer = identity.jwt.as_ref().map(|j| format!("{}|", j.issuer));
        own.extend(issuer.and_then(|i| account.strip_prefix(i.as_str()).map(str::to_owned)));
        own.push(account);
    }
    own.retain(|a| !a.is_empty());
    own
}

impl Who {
    fn new(identity: &IdentityConfig, reviewer: &Reviewer, channel: &'static str) -> Self {
        let (subject, spelled) = (format!("token|{}", reviewer.user), format!("token:{}", reviewer.user));
        let email = reviewer.email.as_deref().unwrap_or_default();
        let person = linked(identity, &[&subject, &spelled, email]).unwrap_or(&reviewer.user).to_owned();
        let own = [reviewer.user.clone(), spelled, person.clone()];
        let aliases = aliases(identity, own.into_iter().chain(reviewer.email.clone()).collect());
        Self {
            user: reviewer.user.clone(),
            person,
            subject,
            groups: reviewer.groups.clone(),
            email: reviewer.email.clone(),
            mfa: reviewer.mfa,
            fresh: reviewer.mfa,
            aliases,
            account: Account::Token(reviewer.digest),
            channel,
        }
    }

    /// By an account of the provider. What entitles is its subject: only `identity.people` and the configured claim
    /// give it a name. Its verified e-mail excludes and nothing else.
    ///
    /// # Errors
    /// It may not be taken for somebody.
    pub(super) fn of_provider(
        identity: &IdentityConfig,
        signed: &Arc<SignedIn>,
        now: Timestamp,
    ) -> Result<Self, &'static str> {
        let subject = format!("{}|{}", signed.issuer, signed.sub);
        let named = identity.people.get(&subject);
        let taken = |name: &str| {
            let known = identity.people.values().chain(identity.reviewers.iter().map(|r| &r.user));
            known.chain(identity.slack.iter().map(|r| &r.user)).any(|known| same(known, name))
        };
        let person = match (named, &signed.name) {
            (Some(person), _) => person.clone(),
            (None, Some(name)) if taken(name) => {
                return Err("its name is that of a person whose account it is not; link it in `identity.people`");
            }
            (None, name) => name.clone().unwrap_or_else(|| subject.clone()),
        };
        let by_mail = signed.email.as_ref().and_then(|mail| linked(identity, &[mail])).map(str::to_owned);
        let bare = identity.jwt.as_ref().filter(|j| j.issuer == signed.issuer).map(|_| signed.sub.clone());
        let own = [subject.clone(), person.clone()].into_iter().chain(signed.email.clone()).chain(by_mail).chain(bare);
        let fresh = signed.at.is_some_and(|at| now < at.plus(FRESH));
        Ok(Self {
            user: person.clone(),
            aliases: aliases(identity, own.collect()),
            person,
            subject,
            groups: signed.groups.clone(),
            email: signed.email.clone(),
            mfa: signed.strong && fresh,
            fresh,
            account: Account::Provider(Arc::clone(signed)),
            channel: "page",
        })
    }

    /// By an account in Slack that configuration links to a reviewer. Slack says nothing of a second factor.
    pub(super) fn of_slack(identity: &IdentityConfig, team: &str, member: &str) -> Option<Self> {
        let linked_to = identity.slack.iter().find(|r| r.team == team && r.member == member)?;
        let (subject, spelled) = (format!("slack|{team}/{member}"), format!("slack:{team}/{member}"));
        // The same user by token is the same person, and so are the accounts that are linked to that.
        let token = format!("token:{}", linked_to.user);
        let by_token = linked(identity, &[&format!("token|{}", linked_to.user), &token]);
        let by_token = by_token.unwrap_or(&linked_to.user).to_owned();
        let person = linked(identity, &[&subject, &spelled]).unwrap_or(&by_token).to_owned();
        let own = vec![linked_to.user.clone(), spelled, token, by_token, person.clone()];
        Some(Self {
            user: linked_to.user.clone(),
            aliases: aliases(identity, own),
            person,
            subject,
            groups: linked_to.groups.clone(),
            email: None,
            mfa: false,
            fresh: false,
            account: Account::Slack,
            channel: "slack",
        })
    }

    /// By what signed in earlier: does it still count today?
    fn by_account(snapshot: &Snapshot, account: &Account, now: Timestamp) -> Option<Self> {
        let identity = &snapshot.config.identity;
        match account {
            Account::Token(digest) => Self::by_token_digest(snapshot, digest, "page"),
            Account::Slack => None,
            Account::Provider(signed) => {
                let ours = |rule: &&Arc<OidcRule>| rule.issuer == signed.issuer && rule.client_id == signed.client_id;
                identity.oidc.as_ref().filter(ours)?;
                Self::of_provider(identity, signed, now).ok()
            }
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

/// The session's id, when exactly one came.
pub(super) fn session_id(snapshot: &Snapshot, headers: &HeaderMap) -> Option<String> {
    cookies::read(snapshot, headers, cookies::SESSION)
}

/// Whether a person does something. A page that nobody need be looking at opens the stream of news again and again, and
/// loads itself anew when there is any: of that browsers say that no person asked for it (Fetch Metadata, `Sec-Fetch-User`).
fn at_work(parts: &Parts) -> bool {
    let has = |name: &str, value: &str| parts.headers.get(name).is_some_and(|v| v == value);
    let by_itself = has("sec-fetch-mode", "navigate") && !has("sec-fetch-user", "?1");
    parts.uri.path() != "/events" && !(parts.method == Method::GET && by_itself)
}

impl Visitor {
    /// The session's reviewer must still be one, with the same token.
    fn find(desk: &Desk, parts: &Parts) -> Option<Self> {
        let snapshot = desk.snapshots.current();
        let id = session_id(&snapshot, &parts.headers)?;
        let session = desk.sessions.find(&id, desk.clock.instant(), at_work(parts))?;
        let who = Who::by_account(&snapshot, &session.account, desk.clock.now());
        if who.is_none() {
            desk.sessions.end(&id);
        }
        Some(Self { who: who?, session })
    }
}

impl FromRequestParts<Arc<Desk>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, desk: &Arc<Desk>) -> Result<Self, Response> {
        Self::find(desk, parts).ok_or_else(|| page::signed_out(&parts.method, &parts.uri))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SlackReviewer;

    fn maya() -> IdentityConfig {
        let slack = SlackReviewer {
            user: "maya".into(),
            groups: vec!["support-leads".into()],
            team: "T1".into(),
            member: "U1".into(),
        };
        let people = [("token:maya", "Maya Park"), ("maya@acme.dev", "Maya Park")];
        IdentityConfig {
            org: "acme".into(),
            keys: Vec::new(),
            jwt: None,
            mtls: None,
            reviewers: Vec::new(),
            slack: vec![slack],
            oidc: None,
            people: people.map(|(account, person)| (account.to_owned(), person.to_owned())).into(),
        }
    }

    #[test]
    fn one_user_is_one_person_in_slack_and_by_token() {
        let who = Who::of_slack(&maya(), "T1", "U1").unwrap();
        assert_eq!(who.person, "Maya Park");
        for name in ["maya", "MAYA@acme.dev", "token:maya", "slack:T1/U1", "slack|T1/U1"] {
            assert!(who.is_any_of([name]), "{name}");
        }
        let mut linked = maya();
        linked.people.insert("slack:T1/U1".into(), "M. Park".into());
        let who = Who::of_slack(&linked, "T1", "U1").unwrap();
        assert!(who.person == "M. Park" && who.is_any_of(["Maya Park"]), "what links it itself names it");
    }
}
