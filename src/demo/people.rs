//! The reviewers of the scripted demo, on the admin API like any other client.

use std::net::SocketAddr;

use http::Method;
use serde_json::{Value, json};

use super::http::{Answer, send};

/// One reviewer.
#[derive(Debug)]
pub(super) struct Person {
    pub(super) name: &'static str,
    pub(super) token: String,
    pub(super) admin: SocketAddr,
}

impl Person {
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let bearer = format!("Bearer {}", self.token);
        send(self.admin, method, path, &[("authorization", &bearer)], body).await
    }

    /// The hold as this person sees it.
    pub(super) async fn read(&self, hold: &str) -> anyhow::Result<Answer> {
        self.ask(Method::GET, &format!("/v1/holds/{hold}"), None).await
    }

    /// Sends anything to the admin API.
    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Reads the hold, then approves the digest that was read.
    pub(super) async fn approve(&self, hold: &str, justification: Option<&str>) -> anyhow::Result<Answer> {
        let read = self.read(hold).await?;
        let digest = read.json.get("digest");
        let vote = match justification {
            Some(words) => json!({"digest": digest, "justification": words}),
            None => json!({"digest": digest}),
        };
        self.post(&format!("/v1/holds/{hold}/approve"), &vote).await
    }

    /// The hold's state.
    pub(super) async fn state(&self, hold: &str) -> anyhow::Result<String> {
        let read = self.read(hold).await?;
        Ok(read.json.get("state").and_then(Value::as_str).unwrap_or("gone").to_owned())
    }
}
