//! E-mail, before a server of the tests' own that speaks SMTP: greeting, EHLO, STARTTLS, AUTH, envelope, DATA.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdpoint::call::{HoldId, Timestamp};
use holdpoint::clock::ManualClock;
use holdpoint::store::State;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::binary::Site;
use crate::harness::{Proxy, Setup, answer, until};
use crate::verbs::cli;
use crate::webhooks::people;

const NOW: i64 = 1_800_000_000;
const PASSWORD: &str = "mail password/1";

/// A letter as it was handed over.
#[derive(Debug, Clone)]
struct Letter {
    from: String,
    to: Vec<String>,
    text: String,
    tls: bool,
    user: Option<String>,
}

impl Letter {
    fn head(&self) -> &str {
        self.text.split("\r\n\r\n").next().unwrap()
    }

    /// A field, unfolded; it stands once.
    fn field(&self, name: &str) -> String {
        let unfolded = self.head().replace("\r\n ", " ").replace("\r\n\t", " ");
        let mut all = unfolded.split("\r\n").filter_map(|l| l.strip_prefix(&format!("{name}: ")));
        let value = all.next().unwrap_or_else(|| panic!("no {name} in {unfolded}")).to_owned();
        assert_eq!(all.next(), None, "{name} stands twice");
        value
    }

    /// The body as a reader sees it.
    fn body(&self) -> String {
        let body = self.text.split_once("\r\n\r\n").unwrap().1;
        match self.field("Content-Transfer-Encoding").as_str() {
            "7bit" => body.to_owned(),
            "base64" => String::from_utf8(STANDARD.decode(body.replace("\r\n", "")).unwrap()).unwrap(),
            "quoted-printable" => {
                let joined = body.replace("=\r\n", "");
                let mut out = Vec::new();
                let mut bytes = joined.bytes();
                while let Some(b) = bytes.next() {
                    if b == b'=' {
                        let hex = [bytes.next().unwrap(), bytes.next().unwrap()];
                        out.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
                    } else {
                        out.push(b);
                    }
                }
                String::from_utf8(out).unwrap()
            }
            other => panic!("{other}"),
        }
    }
}

#[derive(Default)]
struct Inner {
    letters: Vec<Letter>,
    sessions: usize,
    /// What is answered to an envelope or a letter in place of yes: verb and reply.
    refuse: Option<(&'static str, &'static str)>,
    /// Where a password was said without TLS.
    bare: bool,
}

#[derive(Clone)]
struct Server {
    at: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    tls: Option<TlsAcceptor>,
    wrapped: bool,
}

