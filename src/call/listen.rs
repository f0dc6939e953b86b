//! `subscriptions/listen` (MCP 2026-07-28): a client that also listens to tasks names them, and those that are holds of
//! ours are nothing to its server.

use serde_json::Value;
use serde_json::value::RawValue;

use super::HoldId;
use super::splice::Edits;

/// Takes holds of ours out of the tasks that a client wants to hear of; it learns of them by asking. None when there is
/// none among them.
#[must_use]
pub fn without_ours(message: &mut Value, body: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        params: Params<'a>,
    }
    #[derive(serde::Deserialize)]
    struct Params<'a> {
        #[serde(borrow)]
        notifications: Wanted<'a>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wanted<'a> {
        #[serde(borrow)]
        task_ids: &'a RawValue,
    }
    let ids = message.pointer_mut("/params/notifications/taskIds")?.as_array_mut()?;
    let before = ids.len();
    ids.retain(|id| id.as_str().is_none_or(|id| id.parse::<HoldId>().is_err()));
    if ids.len() == before {
        return None;
    }
    let raw: Message<'_> = serde_json::from_str(body).ok()?;
    let mut edits = Edits::default();
    edits.replace(body, raw.params.notifications.task_ids.get(), Value::Array(ids.clone()).to_string());
    edits.apply(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::CallId;

    #[test]
    fn only_tasks_of_the_server_are_asked_of_it() {
        let hold = CallId::new().hold();
        let body = format!(r#"{{"id": 1,"params":{{"notifications":{{ "taskIds" : ["t-1", "{hold}"],"x":1}}}}}}"#);
        let mut message: Value = serde_json::from_str(&body).unwrap();
        let left = without_ours(&mut message, &body).unwrap();
        assert_eq!(left, r#"{"id": 1,"params":{"notifications":{ "taskIds" : ["t-1"],"x":1}}}"#);
        assert_eq!(message, serde_json::from_str::<Value>(&left).unwrap());
        assert!(without_ours(&mut message, &left).is_none());
    }
}
