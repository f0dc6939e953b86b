//! What policy authors ask of a proxy that runs: check, explain, replay, as the terminal answers them, and no more than the
//! person may see.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use holdpoint::call::Timestamp;
use holdpoint::workbench::history::{self, Limits};
use serde_json::{Value, json};

use crate::harness::{Got, PEOPLE, Proxy, Setup, answer, send, token};

/// Omar operates; sam reads policies and records, and sees no call; li reads policies alone; maya sees holds alone.
fn people() -> String {
    let action =
        |all: &[&str]| all.iter().map(|a| format!("Holdpoint::Action::\"{a}\"")).collect::<Vec<_>>().join(", ");
    let operate = "Holdpoint::Action::\"call.reconcile\"";
    let more = action(&["policy.view", "policy.activate", "audit.read"]);
    let read = action(&["policy.view", "audit.read"]);
    format!(
        "{}\n@id(\"read\") permit (principal in Holdpoint::Team::\"data-stewards\", action in [{read}], resource);\n\
         @id(\"policies\") permit (principal in Holdpoint::Team::\"finance\", \
         action == Holdpoint::Action::\"policy.view\", resource);\n",
        PEOPLE.replace(operate, &format!("{operate}, {more}"))
    )
}

async fn start() -> Proxy {
    let p = Setup::new().people(&people()).start().await;
    p.upstream.script(|_| answer(200, &json!({"ok": true})));
    p
}

async fn post(p: &Proxy, who: &str, path: &str, body: Value) -> Got {
    p.reviewer(who, "POST", path, Some(&body)).await
}

async fn ok(p: &Proxy, path: &str, body: Value) -> Value {
    let got = post(p, "omar", path, body).await;
    assert_eq!(got.status, 200, "{got:?}");
    got.json()
}

/// What the terminal says of the same files.
fn terminal(p: &Proxy, args: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdpoint"));
    let out = command.current_dir(p.dir.path()).args(args).arg("--json").output().unwrap();
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"))
}

fn files(p: &Proxy) -> BTreeMap<String, String> {
    let names = ["agents.cedar", "people.cedar"];
    let text = |n: &str| std::fs::read_to_string(p.dir.path().join("policies").join(n)).unwrap();
    names.map(|n| (n.to_owned(), text(n))).into()
}

fn changed(p: &Proxy, from: &str, to: &str) -> BTreeMap<String, String> {
    let mut all = files(p);
    let text = all.get_mut("agents.cedar").unwrap();
    assert!(text.contains(from), "{text}");
    *text = text.replace(from, to);
    all
}

/// Every file below, with what is in it.
fn disk(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if entry.is_dir() {
            all.extend(disk(&entry));
        } else {
            all.insert(entry.display().to_string(), std::fs::read(&entry).unwrap());
        }
    }
    all
}

async fn in_force(p: &Proxy) -> Value {
    p.reviewer("omar", "GET", "/v1/policies", None).await.json()["policy_digest"].clone()
}

#[tokio::test]
async fn a_set_is_checked_and_nothing_is_touched() {
    let p = start().await;
    let before = (disk(&p.dir.path().join("policies")), in_force(&p).await);
    let as_it_is = ok(&p, "/v1/policies/check", json!({})).await;
    assert_eq!((&as_it_is["accepted"], &as_it_is["policies"]["digest"]), (&json!(true), &before.1), "{as_it_is}");
    let sent = ok(&p, "/v1/policies/check", json!({"files": files(&p)})).await;
    assert_eq!(sent, as_it_is, "the same files are the same set, wherever they come from");

    let wider = changed(&p, "amountMinor > 5000 ", "amountMinor > 7000 ");
    let checked = ok(&p, "/v1/policies/check", json!({"files": wider})).await;
    assert!(checked["accepted"] == true && checked["policies"]["digest"] != before.1, "{checked}");
    let wrong = changed(&p, "context.input.amountMinor > 5000 ", "context.input.amountMnor > 5000 ");
    let checked = ok(&p, "/v1/policies/check", json!({"files": wrong})).await;
    assert!(checked["accepted"] == false && checked["policies"].is_null(), "{checked}");
    let finding = checked["findings"].as_array().unwrap().iter().find(|f| f["help"] == "did you mean `amountMinor`?");
    let finding = finding.unwrap_or_else(|| panic!("{checked}"));
    assert_eq!((&finding["file"], &finding["severity"]), (&json!("agents.cedar"), &json!("error")));
    assert!(finding["line"].as_u64().unwrap() > 1 && finding["column"].as_u64().unwrap() > 1, "{finding}");
    assert_eq!(checked["found"]["errors"], 1);

    assert_eq!((disk(&p.dir.path().join("policies")), in_force(&p).await), before);
    assert!(p.lines().iter().all(|l| !l.event.get().contains("config.rejected")), "nothing was tried in earnest");
}

