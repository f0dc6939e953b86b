//! Who is calling: signed tokens, client certificates, and nobody by default.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use holdpoint::app;
use holdpoint::call::Timestamp;
use holdpoint::clock::ManualClock;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, PublicKeyData, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::harness::{Got, Proxy, SUPPORT_KEY, Setup, Upstream, answer, send};

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://idp.test";

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Timestamp::from_millis(NOW * 1000)))
}

/// A signing key and how the key set shows it.
struct Key {
    kid: &'static str,
    alg: Algorithm,
    secret: EncodingKey,
    jwk: Value,
}

fn key(kid: &'static str, alg: Algorithm) -> Key {
    let of = match alg {
        Algorithm::RS256 => &rcgen::PKCS_RSA_SHA256,
        Algorithm::ES256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        _ => &rcgen::PKCS_ED25519,
    };
    let pair = KeyPair::generate_for(of).unwrap();
    let (pem, raw) = (pair.serialize_pem(), pair.der_bytes());
    let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (secret, mut jwk) = match alg {
        Algorithm::RS256 => {
            let secret = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
            let jwk = serde_json::to_value(Jwk::from_encoding_key(&secret, alg).unwrap()).unwrap();
            (secret, jwk)
        }
        Algorithm::ES256 => {
            let jwk = json!({"kty": "EC", "crv": "P-256", "x": b64(&raw[1..33]), "y": b64(&raw[33..65])});
            (EncodingKey::from_ec_pem(pem.as_bytes()).unwrap(), jwk)
        }
        _ => {
            let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": b64(raw)});
            (EncodingKey::from_ed_pem(pem.as_bytes()).unwrap(), jwk)
        }
    };
    jwk["kid"] = kid.into();
    Key { kid, alg, secret, jwk }
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "holdpoint", "sub": "bot-7", "exp": NOW + 300, "groups": ["support"]})
}

/// The claims with one changed, or taken away.
fn with(name: &str, value: Value) -> Value {
    let mut all = claims();
    match value {
        Value::Null => drop(all.as_object_mut().unwrap().remove(name)),
        value => all[name] = value,
    }
    all
}

fn token(key: &Key, claims: &Value) -> String {
    let header = Header { kid: Some(key.kid.into()), ..Header::new(key.alg) };
    jsonwebtoken::encode(&header, claims, &key.secret).unwrap()
}

fn by_hand(header: &Value, claims: &Value, signature: &str) -> String {
    let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
    format!("{}.{}.{signature}", part(header), part(claims))
}

/// A proxy that takes tokens; `keys` is where it finds the key set.
fn takes_tokens(keys: &str) -> Setup {
    let jwt = format!(
        "  agents:\n    jwt:\n      issuer: {ISSUER}\n      audience: holdpoint\n      jwks: {keys}\n      \
         group_claim: groups\n      user_claim: act.sub\n      owner: support-leads\n    api_keys:\n"
    );
    Setup::new().config("  agents:\n    api_keys:\n", &jwt).clock(clock())
}

async fn read(p: &Proxy, token: &str) -> Got {
    p.agent_as(token, "GET", "/crm/customers/c_1", &[], None).await
}

