//! A validated policy that cannot be evaluated for a call refuses it. Cedar alone skips the policy and allows.

use cedar_policy::{Authorizer, Context, Decision, Entities, PolicySet, Request};
use serde_json::json;

use crate::harness::{Proxy, Setup};

/// The largest factor with which 100 still fits into 64 bits.
const FACTOR: &str = "92233720368547758";

/// What Cedar itself says to this forbid beside a permit for everything, at a rung of the ladder.
fn plain_cedar(forbid: &str, minor: i64, granted: bool, dual: bool) -> (Decision, usize) {
    let text = format!("permit (principal, action, resource); {forbid}");
    let policies: PolicySet = text.parse().unwrap();
    let context = json!({"input": {"amountMinor": minor}, "approval": {"granted": granted, "dual": dual}});
    let context = Context::from_json_value(context, None).unwrap();
    let uid = |s: &str| s.parse().unwrap();
    let action = uid("Holdpoint::Action::\"crm.refund\"");
    let request = Request::new(uid("A::\"a\""), action, uid("R::\"r\""), context, None).unwrap();
    let response = Authorizer::new().is_authorized(&request, &policies, &Entities::empty());
    (response.decision(), response.diagnostics().errors().count())
}

fn forbid(body: &str) -> String {
    format!(
        "@id(\"errs\") @reason(\"Too much.\") @approvers(\"support-leads\")\n\
         forbid (principal, action == Holdpoint::Action::\"crm.refund\", resource) {body};"
    )
}

async fn with(body: &str) -> Proxy {
    let base = "@id(\"base\") permit (principal, action == Holdpoint::Action::\"crm.refund\", resource);\n";
    Setup::new().policies(&format!("{base}{}", forbid(body))).start().await
}

async fn refuses(p: &Proxy, minor: i64) {
    let got = p.refund(&format!("o_{minor}"), minor, &[]).await;
    assert_eq!((got.status, got.code().as_str()), (403, "forbidden"), "{:?}", got.json());
    assert_eq!((&got.json()["executed"], &got.json()["policy_error"]), (&json!("no"), &json!("errs")));
    assert_eq!(p.upstream.bytes(), 0);
    let metrics = p.running.metrics().text().unwrap();
    assert!(metrics.contains("holdpoint_policy_errors_total{policy=\"errs\"}"), "{metrics}");
    p.until_line(|kind, event| kind == "call.refused" && event["note"]["code"] == "forbidden").await;
}

async fn passes(p: &Proxy, minor: i64) {
    let got = p.refund(&format!("o_{minor}"), minor, &[]).await;
    assert_eq!((got.status, got.decision()), (200, "allowed"), "{:?}", got.json());
}

#[tokio::test]
async fn an_overflow_at_every_rung_refuses() {
    let body = format!("when {{ context.input.amountMinor * {FACTOR} < 0 }} unless {{ context.approval.dual }}");
    let forbid = forbid(&body);
    for (granted, dual) in [(false, false), (true, false), (true, true)] {
        assert_eq!(plain_cedar(&forbid, 101, granted, dual), (Decision::Allow, 1));
    }
    let p = with(&body).await;
    refuses(&p, 101).await;
    passes(&p, 100).await;
    assert_eq!(p.upstream.count(), 1);
}

#[tokio::test]
async fn an_overflow_at_rung_zero_alone_refuses() {
    // Once granted, the part that overflows is not reached.
    let body = format!(
        "when {{ context.input.amountMinor > 100 }} \
         unless {{ context.approval.granted || context.input.amountMinor * {FACTOR} < 0 }}"
    );
    assert_eq!(plain_cedar(&forbid(&body), 101, false, false), (Decision::Allow, 1));
    assert_eq!(plain_cedar(&forbid(&body), 101, true, false), (Decision::Allow, 0));
    let p = with(&body).await;
    refuses(&p, 101).await;
    passes(&p, 100).await;
}

#[tokio::test]
async fn an_overflow_above_rung_zero_alone_refuses_and_is_not_held() {
    let body = format!(
        "when {{ context.input.amountMinor > 100 }} \
         unless {{ context.approval.granted && context.input.amountMinor * {FACTOR} > 0 }}"
    );
    assert_eq!(plain_cedar(&forbid(&body), 101, false, false), (Decision::Deny, 0));
    assert_eq!(plain_cedar(&forbid(&body), 101, true, false), (Decision::Allow, 1));
    let p = with(&body).await;
    refuses(&p, 101).await;
}

#[tokio::test]
async fn an_overflow_in_a_permit_refuses_though_another_permit_allows() {
    let base = "@id(\"base\") permit (principal, action == Holdpoint::Action::\"crm.refund\", resource);\n";
    let text = format!(
        "{base}@id(\"errs\") permit (principal, action == Holdpoint::Action::\"crm.refund\", resource)\n\
         when {{ context.input.amountMinor * {FACTOR} > 0 }};"
    );
    let p = Setup::new().policies(&text).start().await;
    refuses(&p, 101).await;
    passes(&p, 100).await;
}

const REVIEW: &str = "@id(\"review\") permit (principal, action in [Holdpoint::Action::\"hold.view\", \
                      Holdpoint::Action::\"hold.approve\"], resource);\n";

#[tokio::test]
async fn an_overflow_in_the_admin_plane_refuses_the_reviewer() {
    let forbid = format!(
        "@id(\"errs\") @reason(\"Too much.\") forbid (principal, action == Holdpoint::Action::\"hold.approve\", resource)\n\
         when {{ resource has amountMinor && resource.amountMinor * {FACTOR}00 < 0 }};"
    );
    let p = Setup::new().people(&format!("{REVIEW}{forbid}")).start().await;
    let held = p.refund("o_1", 6000, &[]).await;
    let hold = held.json()["hold"].as_str().unwrap().to_owned();
    // Cedar alone skips the forbid.
    let entities =
        json!([{"uid": {"type": "Holdpoint::Hold", "id": "h"}, "attrs": {"amountMinor": 6000}, "parents": []}]);
    let entities = Entities::from_json_value(entities, None).unwrap();
    let uid = |s: &str| s.parse().unwrap();
    let (action, hold_uid) = (uid("Holdpoint::Action::\"hold.approve\""), uid("Holdpoint::Hold::\"h\""));
    let request = Request::new(uid("U::\"maya\""), action, hold_uid, Context::empty(), None).unwrap();
    let plain = format!("permit (principal, action, resource); {forbid}").parse::<PolicySet>().unwrap();
    let response = Authorizer::new().is_authorized(&request, &plain, &entities);
    assert_eq!((response.decision(), response.diagnostics().errors().count()), (Decision::Allow, 1));

    assert_eq!(p.reviewer("maya", "GET", &format!("/v1/holds/{hold}"), None).await.status, 200);
    let got = p.approve("maya", &hold, None).await;
    assert_eq!((got.status, got.code().as_str()), (403, "forbidden"), "{:?}", got.json());
    assert_eq!(p.refund("o_1", 6000, &[]).await.code(), "held");
    assert_eq!(p.upstream.bytes(), 0);
    let metrics = p.running.metrics().text().unwrap();
    assert!(metrics.contains("holdpoint_policy_errors_total{policy=\"errs\"}"), "{metrics}");
}
