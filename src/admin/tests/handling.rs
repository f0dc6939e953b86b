//! What people do about a hold beside deciding, by API and by form.

use super::*;

fn path(record: &CallRecord, verb: &str) -> String {
    format!("/v1/holds/{}/{verb}", record.id.hold())
}

impl World {
    async fn delete(&self, user: &str, path: &str) -> Got {
        self.send(ask("DELETE", path).header("authorization", bearer(user)).body(Body::empty()).unwrap()).await
    }
}

#[tokio::test]
async fn who_claims_a_hold_is_left_alone_with_it_for_a_while() {
    let w = World::new();
    let hold = w.hold(8800).await;
    let got = w.post("maya", &path(&hold, "claim"), json!({"minutes": 5})).await;
    assert_eq!((got.status.as_u16(), got.json()["claim"]["by"].as_str()), (200, Some("maya")), "{}", got.text);
    let yes = json!({"digest": hold.digest});
    let got = w.post("noor", &path(&hold, "approve"), yes.clone()).await;
    assert_eq!(got.code(), (409, "claimed_by_other".into()));
    assert_eq!(got.json()["claimed_by"], "maya");
    assert_eq!(w.post("noor", &path(&hold, "claim"), json!({})).await.code(), (409, "claimed_by_other".into()));
    assert_eq!(w.delete("noor", &path(&hold, "claim")).await.code(), (409, "claimed_by_other".into()));
    let seen = w.get("noor", &format!("/v1/holds/{}", hold.id.hold())).await.json();
    assert!(seen["me"]["cannot"]["approve"].as_str().unwrap().starts_with("claimed_by_other: maya"), "{seen}");
    // A no is never kept waiting, and a claim that is over keeps nobody out.
    w.clock.advance(std::time::Duration::from_secs(301));
    assert_eq!(w.post("noor", &path(&hold, "approve"), yes).await.json()["state"], "approved");
    let other = w.hold(8801).await;
    assert_eq!(w.post("maya", &path(&other, "claim"), json!({})).await.status, StatusCode::OK);
    let no = json!({"digest": other.digest, "reason_code": "unsafe"});
    assert_eq!(w.post("noor", &path(&other, "reject"), no).await.json()["state"], "rejected");
}

#[tokio::test]
async fn a_claim_is_taken_over_and_let_go() {
    let w = World::new();
    let hold = w.hold(8800).await;
    assert_eq!(w.post("maya", &path(&hold, "claim"), json!({})).await.status, StatusCode::OK);
    let over = w.post("noor", &path(&hold, "claim"), json!({"take_over": true})).await;
    assert_eq!(over.json()["claim"]["by"], "noor");
    assert_eq!(w.delete("noor", &path(&hold, "claim")).await.json()["claim"], Value::Null);
    assert_eq!(w.delete("noor", &path(&hold, "claim")).await.status, StatusCode::OK, "nothing to let go is no mistake");
    for wrong in [json!({"minutes": 0}), json!({"minutes": 61}), json!({"for": 1})] {
        assert_eq!(w.post("maya", &path(&hold, "claim"), wrong.clone()).await.status.as_u16(), 422, "{wrong}");
    }
    let own = w.hold_of("crm.refund", refund(8802), acting_for("ana"), &["ticket", "order"]).await;
    assert_eq!(w.post("ana", &path(&own, "claim"), json!({})).await.code(), (403, "self_review".into()));
    assert_eq!(w.post("nobody", &path(&own, "claim"), json!({})).await.code(), (404, "not_found".into()));
}

fn acting_for(person: &str) -> Principal {
    Principal { acting_for: Some(person.into()), ..support_bot() }
}

