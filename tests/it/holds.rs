//! Held calls: who may release them, what is sent then, and what the agent hears in the end.

use std::sync::Arc;
use std::time::Duration;

use holdpoint::call::Timestamp;
use holdpoint::clock::ManualClock;
use holdpoint::store::State;
use serde_json::{Value, json};

use crate::harness::{Got, OTHER_KEY, Proxy, Reaction, Setup, answer, until};

const MINUTE: Duration = Duration::from_secs(60);
const WAIT: (&str, &str) = ("prefer", "wait=20");

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Timestamp::from_millis(1_800_000_000_000)))
}

async fn start(setup: Setup) -> Proxy {
    let p = setup.start().await;
    p.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    p
}

/// A refund that is held; its hold.
async fn held(p: &Proxy, minor: i64) -> String {
    let got = p.refund("o_1", minor, &[]).await;
    assert_eq!((got.status, got.code().as_str(), got.decision()), (409, "held", "held"), "{:?}", got.json());
    got.json()["hold"].as_str().unwrap().to_owned()
}

fn call_of(hold: &str) -> String {
    hold.replace("hold_", "call_")
}

/// A decision with the digest as it stands.
async fn decide(p: &Proxy, who: &str, hold: &str, verb: &str, more: Value) -> (u16, String) {
    let digest = p.record(&call_of(hold)).await.digest;
    let mut body = json!({"digest": digest});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let got = p.reviewer(who, "POST", &format!("/v1/holds/{hold}/{verb}"), Some(&body)).await;
    (got.status, got.code())
}

async fn approve(p: &Proxy, who: &str, hold: &str) -> (u16, String) {
    decide(p, who, hold, "approve", json!({})).await
}

async fn justify(p: &Proxy, who: &str, hold: &str) -> (u16, String) {
    decide(p, who, hold, "approve", json!({"justification": "double charge, T-1"})).await
}

fn ok() -> (u16, String) {
    (200, String::new())
}