#[tokio::test]
async fn a_good_token_of_each_algorithm_passes_and_a_bad_one_never() {
    let keys = [key("r", Algorithm::RS256), key("e", Algorithm::ES256), key("d", Algorithm::EdDSA)];
    let set = json!({"keys": keys.iter().map(|k| &k.jwk).collect::<Vec<_>>()}).to_string();
    let p = takes_tokens("{ file: jwks.json }").file("jwks.json", &set).start().await;
    for key in &keys {
        let got = read(&p, &token(key, &claims())).await;
        assert_eq!((got.status, got.decision()), (200, "allowed"), "{:?} {:?}", key.alg, got.json());
    }
    let [rsa, ec, _] = &keys;
    assert_eq!(read(&p, &token(ec, &with("nbf", json!(NOW + 20)))).await.status, 200, "clocks differ a little");
    assert_eq!(read(&p, &token(ec, &with("aud", json!(["other", "holdpoint"])))).await.status, 200);
    let before = p.upstream.bytes();

    let public = rsa.jwk["n"].as_str().unwrap();
    let confused = Header { kid: Some("r".into()), ..Header::new(Algorithm::HS256) };
    let hs256 = |secret: &[u8]| jsonwebtoken::encode(&confused, &claims(), &EncodingKey::from_secret(secret)).unwrap();
    let stranger = key("e", Algorithm::ES256);
    let mut tampered = token(ec, &claims()).split('.').map(str::to_owned).collect::<Vec<_>>();
    tampered[1] = URL_SAFE_NO_PAD.encode(with("sub", json!("admin")).to_string());
    let named = |kid: &str| {
        let header = Header { kid: Some(kid.into()), ..Header::new(ec.alg) };
        jsonwebtoken::encode(&header, &claims(), &ec.secret).unwrap()
    };
    let without_kid = jsonwebtoken::encode(&Header::new(ec.alg), &claims(), &ec.secret).unwrap();
    let rows = [
        ("expired", token(ec, &with("exp", json!(NOW - 31)))),
        ("exp as a string", token(ec, &with("exp", json!("never")))),
        ("exp as a string of digits", token(ec, &with("exp", json!((NOW + 300).to_string())))),
        ("no exp", token(ec, &with("exp", Value::Null))),
        ("nbf in the future", token(ec, &with("nbf", json!(NOW + 31)))),
        ("nbf as a string", token(ec, &with("nbf", json!("now")))),
        ("wrong audience", token(ec, &with("aud", json!("other")))),
        ("no audience", token(ec, &with("aud", Value::Null))),
        ("wrong issuer", token(ec, &with("iss", json!("https://evil.test")))),
        ("no issuer", token(ec, &with("iss", Value::Null))),
        ("no sub", token(ec, &with("sub", Value::Null))),
        ("an empty sub", token(ec, &with("sub", json!("")))),
        ("sub as a number", token(ec, &with("sub", json!(7)))),
        ("alg none", by_hand(&json!({"alg": "none", "typ": "JWT"}), &claims(), "")),
        ("alg none with a kid", by_hand(&json!({"alg": "none", "kid": "e"}), &claims(), "")),
        ("alg None", by_hand(&json!({"alg": "None"}), &claims(), "")),
        ("HS256 with the public key", hs256(public.as_bytes())),
        ("HS256 with the public key set", hs256(set.as_bytes())),
        ("HS256 with nothing", hs256(b"")),
        ("another key under the same id", token(&stranger, &claims())),
        ("the key of another algorithm", by_hand(&json!({"alg": "RS256", "kid": "e"}), &claims(), "AAAA")),
        ("changed after signing", tampered.join(".")),
        ("no signature", by_hand(&json!({"alg": "ES256", "kid": "e"}), &claims(), "")),
        ("unknown kid", named("x")),
        ("kid as a path", named("../../dev/null")),
        ("no kid among many keys", without_kid),
        ("keys in the token itself", by_hand(&json!({"alg": "ES256", "jwk": stranger.jwk}), &claims(), "AAAA")),
        ("not a token", "ey.ey.ey".to_owned()),
    ];
    for (what, token) in rows {
        let got = read(&p, &token).await;
        assert_eq!((got.status, got.code().as_str()), (401, "unauthenticated"), "{what}: {:?}", got.json());
        assert!(got.header("www-authenticate").starts_with("Bearer"), "{what}");
        assert_eq!(p.upstream.bytes(), before, "{what}");
    }
    let stranger_group = token(ec, &with("groups", json!(["strangers"])));
    assert_eq!(read(&p, &stranger_group).await.code(), "unknown_tool", "a group that policy knows nothing of");
}

#[tokio::test]
async fn keys_come_by_url_are_fetched_anew_for_an_unknown_id_and_not_for_each_call() {
    let (old, new) = (key("k1", Algorithm::ES256), key("k2", Algorithm::ES256));
    let idp = Upstream::start().await;
    let (first, second) = (json!({"keys": [old.jwk]}), json!({"keys": [new.jwk]}));
    idp.script(move |_| answer(200, &first));
    let time = clock();
    let url = format!("{{ url: \"http://{}/jwks\" }}", idp.at);
    let p = takes_tokens(&url).clock(time.clone()).start().await;
    for _ in 0..3 {
        assert_eq!(read(&p, &token(&old, &claims())).await.status, 200);
    }
    assert_eq!(idp.count(), 1, "the set is fetched once");
    for _ in 0..10 {
        assert_eq!(read(&p, &token(&new, &claims())).await.status, 401);
    }
    assert_eq!(idp.count(), 1, "strangers make it fetch no more often than every 30 s");
    idp.script(move |_| answer(200, &second));
    time.advance(Duration::from_secs(31));
    assert_eq!(read(&p, &token(&new, &claims())).await.status, 200, "the keys were changed");
    assert_eq!(read(&p, &token(&old, &claims())).await.status, 401, "the old key is gone");
    // A set that cannot be had leaves the last one in force.
    idp.script(|_| answer(500, &json!({})));
    time.advance(Duration::from_secs(200));
    assert_eq!(read(&p, &token(&new, &claims())).await.status, 200);
}

