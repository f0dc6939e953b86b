//! The hold API, code by code.

use super::*;

fn path(record: &CallRecord, verb: &str) -> String {
    format!("/v1/holds/{}{verb}", record.id.hold())
}

fn yes(record: &CallRecord) -> Value {
    json!({"digest": record.digest})
}

#[tokio::test]
async fn one_approval_releases_a_medium_call_and_tells_who_sends() {
    let mut w = World::new();
    let hold = w.hold(8800).await;
    let got = w.get("maya", &path(&hold, "")).await;
    assert_eq!((got.status, got.headers["etag"].to_str().unwrap()), (StatusCode::OK, "\"1\""));
    let json = got.json();
    assert_eq!(json["title"], "Refund 88.00 EUR on order o_881");
    assert_eq!(json["me"]["can"], json!(["approve", "reject", "edit", "claim", "comment", "escalate", "grant"]));
    assert!(json["me"]["cannot"]["withdraw"].as_str().unwrap().starts_with("forbidden"));
    assert_eq!(json["why"][0]["policy"], "refund-review");
    assert_eq!(json["evidence"]["missing"], json!([]));
    assert_eq!(json["evidence"]["items"][0]["content"], "<script>evidence</script>");
    assert_eq!(json["call"]["request"]["redacted"], json!(["/customerId"]));
    assert!(!got.text.contains("c_204_secret"), "{}", got.text);
    assert_eq!(json["call"]["request"]["url"], "http://127.0.0.1:9/v2/orders/o_881/refunds?for=[redacted]");
    let digest = &json["call"]["request"]["body_sha256"];
    assert_eq!(digest, &Value::Null, "of a body that is not shown whole it would tell the rest to who guesses it");

    let got = w.post("maya", &path(&hold, "/approve"), yes(&hold)).await;
    assert_eq!(got.json(), json!({"state": "approved", "version": 2}));
    assert_eq!(w.resumed.try_recv().unwrap(), hold.id);
    let labels = ["crm.refund", "medium", "support-leads", "approved", "api"];
    assert_eq!(w.metrics.hold_decisions.with_label_values(&labels).get(), 1);
    assert_eq!(w.post("noor", &path(&hold, "/approve"), yes(&hold)).await.code(), (409, "already_decided".into()));
    assert!(w.resumed.try_recv().is_err(), "told once");
}

