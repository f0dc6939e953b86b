//! Sign-in at an OpenID provider: authorization code with PKCE (OpenID Connect Core 1.0, RFC 7636, RFC 9700).
//!
//! A sign-in under way is kept nowhere: its cookie is a random word, and `state`, `nonce` and the PKCE verifier are
//! drawn from that cookie with a key of this process. So they are bound to the browser, nobody can fill our memory,
//! and a restart merely asks to begin again.

mod provider;
mod token;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::{hmac, rand::SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::call::{Digest, Fault, encode_part};
use crate::clock::Clock;
use crate::config::OidcRule;

use super::edge;
use super::sessions::random;
use super::who::SignedIn;

use self::provider::Provider;

/// A sign-in takes no longer.
const TIME: Duration = Duration::from_secs(600);
/// Sign-ins whose code is being redeemed at once: strangers must not make us flood the provider.
const AT_ONCE: usize = 16;

/// Sign-ins at the provider.
#[derive(Debug)]
pub(super) struct Oidc {
    key: OnceLock<hmac::Key>,
    provider: Mutex<Option<Arc<Provider>>>,
    /// Ways that led to a session, until their time is over: each leads to one.
    used: Mutex<HashMap<Digest, Instant>>,
    slots: Semaphore,
}

impl Default for Oidc {
    fn default() -> Self {
        Self {
            key: OnceLock::new(),
            provider: Mutex::default(),
            used: Mutex::default(),
            slots: Semaphore::new(AT_ONCE),
        }
    }
}

/// Why nobody is signed in, as the page says it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("This sign-in was not begun in this browser, was used already, or took too long. Begin again.")]
    NotBegun,
    #[error("The provider did not sign you in ({0}).")]
    Declined(&'static str),
    #[error("What the provider sent does not hold: {0}. Nobody is signed in.")]
    Rejected(&'static str),
    #[error("This account may not sign in here: {0}.")]
    Nobody(&'static str),
    #[error("The sign-in provider cannot be asked right now. Try again in a moment.")]
    Unavailable(#[source] Fault),
}

impl Trouble {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NotBegun => StatusCode::BAD_REQUEST,
            Self::Declined(_) | Self::Nobody(_) => StatusCode::FORBIDDEN,
            Self::Rejected(_) => StatusCode::UNAUTHORIZED,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Unavailable(fault)
    }
}

/// What the provider sent the browser back with, and the cookie that the browser has.
#[derive(Debug)]
pub(super) struct Came {
    answer: Answer,
    cookie: String,
}

#[derive(Debug, Deserialize)]
struct Answer {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

impl Came {
    pub(super) fn read(query: &str, cookie: Option<String>) -> Result<Self, Trouble> {
        let answer = edge::fields(query.as_bytes()).map_err(|_| Trouble::Rejected("it cannot be read"))?;
        Ok(Self { answer, cookie: cookie.ok_or(Trouble::NotBegun)? })
    }
}

/// One way to the provider and back, as its cookie tells it: `id.begun.fresh.next`.
#[derive(Debug)]
struct Way<'c> {
    cookie: &'c str,
    /// Seconds since 1970.
    begun: i64,
    fresh: bool,
    next: &'c str,
}

impl<'c> Way<'c> {
    fn read(cookie: &'c str) -> Option<Self> {
        let mut parts = cookie.splitn(4, '.').skip(1);
        let begun = parts.next()?.parse().ok()?;
        let fresh = parts.next()? == "1";
        Some(Self { cookie, begun, fresh, next: parts.next()? })
    }
}

impl Oidc {
    /// Where the browser goes, and the cookie that it takes along.
    ///
    /// # Errors
    /// The provider cannot be asked.
    pub(super) async fn depart(
        &self,
        rule: &Arc<OidcRule>,
        clock: &Arc<dyn Clock>,
        next: &str,
        fresh: bool,
    ) -> Result<(String, String), Trouble> {
        let provider = self.provider(rule, clock);
        let document = provider.document().await?;
        let begun = clock.now().as_millis() / 1000;
        let cookie = format!("{}.{begun}.{}.{next}", random()?, u8::from(fresh));
        let challenge = URL_SAFE_NO_PAD.encode(Digest::of(self.drawn("verifier", &cookie)?.as_bytes()).as_bytes());
        let (state, nonce) = (self.drawn("state", &cookie)?, self.drawn("nonce", &cookie)?);
        let mut query = vec![
            ("response_type", "code"),
            ("client_id", &rule.client_id),
            ("redirect_uri", &rule.redirect_uri),
            ("scope", &rule.scope),
            ("state", &state),
            ("nonce", &nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let acr = rule.mfa_acr.join(" ");
        if fresh {
            query.extend([("prompt", "login"), ("max_age", "0")]);
            query.extend((!acr.is_empty()).then_some(("acr_values", acr.as_str())));
        }
        let query: Vec<String> = query.iter().map(|(n, v)| format!("{n}={}", encode_part(v))).collect();
        let mark = if document.authorization_endpoint.contains('?') { '&' } else { '?' };
        Ok((format!("{}{mark}{}", document.authorization_endpoint, query.join("&")), cookie))
    }

    /// Who came back, and where to go on.
    ///
    /// # Errors
    /// Nobody did.
    pub(super) async fn arrive(
        &self,
        rule: &Arc<OidcRule>,
        clock: &Arc<dyn Clock>,
        came: Came,
    ) -> Result<(Arc<SignedIn>, String), Trouble> {
        let way = Way::read(&came.cookie).ok_or(Trouble::NotBegun)?;
        let now = clock.now().as_millis() / 1000;
        self.is_ours(&way, came.answer.state.as_deref(), now)?;
        let provider = self.provider(rule, clock);
        let document = provider.document().await?;
        document.check_answer(came.answer.iss.as_deref())?;
        if let Some(error) = &came.answer.error {
            return Err(Trouble::Declined(declined(error)));
        }
        let code = came.answer.code.as_deref().ok_or(Trouble::Rejected("it carries no code"))?;
        let busy = |_| Fault::new("too many sign-ins at once");
        let slot = self.slots.try_acquire().map_err(busy)?;
        let raw = provider.redeem(&document, code, &self.drawn("verifier", way.cookie)?).await?;
        let nonce = self.drawn("nonce", way.cookie)?;
        let fresh_since = way.fresh.then_some(way.begun);
        let signed = token::check(rule, &provider, &raw, &nonce, fresh_since, clock.now()).await?;
        drop(slot);
        self.spend(way.cookie, clock.instant())?;
        Ok((Arc::new(signed), way.next.to_owned()))
    }

    /// `state` was drawn from this very cookie, lately.
    fn is_ours(&self, way: &Way<'_>, state: Option<&str>, now: i64) -> Result<(), Trouble> {
        let tag = URL_SAFE_NO_PAD.decode(state.unwrap_or_default()).map_err(|_| Trouble::NotBegun)?;
        let text = labelled("state", way.cookie);
        hmac::verify(self.key()?, text.as_bytes(), &tag).map_err(|_| Trouble::NotBegun)?;
        let age = u64::try_from(now.saturating_sub(way.begun)).unwrap_or(u64::MAX);
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&Digest::of(text.as_bytes()));
        if used || age > TIME.as_secs() { Err(Trouble::NotBegun) } else { Ok(()) }
    }

    /// A way leads to one session, once.
    fn spend(&self, cookie: &str, now: Instant) -> Result<(), Trouble> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        // Longer than any way counts, by whichever clock.
        used.retain(|_, at| now.saturating_duration_since(*at) < 2 * TIME);
        let before = used.insert(Digest::of(labelled("state", cookie).as_bytes()), now);
        if before.is_some() { Err(Trouble::NotBegun) } else { Ok(()) }
    }

    fn drawn(&self, label: &str, cookie: &str) -> Result<String, Fault> {
        Ok(URL_SAFE_NO_PAD.encode(hmac::sign(self.key()?, labelled(label, cookie).as_bytes())))
    }

    fn key(&self) -> Result<&hmac::Key, Fault> {
        if let Some(key) = self.key.get() {
            return Ok(key);
        }
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|e| Fault::caused("no random bytes", e))?;
        Ok(self.key.get_or_init(|| key))
    }

    /// What is known of the provider lasts until its rule changes.
    fn provider(&self, rule: &Arc<OidcRule>, clock: &Arc<dyn Clock>) -> Arc<Provider> {
        let mut known = self.provider.lock().unwrap_or_else(PoisonError::into_inner);
        match known.as_ref().filter(|p| p.is_of(rule)) {
            Some(provider) => Arc::clone(provider),
            None => Arc::clone(known.insert(Arc::new(Provider::new(Arc::clone(rule), Arc::clone(clock))))),
        }
    }
}

fn labelled(label: &str, cookie: &str) -> String {
    format!("{label}\n{cookie}")
}

/// The code of RFC 6749 and OpenID Connect Core, never the provider's (or anybody's) own words.
fn declined(error: &str) -> &'static str {
    const KNOWN: [&str; 12] = [
        "access_denied",
        "invalid_request",
        "unauthorized_client",
        "unsupported_response_type",
        "invalid_scope",
        "server_error",
        "temporarily_unavailable",
        "interaction_required",
        "login_required",
        "account_selection_required",
        "consent_required",
        "unmet_authentication_requirements",
    ];
    KNOWN.iter().find(|k| **k == error).copied().unwrap_or("it gave no reason that is known here")
}