#[tokio::test]
async fn the_person_acted_for_is_part_of_the_principal_and_never_approves() {
    let ec = key("e", Algorithm::ES256);
    let set = json!({"keys": [ec.jwk]}).to_string();
    let p = takes_tokens("{ file: jwks.json }").file("jwks.json", &set).start().await;
    let body = json!({"customerId": "c_1", "amountMinor": 6000, "currency": "EUR"});
    let refund = async |acting_for: &str| {
        let token = token(&ec, &with("act", json!({"sub": acting_for})));
        p.agent_as(&token, "POST", "/crm/orders/o_1/refunds", &[], Some(&body)).await
    };
    let (maya, lisa) = (refund("maya").await, refund("lisa").await);
    assert_eq!((maya.code().as_str(), lisa.code().as_str()), ("held", "held"));
    assert_ne!(maya.json()["hold"], lisa.json()["hold"], "one agent for two people is two principals");
    let call = maya.header("holdpoint-call");
    let record = p.record(call).await;
    assert_eq!(record.principal.acting_for.as_deref(), Some("maya"));
    let hold = maya.json()["hold"].as_str().unwrap().to_owned();
    assert_eq!(p.approve("maya", &hold, None).await.code(), "self_review");
    assert_eq!(p.approve("mia", &hold, None).await.code(), "self_review", "nor under another account");
    assert_eq!(p.approve("ana", &hold, None).await.status, 200);
    let other = token(&ec, &with("act", json!({"sub": "lisa"})));
    assert_eq!(p.agent_as(&other, "GET", &format!("/-/calls/{call}"), &[], None).await.status, 404);
}

#[tokio::test]
async fn without_any_way_to_prove_who_calls_nothing_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::start().await;
    let path = Setup::new().write(dir.path(), upstream.at);
    let text = std::fs::read_to_string(&path).unwrap();
    let without: String = text.lines().filter(|l| !l.contains("{ agent: ")).map(|l| format!("{l}\n")).collect();
    std::fs::write(&path, without.replace("    api_keys:\n", "    api_keys: []\n")).unwrap();
    let said = app::load(&path).unwrap_err().to_string();
    assert!(said.contains("no identity method"), "{said}");
    assert!(said.contains("holdpoint.yaml:"), "{said}");
}

