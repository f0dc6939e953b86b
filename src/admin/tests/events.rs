//! News as events: to those who may see the hold, in order, and again for who comes back.

use http_body_util::BodyExt as _;

use super::*;

struct Stream(Body);

impl Stream {
    /// The next event as its text: fields line by line.
    async fn next(&mut self) -> Option<String> {
        let frame = self.0.frame().await?.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    }
}

async fn open(w: &World, user: &str, path: &str, last: Option<&str>) -> (StatusCode, Stream) {
    let mut request = ask("GET", path).header("authorization", bearer(user));
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let response = w.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    (response.status(), Stream(response.into_body()))
}

fn field<'a>(event: &'a str, name: &str) -> &'a str {
    event.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
}

#[tokio::test]
async fn who_may_see_a_hold_hears_of_each_of_its_steps() {
    let w = World::new();
    let (status, mut stream) = open(&w, "maya", "/v1/events", None).await;
    assert_eq!(status, StatusCode::OK);
    let hold = w.hold(8800).await;
    let created = stream.next().await.unwrap();
    assert_eq!(field(&created, "event"), "hold.created");
    let data: Value = serde_json::from_str(field(&created, "data")).unwrap();
    assert_eq!((&data["id"], &data["tier"]), (&json!(hold.id.hold()), &json!("medium")));
    assert!(!created.contains("c_204_secret") && !created.contains("8800"), "ids and summaries only: {created}");
    let path = format!("/v1/holds/{}/approve", hold.id.hold());
    w.post("maya", &path, json!({"digest": hold.digest})).await;
    let approved = stream.next().await.unwrap();
    assert_eq!(field(&approved, "event"), "hold.approved");
    let (_, mut again) = open(&w, "maya", "/v1/events?types=hold.app*", Some(field(&created, "id"))).await;
    assert_eq!(again.next().await.unwrap(), approved, "who comes back hears what came since");
}

#[tokio::test]
async fn nobody_hears_of_a_hold_that_policy_does_not_show() {
    let w = World::new();
    let (_, mut stream) = open(&w, "nobody", "/v1/events", None).await;
    w.hold(8800).await;
    w.draining.send(true).unwrap();
    assert_eq!(stream.next().await, None, "nothing was said before the stream ended");
}

#[tokio::test]
async fn who_was_away_too_long_is_told_to_look_anew() {
    let w = World::new();
    let (_, mut stream) = open(&w, "maya", "/v1/events", Some("999999")).await;
    let reset = stream.next().await.unwrap();
    assert_eq!(field(&reset, "event"), "reset");
    let (status, _) = open(&w, "maya", "/v1/events", Some("x")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = open(&w, "maya", "/v1/events?kinds=hold", None).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_token_opens_the_stream_of_the_api_and_only_a_session_that_of_the_page() {
    let w = World::new();
    let none = ask("GET", "/v1/events").body(Body::empty()).unwrap();
    assert_eq!(w.send(none).await.status, StatusCode::UNAUTHORIZED);
    let (status, _) = open(&w, "maya", "/events", None).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
}