fn no(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// The re-call hears this refusal, and nothing was sent.
async fn hears(p: &Proxy, minor: i64, code: &str) -> Got {
    let got = p.refund("o_1", minor, &[]).await;
    assert_eq!((got.status, got.code().as_str()), (403, code), "{:?}", got.json());
    assert_eq!(got.json()["executed"], "no");
    assert_eq!(p.upstream.bytes(), 0);
    got
}

#[tokio::test]
async fn an_approved_call_is_sent_once_and_the_re_call_gets_the_upstreams_own_answer() {
    let p = start(Setup::new()).await;
    let first = p.refund("o_1", 6000, &[]).await;
    assert_eq!((first.status, first.code().as_str()), (409, "held"));
    let call = first.header("holdpoint-call").to_owned();
    assert_eq!(first.header("link"), format!("</-/calls/{call}>; rel=\"monitor\""));
    assert_eq!((first.header("retry-after"), first.header("holdpoint-tier")), ("30", "medium"));
    assert_eq!(first.json()["policies"][0]["id"], "refund-review");
    assert_eq!(p.upstream.bytes(), 0);
    let hold = first.json()["hold"].as_str().unwrap().to_owned();
    assert_eq!(held(&p, 6000).await, hold, "the same call made a second hold");

    assert_eq!(approve(&p, "maya", &hold).await, ok());
    let got = p.refund("o_1", 6000, &[WAIT]).await;
    assert_eq!((got.status, got.decision(), got.json()), (201, "replayed", json!({"refund": "rf_1"})));
    assert_eq!(got.header("holdpoint-call"), call);
    let seen = p.upstream.seen();
    assert_eq!(seen.len(), 1);
    let body = json!({"customerId": "c_1", "amountMinor": 6000, "currency": "EUR"}).to_string();
    assert_eq!((seen[0].target.as_str(), seen[0].body.as_ref()), ("/v2/orders/o_1/refunds", body.as_bytes()));
    let record = p.record(&call).await;
    assert_eq!((record.state, record.approvals[0].digest), (State::Succeeded, record.digest));
    assert_eq!(p.refund("o_1", 6000, &[]).await.decision(), "replayed");
    assert_eq!(p.upstream.count(), 1);
}

#[tokio::test]
async fn a_dual_call_needs_two_people_of_the_right_groups_and_a_written_reason() {
    let p = start(Setup::new()).await;
    let hold = held(&p, 60_000).await;
    assert_eq!(approve(&p, "maya", &hold).await, no(422, "justification_required"));
    assert_eq!(justify(&p, "maya", &hold).await, ok());
    assert_eq!(justify(&p, "maya", &hold).await, no(403, "already_counted"));
    assert_eq!(justify(&p, "mia", &hold).await, no(403, "already_counted"), "one person under two accounts");
    assert_eq!(p.state(&call_of(&hold)).await, State::Held);
    assert_eq!(p.refund("o_1", 60_000, &[]).await.code(), "held");
    assert_eq!(p.upstream.bytes(), 0);
    assert_eq!(justify(&p, "li", &hold).await, ok());
    let got = p.refund("o_1", 60_000, &[WAIT]).await;
    assert_eq!((got.status, p.upstream.count()), (201, 1));
}

#[tokio::test]
async fn one_person_under_two_accounts_is_one_whichever_comes_first() {
    let p = start(Setup::new()).await;
    let hold = held(&p, 60_000).await;
    assert_eq!(justify(&p, "mia", &hold).await, ok());
    assert_eq!(justify(&p, "maya", &hold).await, no(403, "already_counted"));
    assert_eq!(p.upstream.bytes(), 0);
}

#[tokio::test]
async fn who_runs_the_agent_who_may_not_see_and_who_is_nobody_approve_nothing() {
    let p = start(Setup::new()).await;
    let hold = held(&p, 6000).await;
    assert_eq!(approve(&p, "ana", &hold).await, no(403, "self_review"));
    assert_eq!(approve(&p, "li", &hold).await, no(403, "not_in_group"));
    assert_eq!(approve(&p, "sam", &hold).await, no(404, "not_found"));
    assert_eq!(approve(&p, "nobody", &hold).await, no(401, "unauthenticated"));
    let key = format!("Bearer {}", crate::harness::SUPPORT_KEY);
    let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
    let path = format!("/v1/holds/{hold}/approve");
    let got = crate::harness::send(p.running.admin, "POST", &path, &headers, b"{}").await;
    assert_eq!(got.status, 401, "an agent's key is no reviewer's token");
    assert_eq!(p.state(&call_of(&hold)).await, State::Held);
    assert_eq!(p.upstream.bytes(), 0);
}

#[tokio::test]
async fn a_vote_counts_for_what_was_seen_and_once() {
    let p = start(Setup::new()).await;
    let hold = held(&p, 6000).await;
    let stale = json!({"digest": format!("sha256:{}", "0".repeat(64))});
    let got = p.reviewer("maya", "POST", &format!("/v1/holds/{hold}/approve"), Some(&stale)).await;
    assert_eq!((got.status, got.code().as_str()), (409, "digest_changed"));
    let got = p.reviewer("maya", "POST", &format!("/v1/holds/{hold}/approve"), Some(&json!({}))).await;
    assert_eq!(got.status, 422, "a vote without a digest");
    assert_eq!(p.upstream.bytes(), 0);
    assert_eq!(approve(&p, "maya", &hold).await, ok());
    assert_eq!(approve(&p, "maya", &hold).await, no(409, "already_decided"));
    assert_eq!(p.refund("o_1", 6000, &[WAIT]).await.status, 201);
    assert_eq!(approve(&p, "maya", &hold).await, no(409, "already_decided"));
    assert_eq!(p.upstream.count(), 1);
}

#[tokio::test]
async fn silence_is_no() {
    let time = clock();
    let p = start(Setup::new().clock(time.clone())).await;
    let hold = held(&p, 6000).await;
    time.advance(MINUTE * 60 * 5);
    assert_eq!(approve(&p, "maya", &hold).await, no(409, "expired"));
    hears(&p, 6000, "hold_expired").await;
    time.advance(MINUTE * 3);
    assert_ne!(held(&p, 6000).await, hold, "what was told is over");
    assert_eq!(p.upstream.bytes(), 0);
}

#[tokio::test]
async fn a_rejection_is_told_with_its_reason_and_answers_the_same_call_for_a_while() {
    let time = clock();
    let p = start(Setup::new().clock(time.clone())).await;
    let hold = held(&p, 6000).await;
    let said = json!({"reason_code": "wrong_amount", "message_to_agent": "Refund 20 EUR instead."});
    assert_eq!(decide(&p, "maya", &hold, "reject", said).await, ok());
    assert_eq!(approve(&p, "mia", &hold).await, no(409, "already_decided"));
    // It is kept until the agent has been told, however long that takes.
    time.advance(MINUTE * 30);
    let got = hears(&p, 6000, "rejected").await;
    assert_eq!(got.json()["reason_code"], "wrong_amount");
    assert!(got.json()["detail"].as_str().unwrap().contains("Refund 20 EUR instead."), "{:?}", got.json());
    time.advance(Duration::from_secs(59));
    hears(&p, 6000, "rejected").await;
    time.advance(MINUTE * 3);
    assert_ne!(held(&p, 6000).await, hold);
}

#[tokio::test]
async fn an_agent_takes_its_call_back() {
    let p = start(Setup::new()).await;
    let hold = held(&p, 6000).await;
    let path = format!("/-/calls/{}", call_of(&hold));
    let got = p.agent("DELETE", &path, &[], None).await;
    assert_eq!((got.status, &got.json()["state"]), (200, &json!("withdrawn")));
    assert_eq!(approve(&p, "maya", &hold).await, no(409, "already_decided"));
    hears(&p, 6000, "withdrawn").await;
    assert_eq!(p.agent("DELETE", &path, &[], None).await.code(), "withdrawn");
}

#[tokio::test]
async fn holds_are_capped_for_each_agent_and_in_all() {
    let p =
        start(Setup::new().config("inline_wait: 0s", "inline_wait: 0s, max_held: { per_agent: 2, total: 3 }")).await;
    for order in ["o_1", "o_2"] {
        assert_eq!(p.refund(order, 6000, &[]).await.code(), "held");
    }
    let third = p.refund("o_3", 6000, &[]).await;
    assert_eq!((third.status, third.code().as_str(), &third.json()["limit"]), (429, "rate_limited", &json!("held")));
    assert_eq!(p.refund("o_1", 6000, &[]).await.code(), "held", "a hold that stands is attached to all the same");
    let one = p.refund("o_1", 6000, &[]).await.header("holdpoint-call").to_owned();
    assert_eq!(p.agent("DELETE", &format!("/-/calls/{one}"), &[], None).await.status, 200);
    assert_eq!(p.refund("o_3", 6000, &[]).await.code(), "held");
    assert_eq!(p.upstream.bytes(), 0);
}

const TICKET: &str = "@id(\"with-ticket\") @reason(\"Name the ticket.\") @approvers(\"support-leads\") @evidence(\"ticket\")\n\
                      forbid (principal, action == Holdpoint::Action::\"crm.refund\", resource)\n\
                      when { context.input.amountMinor > 20000 } unless { context.approval.granted };\n";

#[tokio::test]
async fn votes_count_only_once_the_evidence_is_there() {
    let p = start(Setup::new().more_policies(TICKET)).await;
    let first = p.refund("o_1", 30_000, &[]).await;
    assert_eq!(first.json()["evidence_required"], json!(["ticket"]), "{:?}", first.json());
    let hold = first.json()["hold"].as_str().unwrap().to_owned();
    assert_eq!(approve(&p, "maya", &hold).await, no(422, "evidence_missing"));
    let paper = json!({"kind": "ticket", "title": "T-1", "text": "The customer was charged twice."});
    let path = format!("/-/calls/{}/evidence", call_of(&hold));
    let other = p.agent_as(OTHER_KEY, "POST", &path, &[], Some(&paper)).await;
    assert_eq!((other.status, other.code().as_str()), (404, "unknown_tool"));
    let attached = p.agent("POST", &path, &[], Some(&paper)).await;
    assert_eq!((attached.status, &attached.json()["evidence"]), (201, &json!(["ticket"])));
    assert_eq!(approve(&p, "maya", &hold).await, ok());
    assert_eq!(p.refund("o_1", 30_000, &[WAIT]).await.status, 201);

    // Given before the call, by its id.
    let given = p.agent("POST", "/-/evidence", &[], Some(&paper)).await.json()["artifact"].as_str().unwrap().to_owned();
    let second = p.refund("o_2", 30_000, &[("holdpoint-evidence", &given)]).await;
    let hold = second.json()["hold"].as_str().unwrap().to_owned();
    assert_eq!(approve(&p, "maya", &hold).await, ok());
    let got = p.refund("o_2", 30_000, &[WAIT]).await;
    assert_eq!((got.status, p.upstream.count()), (201, 2));
    // Another agent's paper is nobody's evidence here.
    let foreign = p.agent_as(OTHER_KEY, "POST", "/-/evidence", &[], Some(&paper)).await.json()["artifact"].clone();
    let stolen = p.refund("o_3", 30_000, &[("holdpoint-evidence", foreign.as_str().unwrap())]).await;
    assert_eq!((stolen.status, stolen.code().as_str()), (422, "invalid_arguments"));
}

#[tokio::test]
async fn who_asks_for_it_gets_202_and_collects_the_result_by_its_place() {
    let p = start(Setup::new()).await;
    let got = p.refund("o_1", 6000, &[("prefer", "respond-async")]).await;
    assert_eq!((got.status, got.header("preference-applied")), (202, "respond-async"));
    let at = got.header("location").to_owned();
    assert_eq!((at.as_str(), got.decision()), (&*format!("/-/calls/{}", got.header("holdpoint-call")), "held"));
    assert_eq!((&got.json()["state"], &got.json()["executed"]), (&json!("held"), &json!("no")));
    let state = p.agent("GET", &at, &[], None).await;
    assert_eq!((state.status, &state.json()["state"]), (200, &json!("held")));
    assert_eq!(p.agent("GET", &format!("{at}/result"), &[], None).await.code(), "held");
    let hold = got.json()["hold"].as_str().unwrap().to_owned();
    assert_eq!(approve(&p, "maya", &hold).await, ok());
    let state = p.agent("GET", &at, &[WAIT], None).await;
    assert_eq!((state.status, state.header("location")), (303, &*format!("{at}/result")));
    let result = p.agent("GET", state.header("location"), &[], None).await;
    assert_eq!((result.status, result.json()), (201, json!({"refund": "rf_1"})));
    assert_eq!(result.header("content-type"), "application/json");
    assert_eq!(p.upstream.count(), 1);
}

#[tokio::test]
async fn another_agents_call_is_like_one_that_does_not_exist() {
    let p = start(Setup::new()).await;
    let call = call_of(&held(&p, 6000).await);
    let none = "call_01ARZ3NDEKTSV4RRFFQ69G5FAV";
    for (method, tail) in [("GET", ""), ("GET", "/result"), ("DELETE", "")] {
        let theirs = p.agent_as(OTHER_KEY, method, &format!("/-/calls/{call}{tail}"), &[], None).await;
        let missing = p.agent_as(OTHER_KEY, method, &format!("/-/calls/{none}{tail}"), &[], None).await;
        assert_eq!((theirs.status, theirs.code().as_str()), (404, "unknown_tool"), "{method} {tail}");
        assert_eq!(theirs.body, missing.body, "{method} {tail}");
    }
    assert_eq!(p.state(&call).await, State::Held);
}

#[tokio::test]
async fn a_quick_approval_is_picked_up_in_place() {
    let p = start(Setup::new().config("inline_wait: 0s", "inline_wait: 20s")).await;
    let reviewer = async {
        let list = until_held(&p).await;
        assert_eq!(approve(&p, "maya", &list).await, ok());
    };
    let (got, ()) = tokio::join!(p.refund("o_1", 6000, &[]), reviewer);
    assert_eq!((got.status, got.json(), p.upstream.count()), (201, json!({"refund": "rf_1"}), 1));
}

async fn until_held(p: &Proxy) -> String {
    let event = p.until_line(|kind, _| kind == "parked").await;
    let text = event.to_string();
    let at = text.find("call_").unwrap();
    let id: String = text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    id.replace("call_", "hold_")
}

fn passes_through() -> Setup {
    Setup::new().config("auth: { bearer: { file: secrets/crm } }", "auth: pass_through")
}

#[tokio::test]
async fn with_the_clients_own_credential_the_call_is_sent_when_the_client_comes_back() {
    let p = start(passes_through()).await;
    let hold = held(&p, 6000).await;
    assert_eq!(approve(&p, "maya", &hold).await, ok());
    let call = call_of(&hold);
    assert_eq!(p.until_state(&call, State::Approved).await.state, State::Approved);
    let state = p.agent("GET", &format!("/-/calls/{call}"), &[], None).await;
    assert_eq!((state.status, &state.json()["state"]), (200, &json!("approved")));
    assert_eq!(p.upstream.bytes(), 0, "nobody has come back");
    let got = p.refund("o_1", 6000, &[]).await;
    assert_eq!((got.status, got.decision(), p.upstream.count()), (201, "allowed", 1));
    let own = format!("Bearer {}", crate::harness::SUPPORT_KEY);
    assert_eq!(p.upstream.seen()[0].headers["authorization"], own);
    assert_eq!(p.refund("o_1", 6000, &[]).await.decision(), "replayed");
    p.until_line(|kind, _| kind == "concluded").await;
    let mut files = vec![p.dir.path().join("state")];
    let mut looked = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()));
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let key = crate::harness::SUPPORT_KEY.as_bytes();
        assert!(!bytes.windows(key.len()).any(|w| w == key), "the client's credential stands in {}", path.display());
        looked += 1;
    }
    assert!(looked > 1);
}

