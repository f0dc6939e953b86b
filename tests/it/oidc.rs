//! Reviewers sign in at a provider: what holds, what never does, and that one person counts once.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use holdpoint::call::Timestamp;
use holdpoint::clock::{Clock, ManualClock};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::harness::{Got, Proxy, Setup, event};
use crate::provider::{Provider, SECRET, key, query_of};

const NOW: i64 = 1_800_000_000;
/// The page's public name; tests connect to wherever the listener is.
const HOST: &str = "localhost:8701";

struct World {
    p: Proxy,
    provider: Provider,
    clock: Arc<ManualClock>,
}

async fn world_with(more: &str, people: &str, step_up: &str) -> World {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(NOW * 1000)));
    let at = Arc::clone(&clock);
    let provider = Provider::start(move || at.now().as_millis() / 1000).await;
    let issuer = provider.issuer();
    let oidc = format!(
        "  reviewers:\n    oidc: {{ issuer: \"{issuer}\", client_id: holdpoint, client_secret: {{ file: secrets/oidc }}{more} }}\n"
    );
    let linked = format!("  people:\n{}", people.replace("ISSUER", &issuer));
    let p = Setup::new()
        .config("  reviewers:\n", &oidc)
        .config("  people:\n", &linked)
        .config(
            "reviews: { inline_wait: 0s }",
            &format!("reviews: {{ inline_wait: 0s, url: \"http://{HOST}\"{step_up} }}"),
        )
        .file("secrets/oidc", SECRET)
        .clock(clock.clone())
        .start()
        .await;
    World { p, provider, clock }
}

async fn world() -> World {
    world_with("", "", "").await
}

/// A browser: its cookies, and the page's name as it knows it.
#[derive(Default)]
struct Browser {
    cookies: Vec<(String, String)>,
}