#[tokio::test]
async fn people_talk_ask_and_bring_and_none_of_it_moves_what_is_voted_on() {
    let w = World::new();
    let hold = w.hold_of("crm.refund", refund(8800), support_bot(), &["order"]).await;
    assert_eq!(w.post("maya", &path(&hold, "comments"), json!({"text": " "})).await.status.as_u16(), 422);
    let said = json!({"text": "is this <b>double</b>?\u{202e}"});
    assert_eq!(w.post("maya", &path(&hold, "comments"), said).await.status, StatusCode::OK);
    let asked = json!({"kinds": ["ticket"], "message_to_agent": "which ticket?"});
    let got = w.post("maya", &path(&hold, "evidence-requests"), asked).await;
    assert_eq!(got.json()["evidence_requests"][0]["kinds"], json!(["ticket"]), "{}", got.text);
    for wrong in [json!({"kinds": []}), json!({"kinds": ["two words"]}), json!({"kinds": "ticket"})] {
        let got = w.post("maya", &path(&hold, "evidence-requests"), wrong.clone()).await;
        assert_eq!(got.status.as_u16(), 422, "{wrong}");
    }
    let yes = json!({"digest": hold.digest});
    assert_eq!(w.post("maya", &path(&hold, "approve"), yes.clone()).await.code(), (422, "evidence_missing".into()));
    let brought = json!({"kind": "ticket", "title": "T-1", "text": "charged twice"});
    assert_eq!(w.post("noor", &path(&hold, "evidence"), brought).await.status, StatusCode::OK);
    let wrong = json!({"kind": "ticket", "text": "a", "url": "b"});
    assert_eq!(w.post("noor", &path(&hold, "evidence"), wrong).await.status.as_u16(), 422);
    let seen = w.get("noor", &format!("/v1/holds/{}", hold.id.hold())).await.json();
    let item = seen["evidence"]["items"].as_array().unwrap().iter().find(|i| i["kind"] == "ticket").unwrap();
    assert_eq!((item["by"].as_str(), item["verified"].as_bool()), (Some("reviewer noor"), Some(false)));
    assert_eq!(seen["digest"], hold.digest.to_string());
    let comments = w.get("noor", &path(&hold, "comments")).await.json();
    assert_eq!(comments["items"][0]["by"], "maya");
    assert_eq!(w.post("maya", &path(&hold, "approve"), yes).await.json()["state"], "approved");
    let late = json!({"text": "too late"});
    assert_eq!(w.post("maya", &path(&hold, "comments"), late).await.code(), (409, "already_decided".into()));
}

#[tokio::test]
async fn a_person_brings_it_before_others() {
    let w = World::new();
    let hold = w.hold(8800).await;
    let got = w.post("maya", &path(&hold, "escalate"), json!({"reason": "unsure"})).await;
    assert_eq!(got.status.as_u16(), 422, "nobody is configured: {}", got.text);
    let got = w.post("maya", &path(&hold, "escalate"), json!({"to": "finance", "reason": "large"})).await;
    let told = &got.json()["escalation"][0];
    assert_eq!((told["to"].as_str(), told["by"].as_str()), (Some("finance"), Some("maya")), "{}", got.text);
    assert_eq!(w.post("maya", &path(&hold, "escalate"), json!({"to": "x"})).await.status.as_u16(), 422);
    let hidden = json!({"to": "fin\u{200b}ance", "reason": "x"});
    assert_eq!(w.post("maya", &path(&hold, "escalate"), hidden).await.status.as_u16(), 422);
}

#[tokio::test]
async fn a_rejection_may_stand_for_calls_like_it() {
    let w = World::new();
    let (hold, spare) = (w.hold(8800).await, w.hold(8801).await);
    let no = |minutes: u64| json!({"digest": hold.digest, "reason_code": "unsafe", "deny_alike_minutes": minutes});
    for wrong in [0, 241] {
        assert_eq!(w.post("maya", &path(&hold, "reject"), no(wrong)).await.status.as_u16(), 422, "{wrong}");
    }
    assert_eq!(w.post("maya", &path(&hold, "reject"), no(30)).await.json()["state"], "rejected");
    let shown = w.get("maya", &format!("/v1/holds/{}", hold.id.hold())).await.json();
    assert!(shown["deny_alike_until"].is_string(), "{shown}");
    // What is held already is decided by people, one by one.
    let yes = json!({"digest": spare.digest});
    assert_eq!(w.post("maya", &path(&spare, "approve"), yes).await.json()["state"], "approved");
}