#[tokio::test]
async fn what_a_client_comes_back_with_is_no_other_request_than_was_approved() {
    let pass = "auth: pass_through, forward_headers: [x-tenant]";
    let p = start(Setup::new().config("auth: { bearer: { file: secrets/crm } }", pass)).await;
    let asked = p.refund("o_1", 6000, &[("x-tenant", "a")]).await;
    let hold = asked.json()["hold"].as_str().unwrap().to_owned();
    let shown = p.reviewer("maya", "GET", &format!("/v1/holds/{hold}"), None).await.json();
    assert!(shown["call"]["request"]["headers"].to_string().contains("x-tenant"), "{shown}");
    assert_eq!(approve(&p, "maya", &hold).await, ok());
    let got = p.refund("o_1", 6000, &[("x-tenant", "b"), ("accept", "application/json")]).await;
    assert_eq!((got.status, p.upstream.count()), (201, 1));
    let sent = &p.upstream.seen()[0].headers;
    assert_eq!((&sent["x-tenant"], &sent["accept"]), (&"a".parse().unwrap(), &"application/json".parse().unwrap()));
}

/// A hold that is approved and waits because the breaker of its tool is open.
async fn approved_and_waiting(p: &Proxy) -> String {
    let hold = held(p, 6000).await;
    p.upstream.script(|_| answer(500, &json!({})));
    for _ in 0..3 {
        assert_eq!(p.agent("GET", "/crm/customers/c_1", &[], None).await.status, 500);
    }
    assert_eq!(approve(p, "maya", &hold).await, ok());
    let call = call_of(&hold);
    let noted = async {
        while p.record(&call).await.note.is_none() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, noted).await.expect("no reason why it waits");
    let record = p.record(&call).await;
    assert_eq!((record.state, record.note.unwrap().code.as_str()), (State::Approved, "breaker_open"));
    let told = p.refund("o_1", 6000, &[]).await;
    assert_eq!((told.code().as_str(), &told.json()["state"]), ("held", &json!("approved")));
    p.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    hold
}