impl World {
    async fn send(&self, browser: &mut Browser, method: &str, path: &str, more: &[(&str, &str)], body: &str) -> Got {
        let stream = TcpStream::connect(self.p.running.admin).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path);
        if !more.iter().any(|(n, _)| *n == "host") {
            request = request.header("host", HOST);
        }
        let jar: Vec<String> = browser.cookies.iter().map(|(n, v)| format!("{n}={v}")).collect();
        if !jar.is_empty() {
            request = request.header("cookie", jar.join("; "));
        }
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        for set in parts.headers.get_all("set-cookie") {
            let set = set.to_str().unwrap();
            assert!(set.contains("; HttpOnly") && set.contains("; SameSite=Lax") && set.contains("; Path=/"), "{set}");
            let (name, value) = set.split(';').next().unwrap().split_once('=').unwrap();
            browser.cookies.retain(|(n, _)| n != name);
            if !set.contains("Max-Age=0") {
                browser.cookies.push((name.into(), value.into()));
            }
        }
        Got { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn get(&self, browser: &mut Browser, path: &str) -> Got {
        self.send(browser, "GET", path, &[], "").await
    }

    /// To the provider: the URL that the browser is sent to.
    async fn depart(&self, browser: &mut Browser, query: &str) -> String {
        let got = self.get(browser, &format!("/sign-in/oidc{query}")).await;
        assert_eq!(got.status, 303, "{got:?}");
        got.header("location").to_owned()
    }

    /// The whole way, with these claims.
    async fn try_sign_in(&self, browser: &mut Browser, query: &str, claims: &Value) -> Got {
        let url = self.depart(browser, query).await;
        let back = self.provider.sign_in(&url, claims);
        self.get(browser, &format!("/sign-in/callback?{back}")).await
    }

    async fn sign_in(&self, claims: &Value) -> Browser {
        let mut browser = Browser::default();
        let got = self.try_sign_in(&mut browser, "", claims).await;
        assert_eq!((got.status, got.header("location")), (303, "/"), "{}", text(&got));
        browser
    }

    async fn is_signed_in(&self, browser: &mut Browser) -> bool {
        self.get(browser, "/").await.status == 200
    }

    async fn approve(&self, browser: &mut Browser, hold: &str, said: &[(&str, &str)]) -> Got {
        let page = text(&self.get(browser, &format!("/holds/{hold}")).await);
        let field = |name: &str| {
            let found = page.split(&format!("name=\"{name}\" value=\"")).nth(1);
            found.unwrap_or_else(|| panic!("no {name}: {page}")).split('"').next().unwrap().to_owned()
        };
        let digest = self.p.reviewer("mia", "GET", &format!("/v1/holds/{hold}"), None).await.json()["digest"].clone();
        let mut form = format!("csrf={}&digest={}", field("csrf"), digest.as_str().unwrap());
        for (name, value) in said {
            form.push_str(&format!("&{name}={value}"));
        }
        let origin = format!("http://{HOST}");
        let headers = [("content-type", "application/x-www-form-urlencoded"), ("origin", &origin)];
        self.send(browser, "POST", &format!("/holds/{hold}/approve"), &headers, &form).await
    }
}

fn text(got: &Got) -> String {
    String::from_utf8(got.body.to_vec()).unwrap()
}

fn lead(sub: &str) -> Value {
    json!({"sub": sub, "groups": ["support-leads"]})
}

#[tokio::test]
async fn a_person_signs_in_at_the_provider_and_approves() {
    let w = world().await;
    let hold = w.p.refund("o_1", 8800, &[]).await.json()["hold"].as_str().unwrap().to_owned();
    let mut browser = Browser::default();
    let start = w.get(&mut browser, &format!("/holds/{hold}")).await;
    assert_eq!((start.status, start.header("location")), (303, &*format!("/sign-in?next=/holds/{hold}")));
    let page = text(&w.get(&mut browser, start.header("location")).await);
    let link = format!("/sign-in/oidc?next=/holds/{hold}");
    assert!(page.contains(&format!("href=\"{link}\"")) && page.contains("reviewer token"), "{page}");
    let got = w.try_sign_in(&mut browser, &format!("?next=/holds/{hold}"), &lead("00u1")).await;
    assert_eq!((got.status, got.header("location")), (303, &*format!("/holds/{hold}")), "{}", text(&got));
    assert_eq!(browser.cookies.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["holdpoint"], "the way is over");
    let got = w.approve(&mut browser, &hold, &[]).await;
    assert_eq!(got.status, 303, "{}", text(&got));
    let subject = format!("{}|00u1", w.provider.issuer());
    let signed = w.p.until_line(|kind, _| kind == "admin.signed_in").await;
    assert_eq!(signed["note"]["more"]["subject"], json!(subject), "{signed}");
    let stored = w.p.record(&hold.replace("hold_", "call_")).await;
    assert_eq!((&*stored.approvals[0].subject, &*stored.approvals[0].channel), (&*subject, "page"));
    let secret = SECRET.to_owned();
    assert!(!w.p.lines().iter().any(|l| event(l).to_string().contains(&secret)));
}

#[tokio::test]
async fn a_token_that_does_not_hold_signs_nobody_in() {
    type Change = Box<dyn Fn(&mut Value) + Send + Sync>;
    let set = |name: &'static str, value: Value| -> Change { Box::new(move |c: &mut Value| c[name] = value.clone()) };
    let no =
        |name: &'static str| -> Change { Box::new(move |c: &mut Value| drop(c.as_object_mut().unwrap().remove(name))) };
    let rows: Vec<(&str, Change)> = vec![
        ("expired", set("exp", json!(NOW - 31))),
        ("no expiry", no("exp")),
        ("expiry in words", set("exp", json!("never"))),
        ("wrong audience", set("aud", json!("other"))),
        ("no audience", no("aud")),
        ("several audiences, no azp", set("aud", json!(["holdpoint", "other"]))),
        ("made for another client", set("azp", json!("other"))),
        ("wrong nonce", set("nonce", json!("another"))),
        ("no nonce", no("nonce")),
        ("empty nonce", set("nonce", json!(""))),
        ("wrong issuer", set("iss", json!("https://evil.test"))),
        ("no issuer", no("iss")),
        ("no subject", no("sub")),
        ("empty subject", set("sub", json!(""))),
        ("a subject that is no text", set("sub", json!({"a": 1}))),
        ("a subject that writes lines", set("sub", json!("a\nb"))),
        ("made long ago", set("iat", json!(NOW - 601))),
        ("made in the future", set("iat", json!(NOW + 31))),
        ("no time of making", no("iat")),
        ("not valid yet", set("nbf", json!(NOW + 31))),
    ];
    let w = world().await;
    for (what, change) in rows {
        w.provider.change(change);
        let mut browser = Browser::default();
        let got = w.try_sign_in(&mut browser, "", &lead("00u1")).await;
        assert_eq!(got.status, 401, "{what}: {}", text(&got));
        assert!(text(&got).contains("Nobody is signed in") && browser.cookies.is_empty(), "{what}: {}", text(&got));
    }
    w.provider.change(|c| {
        c["aud"] = json!(["holdpoint", "other"]);
        c["azp"] = json!("holdpoint");
    });
    w.sign_in(&lead("00u1")).await;
}

#[tokio::test]
async fn a_forged_signature_signs_nobody_in() {
    let w = world().await;
    let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
    let public = w.provider.public_keys();
    let stranger = key("k1");
    let strangers = {
        let other = Provider::start(|| NOW).await;
        other.rotate(stranger, true);
        other
    };
    let hs256 = move |claims: &Value| {
        let header = Header { kid: Some("k1".into()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(public.as_bytes())).unwrap()
    };
    type Forge = Box<dyn Fn(&Value, String) -> String + Send + Sync>;
    let rows: Vec<(&str, Forge)> = vec![
        ("alg none", Box::new(move |c, _| format!("{}.{}.", part(&json!({"alg": "none", "kid": "k1"})), part(c)))),
        ("HS256 with the public key", Box::new(move |c, _| hs256(c))),
        ("no signature", Box::new(|_, t| format!("{}.", t.rsplit_once('.').unwrap().0))),
        (
            "other claims under the signature",
            Box::new(move |c, t| {
                let mut parts: Vec<String> = t.split('.').map(str::to_owned).collect();
                let mut changed = c.clone();
                changed["sub"] = json!("admin");
                parts[1] = part(&changed);
                parts.join(".")
            }),
        ),
        (
            "a key that the token brings along",
            Box::new(move |c, _| {
                let jku =
                    json!({"alg": "ES256", "kid": "k1", "jku": format!("{}/keys", strangers.issuer()), "jwk": {}});
                format!("{}.{}.AAAA", part(&jku), part(c))
            }),
        ),
        ("not a token", Box::new(|_, _| "eyJ".into())),
    ];
    for (what, forge) in rows {
        w.provider.forge(forge);
        let mut browser = Browser::default();
        let got = w.try_sign_in(&mut browser, "", &lead("00u1")).await;
        assert_eq!(got.status, 401, "{what}: {}", text(&got));
        assert!(browser.cookies.is_empty(), "{what}");
    }
}

#[tokio::test]
async fn keys_that_rotate_are_found_and_unknown_ones_refused() {
    let w = world().await;
    w.sign_in(&lead("00u1")).await;
    assert_eq!(w.provider.key_sets(), 1);
    w.provider.rotate(key("k2"), false);
    let mut browser = Browser::default();
    w.clock.advance(Duration::from_secs(31));
    assert_eq!(w.try_sign_in(&mut browser, "", &lead("00u1")).await.status, 401, "the set does not show it");
    assert_eq!(w.provider.key_sets(), 2, "it was asked for anew");
    assert_eq!(w.try_sign_in(&mut browser, "", &lead("00u1")).await.status, 401);
    assert_eq!(w.provider.key_sets(), 2, "strangers' key ids make no flood");
    w.provider.rotate(key("k3"), true);
    w.clock.advance(Duration::from_secs(31));
    w.sign_in(&lead("00u1")).await;
    assert_eq!(w.provider.key_sets(), 3);
}

#[tokio::test]
async fn an_answer_serves_the_browser_that_began_and_once() {
    let w = world().await;
    let (mut mallory, mut victim) = (Browser::default(), Browser::default());
    let back = w.provider.sign_in(&w.depart(&mut mallory, "").await, &lead("00u1"));
    let at = format!("/sign-in/callback?{back}");
    let got = w.get(&mut victim, &at).await;
    assert_eq!(got.status, 400, "no cookie: sign-in CSRF");
    w.depart(&mut victim, "").await;
    assert_eq!(w.get(&mut victim, &at).await.status, 400, "the cookie of another sign-in");
    assert_eq!(w.provider.redeemed(), 0, "nothing was asked of the provider");

    let cookie = mallory.cookies.clone();
    for (what, from, to) in [("begun later", ".1800000000.", ".1800000100."), ("another page", ".0./", ".0./calls")] {
        let mut changed = Browser { cookies: cookie.clone() };
        let before = changed.cookies[0].1.clone();
        changed.cookies[0].1 = before.replace(from, to);
        assert_ne!(changed.cookies[0].1, before, "{what}");
        assert_eq!(w.get(&mut changed, &at).await.status, 400, "{what}");
    }
    assert_eq!(w.get(&mut mallory, &at).await.status, 303);
    assert_eq!(w.get(&mut mallory, &at).await.status, 400, "the cookie is gone");
    let mut again = Browser { cookies: cookie.clone() };
    assert_eq!(w.get(&mut again, &at).await.status, 400, "the way was used");
    assert_eq!(w.provider.redeemed(), 1);
    let mut late = Browser::default();
    let back = w.provider.sign_in(&w.depart(&mut late, "").await, &lead("00u1"));
    w.clock.advance(Duration::from_secs(601));
    assert_eq!(w.get(&mut late, &format!("/sign-in/callback?{back}")).await.status, 400, "it took too long");

    let mut other = Browser::default();
    let url = w.depart(&mut other, "").await;
    let state = query_of(&url)["state"].clone();
    let got = w.get(&mut other, &format!("/sign-in/callback?state={state}&code=never-made")).await;
    assert_eq!(got.status, 401, "a code that the provider does not know");
    w.depart(&mut other, "").await;
    assert_eq!(w.get(&mut other, "/sign-in/callback?state=a&state=b&code=x").await.status, 401, "twice");
}

#[tokio::test]
async fn what_the_provider_declines_is_said_in_our_words() {
    let w = world().await;
    for (said, shown) in [("access_denied", "access_denied"), ("<b>call 555</b>", "no reason that is known")] {
        let mut browser = Browser::default();
        let state = query_of(&w.depart(&mut browser, "").await)["state"].clone();
        let error = said.replace('<', "%3C").replace('>', "%3E").replace(' ', "+");
        let query = format!("error={error}&error_description=call+me&state={state}");
        let got = w.get(&mut browser, &format!("/sign-in/callback?{query}")).await;
        assert_eq!(got.status, 403);
        assert!(text(&got).contains(shown) && !text(&got).contains("555") && !text(&got).contains("call me"));
    }
    w.provider.names_itself();
    w.clock.advance(Duration::from_secs(3601));
    for (iss, status) in [("", 401), ("&iss=https%3A%2F%2Fevil.test", 401)] {
        let mut browser = Browser::default();
        let back = w.provider.sign_in(&w.depart(&mut browser, "").await, &lead("00u1"));
        assert_eq!(w.get(&mut browser, &format!("/sign-in/callback?{back}{iss}")).await.status, status, "{iss}");
    }
    let mut browser = Browser::default();
    let back = w.provider.sign_in(&w.depart(&mut browser, "").await, &lead("00u1"));
    let iss = w.provider.issuer().replace(':', "%3A").replace('/', "%2F");
    assert_eq!(w.get(&mut browser, &format!("/sign-in/callback?{back}&iss={iss}")).await.status, 303);
}

#[tokio::test]
async fn a_provider_that_is_down_is_said_and_tokens_go_on() {
    let w = world().await;
    w.provider.set_down(true);
    let mut browser = Browser::default();
    let got = w.get(&mut browser, "/sign-in/oidc").await;
    assert_eq!(got.status, 503);
    assert!(text(&got).contains("cannot be asked right now") && text(&got).contains("Your reviewer token"));
    assert_eq!(w.p.reviewer("maya", "GET", "/v1/me", None).await.status, 200);
    w.provider.set_down(false);
    assert_eq!(w.get(&mut browser, "/sign-in/oidc").await.status, 503, "strangers make no flood");
    w.clock.advance(Duration::from_secs(5));
    let back = w.provider.sign_in(&w.depart(&mut browser, "").await, &lead("00u1"));
    w.provider.set_down(true);
    let got = w.get(&mut browser, &format!("/sign-in/callback?{back}")).await;
    assert_eq!((got.status, browser.cookies.len()), (503, 0));
    w.provider.set_down(false);
    w.sign_in(&lead("00u1")).await;

    let w = world().await;
    w.provider.claims_to_be("https://evil.test");
    assert_eq!(w.get(&mut Browser::default(), "/sign-in/oidc").await.status, 503, "another provider's document");
}

#[tokio::test]
async fn nobody_is_led_elsewhere_after_signing_in() {
    let w = world().await;
    for next in [
        "https://evil.test/",
        "//evil.test/",
        "/holds//evil.test",
        "/\\evil.test",
        "javascript:x",
        "/sign-out",
        "/holds/..;a",
    ] {
        let query = format!("?next={}", next.replace(':', "%3A").replace('\\', "%5C").replace(';', "%3B"));
        let got = w.try_sign_in(&mut Browser::default(), &query, &lead("00u1")).await;
        assert_eq!((got.status, got.header("location")), (303, "/"), "{next}");
    }
    let headers = [("host", "127.0.0.1:1")];
    let got = w.send(&mut Browser::default(), "GET", "/sign-in/oidc?next=/calls", &headers, "").await;
    let there = format!("http://{HOST}/sign-in/oidc?next=/calls");
    assert_eq!((got.status, got.header("location")), (303, &*there), "begins where it ends");
    assert!(!got.headers.contains_key("set-cookie"));
    let rebound = w.send(&mut Browser::default(), "GET", "/sign-in/oidc", &[("host", "evil.test")], "").await;
    assert_eq!((rebound.status, rebound.code()), (400, "malformed_request".into()), "rebinding");
    let crossed = [("origin", "https://evil.test")];
    let crossed = w.send(&mut Browser::default(), "GET", "/sign-in/callback?state=a&code=b", &crossed, "").await;
    assert_eq!((crossed.status, crossed.code()), (403, "cross_origin".into()));
}

#[tokio::test]
async fn forms_of_other_sites_decide_nothing_in_a_session_of_the_provider() {
    let w = world().await;
    let hold = w.p.refund("o_1", 8800, &[]).await.json()["hold"].as_str().unwrap().to_owned();
    let mut browser = w.sign_in(&lead("00u1")).await;
    let other = text(&w.get(&mut w.sign_in(&lead("00u2")).await, "/").await);
    let theirs = other.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let digest = w.p.reviewer("mia", "GET", &format!("/v1/holds/{hold}"), None).await.json()["digest"].clone();
    let form = format!("csrf={theirs}&digest={}", digest.as_str().unwrap());
    let (path, kind) = (format!("/holds/{hold}/approve"), ("content-type", "application/x-www-form-urlencoded"));
    let origin = format!("http://{HOST}");
    for (what, headers) in [
        ("another session's word", vec![kind, ("origin", origin.as_str())]),
        ("another site", vec![kind, ("origin", "https://evil.test")]),
        ("no origin", vec![kind]),
        ("a site beside it", vec![kind, ("sec-fetch-site", "same-site")]),
    ] {
        assert_eq!(w.send(&mut browser, "POST", &path, &headers, &form).await.status, 403, "{what}");
    }
    let bearer = format!("Bearer {}", browser.cookies[0].1);
    let got = w.send(&mut browser, "GET", "/v1/me", &[("authorization", &bearer)], "").await;
    assert_eq!(got.status, 401, "no cookie opens the API");
    assert_eq!(
        w.p.running
            .store()
            .get(hold.replace("hold_", "call_").parse().unwrap())
            .await
            .unwrap()
            .unwrap()
            .approvals
            .len(),
        0
    );
}

#[tokio::test]
async fn a_session_ends_with_its_time_its_sign_out_and_its_provider() {
    let w = world().await;
    let mut browser = w.sign_in(&lead("00u1")).await;
    assert!(w.is_signed_in(&mut browser).await);
    w.clock.advance(Duration::from_secs(3600));
    assert!(!w.is_signed_in(&mut browser).await, "idle");
    let mut browser = w.sign_in(&lead("00u1")).await;
    let page = text(&w.get(&mut browser, "/").await);
    let csrf = page.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let origin = format!("http://{HOST}");
    let headers = [("content-type", "application/x-www-form-urlencoded"), ("origin", origin.as_str())];
    let kept = browser.cookies.clone();
    assert_eq!(w.send(&mut browser, "POST", "/sign-out", &headers, &format!("csrf={csrf}")).await.status, 303);
    assert!(browser.cookies.is_empty());
    assert!(!w.is_signed_in(&mut Browser { cookies: kept }).await, "signed out is signed out everywhere");
    let mut browser = w.sign_in(&lead("00u1")).await;
    w.p.rewrite("holdpoint.yaml", |t| t.replace("client_id: holdpoint", "client_id: other"));
    w.p.running.reload().await.unwrap();
    assert!(!w.is_signed_in(&mut browser).await, "it was another client's");
}

#[tokio::test]
async fn a_second_account_of_one_person_does_not_count() {
    let people = "    - { user: ana, subjects: [\"ISSUER|00uana\"] }\n";
    let w = world_with(", user_claim: login", people, "").await;
    let hold = w.p.refund("o_1", 88_000, &[]).await.json()["hold"].as_str().unwrap().to_owned();
    let said = [("justification", "looked"), ("confirm", "880.00"), ("seen", "1")];
    let person = |sub: &str, login: &str, mail: Option<&str>, verified: bool| {
        let mut claims = json!({"sub": sub, "login": login, "groups": ["support-leads", "finance"], "amr": ["mfa"]});
        if let Some(mail) = mail {
            claims["email"] = mail.into();
            claims["email_verified"] = verified.into();
        }
        claims
    };
    // `ana` runs the agent: by her linked account she may not approve.
    let mut ana = w.sign_in(&person("00uana", "ana.b", None, false)).await;
    let page = text(&w.get(&mut ana, &format!("/holds/{hold}")).await);
    assert!(page.contains("self_review"), "{page}");
    // A name that belongs to somebody else is not to be had by a claim.
    let got = w.try_sign_in(&mut Browser::default(), "", &person("00u9", "Maya", None, false)).await;
    assert_eq!(got.status, 403, "{}", text(&got));
    let got = w.try_sign_in(&mut Browser::default(), "", &person("00u9", "x|00uana", None, false)).await;
    assert_eq!(got.status, 401, "{}", text(&got));

    let mut first = w.sign_in(&person("00u1", "noor", Some("Noor@acme.test"), true)).await;
    let got = w.approve(&mut first, &hold, &said).await;
    assert_eq!(got.status, 303, "{}", text(&got));
    // Another account with the same verified address is the same person; an address that is not verified says nothing.
    let mut second = w.sign_in(&person("00u2", "noor-admin", Some("noor@acme.test"), true)).await;
    let page = text(&w.get(&mut second, &format!("/holds/{hold}")).await);
    assert!(page.contains("You cannot approve: already_counted"), "{page}");
    let got = w.approve(&mut second, &hold, &said).await;
    assert_eq!(got.status, 403, "{}", text(&got));
    assert!(text(&got).contains("already counted") || text(&got).contains("counted already"), "{}", text(&got));
    let mut third = w.sign_in(&person("00u3", "finn", Some("noor@acme.test"), false)).await;
    let got = w.approve(&mut third, &hold, &said).await;
    assert_eq!(got.status, 303, "{}", text(&got));
}

#[tokio::test]
async fn an_address_shared_with_a_linked_person_excludes_and_entitles_to_nothing() {
    let people = "    - { user: noor, subjects: [\"ISSUER|00u1\", \"noor@acme.test\"] }\n";
    let w = world_with("", people, "").await;
    let hold = w.p.refund("o_1", 88_000, &[]).await.json()["hold"].as_str().unwrap().to_owned();
    let said = [("justification", "looked"), ("confirm", "880.00"), ("seen", "1")];
    let groups = json!(["support-leads", "finance"]);
    let mut noor = w.sign_in(&json!({"sub": "00u1", "groups": groups, "amr": ["mfa"]})).await;
    let home = text(&w.get(&mut noor, "/").await);
    assert!(home.contains("noor"), "{home}");
    assert_eq!(w.approve(&mut noor, &hold, &said).await.status, 303);
    let again =
        json!({"sub": "00u7", "groups": groups, "amr": ["mfa"], "email": "NOOR@acme.test", "email_verified": true});
    let mut again = w.sign_in(&again).await;
    let home = text(&w.get(&mut again, "/").await);
    assert!(home.contains("|00u7 ("), "an address gives nobody a name: {home}");
    assert_eq!(w.approve(&mut again, &hold, &said).await.status, 403);
}

const STRONG: &str = "\n@id(\"mfa\") @reason(\"High needs a second factor.\")\nforbid (principal, action == Holdpoint::Action::\"hold.approve\", resource) when { resource.tier == \"high\" && !context.mfa };\n";

#[tokio::test]
async fn a_high_hold_needs_a_fresh_sign_in() {
    let w = world_with("", "", ", high: { step_up: oidc }").await;
    let hold = w.p.refund("o_1", 88_000, &[]).await.json()["hold"].as_str().unwrap().to_owned();
    let said = [("justification", "looked"), ("confirm", "880.00"), ("seen", "1")];
    let mut browser = w.sign_in(&lead("00u1")).await;
    w.clock.advance(Duration::from_secs(901));
    let page = text(&w.get(&mut browser, &format!("/holds/{hold}")).await);
    let link = format!("/sign-in/oidc?fresh=1&#38;next=/holds/{hold}");
    assert!(page.contains("step_up_required") && page.contains(&link), "{page}");
    let query = format!("?fresh=1&next=/holds/{hold}");
    let url = w.depart(&mut browser, &query).await;
    let asked = query_of(&url);
    assert_eq!((asked["prompt"].as_str(), asked["max_age"].as_str()), ("login", "0"));
    // A provider that did not ask again signs nobody in.
    let stale = w.clock.now().as_millis() / 1000 - 901;
    let mut claims = lead("00u1");
    claims["auth_time"] = stale.into();
    let back = w.provider.sign_in(&url, &claims);
    assert_eq!(w.get(&mut browser, &format!("/sign-in/callback?{back}")).await.status, 401);
    let got = w.try_sign_in(&mut browser, &query, &lead("00u1")).await;
    assert_eq!((got.status, got.header("location")), (303, &*format!("/holds/{hold}")));
    let got = w.approve(&mut browser, &hold, &said).await;
    assert_eq!(got.status, 303, "{}", text(&got));
    // The entry of a token says the same.
    let got = w.p.approve("li", &hold, Some("looked")).await;
    assert_eq!(got.status, 200, "{}", text(&got));
}

#[tokio::test]
async fn a_second_factor_is_the_providers_word_and_ages() {
    let w = world_with(", mfa: { amr: [mfa, hwk], acr: [gold] }", "", "").await;
    w.p.rewrite("policies/people.cedar", |t| t + STRONG);
    w.p.running.reload().await.unwrap();
    let hold = w.p.refund("o_1", 88_000, &[]).await.json()["hold"].as_str().unwrap().to_owned();
    let at = format!("/holds/{hold}");
    let with = |name: &str, value: Value| {
        let mut claims = lead("00u1");
        claims[name] = value;
        claims
    };
    for (what, claims, strong) in [
        ("nothing said", lead("00u1"), false),
        ("a password", with("amr", json!(["pwd"])), false),
        ("a key", with("amr", json!(["pwd", "hwk"])), true),
        ("a class", with("acr", json!("gold")), true),
        ("another class", with("acr", json!("silver")), false),
    ] {
        let mut browser = w.sign_in(&claims).await;
        let page = text(&w.get(&mut browser, &at).await);
        assert_eq!(page.contains("Type the code"), strong, "{what}: {page}");
    }
    w.provider.change(|c| drop(c.as_object_mut().unwrap().remove("auth_time")));
    let mut browser = w.sign_in(&with("amr", json!(["mfa"]))).await;
    assert!(!text(&w.get(&mut browser, &at).await).contains("Type the code"), "nobody knows when that was");
    w.provider.change(|_| {});
    let mut browser = w.sign_in(&with("amr", json!(["mfa"]))).await;
    assert!(text(&w.get(&mut browser, &at).await).contains("Type the code"));
    w.clock.advance(Duration::from_secs(900));
    assert!(!text(&w.get(&mut browser, &at).await).contains("Type the code"), "15 minutes are over");
}

#[tokio::test]
async fn groups_are_the_providers_word() {
    let w = world_with(", group_claim: realm.roles", "", "").await;
    let hold = w.p.refund("o_1", 8800, &[]).await.json()["hold"].as_str().unwrap().to_owned();
    let mut outsider = w.sign_in(&json!({"sub": "00u5", "groups": ["support-leads"]})).await;
    assert_eq!(w.get(&mut outsider, &format!("/holds/{hold}")).await.status, 404, "in none that policy lets see it");
    let mut lead = w.sign_in(&json!({"sub": "00u6", "realm": {"roles": ["support-leads"]}})).await;
    assert_eq!(w.approve(&mut lead, &hold, &[]).await.status, 303);
}

#[test]
fn a_set_up_that_could_not_work_is_a_mistake_that_check_names() {
    let rows = [
        ("issuer: \"http://idp.test\"", "", "must be https (http is for loopback only)"),
        ("issuer: \"https://idp.test/?a=b\"", "", "no query, no fragment"),
        ("issuer: \"https://idp.test\"", "url: \"http://localhost:1\"", "reviews.url"),
        ("issuer: \"https://idp.test\"", "http://localhost:8701/page", "must have no path"),
        ("issuer: \"https://idp.test\"", "http://page.test", "must be https"),
        ("issuer: \"https://idp.test\"", "https://page.test", "must be one of `listen.allowed_hosts`"),
        ("issuer: \"https://idp.test\", algorithms: [HS256]", "http://localhost:8701", "not an asymmetric algorithm"),
        ("issuer: \"https://idp.test\", secret: x", "http://localhost:8701", "secret"),
        ("issuer: \"https://idp.test\", client_secret: { file: none }", "http://localhost:8701", "cannot read"),
    ];
    for (oidc, url, wanted) in rows {
        let dir = tempfile::tempdir().unwrap();
        let url = if url.starts_with("http") { format!("reviews: {{ url: \"{url}\" }}") } else { "reviews: {}".into() };
        let provider = format!("  reviewers:\n    oidc: {{ client_id: holdpoint, {oidc} }}\n");
        let setup = Setup::new().config("  reviewers:\n", &provider).config("reviews: { inline_wait: 0s }", &url);
        let wrong = holdpoint::app::load(&setup.write(dir.path(), "127.0.0.1:9".parse().unwrap())).unwrap_err();
        assert!(wrong.to_string().contains(wanted), "{oidc}: {wrong}");
    }
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new().config("reviews: { inline_wait: 0s }", "reviews: { high: { step_up: oidc } }");
    let wrong = holdpoint::app::load(&setup.write(dir.path(), "127.0.0.1:9".parse().unwrap())).unwrap_err();
    assert!(wrong.to_string().contains("`oidc` needs `identity.reviewers.oidc`"), "{wrong}");
}