/// An authority, and what it has signed.
struct Pki {
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self { ca: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    fn pem(&self) -> String {
        self.ca.pem()
    }

    /// Certificate and key as PEM.
    fn sign(&self, names: &[&str], uri: Option<&str>) -> (String, String) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.subject_alt_names.extend(uri.map(|u| SanType::URI(u.try_into().unwrap())));
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.ca).unwrap().pem(), key.serialize_pem())
    }

    fn client(&self, pair: Option<&(String, String)>, alpn: &[&str]) -> TlsConnector {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem().as_bytes()).unwrap()).unwrap();
        let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
        let mut config = match pair {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
                builder
                    .with_client_auth_cert(vec![cert], PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
                    .unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

/// A read over TLS in the version that ALPN finds; nothing when no connection comes about.
async fn over_tls(to: SocketAddr, connector: &TlsConnector, key: Option<&str>) -> Option<(Got, http::Version)> {
    let stream = TcpStream::connect(to).await.unwrap();
    let tls = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.ok()?;
    let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let mut request = http::Request::builder().uri(format!("https://localhost:{}/crm/customers/c_1", to.port()));
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let response = if h2 {
        let io = TokioIo::new(tls);
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.ok()?;
        tokio::spawn(connection);
        sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.ok()?
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.ok()?;
        tokio::spawn(connection);
        let request = request.uri("/crm/customers/c_1").header("host", "localhost");
        sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.ok()?
    };
    let (parts, body) = response.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    Some((Got { status: parts.status.as_u16(), headers: parts.headers, body }, parts.version))
}

fn speaks_tls(pki: &Pki) -> Setup {
    holdpoint::wire::tls::install_provider();
    let (cert, key) = pki.sign(&["localhost"], None);
    let tls = "drain: 5s, tls: { cert: { file: tls/cert.pem }, key: { file: tls/key.pem } } }";
    let mtls = "  agents:\n    mtls:\n      ca: { file: tls/ca.pem }\n      agents:\n        \
                - { name: \"spiffe://acme.test/agent/cert-bot\", agent: cert-bot, groups: [support] }\n    api_keys:\n";
    Setup::new()
        .config("drain: 5s }", tls)
        .config("  agents:\n    api_keys:\n", mtls)
        .file("tls/ca.pem", &pki.pem())
        .file("tls/cert.pem", &cert)
        .file("tls/key.pem", &key)
}

#[tokio::test]
async fn a_client_certificate_names_the_agent_over_http_1_and_http_2() {
    let pki = Pki::new();
    let p = speaks_tls(&pki).start().await;
    let known = pki.sign(&[], Some("spiffe://acme.test/agent/cert-bot"));
    for (alpn, version) in [("h2", http::Version::HTTP_2), ("http/1.1", http::Version::HTTP_11)] {
        let (got, spoken) = over_tls(p.agents(), &pki.client(Some(&known), &[alpn]), None).await.unwrap();
        assert_eq!((got.status, got.decision(), spoken), (200, "allowed", version), "{:?}", got.json());
        let (got, spoken) = over_tls(p.agents(), &pki.client(None, &[alpn]), Some(SUPPORT_KEY)).await.unwrap();
        assert_eq!((got.status, spoken), (200, version), "a key without a certificate");
    }
    let event = p.until_line(|kind, event| kind == "call.read" && event["note"]["agent"][1] == "cert-bot").await;
    assert_eq!(event["note"]["principal"], "mtls|spiffe://acme.test/agent/cert-bot");
    let before = p.upstream.count();
    let (nobody, _) = over_tls(p.agents(), &pki.client(None, &["h2"]), None).await.unwrap();
    assert_eq!((nobody.status, nobody.code().as_str()), (401, "unauthenticated"));
    let unknown = [
        ("an unknown id", pki.sign(&[], Some("spiffe://acme.test/agent/other"))),
        ("no id", pki.sign(&["cert-bot"], None)),
        ("the id as a DNS name", pki.sign(&["agent.cert-bot.acme.test"], None)),
    ];
    for (what, pair) in unknown {
        let (got, _) = over_tls(p.agents(), &pki.client(Some(&pair), &["h2"]), None).await.unwrap();
        assert_eq!((got.status, got.code().as_str()), (401, "unauthenticated"), "{what}");
    }
    // Another authority's certificate does not even make a connection.
    let foreign = Pki::new().sign(&[], Some("spiffe://acme.test/agent/cert-bot"));
    assert!(over_tls(p.agents(), &pki.client(Some(&foreign), &["http/1.1"]), None).await.is_none());
    assert_eq!(p.upstream.count(), before);
}

/// TLS before a plain upstream.
async fn tls_before(upstream: SocketAddr, pair: &(String, String)) -> SocketAddr {
    holdpoint::wire::tls::install_provider();
    let cert = CertificateDer::from_pem_slice(pair.0.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(pair.1.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(stream).await else { return };
                let mut plain = TcpStream::connect(upstream).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
            });
        }
    });
    at
}

#[tokio::test]
async fn an_https_upstream_is_trusted_by_its_own_authority_alone() {
    let pki = Pki::new();
    let behind = Upstream::start().await;
    let to = |at: SocketAddr, ca: &str| {
        let url = format!("https://localhost:{}/v2\", ca: {{ file: ca.pem }}", at.port());
        Setup::new().config("http://UPSTREAM/v2\"", &url).file("ca.pem", ca)
    };
    let good = tls_before(behind.at, &pki.sign(&["localhost"], None)).await;
    let p = to(good, &pki.pem()).start().await;
    assert_eq!(p.agent("GET", "/crm/customers/c_1", &[], None).await.status, 200);
    assert_eq!(p.refund("o_1", 1200, &[]).await.status, 200);
    assert_eq!(behind.count(), 2);

    let other_name = tls_before(behind.at, &pki.sign(&["other.test"], None)).await;
    for (at, ca) in [(good, Pki::new().pem()), (other_name, pki.pem())] {
        let p = to(at, &ca).start().await;
        let got = p.refund("o_2", 1200, &[]).await;
        assert_eq!(
            (got.status, got.code().as_str(), &got.json()["executed"]),
            (502, "upstream_unreachable", &json!("no"))
        );
    }
    assert_eq!(behind.count(), 2);
}

#[tokio::test]
async fn a_key_may_come_as_x_api_key_and_works_for_its_agent_alone() {
    let p = Setup::new().start().await;
    let got = send(p.agents(), "GET", "/crm/customers/c_1", &[("x-api-key", SUPPORT_KEY)], b"").await;
    assert_eq!(got.status, 200);
    assert!(p.upstream.seen()[0].headers.get("x-api-key").is_none());
}
