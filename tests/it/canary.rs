//! Secrets stand in no file, log, page, metric or error; and one flipped byte of the journal is found.

use std::path::Path;

use serde_json::json;

use crate::binary::Site;
use crate::harness::{CRM_TOKEN, OTHER_KEY, SUPPORT_KEY, Setup, answer, send, token};

const PHONE: &str = "+49-canary-0170-555";
const SESSION: &str = "upstream-set-cookie-canary";

fn canaries() -> Vec<(&'static str, String)> {
    vec![
        ("agent key", SUPPORT_KEY.into()),
        ("another agent's key", OTHER_KEY.into()),
        ("reviewer token", token("maya")),
        ("another reviewer's token", token("omar")),
        ("upstream credential", CRM_TOKEN.into()),
        ("redacted field", PHONE.into()),
        ("cookie of the upstream", SESSION.into()),
        ("wrong key", "wrong-key-canary-1234567890".into()),
    ]
}

/// Every file below a folder.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if let Ok(bytes) = std::fs::read(&path) {
            all.push((path.display().to_string(), bytes));
        }
    }
    all
}

fn holds(bytes: &[u8], canary: &str) -> bool {
    bytes.windows(canary.len()).any(|w| w == canary.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_stand_in_no_file_log_page_metric_or_error() {
    // Payloads are sealed where a key is configured; what is chained is never secret in any case.
    let site = Site::new(
        Setup::new()
            .config("state:    { path: state }", "state:    { path: state, encryption_key: { file: secrets/state } }")
            .file("secrets/state", &"5a".repeat(32))
            .more_policies(
                "@id(\"phone-review\") @reason(\"Phone numbers are reviewed.\") @approvers(\"support-leads\")\n\
                 forbid (principal, action == Holdpoint::Action::\"crm.update_customer\", resource)\n\
                 when { context.input has phone } unless { context.approval.granted };\n",
            ),
    )
    .await;
    site.upstream.script(|_| {
        let mut reaction = answer(200, &json!({"ok": true}));
        if let crate::harness::Reaction::Answer(_, headers, _) = &mut reaction {
            headers.push(("set-cookie", format!("s={SESSION}")));
        }
        reaction
    });
    let running = site.start().await;
    let mut told: Vec<(String, String)> = Vec::new();
    let mut tell = |what: &str, got: &crate::harness::Got| {
        told.push((what.to_owned(), format!("{:?} {}", got.headers, String::from_utf8_lossy(&got.body))));
    };
    let key = format!("Bearer {SUPPORT_KEY}");
    let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
    let patch = |body: serde_json::Value| {
        let agents = running.agents;
        async move { send(agents, "PATCH", "/crm/customers/c_1", &headers, body.to_string().as_bytes()).await }
    };
    let held = patch(json!({"phone": PHONE})).await;
    assert_eq!(held.code(), "held", "{:?}", held.json());
    tell("held", &held);
    let hold = held.json()["hold"].as_str().unwrap().to_owned();
    tell("invalid", &patch(json!({"phone": format!("{PHONE}{}", "0".repeat(40))})).await);
    tell("forbidden", &patch(json!({"phone": PHONE, "creditLimitMinor": 1})).await);
    tell(
        "duplicate",
        &send(
            running.agents,
            "PATCH",
            "/crm/customers/c_1",
            &headers,
            format!("{{\"phone\":\"{PHONE}\",\"phone\":1}}").as_bytes(),
        )
        .await,
    );
    tell(
        "malformed",
        &send(
            running.agents,
            "PATCH",
            "/crm/customers/c_1",
            &headers,
            format!("{{\"phone\":\"{PHONE}\",}}").as_bytes(),
        )
        .await,
    );
    let wrong = [("authorization", "Bearer wrong-key-canary-1234567890")];
    tell("wrong key", &send(running.agents, "GET", "/crm/customers/c_1", &wrong, b"").await);
    tell("wrong token", &send(running.admin, "GET", "/v1/holds", &wrong, b"").await);
    tell("read", &running.get("/crm/customers/c_1").await);
    for path in [format!("/v1/holds/{hold}"), "/v1/holds".into(), "/v1/me".into(), "/metrics".into()] {
        tell(&path, &running.reviewer("maya", "GET", &path, "").await);
    }
    let page = sign_in(&running, &hold).await;
    assert!(String::from_utf8_lossy(&page.body).contains("phone"), "not the page of the hold");
    tell("page", &page);
    assert_eq!(running.approve("maya", &hold).await.status, 200);
    let wait = [headers[0], headers[1], ("prefer", "wait=20")];
    let body = json!({"phone": PHONE}).to_string();
    let done = send(running.agents, "PATCH", "/crm/customers/c_1", &wait, body.as_bytes()).await;
    assert_eq!((done.status, done.decision()), (200, "replayed"));
    tell("done", &done);
    let sent = site.upstream.seen();
    assert!(sent.iter().any(|s| s.body == body), "the upstream gets the value itself");
    tell("call", &running.reviewer("omar", "GET", &format!("/v1/calls/{}", hold.replace("hold_", "call_")), "").await);
    let log = running.log.clone();
    assert_eq!(running.stop().await, Some(0));
    let log = log.lock().unwrap().join("\n");
    assert!(log.contains("\"message\":\"call\""));

    let mut found = Vec::new();
    let state = files(&site.state());
    assert!(state.len() > 2);
    for (what, canary) in canaries() {
        found.extend(state.iter().filter(|(_, b)| holds(b, &canary)).map(|(file, _)| format!("{what} in {file}")));
        found.extend(told.iter().filter(|(_, t)| t.contains(&canary)).map(|(at, _)| format!("{what} in answer: {at}")));
        found.extend(log.lines().filter(|l| l.contains(&canary)).map(|l| format!("{what} in the log: {l}")));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// The review page of a hold, read by a person who signs in with a token.
async fn sign_in(running: &crate::binary::Binary, hold: &str) -> crate::harness::Got {
    let origin = format!("http://{}", running.admin);
    let form = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("origin", origin.as_str()),
        ("sec-fetch-site", "same-origin"),
    ];
    let body = format!("token={}", token("maya"));
    let got = send(running.admin, "POST", "/sign-in", &form, body.as_bytes()).await;
    let cookie = got.header("set-cookie").split(';').next().unwrap_or_default().to_owned();
    assert!(got.status == 303 && !cookie.is_empty(), "{} {:?}", got.status, String::from_utf8_lossy(&got.body));
    send(running.admin, "GET", &format!("/holds/{hold}"), &[("cookie", &cookie)], b"").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_for_payloads_what_is_chained_holds_no_secret_either() {
    let site = Site::new(Setup::new()).await;
    let running = site.start().await;
    let key = format!("Bearer {SUPPORT_KEY}");
    let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
    let body = json!({"phone": PHONE, "email": "a@b.c"}).to_string();
    let got = send(running.agents, "PATCH", "/crm/customers/c_1", &headers, body.as_bytes()).await;
    assert_eq!(got.status, 200);
    assert_eq!(running.stop().await, Some(0));
    for (file, bytes) in files(&site.state()) {
        for (what, canary) in canaries().into_iter().filter(|(what, _)| *what != "redacted field") {
            assert!(!holds(&bytes, &canary), "{what} in {file}");
        }
    }
    for line in crate::harness::lines(&site.state()) {
        let event = line.event.get();
        for (what, canary) in canaries() {
            assert!(!event.contains(&canary), "{what} in a chained record: {event}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_flipped_byte_of_the_journal_is_found() {
    let site = Site::new(Setup::new()).await;
    let running = site.start().await;
    for i in 0..4 {
        assert_eq!(running.refund(&format!("o_{i}"), 100, &[]).await.status, 200);
    }
    assert_eq!(running.stop().await, Some(0));
    let (code, said) = Site::verify(&site.state());
    assert_eq!(code, Some(0), "{said}");
    let segments: Vec<_> = files(&site.state().join("journal")).into_iter().filter(|(_, b)| !b.is_empty()).collect();
    let (name, bytes) = segments.iter().max_by_key(|(_, b)| b.len()).unwrap();
    let name = Path::new(name).file_name().unwrap();
    // A byte in every thirty-second part of the file.
    for part in 0..32 {
        let at = bytes.len() * part / 32;
        let copy = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(copy.path().join("journal")).unwrap();
        for (other, content) in &segments {
            std::fs::write(copy.path().join("journal").join(Path::new(other).file_name().unwrap()), content).unwrap();
        }
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        std::fs::write(copy.path().join("journal").join(name), flipped).unwrap();
        let (code, said) = Site::verify(copy.path());
        assert_eq!(code, Some(2), "byte {at} of {}: {said}", bytes.len());
    }
}