fn refunds(p: &Proxy) -> usize {
    p.upstream.seen().iter().filter(|s| s.method == "POST").count()
}

#[tokio::test]
async fn what_waits_for_a_breaker_stays_approved_and_goes_when_it_closes() {
    let time = clock();
    let p = start(Setup::new().clock(time.clone())).await;
    let hold = approved_and_waiting(&p).await;
    assert_eq!(refunds(&p), 0);
    time.advance(Duration::from_secs(25));
    p.until_state(&call_of(&hold), State::Succeeded).await;
    let got = p.refund("o_1", 6000, &[]).await;
    assert_eq!((got.status, got.decision(), refunds(&p)), (201, "replayed", 1));
}

#[tokio::test]
async fn an_approval_that_is_not_used_in_its_window_is_over() {
    let time = clock();
    let p = start(Setup::new().clock(time.clone())).await;
    approved_and_waiting(&p).await;
    time.advance(MINUTE * 60 * 24);
    let got = p.refund("o_1", 6000, &[]).await;
    assert_eq!((got.status, got.code().as_str(), refunds(&p)), (403, "hold_expired", 0));
}

#[tokio::test]
async fn policy_that_is_tightened_after_the_vote_holds_the_call_again() {
    let time = clock();
    let p = start(Setup::new().clock(time.clone())).await;
    let hold = approved_and_waiting(&p).await;
    p.rewrite("policies/agents.cedar", |t| t.replace("> 50000", "> 5500"));
    p.running.reload().await.unwrap();
    time.advance(Duration::from_secs(25));
    let record = p.until_state(&call_of(&hold), State::Held).await;
    assert_eq!((record.tier.as_str(), record.approvals.len(), refunds(&p)), ("high", 0, 0));
    assert_eq!(justify(&p, "maya", &hold).await, ok());
    assert_eq!(justify(&p, "li", &hold).await, ok());
    assert_eq!(p.refund("o_1", 6000, &[WAIT]).await.status, 201);
    assert_eq!(refunds(&p), 1);
}

