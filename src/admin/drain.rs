//! Stopping this process in order, as SIGTERM does.

use std::sync::Arc;

use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::store::AuditNote;

use super::api::{self, Answer};
use super::decide::WORDS;
use super::handling::given;
use super::posted::Posted;

/// Takes no new calls from now on, and ends the process once those under way have ended.
pub type Drain = Arc<dyn Fn() + Send + Sync>;

/// Why it is stopped.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Drain")]
pub(super) struct Stop {
    /// Not empty.
    #[schemars(length(max = WORDS), pattern(r"\S"))]
    reason: String,
}

/// It is on the disk who asked for it and why, before it begins. Asked again meanwhile, it goes on.
pub(super) async fn drain(Posted { asked, said, .. }: Posted<Stop>) -> Answer {
    asked.asker().permit_system(&["drain"])?;
    let reason = given("reason", &said.reason)?;
    if !asked.admin.draining.is_on() {
        let more = [("user", json!(asked.who().person)), ("reason", json!(reason))];
        let note = AuditNote::plain("drain.begun", more.map(|(n, v)| (n.to_owned(), v)).into());
        asked.admin.store.append(note, true).await?;
        tracing::warn!(by = asked.who().person, "asked to drain: no new calls are taken, and the process ends");
        (asked.admin.drain)();
    }
    let mut response = api::ok(&json!({"draining": true, "drain_s": asked.config().listen.drain.as_secs()}), None);
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}
