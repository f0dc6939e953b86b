//! A reviewer lets calls like one that was approved pass by themselves, within bounds that never widen.

use holdpoint::store::State;
use serde_json::{Value, json};

use crate::harness::{Got, PEOPLE, POLICIES, Proxy, SUPPORT_KEY, Setup, answer, page, send, sign_in};
use crate::verbs::cli;

const CAPS: &str = "@grant(\"max=1h,uses=3,sum=amountMinor:40000\")";

pub fn setup() -> Setup {
    let reason = "@reason(\"Refunds need one review.\")";
    assert!(POLICIES.contains(reason));
    let people = PEOPLE.to_owned()
        + "@id(\"grants\") permit (principal in Holdpoint::Team::\"support-leads\", \
           action == Holdpoint::Action::\"grant.create\", resource);\n\
           @id(\"edits\") permit (principal in Holdpoint::Team::\"support-leads\", \
           action == Holdpoint::Action::\"hold.edit\", resource);\n\
           @id(\"revokes\") permit (principal in Holdpoint::Team::\"platform\", \
           action == Holdpoint::Action::\"grant.revoke\", resource);\n";
    Setup::new().policies(&POLICIES.replace(reason, &format!("{reason} {CAPS}"))).people(&people)
}

async fn start() -> Proxy {
    started(setup()).await
}

pub async fn started(setup: Setup) -> Proxy {
    let p = setup.start().await;
    p.upstream.script(|_| answer(201, &json!({"ok": true})));
    p
}

pub async fn held(p: &Proxy, order: &str, minor: i64) -> String {
    let got = p.refund(order, minor, &[]).await;
    assert_eq!(got.code(), "held", "{got:?}");
    got.json()["hold"].as_str().unwrap().to_owned()
}

/// Approves a hold and grants calls like it.
async fn give(p: &Proxy, who: &str, hold: &str, grant: &Value) -> Got {
    let digest = p.reviewer(who, "GET", &format!("/v1/holds/{hold}"), None).await.json()["digest"].clone();
    let body = json!({"digest": digest, "grant": grant});
    p.reviewer(who, "POST", &format!("/v1/holds/{hold}/approve"), Some(&body)).await
}

#[tokio::test]
async fn headers_that_the_upstream_heeds_are_seen_by_people_each_time() {
    let forward = "auth: { bearer: { file: secrets/crm } }, forward_headers: [x-tenant]";
    let p = started(setup().config("auth: { bearer: { file: secrets/crm } }", forward)).await;
    let tenant = [("x-tenant", "b")];
    let hold = p.refund("o_tenant", 6000, &tenant).await.json()["hold"].as_str().unwrap().to_owned();
    let got = give(&p, "maya", &hold, &orders()).await;
    assert_eq!((got.status, got.code().as_str()), (422, "grant_not_allowed"));
    granted(&p, &orders()).await;
    assert_eq!(p.refund("o_2", 7000, &tenant).await.code(), "held");
    assert_eq!(p.refund("o_3", 7000, &[]).await.status, 201);
}

/// Any order, amounts up to 90.00.
fn orders() -> Value {
    json!({"pins": [{"path": "/orderId", "any": true}, {"path": "/amountMinor", "max": 9000}]})
}

/// A grant from a call that was approved and executed; its id.
async fn granted(p: &Proxy, wanted: &Value) -> String {
    let hold = held(p, "o_first", 6000).await;
    let got = give(p, "maya", &hold, wanted).await;
    assert_eq!(got.status, 200, "{got:?}");
    p.until_state(&hold.replace("hold_", "call_"), State::Succeeded).await;
    got.json()["grant"]["id"].as_str().expect("a grant").to_owned()
}

async fn shown(p: &Proxy, id: &str) -> Value {
    let got = p.reviewer("maya", "GET", &format!("/v1/grants/{id}"), None).await;
    assert_eq!(got.status, 200, "{got:?}");
    got.json()
}

async fn why_ended(p: &Proxy, id: &str) -> String {
    shown(p, id).await["ended"]["why"].as_str().unwrap_or("live").to_owned()
}

