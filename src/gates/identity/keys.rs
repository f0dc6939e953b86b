//! The keys of an issuer of signed tokens: from a file, or fetched and kept; never from what a token itself names.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Uri;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey};

use crate::call::Fault;
use crate::clock::Clock;
use crate::config::Keys;

/// Gets a document by URL.
pub type Fetch = Arc<dyn Fn(Uri) -> Pin<Box<dyn Future<Output = Result<Bytes, Fault>> + Send>> + Send + Sync>;

/// A set is fetched again after this time; for an unknown key id, or after a failure, not before `RETRY`.
const FRESH: Duration = Duration::from_secs(600);
const RETRY: Duration = Duration::from_secs(30);

/// The key set of one issuer.
pub struct KeySet {
    keys: Keys,
    fetch: Fetch,
    clock: Arc<dyn Clock>,
    fetched: Mutex<Cached>,
}

/// Why there is no key for a token.
#[derive(Debug)]
pub enum NoKey {
    /// The token's fault.
    Refused(&'static str),
    /// The set cannot be had now.
    Fault(Fault),
}

/// What was fetched, and when that was last tried.
#[derive(Default)]
struct Cached {
    set: Option<Arc<JwkSet>>,
    tried: Option<Instant>,
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeySet")
    }
}

impl KeySet {
    /// Nothing is fetched yet.
    #[must_use]
    pub fn new(keys: Keys, fetch: Fetch, clock: Arc<dyn Clock>) -> Self {
        Self { keys, fetch, clock, fetched: Mutex::default() }
    }

    pub(super) async fn warm(&self) -> Result<(), Fault> {
        self.set(false).await.map(|_| ())
    }

    /// The key that a token of this header needs. An unknown key id has the set fetched again.
    ///
    /// # Errors
    /// No such key, or no set.
    pub async fn key(&self, kid: Option<&str>, alg: Algorithm) -> Result<DecodingKey, NoKey> {
        let set = self.set(false).await.map_err(NoKey::Fault)?;
        if let Some(jwk) = pick(&set, kid, alg) {
            return decoding(jwk);
        }
        let set = self.set(true).await.map_err(NoKey::Fault)?;
        pick(&set, kid, alg).map_or(Err(NoKey::Refused("the token's key is not known")), decoding)
    }

    /// The key set. With `again` it is fetched anew, unless that was tried just now; while one caller fetches, the
    /// others go on with what there is.
    async fn set(&self, again: bool) -> Result<Arc<JwkSet>, Fault> {
        let url = match &self.keys {
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

    fn cached(&self) -> MutexGuard<'_, Cached> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(bytes: &[u8]) -> Result<JwkSet, Fault> {
    serde_json::from_slice(bytes).map_err(|e| Fault::caused("the key set is not a JWKS", e))
}

fn decoding(jwk: &Jwk) -> Result<DecodingKey, NoKey> {
    DecodingKey::from_jwk(jwk).map_err(|_| NoKey::Refused("the token's key cannot be used"))
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