#[tokio::test]
async fn policy_that_denies_after_the_vote_revokes_the_call() {
    let time = clock();
    let p = start(Setup::new().clock(time.clone())).await;
    let hold = approved_and_waiting(&p).await;
    p.rewrite("policies/agents.cedar", |t| t.replace("creditLimitMinor };", "creditLimitMinor };\n@id(\"stop\") @reason(\"No refunds today.\") forbid (principal, action == Holdpoint::Action::\"crm.refund\", resource);"));
    p.running.reload().await.unwrap();
    time.advance(Duration::from_secs(25));
    p.until_state(&call_of(&hold), State::Revoked).await;
    assert_eq!(approve(&p, "maya", &hold).await, no(409, "already_decided"));
    assert_eq!(refunds(&p), 0);
}

#[tokio::test]
async fn a_request_that_would_go_elsewhere_than_it_was_approved_for_is_revoked() {
    let time = clock();
    let p = start(Setup::new().clock(time.clone())).await;
    let hold = approved_and_waiting(&p).await;
    p.rewrite("holdpoint.yaml", |t| t.replace("/v2\"", "/v3\""));
    p.running.reload().await.unwrap();
    time.advance(Duration::from_secs(25));
    let record = p.until_state(&call_of(&hold), State::Revoked).await;
    assert!(record.note.unwrap().text.contains("moved"));
    assert_eq!(refunds(&p), 0);
}

