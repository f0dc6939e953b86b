//! What can be looked at beside holds: the journal, runs, oneself.

use super::*;

#[tokio::test]
async fn the_journal_is_for_those_whom_policy_lets_read_it() {
    let w = World::new();
    let hold = w.hold(8800).await;
    w.post("maya", &format!("/v1/holds/{}/approve", hold.id.hold()), json!({"digest": hold.digest})).await;
    assert_eq!(w.get("maya", "/v1/audit").await.code(), (403, "forbidden".into()));
    let log = w.get("pat", &format!("/v1/audit?call={}", hold.id)).await.json();
    let kinds: Vec<&str> = log["items"].as_array().unwrap().iter().map(|l| l["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["approved", "parked"]);
    assert_eq!((&log["items"][0]["who"], &log["items"][1]["op"]), (&json!("maya"), &json!("crm.refund")));
    assert!(!log.to_string().contains("c_204_secret"));
    let all = w.get("pat", "/v1/audit?limit=2").await.json();
    let next = all["next"].as_str().unwrap();
    let more = w.get("pat", &format!("/v1/audit?limit=200&cursor={next}")).await.json();
    let seq = |l: &Value| l["seq"].as_u64().unwrap();
    let (first, last) = (&all["items"], &more["items"]);
    assert_eq!(seq(&first[1]), seq(&last[0]) + 1, "no record is passed over");
    assert_eq!((seq(last.as_array().unwrap().last().unwrap()), &more["next"]), (1, &Value::Null));
    let mine = w.get("pat", "/v1/audit?who=maya&kind=appr*").await.json();
    assert_eq!(mine["items"].as_array().unwrap().len(), 1);
    for wrong in ["limit=0", "call=x", "cursor=x"] {
        assert_eq!(w.get("pat", &format!("/v1/audit?{wrong}")).await.status.as_u16(), 422, "{wrong}");
    }
}

#[tokio::test]
async fn a_run_is_shown_with_its_steps_evidence_and_decisions() {
    let w = World::new();
    let (hold, unknown) = (w.hold(8800).await, w.unknown().await);
    w.post("maya", &format!("/v1/holds/{}/approve", hold.id.hold()), json!({"digest": hold.digest})).await;
    let at = "/v1/runs/run%3Cscript%3E1?agent=support-bot";
    let run = w.get("maya", at).await.json();
    assert_eq!((run["id"].as_str(), run["items"].as_array().unwrap().len()), (Some("run<script>1"), 1), "{run}");
    let run = &run["items"][0];
    let kinds = |kind: &str| run["nodes"].as_array().unwrap().iter().filter(|n| n["kind"] == kind).count();
    assert_eq!((kinds("step"), kinds("evidence")), (1, 2), "{run}");
    let call = run["nodes"].as_array().unwrap().iter().find(|n| n["id"] == hold.id.to_string()).unwrap();
    assert_eq!((&call["approved_by"], &call["state"]), (&json!(["maya"]), &json!("approved")));
    let sees_both = w.get("pat", at).await.json();
    let next = json!({"from": hold.id, "to": unknown.id, "kind": "next"});
    assert!(sees_both["items"][0]["edges"].as_array().unwrap().contains(&next), "{sees_both}");
    assert_eq!(w.get("nobody", at).await.code(), (404, "not_found".into()));
    assert_eq!(w.get("maya", "/v1/runs/other").await.code(), (404, "not_found".into()));
}

#[tokio::test]
async fn a_receipt_names_the_records_of_a_call_that_has_ended() {
    let w = World::new();
    let hold = w.hold(8800).await;
    let at = format!("/v1/receipts/{}", hold.id.receipt());
    assert_eq!(w.get("maya", &at).await.code(), (404, "not_found".into()), "it has not ended");
    let no = json!({"digest": hold.digest, "reason_code": "unsafe"});
    w.post("maya", &format!("/v1/holds/{}/reject", hold.id.hold()), no).await;
    let shown = w.get("maya", &format!("/v1/holds/{}", hold.id.hold())).await.json();
    assert_eq!(shown["receipt"], hold.id.receipt().to_string());
    let receipt = w.get("maya", &at).await.json();
    let kinds: Vec<&str> = receipt["records"].as_array().unwrap().iter().map(|r| r["kind"].as_str().unwrap()).collect();
    assert_eq!((kinds, &receipt["state"]), (vec!["parked", "rejected"], &json!("rejected")), "{receipt}");
    assert_eq!(w.get("nobody", &at).await.code(), (404, "not_found".into()));
    assert_eq!(w.get("maya", "/v1/receipts/rcpt_x").await.code(), (404, "not_found".into()));
}

#[tokio::test]
async fn breakers_and_budgets_are_shown_and_a_breaker_is_closed_by_whom_policy_lets() {
    let w = World::new();
    let all = w.get("pat", "/v1/breakers").await.json();
    let crm = json!({"tool": "crm", "state": "closed", "failures": 0, "retry_after_s": null});
    assert_eq!(all["items"][0], crm, "{all}");
    assert_eq!(w.get("maya", "/v1/breakers").await.code(), (403, "forbidden".into()));
    let said = json!({"reason": "the tool is up again"});
    assert_eq!(w.post("maya", "/v1/breakers/crm/reset", said.clone()).await.code(), (403, "forbidden".into()));
    assert_eq!(w.post("pat", "/v1/breakers/none/reset", said.clone()).await.code(), (404, "not_found".into()));
    assert_eq!(w.post("pat", "/v1/breakers/crm/reset", json!({"reason": " "})).await.status.as_u16(), 422);
    assert_eq!(w.post("pat", "/v1/breakers/crm/reset", said).await.json(), crm);
    let log = w.get("pat", "/v1/audit?kind=breaker.reset").await.json();
    assert_eq!(log["items"][0]["who"], "pat", "{log}");
    assert_eq!(w.get("pat", "/v1/budgets").await.json()["items"], json!([]));
    assert_eq!(w.get("maya", "/v1/budgets").await.code(), (403, "forbidden".into()));
}

#[tokio::test]
async fn more_of_a_hold_is_read_when_it_is_asked_for() {
    let w = World::new();
    let (first, second) = (w.hold(8800).await, w.hold(8900).await);
    let at = |id: CallId, include: &str| format!("/v1/holds/{}{include}", id.hold());
    let plain = w.get("maya", &at(second.id, "")).await;
    let all = w.get("maya", &at(second.id, "?include=raw,trace,similar")).await;
    assert_eq!((plain.headers.get("etag"), all.status), (all.headers.get("etag"), StatusCode::OK), "{}", all.text);
    let (plain, mut all) = (plain.json(), all.json());
    assert!(!all.to_string().contains("c_204_secret"), "{all}");
    let [raw, trace, similar] =
        ["raw", "trace", "similar"].map(|name| all.as_object_mut().unwrap().remove(name).unwrap());
    assert_eq!(all, plain, "the rest is as ever");
    assert_eq!((&raw["curl"], &raw["body_withheld"]), (&Value::Null, &json!("it carries redacted arguments")));
    assert_eq!((&trace["trace_id"], &trace["run"]), (&Value::Null, &json!("run<script>1")));
    assert_eq!(trace["path"].as_array().unwrap().len(), 1);
    assert_eq!(trace["path"][0]["hold"], first.id.hold().to_string());
    assert_eq!((&similar["cluster"], &similar["d30"]), (&plain["alike"]["cluster"], &plain["alike"]["d30"]));
    let held = (&similar["held"][0]["hold"], &similar["held"][0]["amount"]["minor"]);
    assert_eq!(held, (&json!(first.id.hold()), &json!(8800)), "{similar}");
    let one = w.get("maya", &at(first.id, "?include=raw,trace")).await.json();
    assert!(one.get("raw").is_some() && one.get("trace").is_some() && one.get("similar").is_none());
    assert_eq!(one["trace"]["path"], json!([]), "nothing came before it");
    for wrong in ["all", "", "raw,", "raw,Trace"] {
        let refused = w.get("maya", &at(first.id, &format!("?include={wrong}"))).await;
        assert_eq!(refused.code(), (422, "invalid_arguments".into()), "{wrong}");
        assert!(refused.text.contains("raw, trace, similar"), "{}", refused.text);
    }
    assert_eq!(w.get("nobody", &at(first.id, "?include=raw")).await.code(), (404, "not_found".into()));
}

#[tokio::test]
async fn a_request_without_secrets_is_read_as_a_shell_takes_it() {
    let w = World::new();
    let arguments = json!({"ticketId": "t_1", "hard": true});
    let hold = w.hold_of("tickets.delete_ticket", arguments.clone(), support_bot(), &[]).await;
    let raw = w.get("dana", &format!("/v1/calls/{}?include=raw", hold.id)).await;
    let raw = if raw.status == StatusCode::OK {
        raw
    } else {
        w.get("pat", &format!("/v1/calls/{}?include=raw", hold.id)).await
    };
    let words = shlex::split(raw.json()["raw"]["curl"].as_str().unwrap()).unwrap();
    assert!(words.windows(2).any(|pair| pair == ["--data-binary".to_owned(), arguments.to_string()]), "{words:?}");
    assert!(words.last().unwrap().starts_with("http://127.0.0.1:9/v2/orders/"), "{words:?}");
}

#[tokio::test]
async fn more_room_is_given_to_budgets_that_are_in_use_by_whom_policy_lets() {
    let w = World::new();
    let said = json!({"amount": 5, "reason": "a good month"});
    let at = "/v1/budgets/bud_00000000000000000000000000000000/topup";
    assert_eq!(w.post("maya", at, said.clone()).await.code(), (403, "forbidden".into()));
    assert_eq!(w.post("pat", at, said).await.code(), (404, "not_found".into()));
    for wrong in [json!({"amount": 5}), json!({"amount": "5", "reason": "x"}), json!({"amount": 5, "reason": " "})] {
        assert_eq!(w.post("pat", at, wrong.clone()).await.status.as_u16(), 422, "{wrong}");
    }
    assert!(w.get("pat", "/v1/me").await.json()["may"].as_array().unwrap().contains(&json!("budget.topup")));
}
