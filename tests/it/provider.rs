//! An OpenID provider of the tests' own: real HTTP, real signatures, and whatever goes wrong with real ones.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::StatusCode;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};

use crate::harness::{Reaction, Seen, Upstream, answer};

pub const CLIENT: &str = "holdpoint";
pub const SECRET: &str = "provider secret/1";

/// A signing key of the provider.
#[derive(Clone)]
pub struct Key {
    pub kid: &'static str,
    secret: Arc<EncodingKey>,
    jwk: Value,
}

pub fn key(kid: &'static str) -> Key {
    let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let raw = pair.der_bytes();
    let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let jwk = json!({"kid": kid, "kty": "EC", "crv": "P-256", "x": b64(&raw[1..33]), "y": b64(&raw[33..65])});
    let secret = Arc::new(EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap());
    Key { kid, secret, jwk }
}

/// What the provider was asked when the browser came.
#[derive(Debug, Clone)]
struct Asked {
    query: BTreeMap<String, String>,
    claims: Value,
}

type Change = Arc<dyn Fn(&mut Value) + Send + Sync>;
type Forge = Arc<dyn Fn(&Value, String) -> String + Send + Sync>;

struct Inner {
    keys: Vec<Key>,
    signs: Key,
    codes: BTreeMap<String, Asked>,
    made: usize,
    change: Change,
    forge: Forge,
    down: bool,
    issuer: Option<String>,
    names_itself: bool,
    redeemed: usize,
    key_sets: usize,
}

/// The provider. A sign-in there succeeds for whomever the test says.
#[derive(Clone)]
pub struct Provider {
    pub server: Upstream,
    inner: Arc<Mutex<Inner>>,
    now: Arc<dyn Fn() -> i64 + Send + Sync>,
}

pub fn query_of(url: &str) -> BTreeMap<String, String> {
    let (_, query) = url.split_once('?').unwrap_or((url, ""));
    form(query)
}

fn form(text: &str) -> BTreeMap<String, String> {
    let plain =
        |t: &str| percent_encoding::percent_decode_str(&t.replace('+', " ")).decode_utf8().unwrap().into_owned();
    text.split('&').filter_map(|p| p.split_once('=')).map(|(n, v)| (plain(n), plain(v))).collect()
}

impl Provider {
    pub async fn start(now: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        let first = key("k1");
        let inner = Inner {
            keys: vec![first.clone()],
            signs: first,
            codes: BTreeMap::new(),
            made: 0,
            change: Arc::new(|_| {}),
            forge: Arc::new(|_, token| token),
            down: false,
            issuer: None,
            names_itself: false,
            redeemed: 0,
            key_sets: 0,
        };
        let provider = Self { server: Upstream::start().await, inner: Arc::new(Mutex::new(inner)), now: Arc::new(now) };
        let answering = provider.clone();
        provider.server.script(move |seen| answering.respond(seen));
        provider
    }

    pub fn issuer(&self) -> String {
        format!("http://{}", self.server.at)
    }

    fn respond(&self, seen: &Seen) -> Reaction {
        if self.inner.lock().unwrap().down {
            return Reaction::Drop;
        }
        match seen.target.as_str() {
            "/.well-known/openid-configuration" => answer(200, &self.document()),
            "/keys" => {
                let mut inner = self.inner.lock().unwrap();
                inner.key_sets += 1;
                answer(200, &json!({"keys": inner.keys.iter().map(|k| &k.jwk).collect::<Vec<_>>()}))
            }
            "/token" => self.redeem(seen),
            other => answer(404, &json!({"no": other})),
        }
    }

    fn document(&self) -> Value {
        let (at, inner) = (self.issuer(), self.inner.lock().unwrap());
        json!({
            "issuer": inner.issuer.clone().unwrap_or_else(|| at.clone()),
            "authorization_endpoint": format!("{at}/authorize"),
            "token_endpoint": format!("{at}/token"),
            "jwks_uri": format!("{at}/keys"),
            "authorization_response_iss_parameter_supported": inner.names_itself,
        })
    }