#[tokio::test]
async fn calls_like_the_approved_one_pass_and_others_are_held() {
    let p = start().await;
    let id = granted(&p, &orders()).await;
    let got = p.refund("o_2", 8000, &[]).await;
    assert_eq!((got.status, got.decision(), got.header("holdpoint-tier")), (201, "allowed", "medium"), "{got:?}");
    let record = p.record(got.header("holdpoint-call")).await;
    assert_eq!(record.grant.map(|g| g.to_string()), Some(id.clone()), "the grant stands in the record");
    assert!(record.approvals.is_empty() && record.terms.is_none());
    let grant = shown(&p, &id).await;
    assert_eq!(
        (&grant["used"], &grant["max_sums"][0]["sum"], &grant["state"]),
        (&json!(1), &json!(8000), &json!("live"))
    );
    assert_eq!(
        (&grant["agent"], &grant["by"], &grant["policies"]),
        (&json!("support-bot"), &json!("maya"), &json!(["refund-review"]))
    );
    // Too much, another customer, a field more, another workflow: people look at each.
    assert_eq!(p.refund("o_3", 9001, &[]).await.code(), "held");
    let other = json!({"customerId": "c_2", "amountMinor": 8000, "currency": "EUR"});
    assert_eq!(p.agent("POST", "/crm/orders/o_4/refunds", &[], Some(&other)).await.code(), "held");
    let more = json!({"customerId": "c_1", "amountMinor": 8000, "currency": "EUR", "reason": "x"});
    assert_eq!(p.agent("POST", "/crm/orders/o_5/refunds", &[], Some(&more)).await.code(), "held");
    assert_eq!(p.refund("o_6", 8000, &[("holdpoint-workflow", "refunds")]).await.code(), "held");
    // Two people stay two people.
    assert_eq!(p.refund("o_7", 60_000, &[]).await.json()["tier"], "high");
    assert_eq!(shown(&p, &id).await["used"], 1);
}

#[tokio::test]
async fn uses_and_sums_are_counted_given_back_and_never_exceeded() {
    let p = start().await;
    let id = granted(&p, &orders()).await;
    // What was not sent is given back.
    p.upstream.script(|_| answer(201, &json!({})));
    for order in ["o_2", "o_3", "o_4"] {
        assert_eq!(p.refund(order, 9000, &[]).await.status, 201);
    }
    assert_eq!(p.refund("o_5", 9000, &[]).await.code(), "held");
    assert_eq!(why_ended(&p, &id).await, "used_up");
    let other =
        granted_more(&p, &json!({"pins": orders()["pins"], "max_sums": [{"path": "/amountMinor", "value": 16_000}]}))
            .await;
    assert_eq!(p.refund("o_6", 9000, &[]).await.status, 201);
    assert_eq!(p.refund("o_7", 9000, &[]).await.code(), "held", "18 000 is over the sum");
    assert_eq!(p.refund("o_8", 7000, &[]).await.status, 201);
    assert_eq!(why_ended(&p, &other).await, "sum_reached");
}