#[tokio::test]
async fn an_agent_that_is_gone_after_the_vote_sends_nothing() {
    let time = clock();
    let p = start(Setup::new().clock(time.clone())).await;
    let hold = approved_and_waiting(&p).await;
    p.rewrite("holdpoint.yaml", |t| {
        t.lines()
            .filter(|l| !l.contains("agent: support-bot"))
            .collect::<Vec<_>>()
            .join("\n")
            .replace("agents: [support]", "agents: [others]")
            .replace("group: others", "groups: [others, support]")
    });
    p.running.reload().await.unwrap();
    time.advance(Duration::from_secs(25));
    let record = p.until_state(&call_of(&hold), State::Revoked).await;
    assert!(record.note.unwrap().text.contains("agent"));
    assert_eq!(p.refund("o_1", 6000, &[]).await.code(), "unauthenticated");
    assert_eq!(refunds(&p), 0);
}

#[tokio::test]
async fn a_reviewer_that_is_gone_decides_nothing_more() {
    let p = start(Setup::new()).await;
    let hold = held(&p, 6000).await;
    p.rewrite("holdpoint.yaml", |t| {
        t.lines().filter(|l| !l.contains("user: maya, groups")).collect::<Vec<_>>().join("\n")
    });
    p.running.reload().await.unwrap();
    assert_eq!(approve(&p, "maya", &hold).await, no(401, "unauthenticated"));
    assert_eq!(p.state(&call_of(&hold)).await, State::Held);
}

#[tokio::test]
async fn sixty_four_re_calls_during_the_vote_are_one_request() {
    let p = start(Setup::new()).await;
    let hold = held(&p, 6000).await;
    let calls = futures_util::future::join_all((0..64).map(|_| p.refund("o_1", 6000, &[WAIT])));
    let (all, voted) = tokio::join!(calls, approve(&p, "maya", &hold));
    assert_eq!(voted, ok());
    assert!(all.iter().all(|got| got.status == 201), "{:?}", all.iter().map(Got::code).collect::<Vec<_>>());
    assert_eq!(p.upstream.count(), 1);
}