impl Server {
    async fn start(tls: Option<TlsAcceptor>, wrapped: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { at: listener.local_addr().unwrap(), inner: Arc::default(), tls, wrapped };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = serving.clone();
                tokio::spawn(async move {
                    server.inner.lock().unwrap().sessions += 1;
                    if server.wrapped {
                        let stream = server.tls.clone().unwrap().accept(stream).await.ok()?;
                        return server.talk(stream, true, true).await.map(drop);
                    }
                    let plain = server.talk(stream, false, true).await??;
                    let stream = server.tls.clone().unwrap().accept(plain).await.ok()?;
                    server.talk(stream, true, false).await.map(drop)
                });
            }
        });
        server
    }

    /// One conversation; the stream comes back when TLS is to begin.
    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, tls: bool, greet: bool) -> Option<Option<S>> {
        let mut io = BufStream::new(stream);
        if greet {
            say(&mut io, "220 mail.test ESMTP").await?;
        }
        let (mut from, mut to, mut user) = (String::new(), Vec::new(), None);
        loop {
            let mut line = String::new();
            if io.read_line(&mut line).await.ok()? == 0 {
                return Some(None);
            }
            let line = line.trim_end().to_owned();
            let verb = line.split([' ', ':']).next().unwrap().to_ascii_uppercase();
            let refused = self.inner.lock().unwrap().refuse.filter(|(at, _)| *at == verb).map(|(_, reply)| reply);
            if let Some(reply) = refused {
                say(&mut io, reply).await?;
                continue;
            }
            match verb.as_str() {
                "EHLO" if self.tls.is_some() && !tls => {
                    say(&mut io, "250-mail.test\r\n250-STARTTLS\r\n250 8BITMIME").await?
                }
                "EHLO" => say(&mut io, "250-mail.test\r\n250-AUTH PLAIN\r\n250 8BITMIME").await?,
                "STARTTLS" => {
                    say(&mut io, "220 go on").await?;
                    return Some(Some(io.into_inner()));
                }
                "AUTH" => {
                    self.inner.lock().unwrap().bare |= !tls;
                    let said = STANDARD.decode(line.strip_prefix("AUTH PLAIN ")?).ok()?;
                    let said = String::from_utf8(said).ok()?;
                    let mut parts = said.split('\0').skip(1);
                    let (name, password) = (parts.next()?.to_owned(), parts.next()?.to_owned());
                    if password != PASSWORD {
                        say(&mut io, "535 5.7.8 no").await?;
                        continue;
                    }
                    user = Some(name);
                    say(&mut io, "235 in").await?;
                }
                "MAIL" => {
                    from = line.split(['<', '>']).nth(1)?.to_owned();
                    say(&mut io, "250 ok").await?;
                }
                "RCPT" => {
                    to.push(line.split(['<', '>']).nth(1)?.to_owned());
                    say(&mut io, "250 ok").await?;
                }
                "DATA" => {
                    say(&mut io, "354 go on").await?;
                    let mut text = String::new();
                    while !text.ends_with("\r\n.\r\n") {
                        if io.read_line(&mut text).await.ok()? == 0 {
                            return Some(None);
                        }
                    }
                    let text = text.strip_suffix(".\r\n")?.replace("\r\n..", "\r\n.");
                    let letter =
                        Letter { from: from.clone(), to: std::mem::take(&mut to), text, tls, user: user.clone() };
                    self.inner.lock().unwrap().letters.push(letter);
                    say(&mut io, "250 kept").await?;
                }
                "QUIT" => {
                    say(&mut io, "221 bye").await?;
                    let mut rest = Vec::new();
                    let _ = io.read_to_end(&mut rest).await;
                    return Some(None);
                }
                _ => say(&mut io, "250 ok").await?,
            }
        }
    }

    fn refuse(&self, refuse: Option<(&'static str, &'static str)>) {
        self.inner.lock().unwrap().refuse = refuse;
    }

    fn letters(&self) -> Vec<Letter> {
        self.inner.lock().unwrap().letters.clone()
    }

    async fn until(&self, count: usize) -> Vec<Letter> {
        until(|| Some(self.letters()).filter(|l| l.len() >= count)).await
    }
}

async fn say<S: AsyncWrite + Unpin>(io: &mut S, line: &str) -> Option<()> {
    io.write_all(format!("{line}\r\n").as_bytes()).await.ok()?;
    io.flush().await.ok()
}

/// A certificate for `localhost` of an authority of its own: what the server uses, and the authority as PEM.
fn certificate() -> (TlsAcceptor, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(cert.pem().as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    (TlsAcceptor::from(Arc::new(config)), ca.pem())
}

fn configured(url: &str, more: &str) -> Setup {
    let notify = format!(
        "notify:\n  - {{ smtp: {{ url: \"{url}\", from: \"Holdpoint <holdpoint@acme.test>\", \
         to: [leads@acme.test, \"On Call <call@acme.test>\"]{more} }} }}\n\
         reviews: {{ inline_wait: 0s, url: \"http://localhost:1\" }}"
    );
    Setup::new()
        .people(&people())
        .config("reviews: { inline_wait: 0s }", &notify)
        .config(
            "        cost: { amount: /amountMinor",
            "        title: \"Refund {amountMinor|money:currency} of {customerId}\"\n        cost: { amount: /amountMinor",
        )
        .file("secrets/mail", PASSWORD)
}

struct World {
    p: Proxy,
    server: Server,
    clock: Arc<ManualClock>,
}

async fn world(more: &str) -> World {
    let server = Server::start(None, false).await;
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(NOW * 1000)));
    let p = configured(&format!("smtp://{}", server.at), more).clock(clock.clone()).start().await;
    p.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    World { p, server, clock }
}

impl World {
    async fn held(&self, customer: &str, minor: i64) -> String {
        let body = json!({"customerId": customer, "amountMinor": minor, "currency": "EUR"});
        let more = [("holdpoint-intent", "PLEASE-TRUST-ME")];
        let held = self.p.agent("POST", "/crm/orders/o_1/refunds", &more, Some(&body)).await.json();
        held["hold"].as_str().unwrap_or_else(|| panic!("{held}")).to_owned()
    }

