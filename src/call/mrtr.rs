//! Multi round-trip requests (MCP 2026-07-28): a call that its server answered with a question is sent again with the
//! answer, and is another call then.

use serde_json::Value;
use serde_json::value::RawValue;

use super::method::{CAPABILITIES, TASKS};
use super::splice::Edits;

/// What makes a round of an upstream's own: `inputResponses` and `requestState`.
#[must_use]
pub fn round(body: &[u8]) -> Option<Value> {
    let names = |name: &[u8]| body.windows(name.len()).any(|w| w == name);
    if !names(b"\"inputResponses\"") && !names(b"\"requestState\"") {
        return None;
    }
    let message: Value = serde_json::from_slice(body).ok()?;
    let part = |name: &str| message.get("params").and_then(|p| p.get(name)).cloned();
    let (answers, state) = (part("inputResponses"), part("requestState"));
    (answers.is_some() || state.is_some()).then(|| serde_json::json!([answers, state]))
}

/// Whether a message carries more to its server than its arguments and what the protocol itself is about: a server may heed
/// that, and who saw the arguments did not see it.
#[must_use]
pub fn carries_more(body: &[u8]) -> bool {
    let Ok(message) = serde_json::from_slice::<Value>(body) else { return true };
    let Some(params) = message.get("params").and_then(Value::as_object) else { return false };
    let call = message.get("method").is_some_and(|method| method == "tools/call");
    let more = |(name, value): (&String, &Value)| match name.as_str() {
        "_meta" => value.as_object().is_none_or(|meta| !meta.keys().all(|key| is_protocols(key))),
        "name" | "arguments" | "task" => false,
        // Of other methods the parameters are the arguments.
        _ => call,
    };
    params.iter().any(more)
}

/// Keys of `_meta` that the protocol, tracing or this proxy gave a meaning.
fn is_protocols(key: &str) -> bool {
    ["progressToken", "traceparent", "tracestate", "baggage"].contains(&key)
        || ["io.modelcontextprotocol/", "dev.holdpoint/"].iter().any(|prefix| key.starts_with(prefix))
}

/// The JSON-RPC code for a `requestState` that is not ours.
pub const INVALID_STATE: i32 = -32602;

/// How a `requestState` of ours begins; a server's own may begin as it likes, but not so.
const OURS: &str = "v1.hold_";

/// Takes a `requestState` of ours out of a message: the server never gave it out.
#[must_use]
pub fn take_ours(message: &mut Value, body: &str) -> Option<(String, String)> {
    #[derive(serde::Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        params: Params<'a>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Params<'a> {
        #[serde(borrow)]
        request_state: &'a RawValue,
    }
    let params = message.get_mut("params")?.as_object_mut()?;
    let ours = params.get("requestState").and_then(Value::as_str).filter(|s| s.starts_with(OURS))?.to_owned();
    let raw: Message<'_> = serde_json::from_str(body).ok()?;
    let mut edits = Edits::default();
    edits.remove_member(body, raw.params.request_state.get());
    params.shift_remove("requestState");
    Some((ours, edits.apply(body)?))
}

/// The message of the old era for a call that the proxy sends by itself: it wants the answer, not a task of 2025-11-25
/// that ends with the session. None when it asks for none.
#[must_use]
pub fn deferred_legacy(body: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        params: Params<'a>,
    }
    #[derive(serde::Deserialize)]
    struct Params<'a> {
        #[serde(borrow)]
        task: &'a RawValue,
    }
    let message: Message<'_> = serde_json::from_str(body).ok()?;
    let mut edits = Edits::default();
    edits.remove_member(body, message.params.task.get());
    edits.apply(body)
}

/// The message for a call that the proxy sends by itself: nobody is there to answer a question or to follow a task, so
/// the capabilities for them are taken out. None when there is nothing to take out.
#[must_use]
pub fn deferred(body: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        params: Params<'a>,
    }
    #[derive(serde::Deserialize)]
    struct Params<'a> {
        #[serde(borrow, rename = "_meta")]
        meta: std::collections::HashMap<String, &'a RawValue>,
    }
    let message: Message<'_> = serde_json::from_str(body).ok()?;
    let declared = message.params.meta.get(CAPABILITIES)?;
    let mut capabilities: Value = serde_json::from_str(declared.get()).ok()?;
    let members = capabilities.as_object_mut()?;
    let before = members.clone();
    for name in ["elicitation", "roots", "sampling"] {
        members.shift_remove(name);
    }
    if let Some(extensions) = members.get_mut("extensions").and_then(Value::as_object_mut) {
        extensions.shift_remove(TASKS);
    }
    if *members == before {
        return None;
    }
    let mut edits = Edits::default();
    edits.replace(body, declared.get(), capabilities.to_string());
    edits.apply(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answered_question_makes_another_call_and_a_word_in_an_argument_does_not() {
        assert!(round(br#"{"params":{"name":"pay","arguments":{"t":"\"requestState\""}}}"#).is_none());
        assert!(round(br#"{"params":{"name":"pay","arguments":{"requestState":1}}}"#).is_none());
        let first = round(br#"{"params":{"name":"pay","requestState":"a"}}"#).unwrap();
        assert_ne!(first, round(br#"{"params":{"name":"pay","requestState":"b"}}"#).unwrap());
    }

    #[test]
    fn what_a_server_may_heed_beside_the_arguments_is_found() {
        let call = |more: &str| {
            format!(r#"{{"method":"tools/call","params":{{"name":"pay","arguments":{{"tenant":1}}{more}}}}}"#)
        };
        for plain in [
            "",
            r#","task":{"ttl":1}"#,
            r#","_meta":{"progressToken":1,"traceparent":"00-1-2-01","dev.holdpoint/run":"r","io.modelcontextprotocol/protocolVersion":"x"}"#,
        ] {
            assert!(!carries_more(call(plain).as_bytes()), "{plain}");
        }
        for more in [r#","_meta":{"tenant":"b"}"#, r#","_meta":1"#, r#","requestState":"a""#, r#","cursor":"b""#] {
            assert!(carries_more(call(more).as_bytes()), "{more}");
        }
        assert!(!carries_more(br#"{"method":"resources/read","params":{"uri":"file:///x"}}"#));
        assert!(carries_more(br#"{"method":"resources/read","params":{"uri":"file:///x","_meta":{"as":"b"}}}"#));
        assert!(!carries_more(br#"{"method":"ping"}"#) && carries_more(b"no JSON"));
    }

    #[test]
    fn a_task_of_the_old_era_is_not_asked_for() {
        let body = r#"{"params":{"name":"pay","task":{"ttl":1},"arguments":{"task":1}}}"#;
        assert_eq!(deferred_legacy(body).unwrap(), r#"{"params":{"name":"pay","arguments":{"task":1}}}"#);
        assert!(deferred_legacy(r#"{"params":{"arguments":{"task":1}}}"#).is_none());
    }

    #[test]
    fn who_is_not_there_can_do_nothing() {
        let body = |capabilities: &str| {
            format!(r#"{{"id": 7,"params":{{"n":1e2,"_meta":{{"x":0,"{CAPABILITIES}":{capabilities}}}}}}}"#)
        };
        let all = format!(r#"{{"sampling":{{}}, "extensions":{{"{TASKS}":{{}},"x/y":{{}}}},"elicitation":{{}}}}"#);
        assert_eq!(deferred(&body(&all)).unwrap(), body(r#"{"extensions":{"x/y":{}}}"#));
        assert!(deferred(&body("{}")).is_none());
        assert!(deferred(r#"{"params":{}}"#).is_none());
    }
}
