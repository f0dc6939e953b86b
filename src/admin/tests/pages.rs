//! The review pages: sessions, forms, and what stands on them.

use super::*;

/// A signed-in browser.
struct Browser<'w> {
    world: &'w World,
    cookie: String,
    csrf: String,
}

fn encoded(pairs: &[(&str, &str)]) -> String {
    let all: Vec<String> =
        pairs.iter().map(|(n, v)| format!("{}={}", crate::call::encode_part(n), crate::call::encode_part(v))).collect();
    all.join("&")
}

fn form(path: &str, pairs: &[(&str, &str)]) -> http::request::Builder {
    let len = encoded(pairs).len();
    ask("POST", path).header("content-type", "application/x-www-form-urlencoded").header("content-length", len)
}

async fn sign_in<'w>(world: &'w World, user: &str) -> Browser<'w> {
    let pairs = [("token", token(user))];
    let body = encoded(&[("token", &pairs[0].1), ("next", "/calls")]);
    let request = ask("POST", "/sign-in").header("sec-fetch-site", "same-origin");
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(Body::from(body)).unwrap();
    let got = world.send(request).await;
    assert_eq!((got.status, got.headers["location"].to_str().unwrap()), (StatusCode::SEE_OTHER, "/calls"));
    let set = got.headers["set-cookie"].to_str().unwrap();
    assert!(set.contains("; HttpOnly") && set.contains("; SameSite=Lax") && set.contains("; Path=/"), "{set}");
    let cookie = set.split(';').next().unwrap().to_owned();
    let mut browser = Browser { world, cookie, csrf: String::new() };
    let home = browser.get("/").await;
    assert_eq!(home.status, StatusCode::OK, "{}", home.text);
    browser.csrf = home.text.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    browser
}

impl Browser<'_> {
    async fn get(&self, path: &str) -> Got {
        self.world.send(ask("GET", path).header("cookie", &self.cookie).body(Body::empty()).unwrap()).await
    }

    fn request(&self, path: &str, pairs: &[(&str, &str)]) -> http::request::Builder {
        form(path, pairs).header("cookie", &self.cookie)
    }

    /// As a browser sends a form of this page.
    async fn post(&self, path: &str, pairs: &[(&str, &str)]) -> Got {
        let mut all = vec![("csrf", self.csrf.as_str())];
        all.extend_from_slice(pairs);
        let request = self.request(path, &all).header("sec-fetch-site", "same-origin");
        let request = request.header("origin", "http://localhost:8701").body(Body::from(encoded(&all))).unwrap();
        self.world.send(request).await
    }
}

#[tokio::test]
async fn a_page_that_is_merely_open_does_not_keep_a_session() {
    let w = World::new();
    let maya = sign_in(&w, "maya").await;
    for _ in 0..12 {
        w.clock.advance(Duration::from_secs(300));
        let stream = ask("GET", "/events").header("cookie", &maya.cookie).body(Body::empty()).unwrap();
        w.router.clone().oneshot(stream).await.unwrap();
        let again = ask("GET", "/").header("cookie", &maya.cookie).header("sec-fetch-mode", "navigate");
        w.send(again.body(Body::empty()).unwrap()).await;
    }
    assert_eq!(maya.get("/").await.status, StatusCode::SEE_OTHER);
    let maya = sign_in(&w, "maya").await;
    for _ in 0..12 {
        w.clock.advance(Duration::from_secs(300));
        let asked = ask("GET", "/").header("cookie", &maya.cookie).header("sec-fetch-mode", "navigate");
        w.send(asked.header("sec-fetch-user", "?1").body(Body::empty()).unwrap()).await;
    }
    assert_eq!(maya.get("/").await.status, StatusCode::OK, "somebody is there");
}

