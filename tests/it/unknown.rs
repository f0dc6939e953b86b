//! Calls whose answer was lost: sent again only where that is declared harmless, looked up where a read is configured,
//! and otherwise unknown until people have said what became of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use holdpoint::app;
use holdpoint::call::Timestamp;
use holdpoint::clock::ManualClock;
use holdpoint::store::State;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::binary::{Binary, Site};
use crate::harness::{Proxy, Reaction, Seen, Setup, answer, until};

const MINUTE: Duration = Duration::from_secs(60);
const WAIT: (&str, &str) = ("prefer", "wait=20");
const KEY: (&str, &str) = ("idempotency-key", "k1");

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Timestamp::from_millis(1_800_000_000_000)))
}

/// More on how refunds repeat, and a breaker that stays out of the way.
fn with(more: &str) -> Setup {
    Setup::new().config("keep: 1h }\n", more).config("failures: 3,", "failures: 99,")
}

fn header() -> Setup {
    with("keep: 1h, upstream: header }\n")
}

fn readable() -> Setup {
    with(
        "keep: 1h }\n        reconcile: { read: \"GET /orders/:orderId/refunds?minor=:amountMinor\", found: /items/0 }\n",
    )
}

fn posts(seen: &[Seen]) -> Vec<&Seen> {
    seen.iter().filter(|s| s.method == "POST").collect()
}

fn reads(p: &Proxy) -> usize {
    p.upstream.seen().iter().filter(|s| s.method == "GET").count()
}

/// Refunds are lost; a read is answered so.
fn loses(p: &Proxy, read: impl Fn() -> Reaction + Send + Sync + 'static) {
    p.upstream.script(move |seen| if seen.method == "POST" { Reaction::Drop } else { read() });
}

async fn lost(p: &Proxy, more: &[(&str, &str)]) -> String {
    let got = p.refund("o_1", 1200, more).await;
    assert_eq!((got.status, got.code().as_str()), (409, "outcome_unknown"), "{:?}", got.json());
    got.header("holdpoint-call").to_owned()
}

impl Proxy {
    async fn reads_until(&self, count: usize) {
        until(|| (reads(self) >= count).then_some(())).await;
    }
}

#[tokio::test]
async fn a_read_that_finds_the_call_settles_it_as_executed() {
    let p = readable().start().await;
    loses(&p, || answer(200, &json!({"items": [{"id": "rf_1"}]})));
    let got = p.refund("o_1", 1200, &[KEY]).await;
    let call = got.header("holdpoint-call").to_owned();
    let record = p.until_state(&call, State::Succeeded).await;
    let note = record.note.unwrap();
    assert_eq!(note.code, "found_by_read");
    assert!(
        note.text.contains("GET /orders/o_1/refunds?minor=1200 answered 200") && note.text.contains("sha256:"),
        "{}",
        note.text
    );
    let seen = p.upstream.seen();
    let read = seen.iter().find(|s| s.method == "GET").unwrap();
    assert_eq!(read.target, "/v2/orders/o_1/refunds?minor=1200");
    assert_eq!(read.headers["authorization"], format!("Bearer {}", crate::harness::CRM_TOKEN), "its own credential");
    let event = p.until_line(|kind, _| kind == "found").await;
    assert!(event.to_string().contains("sha256:"), "the audit record does not name the answer");
    let again = p.refund("o_1", 1200, &[KEY]).await;
    assert_eq!((again.status, &again.json()["executed"]), (409, &json!("yes")), "{:?}", again.json());
    assert_eq!(posts(&p.upstream.seen()).len(), 1);
}

