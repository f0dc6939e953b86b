//! Identities: keys become digests, key sets are read, and nobody is let in by default.

use std::collections::BTreeMap;
use std::path::Path;

use jsonwebtoken::Algorithm;

use crate::call::Digest;

use super::super::used::{AgentKey, CertAgent, IdentityConfig, JwtRule, Keys, MtlsRule, Reviewer, SlackReviewer};
use super::{Ctx, file};

pub(super) fn identity(ctx: &mut Ctx<'_>, i: &file::Identity) -> IdentityConfig {
    let org = i.org.clone().unwrap_or_else(|| "default".into());
    let a = &i.agents;
    if a.api_keys.is_empty() && a.jwt.is_none() && a.mtls.is_none() {
        ctx.err("/identity/agents", "no identity method: give `api_keys`, `jwt` or `mtls`; nobody is let in unproven");
    }
    let keys: Vec<_> = a.api_keys.iter().enumerate().filter_map(|(n, k)| api_key(ctx, n, k, &org)).collect();
    let reviewers: Vec<_> = i.reviewers.tokens.iter().enumerate().filter_map(|(n, t)| reviewer(ctx, n, t)).collect();
    distinct(ctx, &keys, &reviewers);
    IdentityConfig {
        jwt: a.jwt.as_ref().and_then(|j| jwt(ctx, j, &org)),
        mtls: a.mtls.as_ref().map(|m| mtls(ctx, m, &org)),
        people: by_mail(people(ctx, &i.people), &reviewers),
        org,
        keys,
        reviewers,
        slack: slack(ctx, &i.reviewers.slack),
        oidc: None,
    }
}

/// A secret that stands for two identities proves neither.
fn distinct(ctx: &mut Ctx<'_>, keys: &[AgentKey], reviewers: &[Reviewer]) {
    let mut seen: BTreeMap<Digest, String> = BTreeMap::new();
    let agents = keys.iter().map(|k| (k.digest, format!("agent `{}`", k.agent)));
    let people = reviewers.iter().map(|r| (r.digest, format!("reviewer `{}`", r.user)));
    for (digest, who) in agents.chain(people) {
        if let Some(other) = seen.insert(digest, who.clone()) {
            ctx.err("/identity", format!("{who} and {other} have the same secret"));
        }
    }
}

fn strong(ctx: &mut Ctx<'_>, pointer: &str, secret: &str) -> Option<Digest> {
    if secret.len() < 16 || !secret.bytes().all(|b| b.is_ascii_graphic()) {
        ctx.err(pointer, "must be at least 16 visible ASCII characters; `openssl rand -hex 24` makes one");
        return None;
    }
    Some(Digest::of(secret.as_bytes()))
}

fn api_key(ctx: &mut Ctx<'_>, n: usize, k: &file::ApiKey, org: &str) -> Option<AgentKey> {
    let at = format!("/identity/agents/api_keys/{n}/key");
    let secret = ctx.secret(&at, &k.key)?;
    Some(AgentKey {
        agent: k.agent.clone(),
        groups: k.group.iter().chain(&k.groups).cloned().collect(),
        owner: k.owner.clone(),
        operator: k.operator.clone(),
        org: k.org.clone().unwrap_or_else(|| org.to_owned()),
        digest: strong(ctx, &at, &secret)?,
    })
}

fn reviewer(ctx: &mut Ctx<'_>, n: usize, t: &file::ReviewerToken) -> Option<Reviewer> {
    let at = format!("/identity/reviewers/tokens/{n}/token");
    let secret = ctx.secret(&at, &t.token)?;
    Some(Reviewer {
        user: t.user.clone(),
        groups: t.groups.clone(),
        email: t.email.clone(),
        mfa: t.mfa,
        digest: strong(ctx, &at, &secret)?,
    })
}

fn slack(ctx: &mut Ctx<'_>, all: &[file::SlackReviewer]) -> Vec<SlackReviewer> {
    let mut reviewers: Vec<SlackReviewer> = Vec::new();
    for (n, r) in all.iter().enumerate() {
        let at = format!("/identity/reviewers/slack/{n}");
        let id = |text: &str, first: [char; 2]| {
            text.len() > 1
                && text.starts_with(first)
                && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        };
        if !id(&r.team, ['T', 'E']) {
            ctx.err(format!("{at}/team"), format!("`{}` is not the id of a workspace, such as `T0123ABCD`", r.team));
        }
        if !id(&r.member, ['U', 'W']) {
            ctx.err(format!("{at}/member"), format!("`{}` is not the id of a member, such as `U0123ABCD`", r.member));
        }
        if let Some(other) = reviewers.iter().find(|o| (&o.team, &o.member) == (&r.team, &r.member)) {
            ctx.err(&at, format!("this account is already that of `{}`", other.user));
        }
        let (user, groups) = (r.user.clone(), r.groups.clone());
        reviewers.push(SlackReviewer { user, groups, team: r.team.clone(), member: r.member.clone() });
    }
    reviewers
}