#[tokio::test]
async fn what_would_not_be_put_in_force_is_not_accepted() {
    let p = start().await;
    p.rewrite("policies/agents.cedar", |text| text.replace("@reason(\"Refunds need one review.\") ", ""));
    let checked = ok(&p, "/v1/policies/check", json!({})).await;
    let from_terminal = terminal(&p, &["check"]);
    let errors = |v: &Value| {
        let all = v["findings"].as_array().unwrap().iter().filter(|f| f["severity"] == "error");
        all.filter(|f| f["code"] != "policy-generated").map(|f| f["message"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(errors(&checked), errors(&from_terminal));
    assert_eq!((&checked["accepted"], &checked["findings"][0]["file"]), (&json!(false), &json!("agents.cedar")));
    assert_eq!(post(&p, "omar", "/v1/policies/activate", json!({})).await.code(), "policy_rejected");

    p.rewrite("policies/agents.cedar", |text| {
        text.replace("@id(\"refund-review\") ", "@id(\"refund-review\") @reason(\"r\") ")
    });
    assert_eq!(ok(&p, "/v1/policies/check", json!({})).await["accepted"], true);
    p.rewrite("holdpoint.yaml", |text| text.replace("drain: 5s", "drain: 6s"));
    let checked = ok(&p, "/v1/policies/check", json!({})).await;
    assert!(
        checked["accepted"] == false && checked["findings"].to_string().contains("`listen.drain` changed"),
        "{checked}"
    );
    p.rewrite("holdpoint.yaml", |text| text.replace("drain: 6s", "drain: soon"));
    let checked = ok(&p, "/v1/policies/check", json!({})).await;
    assert!(checked["accepted"] == false && checked["config"].to_string().contains("`soon`"), "{checked}");
}

#[tokio::test]
async fn sets_that_nobody_meant_to_write_are_told() {
    let p = start().await;
    let of = |text: &str| json!({"files": {"a.cedar": text}});
    let deep = format!("permit (principal, action, resource) when {{ {}true }};", "!(".repeat(20_000));
    let chain = format!("permit (principal, action, resource) when {{ {} }};", vec!["1 == 1"; 5_000].join(" || "));
    let twice = "@id(\"a\") permit (principal, action in Holdpoint::Action::\"call\", resource);".repeat(2);
    for (text, code) in [
        ("", "policy-empty"),
        ("\0\0", "policy-syntax"),
        ("permit (principal, action, resource", "policy-syntax"),
        (twice.as_str(), "policy-id"),
        (deep.as_str(), "policy-deep"),
        (chain.as_str(), "policy-deep"),
    ] {
        let checked = ok(&p, "/v1/policies/check", of(text)).await;
        let found = checked["findings"].as_array().unwrap().iter().any(|f| f["code"] == code);
        assert!(checked["accepted"] == false && found, "{code}: {checked}");
    }
    let nothing = ok(&p, "/v1/policies/check", json!({"files": {}})).await;
    assert_eq!(nothing["findings"][0]["code"], "policy-empty", "no file is not the files as they are now");
    let many: BTreeMap<String, &str> =
        (0..1_100).map(|n| (format!("teams/{n}.cedar"), "permit (principal, action, resource);")).collect();
    let checked = ok(&p, "/v1/policies/check", json!({"files": many})).await;
    assert_eq!(checked["findings"].as_array().unwrap().len(), 1_000);
    assert!(checked["found"]["errors"].as_u64().unwrap() >= 1_100, "{}", checked["found"]);

    let got = post(&p, "omar", "/v1/policies/check", of(&"permit (principal, action, resource);".repeat(5_001))).await;
    assert!(got.status == 422 && got.json()["detail"].as_str().unwrap().contains("may have 1500"), "{got:?}");

    let one = format!(
        "permit (principal, action, resource) when {{ {}true }};",
        "context.input.amountMinor > 1 || ".repeat(2_500)
    );
    let got = post(&p, "omar", "/v1/policies/check", of(&one)).await;
    assert!(got.status == 422 && got.json()["detail"].as_str().unwrap().contains("over 64 KiB"), "{got:?}");

    for name in ["../a.cedar", "/etc/a.cedar", "a.yaml", ".a.cedar", "a\0.cedar"] {
        let got = post(&p, "omar", "/v1/policies/check", json!({"files": {name: ""}})).await;
        assert_eq!((got.status, got.code().as_str()), (422, "invalid_arguments"), "{name}: {got:?}");
    }
    let raw = async |body: Vec<u8>| {
        let bearer = format!("Bearer {}", token("omar"));
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        send(p.running.admin, "POST", "/v1/policies/check", &headers, &body).await
    };
    assert_eq!(raw(b"{\"files\":{\"a.cedar\":\"\xff\"}}".to_vec()).await.status, 400);
    assert_eq!(raw(b"{\"files\":{\"a.cedar\":\"\",\"a.cedar\":\"\"}}".to_vec()).await.status, 400);
    assert_eq!(raw(of(&" ".repeat(1 << 20)).to_string().into_bytes()).await.status, 413);
    let long = of(&format!("{}{}", files(&p)["agents.cedar"], "// long;\n".repeat(60_000)));
    assert_eq!(ok(&p, "/v1/policies/check", long.clone()).await["accepted"], true);
    assert_eq!(p.keyed("omar", "/v1/policies/check", "once", &long).await.status, 200);
}

#[tokio::test]
async fn only_who_may_asks() {
    let p = start().await;
    let op = json!({"op": "crm.get_customer", "input": {"customerId": "c_1"}});
    for (path, body) in [("/v1/policies/check", json!({})), ("/v1/explain", op), ("/v1/replay", json!({}))] {
        let got = post(&p, "maya", path, body.clone()).await;
        assert_eq!((got.status, got.code().as_str()), (403, "forbidden"), "{path}");
        let wanted = if path == "/v1/replay" { 403 } else { 200 };
        assert_eq!(post(&p, "li", path, body.clone()).await.status, wanted, "{path}: it shows what was called");
        assert_eq!(post(&p, "sam", path, body).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_call_is_explained_as_the_terminal_does() {
    let p = start().await;
    let input = json!({"orderId": "o_1", "customerId": "c_1", "amountMinor": 88_000, "currency": "EUR"});
    let ask = json!({"op": "crm.refund", "input": input, "agent": "support-bot", "groups": ["support"], "workflow": "refunds"});
    let mut told = ok(&p, "/v1/explain", ask.clone()).await;
    assert_eq!((&told["tier"], &told["because"]), (&json!("high"), &json!(["refund-review", "refund-dual"])), "{told}");
    assert_eq!(told.as_object_mut().unwrap().remove("policy_digest").unwrap(), in_force(&p).await);
    let args =
        ["explain", "--op", "crm.refund", "--agent", "support-bot", "--group", "support", "--workflow", "refunds"];
    assert_eq!(told, terminal(&p, &[&args[..], &["--input", &input.to_string()]].concat()));

    let mut near = ask.clone();
    near["given"] = json!({"workflow": {"stage": "assist"}});
    assert_eq!(ok(&p, "/v1/explain", near).await["stage"], "assist", "a stage that no workflow is in");
    // Explained is what rules, not what the disk has.
    p.rewrite("policies/agents.cedar", |text| text.replace("amountMinor > 50000 ", "amountMinor > 90000 "));
    assert_eq!(ok(&p, "/v1/explain", ask.clone()).await["tier"], "high");

    for (change, why) in [
        (json!({"op": "crm.refnd"}), "did you mean `crm.refund`?"),
        (json!({"op": "crm.refund"}), "customerId"),
        (json!({"op": "crm.refund", "call": "call_01"}), "either `call` alone"),
        (json!({}), "either `call` alone"),
        (json!({"op": "crm.refund", "input": input, "workflow": "none"}), "no workflow `none`"),
        (json!({"op": "crm.refund", "input": input, "given": {"now": "soon"}}), "no time such as"),
        (json!({"op": "crm.refund", "given": {"nose": 1}}), "nose"),
    ] {
        let got = post(&p, "omar", "/v1/explain", change).await;
        assert!(got.status == 422 && got.json()["detail"].as_str().unwrap().contains(why), "{why}: {got:?}");
    }
}

/// The id that an agent was told.
fn call_of(got: &Got) -> String {
    let body = got.json();
    let id = ["call", "call_id", "hold"].iter().find_map(|n| body[*n].as_str().map(str::to_owned));
    id.unwrap_or_else(|| got.header("holdpoint-call").to_owned())
}

#[tokio::test]
async fn what_was_recorded_is_explained_to_who_may_see_it() {
    let p = start().await;
    let held = p.refund("o_1", 8_000, &[]).await;
    let hold = held.json()["hold"].as_str().unwrap().to_owned();
    let told = ok(&p, "/v1/explain", json!({"call": hold})).await;
    assert_eq!((&told["tier"], &told["recorded"]["state"]), (&json!("medium"), &json!("held")), "{told}");
    assert!(told["recorded"]["same_policies"] == true && told["recorded"]["facts"] == true, "{told}");
    let mut same = ok(&p, "/v1/explain", json!({"call": hold.replace("hold_", "call_")})).await;
    assert_eq!(same, told);
    same.as_object_mut().unwrap().remove("policy_digest");
    assert_eq!(same, terminal(&p, &["explain", &hold]));

    // Refused calls and reads stand in the journal alone.
    let limit = json!({"creditLimitMinor": 5});
    let refused = p.agent("PATCH", "/crm/customers/c_1", &[], Some(&limit)).await;
    assert_eq!(refused.status, 403);
    p.until_line(|kind, _| kind == "call.refused").await;
    let told = ok(&p, "/v1/explain", json!({"call": call_of(&refused)})).await;
    assert_eq!((&told["tier"], &told["recorded"]["state"]), (&json!("deny"), &json!("refused")), "{told}");
    assert_eq!(told["closest"][0]["member"], "creditLimitMinor", "{told}");

    for id in ["call_01ARZ3NDEKTSV4RRFFQ69G5FAV", "nonsense", &hold[..12], ""] {
        assert_eq!(post(&p, "omar", "/v1/explain", json!({"call": id})).await.status, 404, "{id}");
    }
    for id in [hold, call_of(&refused)] {
        assert_eq!(post(&p, "sam", "/v1/explain", json!({"call": id})).await.status, 404, "sam sees no call");
    }
}

#[tokio::test]
async fn what_is_redacted_is_not_brought_to_light() {
    let phones = "@id(\"phones\") @reason(\"No such phone.\") forbid (principal, action == \
                  Holdpoint::Action::\"crm.update_customer\", resource) when { context.input has phone && \
                  context.input.phone like \"+1*\" };";
    let p = start().await;
    let change = json!({"email": "new@example.com", "phone": "+49 30 1234"});
    let done = p.agent("PATCH", "/crm/customers/c_1", &[], Some(&change)).await;
    assert_eq!(done.status, 200, "{done:?}");
    let call =
        p.reviewer("omar", "GET", "/v1/calls", None).await.json()["items"][0]["call_id"].as_str().unwrap().to_owned();
    let told = ok(&p, "/v1/explain", json!({"call": call})).await;
    assert!(told["tier"] == "low" && !told.to_string().contains("1234"), "{told}");

    p.rewrite("policies/agents.cedar", |text| format!("{text}\n{phones}"));
    assert_eq!(post(&p, "omar", "/v1/policies/activate", json!({})).await.status, 200);
    let got = post(&p, "omar", "/v1/explain", json!({"call": call})).await;
    assert_eq!((got.status, got.code().as_str()), (422, "not_explainable"), "{got:?}");
    assert!(
        got.json()["detail"].as_str().unwrap().contains("records do not show (crm.update_customer: phone)"),
        "{got:?}"
    );
    let replayed = ok(&p, "/v1/replay", json!({})).await;
    assert_eq!((&replayed["calls"], &replayed["not_asked"][0]["calls"]), (&json!(0), &json!(1)), "{replayed}");
}

#[tokio::test]
async fn calls_are_replayed_as_the_terminal_does() {
    let p = start().await;
    p.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    for (order, minor) in [("o_1", 1_200), ("o_2", 6_000), ("o_3", 8_000), ("o_4", 60_000)] {
        p.refund(order, minor, &[]).await;
    }
    let wider = changed(&p, "amountMinor > 5000 ", "amountMinor > 7000 ");
    let mut told = ok(&p, "/v1/replay", json!({"files": wider, "since": "1h"})).await;
    assert_eq!((&told["calls"], &told["changed"], &told["unchanged"]), (&json!(4), &json!(1), &json!(3)), "{told}");
    let moved = told["moved"][0].clone();
    assert_eq!((&moved["now"], &moved["next"], &moved["loosens"]), (&json!("medium"), &json!("low"), &json!(true)));
    assert!(moved["policies"] == json!(["refund-review"]) && !moved["title"].as_str().unwrap().is_empty(), "{moved}");
    let seen = post(&p, "sam", "/v1/replay", json!({"files": wider})).await.json();
    assert_eq!((&seen["moved"][0]["call"], &seen["moved"][0]["title"]), (&moved["call"], &json!("")), "{seen}");

    let next = p.dir.path().join("next");
    std::fs::create_dir_all(&next).unwrap();
    wider.iter().for_each(|(name, text)| std::fs::write(next.join(name), text).unwrap());
    let mut from_terminal = terminal(&p, &["replay", "--policies", "next"]);
    assert!(told["seconds"].is_f64() && told["since"].is_string(), "{told}");
    for name in ["seconds", "since", "changed"] {
        told.as_object_mut().unwrap().remove(name);
        from_terminal.as_object_mut().unwrap().remove(name);
    }
    assert_eq!(told, from_terminal);

    // Without files: what the disk has, beside what rules.
    assert_eq!(ok(&p, "/v1/replay", json!({})).await["changed"], 0);
    p.rewrite("policies/agents.cedar", |_| wider["agents.cedar"].clone());
    assert_eq!(ok(&p, "/v1/replay", json!({})).await["changed"], 1);
    let bad = post(&p, "omar", "/v1/replay", json!({"files": {"a.cedar": "permit"}})).await;
    assert_eq!((bad.status, bad.code().as_str()), (422, "policy_rejected"), "{bad:?}");
    assert!(bad.json()["detail"].as_str().unwrap().contains("a.cedar:1:"), "{bad:?}");
    for since in ["soon", "-1d", "7"] {
        assert_eq!(post(&p, "omar", "/v1/replay", json!({"since": since})).await.status, 422, "{since}");
    }
}

#[tokio::test]
async fn a_history_ends_where_it_is_told_to() {
    let p = start().await;
    for n in 0..5 {
        p.refund(&format!("o_{n}"), 8_000 + n, &[]).await;
    }
    let state = p.dir.path().join("state");
    let read = |limits| history::read(&state, Timestamp::from_millis(0), limits).unwrap();
    let all = read(Limits::NONE);
    assert_eq!((all.calls.len(), all.cut), (5, false));
    assert!(read(Limits { calls: 2, ..Limits::NONE }).cut);
    assert!(read(Limits { bytes: 100, ..Limits::NONE }).cut);
    let none = read(Limits { go_on: &|| false, ..Limits::NONE });
    assert_eq!((none.calls.len(), none.cut), (0, true));
    let wanted = &all.calls[3];
    let one = history::one(&state, wanted.id).unwrap().unwrap();
    assert_eq!((one.id, one.arguments), (wanted.id, wanted.arguments.clone()));
}
