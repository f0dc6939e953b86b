//! Secrets stand in no file, log, page, metric or error; and one flipped byte of the journal is found.

use std::path::Path;

use serde_json::json;

use crate::binary::{Binary, Site};
use crate::harness::{CRM_TOKEN, Got, OTHER_KEY, Reaction, SUPPORT_KEY, Setup, send, token};

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

/// Phone numbers are held; payloads are sealed.
fn setup() -> Setup {
    Setup::new()
        .config("state:    { path: state }", "state:    { path: state, encryption_key: { file: secrets/state } }")
        .file("secrets/state", &"5a".repeat(32))
        .more_policies(
            "@id(\"phone-review\") @reason(\"Phone numbers are reviewed.\") @approvers(\"support-leads\")\n\
             forbid (principal, action == Holdpoint::Action::\"crm.update_customer\", resource)\n\
             when { context.input has phone } unless { context.approval.granted };\n",
        )
}

/// Everything that was answered, with what it answered.
#[derive(Default)]
struct Told(Vec<(String, String)>);

impl Told {
    fn hear(&mut self, what: &str, got: &Got) {
        self.0.push((what.to_owned(), format!("{:?} {}", got.headers, String::from_utf8_lossy(&got.body))));
    }
}

async fn patch(running: &Binary, more: &[(&str, &str)], body: &str) -> Got {
    let key = format!("Bearer {SUPPORT_KEY}");
    let mut headers = vec![("authorization", key.as_str()), ("content-type", "application/json")];
    headers.extend_from_slice(more);
    send(running.agents, "PATCH", "/crm/customers/c_1", &headers, body.as_bytes()).await
}

/// Everything that goes wrong with a secret in it.
async fn errors(running: &Binary, told: &mut Told) {
    let long = format!("{PHONE}{}", "0".repeat(40));
    told.hear("invalid", &patch(running, &[], &json!({"phone": long}).to_string()).await);
    let never = json!({"phone": PHONE, "creditLimitMinor": 1}).to_string();
    told.hear("forbidden", &patch(running, &[], &never).await);
    told.hear("duplicate", &patch(running, &[], &format!("{{\"phone\":\"{PHONE}\",\"phone\":1}}")).await);
    told.hear("malformed", &patch(running, &[], &format!("{{\"phone\":\"{PHONE}\",}}")).await);
    let wrong = [("authorization", "Bearer wrong-key-canary-1234567890")];
    told.hear("wrong key", &send(running.agents, "GET", "/crm/customers/c_1", &wrong, b"").await);
    told.hear("wrong token", &send(running.admin, "GET", "/v1/holds", &wrong, b"").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_stand_in_no_file_log_page_metric_or_error() {
    let site = Site::new(setup()).await;
    site.upstream.script(|_| {
        let cookie = ("set-cookie", format!("s={SESSION}"));
        let json = ("content-type", "application/json".to_owned());
        Reaction::Answer(http::StatusCode::OK, vec![json, cookie], "{}".into())
    });
    let running = site.start().await;
    let mut told = Told::default();
    let body = json!({"phone": PHONE}).to_string();
    let held = patch(&running, &[], &body).await;
    assert_eq!(held.code(), "held", "{:?}", held.json());
    told.hear("held", &held);
    let hold = held.json()["hold"].as_str().unwrap().to_owned();
    errors(&running, &mut told).await;
    told.hear("read", &running.get("/crm/customers/c_1").await);
    for path in [format!("/v1/holds/{hold}"), "/v1/holds".into(), "/v1/me".into(), "/metrics".into()] {
        told.hear(&path, &running.reviewer("maya", "GET", &path, "").await);
    }
    let page = sign_in(&running, &hold).await;
    assert!(String::from_utf8_lossy(&page.body).contains("phone"), "not the page of the hold");
    told.hear("page", &page);
    assert_eq!(running.approve("maya", &hold).await.status, 200);
    let done = patch(&running, &[("prefer", "wait=20")], &body).await;
    assert_eq!((done.status, done.decision()), (200, "replayed"));
    told.hear("done", &done);
    assert!(site.upstream.seen().iter().any(|s| s.body == body), "the upstream gets the value itself");
    let call = format!("/v1/calls/{}", hold.replace("hold_", "call_"));
    told.hear("call", &running.reviewer("omar", "GET", &call, "").await);
    let log = running.log.clone();
    assert_eq!(running.stop().await, Some(0));
    let log = log.lock().unwrap().join("\n");
    assert!(log.contains("\"message\":\"call\""));

    let mut found = Vec::new();
    let state = files(&site.state());
    assert!(state.len() > 2);
    for (what, canary) in canaries() {
        found.extend(state.iter().filter(|(_, b)| holds(b, &canary)).map(|(file, _)| format!("{what} in {file}")));
        found.extend(
            told.0.iter().filter(|(_, t)| t.contains(&canary)).map(|(at, _)| format!("{what} in answer: {at}")),
        );
        found.extend(log.lines().filter(|l| l.contains(&canary)).map(|l| format!("{what} in the log: {l}")));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// The review page of a hold, read by a person who signs in with a token.
async fn sign_in(running: &Binary, hold: &str) -> Got {
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