    /// The token endpoint: the client's secret, the verifier and a code that serves once.
    fn redeem(&self, seen: &Seen) -> Reaction {
        let said = form(std::str::from_utf8(&seen.body).unwrap());
        let basic = seen.headers.get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let wanted = format!("Basic {}", STANDARD.encode(format!("{CLIENT}:provider%20secret%2F1")));
        if basic != wanted || said.contains_key("client_secret") {
            return answer(401, &json!({"error": "invalid_client"}));
        }
        let refused = || answer(400, &json!({"error": "invalid_grant"}));
        let mut inner = self.inner.lock().unwrap();
        inner.redeemed += 1;
        let Some(asked) = inner.codes.remove(&said["code"]) else { return refused() };
        let proof = URL_SAFE_NO_PAD.encode(digest(&SHA256, said["code_verifier"].as_bytes()));
        let is_same = |name: &str, value: &str| asked.query.get(name).is_some_and(|v| v == value);
        if !is_same("code_challenge", &proof) || !is_same("redirect_uri", &said["redirect_uri"]) {
            return refused();
        }
        let mut claims = asked.claims;
        (inner.change)(&mut claims);
        let header = Header { kid: Some(inner.signs.kid.into()), ..Header::new(Algorithm::ES256) };
        let token = jsonwebtoken::encode(&header, &claims, &inner.signs.secret).unwrap();
        let id_token = (inner.forge)(&claims, token);
        let body = json!({"access_token": "opaque", "token_type": "Bearer", "id_token": id_token});
        Reaction::Answer(
            StatusCode::OK,
            vec![("content-type", "application/json".into())],
            Bytes::from(body.to_string()),
        )
    }

    /// The person `sub` signs in for what this URL asks; gives the query that the browser comes back with.
    pub fn sign_in(&self, url: &str, more: &Value) -> String {
        assert!(url.starts_with(&format!("{}/authorize?", self.issuer())), "{url}");
        let query = query_of(url);
        for (name, value) in [("response_type", "code"), ("client_id", CLIENT), ("code_challenge_method", "S256")] {
            assert_eq!(query[name], value, "{url}");
        }
        assert!(query["scope"].split(' ').any(|s| s == "openid"), "{url}");
        let now = (self.now)();
        let mut claims = json!({
            "iss": self.issuer(), "aud": CLIENT, "exp": now + 300, "iat": now, "auth_time": now,
            "nonce": query["nonce"],
        });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut inner = self.inner.lock().unwrap();
        inner.made += 1;
        let code = format!("code/{}", inner.made);
        let back = format!("code={}&state={}&session_state=x", code.replace('/', "%2F"), query["state"]);
        inner.codes.insert(code, Asked { query, claims });
        back
    }

    /// What is changed in every claim set from now on.
    pub fn change(&self, change: impl Fn(&mut Value) + Send + Sync + 'static) {
        self.inner.lock().unwrap().change = Arc::new(change);
    }

    /// What becomes of every signed token from now on.
    pub fn forge(&self, forge: impl Fn(&Value, String) -> String + Send + Sync + 'static) {
        self.inner.lock().unwrap().forge = Arc::new(forge);
    }

    /// Tokens are signed with this key, which the set shows or not.
    pub fn rotate(&self, next: Key, shown: bool) {
        let mut inner = self.inner.lock().unwrap();
        if shown {
            inner.keys = vec![next.clone()];
        }
        inner.signs = next;
    }

    pub fn public_keys(&self) -> String {
        self.inner.lock().unwrap().keys[0].jwk.to_string()
    }

    pub fn set_down(&self, down: bool) {
        self.inner.lock().unwrap().down = down;
    }

    pub fn claims_to_be(&self, issuer: &str) {
        self.inner.lock().unwrap().issuer = Some(issuer.into());
    }

    pub fn names_itself(&self) {
        self.inner.lock().unwrap().names_itself = true;
    }

    pub fn redeemed(&self) -> usize {
        self.inner.lock().unwrap().redeemed
    }

    pub fn key_sets(&self) -> usize {
        self.inner.lock().unwrap().key_sets
    }
}