/// A second one, from a call of another order.
async fn granted_more(p: &Proxy, wanted: &Value) -> String {
    let hold = held(p, "o_second", 8500).await;
    let got = give(p, "maya", &hold, wanted).await;
    assert_eq!(got.status, 200, "{got:?}");
    got.json()["grant"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_grant_is_no_wider_than_policy_and_the_approved_call_allow() {
    let p = start().await;
    let hold = held(&p, "o_1", 6000).await;
    let with = |more: Value| {
        let mut wanted = orders();
        wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        wanted
    };
    for (wanted, code) in [
        (with(json!({"minutes": 61})), "grant_wider_than_hold"),
        (with(json!({"max_uses": 4})), "grant_wider_than_hold"),
        (with(json!({"max_sums": [{"path": "/amountMinor", "value": 40_001}]})), "grant_wider_than_hold"),
        (json!({"pins": [{"path": "/amountMinor", "max": 5999}]}), "grant_wider_than_hold"),
        (json!({"pins": [{"path": "/customerId", "equals": "c_2"}]}), "grant_wider_than_hold"),
        (json!({"pins": [{"path": "/customerId", "max": 5}]}), "grant_wider_than_hold"),
        (json!({"pins": [{"path": "/nothing", "any": true}]}), "invalid_arguments"),
        (json!({"pins": [{"path": "", "any": true}]}), "invalid_arguments"),
        (json!({"pins": [{"path": "/orderId", "any": true}, {"path": "/orderId", "max": 3}]}), "invalid_arguments"),
        (json!({"max_uses": 0}), "invalid_arguments"),
        (json!({"minutes": 0}), "invalid_arguments"),
        (json!({"forever": true}), "invalid_arguments"),
    ] {
        let got = give(&p, "maya", &hold, &wanted).await;
        assert_eq!((got.status, got.code().as_str()), (422, code), "{wanted} {got:?}");
    }
    // Nothing of that was a vote.
    assert_eq!(p.state(&hold.replace("hold_", "call_")).await, State::Held);
    // Policy lets finance approve nothing here, and nobody grant; who runs the agent gives nothing.
    assert_eq!(give(&p, "li", &hold, &orders()).await.status, 403);
    assert_eq!(give(&p, "ana", &hold, &orders()).await.code(), "self_review");
    let high = held(&p, "o_2", 60_000).await;
    let got = give(&p, "maya", &high, &orders()).await;
    assert_eq!((got.status, got.code().as_str()), (422, "grant_not_allowed"), "{got:?}");
    assert_eq!(p.upstream.bytes(), 0);
}

#[tokio::test]
async fn without_the_annotation_there_is_no_grant() {
    let p = started(setup().policies(POLICIES)).await;
    let hold = held(&p, "o_1", 6000).await;
    let got = give(&p, "maya", &hold, &orders()).await;
    assert_eq!((got.status, got.code().as_str()), (422, "grant_not_allowed"));
    assert!(got.json()["detail"].as_str().unwrap().contains("`refund-review`"), "{got:?}");
    let second = "@id(\"no-grant\") @reason(\"Looked at one by one.\") @approvers(\"support-leads\")\n\
                  forbid (principal, action == Holdpoint::Action::\"crm.refund\", resource)\n\
                  when { context.input.amountMinor > 7000 } unless { context.approval.granted };\n";
    let p = started(setup().more_policies(second)).await;
    let id = granted(&p, &orders()).await;
    assert_eq!(p.refund("o_2", 7000, &[]).await.status, 201);
    assert_eq!(p.refund("o_3", 7001, &[]).await.code(), "held", "another forbid decides, too");
    assert_eq!(shown(&p, &id).await["used"], 1);
    // Nor is one lifted that allows grants, but had not held the approved call.
    let p = started(setup().more_policies(&second.replace("@reason", "@grant(\"max=1h\") @reason"))).await;
    granted(&p, &orders()).await;
    assert_eq!(p.refund("o_2", 7000, &[]).await.status, 201);
    assert_eq!(p.refund("o_3", 7001, &[]).await.code(), "held", "a forbid that the grant does not lean on");
}

#[tokio::test]
async fn it_ends_when_a_call_like_those_is_rejected_and_when_it_is_taken_back() {
    let p = start().await;
    let id = granted(&p, &orders()).await;
    let hold = held(&p, "o_2", 9500).await;
    let digest = p.reviewer("maya", "GET", &format!("/v1/holds/{hold}"), None).await.json()["digest"].clone();
    let body = json!({"digest": digest, "reason_code": "unsafe"});
    assert_eq!(p.reviewer("maya", "POST", &format!("/v1/holds/{hold}/reject"), Some(&body)).await.status, 200);
    assert_eq!(why_ended(&p, &id).await, "rejected");
    assert_eq!(p.refund("o_3", 6000, &[]).await.code(), "held");

    let second = granted_more(&p, &orders()).await;
    let path = format!("/v1/grants/{second}");
    assert_eq!(p.reviewer("li", "DELETE", &path, None).await.code(), "forbidden");
    assert_eq!(p.reviewer("sam", "DELETE", &path, None).await.status, 404, "one that may not see it");
    let got = p.reviewer("omar", "DELETE", &path, None).await;
    assert_eq!((got.status, &got.json()["ended"]["by"]), (200, &json!("omar")), "{got:?}");
    assert_eq!(p.reviewer("maya", "DELETE", &path, None).await.code(), "already_ended");
    assert_eq!(p.refund("o_4", 6000, &[]).await.code(), "held");
    let list = p.reviewer("maya", "GET", "/v1/grants?state=ended&op=crm.refund", None).await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    assert_eq!(p.reviewer("sam", "GET", "/v1/grants", None).await.json()["items"], json!([]));
    assert_eq!(p.reviewer("maya", "GET", "/v1/grants?nothing=1", None).await.code(), "unknown_parameter");
}

#[tokio::test]
async fn it_ends_with_a_change_of_policy_schema_or_tool() {
    for (file, from, to, why) in [
        ("policies/agents.cedar", "amountMinor > 5000", "amountMinor > 4000", "policy_changed"),
        (
            "policies/agents.cedar",
            "@id(\"writes\") permit",
            "@id(\"writes\") @ticket(\"T-1\") permit",
            "policy_changed",
        ),
        ("refund.json", "\"type\": \"object\"", "\"type\": \"object\", \"title\": \"another\"", "schema_changed"),
        ("holdpoint.yaml", "env: prod", "env: dev", "tool_changed"),
    ] {
        let p = start().await;
        let id = granted(&p, &orders()).await;
        let path = p.dir.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        p.running.reload().await.unwrap();
        assert_eq!(why_ended(&p, &id).await, why, "{file}");
        // Not even when it is as before.
        std::fs::write(&path, text).unwrap();
        p.running.reload().await.unwrap();
        assert_eq!(p.refund("o_2", 6000, &[]).await.code(), "held", "{file}");
    }
}

#[tokio::test]
async fn it_ends_when_its_tool_fails() {
    let p = start().await;
    let id = granted(&p, &orders()).await;
    p.upstream.script(|_| answer(503, &json!({})));
    for customer in ["c_1", "c_2", "c_3"] {
        p.agent("GET", &format!("/crm/customers/{customer}"), &[], None).await;
    }
    assert_eq!(why_ended(&p, &id).await, "breaker_open");
}

#[tokio::test]
async fn evidence_is_brought_with_each_use() {
    let wants = POLICIES.replace(
        "@reason(\"Refunds need one review.\")",
        &format!("@reason(\"Refunds need one review.\") {CAPS} @evidence(\"ticket\")"),
    );
    let p = started(setup().policies(&wants)).await;
    let paper = json!({"kind": "ticket", "title": "T-1", "text": "charged twice"});
    let ticket =
        p.agent("POST", "/-/evidence", &[], Some(&paper)).await.json()["artifact"].as_str().unwrap().to_owned();
    let hold =
        p.refund("o_1", 6000, &[("holdpoint-evidence", &ticket)]).await.json()["hold"].as_str().unwrap().to_owned();
    assert_eq!(give(&p, "maya", &hold, &orders()).await.status, 200);
    p.until_state(&hold.replace("hold_", "call_"), State::Succeeded).await;
    assert_eq!(p.refund("o_2", 6000, &[]).await.code(), "held", "without its ticket");
    assert_eq!(p.refund("o_3", 6000, &[("holdpoint-evidence", &ticket)]).await.status, 201);
}

#[tokio::test]
async fn it_is_given_later_from_a_call_that_ran_and_not_before_people_approved() {
    let p = start().await;
    let hold = held(&p, "o_1", 6000).await;
    let digest = p.reviewer("maya", "GET", &format!("/v1/holds/{hold}"), None).await.json()["digest"].clone();
    let mut body = json!({"hold": hold, "digest": digest, "pins": orders()["pins"], "justification": "a busy day"});
    let got = p.reviewer("maya", "POST", "/v1/grants", Some(&body)).await;
    assert_eq!((got.status, got.code().as_str()), (409, "grant_needs_approval"));
    p.approve("maya", &hold, None).await;
    p.until_state(&hold.replace("hold_", "call_"), State::Succeeded).await;
    let got = p.reviewer("li", "POST", "/v1/grants", Some(&body)).await;
    assert_eq!((got.status, got.code().as_str()), (403, "not_in_group"), "who may see and approve, and not grant");
    let got = p.reviewer("maya", "POST", "/v1/grants", Some(&body)).await;
    assert_eq!((got.status, &got.json()["justification"]), (200, &json!("a busy day")), "{got:?}");
    assert_eq!(p.refund("o_2", 6000, &[]).await.status, 201);
    body["digest"] = format!("sha256:{}", "0".repeat(64)).into();
    assert_eq!(p.reviewer("maya", "POST", "/v1/grants", Some(&body)).await.code(), "digest_changed");
}

#[tokio::test]
async fn many_at_once_pass_as_often_as_it_says() {
    let p = start().await;
    let id = granted(&p, &orders()).await;
    let bearer = format!("Bearer {SUPPORT_KEY}");
    let calls = (0..24).map(|n| {
        let (to, bearer) = (p.agents(), bearer.clone());
        let body = json!({"customerId": "c_1", "amountMinor": 6000, "currency": "EUR"}).to_string();
        tokio::spawn(async move {
            let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
            send(to, "POST", &format!("/crm/orders/many_{n}/refunds"), &headers, body.as_bytes()).await
        })
    });
    let mut passed = 0;
    for call in calls.collect::<Vec<_>>() {
        let got = call.await.unwrap();
        passed += usize::from(got.status == 201);
        assert!(got.status == 201 || got.code() == "held", "{got:?}");
    }
    assert_eq!((passed, p.upstream.count()), (3, 4), "three uses, and the call that was approved");
    assert_eq!(shown(&p, &id).await["used"], 3);
}

#[tokio::test]
async fn a_terminal_gives_lists_and_takes_back() {
    let p = start().await;
    let hold = held(&p, "o_1", 6000).await;
    let give = ["grants", "give", &hold, "--any", "orderId", "--max", "amountMinor=9000", "--uses", "2"];
    let (code, said) = cli(&p, "maya", &give).await;
    assert!(code == Some(1) && said.contains("--digest"), "nobody read it: {said}");
    let digest = p.record(&hold.replace("hold_", "call_")).await.digest.to_string();
    let with: Vec<&str> = give.iter().copied().chain(["--digest", &digest]).collect();
    let (code, said) = cli(&p, "maya", &with).await;
    assert!(code == Some(0) && said.contains("/amountMinor  from 0 to 9000"), "{said}");
    let id = said.split_whitespace().next().unwrap().to_owned();
    p.until_state(&hold.replace("hold_", "call_"), State::Succeeded).await;
    assert_eq!(p.refund("o_2", 9000, &[]).await.status, 201);
    let (code, said) = cli(&p, "maya", &["grants", "ls"]).await;
    assert!(code == Some(0) && said.contains("used 1 of 2") && said.contains(&id), "{said}");
    let (code, said) = cli(&p, "maya", &with).await;
    assert!(code == Some(2) && said.contains("already_granted"), "{said}");
    let (code, said) = cli(&p, "maya", &["grants", "revoke", &id]).await;
    assert!(code == Some(0) && said.contains("ended: revoked by maya"), "{said}");
    let (code, said) = cli(&p, "maya", &["grants", "revoke", &id]).await;
    assert!(code == Some(2) && said.contains("already_ended"), "{said}");
    // From the same call, once more: it has run, and needs no approval.
    let (code, said) = cli(&p, "maya", &with).await;
    assert!(code == Some(0) && !said.contains(&id), "{said}");
    let (_, said) = cli(&p, "maya", &["grants", "ls", "--all", "--json"]).await;
    let list: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_page_gives_one_without_any_script_and_takes_it_back() {
    let p = start().await;
    let hold = held(&p, "o_1", 6000).await;
    let cookie = sign_in(&p, "maya").await;
    let origin = format!("http://{}", p.running.admin);
    let headers = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("origin", origin.as_str()),
        ("cookie", cookie.as_str()),
    ];
    let get = async |path: &str| {
        let got = send(p.running.admin, "GET", path, &headers[2..], b"").await;
        String::from_utf8(got.body.to_vec()).unwrap()
    };
    let hidden = |page: &str, name: &str| {
        let at = page.split_once(&format!("name=\"{name}\" value=\"")).expect("a form").1;
        at.split_once('"').unwrap().0.to_owned()
    };
    let shown = get(&format!("/holds/{hold}")).await;
    assert!(shown.contains("Approve it, and let calls like it pass by themselves"), "{shown}");
    assert!(shown.contains("name=\"max /amountMinor\"") && !shown.contains("name=\"max /orderId\""), "{shown}");
    let (csrf, digest) = (hidden(&shown, "csrf"), hidden(&shown, "digest"));
    let form = format!(
        "csrf={csrf}&digest={digest}&any+%2ForderId=on&max+%2FamountMinor=9000&minutes=30&uses=2&justification="
    );
    let path = format!("/holds/{hold}/grant");
    let forged = form.replace(&csrf, "another");
    assert_eq!(send(p.running.admin, "POST", &path, &headers, forged.as_bytes()).await.status, 403);
    let wide = form.replace("minutes=30", "minutes=90");
    let got = send(p.running.admin, "POST", &path, &headers, wide.as_bytes()).await;
    assert!(got.status == 422 && String::from_utf8_lossy(&got.body).contains("live for 1h at most"), "{got:?}");
    assert_eq!(send(p.running.admin, "POST", &path, &headers, form.as_bytes()).await.status, 303);
    p.until_state(&hold.replace("hold_", "call_"), State::Succeeded).await;
    let used = p.refund("o_2", 9000, &[]).await;
    assert_eq!(used.status, 201, "{used:?}");
    let grants = page(&p, "maya", "/grants").await;
    assert!(grants.contains("used 1 of 2") && grants.contains("a number from 0 to 9000"), "{grants}");
    assert!(grants.contains("Live (1)") && grants.contains("only &#34;EUR&#34;"), "{grants}");
    let id = grants.split_once("/grants/").unwrap().1.split_once('/').unwrap().0.to_owned();
    let form = format!("csrf={csrf}");
    assert_eq!(
        send(p.running.admin, "POST", &format!("/grants/{id}/revoke"), &headers, form.as_bytes()).await.status,
        303
    );
    assert_eq!(p.refund("o_3", 9000, &[]).await.code(), "held");
    assert!(page(&p, "maya", "/grants").await.contains("revoked by maya"));
    let metrics = send(p.running.admin, "GET", "/metrics", &[], b"").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(metrics.contains("holdpoint_grant_uses_total{op=\"crm.refund\"} 1"), "{metrics}");
    assert!(!metrics.contains("holdpoint_grants{op=\"crm.refund\"}"), "no live one");
}

/// A message of the agent for the MCP server, with words of its own beside the arguments.
async fn delete(p: &Proxy, ticket: &str, meta: Value) -> Value {
    let params = json!({"name": "delete_ticket", "arguments": {"ticketId": ticket, "hard": true}, "_meta": meta});
    let ask = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params});
    let got = p.agent("POST", "/tickets/mcp", &[("accept", "application/json, text/event-stream")], Some(&ask)).await;
    assert_eq!(got.status, 200, "{got:?}");
    got.json()
}

