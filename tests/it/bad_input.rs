//! What must not pass: one table of inputs and the code each is refused with. The upstream sees no byte of any.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{OTHER_KEY, Proxy, SUPPORT_KEY, Setup, answer};

/// A row: what it is, the bytes on the wire, the expected status and code.
struct Row {
    what: String,
    bytes: Vec<u8>,
    status: u16,
    code: &'static str,
}

/// What came back: status, body, and whether the proxy closed the connection.
struct Back {
    status: u16,
    head: String,
    body: String,
    closed: bool,
}

impl Back {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// The code of a problem document, of a JSON-RPC error, or of an MCP tool result.
    fn code(&self) -> String {
        let all = self.json();
        let at = ["/code", "/error/data/code", "/result/_meta/dev.holdpoint~1refusal/code"];
        at.iter().filter_map(|p| all.pointer(p)).find_map(Value::as_str).unwrap_or_default().to_owned()
    }
}

/// Sends raw bytes and reads one answer; then waits for the end of the connection where `to_end`.
async fn exchange(p: &Proxy, bytes: Vec<u8>, to_end: bool) -> Back {
    let (mut read, mut write) = TcpStream::connect(p.agents()).await.unwrap().into_split();
    // The proxy may answer and close before it has read everything.
    let writer = tokio::spawn(async move {
        let _ = write.write_all(&bytes).await;
        write
    });
    let mut all = Vec::new();
    let mut buf = vec![0u8; 16 << 10];
    let mut closed = false;
    let whole = |all: &[u8]| {
        let end = all.windows(4).position(|w| w == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&all[..end]).to_lowercase();
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok()).unwrap_or(0);
        (all.len() >= end + 4 + length).then_some(end)
    };
    let limit = Duration::from_secs(20);
    while to_end || whole(&all).is_none() {
        match tokio::time::timeout(limit, read.read(&mut buf)).await {
            Ok(Ok(n)) if n > 0 => all.extend_from_slice(&buf[..n]),
            Ok(_) => {
                closed = true;
                break;
            }
            Err(_) => break,
        }
    }
    writer.abort();
    let end = whole(&all).unwrap_or_else(|| panic!("no whole answer: {:?}", String::from_utf8_lossy(&all)));
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap();
    Back { status, body: String::from_utf8_lossy(&all[end + 4..]).into_owned(), head, closed }
}

