//! A hold as a task of MCP (`mcp.md` 2.3.1; extension `io.modelcontextprotocol/tasks`, SEP-2663).

use http::{Response, StatusCode};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::call::{Code, Executed, HoldId, HoldTimes, Outcome, Refusal, method};

use super::super::own::TaskReply;
use super::super::reply::OutBody;
use super::Asked;
use super::answer::{self, StoredMember};

/// How often a client should ask, milliseconds.
const POLL_MS: u64 = 5_000;

/// The answer to `tasks/get`, `tasks/update` and `tasks/cancel`, and a held call as a task.
pub(super) fn answer(reply: TaskReply, asked: &Asked) -> Response<OutBody> {
    match reply {
        TaskReply::Told { hold, times, outcome } => {
            let (mut task, end) = told(hold, times, outcome, asked);
            let made = asked.method == "tools/call";
            task.insert("resultType".into(), if made { "task" } else { "complete" }.into());
            let mut text = Value::Object(task).to_string();
            if let (Some((name, value)), Some('}')) = (end, text.pop()) {
                // The tool's own words, byte for byte.
                text.push_str(&format!(",\"{name}\":{}", value.get()));
            }
            text.push('}');
            answer::rpc_text(asked, StatusCode::OK, "result", &text)
        }
        TaskReply::Done => answer::rpc(asked, StatusCode::OK, "result", &json!({"resultType": "complete"})),
        TaskReply::Refused(refusal) if refusal.code() == Code::UnknownTool => {
            answer::error(asked, &method::unknown_task())
        }
        TaskReply::Refused(refusal) => answer::error(asked, &refusal),
    }
}

/// What a stored answer adds to a task: the member's name, and its text.
type End = Option<(&'static str, Box<RawValue>)>;

fn told(hold: HoldId, times: HoldTimes, outcome: Outcome, asked: &Asked) -> (Map<String, Value>, End) {
    let mut task = Map::new();
    task.insert("taskId".into(), hold.to_string().into());
    task.insert("createdAt".into(), times.created.to_string().into());
    task.insert("lastUpdatedAt".into(), times.updated.to_string().into());
    let ttl = times.expires.map(|e| u64::try_from(e.since(times.created).as_millis()).unwrap_or(u64::MAX));
    task.insert("ttlMs".into(), ttl.map_or(Value::Null, Into::into));
    let (standing, end) = standing(outcome, asked);
    task.extend(standing);
    (task, end)
}

/// Status, and what belongs to it.
fn standing(outcome: Outcome, asked: &Asked) -> (Map<String, Value>, End) {
    let mut m = Map::new();
    let mut end = None;
    let mut put = |name: &str, value: Value| drop(m.insert(name.to_owned(), value));
    match outcome {
        Outcome::Held { refusal, .. } => {
            put("status", "working".into());
            put("statusMessage", waiting(&refusal).into());
            put("pollIntervalMs", POLL_MS.into());
            put("_meta", json!({"dev.holdpoint/hold": about(&refusal)}));
        }
        Outcome::Refused(refusal) if refusal.code() == Code::InFlight => {
            put("status", "working".into());
            put("statusMessage", "Approved; it is being sent".into());
            put("pollIntervalMs", 1_000.into());
        }
        Outcome::Refused(refusal) if refusal.code() == Code::Withdrawn => {
            put("status", "cancelled".into());
            put("statusMessage", refusal.public_text().into());
        }
        // Not JSON-RPC that failed: the model must read the reason.
        Outcome::Refused(refusal) => {
            put("status", "completed".into());
            put("result", answer::refused_result(&refusal, asked));
        }
        Outcome::Replayed { reply, .. } | Outcome::Forwarded { reply, .. } => match answer::stored_member(&reply) {
            Some(StoredMember::Result(result)) if asks_back(&result) => {
                put("status", "completed".into());
                let text =
                    "the tool asks its client for something, and an approved call has none; nobody can answer it";
                let refusal = Refusal::new(Code::InvalidAnswer, text).with_executed(Executed::Unknown);
                put("result", answer::refused_result(&refusal, asked));
            }
            Some(StoredMember::Result(result)) => {
                put("status", "completed".into());
                end = Some(("result", result));
            }
            Some(StoredMember::Error(error)) => {
                put("status", "failed".into());
                end = Some(("error", error));
            }
            None => {
                put("status", "failed".into());
                put("error", json!({"code": -32603, "message": "the tool's answer was no JSON-RPC answer"}));
            }
        },
    }
    (m, end)
}

/// Whether a result is a question, which no task can end with.
fn asks_back(result: &RawValue) -> bool {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kind {
        result_type: Option<String>,
    }
    let kind = serde_json::from_str::<Kind>(result.get()).ok().and_then(|k| k.result_type);
    kind.as_deref() == Some("input_required")
}

fn waiting(refusal: &Refusal) -> String {
    if refusal.extra("state").and_then(Value::as_str) == Some("approved") {
        return "Approved; not sent yet".into();
    }
    let policies: Vec<&str> = refusal.policies().iter().map(|p| p.id.as_str()).collect();
    match policies.as_slice() {
        [] => "Held for human approval".into(),
        some => format!("Held for human approval (policy: {})", some.join(", ")),
    }
}

fn about(refusal: &Refusal) -> Value {
    let mut about = Map::new();
    for (from, to) in
        [("state", "state"), ("expires", "expiresAt"), ("digest_code", "code"), ("approval_url", "approvalUrl")]
    {
        if let Some(value) = refusal.extra(from) {
            about.insert(to.into(), value.clone());
        }
    }
    about.extend(refusal.hold().map(|hold| ("holdId".to_owned(), hold.to_string().into())));
    Value::Object(about)
}
