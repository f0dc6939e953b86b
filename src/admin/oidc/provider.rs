//! The provider: its discovery document (OpenID Connect Discovery 1.0), its keys, its token endpoint.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use serde::Deserialize;

use crate::call::{Fault, encode_part};
use crate::clock::Clock;
use crate::config::{Keys, OidcRule, safe_url};
use crate::gates::identity::KeySet;
use crate::gates::upstream::{exchange, fetch};

use super::Trouble;

/// The document is fetched again after this time.
const FRESH: Duration = Duration::from_secs(3600);
/// After a failure not before: strangers must not make us flood the provider.
const RETRY: Duration = Duration::from_secs(5);

pub(super) struct Provider {
    rule: Arc<OidcRule>,
    clock: Arc<dyn Clock>,
    kept: Mutex<Kept>,
    asking: tokio::sync::Mutex<()>,
}

/// What was learnt, and when the provider was asked last, with or without success.
#[derive(Debug, Default)]
struct Kept {
    document: Option<Arc<Document>>,
    tried: Option<(Instant, bool)>,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Provider({})", self.rule.issuer)
    }
}

/// What the provider says of itself.
#[derive(Debug)]
pub(super) struct Document {
    issuer: String,
    pub(super) authorization_endpoint: String,
    token_endpoint: Uri,
    jwks_uri: Uri,
    pub(super) keys: Arc<KeySet>,
    /// The secret goes into the form, not into the head.
    secret_in_form: bool,
    /// RFC 9207: every answer names the provider.
    names_itself: bool,
}

