//! Who is calling, proven: by key, by signed token, or by client certificate. Decided for every message anew.

mod api_key;
mod jwt;
mod keys;
mod mtls;
pub mod token;

use std::sync::Arc;

use crate::call::{Code, Credentials, Fault, Principal, Refusal};
use crate::clock::Clock;
use crate::config::IdentityConfig;

pub use keys::{Fetch, KeySet, NoKey};

/// The identity gate.
#[derive(Debug)]
pub struct Identity {
    keys: api_key::ApiKeys,
    jwt: Option<jwt::Jwt>,
    mtls: Option<mtls::Mtls>,
}

impl Identity {
    /// Builds the gate; `fetch` gets key sets from their URL.
    #[must_use]
    pub fn new(config: &IdentityConfig, fetch: Fetch, clock: Arc<dyn Clock>) -> Self {
        Self {
            keys: api_key::ApiKeys::new(config.keys.clone()),
            jwt: config.jwt.clone().map(|rule| jwt::Jwt::new(rule, fetch, clock)),
            mtls: config.mtls.clone().map(mtls::Mtls::new),
        }
    }

    /// Proves who calls.
    ///
    /// # Errors
    /// `unauthenticated`, without saying which part of a credential was wrong.
    pub async fn identify(&self, credentials: &Credentials) -> Result<Principal, Refusal> {
        if let Some(token) = &credentials.token {
            if let Some(principal) = self.keys.find(token) {
                return Ok(principal);
            }
            return match &self.jwt {
                Some(jwt) if jwt::looks_like(token) => jwt.verify(token).await,
                _ => Err(unauthenticated("the credential is not one that is known here")),
            };
        }
        match (&credentials.certificate, &self.mtls) {
            (Some(der), Some(mtls)) => mtls.find(der),
            _ => Err(unauthenticated("a credential is needed: `Authorization: Bearer …` or `X-Api-Key: …`")),
        }
    }

    /// Whether an agent that was identified earlier may still act: keys and certificates by today's configuration,
    /// tokens as long as tokens are accepted at all.
    #[must_use]
    pub fn still_active(&self, principal: &Principal) -> bool {
        use crate::call::AuthMethod;
        match principal.method {
            AuthMethod::ApiKey => self.keys.has(principal),
            AuthMethod::Jwt => self.jwt.as_ref().is_some_and(|j| j.issued(principal)),
            AuthMethod::Mtls => self.mtls.as_ref().is_some_and(|m| m.has(principal)),
        }
    }

    /// Fetches key sets that come from a URL, so that the first call need not wait for them.
    ///
    /// # Errors
    /// A fault, when they cannot be had now.
    pub async fn warm(&self) -> Result<(), Fault> {
        match &self.jwt {
            Some(jwt) => jwt.warm().await,
            None => Ok(()),
        }
    }
}

fn unauthenticated(detail: &'static str) -> Refusal {
    Refusal::new(Code::Unauthenticated, detail)
}
