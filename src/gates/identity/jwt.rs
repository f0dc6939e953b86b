//! Signed tokens (RFC 7519): keys from the configured set alone, asymmetric algorithms from an allow-list,
//! `iss`, `aud`, `exp` and `sub` demanded.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Uri;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;

use crate::call::{AuthMethod, Fault, Principal, Refusal};
use crate::clock::Clock;
use crate::config::{JwtRule, Keys};

use super::unauthenticated;

/// Gets a document by URL.
pub type Fetch = Arc<dyn Fn(Uri) -> Pin<Box<dyn Future<Output = Result<Bytes, Fault>> + Send>> + Send + Sync>;

/// Clocks of issuer and proxy may differ by this much, seconds.
const LEEWAY: i64 = 30;
/// A set is fetched again after this time; for an unknown key id, or after a failure, not before `RETRY`.
const FRESH: Duration = Duration::from_secs(600);
const RETRY: Duration = Duration::from_secs(30);

pub(super) struct Jwt {
    rule: JwtRule,
    fetch: Fetch,
    clock: Arc<dyn Clock>,
    fetched: Mutex<Cached>,
}

/// What was fetched, and when that was last tried.
#[derive(Default)]
struct Cached {
    set: Option<Arc<JwkSet>>,
    tried: Option<Instant>,
}

impl std::fmt::Debug for Jwt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Jwt({})", self.rule.issuer)
    }
}

/// Three parts, the first of which is a JSON object in base64url.
pub(super) fn looks_like(token: &str) -> bool {
    token.starts_with("ey") && token.bytes().filter(|b| *b == b'.').count() == 2
}

impl Jwt {
    pub(super) fn new(rule: JwtRule, fetch: Fetch, clock: Arc<dyn Clock>) -> Self {
        Self { rule, fetch, clock, fetched: Mutex::default() }
    }

    pub(super) fn issued(&self, p: &Principal) -> bool {
        p.subject.starts_with(&format!("{}|", self.rule.issuer))
    }

    pub(super) async fn warm(&self) -> Result<(), Fault> {
        self.keys(false).await.map(|_| ())
    }