/// A request as text; the `Host` and credential lines can be replaced.
fn request(line: &str, fields: &[&str], body: &[u8]) -> Vec<u8> {
    let named = |name: &str| fields.iter().any(|f| f.to_lowercase().starts_with(name));
    let mut head = format!("{line} HTTP/1.1\r\n");
    if !named("host:") {
        head.push_str("Host: localhost\r\n");
    }
    if !named("authorization:") && !named("x-api-key:") && !named("-authorization") {
        head.push_str(&format!("Authorization: Bearer {SUPPORT_KEY}\r\n"));
    }
    if !body.is_empty() && !named("content-type:") {
        head.push_str("Content-Type: application/json\r\n");
    }
    if !body.is_empty() && !named("content-length:") && !named("transfer-encoding:") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for field in fields.iter().filter(|f| !f.starts_with('-')) {
        head.push_str(field);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

const REFUND: &str = "POST /crm/orders/o_1/refunds";
const GOOD: &str = r#"{"customerId":"c_1","amountMinor":1200,"currency":"EUR"}"#;
const GET: &str = "GET /crm/customers/c_1";
const MCP: &str = "POST /tickets/mcp";
const CALL: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_ticket","arguments":{"ticketId":"t_1"}}}"#;

fn row(what: &str, bytes: Vec<u8>, status: u16, code: &'static str) -> Row {
    Row { what: what.into(), bytes, status, code }
}

fn schema_rows() -> Vec<Row> {
    let refund = |what: &str, body: &str| row(what, request(REFUND, &[], body.as_bytes()), 422, "invalid_arguments");
    vec![
        refund("unknown field", r#"{"customerId":"c_1","amountMinor":1,"currency":"EUR","note":"x"}"#),
        refund("missing field", r#"{"customerId":"c_1","amountMinor":1}"#),
        refund("wrong type", r#"{"customerId":"c_1","amountMinor":"1","currency":"EUR"}"#),
        refund("a float for an integer", r#"{"customerId":"c_1","amountMinor":1.5,"currency":"EUR"}"#),
        refund("outside the range", r#"{"customerId":"c_1","amountMinor":-5,"currency":"EUR"}"#),
        refund(
            "a path value again in the body",
            r#"{"orderId":"o_2","customerId":"c","amountMinor":1,"currency":"EUR"}"#,
        ),
        refund("no object", "[1]"),
        row("no body", request(REFUND, &["Content-Length: 0"], b""), 422, "invalid_arguments"),
        row("an unknown name in the query", request("GET /crm/customers/c_1?x=1", &[], b""), 422, "invalid_arguments"),
        row("MCP arguments", request(MCP, &[], CALL.replace("ticketId", "id").as_bytes()), 200, "invalid_arguments"),
        row(
            "MCP arguments of a wrong type",
            request(MCP, &[], CALL.replace("\"t_1\"", "1").as_bytes()),
            200,
            "invalid_arguments",
        ),
    ]
}

fn json_rows() -> Vec<Row> {
    let refund = |what: &str, body: &[u8]| row(what, request(REFUND, &[], body), 400, "malformed_request");
    let amount = |n: &str| format!(r#"{{"customerId":"c_1","amountMinor":{n},"currency":"EUR"}}"#);
    let deep = format!(r#"{{"customerId":{}1{}}}"#, "[".repeat(100), "]".repeat(100));
    let wide = format!(r#"{{"customerId":[{}1]}}"#, "1,".repeat(10_001));
    vec![
        refund("duplicate key", br#"{"customerId":"c_1","amountMinor":1,"amountMinor":2,"currency":"EUR"}"#),
        refund(
            "escaped duplicate key",
            br#"{"customerId":"c_1","amountMinor":1,"\u0061mountMinor":2,"currency":"EUR"}"#,
        ),
        refund("not JSON", b"{"),
        refund("two values", b"{} {}"),
        refund("bytes that are not UTF-8", b"{\"customerId\":\"\xff\"}"),
        refund("a lone surrogate", br#"{"customerId":"\ud800","amountMinor":1,"currency":"EUR"}"#),
        refund("a byte order mark", format!("\u{feff}{GOOD}").as_bytes()),
        refund("-0", amount("-0").as_bytes()),
        refund("1e309", amount("1e309").as_bytes()),
        refund("2^53+1", amount("9007199254740993").as_bytes()),
        refund("NaN", amount("NaN").as_bytes()),
        refund("deep JSON", deep.as_bytes()),
        refund("wide JSON", wide.as_bytes()),
    ]
}

fn body_rows() -> Vec<Row> {
    let big = vec![b' '; 11 << 20];
    let mut chunked = request(REFUND, &["Transfer-Encoding: chunked"], b"");
    for _ in 0..11 {
        chunked.extend_from_slice(b"100000\r\n");
        chunked.extend_from_slice(&vec![b' '; 1 << 20]);
        chunked.extend_from_slice(b"\r\n");
    }
    let typed = |field: &str, body: &[u8]| request(REFUND, &[field], body);
    let unsupported = "unsupported_encoding";
    let mut trailers = request(REFUND, &["Transfer-Encoding: chunked", "Content-Type: application/json"], b"");
    trailers
        .extend_from_slice(format!("{:x}\r\n{GOOD}\r\n0\r\nAuthorization: Bearer x\r\n\r\n", GOOD.len()).as_bytes());
    vec![
        row("11 MB body", request(REFUND, &[], &big), 413, "body_too_large"),
        row("11 MB body without a length", chunked, 413, "body_too_large"),
        row("11 MB to MCP", request(MCP, &[], &big), 413, "body_too_large"),
        row("content coding", typed("Content-Encoding: gzip", GOOD.as_bytes()), 415, unsupported),
        row(
            "another charset",
            typed("Content-Type: application/json; charset=utf-16", GOOD.as_bytes()),
            415,
            unsupported,
        ),
        row("multipart", typed("Content-Type: multipart/form-data; boundary=x", b"--x--"), 415, unsupported),
        row("bytes", typed("Content-Type: application/octet-stream", b"\xff\xfe"), 415, unsupported),
        row("MCP as text", request(MCP, &["Content-Type: text/plain"], CALL.as_bytes()), 415, unsupported),
        row("GET with a body", request(GET, &[], b"{}"), 400, "malformed_request"),
        row("trailers", trailers, 400, "malformed_request"),
        row(
            "a body cut short of its length",
            {
                let mut cut = request(REFUND, &["Transfer-Encoding: chunked", "Content-Type: application/json"], b"");
                cut.extend_from_slice(b"zz\r\n");
                cut
            },
            400,
            "malformed_request",
        ),
    ]
}

fn head_rows() -> Vec<Row> {
    let bad = "malformed_request";
    let get = |what: &str, fields: &[&str]| row(what, request(GET, fields, b""), 400, bad);
    let post = |what: &str, fields: &[&str]| row(what, request(REFUND, fields, GOOD.as_bytes()), 400, bad);
    let long = format!("X-Long: {}", "a".repeat(17 << 10));
    let length = format!("Content-Length: {}", GOOD.len());
    vec![
        get("two Hosts", &["Host: localhost", "Host: localhost"]),
        get("two different Hosts", &["Host: localhost", "Host: evil.com"]),
        get("evil Host", &["Host: evil.com"]),
        get("userinfo in Host", &["Host: u:p@localhost"]),
        row("no Host", format!("{GET} HTTP/1.1\r\nAuthorization: Bearer {SUPPORT_KEY}\r\n\r\n").into_bytes(), 400, bad),
        row(
            "another authority in the target",
            request("GET http://169.254.169.254/crm/customers/c_1", &[], b""),
            400,
            bad,
        ),
        row(
            "HTTP/1.0",
            String::from_utf8(request(GET, &[], b"")).unwrap().replace("HTTP/1.1", "HTTP/1.0").into_bytes(),
            400,
            bad,
        ),
        row("Origin null", request(GET, &["Origin: null"], b""), 403, bad),
        row("evil Origin", request(GET, &["Origin: http://evil.com"], b""), 403, bad),
        row("evil Origin at MCP", request(MCP, &["Origin: http://evil.com"], CALL.as_bytes()), 403, bad),
        post("TE: ,chunked", &["Transfer-Encoding: ,chunked"]),
        post("TE: gzip, chunked", &["Transfer-Encoding: gzip, chunked"]),
        post("two TE", &["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"]),
        post("CL and TE", &[&length, "Transfer-Encoding: chunked"]),
        post("TE and CL", &["Transfer-Encoding: chunked", &length]),
        post("two CL", &["Content-Length: 5", &length]),
        post("a signed length", &["Content-Length: +56"]),
        row("bare LF", String::from_utf8(request(GET, &[], b"")).unwrap().replace("\r\n", "\n").into_bytes(), 400, bad),
        get("a folded field", &["X-A: b\r\n c"]),
        get("a space before the colon", &["X-A : b"]),
        row("obfuscated Expect", request(REFUND, &["Expect: y 100-continue"], GOOD.as_bytes()), 417, bad),
        row("CONNECT", request("CONNECT localhost:80", &[], b""), 405, bad),
        row("TRACE", request("TRACE /crm/customers/c_1", &[], b""), 405, bad),
        row("a method in lower case", request("get /crm/customers/c_1", &[], b""), 405, bad),
        get("a name with underscore", &["X_User: root"]),
        get("our namespace with underscore", &["holdpoint_principal: root"]),
        row(
            "obs-text",
            {
                let mut b = request(GET, &["X-Name: @@"], b"");
                let at = b.windows(2).position(|w| w == b"@@").unwrap();
                b[at] = 0xe9;
                b
            },
            400,
            bad,
        ),
        get("a field dropped by Connection", &["Connection: close, holdpoint-run"]),
        get("the credential dropped by Connection", &["Connection: authorization"]),
        get("two credentials", &[&format!("Authorization: Bearer {SUPPORT_KEY}"), "X-Api-Key: abc"]),
        get("a field twice", &["Holdpoint-Run: a", "Holdpoint-Run: b"]),
        row("a long head", request(GET, &[&long], b""), 431, bad),
    ]
}

fn target_rows() -> Vec<Row> {
    let bad =
        |what: &str, target: &str| row(what, request(&format!("GET {target}"), &[], b""), 400, "malformed_request");
    let none = |what: &str, line: &str| row(what, request(line, &[], b""), 404, "unknown_tool");
    vec![
        bad("..%2f", "/crm/customers/..%2fadmin"),
        bad("%2e%2e", "/crm/%2e%2e/admin"),
        bad("..", "/crm/customers/../x"),
        bad("//", "//crm/customers/c_1"),
        bad("// inside", "/crm//customers/c_1"),
        bad("a slash at the end", "/crm/customers/c_1/"),
        bad("; parameters", "/crm/customers/c_1;x=1"),
        bad("double encoding", "/crm/customers/%252e%252e"),
        bad("%00", "/crm/customers/c%00"),
        bad("%5c", "/crm/customers/a%5cb"),
        bad("bytes that are not UTF-8", "/crm/customers/%ff"),
        bad("a query name twice", "/crm/customers/c_1?a=1&a=2"),
        bad("an encoded query name twice", "/crm/customers/c_1?a=1&%61=2"),
        bad("; in the query", "/crm/customers/c_1?a=1;a=2"),
        none("unlisted operation", "DELETE /crm/customers/c_1"),
        none("unlisted path", "GET /crm/secrets"),
        none("another letter case", "GET /CRM/customers/c_1"),
        none("no mount", "GET /nothing"),
        none("the mount alone", "GET /crm"),
        none("admin routes on the agents' listener", "GET /v1/holds"),
        none("metrics on the agents' listener", "GET /metrics"),
        none("an unknown path of ours", "GET /-/nothing"),
    ]
}

fn credential_rows() -> Vec<Row> {
    let get = |what: &str, fields: &[&str]| row(what, request(GET, fields, b""), 401, "unauthenticated");
    vec![
        get("no key", &["-authorization"]),
        get("bad key", &["Authorization: Bearer support-bot-key-9876543210"]),
        get("half a key", &["Authorization: Bearer support-bot-key"]),
        get("an empty key", &["Authorization: Bearer "]),
        get("another scheme", &["Authorization: Basic c3VwcG9ydDp4"]),
        get("a bad X-Api-Key", &["X-Api-Key: nope"]),
        get("the key of a reviewer", &[&format!("Authorization: Bearer {}", crate::harness::token("maya"))]),
        row("no key at MCP", request(MCP, &["-authorization"], CALL.as_bytes()), 401, "unauthenticated"),
        row(
            "no key for one's own calls",
            request("GET /-/calls/call_0", &["-authorization"], b""),
            401,
            "unauthenticated",
        ),
        row("a malformed body without a key", request(REFUND, &["-authorization"], b"{"), 401, "unauthenticated"),
        row(
            "another agent's tool",
            {
                let key = format!("Authorization: Bearer {OTHER_KEY}");
                request(GET, &[&key], b"")
            },
            404,
            "unknown_tool",
        ),
    ]
}

fn mcp_rows() -> Vec<Row> {
    let bad = |what: &str, body: &str| row(what, request(MCP, &[], body.as_bytes()), 400, "malformed_request");
    let modern =
        CALL.replace(r#""name""#, r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"},"name""#);
    let with =
        |what: &str, fields: &[&str]| row(what, request(MCP, fields, modern.as_bytes()), 400, "malformed_request");
    let version = "MCP-Protocol-Version: 2026-07-28";
    vec![
        bad("MCP batch", &format!("[{CALL}]")),
        bad(
            "MCP duplicate name",
            &CALL.replace(r#""name":"get_ticket""#, r#""name":"get_ticket","name":"delete_ticket""#),
        ),
        bad(
            "MCP escaped duplicate name",
            &CALL.replace(r#""name":"get_ticket""#, r#""name":"get_ticket","n\u0061me":"delete_ticket""#),
        ),
        bad("not JSON-RPC", r#"{"id":1,"method":"ping"}"#),
        bad("an id of null", r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#),
        bad("a call without an id", &CALL.replace(r#""id":1,"#, "")),
        with("MCP headers missing", &[]),
        with("MCP name mismatch", &[version, "Mcp-Method: tools/call", "Mcp-Name: delete_ticket"]),
        with("MCP method mismatch", &[version, "Mcp-Method: tools/list", "Mcp-Name: get_ticket"]),
        with(
            "MCP version mismatch",
            &["MCP-Protocol-Version: 2026-01-01", "Mcp-Method: tools/call", "Mcp-Name: get_ticket"],
        ),
        with("MCP name twice", &[version, "Mcp-Method: tools/call", "Mcp-Name: get_ticket", "Mcp-Name: get_ticket"]),
        row(
            "unknown MCP method",
            request(MCP, &[], br#"{"jsonrpc":"2.0","id":1,"method":"vendor/erase","params":{"uri":"x:"}}"#),
            200,
            "unknown_tool",
        ),
        row(
            "unknown MCP tool",
            request(MCP, &[], CALL.replace("get_ticket", "drop_all").as_bytes()),
            200,
            "unknown_tool",
        ),
        row(
            "MCP tool in Cyrillic",
            request(MCP, &[], CALL.replace("get_ticket", "get_ti\u{441}ket").as_bytes()),
            200,
            "unknown_tool",
        ),
        row("modern GET at MCP", request("GET /tickets/mcp", &[version], b""), 405, "malformed_request"),
        row("PUT at MCP", request("PUT /tickets/mcp", &[], b""), 405, "malformed_request"),
        row("a path below MCP", request("POST /tickets/mcp/x", &[], CALL.as_bytes()), 404, "unknown_tool"),
    ]
}

fn key_rows() -> Vec<Row> {
    let post =
        |what: &str, fields: &[&str], status, code| row(what, request(REFUND, fields, GOOD.as_bytes()), status, code);
    vec![
        post("reused key with other arguments", &["Idempotency-Key: used"], 422, "key_reused"),
        post("key twice", &["Idempotency-Key: a", "Idempotency-Key: a"], 400, "malformed_request"),
        post("a key with a space", &["Idempotency-Key: a b"], 400, "malformed_request"),
        post("a key that is too long", &[&format!("Idempotency-Key: {}", "k".repeat(256))], 400, "malformed_request"),
        post("a key of our own space", &["Idempotency-Key: derived:1"], 400, "malformed_request"),
        post("evidence of nobody", &["Holdpoint-Evidence: art_zzz"], 400, "malformed_request"),
        post("a workflow that is not the agent's", &["Holdpoint-Workflow: payroll"], 422, "invalid_arguments"),
        post("confidence over one", &["Holdpoint-Confidence: 1.5"], 400, "malformed_request"),
    ]
}

#[tokio::test]
async fn each_bad_input_has_its_code_and_the_upstream_sees_no_byte() {
    let p = Setup::new().start().await;
    p.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    assert_eq!(p.refund("o_9", 77, &[("idempotency-key", "used")]).await.status, 201);
    let before = p.upstream.bytes();
    let mut wrong = Vec::new();
    let rows = [
        schema_rows(),
        json_rows(),
        body_rows(),
        head_rows(),
        target_rows(),
        credential_rows(),
        mcp_rows(),
        key_rows(),
    ];
    for Row { what, bytes, status, code } in rows.into_iter().flatten() {
        let malformed = code == "malformed_request";
        let back = exchange(&p, bytes, malformed).await;
        // A head that hyper cannot read is answered by hyper: without a body, and closed.
        let by_hyper = malformed && back.body.is_empty() && back.closed && [400, 431].contains(&back.status);
        if back.status != status || (back.code() != code && !by_hyper) {
            wrong.push(format!("{what}: {} {} instead of {status} {code}: {}", back.status, back.code(), back.body));
        }
        if malformed && !back.closed {
            wrong.push(format!("{what}: the connection stays open: {}", back.head));
        }
        if !by_hyper && !back.body.contains("\"executed\":\"no\"") {
            wrong.push(format!("{what}: does not say that nothing was executed: {}", back.body));
        }
        if p.upstream.bytes() != before {
            wrong.push(format!("{what}: {} bytes reached the upstream", p.upstream.bytes() - before));
            break;
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn every_violation_is_told_at_once_with_its_pointer() {
    let p = Setup::new().start().await;
    let body = json!({"amountMinor": "12", "currency": "euro", "extra": true});
    let got = p.agent("POST", "/crm/orders/o_1/refunds", &[], Some(&body)).await;
    assert_eq!((got.status, got.code().as_str()), (422, "invalid_arguments"));
    let all = got.json();
    let found: Vec<(String, String)> = all["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["pointer"].as_str().unwrap().to_owned(), e["keyword"].as_str().unwrap().to_owned()))
        .collect();
    for expected in [("/amountMinor", "type"), ("/currency", "pattern"), ("/extra", "additionalProperties")] {
        assert!(found.iter().any(|(p, k)| (p.as_str(), k.as_str()) == expected), "{expected:?} in {found:?}");
    }
    assert!(found.iter().any(|(p, k)| p.contains("customerId") && k == "required"), "{found:?}");
    assert_eq!(found.len(), 4);
    assert_eq!(p.upstream.bytes(), 0);
}

#[tokio::test]
async fn after_a_malformed_request_nothing_more_is_read_from_the_connection() {
    let p = Setup::new().start().await;
    let mut two = request("GET /crm/../x", &[], b"");
    two.extend_from_slice(&request(GET, &[], b""));
    let back = exchange(&p, two, true).await;
    assert_eq!(back.status, 400);
    assert!(back.closed && !back.body.contains("HTTP/1.1"), "{}", back.body);
    assert_eq!(p.upstream.bytes(), 0);
}

#[tokio::test]
async fn identity_and_hop_by_hop_fields_of_the_client_never_go_on() {
    let p = Setup::new().start().await;
    let fields = [
        "X-Forwarded-User: root",
        "Forwarded: for=1.1.1.1",
        "Via: 1.1 x",
        "X-Real-IP: 1.1.1.1",
        "Cookie: a=b",
        "Proxy-Authorization: Basic eDp5",
        "TE: trailers",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMA",
        "Connection: upgrade, x-drop",
        "X-Drop: 1",
        "Holdpoint-Principal: root",
        "Holdpoint-Run: r_1",
        "Accept-Language: de",
    ];
    let back = exchange(&p, request(GET, &fields, b""), false).await;
    assert_eq!(back.status, 200, "{}", back.body);
    let seen = p.upstream.seen().remove(0);
    let mut names: Vec<&str> = seen.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    for name in &names {
        assert!(
            ["accept", "accept-encoding", "authorization", "host", "user-agent", "content-length"].contains(name),
            "`{name}` went on: {names:?}"
        );
    }
}

#[tokio::test]
async fn over_http_2_there_is_one_authority_and_it_is_ours() {
    let p = Setup::new().start().await;
    let rows = [
        ("http://localhost", "localhost", 200),
        ("http://localhost", "evil.com", 400),
        ("http://evil.com", "localhost", 400),
        ("http://evil.com", "evil.com", 400),
        ("http://u:p@localhost", "", 400),
        ("http://localhost", "", 200),
    ];
    for (authority, host, status) in rows {
        let stream = TcpStream::connect(p.agents()).await.unwrap();
        let (executor, io) = (hyper_util::rt::TokioExecutor::new(), hyper_util::rt::TokioIo::new(stream));
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        tokio::spawn(connection);
        let mut request = http::Request::builder()
            .uri(format!("{authority}/crm/customers/c_1"))
            .header("authorization", format!("Bearer {SUPPORT_KEY}"));
        if !host.is_empty() {
            request = request.header("host", host);
        }
        let before = p.upstream.count();
        let response = sender.send_request(request.body(String::new()).unwrap()).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{authority} {host}");
        assert_eq!(p.upstream.count() - before, usize::from(status == 200), "{authority} {host}");
    }
}
