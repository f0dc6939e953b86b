//! Trust: surprises take an agent's autonomy away where policy says so, and people see why.

use serde_json::{Value, json};

use crate::harness::{PEOPLE, Proxy, Setup, answer, page};

const SPENT: &str = r#"
@id("trust-spent") @reason("Trust is spent.") @approvers("workflow-owner")
forbid (principal, action in Holdpoint::Action::"effect:write", resource)
when { context.trust.score < 40 } unless { context.approval.granted };
"#;

async fn start() -> Proxy {
    let operate = "Holdpoint::Action::\"call.reconcile\"";
    let people = PEOPLE.replace(operate, &format!("{operate}, Holdpoint::Action::\"policy.view\""));
    let p = Setup::new().people(&people).more_policies(SPENT).start().await;
    p.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    p
}

async fn reject(p: &Proxy, order: &str, reason: &str) -> String {
    let held = p.refund(order, 8800, &[]).await.json();
    let hold = held["hold"].as_str().unwrap().to_owned();
    let digest = p.reviewer("maya", "GET", &format!("/v1/holds/{hold}"), None).await.json()["digest"].clone();
    let no = json!({"digest": digest, "reason_code": reason});
    let got = p.reviewer("maya", "POST", &format!("/v1/holds/{hold}/reject"), Some(&no)).await;
    assert_eq!(got.status, 200, "{got:?}");
    hold.replace("hold_", "call_")
}

async fn trust(p: &Proxy, query: &str) -> Vec<Value> {
    let got = p.reviewer("omar", "GET", &format!("/v1/trust{query}"), None).await;
    assert_eq!(got.status, 200, "{got:?}");
    got.json()["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn rejections_as_wrong_take_the_autonomy_of_that_operation_alone() {
    let p = start().await;
    assert_eq!(trust(&p, "").await, Vec::<Value>::new());
    assert_eq!(p.refund("o_1", 100, &[]).await.status, 201);
    reject(&p, "o_2", "not_needed").await;
    reject(&p, "o_3", "wrong_amount").await;
    assert_eq!(p.refund("o_4", 100, &[]).await.status, 201, "42 is enough");
    let last = reject(&p, "o_5", "suspected_injection").await;
    let got = p.refund("o_6", 100, &[]).await;
    assert_eq!((got.status, got.code().as_str()), (409, "held"), "34 is not: {got:?}");
    assert!(got.json()["detail"].as_str().unwrap().contains("Trust is spent."), "{:?}", got.json());
    p.upstream.script(|_| answer(200, &json!({"id": "c_1"})));
    let other = p.agent("PATCH", "/crm/customers/c_1", &[], Some(&json!({"email": "a@x.example"}))).await;
    assert_eq!(other.status, 200, "another operation has trust of its own: {other:?}");

    let all = trust(&p, "?op=crm.refund").await;
    assert_eq!((all.len(), &all[0]["score"], &all[0]["surprises_7d"]), (1, &json!(34), &json!(2)));
    let first = &all[0]["surprises"][0];
    assert_eq!((&first["kind"], &first["points"], &first["call"]), (&json!("rejected"), &json!(8), &json!(last)));
    assert_eq!(trust(&p, "?agent=other-bot").await, Vec::<Value>::new());
    assert_eq!(p.reviewer("maya", "GET", "/v1/trust", None).await.code(), "forbidden");
    assert_eq!(p.reviewer("omar", "GET", "/v1/trust?agnt=x", None).await.status, 400);

    let hold = got.json()["hold"].as_str().unwrap().to_owned();
    let shown = p.reviewer("maya", "GET", &format!("/v1/holds/{hold}"), None).await.json();
    let doubts = shown["uncertainty"].to_string();
    assert!(doubts.contains("surprised people 2 times in 7 days; trust 34 of 100"), "{doubts}");
    let agents = page(&p, "omar", "/agents").await;
    assert!(agents.contains("<strong>34</strong>") && agents.contains(&format!("/calls/{last}")), "{agents}");
}

#[tokio::test]
async fn what_nobody_can_release_is_a_surprise_once_in_a_while() {
    let p = start().await;
    for _ in 0..3 {
        let got = p.agent("PATCH", "/crm/customers/c_1", &[], Some(&json!({"creditLimitMinor": 5}))).await;
        assert_eq!(got.code(), "forbidden");
    }
    let all = trust(&p, "").await;
    assert_eq!((&all[0]["score"], &all[0]["surprises"][0]["kind"]), (&json!(44), &json!("near_miss")), "{all:?}");
    let wanted = [
        r#"holdpoint_trust_score{agent_group="support",workflow="others"} 44"#,
        r#"holdpoint_surprises_total{kind="near_miss",workflow="others"} 1"#,
    ];
    p.until_metrics(&wanted).await;
}