#[tokio::test]
async fn what_stands_beside_the_arguments_of_a_message_is_seen_by_people_each_time() {
    let reason = "@reason(\"Hard deletes cannot be undone.\")";
    let policies = POLICIES.replace(reason, &format!("{reason} @grant(\"max=1h,uses=5\")"));
    let p = setup().policies(&policies).start().await;
    let done = json!({"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": "done"}]}});
    p.upstream.script(move |_| answer(200, &done));
    let tickets = json!({"pins": [{"path": "/ticketId", "any": true}]});
    let hold = async || {
        let waiting = p.reviewer("maya", "GET", "/v1/holds?state=held", None).await.json();
        waiting["items"][0]["id"].as_str().expect("a hold").to_owned()
    };
    delete(&p, "t_1", json!({"tenant": "b"})).await;
    let got = give(&p, "maya", &hold().await, &tickets).await;
    assert_eq!((got.status, got.code().as_str()), (422, "grant_not_allowed"), "{got:?}");
    delete(&p, "t_2", json!({"progressToken": 1})).await;
    let got = give(&p, "maya", &hold().await, &tickets).await;
    assert_eq!(got.status, 200, "{got:?}");
    let passed =
        delete(&p, "t_3", json!({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})).await;
    assert_eq!(passed["result"]["isError"], Value::Null, "{passed}");
    let held = delete(&p, "t_4", json!({"tenant": "b"})).await;
    assert_eq!(held["result"]["isError"], true, "{held}");
}