#[tokio::test]
async fn not_found_is_believed_only_after_quiescence_and_frees_the_key() {
    for nothing in [|| answer(200, &json!({"items": []})), || answer(404, &json!({}))] {
        let time = clock();
        let p = readable().clock(time.clone()).start().await;
        loses(&p, nothing);
        let call = p.refund("o_1", 1200, &[KEY]).await.header("holdpoint-call").to_owned();
        p.reads_until(1).await;
        time.advance(MINUTE * 9);
        p.reads_until(2).await;
        assert_eq!(p.state(&call).await, State::Unknown, "it may still be on the wire");
        assert_eq!(p.refund("o_1", 1200, &[KEY]).await.code(), "outcome_unknown");
        time.advance(MINUTE);
        let record = p.until_state(&call, State::NotExecuted).await;
        assert_eq!(record.note.unwrap().code, "not_found_by_read");
        p.upstream.script(|_| answer(201, &json!({"refund": "rf_2"})));
        let again = p.refund("o_1", 1200, &[KEY]).await;
        assert_eq!((again.status, again.decision()), (201, "allowed"), "{:?}", again.json());
        assert_eq!(posts(&p.upstream.seen()).len(), 2);
    }
}

#[tokio::test]
async fn whatever_else_the_read_says_leaves_the_call_unknown() {
    let html = || Reaction::Answer(StatusCode::OK, vec![], "<html>ok</html>".into());
    let elsewhere = || Reaction::Answer(StatusCode::FOUND, vec![("location", "/v2/login".into())], bytes::Bytes::new());
    let long = || answer(200, &json!({"items": ["x".repeat(2 << 20)]}));
    let cases: [fn() -> Reaction; 5] =
        [|| answer(500, &json!({"items": [1]})), html, elsewhere, long, || Reaction::Drop];
    for (i, unclear) in cases.into_iter().enumerate() {
        let time = clock();
        let p = readable().clock(time.clone()).start().await;
        loses(&p, unclear);
        let call = p.refund("o_1", 1200, &[KEY]).await.header("holdpoint-call").to_owned();
        time.advance(MINUTE * 11);
        p.reads_until(1).await;
        time.advance(MINUTE * 11);
        p.reads_until(2).await;
        assert_eq!(p.state(&call).await, State::Unknown, "case {i}");
        assert!(p.upstream.seen().iter().all(|s| !s.target.contains("login")), "a redirect was followed");
    }
}

#[tokio::test]
async fn a_read_asks_for_the_key_that_the_upstream_was_told() {
    let read = "keep: 1h, upstream: header }\n        reconcile: { read: \"GET /refunds?key=:key\", found: /id }\n";
    for more in [&[][..], &[KEY]] {
        let p = with(read).start().await;
        loses(&p, || answer(200, &json!({"id": "rf_1"})));
        let call = lost(&p, more).await;
        p.until_state(&call, State::Succeeded).await;
        let seen = p.upstream.seen();
        let told = seen[0].headers["idempotency-key"].to_str().unwrap().trim_matches('"').to_owned();
        assert_eq!(told, if more.is_empty() { call.as_str() } else { KEY.1 });
        assert_eq!(seen.last().unwrap().target, format!("/v2/refunds?key={told}"));
    }
}

#[tokio::test]
async fn a_read_that_cannot_name_the_call_is_not_made() {
    let of_reason = "keep: 1h }\n        reconcile: { read: \"GET /refunds?why=:reason\", found: /id }\n";
    let of_call = "keep: 1h, upstream: header }\n        reconcile: { read: \"GET /refunds/:call\", found: /id }\n";
    for (setup, more) in [(of_reason, &[][..]), (of_call, &[KEY][..])] {
        let time = clock();
        let p = with(setup).clock(time.clone()).start().await;
        loses(&p, || answer(404, &json!({})));
        let call = lost(&p, more).await;
        time.advance(MINUTE * 11);
        // A call that can be read comes and is settled; by then the first one had its turn.
        let body = json!({"customerId": "c_1", "amountMinor": 1300, "currency": "EUR", "reason": "a b/c"});
        let other = p.agent("POST", "/crm/orders/o_2/refunds", &[], Some(&body)).await;
        assert_eq!(other.code(), "outcome_unknown");
        p.reads_until(1).await;
        let seen = p.upstream.seen();
        let targets: Vec<&str> = seen.iter().filter(|s| s.method == "GET").map(|s| s.target.as_str()).collect();
        let wanted = if more.is_empty() {
            "/v2/refunds?why=a%20b%2Fc".to_owned()
        } else {
            format!("/v2/refunds/{}", other.header("holdpoint-call"))
        };
        assert_eq!(targets, [wanted]);
        assert_eq!(p.state(&call).await, State::Unknown, "a read that names nothing would prove everything");
    }
}

