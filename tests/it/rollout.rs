//! From observing to enforcing: a set that only observes, policies in shadow, the stages of workflows, and how a new
//! version comes into force.

use holdpoint::call::{Beside, Judgement};
use holdpoint::store::State;
use serde_json::json;

use crate::binary::Site;
use crate::harness::{OTHER_KEY, PEOPLE, Proxy, Setup, until};

const POLICIES: &str = "policies/agents.cedar";

fn would(record: &holdpoint::store::CallRecord) -> Vec<(Beside, Judgement, String)> {
    record.would.iter().map(|w| (w.by, w.judgement, w.policies.join(","))).collect()
}

fn call(got: &crate::harness::Got) -> String {
    got.header("holdpoint-call").to_owned()
}

#[tokio::test]
async fn a_set_that_observes_stops_nothing_and_records_what_it_would_have_said() {
    let p =
        Setup::new().config("policies: { dir: policies }", "policies: { dir: policies, mode: observe }").start().await;
    let got = p.refund("o_1", 8800, &[]).await;
    assert_eq!((got.status, got.decision()), (200, "allowed"));
    let record = p.record(&call(&got)).await;
    assert_eq!(would(&record), [(Beside::Observed, Judgement::Medium, "refund-review".to_owned())]);
    let limit = json!({"creditLimitMinor": 5});
    let got = p.agent("PATCH", "/crm/customers/c_1", &[], Some(&limit)).await;
    assert_eq!(got.status, 200);
    assert_eq!(would(&p.record(&call(&got)).await), [(Beside::Observed, Judgement::Deny, "credit-never".to_owned())]);
    // Whom no policy permits anything sees the tool, too.
    assert_eq!(p.agent_as(OTHER_KEY, "GET", "/crm/customers/c_1", &[], None).await.status, 200);
    let small = p.refund("o_2", 100, &[]).await;
    assert_eq!(would(&p.record(&call(&small)).await), []);

    // Everything but policy stays.
    assert_eq!(p.agent("GET", "/crm/nowhere", &[], None).await.code(), "unknown_tool");
    assert_eq!(
        p.agent("PATCH", "/crm/customers/c_1", &[], Some(&json!({"emial": "x"}))).await.code(),
        "invalid_arguments"
    );

    let metrics = p.running.metrics().text().unwrap();
    for line in [
        "holdpoint_shadow_decisions_total{change=\"tightens\",policy=\"refund-review\"} 1",
        "holdpoint_shadow_decisions_total{change=\"tightens\",policy=\"none\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert_eq!(p.reviewer("omar", "GET", "/v1/me", None).await.json()["mode"], "observe");
    let shown = p.reviewer("omar", "GET", &format!("/v1/calls/{}", record.id), None).await.json();
    assert_eq!(shown["would"], json!([{"by": "observed", "judgement": "medium", "policies": ["refund-review"]}]));
    assert_eq!(shown["facts"]["source_ip"], "127.0.0.1");
}

#[tokio::test]
async fn a_policy_in_shadow_is_asked_and_not_obeyed() {
    let shadow = "@id(\"refund-smaller\") @mode(\"shadow\") @reason(\"Refunds above 30.00.\") @approvers(\"finance\")\n\
                  forbid (principal, action == Holdpoint::Action::\"crm.refund\", resource)\n\
                  when { context.input.amountMinor > 3000 } unless { context.approval.granted };\n";
    let p = Setup::new().more_policies(shadow).start().await;
    let got = p.refund("o_1", 4000, &[]).await;
    assert_eq!((got.status, got.decision()), (200, "allowed"));
    let told = would(&p.record(&call(&got)).await);
    assert_eq!(told, [(Beside::Shadow, Judgement::Medium, "refund-smaller".to_owned())]);
    let alike = p.refund("o_2", 1000, &[]).await;
    assert_eq!(would(&p.record(&call(&alike)).await), []);
    // Held anyway, by one more policy then.
    let held = p.refund("o_3", 6000, &[]).await;
    let record = p.record(&call(&held)).await;
    assert_eq!(record.terms.as_ref().unwrap().needs.requirements.len(), 1, "what is in shadow asks nobody");
    assert_eq!(would(&record), [(Beside::Shadow, Judgement::Medium, "refund-review,refund-smaller".to_owned())]);
    let metrics = p.running.metrics().text().unwrap();
    let line = "holdpoint_shadow_decisions_total{change=\"tightens\",policy=\"refund-smaller\"} 1";
    assert!(metrics.contains(line), "{metrics}");
}

async fn staged(stage: &str) -> Proxy {
    let line = "others:  { owner: support-leads, stage: execute }";
    Setup::new().config(line, &line.replace("execute", stage)).start().await
}

#[tokio::test]
async fn in_stage_verify_a_person_looks_at_each_write() {
    let p = staged("verify").await;
    assert_eq!(p.agent("GET", "/crm/customers/c_1", &[], None).await.status, 200);
    let got = p.refund("o_1", 100, &[]).await;
    assert_eq!(got.code(), "held");
    let record = p.record(&call(&got)).await;
    assert_eq!(record.terms.as_ref().unwrap().why[0].policy, "stage-verify");
    assert_eq!(record.context.stage, "verify");
    let hold = got.json()["hold"].as_str().unwrap().to_owned();
    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    p.until_state(&call(&got), State::Succeeded).await;
    assert_eq!(p.upstream.count(), 2);
}

#[tokio::test]
async fn in_stage_assist_a_write_is_judged_and_never_sent() {
    let p = staged("assist").await;
    assert_eq!(p.agent("GET", "/crm/customers/c_1", &[], None).await.status, 200);
    let got = p.refund("o_1", 100, &[]).await;
    assert_eq!(got.code(), "held");
    let hold = got.json()["hold"].as_str().unwrap().to_owned();
    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    let record = p.until_state(&call(&got), State::Revoked).await;
    assert!(record.note.unwrap().text.contains("stage `assist`"));
    assert_eq!(p.upstream.count(), 1, "only the read");
    let again = p.refund("o_1", 100, &[]).await;
    assert_eq!((again.status, again.code().as_str(), &again.json()["executed"]), (403, "revoked", &json!("no")));
}

#[tokio::test]
async fn a_proposal_is_not_sent_when_its_workflow_moves_on_meanwhile() {
    let p = staged("assist").await;
    let got = p.refund("o_1", 100, &[]).await;
    p.rewrite("holdpoint.yaml", |t| t.replace("stage: assist", "stage: execute"));
    p.running.reload().await.unwrap();
    let hold = got.json()["hold"].as_str().unwrap().to_owned();
    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    p.until_state(&call(&got), State::Revoked).await;
    assert_eq!(p.upstream.count(), 0);
}

#[tokio::test]
async fn whoever_policy_lets_puts_the_files_in_force_over_the_api() {
    let people = format!(
        "{PEOPLE}\n@id(\"activate\") permit (principal in Holdpoint::Team::\"platform\", \
         action in [Holdpoint::Action::\"policy.activate\", Holdpoint::Action::\"policy.view\"], resource);"
    );
    let p = Setup::new().people(&people).start().await;
    let before = p.reviewer("omar", "GET", "/v1/policies", None).await.json();
    assert_eq!((&before["mode"], before["items"].as_array().unwrap().len()), (&json!("enforce"), 9));
    p.rewrite(POLICIES, |t| t.replace("> 5000 }", "> 3000 }"));
    assert_eq!(p.reviewer("maya", "POST", "/v1/policies/activate", None).await.status, 403);
    assert_eq!(p.refund("o_1", 4000, &[]).await.decision(), "allowed");
    let after = p.reviewer("omar", "POST", "/v1/policies/activate", None).await;
    assert_eq!(after.status, 200);
    assert_ne!(after.json()["policy_digest"], before["policy_digest"]);
    let me = p.reviewer("maya", "GET", "/v1/me", None).await.json();
    assert_eq!((&me["policy_digest"], &me["since"]), (&after.json()["policy_digest"], &after.json()["since"]));
    assert_eq!(p.refund("o_2", 4000, &[]).await.decision(), "held");
    let line = p.until_line(|kind, _| kind == "config.reloaded").await;
    assert_eq!(line["note"]["more"]["by"], "omar");

    p.rewrite(POLICIES, |t| t.replace("> 3000 }", "> }"));
    let rejected = p.reviewer("omar", "POST", "/v1/policies/activate", None).await;
    assert_eq!((rejected.status, rejected.code().as_str()), (422, "policy_rejected"));
    assert!(rejected.json()["detail"].as_str().unwrap().contains("agents.cedar:6"), "{:?}", rejected.json());
    assert_eq!(p.refund("o_3", 4000, &[]).await.decision(), "held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_files_come_into_force_by_themselves() {
    let mut site = Site::new(Setup::new()).await;
    site.envs.push(("HOLDPOINT_BEAT_MS", "20"));
    let running = site.start().await;
    assert_eq!(running.refund("o_1", 4000, &[]).await.decision(), "allowed");
    let path = site.dir.path().join(POLICIES);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("> 5000", "> 3000")).unwrap();
    until(|| running.logged().contains("a new version is in force").then_some(())).await;
    assert_eq!(running.refund("o_2", 4000, &[]).await.decision(), "held");
    std::fs::write(&path, text.replace("> 5000", "> 3000 +")).unwrap();
    until(|| running.logged().contains("the old one stays in force").then_some(())).await;
    assert_eq!(running.refund("o_3", 4000, &[]).await.decision(), "held");
    assert_eq!(running.logged().matches("the old one stays in force").count(), 1, "the same mistake is told once");
    assert_eq!(running.stop().await, Some(0));
}
