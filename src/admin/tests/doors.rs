//! Who gets in: hosts, origins, credentials, roles; and what needs none.

use super::*;

/// Every route with what an honest caller would send, and who may not.
fn table(hold: &CallRecord, call: &CallRecord) -> Vec<(&'static str, String, Option<Value>, &'static str, u16)> {
    let (h, c) = (hold.id.hold(), call.id);
    let yes = json!({"digest": hold.digest, "justification": "x"});
    let no = json!({"digest": hold.digest, "reason_code": "other"});
    let edit = json!({"digest": hold.digest, "patch": [], "note": "x"});
    let cluster = super::super::group::cluster(hold).unwrap();
    let batch = json!({"action": "reject", "cluster": cluster, "items": [{"id": h, "digest": hold.digest}]});
    vec![
        ("GET", format!("/v1/holds/{h}"), None, "nobody", 404),
        ("GET", format!("/v1/holds/{h}/wait?timeout=0"), None, "nobody", 404),
        ("POST", format!("/v1/holds/{h}/approve"), Some(yes.clone()), "nobody", 404),
        ("POST", format!("/v1/holds/{h}/approve"), Some(yes), "ana", 403),
        ("POST", format!("/v1/holds/{h}/reject"), Some(no), "nobody", 404),
        ("POST", format!("/v1/holds/{h}/edit"), Some(edit.clone()), "nobody", 404),
        ("POST", format!("/v1/holds/{h}/edit"), Some(edit), "ana", 403),
        ("POST", "/v1/holds/batch".to_owned(), Some(batch), "nobody", 404),
        ("GET", format!("/v1/clusters/{cluster}"), None, "nobody", 404),
        ("POST", format!("/v1/calls/{c}/undo"), Some(json!({"justification": "x"})), "maya", 404),
        ("POST", format!("/v1/holds/{h}/claim"), Some(json!({})), "nobody", 404),
        ("DELETE", format!("/v1/holds/{h}/claim"), None, "nobody", 404),
        ("GET", format!("/v1/holds/{h}/comments"), None, "nobody", 404),
        ("POST", format!("/v1/holds/{h}/comments"), Some(json!({"text": "x"})), "nobody", 404),
        ("POST", format!("/v1/holds/{h}/evidence"), Some(json!({"kind": "k", "text": "x"})), "nobody", 404),
        ("POST", format!("/v1/holds/{h}/evidence-requests"), Some(json!({"kinds": ["k"]})), "nobody", 404),
        ("POST", format!("/v1/holds/{h}/escalate"), Some(json!({"to": "x", "reason": "x"})), "nobody", 404),
        ("POST", format!("/v1/holds/{h}/withdraw"), Some(json!({"reason": "x"})), "maya", 403),
        ("GET", format!("/v1/calls/{c}"), None, "maya", 404),
        ("POST", format!("/v1/calls/{c}/reconcile"), Some(json!({"outcome": "succeeded", "reason": "x"})), "maya", 404),
        ("GET", "/v1/me".to_owned(), None, "", 0),
        ("GET", "/v1/holds".to_owned(), None, "", 0),
        ("GET", "/v1/calls".to_owned(), None, "", 0),
    ]
}

fn request(method: &str, path: &str, body: Option<&Value>, authorization: Option<&str>) -> Request<Body> {
    let mut request = ask(method, path);
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    match body {
        Some(json) => request.header("content-type", "application/json").body(Body::from(json.to_string())).unwrap(),
        None => request.body(Body::empty()).unwrap(),
    }
}

#[tokio::test]
async fn every_route_of_the_api_needs_a_reviewer_of_the_right_role() {
    let w = World::new();
    let (hold, call) = (w.hold(8800).await, w.unknown().await);
    let wrong = ["Bearer agent-key-0123456789", "Bearer ", "Basic bWF5YTp4", "Bearer maya", "bearer", ""];
    for (method, path, body, role, want) in table(&hold, &call) {
        for authorization in wrong.into_iter().map(Some).chain([None]) {
            let got = w.send(request(method, &path, body.as_ref(), authorization)).await;
            assert_eq!(got.code(), (401, "unauthenticated".into()), "{method} {path} {authorization:?}");
            assert!(got.headers.contains_key("www-authenticate"));
        }
        let mut cookie = request(method, &path, body.as_ref(), None);
        cookie.headers_mut().insert("cookie", format!("holdpoint={}", token("maya")).parse().unwrap());
        assert_eq!(w.send(cookie).await.code().0, 401, "no cookie opens the API: {path}");
        if want != 0 {
            let got = w.send(request(method, &path, body.as_ref(), Some(&bearer(role)))).await;
            assert_eq!(got.status.as_u16(), want, "{method} {path} as {role}: {}", got.text);
        }
        let other = if method == "GET" { "POST" } else { "GET" };
        if path.ends_with("/comments") {
            continue; // It takes both.
        }
        let got = w.send(request(other, &path, None, Some(&bearer("maya")))).await;
        assert_eq!(got.status, StatusCode::METHOD_NOT_ALLOWED, "{other} {path}");
    }
    assert_eq!(w.store.get(hold.id).await.unwrap().unwrap().version, 1, "nothing was decided");
    assert_eq!(w.send(request("GET", "/v1/nope", None, None)).await.code(), (404, "not_found".into()));
}