    fn count(&self, result: &str) -> u64 {
        self.p.running.metrics().notifications.with_label_values(&["smtp", result]).get()
    }

    /// Waits until so many events wait in the outbox.
    async fn waiting(&self, count: usize) -> Value {
        loop {
            let list = self.p.reviewer("omar", "GET", "/v1/webhooks", None).await.json()["items"][0].clone();
            if list["waiting"].as_array().unwrap().len() >= count {
                return list;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn the_high_tier_is_told_at_once_and_decides_nothing_by_mail() {
    let w = world("").await;
    let hold = w.held("c_1", 88_000).await;
    let letter = w.server.until(1).await.remove(0);
    assert_eq!(
        (letter.from.as_str(), letter.to.join(" ")),
        ("holdpoint@acme.test", "leads@acme.test call@acme.test".into())
    );
    let record = w.p.running.store().get(hold.parse::<HoldId>().unwrap().call()).await.unwrap().unwrap();
    let code = holdpoint::call::short_code(&record.digest);
    assert_eq!(letter.field("Subject"), format!("[holdpoint] high tier: Refund 880.00 EUR of c_1 ({code})"));
    assert_eq!(letter.field("Content-Type"), "text/plain; charset=utf-8");
    assert_eq!(letter.field("Auto-Submitted"), "auto-generated");
    assert_eq!(letter.field("Date"), "Fri, 15 Jan 2027 08:00:00 +0000");
    assert!(letter.field("Message-ID").starts_with("<evt_") && letter.field("References").contains(&hold));
    let body = letter.body();
    for part in [&code, "Refund 880.00 EUR of c_1", "high", "2 of finance, support-leads; 0 so far", "support-bot"] {
        assert!(body.contains(part), "{part}: {body}");
    }
    let links: Vec<&str> = body.split_whitespace().filter(|w| w.contains("://")).collect();
    assert_eq!(links, [format!("http://localhost:1/holds/{hold}")], "one link, that opens the page");
    assert!(!letter.text.contains("PLEASE-TRUST-ME"), "no word of the agent's");
    // What is opened by it asks who is there, and nothing else happens.
    let got = crate::harness::send(w.p.running.admin, "GET", &format!("/holds/{hold}"), &[], b"").await;
    assert_eq!((got.status, got.header("location").starts_with("/sign-in")), (303, true), "{got:?}");
    until(|| (w.count("delivered") == 1).then_some(())).await;
    assert_eq!(w.server.letters().len(), 1);
}

#[tokio::test]
async fn the_medium_tier_is_gathered_and_told_in_one() {
    let w = world("").await;
    let first = w.held("c_1", 8800).await;
    w.waiting(1).await;
    w.clock.advance(Duration::from_secs(200));
    let second = w.held("c_2", 8800).await;
    w.waiting(2).await;
    let urgent = w.held("c_3", 88_000).await;
    assert!(w.server.until(1).await[0].body().contains(&urgent), "what is urgent does not wait");
    until(|| (w.count("delivered") == 1).then_some(())).await;
    assert_eq!(w.p.approve("maya", &first, None).await.status, 200);
    let call = first.parse::<HoldId>().unwrap().call();
    w.p.until_state(&call.to_string(), State::Succeeded).await;
    w.clock.advance(Duration::from_secs(99));
    assert_eq!(w.waiting(2).await["waiting"].as_array().unwrap().len(), 2);
    assert_eq!(w.server.letters().len(), 1);
    w.clock.advance(Duration::from_secs(1));
    let letter = w.server.until(2).await.remove(1);
    assert_eq!(letter.field("Subject"), "[holdpoint] 2 events of the medium tier");
    let body = letter.body();
    assert!(body.contains(&first) && body.contains(&second) && !body.contains(&urgent), "{body}");
    assert!(body.contains("succeeded") && body.contains("held"), "each as it is now: {body}");
    until(|| (w.count("delivered") == 2).then_some(())).await;
    assert_eq!(w.waiting(0).await["waiting"], json!([]));
}

#[tokio::test]
async fn what_the_server_cannot_take_now_is_sent_later_and_what_it_refuses_is_kept() {
    let w = world(", digest: 0s").await;
    w.server.refuse(Some(("RCPT", "451 4.7.1 try again later")));
    w.held("c_1", 8800).await;
    until(|| (w.count("failed") == 1).then_some(())).await;
    let list = w.waiting(1).await;
    assert!(list["waiting"][0]["why"].as_str().unwrap().contains("try again later"), "{list}");
    w.server.refuse(None);
    w.clock.advance(Duration::from_secs(7));
    let letter = w.server.until(1).await.remove(0);
    assert!(letter.field("Subject").contains("medium tier: Refund 88.00 EUR of c_1"));
    until(|| (w.count("delivered") == 1).then_some(())).await;
    w.server.refuse(Some(("MAIL", "550 5.7.1 not you")));
    w.held("c_2", 88_000).await;
    until(|| (w.count("dead") == 1).then_some(())).await;
    let (code, said) = cli(&w.p, "omar", &["webhooks", "ls"]).await;
    assert!(code == Some(0) && said.contains("not you") && said.contains("leads@acme.test"), "{said}");
    let name = said.split_whitespace().find(|w| w.starts_with("smtp-")).unwrap().to_owned();
    w.server.refuse(None);
    let (code, said) = cli(&w.p, "omar", &["webhooks", "replay", &name]).await;
    assert!(code == Some(0) && said.contains("1 told again"), "{said}");
    assert!(w.server.until(2).await[1].field("Subject").contains("880.00 EUR of c_2"));
}

#[tokio::test]
async fn nothing_in_an_argument_becomes_a_field_a_recipient_or_a_line() {
    let w = world(", digest: 0s").await;
    let evil = "c\r\nBcc: eve@evil.test\r\n\r\n<b>\u{202e}gnp\n.\r\n";
    w.held(evil, 8800).await;
    let letter = w.server.until(1).await.remove(0);
    assert_eq!(letter.to, ["leads@acme.test", "call@acme.test"]);
    assert!(!letter.head().contains("\r\nBcc"), "{}", letter.head());
    let body = letter.body();
    assert!(body.contains("Refund 88.00 EUR of c\\u{d}\\u{a}Bcc: eve@evil.test\\u{d}\\u{a}"), "{body}");
    assert!(body.contains("\\u{202e}gnp") && !body.contains('\u{202e}'), "{body}");
    assert!(body.trim_end().ends_with("where you sign in."), "it was handed over whole: {body}");
    // What is not ASCII arrives; what is too long for a subject stands in the letter.
    w.held("Größe-€-🂡", 8800).await;
    let letter = w.server.until(2).await.remove(1);
    assert!(letter.body().contains("of Größe-€-🂡") && letter.head().is_ascii(), "{}", letter.head());
    assert!(letter.field("Subject").contains("=?utf-8?"), "{}", letter.head());
    w.held(&"\u{200b}".repeat(40), 8800).await;
    let letter = w.server.until(3).await.remove(2);
    assert!(letter.field("Subject").starts_with("[holdpoint] medium tier: crm.refund ("), "{}", letter.head());
    assert!(letter.body().contains(&"\\u{200b}".repeat(40)));
}

async fn secure(scheme: &str, wrapped: bool, user: &str, more: &str, offered: bool) -> (Proxy, Server) {
    let (acceptor, ca) = certificate();
    let server = Server::start(offered.then_some(acceptor), wrapped).await;
    let url = format!("{scheme}://{user}localhost:{}", server.at.port());
    let p = configured(&url, &format!(", ca: {{ file: ca.pem }}{more}")).file("ca.pem", &ca).start().await;
    (p, server)
}

const LOGIN: &str = ", password: { file: secrets/mail }";

#[tokio::test]
async fn a_password_is_said_over_tls_alone() {
    for (scheme, wrapped) in [("smtp", false), ("smtps", true)] {
        let (p, server) = secure(scheme, wrapped, "bot%40acme.test@", LOGIN, true).await;
        assert_eq!(p.refund("o_1", 88_000, &[]).await.code(), "held");
        let letter = server.until(1).await.remove(0);
        assert!(letter.tls && letter.user.as_deref() == Some("bot@acme.test"), "{scheme}: {letter:?}");
        assert!(!server.inner.lock().unwrap().bare);
    }
    // A server that does not offer TLS hears neither password nor letter.
    let (p, server) = secure("smtp", false, "bot@", LOGIN, false).await;
    assert_eq!(p.refund("o_1", 88_000, &[]).await.code(), "held");
    let count = |result: &str| p.running.metrics().notifications.with_label_values(&["smtp", result]).get();
    until(|| (count("failed") == 1).then_some(())).await;
    assert!(!server.inner.lock().unwrap().bare && server.letters().is_empty());
    // Nor does one with a certificate of somebody else.
    let (acceptor, _) = certificate();
    let server = Server::start(Some(acceptor), false).await;
    let (_, other) = certificate();
    let url = format!("smtp://bot@localhost:{}", server.at.port());
    let p = configured(&url, &format!(", ca: {{ file: ca.pem }}{LOGIN}")).file("ca.pem", &other).start().await;
    assert_eq!(p.refund("o_1", 88_000, &[]).await.code(), "held");
    let failed = || p.running.metrics().notifications.with_label_values(&["smtp", "failed"]).get();
    until(|| (failed() == 1).then_some(())).await;
    assert!(!server.inner.lock().unwrap().bare && server.letters().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_gathered_is_told_after_a_kill() {
    let server = Server::start(None, false).await;
    let site = Site::new(configured(&format!("smtp://{}", server.at), ", digest: 3s")).await;
    let first = site.start().await;
    let held = first.refund("o_1", 8800, &[]).await.json();
    let kept = |dir: &Path| {
        let all = std::fs::read_dir(dir).unwrap().flatten().map(|e| e.path());
        let mut all = all.filter(|p| p.extension().is_some_and(|e| e == "json"));
        all.any(|p| std::fs::read_to_string(p).unwrap_or_default().contains("gathered"))
    };
    until(|| kept(&site.state().join("outbox")).then_some(())).await;
    first.kill();
    let second = site.start().await;
    let letter = server.until(1).await.remove(0);
    assert!(letter.body().contains(held["hold"].as_str().unwrap()), "{letter:?}");
    assert_eq!(second.stop().await, Some(0));
}

#[test]
fn set_ups_that_could_not_work_are_mistakes() {
    let load = |url: &str, more: &str, change: &dyn Fn(Setup) -> Setup| {
        let dir = tempfile::tempdir().unwrap();
        let setup = change(configured(url, more).file("not.pem", "no certificate"));
        holdpoint::app::load(&setup.write(dir.path(), "127.0.0.1:9".parse().unwrap()))
            .map(drop)
            .map_err(|e| e.to_string())
    };
    let same: &dyn Fn(Setup) -> Setup = &|s| s;
    let rows: &[(&str, &str, &str)] = &[
        ("http://mail.test", "", "is not a mail server"),
        ("smtps://mail.test/x", "", "is not a mail server"),
        ("smtps://bot:secret@mail.test", LOGIN, "give that as `password`"),
        ("smtps://bot@mail.test", "", "so `password` is needed"),
        ("smtps://mail.test", LOGIN, "names no user"),
        ("smtps://mail.test", ", ca: { file: not.pem }", "holds no certificate"),
        ("smtps://mail.test", ", ca: { file: none.pem }", "cannot read"),
        ("smtps://mail.test", ", digest: 2d", "at most `1d`"),
        ("smtps://mail.test", ", digest: soon", "digest"),
    ];
    assert_eq!(load("smtps://mail.test", "", same), Ok(()));
    assert_eq!(load("smtp://bot%40acme.test@mail.test:2525", LOGIN, same), Ok(()));
    for (url, more, wanted) in rows {
        let wrong = load(url, more, same).unwrap_err();
        assert!(wrong.contains(wanted) && wrong.contains("notify.0.smtp"), "{url}{more}: {wrong}");
        assert!(!wrong.contains(PASSWORD), "{wrong}");
    }
    let from = load("smtps://mail.test", "", &|s| s.config("holdpoint@acme.test", "acme\\r\\nBcc: x")).unwrap_err();
    assert!(from.contains("is not an address"), "{from}");
    let nobody = load("smtps://mail.test", "", &|s| s.config("[leads@acme.test, \"On Call <call@acme.test>\"]", "[]"));
    assert!(nobody.unwrap_err().contains("name who is written to"));
}
