//! Alike holds are decided together, once the odd ones among them were opened.

use holdpoint::store::State;
use serde_json::{Value, json};

use crate::harness::{Got, Proxy, Setup, answer};

async fn start() -> (Proxy, Vec<String>) {
    let p = Setup::new().start().await;
    p.upstream.script(|_| answer(201, &json!({})));
    let mut holds = Vec::new();
    for (order, minor) in [("o_1", 6000), ("o_2", 9000), ("o_3", 6000)] {
        let got = p.refund(order, minor, &[]).await;
        holds.push(got.json()["hold"].as_str().expect("held").to_owned());
    }
    (p, holds)
}

async fn cluster(p: &Proxy, hold: &str) -> String {
    // Listed, not opened.
    let record = p.record(&hold.replace("hold_", "call_")).await;
    assert_eq!(record.state, State::Held);
    let page = crate::harness::page(p, "maya", "/").await;
    let at = page.split_once("/clusters/").expect("a group on the inbox").1;
    at.split_once('"').unwrap().0.to_owned()
}

async fn decide(p: &Proxy, who: &str, action: &str, cluster: &str, holds: &[String]) -> Got {
    let mut items = Vec::new();
    for hold in holds {
        let record = p.record(&hold.replace("hold_", "call_")).await;
        items.push(json!({"id": hold, "digest": record.digest}));
    }
    let body = json!({"action": action, "cluster": cluster, "items": items, "reason_code": "duplicate"});
    p.reviewer(who, "POST", "/v1/holds/batch", Some(&body)).await
}

#[tokio::test]
async fn a_group_is_approved_once_its_odd_ones_were_opened() {
    let (p, holds) = start().await;
    let id = cluster(&p, &holds[0]).await;
    let group = p.reviewer("maya", "GET", &format!("/v1/clusters/{id}"), None).await.json();
    let items = group["items"].as_array().unwrap();
    assert_eq!((items.len(), &items[0]["id"]), (3, &json!(holds[1])), "the largest stands first");
    assert_eq!((&items[0]["odd"][0], &items[0]["opened"]), (&json!("the largest amount"), &json!(false)));
    let got = decide(&p, "maya", "approve", &id, &holds).await;
    assert_eq!((got.status, got.code().as_str(), &got.json()["open"]), (409, "not_opened", &json!([holds[1]])));
    assert_eq!(p.upstream.bytes(), 0);
    p.reviewer("maya", "GET", &format!("/v1/holds/{}", holds[1]), None).await;
    let page = crate::harness::page(&p, "maya", &format!("/clusters/{id}")).await;
    assert!(page.contains("Approve all 3") && page.contains("sum 210.00 EUR"), "{page}");
    let got = decide(&p, "maya", "approve", &id, &holds).await;
    let done = got.json();
    let approved = |i: &Value| i["state"] == "approved";
    assert!(got.status == 200 && done["items"].as_array().unwrap().iter().all(approved), "{done}");
    for hold in &holds {
        let record = p.until_state(&hold.replace("hold_", "call_"), State::Succeeded).await;
        assert_eq!(record.approvals[0].person, "maya");
    }
    assert_eq!(p.upstream.count(), 3);
}

#[tokio::test]
async fn what_is_not_of_the_group_or_not_as_it_was_seen_stops_all_of_it() {
    let (p, holds) = start().await;
    let id = cluster(&p, &holds[0]).await;
    let high = p.refund("o_9", 60_000, &[]).await.json()["hold"].as_str().unwrap().to_owned();
    p.reviewer("maya", "GET", &format!("/v1/holds/{}", holds[1]), None).await;
    let mut with_high = holds.clone();
    with_high.push(high);
    let got = decide(&p, "maya", "approve", &id, &with_high).await;
    assert_eq!((got.status, got.code().as_str()), (409, "not_in_cluster"), "high tier is decided one by one");
    let twice = [holds[0].clone(), holds[0].clone()];
    assert_eq!(decide(&p, "maya", "approve", &id, &twice).await.code(), "invalid_arguments");
    let other = json!({"action": "approve", "cluster": id, "items": [
        {"id": holds[0], "digest": format!("sha256:{}", "0".repeat(64))}]});
    assert_eq!(p.reviewer("maya", "POST", "/v1/holds/batch", Some(&other)).await.code(), "digest_changed");
    assert_eq!(decide(&p, "sam", "approve", &id, &holds).await.status, 404);
    let got = decide(&p, "ana", "reject", &id, &holds[..1]).await;
    assert_eq!((got.status, &got.json()["items"][0]["state"]), (200, &json!("rejected")));
    for hold in &holds[1..] {
        assert_eq!(p.state(&hold.replace("hold_", "call_")).await, State::Held);
    }
    // Each is a decision of its own: who runs the agent approves none of them.
    p.reviewer("ana", "GET", &format!("/v1/holds/{}", holds[1]), None).await;
    let got = decide(&p, "ana", "approve", &id, &holds[1..]).await;
    assert_eq!((got.status, &got.json()["items"][0]["code"]), (200, &json!("self_review")));
    assert_eq!(p.upstream.bytes(), 0);
}