#[tokio::test]
async fn people_say_not_executed_only_after_quiescence() {
    let time = clock();
    let omar = "      - { user: omar, groups: [platform], mfa: true, token: { file: secrets/omar } }\n";
    let p = Setup::new()
        .config(omar, &format!("{omar}{}", omar.replace("omar", "olga")))
        .file("secrets/olga", &crate::harness::token("olga"))
        .clock(time.clone())
        .start()
        .await;
    p.upstream.script(|_| Reaction::Drop);
    let call = lost(&p, &[]).await;
    let at = format!("/v1/calls/{call}/reconcile");
    let not = json!({"outcome": "not_executed", "reason": "it is not in the books"});
    let early = p.reviewer("omar", "POST", &at, Some(&not)).await;
    assert_eq!((early.status, early.code().as_str(), early.header("retry-after")), (409, "too_early", "601"));
    time.advance(MINUTE * 10);
    assert_eq!(p.reviewer("omar", "POST", &at, Some(&not)).await.json()["state"], "unknown");
    assert_eq!(p.reviewer("olga", "POST", &at, Some(&not)).await.json()["state"], "not_executed");
    p.upstream.script(|_| answer(201, &json!({})));
    assert_eq!(p.refund("o_1", 1200, &[]).await.status, 201, "the key is free again");
}

#[tokio::test]
async fn a_lost_answer_of_a_declared_call_is_asked_for_again_with_the_same_key() {
    for (key, more) in [(None, &[][..]), (Some("\"k1\""), &[KEY][..])] {
        let p = header().start().await;
        let tries = AtomicUsize::new(0);
        p.upstream.script(move |_| match tries.fetch_add(1, Ordering::SeqCst) {
            0 => Reaction::Drop,
            1 => Reaction::Pieces(vec![], vec!["cut".into()], false),
            _ => answer(201, &json!({"refund": "rf_1"})),
        });
        let got = p.refund("o_1", 1200, more).await;
        assert_eq!((got.status, got.decision(), got.json()), (201, "allowed", json!({"refund": "rf_1"})));
        let call = got.header("holdpoint-call").to_owned();
        let seen = p.upstream.seen();
        let sent: Vec<&str> = seen.iter().map(|s| s.headers["idempotency-key"].to_str().unwrap()).collect();
        let wanted = key.map_or_else(|| format!("\"{call}\""), str::to_owned);
        assert_eq!(sent, vec![wanted.as_str(); 3]);
        assert!(seen.iter().all(|s| s.body == seen[0].body));
        let record = p.record(&call).await;
        assert_eq!((record.state, record.attempt), (State::Succeeded, 3));
        let begun = p.lines().iter().filter(|l| l.kind() == "begun_again").count();
        assert_eq!(begun, 2, "an attempt without a record");
        assert_eq!(p.refund("o_1", 1200, more).await.decision(), "replayed");
    }
}

#[tokio::test]
async fn three_lost_attempts_are_the_end_and_what_came_later_proves_nothing() {
    let p = with("keep: 1h, repeatable: true }\n").start().await;
    p.upstream.script(|_| Reaction::Drop);
    let call = lost(&p, &[]).await;
    assert_eq!((p.upstream.count(), p.record(&call).await.attempt), (3, 3));
    assert!(p.upstream.seen()[0].headers.get("idempotency-key").is_none(), "nobody said that it honours one");

    // The first one may have had its effect: a later "not now" is no proof.
    let p = with("keep: 1h, upstream: header }\n        not_now: [503]\n").start().await;
    let tries = AtomicUsize::new(0);
    p.upstream.script(move |_| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Reaction::Drop,
        _ => answer(503, &json!({})),
    });
    let call = lost(&p, &[]).await;
    assert_eq!((p.upstream.count(), p.state(&call).await), (3, State::Unknown));
}