#[tokio::test]
async fn what_people_said_of_calls_like_it_stands_beside_it() {
    let w = World::new();
    let rejected = w.hold(8000).await;
    let no = json!({"digest": rejected.digest, "reason_code": "duplicate"});
    w.post("maya", &path(&rejected, "reject"), no).await;
    for minor in [8100, 8200, 8300, 8400, 8500] {
        let hold = w.hold(minor).await;
        w.clock.advance(std::time::Duration::from_secs(74));
        assert_eq!(
            w.post("maya", &path(&hold, "approve"), json!({"digest": hold.digest})).await.status,
            StatusCode::OK
        );
    }
    let (usual, large) = (w.hold(8400).await, w.hold(8600).await);
    let shown = |hold: CallRecord| {
        let at = format!("/v1/holds/{}", hold.id.hold());
        let w = &w;
        async move { w.get("noor", &at).await.json() }
    };
    let usual = shown(usual).await;
    let d30 = json!({"approved": 5, "rejected": 1, "edited": 0, "median_s": 74});
    assert_eq!(usual["alike"]["d30"], d30, "{usual}");
    let last = &usual["alike"]["last_rejected"];
    assert_eq!((&last["reason_code"], &last["by"]), (&json!("duplicate"), &json!("maya")));
    let odd = |hold: &Value| hold["uncertainty"].as_array().unwrap().iter().any(|d| d["code"] == "outlier_amount");
    assert!(!odd(&usual) && odd(&shown(large).await));
}

#[tokio::test]
async fn a_file_is_brought_over_the_api_as_it_is() {
    let w = World::new();
    let hold = w.hold_of("crm.refund", refund(8800), support_bot(), &["order"]).await;
    let scan = b"%PDF-1.7 \xff\x00<script>";
    let send = |kind: &'static str, body: Vec<u8>, key: &'static str| {
        let request = ask("POST", &path(&hold, "evidence")).header("authorization", bearer("noor"));
        let request = request.header("content-type", kind).header("idempotency-key", key);
        w.send(request.body(Body::from(body)).unwrap())
    };
    let (kind, body) = with_file(&[("kind", "ticket")], "T-1.pdf", scan);
    assert_eq!(send(kind, body.clone(), "first").await.status, StatusCode::OK);
    let again = send(kind, body.clone(), "first").await;
    assert_eq!((again.status, again.headers["idempotent-replayed"].to_str().unwrap()), (StatusCode::OK, "true"));
    let seen = w.get("noor", &format!("/v1/holds/{}", hold.id.hold())).await.json();
    let items: Vec<&Value> =
        seen["evidence"]["items"].as_array().unwrap().iter().filter(|i| i["kind"] == "ticket").collect();
    let [item] = items[..] else { panic!("{seen}") };
    assert_eq!((&item["title"], &item["bytes"]), (&json!("T-1.pdf"), &json!(scan.len())));
    assert_eq!(item["sha256"], Digest::of(scan).to_string());
    let bytes =
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, item["content_base64"].as_str().unwrap());
    assert_eq!(bytes.unwrap(), scan);
    // A retry is the same attempt, though its frame is drawn anew; another file is another one.
    let reframed = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("--b0", "--zz9").into_bytes();
    let plain = with_file(&[("kind", "note")], "a.txt", b"some text").1;
    let first = send(kind, plain.clone(), "again").await;
    let retry = send("multipart/form-data; boundary=zz9", reframed(&plain), "again").await;
    assert_eq!((first.status.as_u16(), retry.text), (200, first.text.clone()), "{}", first.text);
    let other = with_file(&[("kind", "note")], "a.txt", b"other text").1;
    assert_eq!(send(kind, other, "again").await.code(), (422, "key_reused".into()));
    let (_, large) = with_file(&[("kind", "ticket")], "a", &vec![b'a'; (1 << 20) + (65 << 10)]);
    let large = send(kind, large, "large").await;
    assert_eq!(large.code(), (413, "body_too_large".into()), "{}", large.text);
    let (_, over) = with_file(&[("kind", "ticket")], "a", &vec![b'a'; (1 << 20) + 1]);
    let over = send(kind, over, "over").await;
    assert_eq!(over.code(), (413, "body_too_large".into()));
    assert!(over.text.contains("1048576 bytes"), "{}", over.text);
    let both = with_file(&[("kind", "ticket"), ("text", "a")], "a", b"b").1;
    assert_eq!(send(kind, both, "both").await.code(), (422, "invalid_arguments".into()));
    assert_eq!(send("multipart/form-data", body.clone(), "bare").await.status.as_u16(), 415);
    assert_eq!(send(kind, b"--b0".to_vec(), "broken").await.code(), (400, "malformed_request".into()));
    let after = w.get("noor", &format!("/v1/holds/{}", hold.id.hold())).await.json();
    assert_eq!(
        after["version"].as_u64(),
        seen["version"].as_u64().map(|v| v + 1),
        "one more piece, and nothing refused"
    );
}