#[tokio::test]
async fn two_last_votes_at_once_send_once() {
    let p = start(Setup::new()).await;
    let hold = held(&p, 6000).await;
    let (a, b) = tokio::join!(approve(&p, "maya", &hold), approve(&p, "mia", &hold));
    let mut both = [a, b];
    both.sort();
    assert_eq!(both, [ok(), no(409, "already_decided")]);
    assert_eq!(p.refund("o_1", 6000, &[WAIT]).await.status, 201);
    until(|| (p.upstream.count() == 1).then_some(())).await;
}

#[tokio::test]
async fn a_held_mcp_call_is_attached_by_its_arguments_and_answered_under_the_new_id() {
    let p = Setup::new().start().await;
    p.upstream.script(|seen| {
        let asked: Value = serde_json::from_slice(&seen.body).unwrap();
        let result = json!({"content": [{"type": "text", "text": "deleted"}]});
        answer(200, &json!({"jsonrpc": "2.0", "id": asked["id"], "result": result}))
    });
    let call = |id: u32| {
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
               "params": {"name": "delete_ticket", "arguments": {"ticketId": "t_1", "hard": true}}})
    };
    let first = p.agent("POST", "/tickets/mcp", &[], Some(&call(7))).await;
    let hold = first.json()["result"]["_meta"]["dev.holdpoint/hold"]["holdId"].as_str().unwrap().to_owned();
    assert_eq!(approve(&p, "maya", &hold).await, ok());
    let again = p.agent("POST", "/tickets/mcp", &[WAIT], Some(&call(8))).await;
    assert_eq!((again.status, &again.json()["id"]), (200, &json!(8)));
    assert_eq!(again.json()["result"], json!({"content": [{"type": "text", "text": "deleted"}]}));
    assert_eq!((again.header("holdpoint-call"), p.upstream.count()), (call_of(&hold).as_str(), 1));
}

#[tokio::test]
async fn a_call_like_one_whose_outcome_is_unknown_goes_to_people() {
    let time = clock();
    let p = Setup::new().clock(time.clone()).start().await;
    p.upstream.script(|_| Reaction::Drop);
    let lost = p.refund("o_1", 1200, &[("idempotency-key", "a")]).await;
    assert_eq!(lost.code(), "outcome_unknown");
    p.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    // A model asks again under a new key, or under none.
    let again = p.refund("o_1", 1200, &[("idempotency-key", "b")]).await;
    assert_eq!((again.code().as_str(), again.header("holdpoint-tier")), ("held", "medium"), "{:?}", again.json());
    let doubt = format!("Possible duplicate of {}", lost.header("holdpoint-call"));
    assert!(again.json()["detail"].as_str().unwrap().contains(&doubt), "{:?}", again.json());
    assert_eq!(p.refund("o_1", 1200, &[]).await.code(), "held");
    assert_eq!(p.upstream.count(), 1);
    // Other arguments are another call; those who own the tool may let the second one through.
    assert_eq!(p.refund("o_1", 1201, &[]).await.decision(), "allowed");
    let hold = again.json()["hold"].as_str().unwrap().to_owned();
    assert_eq!(approve(&p, "li", &hold).await, no(403, "not_in_group"));
    assert_eq!(approve(&p, "maya", &hold).await, ok());
    assert_eq!(p.refund("o_1", 1200, &[("idempotency-key", "b"), WAIT]).await.status, 201);
    assert_eq!(p.upstream.count(), 3);
    p.upstream.script(|_| Reaction::Drop);
    let write = json!({"email": "a@b.c"});
    let update = async || p.agent("PATCH", "/crm/customers/c_1", &[], Some(&write)).await;
    assert_eq!(update().await.code(), "outcome_unknown");
    assert_eq!(update().await.code(), "held", "an operation that claims no key");
    time.advance(MINUTE * 60 * 25);
    p.upstream.script(|_| answer(200, &json!({})));
    assert_eq!(p.refund("o_1", 1200, &[("idempotency-key", "c")]).await.decision(), "allowed", "a day later");
}