#[tokio::test]
async fn a_held_call_that_is_declared_is_sent_again_under_its_approval() {
    let p = header().start().await;
    let tries = AtomicUsize::new(0);
    p.upstream.script(move |_| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Reaction::Drop,
        _ => answer(201, &json!({"refund": "rf_1"})),
    });
    let hold = p.refund("o_1", 6000, &[]).await.json()["hold"].as_str().unwrap().to_owned();
    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    let got = p.refund("o_1", 6000, &[WAIT]).await;
    assert_eq!((got.status, p.upstream.count()), (201, 2), "{:?}", got.json());
}

/// An upstream that never answers a refund.
fn silent(site: &Site) {
    let never = || Reaction::Wait(Arc::new(Notify::new()), Box::new(answer(201, &json!({}))));
    site.upstream.script(move |seen| if seen.method == "POST" { never() } else { answer(500, &json!({})) });
}

/// Killed while a refund is on the wire; then the configuration may change, and the upstream answers.
async fn killed_while_sending(site: &Site, change: impl Fn(String) -> String) -> Binary {
    silent(site);
    let first = site.start().await;
    let sending = first.try_refund("o_1", 1200, &[KEY]);
    let kill = async {
        until(|| (site.upstream.count() >= 1).then_some(())).await;
        first.signal("KILL");
    };
    let (got, ()) = tokio::join!(sending, kill);
    assert!(got.is_none());
    first.kill();
    let path = site.dir.path().join("holdpoint.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, change(text)).unwrap();
    site.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    site.start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_sending_a_declared_call_is_sent_again_after_the_start() {
    let site = Site::new(header()).await;
    let second = killed_while_sending(&site, |t| t).await;
    let got = second.refund("o_1", 1200, &[KEY, WAIT]).await;
    assert_eq!(
        (got.status, got.decision(), got.json()),
        (201, "replayed", json!({"refund": "rf_1"})),
        "{}",
        second.logged()
    );
    let seen = site.upstream.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|s| s.headers["idempotency-key"] == "\"k1\"" && s.body == seen[0].body));
    assert_eq!(second.stop().await, Some(0));
    let (code, said) = Site::verify(&site.state());
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_sending_what_may_not_be_sent_again_is_unknown() {
    let no_more = |t: String| t.replace(", upstream: header", "");
    let moved = |t: String| t.replace("/v2\"", "/v3\"");
    let other_agent = |t: String| t.replace("agent: support-bot", "agent: new-bot");
    let mine = |t: String| t.replace("auth: { bearer: { file: secrets/crm } }", "auth: pass_through");
    type Change = fn(String) -> String;
    let cases: [(&str, Change); 4] = [
        ("not declared any more", no_more),
        ("moved", moved),
        ("its agent is gone", other_agent),
        ("no credential", mine),
    ];
    for (why, change) in cases {
        let site = Site::new(header()).await;
        let second = killed_while_sending(&site, change).await;
        until(|| second.logged().contains("may not be sent again").then_some(())).await;
        assert_eq!(site.upstream.count(), 1, "{why}: it was sent again");
        // Who is gone asks no more; a call to another place is another call.
        if !matches!(why, "its agent is gone" | "moved") {
            let got = second.refund("o_1", 1200, &[KEY]).await;
            assert_eq!((got.code().as_str(), &got.json()["executed"]), ("outcome_unknown", &json!("unknown")), "{why}");
        }
    }
    // Policy is asked again, too.
    let site = Site::new(header()).await;
    let stop = "@id(\"stop\") @reason(\"No refunds today.\") forbid (principal, action == Holdpoint::Action::\"crm.refund\", resource);\n";
    let policies = site.dir.path().join("policies/agents.cedar");
    let second = killed_while_sending(&site, |t| {
        let text = std::fs::read_to_string(&policies).unwrap();
        std::fs::write(&policies, format!("{text}{stop}")).unwrap();
        t
    })
    .await;
    until(|| second.logged().contains("may not be sent again").then_some(())).await;
    assert_eq!(site.upstream.count(), 1, "policy denies it now");
}

fn mistakes(setup: Setup) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = setup.write(dir.path(), "127.0.0.1:9".parse().unwrap());
    app::load(&path).map(|_| String::new()).unwrap_or_else(|e| e.to_string())
}

