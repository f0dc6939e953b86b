//! Calls that nobody looked at before they ran are looked at afterwards, some of them.

use holdpoint::call::SampleRate;
use serde_json::{Value, json};

use crate::harness::{PEOPLE, POLICIES, Proxy, Setup, answer, page, send, sign_in};

fn setup(rate: &str) -> Setup {
    let people = PEOPLE.to_owned()
        + "@id(\"judges\") permit (principal in Holdpoint::Team::\"support-leads\", \
           action == Holdpoint::Action::\"sample.judge\", resource);\n";
    let policies = POLICIES
        .replace("@id(\"reads\")", &format!("@id(\"reads\") @sample(\"{rate}\")"))
        .replace("@id(\"writes\")", &format!("@id(\"writes\") @sample(\"{rate}\")"));
    Setup::new().policies(&policies).people(&people)
}

async fn start(setup: Setup) -> Proxy {
    let p = setup.start().await;
    p.upstream.script(|_| answer(200, &json!({})));
    p
}

async fn listed(p: &Proxy, query: &str) -> Vec<Value> {
    let got = p.reviewer("maya", "GET", &format!("/v1/samples?limit=200{query}"), None).await;
    assert_eq!(got.status, 200, "{got:?}");
    got.json()["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn calls_are_picked_by_their_ids_and_nothing_else() {
    let p = start(setup("1/3")).await;
    let mut picked = Vec::new();
    for n in 0..30 {
        let got = if n % 2 == 0 {
            p.agent("GET", &format!("/crm/customers/c_{n}"), &[], None).await
        } else {
            p.refund(&format!("o_{n}"), 100, &[]).await
        };
        assert_eq!((got.status, got.header("holdpoint-tier")), (200, "low"), "{got:?}");
        let call = got.header("holdpoint-call").to_owned();
        if SampleRate::parse("1/3").unwrap().picks(call.parse().unwrap()) {
            picked.push((call, n % 2 == 1));
        }
    }
    let mut found: Vec<(String, bool)> =
        listed(&p, "").await.iter().map(|s| (s["id"].as_str().unwrap().into(), s["recorded"] == true)).collect();
    found.reverse();
    assert_eq!(found, picked);
    // Held calls were looked at before.
    p.refund("o_big", 6000, &[]).await;
    assert_eq!(listed(&p, "").await.len(), picked.len());
}

#[tokio::test]
async fn a_fifth_of_what_passes_by_a_grant_is_picked() {
    let people = PEOPLE.to_owned()
        + "@id(\"more\") permit (principal in Holdpoint::Team::\"support-leads\", \
           action in [Holdpoint::Action::\"sample.judge\", Holdpoint::Action::\"grant.create\"], resource);\n";
    let reason = "@reason(\"Refunds need one review.\")";
    let policies = POLICIES.replace(reason, &format!("{reason} @grant(\"max=1h\")"));
    let p = start(Setup::new().policies(&policies).people(&people)).await;
    let hold = p.refund("o_1", 6000, &[]).await.json()["hold"].as_str().unwrap().to_owned();
    let digest = p.record(&hold.replace("hold_", "call_")).await.digest;
    let vote = json!({"digest": digest, "grant": {"pins": [{"path": "/orderId", "any": true}]}});
    let got = p.reviewer("maya", "POST", &format!("/v1/holds/{hold}/approve"), Some(&vote)).await;
    assert_eq!(got.status, 200, "{got:?}");
    let mut picked = Vec::new();
    for n in 0..40 {
        let got = p.refund(&format!("many_{n}"), 6000, &[]).await;
        assert_eq!(got.status, 200, "{got:?}");
        let call = got.header("holdpoint-call").to_owned();
        if SampleRate::GRANTS.picks(call.parse().unwrap()) {
            picked.insert(0, json!(call));
        }
    }
    let found: Vec<Value> = listed(&p, "").await.iter().map(|s| s["id"].clone()).collect();
    assert_eq!(found, picked);
    assert!(listed(&p, "").await.iter().all(|s| s["grant"] == got.json()["grant"]["id"]));
}

#[tokio::test]
async fn a_verdict_is_given_once_by_others_than_who_runs_the_agent() {
    let p = start(setup("100%").config("redact: [/phone]", "redact: [/phone, /email]")).await;
    let body = json!({"email": "ann@x.example"});
    let got = p.agent("PATCH", "/crm/customers/c_1", &[], Some(&body)).await;
    assert_eq!(got.status, 200, "{got:?}");
    let sample = listed(&p, "&state=open").await.remove(0);
    assert_eq!((&sample["input"]["email"], &sample["op"]), (&json!("[redacted]"), &json!("crm.update_customer")));
    let path = format!("/v1/samples/{}", sample["id"].as_str().unwrap());
    let say = async |who: &str, body: Value| {
        let got = p.reviewer(who, "POST", &path, Some(&body)).await;
        (got.status, got.code())
    };
    let ok = (200, String::new());
    assert_eq!(say("ana", json!({"verdict": "good"})).await, (403, "self_review".into()));
    assert_eq!(say("li", json!({"verdict": "good"})).await, (403, "forbidden".into()));
    assert_eq!(say("maya", json!({"verdict": "bad"})).await, (422, "invalid_arguments".into()));
    assert_eq!(
        say("maya", json!({"verdict": "bad", "reason_code": "Because"})).await,
        (422, "invalid_arguments".into())
    );
    assert_eq!(say("maya", json!({"verdict": "fine"})).await, (422, "invalid_arguments".into()));
    assert_eq!(say("maya", json!({"verdict": "unsure"})).await, ok);
    assert_eq!(say("maya", json!({"verdict": "bad", "reason_code": "wrong_target"})).await, ok);
    assert_eq!(say("maya", json!({"verdict": "good"})).await, (409, "already_judged".into()));
    let judged = listed(&p, "&state=judged&op=crm.update_customer").await.remove(0);
    assert_eq!(
        (&judged["verdict"], &judged["by"], &judged["reason_code"]),
        (&json!("bad"), &json!("maya"), &json!("wrong_target"))
    );
    assert_eq!(p.reviewer("sam", "GET", "/v1/samples", None).await.status, 403);
    let metrics = send(p.running.admin, "GET", "/metrics", &[], b"").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    for verdict in ["picked", "unsure", "bad"] {
        assert!(
            metrics.contains(&format!("holdpoint_samples_total{{op=\"crm.update_customer\",verdict=\"{verdict}\"}} 1")),
            "{metrics}"
        );
    }
}

#[tokio::test]
async fn the_page_takes_verdicts_without_any_script() {
    let p = start(setup("100%")).await;
    p.agent("GET", "/crm/customers/c_1", &[], None).await;
    let shown = page(&p, "maya", "/samples").await;
    assert!(shown.contains("To look at (1)") && shown.contains("there is no more of it than this"), "{shown}");
    assert!(!page(&p, "ana", "/samples").await.contains("Say so"), "who runs the agent is asked");
    let cookie = sign_in(&p, "maya").await;
    let origin = format!("http://{}", p.running.admin);
    let headers = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("origin", origin.as_str()),
        ("cookie", cookie.as_str()),
    ];
    let got = send(p.running.admin, "GET", "/samples", &headers[2..], b"").await;
    let shown = String::from_utf8(got.body.to_vec()).unwrap();
    let csrf = shown.split_once("name=\"csrf\" value=\"").unwrap().1.split_once('"').unwrap().0.to_owned();
    let id = shown.split_once("action=\"/samples/").unwrap().1.split_once('"').unwrap().0.to_owned();
    let path = format!("/samples/{id}");
    assert_eq!(
        send(p.running.admin, "POST", &path, &headers, b"csrf=other&verdict=good&reason_code=").await.status,
        403
    );
    let form = format!("csrf={csrf}&verdict=good&reason_code=");
    assert_eq!(send(p.running.admin, "POST", &path, &headers, form.as_bytes()).await.status, 303);
    let shown = page(&p, "maya", "/samples").await;
    assert!(shown.contains("To look at (0)") && shown.contains("good (maya)"), "{shown}");
}
