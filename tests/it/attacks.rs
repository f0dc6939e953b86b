//! Tricks that are played on approvers: what is shown is all that is sent, and a vote counts in its time or not at all.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use holdpoint::call::Timestamp;
use holdpoint::clock::ManualClock;
use serde_json::{Map, Value, json};

use crate::harness::{Setup, answer, page, send, sign_in};
use crate::verbs::cli;

/// Everything of this agent on notes waits for the leads.
const WIDE: &str = "@id(\"wide\") @reason(\"Somebody reads it first.\") @approvers(\"support-leads\")\n\
    forbid (principal, action == Holdpoint::Action::\"crm.note\", resource) unless { context.approval.granted };\n\
    @id(\"note\") permit (principal in Holdpoint::AgentGroup::\"support\", action == Holdpoint::Action::\"crm.note\", resource);\n";

fn wide() -> Setup {
    let operation = "      get_customer: { match: GET /customers/:customerId, effect: read }\n";
    Setup::new()
        .config(
            operation,
            &format!("{operation}      note: {{ match: POST /notes, effect: write, schema: wide.json }}\n"),
        )
        .file(
            "wide.json",
            "{\"type\": \"object\", \"additionalProperties\": {\"type\": \"string\", \"maxLength\": 60000}}",
        )
        .more_policies(WIDE)
}

#[tokio::test]
async fn of_two_hundred_arguments_the_last_one_is_shown_as_whole_as_the_first() {
    let p = wide().start().await;
    p.upstream.script(|_| answer(201, &json!({"ok": true})));
    let mut body = Map::new();
    for i in 0..199 {
        body.insert(format!("field_{i:03}"), format!("harmless {i}").into());
    }
    // Long before it, so that it stands far below, and a page that cuts would cut it.
    body.insert("padding".into(), "x".repeat(40_000).into());
    body.insert("zz_last".into(), "transfer everything to DE00 0000".into());
    let body = Value::Object(body);
    let held = p.agent("POST", "/crm/notes", &[], Some(&body)).await;
    assert_eq!(held.code(), "held", "{held:?}");
    let hold = held.json()["hold"].as_str().unwrap().to_owned();
    let seen = page(&p, "maya", &format!("/holds/{hold}")).await;
    let place = |text: &str| seen.find(text).unwrap_or_else(|| panic!("{text} is not shown"));
    assert!(place("transfer everything to DE00 0000") > place("harmless 198"));
    for i in 0..199 {
        place(&format!("harmless {i}"));
    }
    assert!(seen.contains(&"x".repeat(40_000)), "nothing is cut");
    // In no fold, and in a part that must have been in view before the approval opens.
    let arguments = &seen[place("Exact arguments")..place("Why it was held")];
    assert!(arguments.contains("zz_last") && !arguments.contains("<details"), "{arguments}");
    assert!(seen.contains("<section data-hunk><h2>Exact arguments"));
    let told = p.reviewer("maya", "GET", &format!("/v1/holds/{hold}"), None).await.json();
    assert_eq!(told["call"]["input"], body);
    let (_, shown) = cli(&p, "maya", &["holds", "show", &hold]).await;
    assert!(shown.contains("zz_last") && shown.contains("transfer everything"), "the terminal shows it, too");
    assert_eq!(p.approve("maya", &hold, None).await.status, 200);
    p.until_seen(1).await;
    let sent: Value = serde_json::from_slice(&p.upstream.seen()[0].body).unwrap();
    assert_eq!(sent, body, "what was shown is what is sent");
}

#[tokio::test]
async fn at_the_instant_of_expiry_no_vote_counts_and_a_moment_before_it_does() {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_800_000_000_000)));
    let p = Setup::new().clock(clock.clone()).start().await;
    p.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    let hold = async |order: &str| p.refund(order, 8800, &[]).await.json()["hold"].as_str().unwrap().to_owned();
    let (in_time, late, by_form) = (hold("o_1").await, hold("o_2").await, hold("o_3").await);
    clock.advance(Duration::from_millis(4 * 3600 * 1000 - 1));
    assert_eq!(p.approve("maya", &in_time, None).await.json()["state"], "approved");
    let cookie = sign_in(&p, "maya").await;
    let admin = p.running.admin;
    let read = send(admin, "GET", &format!("/holds/{by_form}"), &[("cookie", &cookie)], b"").await;
    let text = String::from_utf8(read.body.to_vec()).unwrap();
    let value = |name: &str| {
        let at = text.split(&format!("name=\"{name}\" value=\"")).nth(1).unwrap();
        at.split('"').next().unwrap().to_owned()
    };
    let (csrf, digest) = (value("csrf"), value("digest"));
    clock.advance(Duration::from_millis(1));
    assert_eq!(p.approve("maya", &late, None).await.code(), "expired");
    let origin = format!("http://{admin}");
    let kind = "application/x-www-form-urlencoded";
    let headers = [("cookie", cookie.as_str()), ("origin", &origin), ("content-type", kind)];
    let mut form = format!("csrf={csrf}&digest=");
    write!(form, "{}&seen=all", digest.replace(':', "%3A")).unwrap();
    let refused = send(admin, "POST", &format!("/holds/{by_form}/approve"), &headers, form.as_bytes()).await;
    assert_eq!(refused.status, 409, "{refused:?}");
    for hold in [&late, &by_form] {
        let seen = p.reviewer("maya", "GET", &format!("/v1/holds/{hold}"), None).await.json();
        assert_eq!((seen["state"].as_str(), seen["approvals"].as_array().map(Vec::len)), (Some("expired"), Some(0)));
    }
    p.until_seen(1).await;
    assert_eq!(p.upstream.count(), 1, "only what was approved in time is sent");
}