#[test]
fn a_read_that_would_prove_nothing_is_a_mistake() {
    let rule = |reconcile: &str| with(&format!("keep: 1h }}\n        reconcile: {reconcile}\n"));
    let header = |reconcile: &str| with(&format!("keep: 1h, upstream: header }}\n        reconcile: {reconcile}\n"));
    let pass = "auth: { bearer: { file: secrets/crm } }";
    let read = "{ read: \"GET /orders/:orderId\", found: /a }";
    for (setup, said) in [
        (rule("{ after: 4s }"), "at least the operation's deadline (5s)"),
        (rule("{ read: \"GET /refunds?key=:key\", found: /a }"), "never sees the key"),
        (rule("{ read: \"GET /refunds/:call\", found: /a }"), "never sees the id"),
        (rule("{ read: \"GET /refunds/:nothing\", found: /a }"), "`:nothing` is no argument"),
        (rule("{ read: \"GET /refunds\", found: /a }"), "names nothing of the call"),
        (rule("{ read: \"POST /refunds/:orderId\", found: /a }"), "is not `GET` and a path"),
        (rule("{ read: \"GET /orders/:orderId\" }"), "belong together"),
        (rule("{ read: \"GET /orders/:orderId\", found: items }"), "is not a JSON Pointer"),
        (
            rule(read)
                .config("        schema: refund.json\n", "        schema: refund.json\n        redact: [/customerId]\n")
                .config("GET /orders/:orderId\"", "GET /orders/:customerId\""),
            "is redacted",
        ),
        (rule(read).config(pass, "auth: pass_through"), "no credential of its own"),
        (
            Setup::new().config(
                "add_comment: { effect: write }",
                &format!("add_comment: {{ effect: write, reconcile: {read} }}"),
            ),
            "only REST tools",
        ),
        (rule(read), ""),
        (rule("{ after: 5s }"), ""),
        (header("{ read: \"GET /refunds/{call}?key=:key\", found: /a }"), ""),
    ] {
        let told = mistakes(setup);
        assert!(if said.is_empty() { told.is_empty() } else { told.contains(said) }, "{said}: {told}");
    }
}

#[tokio::test]
async fn to_look_how_a_denial_stands_is_not_to_collect_it() {
    let time = clock();
    let p = Setup::new().clock(time.clone()).start().await;
    let hold = p.refund("o_1", 6000, &[]).await.json()["hold"].as_str().unwrap().to_owned();
    let digest = p.reviewer("maya", "GET", &format!("/v1/holds/{hold}"), None).await.json()["digest"].clone();
    let no: Value = json!({"digest": digest, "reason_code": "duplicate"});
    assert_eq!(p.reviewer("maya", "POST", &format!("/v1/holds/{hold}/reject"), Some(&no)).await.status, 200);
    let call = hold.replace("hold_", "call_");
    let looked = p.agent("GET", &format!("/-/calls/{call}"), &[], None).await;
    assert_eq!((looked.status, &looked.json()["state"]), (200, &json!("rejected")));
    assert_eq!(p.record(&call).await.collected, None);
    time.advance(MINUTE * 30);
    assert_eq!(p.refund("o_1", 6000, &[]).await.code(), "rejected", "the call itself was never told");
    assert!(p.record(&call).await.collected.is_some());
}