#[tokio::test]
async fn a_person_signs_in_reads_and_approves_without_script() {
    let mut w = World::new();
    let hold = w.hold(88_000).await;
    let id = hold.id.hold().to_string();
    let digest = hold.digest.to_string();
    {
        let maya = sign_in(&w, "maya").await;
        let home = maya.get("/").await.text;
        assert!(home.contains("Need you (1)") && home.contains("Refund 880.00 EUR on order o_881"), "{home}");
        let page = maya.get(&format!("/holds/{id}")).await.text;
        for part in ["880.00 EUR", "refund-dual", "agents.cedar:", "Type the code", "Justification (required)", &digest]
        {
            assert!(page.contains(part), "{part}: {page}");
        }
        let at = format!("/holds/{id}/approve");
        let first = [("digest", digest.as_str()), ("justification", "ticket checked"), ("confirm", "880.00")];
        let got = maya.post(&at, &first).await;
        assert_eq!(got.status, StatusCode::OK, "without the script a high one is shown once more");
        assert!(
            got.text.contains("Nothing was decided yet") && got.text.contains(">ticket checked</textarea>"),
            "{}",
            got.text
        );
        assert!(got.text.contains(r#"name="seen" value="again""#));
        assert!(w.store.get(hold.id).await.unwrap().unwrap().approvals.is_empty());
        let said = [("digest", digest.as_str()), ("justification", "ticket checked"), ("seen", "again")];
        let got = maya.post(&at, &said).await;
        assert_eq!(got.status.as_u16(), 422, "no confirmation was typed");
        assert!(got.text.contains("type the code"), "{}", got.text);
        let mut typed = said.to_vec();
        typed.push(("confirm", "880.00"));
        let got = maya.post(&at, &typed).await;
        assert_eq!(
            (got.status, got.headers["location"].to_str().unwrap()),
            (StatusCode::SEE_OTHER, &*format!("/holds/{id}"))
        );
        let page = maya.get(&format!("/holds/{id}")).await.text;
        assert!(page.contains("You cannot approve: already_counted") && page.contains("“ticket checked”"), "{page}");
        let finn = sign_in(&w, "finn").await;
        let code = crate::call::short_code(&hold.digest);
        typed[3].1 = &code;
        assert_eq!(finn.post(&at, &typed).await.status, StatusCode::SEE_OTHER);
    }
    assert_eq!(w.resumed.try_recv().unwrap(), hold.id);
    let stored = w.store.get(hold.id).await.unwrap().unwrap();
    assert_eq!((stored.state, stored.approvals[0].channel.as_str()), (State::Approved, "page"));
}

#[tokio::test]
async fn forms_of_other_sites_and_other_sessions_decide_nothing() {
    let w = World::new();
    let hold = w.hold(8800).await;
    let digest = hold.digest.to_string();
    let at = format!("/holds/{}/approve", hold.id.hold());
    let (maya, noor) = (sign_in(&w, "maya").await, sign_in(&w, "noor").await);
    let ours = [("csrf", maya.csrf.as_str()), ("digest", digest.as_str())];
    let body = || Body::from(encoded(&ours));
    let cases = [
        maya.request(&at, &ours).header("sec-fetch-site", "cross-site").body(body()),
        maya.request(&at, &ours).header("sec-fetch-site", "same-site").body(body()),
        maya.request(&at, &ours).header("sec-fetch-site", "none").body(body()),
        maya.request(&at, &ours).body(body()),
        maya.request(&at, &ours).header("origin", "http://127.0.0.1:8701").body(body()),
        maya.request(&at, &ours).header("origin", "http://localhost:9999").body(body()),
        maya.request(&at, &ours).header("origin", "null").header("sec-fetch-site", "same-origin").body(body()),
        noor.request(&at, &ours).header("sec-fetch-site", "same-origin").body(body()),
    ];
    for (n, request) in cases.into_iter().enumerate() {
        assert_eq!(w.send(request.unwrap()).await.status, StatusCode::FORBIDDEN, "case {n}");
    }
    let plain = ask("POST", &at).header("cookie", &maya.cookie).header("sec-fetch-site", "same-origin");
    let plain = plain.header("content-type", "text/plain").body(body()).unwrap();
    assert_eq!(w.send(plain).await.status.as_u16(), 415);
    let twice = ask("POST", &at).header("cookie", format!("{}; holdpoint=x", maya.cookie));
    let twice =
        twice.header("sec-fetch-site", "same-origin").header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(w.send(twice.body(body()).unwrap()).await.status.as_u16(), 401, "two cookies are none");
    for path in [at.clone(), at.replace("approve", "reject"), "/sign-out".to_owned()] {
        assert_eq!(maya.get(&format!("{path}?{}", encoded(&ours))).await.status.as_u16(), 405, "GET {path}");
    }
    let token = token("maya");
    let login = encoded(&[("token", &token)]);
    for site in ["cross-site", "none"] {
        let request = form("/sign-in", &[("token", &token)]).header("sec-fetch-site", site);
        assert_eq!(w.send(request.body(Body::from(login.clone())).unwrap()).await.status.as_u16(), 403);
    }
    assert_eq!(w.store.get(hold.id).await.unwrap().unwrap().version, 1, "nothing was decided");
    let good = maya.request(&at, &ours).header("origin", "http://localhost:8701").body(body()).unwrap();
    assert_eq!(w.send(good).await.status, StatusCode::SEE_OTHER, "an older browser, from our own page");
}

#[tokio::test]
async fn two_people_settle_an_unknown_call_without_script() {
    let w = World::new();
    w.with_petra();
    let call = w.unknown().await;
    let at = format!("/calls/{}", call.id);
    let (pat, petra, maya) = (sign_in(&w, "pat").await, sign_in(&w, "petra").await, sign_in(&w, "maya").await);
    let home = pat.get("/").await.text;
    assert!(home.contains("Outcome unknown (1)") && home.contains(&at), "{home}");
    assert!(!maya.get("/").await.text.contains("Outcome unknown"), "it is shown to who may not see it");
    let page = pat.get(&at).await.text;
    assert!(page.contains("may still be on the wire") && page.contains("name=\"outcome\""), "{page}");
    assert!(!page.contains("value=\"not_executed\""), "too early to be offered");
    let post = format!("{at}/reconcile");
    let said = |version: &'static str, outcome| {
        [("version", version), ("outcome", outcome), ("reason", "<b>the bank's list</b>")]
    };
    assert_eq!(maya.post(&post, &said("2", "succeeded")).await.status.as_u16(), 404);
    let early = pat.post(&post, &said("2", "not_executed")).await;
    assert_eq!((early.status.as_u16(), early.text.contains("on the wire")), (409, true));
    assert_eq!(pat.post(&post, &said("2", "")).await.status.as_u16(), 422);
    let foreign = [("csrf", maya.csrf.as_str()), ("version", "2"), ("outcome", "succeeded"), ("reason", "x")];
    let request = pat.request(&post, &foreign).header("sec-fetch-site", "same-origin");
    let request = request.header("origin", "http://localhost:8701").body(Body::from(encoded(&foreign))).unwrap();
    assert_eq!(w.send(request).await.status, StatusCode::FORBIDDEN, "a form of another session");
    w.clock.advance(Duration::from_secs(600));
    assert!(pat.get(&at).await.text.contains("value=\"not_executed\""));
    assert_eq!(pat.post(&post, &said("2", "not_executed")).await.status, StatusCode::SEE_OTHER);
    let page = petra.get(&at).await.text;
    assert!(page.contains("pat says it not_executed: ") && page.contains("bank"), "{page}");
    assert!(!page.contains("<b>the"), "{page}");
    assert_eq!(petra.post(&post, &said("2", "not_executed")).await.status.as_u16(), 412, "not what was seen");
    assert_eq!(pat.post(&post, &said("3", "not_executed")).await.status.as_u16(), 403, "one person is not two");
    assert_eq!(petra.post(&post, &said("3", "not_executed")).await.status, StatusCode::SEE_OTHER);
    assert_eq!(w.store.get(call.id).await.unwrap().unwrap().state, State::NotExecuted);
    assert!(!pat.get("/").await.text.contains("Outcome unknown"));
}

#[tokio::test]
async fn pages_need_a_session_and_a_role() {
    let w = World::new();
    let (hold, call) = (w.hold(8800).await, w.unknown().await);
    let (h, c) = (format!("/holds/{}", hold.id.hold()), format!("/calls/{}", call.id));
    for path in ["/", "/calls", "/policies", &h, &c] {
        for cookie in ["", "holdpoint=", "holdpoint=0000", &format!("holdpoint={}", token("maya"))] {
            let got = w.send(ask("GET", path).header("cookie", cookie).body(Body::empty()).unwrap()).await;
            assert_eq!(got.status, StatusCode::SEE_OTHER, "{path}");
            assert!(got.headers["location"].to_str().unwrap().starts_with("/sign-in"), "{path}");
            assert!(!got.text.contains("Refund"));
        }
        let key = ask("GET", path).header("authorization", bearer("maya")).body(Body::empty()).unwrap();
        assert_eq!(w.send(key).await.status, StatusCode::SEE_OTHER, "a token is no session");
    }
    for path in [format!("{h}/approve"), format!("{h}/reject"), format!("{c}/reconcile"), "/sign-out".to_owned()] {
        let pairs = [("csrf", "x"), ("digest", "y")];
        let request = form(&path, &pairs).header("sec-fetch-site", "same-origin");
        assert_eq!(w.send(request.body(Body::from(encoded(&pairs))).unwrap()).await.status.as_u16(), 401, "{path}");
    }
    for wrong in ["agent-key-0123456789", "", "maya"] {
        let pairs = [("token", wrong)];
        let request = form("/sign-in", &pairs).header("sec-fetch-site", "same-origin");
        let got = w.send(request.body(Body::from(encoded(&pairs))).unwrap()).await;
        assert_eq!(got.status.as_u16(), 401, "{wrong}");
        assert!(!got.headers.contains_key("set-cookie"));
    }
    let nobody = sign_in(&w, "nobody").await;
    let digest = hold.digest.to_string();
    for (got, want) in [
        (nobody.get(&h).await, 404),
        (nobody.get(&c).await, 404),
        (nobody.post(&format!("{h}/approve"), &[("digest", &digest)]).await, 404),
        (nobody.post(&format!("{h}/reject"), &[("digest", &digest), ("reason_code", "other")]).await, 404),
        (nobody.get("/calls").await, 200),
        (sign_in(&w, "pat").await.get(&c).await, 200),
        (sign_in(&w, "ana").await.post(&format!("{h}/approve"), &[("digest", &digest)]).await, 403),
    ] {
        assert_eq!(got.status.as_u16(), want, "{}", got.text);
    }
    assert_eq!(w.store.get(hold.id).await.unwrap().unwrap().version, 1);
    for next in ["//evil.com", "https://evil.com", "/holds/../..", "/holds//evil", "/holds/x?y"] {
        let got = w.send(ask("GET", &format!("/sign-in?next={next}")).body(Body::empty()).unwrap()).await;
        assert!(got.text.contains("name=\"next\" value=\"/\""), "{next}");
    }
}

#[tokio::test]
async fn a_session_ends_with_its_reviewer_its_time_and_its_sign_out() {
    let w = World::new();
    let (maya, noor) = (sign_in(&w, "maya").await, sign_in(&w, "noor").await);
    w.reload(&USERS[1..]);
    assert_eq!(maya.get("/").await.status, StatusCode::SEE_OTHER, "removed");
    assert_eq!(noor.get("/").await.status, StatusCode::OK);
    w.reload(&USERS);
    assert_eq!(maya.get("/").await.status, StatusCode::SEE_OTHER, "ended for good");
    w.clock.advance(Duration::from_secs(3601));
    assert_eq!(noor.get("/").await.status, StatusCode::SEE_OTHER, "idle");
    let noor = sign_in(&w, "noor").await;
    assert_eq!(noor.post("/sign-out", &[]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(noor.get("/").await.status, StatusCode::SEE_OTHER, "signed out");
}

#[tokio::test]
async fn nothing_is_hidden_and_nothing_is_markup() {
    let w = World::new();
    let hidden = json!({
        "orderId": "o_881\u{202e}live\u{200b}\u{e0041}", "customerId": "c_204_secret", "amountMinor": 8800,
        "currency": "EUR", "reason": "</code><script>alert(1)</script>\"'><a href=javascript:x>", "amountMinor ": 1,
        "long": " ".repeat(5000) + "end",
    });
    let hold = w.hold_of("crm.refund", hidden, support_bot(), &["ticket", "order"]).await;
    let call = w.unknown().await;
    let maya = sign_in(&w, "maya").await;
    let page = maya.get(&format!("/holds/{}", hold.id.hold())).await.text;
    for part in
        ["\\u{202e}", "\\u{200b}", "\\u{e0041}", "has hidden characters", "5003", "/amountMinor <", "[redacted]"]
    {
        assert!(page.contains(part), "{part}");
    }
    assert!(page.contains(&(" ".repeat(5000) + "end")), "nothing is cut");
    let pages = [
        page.clone(),
        maya.get("/").await.text,
        sign_in(&w, "pat").await.get("/calls").await.text,
        sign_in(&w, "pat").await.get(&format!("/calls/{}", call.id)).await.text,
    ];
    for text in &pages {
        let ours = r#"<script type="module" src="/holdpoint.js"></script>"#;
        assert!(!text.replace(ours, "").to_lowercase().contains("<script"), "{text}");
        assert!(!text.contains("<img") && !text.contains("<a href=javascript"));
        assert!(!text.contains("c_204_secret"), "what is redacted is on no page");
        assert!(!text.chars().any(|c| crate::call::is_hidden(c) && c != '\n'));
        for user in USERS {
            assert!(!text.contains(&token(user.0)) && !text.contains("agent-key"));
        }
    }
    // The agent's words come last, and fenced.
    let fence = page.find("The agent says (not verified)").unwrap();
    for words in ["trust me", "run&#60;script", "0.62"] {
        assert!(page.find(words).is_some_and(|at| at > fence), "{words}");
    }
    assert!(page.find("/amountMinor").unwrap() < page.find("/orderId").unwrap(), "money first");
    assert!(page.contains("&#60;script&#62;evidence&#60;/script&#62;"), "evidence is read where it is judged");
    assert!(page.contains("The body is not shown: it carries the redacted arguments."));
    let delete = json!({"ticketId": "t1\u{2066}\n", "hard": true});
    let delete = w.hold_of("tickets.delete_ticket", delete, support_bot(), &[]).await;
    let page = maya.get(&format!("/holds/{}", delete.id.hold())).await.text;
    let body = r"{&#34;ticketId&#34;:&#34;t1\u{2066}\n&#34;,&#34;hard&#34;:true}";
    assert!(page.contains(body), "{page}");
}

#[tokio::test]
async fn a_rejection_from_the_page_needs_a_reason() {
    let w = World::new();
    let hold = w.hold(8800).await;
    let (at, digest) = (format!("/holds/{}/reject", hold.id.hold()), hold.digest.to_string());
    let maya = sign_in(&w, "maya").await;
    assert_eq!(maya.post(&at, &[("digest", &digest), ("reason_code", "")]).await.status.as_u16(), 422);
    let old = Digest::of(b"old").to_string();
    let got = maya.post(&at, &[("digest", &old), ("reason_code", "unsafe")]).await;
    assert_eq!(got.status.as_u16(), 409, "an old tab");
    assert!(got.text.contains("the call changed since you read it"));
    let got = maya.post(&at, &[("digest", &digest), ("reason_code", "unsafe"), ("message_to_agent", "No+ & no")]).await;
    assert_eq!(got.status, StatusCode::SEE_OTHER);
    let note = w.store.get(hold.id).await.unwrap().unwrap().note.unwrap();
    assert_eq!((note.code.as_str(), note.text.as_str()), ("unsafe", "No+ & no"));
}

#[tokio::test]
async fn policies_are_shown_to_those_whom_policy_lets_see_them() {
    let w = World::new();
    let page = sign_in(&w, "pat").await.get("/policies").await;
    assert_eq!(page.status, StatusCode::OK);
    for piece in ["<code>refund-dual</code>", "two people", "agents.cedar:", "rules since", "sha256:"] {
        assert!(page.text.contains(piece), "{piece} in {}", page.text);
    }
    assert!(!page.text.contains("Nothing is enforced"));
    assert_eq!(sign_in(&w, "maya").await.get("/policies").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn people_claim_talk_and_escalate_by_forms() {
    let w = World::new();
    let hold = w.hold(8800).await;
    let (maya, noor) = (sign_in(&w, "maya").await, sign_in(&w, "noor").await);
    let at = format!("/holds/{}", hold.id.hold());
    let form = |verb: &str| format!("{at}/{verb}");
    assert_eq!(maya.post(&form("claim"), &[]).await.status, StatusCode::SEE_OTHER);
    assert!(maya.get(&at).await.text.contains("You have it in hand"));
    let other = noor.get(&at).await.text;
    assert!(other.contains("Take it over from maya") && !other.contains("class=\"approve\""), "{other}");
    assert!(noor.get("/").await.text.contains("claimed by maya"));
    let refused = noor.post(&form("approve"), &[("digest", &hold.digest.to_string())]).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.text);
    assert_eq!(noor.post(&form("claim"), &[("take_over", "on")]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(maya.post(&form("release"), &[]).await.status, StatusCode::CONFLICT);
    assert_eq!(noor.post(&form("release"), &[]).await.status, StatusCode::SEE_OTHER);
    let said = "<script>alert(1)</script> to\u{202e}day\nnext";
    assert_eq!(noor.post(&form("comments"), &[("text", said)]).await.status, StatusCode::SEE_OTHER);
    let asked = [("kinds", "ticket, order"), ("message_to_agent", "which?")];
    assert_eq!(noor.post(&form("evidence-requests"), &asked).await.status, StatusCode::SEE_OTHER);
    let brought = [("kind", "note"), ("title", "a title"), ("text", "<i>seen</i>")];
    assert_eq!(noor.post(&form("evidence"), &brought).await.status, StatusCode::SEE_OTHER);
    let raised = [("to", "finance"), ("reason", "large")];
    assert_eq!(noor.post(&form("escalate"), &raised).await.status, StatusCode::SEE_OTHER);
    let page = maya.get(&at).await.text;
    assert!(!page.contains("<script>alert") && !page.contains('\u{202e}') && !page.contains("<i>seen"), "{page}");
    for words in ["asks the agent for evidence: ticket, order", "brings it before finance", "reviewer noor"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert_eq!(maya.post(&form("comments"), &[("text", "  ")]).await.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn audit_run_and_me_are_pages() {
    let w = World::new();
    w.hold(8800).await;
    let (maya, pat) = (sign_in(&w, "maya").await, sign_in(&w, "pat").await);
    assert_eq!(maya.get("/audit").await.status, StatusCode::FORBIDDEN);
    let log = pat.get("/audit?kind=parked").await.text;
    assert!(log.contains("<code>parked</code>") && log.contains("support-bot"), "{log}");
    let run = maya.get("/runs/run%3Cscript%3E1?agent=support-bot").await;
    assert!(run.status == StatusCode::OK && !run.text.contains("<script>1"), "{}", run.text);
    assert!(run.text.contains("Refund 88.00 EUR on order o_881") && run.text.contains("evidence ticket, order"));
    let other = sign_in(&w, "maya").await;
    let me = maya.get("/me").await.text;
    assert!(me.contains("maya@acme.dev") && me.contains("In 2 browsers"), "{me}");
    assert_eq!(maya.post("/me/sign-out-elsewhere", &[]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(other.get("/").await.status, StatusCode::SEE_OTHER, "signed out");
    assert!(maya.get("/me").await.text.contains("Only here"));
    assert_eq!(pat.get("/me").await.status, StatusCode::OK, "another person's session goes on");
}

#[tokio::test]
async fn inbox_and_calls_are_searched() {
    let w = World::new();
    let (medium, high) = (w.hold(8800).await, w.hold(88_000).await);
    let maya = sign_in(&w, "maya").await;
    let (a, b) = (medium.id.hold().to_string(), high.id.hold().to_string());
    let shows = |page: &str| (page.contains(&a), page.contains(&b));
    for (query, wanted) in [
        ("", (true, true)),
        ("?q=&tier=&overdue=", (true, true)),
        ("?q=REFUND+88.00", (true, false)),
        ("?tier=high", (false, true)),
        ("?q=nothing+like+it", (false, false)),
        ("?overdue=1", (false, false)),
    ] {
        assert_eq!(shows(&maya.get(&format!("/{query}")).await.text), wanted, "{query}");
    }
    w.clock.advance(Duration::from_secs(11 * 60));
    assert_eq!(shows(&maya.get("/?overdue=1").await.text), (false, true), "ten minutes on high");
    assert_eq!(maya.get("/").await.text.matches("<strong class=\"warn\">overdue</strong>").count(), 1);
    let quoted = maya.get("/?q=%22%3E%3Cscript%3Ealert(1)").await.text;
    assert!(!quoted.contains("<script>alert"), "{quoted}");
    let pat = sign_in(&w, "pat").await;
    w.unknown().await;
    let calls = pat.get("/calls?state=unknown&q=refund").await.text;
    assert!(calls.contains("/calls/call_") && !calls.contains(&medium.id.to_string()), "{calls}");
    assert_eq!(pat.get("/calls?state=unkown").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(pat.get("/calls?what=x").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_file_is_brought_by_a_form_and_taken_away_as_a_file() {
    let w = World::new();
    let hold = w.hold(8800).await;
    let (noor, maya) = (sign_in(&w, "noor").await, sign_in(&w, "maya").await);
    let at = format!("/holds/{}", hold.id.hold());
    let to = format!("{at}/evidence");
    let post = |csrf: &str, name: &str, file: &[u8], from: &'static str| {
        let (kind, body) = with_file(&[("csrf", csrf), ("kind", "scan"), ("title", ""), ("text", "")], name, file);
        let request = ask("POST", &to).header("cookie", &noor.cookie).header("content-type", kind);
        let request = request.header("sec-fetch-site", from).header("origin", "http://localhost:8701");
        w.send(request.body(Body::from(body)).unwrap())
    };
    let html = b"<html><script>alert(7)</script>\xff";
    for (csrf, from) in [
        ("wrong", "same-origin"),
        ("", "same-origin"),
        (maya.csrf.as_str(), "same-origin"),
        (noor.csrf.as_str(), "cross-site"),
    ] {
        assert_eq!(post(csrf, "a.html", html, from).await.status, StatusCode::FORBIDDEN, "{from}");
    }
    assert_eq!(post(&noor.csrf, "", b"", "same-origin").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(post(&noor.csrf, "<i>.html", html, "same-origin").await.status, StatusCode::SEE_OTHER);
    assert_eq!(
        post(&noor.csrf, "notes.txt", b"charged <b>twice</b>", "same-origin").await.status,
        StatusCode::SEE_OTHER
    );
    let page = maya.get(&at).await.text;
    assert!(page.contains("enctype=\"multipart/form-data\"") && page.contains("type=\"file\""), "{page}");
    assert!(
        page.contains("It is no text, and is not shown here") && page.contains(&Digest::of(html).to_string()),
        "{page}"
    );
    assert!(!page.contains("alert(7)") && page.contains("charged &#60;b&#62;twice"), "{page}");
    let link = |from: &str, after: &str| {
        let rest = from.split(after).nth(1).unwrap().split("href=\"").nth(1).unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    let got = maya.get(&link(&page, "It is no text")).await;
    assert_eq!(
        (got.status, got.headers["content-type"].to_str().unwrap()),
        (StatusCode::OK, "application/octet-stream")
    );
    let disposition = got.headers["content-disposition"].to_str().unwrap();
    assert!(disposition.starts_with("attachment; filename=\"art_") && disposition.ends_with(".bin\""), "{disposition}");
    assert_eq!(got.headers["x-content-type-options"], "nosniff");
    let text = maya.get(&link(&page, "charged ")).await;
    assert_eq!(text.text, "charged <b>twice</b>");
    assert!(text.headers["content-disposition"].to_str().unwrap().ends_with(".txt\""));
    assert_eq!(maya.get(&format!("{to}/{}", ArtifactId::new())).await.status, StatusCode::NOT_FOUND);
    let other = w.hold(8900).await;
    let elsewhere = link(&page, "charged ").replace(&hold.id.hold().to_string(), &other.id.hold().to_string());
    assert_eq!(maya.get(&elsewhere).await.status, StatusCode::NOT_FOUND, "it is another hold's");
    let stranger = sign_in(&w, "nobody").await;
    assert_eq!(stranger.get(&link(&page, "charged ")).await.status, StatusCode::NOT_FOUND);
}