#[tokio::test]
async fn hosts_and_origins_come_before_anything_else() {
    let w = World::new();
    for path in ["/", "/v1/me", "/livez", "/metrics", "/sign-in", "/nope"] {
        let send = |name: &'static str, value: &'static str| {
            let mut request = ask("GET", path).header("authorization", bearer("maya")).body(Body::empty()).unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
            request
        };
        for host in ["evil.com", "localhost.evil.com:8701", "localhost@evil.com", "", "LOCALHOST:", "localhost, evil"] {
            assert_eq!(w.send(send("host", host)).await.code(), (400, "malformed_request".into()), "{path} {host}");
        }
        for origin in ["null", "http://evil.com", "http://localhost.evil.com", "file://", "localhost", ""] {
            assert_eq!(w.send(send("origin", origin)).await.code(), (403, "cross_origin".into()), "{path} {origin}");
        }
        let mut twice = send("host", "localhost");
        twice.headers_mut().append("host", "localhost".parse().unwrap());
        assert_eq!(w.send(twice).await.code().0, 400);
        let none = Request::builder().uri(path).body(Body::empty()).unwrap();
        assert_eq!(w.send(none).await.code().0, 400);
        let other = ask("GET", &format!("http://127.0.0.1:1{path}")).body(Body::empty()).unwrap();
        assert_eq!(w.send(other).await.code().0, 400, "two authorities");
    }
    let ours = ask("GET", "/v1/me").header("origin", "http://localhost:8701").header("authorization", bearer("maya"));
    assert_eq!(w.send(ours.body(Body::empty()).unwrap()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn health_and_metrics_need_no_credential_and_tell_nothing_of_calls() {
    let w = World::new();
    w.hold(8800).await;
    let get = |path: &str| ask("GET", path).body(Body::empty()).unwrap();
    for path in ["/livez", "/startupz", "/readyz"] {
        assert_eq!(w.send(get(path)).await.text, "ok\n");
    }
    let metrics = w.send(get("/metrics")).await.text;
    assert!(metrics.contains("holdpoint_holds{state=\"held\",tier=\"medium\"} 1"), "{metrics}");
    assert!(metrics.contains("holdpoint_ready 1") && metrics.contains("holdpoint_info{"));
    assert!(!metrics.contains("c_204") && !metrics.contains("support-bot"));
    w.draining.send(true).unwrap();
    let got = w.send(get("/readyz?verbose")).await;
    assert_eq!(got.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(got.text.contains("[-] not draining") && got.text.contains("[+] store writable"), "{}", got.text);
    assert_eq!(w.send(get("/livez")).await.status, StatusCode::OK);
    assert!(w.send(get("/metrics")).await.text.contains("holdpoint_ready 0"));
}

#[tokio::test]
async fn a_token_that_is_taken_away_opens_nothing_more() {
    let w = World::new();
    assert_eq!(w.get("maya", "/v1/me").await.status, StatusCode::OK);
    w.reload(&USERS[1..]);
    assert_eq!(w.get("maya", "/v1/me").await.code(), (401, "unauthenticated".into()));
    assert_eq!(w.get("noor", "/v1/me").await.status, StatusCode::OK);
}

#[tokio::test]
async fn every_answer_carries_the_safe_headers() {
    let w = World::new();
    for path in ["/", "/sign-in", "/v1/me", "/livez", "/nope", "/style.css"] {
        let got = w.send(ask("GET", path).body(Body::empty()).unwrap()).await;
        let is = |name: &str| got.headers[name].to_str().unwrap().to_owned();
        assert!(is("content-security-policy").contains("default-src 'none'"), "{path}");
        assert!(is("content-security-policy").contains("frame-ancestors 'none'"), "{path}");
        assert_eq!((is("x-content-type-options"), is("cache-control")), ("nosniff".into(), "no-store".into()));
        assert_eq!(is("referrer-policy"), "same-origin");
    }
}

/// Every byte of the journal, as text.
fn journal(w: &World) -> String {
    let all = std::fs::read_dir(w.dir.path().join("state/journal")).unwrap();
    all.map(|f| String::from_utf8_lossy(&std::fs::read(f.unwrap().path()).unwrap()).into_owned()).collect()
}

#[tokio::test]
async fn sign_ins_and_refused_decisions_leave_a_record_without_secrets() {
    let w = World::new();
    let hold = w.hold(8800).await;
    let body = json!({"digest": hold.digest});
    assert_eq!(w.post("ana", &format!("/v1/holds/{}/approve", hold.id.hold()), body).await.status.as_u16(), 403);
    let form = format!("token={}", token("maya"));
    let request = ask("POST", "/sign-in").header("origin", "http://localhost:8701");
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(Body::from(form)).unwrap();
    assert_eq!(w.send(request).await.status, StatusCode::SEE_OTHER);
    let text = journal(&w);
    for part in ["admin.refused", "self_review", "admin.signed_in"] {
        assert!(text.contains(part), "{part}");
    }
    assert!(!text.contains(&token("maya")) && !text.contains("holdpoint="));
}

#[tokio::test]
async fn the_listener_itself_is_strict() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let w = World::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let serving = crate::tasks::spawn(crate::admin::serve(listener, None, w.router.clone(), stopped));
    let many = format!("GET /livez HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(70));
    for (sent, want) in [
        ("GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", "200"),
        ("GET /livez HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\nconnection: close\r\n\r\n", "400"),
        ("GET /livez HTTP/1.1\r\nconnection: close\r\n\r\n", "400"),
        ("GET http://evil.com/livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", "400"),
        ("GET http://evil.com/livez HTTP/1.1\r\nhost: evil.com\r\nconnection: close\r\n\r\n", "400"),
        ("CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", "4"),
        (many.as_str(), "431"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {want}")), "{sent}: {answer}");
    }
    stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(4), serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_the_description_names_exists_and_only_the_description_is_open() {
    let w = World::new();
    let document = w.send(request("GET", "/v1/openapi.json", None, None)).await;
    assert_eq!(document.status, StatusCode::OK);
    assert_eq!(document.json(), super::description());
    let mut open = Vec::new();
    for (template, item) in document.json()["paths"].as_object().unwrap() {
        let path: String =
            template.split('/').map(|p| if p.starts_with('{') { "/x" } else { p }).collect::<Vec<_>>().join("/");
        let path = path.replace("//", "/");
        for (method, op) in item.as_object().unwrap() {
            let got = w.send(request(&method.to_uppercase(), &path, None, None)).await;
            if got.status == StatusCode::OK {
                open.push(template.clone());
                assert_eq!(op["security"], json!([]));
            } else {
                assert_eq!(got.code(), (401, "unauthenticated".into()), "{method} {path}");
            }
            let got = w
                .send(request(&method.to_uppercase(), &format!("{path}?nonsense=1"), None, Some(&bearer("maya"))))
                .await;
            assert_eq!(got.code(), (400, "unknown_parameter".into()), "{method} {path}");
        }
    }
    assert_eq!(open, ["/v1/openapi.json"]);
}

/// The other half of it: what stands in another table would not be in the description.
#[test]
fn no_route_below_v1_stands_outside_of_the_described_table() {
    let room = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin");
    let text = std::fs::read_to_string(room.join("mod.rs")).unwrap();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| l.contains("\"/v1")).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with(".nest(\"/v1\", v1::api().router()"), "{lines:?}");
}

#[tokio::test]
async fn a_path_that_is_no_utf_8_is_refused_like_everything_else() {
    let w = World::new();
    for path in ["/v1/holds/%FF", "/v1/calls/%C3%28/undo", "/holds/%80"] {
        let got = w.send(request("GET", path, None, Some(&bearer("maya")))).await;
        assert_eq!(got.code(), (400, "malformed_request".into()), "{path}");
    }
}

#[tokio::test]
async fn holds_that_nobody_could_approve_are_counted() {
    let w = World::new();
    w.hold(8800).await;
    let not_hers = Principal { acting_for: None, acting_for_email: None, ..support_bot() };
    w.hold_of("crm.refund", refund(8801), not_hers, &[]).await;
    let count = async || {
        let text = w.send(ask("GET", "/metrics").body(Body::empty()).unwrap()).await.text;
        let line = text.lines().find(|l| l.starts_with("holdpoint_holds_without_approver ")).map(str::to_owned);
        line.and_then(|l| l.rsplit(' ').next()?.parse::<u64>().ok())
    };
    assert_eq!(count().await, Some(0), "evidence is missing, not a person");
    let only_ana: Vec<_> = USERS.into_iter().filter(|(user, ..)| !["maya", "noor"].contains(user)).collect();
    w.reload(&only_ana);
    assert_eq!(count().await, Some(1), "she cannot approve her own");
}

#[tokio::test]
async fn whom_policy_lets_drain_gets_an_answer_and_the_reason_is_kept() {
    let w = World::new();
    let said = json!({"reason": "a new version"});
    assert_eq!(w.post("maya", "/v1/drain", said.clone()).await.code(), (403, "forbidden".into()));
    assert_eq!(w.post("pat", "/v1/drain", json!({})).await.status.as_u16(), 422);
    assert_eq!(w.post("pat", "/v1/drain", json!({"reason": "\t"})).await.status.as_u16(), 422);
    assert!(!*w.draining.borrow());
    for _ in 0..2 {
        let got = w.post("pat", "/v1/drain", said.clone()).await;
        assert_eq!((got.status.as_u16(), got.json()), (202, json!({"draining": true, "drain_s": 25})));
    }
    assert!(*w.draining.borrow());
    let log = w.get("pat", "/v1/audit?kind=drain.begun").await.json();
    assert_eq!((log["items"].as_array().unwrap().len(), &log["items"][0]["who"]), (1, &json!("pat")), "{log}");
}