#[tokio::test]
async fn two_people_of_the_right_groups_release_a_high_call() {
    let mut w = World::new();
    let hold = w.hold(88_000).await;
    let (at, reasoned) = (path(&hold, "/approve"), json!({"digest": hold.digest, "justification": "checked"}));
    assert_eq!(w.post("maya", &at, yes(&hold)).await.code(), (422, "justification_required".into()));
    let blank = json!({"digest": hold.digest, "justification": "  "});
    assert_eq!(w.post("maya", &at, blank).await.code(), (422, "justification_required".into()));
    let wrong = json!({"digest": hold.digest, "justification": "x", "confirm": "880.01"});
    assert_eq!(w.post("maya", &at, wrong).await.code(), (422, "confirm_mismatch".into()));
    let got = w.post("maya", &at, json!({"digest": hold.digest, "justification": "x", "confirm": "880.00"})).await;
    let json = got.json();
    assert_eq!((json["state"].as_str(), json["needs"]["people_have"].as_u64()), (Some("held"), Some(1)));
    assert_eq!(w.post("maya", &at, reasoned.clone()).await.code(), (403, "already_counted".into()));
    assert_eq!(w.post("noor", &at, reasoned.clone()).await.code(), (403, "not_in_group".into()));
    assert_eq!(w.post("lena", &at, reasoned.clone()).await.code(), (403, "step_up_required".into()));
    let other = json!({"digest": hold.digest, "justification": "x", "group": "support-leads"});
    assert_eq!(w.post("finn", &at, other).await.code(), (403, "not_in_group".into()));
    assert_eq!(w.post("finn", &at, reasoned).await.json()["state"], "approved");
    assert_eq!(w.resumed.try_recv().unwrap(), hold.id);
    let seen = w.get("maya", &path(&hold, "")).await.json();
    assert_eq!(seen["approvals"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_decision_is_bound_to_what_was_seen() {
    let w = World::new();
    let hold = w.hold(8800).await;
    let old = json!({"digest": Digest::of(b"old")});
    let got = w.post("maya", &path(&hold, "/approve"), old.clone()).await;
    assert_eq!(got.code(), (409, "digest_changed".into()));
    assert_eq!(got.json()["digest"], hold.digest.to_string());
    let mut no = old;
    no["reason_code"] = "unsafe".into();
    assert_eq!(w.post("maya", &path(&hold, "/reject"), no).await.code(), (409, "digest_changed".into()));

    let with = |tag: &'static str| {
        let request = ask("POST", &path(&hold, "/approve")).header("if-match", tag);
        let request = request.header("authorization", bearer("maya")).header("content-type", "application/json");
        request.body(Body::from(yes(&hold).to_string())).unwrap()
    };
    assert_eq!(w.send(with("\"7\"")).await.code(), (412, "version_changed".into()));
    assert_eq!(w.send(with("7")).await.code(), (400, "malformed_request".into()));
    assert_eq!(w.send(with("\"1\"")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn silence_is_no() {
    let w = World::new();
    let hold = w.hold(8800).await;
    w.clock.advance(Duration::from_secs(4 * 3600));
    assert_eq!(w.post("maya", &path(&hold, "/approve"), yes(&hold)).await.code(), (409, "expired".into()));
    let seen = w.get("maya", &path(&hold, "")).await.json();
    assert_eq!(seen["state"], "expired");
    assert!(seen["me"]["cannot"]["approve"].as_str().unwrap().starts_with("already_decided"));
}

#[tokio::test]
async fn four_eyes_are_built_in() {
    let w = World::new();
    let hold = w.hold(8800).await;
    let got = w.post("ana", &path(&hold, "/approve"), yes(&hold)).await;
    assert_eq!(got.code(), (403, "self_review".into()));
    let me = w.get("ana", &path(&hold, "")).await.json();
    assert!(me["me"]["cannot"]["approve"].as_str().unwrap().starts_with("self_review"));

    let run_by = |operator: &str, email: &str| Principal {
        operator: Some(operator.to_owned()),
        acting_for: None,
        acting_for_email: Some(email.to_owned()),
        ..support_bot()
    };
    for principal in [run_by("MAYA", ""), run_by("x", "Maya@ACME.dev")] {
        let hold = w.hold_of("crm.refund", refund(8801), principal, &["ticket", "order"]).await;
        let got = w.post("maya", &path(&hold, "/approve"), yes(&hold)).await;
        assert_eq!(got.code(), (403, "self_review".into()));
        assert_eq!(w.post("noor", &path(&hold, "/approve"), yes(&hold)).await.status, StatusCode::OK);
    }
    let linked = run_by("token:noor2", "");
    let hold = w.hold_of("crm.refund", refund(8802), linked, &["ticket", "order"]).await;
    assert_eq!(w.post("noor", &path(&hold, "/approve"), yes(&hold)).await.code(), (403, "self_review".into()));
}

#[tokio::test]
async fn evidence_comes_before_votes() {
    let w = World::new();
    let hold = w.hold_of("crm.refund", refund(8800), support_bot(), &["ticket"]).await;
    let got = w.post("maya", &path(&hold, "/approve"), yes(&hold)).await;
    assert_eq!((got.code(), got.json()["missing"].clone()), ((422, "evidence_missing".into()), json!(["order"])));
    let me = w.get("maya", &path(&hold, "")).await.json();
    assert_eq!(me["me"]["cannot"]["approve"], "evidence_missing: order");
}

#[tokio::test]
async fn a_rejection_has_a_reason_and_teaches() {
    let w = World::new();
    let hold = w.hold(8800).await;
    let no =
        |code: &str| json!({"digest": hold.digest, "reason_code": code, "message_to_agent": "c_204_secret was paid"});
    for wrong in ["nope", "x_", "x_<script>", "X_a"] {
        assert_eq!(w.post("maya", &path(&hold, "/reject"), no(wrong)).await.code(), (422, "invalid_arguments".into()));
    }
    assert_eq!(w.post("maya", &path(&hold, "/reject"), no("duplicate")).await.json()["state"], "rejected");
    let seen = w.get("maya", &path(&hold, "")).await.json();
    assert_eq!(seen["note"], json!({"code": "duplicate", "text": "[redacted] was paid", "by": "maya"}));
    assert_eq!(w.metrics.rejects.with_label_values(&["crm.refund", "duplicate"]).get(), 1);
    let other = w.hold(9900).await;
    let local = json!({"digest": other.digest, "reason_code": "x_fraud"});
    assert_eq!(w.post("maya", &path(&other, "/reject"), local).await.status, StatusCode::OK);
    assert_eq!(w.metrics.rejects.with_label_values(&["crm.refund", "x_local"]).get(), 1);
    // After the quorum a no still wins, until the send.
    let third = w.hold(9901).await;
    w.post("maya", &path(&third, "/approve"), yes(&third)).await;
    let late = json!({"digest": third.digest, "reason_code": "other"});
    assert_eq!(w.post("noor", &path(&third, "/reject"), late).await.json()["state"], "revoked");
}

#[tokio::test]
async fn a_reviewer_sees_only_what_policy_shows() {
    let w = World::new();
    let refund = w.hold(8800).await;
    let delete = json!({"ticketId": "t1", "hard": true});
    let delete = w.hold_of("tickets.delete_ticket", delete, support_bot(), &[]).await;
    let ids = |got: Got| -> Vec<String> {
        got.json()["items"].as_array().unwrap().iter().map(|i| i["id"].as_str().unwrap().to_owned()).collect()
    };
    let (r, d) = (refund.id.hold().to_string(), delete.id.hold().to_string());
    assert_eq!(ids(w.get("maya", "/v1/holds").await), [d.clone(), r.clone()]);
    assert_eq!(ids(w.get("dana", "/v1/holds").await), std::slice::from_ref(&d));
    assert!(ids(w.get("nobody", "/v1/holds").await).is_empty());
    assert!(ids(w.get("pat", "/v1/holds").await).is_empty());
    assert_eq!(ids(w.get("pat", "/v1/calls").await).len(), 2);
    assert!(ids(w.get("maya", "/v1/calls").await).is_empty());
    assert_eq!(w.get("dana", &path(&refund, "")).await.code(), (404, "not_found".into()));
    let missing = w.get("dana", &format!("/v1/holds/{}", CallId::new().hold())).await;
    assert_eq!(missing.text, w.get("dana", &path(&refund, "")).await.text, "not yours looks like not there");
    for (query, want) in [
        ("?tier=high", vec![&d]),
        ("?tier=medium&state=held,approved", vec![&r]),
        ("?state=rejected", vec![]),
        ("?tool=crm&op=crm.refund&agent=support-bot&workflow=refunds", vec![&r]),
        ("?limit=1", vec![&d]),
    ] {
        assert_eq!(ids(w.get("maya", &format!("/v1/holds{query}")).await).iter().collect::<Vec<_>>(), want, "{query}");
    }
    let first = w.get("maya", "/v1/holds?limit=1").await.json();
    let rest = w.get("maya", &format!("/v1/holds?cursor={}", first["next"].as_str().unwrap())).await;
    assert_eq!(ids(rest), [r]);
    for query in ["?nope=1", "?state=", "?limit=0", "?limit=1000", "?cursor=x", "?tier=all", "?tier=low&tier=high"] {
        assert!(w.get("maya", &format!("/v1/holds{query}")).await.status.is_client_error(), "{query}");
    }
}

#[tokio::test]
async fn people_may_type_a_suffix_or_the_code() {
    let w = World::new();
    let hold = w.hold(8800).await;
    let id = hold.id.to_string();
    let code = crate::call::short_code(&hold.digest);
    for typed in [id.as_str(), id.get(id.len() - 8..).unwrap(), &code, &code.to_lowercase()] {
        assert_eq!(w.get("maya", &format!("/v1/holds/{typed}")).await.status, StatusCode::OK, "{typed}");
        assert_eq!(w.get("dana", &format!("/v1/holds/{typed}")).await.code().0, 404, "{typed}");
    }
    assert_eq!(
        w.get("maya", &format!("/v1/holds/{}", id.get(id.len() - 3..).unwrap())).await.code().0,
        404,
        "too short"
    );
    let same = w.hold(8800).await;
    assert_eq!(same.digest, hold.digest);
    assert_eq!(w.get("maya", &format!("/v1/holds/{code}")).await.code(), (409, "ambiguous_id".into()));
}

#[tokio::test]
async fn a_long_poll_ends_with_the_change() {
    let w = World::new();
    let hold = w.hold(8800).await;
    let at = path(&hold, "/wait?timeout=30");
    let waiting = w.get("maya", &at);
    let deciding = async {
        tokio::task::yield_now().await;
        w.post("noor", &path(&hold, "/approve"), yes(&hold)).await
    };
    let (seen, done) = tokio::join!(waiting, deciding);
    assert_eq!((done.status, seen.json()["state"].as_str()), (StatusCode::OK, Some("approved")));
    let old = ask("GET", &path(&hold, "/wait?timeout=30")).header("if-none-match", "\"1\"");
    let old = old.header("authorization", bearer("maya")).body(Body::empty()).unwrap();
    assert_eq!(w.send(old).await.json()["version"], 2, "it had changed already");
    assert_eq!(w.get("maya", &path(&hold, "/wait?timeout=0")).await.json()["version"], 2);
    assert_eq!(w.get("maya", &path(&hold, "/wait?timeout=61")).await.code().0, 422);
}

#[tokio::test]
async fn two_people_settle_an_unknown_call() {
    let w = World::new();
    w.with_petra();
    let call = w.unknown().await;
    let at = format!("/v1/calls/{}/reconcile", call.id);
    let said = json!({"outcome": "succeeded", "reason": "it is on the bank's list"});
    assert_eq!(w.post("maya", &at, said.clone()).await.code().0, 404);
    assert_eq!(w.post("pat", &at, json!({"outcome": "held", "reason": "x"})).await.code().0, 422);
    assert_eq!(
        w.post("pat", &at, json!({"outcome": "succeeded", "reason": ""})).await.code().1,
        "justification_required"
    );
    // Before quiescence nobody can know that it was not executed.
    let not = json!({"outcome": "not_executed", "reason": "it is not on the bank's list"});
    let early = w.post("pat", &at, not.clone()).await;
    assert_eq!(early.code(), (409, "too_early".into()));
    assert_eq!(early.headers["retry-after"], "601");
    assert_eq!(early.json()["quiet_at"], json!(call.quiet_at()));
    w.clock.advance(Duration::from_secs(600));
    assert_eq!(w.post("pat", &at, not).await.json()["state"], "unknown");
    assert_eq!(
        w.post("pat", &at, said.clone()).await.json()["state"],
        "unknown",
        "another word replaces the first one"
    );
    assert_eq!(w.post("pat", &at, said.clone()).await.code(), (403, "already_counted".into()));
    let seen = w.get("pat", &format!("/v1/calls/{}", call.id)).await.json();
    assert_eq!((seen["opinion"]["person"].as_str(), seen["me"]["can"].clone()), (Some("pat"), json!(["reconcile"])));
    assert_eq!(w.post("petra", &at, said.clone()).await.json()["state"], "succeeded");
    assert_eq!(w.post("petra", &at, said).await.code(), (409, "already_decided".into()));
}

#[tokio::test]
async fn bodies_are_read_strictly() {
    let w = World::new();
    let hold = w.hold(8800).await;
    let send = |kind: &'static str, body: String| {
        let request = ask("POST", &path(&hold, "/approve")).header("authorization", bearer("maya"));
        request.header("content-type", kind).body(Body::from(body)).unwrap()
    };
    let digest = hold.digest;
    let cases = [
        ("text/plain", yes(&hold).to_string(), 415),
        ("application/json; charset=utf-16", yes(&hold).to_string(), 415),
        ("application/json", format!(r#"{{"digest":"{digest}","digest":"{digest}"}}"#), 400),
        ("application/json", format!(r#"{{"digest":"{digest}","force":true}}"#), 422),
        ("application/json", "[]".to_owned(), 400),
        ("application/json", "{}".to_owned(), 422),
        ("application/json", format!(r#"{{"digest":"{}"}}"#, "x".repeat(70_000)), 413),
    ];
    for (kind, body, want) in cases {
        let got = w.send(send(kind, body.clone())).await;
        assert_eq!(got.status.as_u16(), want, "{kind} {}", body.get(..60).unwrap_or(&body));
        assert_eq!(got.headers["content-type"], "application/problem+json");
    }
    assert_eq!(w.store.get(hold.id).await.unwrap().unwrap().state, State::Held);
}

#[tokio::test]
async fn me_says_who_and_under_what() {
    let w = World::new();
    let me = w.get("maya", "/v1/me").await.json();
    assert_eq!((me["user"].as_str(), me["mfa"].as_bool()), (Some("maya"), Some(true)));
    assert_eq!(me["groups"], json!(["support-leads"]));
    assert_eq!(me["policy_digest"], w.snapshots.current().policies.digest().to_string());
    let request = ask("GET", "/v1/me").header("authorization", bearer("maya")).header("holdpoint-channel", "page");
    assert_eq!(w.send(request.body(Body::empty()).unwrap()).await.code().0, 400);
}

fn keyed(user: &str, path: &str, body: &Value, key: &str) -> Request<Body> {
    let request = ask("POST", path).header("authorization", bearer(user)).header("content-type", "application/json");
    request.header("idempotency-key", key).body(Body::from(body.to_string())).unwrap()
}

#[tokio::test]
async fn a_retry_under_the_same_key_gets_the_first_answer() {
    let w = World::new();
    let (hold, other) = (w.hold(8800).await, w.hold(8900).await);
    let path = |hold: &CallRecord| format!("/v1/holds/{}/approve", hold.id.hold());
    let yes = json!({"digest": hold.digest, "justification": "bank line 4471"});
    let first = w.send(keyed("maya", &path(&hold), &yes, "k-1")).await;
    assert_eq!((first.status.as_u16(), first.headers.get("idempotent-replayed")), (200, None), "{}", first.text);
    for key in ["k-1", "\"k-1\""] {
        let again = w.send(keyed("maya", &path(&hold), &yes, key)).await;
        assert_eq!(
            (again.status, &again.text, &again.headers["etag"]),
            (first.status, &first.text, &first.headers["etag"])
        );
        assert_eq!(again.headers["idempotent-replayed"], "true");
        assert_eq!(again.headers["cache-control"], "no-store");
    }
    let version = w.store.get(hold.id).await.unwrap().unwrap().version;
    assert_eq!(version, hold.version + 1, "it was counted once");
    for (what, path, body) in [
        ("another body", path(&hold), json!({"digest": hold.digest})),
        ("another path", path(&other), yes.clone()),
        ("with a query", format!("{}?x=1", path(&hold)), yes.clone()),
    ] {
        let got = w.send(keyed("maya", &path, &body, "k-1")).await;
        assert_eq!(got.code(), (422, "key_reused".into()), "{what}");
    }
    let other = w.send(keyed("noor", &path(&hold), &yes, "k-1")).await;
    assert!(!other.headers.contains_key("idempotent-replayed"), "another account's key is its own");
    let anew = w.send(keyed("maya", &path(&hold), &yes, "k-2")).await;
    assert_eq!(anew.code(), (409, "already_decided".into()));
    let spaced = w.send(keyed("maya", &path(&hold), &yes, "a key")).await;
    assert_eq!(spaced.code(), (400, "malformed_request".into()));
}

#[tokio::test]
async fn a_refusal_is_an_answer_and_an_unknown_person_has_no_key() {
    let w = World::new();
    let hold = w.hold(8800).await;
    let path = format!("/v1/holds/{}/reject", hold.id.hold());
    let no = json!({"digest": crate::call::Digest::of(b"old"), "reason_code": "other"});
    let first = w.send(keyed("maya", &path, &no, "k")).await;
    assert_eq!(first.code(), (409, "digest_changed".into()));
    let again = w.send(keyed("maya", &path, &no, "k")).await;
    assert_eq!((again.text, again.headers["idempotent-replayed"].to_str().unwrap()), (first.text, "true"));
    for _ in 0..2 {
        let got = w.send(keyed("stranger", &path, &no, "k")).await;
        assert_eq!(got.code(), (401, "unauthenticated".into()));
        assert!(!got.headers.contains_key("idempotent-replayed"));
    }
    let unreachable = w
        .send(keyed(
            "maya",
            &format!("/v1/holds/{}/edit", hold.id.hold()),
            &json!({
                "digest": hold.digest, "patch": [{"op": "replace", "path": "/amountMinor", "value": 1}], "note": "less",
            }),
            "k-edit",
        ))
        .await;
    assert_eq!(unreachable.code(), (503, "unavailable".into()), "nobody edits in this world");
    assert!(
        !w.send(keyed(
            "maya",
            &format!("/v1/holds/{}/edit", hold.id.hold()),
            &json!({
                "digest": hold.digest, "patch": [{"op": "replace", "path": "/amountMinor", "value": 1}], "note": "less",
            }),
            "k-edit"
        ))
        .await
        .headers
        .contains_key("idempotent-replayed"),
        "what may pass is asked again"
    );
}

/// Titles of the holds that a query finds, page by page of one line.
async fn found(w: &World, user: &str, query: &str) -> Vec<String> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    let query = if query.is_empty() { String::new() } else { format!("&{query}") };
    loop {
        let page = w.get(user, &format!("/v1/holds?limit=1{query}{cursor}")).await;
        assert_eq!(page.status, StatusCode::OK, "{query}: {}", page.text);
        let page = page.json();
        all.extend(page["items"].as_array().unwrap().iter().map(|i| i["title"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

#[tokio::test]
async fn holds_are_found_by_what_reviewers_ask_and_every_page_goes_on_where_the_last_one_ended() {
    let w = World::new();
    let start = w.clock.now();
    let small = w.hold(8800).await;
    w.clock.advance(Duration::from_secs(60));
    w.hold(8900).await;
    w.clock.advance(Duration::from_secs(60));
    w.hold_of("crm.refund", refund(8700), support_bot(), &[]).await;
    w.clock.advance(Duration::from_secs(60));
    let large = w.hold(88_000).await;
    let title = |minor: &str| format!("Refund {minor} EUR on order o_881");
    let [a, b, c, d] = ["88.00", "89.00", "87.00", "880.00"].map(title);
    let all = |list: &[&String]| list.iter().map(|t| (*t).clone()).collect::<Vec<_>>();
    assert_eq!(found(&w, "maya", "").await, all(&[&d, &c, &b, &a]));
    // One cannot be approved for want of evidence; the large one can be by a second person, too.
    assert_eq!(found(&w, "maya", "mine=1").await, all(&[&d, &b, &a]));
    assert_eq!(found(&w, "finn", "mine=1").await, all(&[&d]));
    assert_eq!(found(&w, "maya", "evidence=missing").await, all(&[&c]));
    assert_eq!(found(&w, "maya", "group=finance").await, all(&[&d]));
    assert_eq!(found(&w, "maya", "q=REFUND%2088").await, all(&[&d, &a]));
    assert_eq!(found(&w, "maya", &format!("q={}", large.id.hold())).await, all(&[&d]));
    let cluster = super::super::group::cluster(&small).unwrap();
    assert_eq!(found(&w, "maya", &format!("cluster={cluster}")).await, all(&[&c, &b, &a]));
    let (since, until) = (start.plus(Duration::from_secs(60)), start.plus(Duration::from_secs(180)));
    assert_eq!(found(&w, "maya", &format!("since={since}&until={until}")).await, all(&[&c, &b]));
    // High is due after 10 minutes, medium after 15: the large one came last and is due with the first ones.
    assert_eq!(found(&w, "maya", "sort=sla&state=held").await, all(&[&d, &a, &b, &c]));
    assert_eq!(found(&w, "maya", "sort=amount&state=held,approved").await, all(&[&d, &b, &a, &c]));
    assert!(found(&w, "maya", "overdue=1").await.is_empty());
    w.clock.advance(Duration::from_secs(720));
    assert_eq!(found(&w, "maya", "overdue=1").await, all(&[&d, &a]));
    assert_eq!(found(&w, "maya", "overdue=1&sort=sla").await, all(&[&d, &a]));
    assert!(found(&w, "nobody", "sort=sla&state=held").await.is_empty(), "what policy does not show is in no list");
}
