//! REST calls from an agent's point of view.

use serde_json::json;

use crate::harness::{CRM_TOKEN, OTHER_KEY, Setup, answer};

#[tokio::test]
async fn an_allowed_read_passes_with_the_proxys_own_credential() {
    let p = Setup::new().start().await;
    let got = p.agent("GET", "/crm/customers/c%201", &[("x-forwarded-user", "root"), ("cookie", "a=b")], None).await;
    assert_eq!((got.status, got.decision()), (200, "allowed"));
    let seen = p.upstream.seen().remove(0);
    assert_eq!(seen.target, "/v2/customers/c%201");
    assert_eq!(seen.headers["authorization"], format!("Bearer {CRM_TOKEN}"));
    assert_eq!(seen.headers["host"], p.upstream.at.to_string());
    assert!(seen.headers.get("x-forwarded-user").is_none() && seen.headers.get("cookie").is_none());
    assert!(!got.header("ratelimit").is_empty());
}

#[tokio::test]
async fn json_bytes_go_out_as_they_were_checked() {
    let p = Setup::new().start().await;
    let body = b"{ \"email\" :\"a@b.c\"  }";
    let key = format!("Bearer {}", crate::harness::SUPPORT_KEY);
    let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
    let got = crate::harness::send(p.agents(), "PATCH", "/crm/customers/c_1", &headers, body).await;
    assert_eq!(got.status, 200, "{:?}", got.json());
    assert_eq!(p.upstream.seen()[0].body.as_ref(), body);
}

#[tokio::test]
async fn a_retry_is_replayed_and_the_upstream_sees_one_request() {
    let p = Setup::new().start().await;
    p.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    let first = p.refund("o_1", 1200, &[("idempotency-key", "k1")]).await;
    let again = p.refund("o_1", 1200, &[("idempotency-key", "\"k1\"")]).await;
    assert_eq!((first.status, first.decision()), (201, "allowed"));
    assert_eq!((again.status, again.decision()), (201, "replayed"));
    assert_eq!(first.body, again.body);
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(first.header("holdpoint-call"), again.header("holdpoint-call"));
    assert_eq!(p.upstream.count(), 1);
    let reused = p.refund("o_1", 1300, &[("idempotency-key", "k1")]).await;
    assert_eq!((reused.status, reused.code().as_str()), (422, "key_reused"));
    let derived = p.refund("o_2", 1200, &[]).await;
    let derived_again = p.refund("o_2", 1200, &[]).await;
    assert_eq!((derived.decision(), derived_again.decision()), ("allowed", "replayed"));
    assert_eq!(p.upstream.count(), 2);
}

#[tokio::test]
async fn what_an_agent_may_not_see_answers_like_what_does_not_exist() {
    let p = Setup::new().start().await;
    let hidden = p.agent_as(OTHER_KEY, "GET", "/crm/customers/c_1", &[], None).await;
    let missing = p.agent("GET", "/crm/nothing", &[], None).await;
    assert_eq!((hidden.status, hidden.code()), (missing.status, missing.code()));
    assert_eq!(hidden.code(), "unknown_tool");
    assert_eq!(p.upstream.bytes(), 0);
}

#[tokio::test]
async fn what_no_approval_can_change_is_forbidden_with_its_reason() {
    let p = Setup::new().start().await;
    let got = p.agent("PATCH", "/crm/customers/c_1", &[], Some(&json!({"creditLimitMinor": 5}))).await;
    assert_eq!((got.status, got.code().as_str()), (403, "forbidden"));
    assert_eq!(got.json()["policies"][0]["id"], "credit-never");
    assert_eq!(got.json()["executed"], "no");
    assert_eq!(p.upstream.bytes(), 0);
}

#[tokio::test]
async fn a_retry_gets_its_answer_even_if_budget_and_policy_would_refuse_the_call_now() {
    let budget = "  - { per: org, money: 20.00 EUR, every: 30d }\n";
    let p = Setup::new().config("  - { per: org, money: 10000.00 EUR, every: 30d }\n", budget).start().await;
    let first = p.refund("o_1", 2000, &[]).await;
    assert_eq!(first.decision(), "allowed");
    assert_eq!(p.refund("o_2", 1, &[]).await.code(), "budget_exhausted");
    let cap = "@id(\"cap\") @reason(\"Not so much.\") forbid (principal, action == Holdpoint::Action::\"crm.refund\", resource)\n\
               when { context.input.amountMinor >= 2000 };\n";
    p.rewrite("policies/agents.cedar", |t| format!("{t}{cap}"));
    p.running.reload().await.unwrap();
    assert_eq!(p.refund("o_3", 2000, &[]).await.code(), "forbidden");
    let again = p.refund("o_1", 2000, &[]).await;
    assert_eq!((again.status, again.decision(), &again.body), (200, "replayed", &first.body));
    // Who may not see the operation any more does not get the stored answer either.
    let stop =
        "@id(\"stop\") @reason(\"No.\") forbid (principal, action == Holdpoint::Action::\"crm.refund\", resource);\n";
    p.rewrite("policies/agents.cedar", |t| format!("{t}{stop}"));
    p.running.reload().await.unwrap();
    assert_eq!(p.refund("o_1", 2000, &[]).await.code(), "unknown_tool");
    let result = format!("/-/calls/{}/result", first.header("holdpoint-call"));
    assert_eq!(p.agent("GET", &result, &[], None).await.status, 404);
    assert_eq!(p.upstream.count(), 1);
}