    pub(super) async fn verify(&self, token: &str) -> Result<Principal, Refusal> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| unauthenticated("the token cannot be read"))?;
        if !self.rule.algorithms.contains(&header.alg) {
            return Err(unauthenticated("the token's algorithm is not allowed"));
        }
        let key = self.key(header.kid.as_deref(), header.alg).await?;
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.rule.issuer]);
        validation.set_audience(&[&self.rule.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // The clock is ours, so both are checked below.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let decoded = jsonwebtoken::decode::<Value>(token, &key, &validation);
        let claims = decoded.map_err(|_| unauthenticated("the token is not valid here"))?.claims;
        self.in_time(&claims)?;
        self.principal(&claims)
    }

    fn in_time(&self, claims: &Value) -> Result<(), Refusal> {
        let now = self.clock.now().as_millis() / 1000;
        let number = |name: &str| claims.get(name).map(|v| v.as_i64().or_else(|| v.as_f64().map(whole)));
        match number("exp") {
            Some(Some(exp)) if now < exp.saturating_add(LEEWAY) => {}
            _ => return Err(unauthenticated("the token has expired")),
        }
        match number("nbf") {
            None => Ok(()),
            Some(Some(nbf)) if nbf.saturating_sub(LEEWAY) <= now => Ok(()),
            Some(_) => Err(unauthenticated("the token is not valid yet")),
        }
    }

    async fn key(&self, kid: Option<&str>, alg: Algorithm) -> Result<DecodingKey, Refusal> {
        let unavailable = |fault: Fault| Refusal::from(fault);
        let set = self.keys(false).await.map_err(unavailable)?;
        if let Some(jwk) = pick(&set, kid, alg) {
            return decoding(jwk);
        }
        let set = self.keys(true).await.map_err(unavailable)?;
        pick(&set, kid, alg).map_or_else(|| Err(unauthenticated("the token's key is not known")), decoding)
    }

    /// The key set. With `again` it is fetched anew, unless that was tried just now; while one caller fetches, the
    /// others go on with what there is.
    async fn keys(&self, again: bool) -> Result<Arc<JwkSet>, Fault> {
        let url = match &self.rule.keys {
            Keys::Set(set) => return Ok(Arc::clone(set)),
            Keys::Url(url) => url,
        };
        let known = {
            let mut cached = self.cached();
            let due = if again || cached.set.is_none() { RETRY } else { FRESH };
            let now = self.clock.instant();
            let tried = cached.tried.map(|at| now.saturating_duration_since(at));
            if tried.is_none_or(|age| age >= due) {
                cached.tried = Some(now);
                None
            } else {
                Some(cached.set.clone())
            }
        };
        let unknown = || Fault::new("the key set of tokens cannot be had right now");
        if let Some(known) = known {
            return known.ok_or_else(unknown);
        }
        match (self.fetch)(url.clone()).await.and_then(|bytes| parse(&bytes)) {
            Ok(set) => {
                let set = Arc::new(set);
                self.cached().set = Some(Arc::clone(&set));
                Ok(set)
            }
            // An older set is better than none; its signatures are as good as before.
            Err(fault) => self.cached().set.clone().ok_or(fault),
        }
    }

    fn cached(&self) -> std::sync::MutexGuard<'_, Cached> {
        self.fetched.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn principal(&self, claims: &Value) -> Result<Principal, Refusal> {
        let rule = &self.rule;
        let text = |path: &str| claim(claims, path).and_then(Value::as_str).map(str::to_owned);
        let agent = text(&rule.agent_claim).filter(|a| !a.is_empty() && a.len() <= 256);
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        let optional = |path: &Option<String>| path.as_deref().and_then(text);
        let mut tags = BTreeMap::new();
        if let Some(scope) = optional(&rule.scope_claim) {
            tags.insert("scope".to_owned(), scope);
        }
        Ok(Principal {
            agent: agent.ok_or_else(|| unauthenticated("the token names no agent"))?,
            groups: rule.group_claim.as_deref().and_then(|p| claim(claims, p)).map(list).unwrap_or_default(),
            org: optional(&rule.org_claim).unwrap_or_else(|| rule.org.clone()),
            owner: rule.owner.clone(),
            operator: optional(&rule.operator_claim),
            acting_for: optional(&rule.user_claim),
            acting_for_email: text("email").filter(|_| claims.get("email_verified") == Some(&Value::Bool(true))),
            claims: tags,
            method: AuthMethod::Jwt,
            subject: format!("{}|{subject}", rule.issuer),
        })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "seconds; a cast from f64 saturates")]
fn whole(seconds: f64) -> i64 {
    seconds.floor() as i64
}

/// `act.sub` walks into objects; a claim whose name has the dot itself wins.
fn claim<'a>(claims: &'a Value, path: &str) -> Option<&'a Value> {
    claims.get(path).or_else(|| path.split('.').try_fold(claims, |at, part| at.get(part)))
}

fn list(value: &Value) -> Vec<String> {
    match value {
        Value::String(one) => one.split_whitespace().map(str::to_owned).collect(),
        Value::Array(many) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

fn parse(bytes: &[u8]) -> Result<JwkSet, Fault> {
    serde_json::from_slice(bytes).map_err(|e| Fault::caused("the key set is not a JWKS", e))
}

fn decoding(jwk: &Jwk) -> Result<DecodingKey, Refusal> {
    DecodingKey::from_jwk(jwk).map_err(|_| unauthenticated("the token's key cannot be used"))
}

/// The key by its id; without an id, the only key. A key that names its algorithm serves that one alone.
fn pick<'a>(set: &'a JwkSet, kid: Option<&str>, alg: Algorithm) -> Option<&'a Jwk> {
    let fits = |jwk: &&Jwk| jwk.common.key_algorithm.is_none_or(|a| a.to_string() == format!("{alg:?}"));
    match kid {
        Some(kid) => set.keys.iter().filter(fits).find(|k| k.common.key_id.as_deref() == Some(kid)),
        None if set.keys.len() == 1 => set.keys.iter().find(fits),
        None => None,
    }
}