#[derive(Deserialize)]
struct Written {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

#[derive(Deserialize)]
struct Redeemed {
    id_token: Option<String>,
}

impl Document {
    /// RFC 9207: the answer is this provider's, not another's.
    pub(super) fn check_answer(&self, iss: Option<&str>) -> Result<(), Trouble> {
        match iss {
            Some(iss) if iss != self.issuer => Err(Trouble::Rejected("it comes from another provider")),
            None if self.names_itself => Err(Trouble::Rejected("it does not say from which provider it comes")),
            _ => Ok(()),
        }
    }
}

impl Provider {
    pub(super) fn new(rule: Arc<OidcRule>, clock: Arc<dyn Clock>) -> Self {
        Self { rule, clock, kept: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    pub(super) fn is_of(&self, rule: &OidcRule) -> bool {
        let ours = &self.rule;
        let same_place = ours.issuer == rule.issuer && ours.discovery == rule.discovery;
        same_place && ours.client_id == rule.client_id && ours.client_secret == rule.client_secret
    }

    /// The document; an old one when a new one cannot be had. One caller asks the provider, the others wait for it.
    pub(super) async fn document(&self) -> Result<Arc<Document>, Fault> {
        if let Some(known) = self.known() {
            return known;
        }
        let _one = self.asking.lock().await;
        if let Some(known) = self.known() {
            return known;
        }
        let old = self.kept().document.clone();
        let asked = self.discover(old.as_deref()).await;
        let mut kept = self.kept();
        kept.tried = Some((self.clock.instant(), asked.is_ok()));
        match asked {
            Ok(document) => Ok(Arc::clone(kept.document.insert(Arc::new(document)))),
            Err(fault) => {
                tracing::warn!(fault = %fault.chain(), "the provider's discovery document cannot be had");
                old.ok_or(fault)
            }
        }
    }

    /// What is known, unless it is time to ask.
    fn known(&self) -> Option<Result<Arc<Document>, Fault>> {
        let kept = self.kept();
        let (at, was_good) = kept.tried?;
        let age = self.clock.instant().saturating_duration_since(at);
        let unknown = || Fault::new("the provider's discovery document could not be had just now");
        (age < if was_good { FRESH } else { RETRY }).then(|| kept.document.clone().ok_or_else(unknown))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn discover(&self, old: Option<&Document>) -> Result<Document, Fault> {
        let bytes = fetch(self.rule.discovery.clone(), Arc::clone(&self.clock)).await?;
        let odd = |why: String| Fault::caused("the provider's discovery document cannot be used", why);
        let written: Written = serde_json::from_slice(&bytes).map_err(|e| odd(e.to_string()))?;
        if written.issuer != self.rule.issuer {
            return Err(odd(format!("it is that of `{}`, not of `{}`", written.issuer, self.rule.issuer)));
        }
        let safe = |name: &str, url: &str| {
            safe_url(url).ok_or_else(|| odd(format!("its `{name}` is not https (http is for loopback only)")))
        };
        safe("authorization_endpoint", &written.authorization_endpoint)?;
        let jwks_uri = safe("jwks_uri", &written.jwks_uri)?;
        let methods = written.token_endpoint_auth_methods_supported.unwrap_or_default();
        let takes = |method: &str| methods.iter().any(|m| m == method);
        let known = old.filter(|o| o.jwks_uri == jwks_uri).map(|o| Arc::clone(&o.keys));
        Ok(Document {
            token_endpoint: safe("token_endpoint", &written.token_endpoint)?,
            keys: known.unwrap_or_else(|| Arc::new(self.keys(&jwks_uri))),
            jwks_uri,
            secret_in_form: takes("client_secret_post") && !takes("client_secret_basic"),
            names_itself: written.authorization_response_iss_parameter_supported,
            issuer: written.issuer,
            authorization_endpoint: written.authorization_endpoint,
        })
    }

    fn keys(&self, uri: &Uri) -> KeySet {
        let clock = Arc::clone(&self.clock);
        let get = move |uri: Uri| {
            let clock = Arc::clone(&clock);
            let got: futures_util::future::BoxFuture<'static, _> = Box::pin(fetch(uri, clock));
            got
        };
        KeySet::new(Keys::Url(uri.clone()), Arc::new(get), Arc::clone(&self.clock))
    }

    /// The ID token for a code.
    pub(super) async fn redeem(&self, document: &Document, code: &str, verifier: &str) -> Result<String, Trouble> {
        let request = self.request(document, code, verifier)?;
        let (parts, body) = exchange(request, Arc::clone(&self.clock)).await?.into_parts();
        match parts.status {
            StatusCode::OK => {}
            // RFC 6749, 5.2: the code is what is wrong, or what we are.
            StatusCode::BAD_REQUEST if is_bad_code(&body) => return Err(Trouble::Rejected("its code is not valid")),
            status => return Err(Fault::caused("no token for the code", format!("status {status}")).into()),
        }
        let redeemed: Result<Redeemed, _> = serde_json::from_slice(&body);
        redeemed.ok().and_then(|r| r.id_token).ok_or(Trouble::Rejected("there is no ID token in it"))
    }

    fn request(&self, document: &Document, code: &str, verifier: &str) -> Result<Request<Bytes>, Fault> {
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = document.token_endpoint.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let id = self.rule.client_id.as_str();
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.rule.redirect_uri),
            ("code_verifier", verifier),
        ];
        match self.rule.client_secret.as_ref().map(crate::config::Secret::reveal) {
            None => form.push(("client_id", id)),
            Some(secret) if document.secret_in_form => form.extend([("client_id", id), ("client_secret", secret)]),
            Some(secret) => {
                let pair = STANDARD.encode(format!("{}:{}", encode_part(id), encode_part(secret)));
                let value = HeaderValue::from_str(&format!("Basic {pair}"));
                let mut value = value.map_err(|e| Fault::caused("no credential for the provider", e))?;
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
        }
        let form: Vec<String> = form.iter().map(|(n, v)| format!("{n}={}", encode_part(v))).collect();
        *request.body_mut() = Bytes::from(form.join("&"));
        Ok(request)
    }
}

fn is_bad_code(body: &[u8]) -> bool {
    let value: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    value.is_some_and(|v| v.get("error").and_then(serde_json::Value::as_str) == Some("invalid_grant"))
}