fn jwt(ctx: &mut Ctx<'_>, j: &file::Jwt, org: &str) -> Option<JwtRule> {
    let at = "/identity/agents/jwt";
    let algorithms = algorithms(ctx, at, j.algorithms.clone());
    Some(JwtRule {
        issuer: j.issuer.clone(),
        audience: j.audience.clone(),
        keys: jwks(ctx, j)?,
        algorithms,
        agent_claim: j.agent_claim.clone().unwrap_or_else(|| "sub".into()),
        user_claim: j.user_claim.clone(),
        operator_claim: j.operator_claim.clone(),
        group_claim: j.group_claim.clone(),
        org_claim: j.org_claim.clone(),
        scope_claim: j.scope_claim.clone(),
        org: org.to_owned(),
        owner: j.owner.clone(),
    })
}

/// Those that tokens may be signed with.
pub(super) fn algorithms(ctx: &mut Ctx<'_>, at: &str, given: Option<Vec<String>>) -> Vec<Algorithm> {
    let names = given.unwrap_or_else(|| vec!["RS256".into(), "ES256".into(), "EdDSA".into()]);
    let mut algorithms = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let parsed = name.parse().ok().filter(|a| asymmetric(*a));
        let why = || format!("`{name}` is not an asymmetric algorithm that we verify, such as RS256, ES256 or EdDSA");
        algorithms.extend(ctx.ok(&format!("{at}/algorithms/{i}"), parsed.ok_or_else(why)));
    }
    if algorithms.is_empty() {
        ctx.err(at, "no algorithm is allowed");
    }
    algorithms
}

fn asymmetric(a: Algorithm) -> bool {
    !matches!(a, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
}

fn jwks(ctx: &mut Ctx<'_>, j: &file::Jwt) -> Option<Keys> {
    let at = "/identity/agents/jwt/jwks";
    let fetched = |ctx: &mut Ctx<'_>, url: &str| ctx.ok(at, safe_url(url)).map(Keys::Url);
    match j.jwks.as_ref().map(|k| (&k.file, &k.url)) {
        Some((Some(path), None)) => key_file(ctx, at, path),
        Some((None, Some(url))) => fetched(ctx, url),
        Some(_) => {
            ctx.err(at, "give exactly one of `file` and `url`");
            None
        }
        None => fetched(ctx, &format!("{}/.well-known/jwks.json", j.issuer.trim_end_matches('/'))),
    }
}

/// Where secrets may go, and what comes from there may be believed.
pub(super) fn safe_url(url: &str) -> Result<http::Uri, String> {
    super::super::safe_url(url).ok_or_else(|| format!("`{url}` must be https (http is for loopback only)"))
}

fn key_file(ctx: &mut Ctx<'_>, at: &str, path: &Path) -> Option<Keys> {
    let text = ctx.read(at, path)?;
    let set = serde_json::from_str(&text).map_err(|e| format!("`{}` is not a JWKS: {e}", path.display()));
    ctx.ok(at, set).map(|s| Keys::Set(std::sync::Arc::new(s)))
}

fn mtls(ctx: &mut Ctx<'_>, m: &file::Mtls, org: &str) -> MtlsRule {
    let ca = ctx.path(&m.ca.file);
    if !ca.is_file() {
        ctx.err("/identity/agents/mtls/ca", format!("`{}` is not a file", ca.display()));
    }
    let by_uri = m.agent.unwrap_or(file::CertName::SanUri) == file::CertName::SanUri;
    let agent = |a: &file::CertAgent| {
        let agent = CertAgent {
            agent: a.agent.clone(),
            groups: a.groups.clone(),
            owner: a.owner.clone(),
            operator: a.operator.clone(),
            org: a.org.clone().unwrap_or_else(|| org.to_owned()),
        };
        (a.name.clone(), agent)
    };
    if m.agents.is_empty() {
        ctx.err("/identity/agents/mtls/agents", "names no agent: no certificate would be let in");
    }
    MtlsRule { ca, by_uri, agents: m.agents.iter().map(agent).collect() }
}

/// Reviewers who share an e-mail address are one person, whatever their accounts are called.
fn by_mail(mut people: BTreeMap<String, String>, reviewers: &[Reviewer]) -> BTreeMap<String, String> {
    let linked = |people: &BTreeMap<String, String>, r: &Reviewer| {
        let accounts = [format!("token|{}", r.user), format!("token:{}", r.user)];
        accounts.iter().find_map(|a| people.get(a)).cloned().unwrap_or_else(|| r.user.clone())
    };
    for r in reviewers {
        if let Some(mail) = &r.email {
            let person = linked(&people, r);
            people.entry(mail.to_lowercase()).or_insert(person);
        }
    }
    people
}

fn people(ctx: &mut Ctx<'_>, all: &[file::Person]) -> BTreeMap<String, String> {
    let mut by_account: BTreeMap<String, String> = BTreeMap::new();
    for (i, person) in all.iter().enumerate() {
        for (k, subject) in person.subjects.iter().enumerate() {
            let other = by_account.insert(subject.clone(), person.user.clone());
            if let Some(other) = other.filter(|o| *o != person.user) {
                let at = format!("/identity/people/{i}/subjects/{k}");
                ctx.err(at, format!("`{subject}` is already an account of `{other}`"));
            }
        }
    }
    by_account
}
