//! Reads that the proxy makes by itself: which operation, with which of a call's arguments, and what an MCP tool's
//! answer says.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::json;

/// A read operation that the proxy uses with its own credential, to find something out about a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnRead {
    /// Name of the operation, `tickets.get_ticket`; its effect is `read`.
    pub operation: String,
    /// Each of its arguments, and the JSON Pointer into the call's arguments where its value stands.
    pub with: Vec<(String, String)>,
}

impl OwnRead {
    /// Its arguments for one call.
    ///
    /// # Errors
    /// In words, when the call has no such value.
    pub fn arguments(&self, input: &Value) -> Result<Value, String> {
        let one = |(name, pointer): &(String, String)| {
            let value = input.pointer(pointer).filter(|v| !v.is_null());
            let value = value.ok_or_else(|| format!("the arguments of the call have nothing at `{pointer}`"))?;
            Ok((name.clone(), value.clone()))
        };
        self.with.iter().map(one).collect::<Result<Map<_, _>, String>>().map(Value::Object)
    }
}

/// Evidence of one kind that the proxy fetches by itself when a call is held.
#[derive(Debug, Clone, PartialEq)]
pub struct EvidenceRule {
    /// Its kind, as `@evidence` of policies names it.
    pub kind: String,
    /// How it is fetched.
    pub read: OwnRead,
    /// JSON Pointers into the answer, and what must stand there: else it is no evidence.
    pub check: Vec<(String, Value)>,
    /// JSON Pointers into the answer that are not kept.
    pub redact: Vec<String>,
}

impl EvidenceRule {
    /// Whether the answer is what it must be.
    ///
    /// # Errors
    /// The first check that fails, in words; what stands there instead is not told: records show the words.
    pub fn check(&self, answer: &Value) -> Result<(), String> {
        let failed = self.check.iter().find(|(pointer, wanted)| answer.pointer(pointer) != Some(wanted));
        failed.map_or(Ok(()), |(pointer, wanted)| Err(format!("its check failed: `{pointer}` is not {wanted}")))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolResult<'a> {
    #[serde(borrow)]
    structured_content: Option<&'a RawValue>,
    #[serde(default)]
    content: Vec<Block>,
    #[serde(default)]
    is_error: bool,
    result_type: Option<String>,
}

#[derive(Deserialize)]
struct Block {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

/// What the result of an MCP tool says, as JSON: its structured content, else its one text where that is JSON, else its
/// text as a string.
///
/// # Errors
/// In words, when the tool failed, wants to be asked further, or says nothing that can be read.
pub fn tool_result(result: &str) -> Result<String, String> {
    let read: ToolResult<'_> = serde_json::from_str(result).map_err(|_| "it is no result of a tool".to_owned())?;
    if read.is_error {
        return Err("the tool says that it failed".into());
    }
    if let Some(other) = read.result_type.filter(|kind| kind != "complete") {
        return Err(format!("the tool did not answer at once: `{}`", other.escape_debug()));
    }
    if let Some(structured) = read.structured_content {
        return Ok(structured.get().to_owned());
    }
    let texts: Vec<&str> = read.content.iter().filter(|b| b.kind == "text").filter_map(|b| b.text.as_deref()).collect();
    if texts.len() != read.content.len() || texts.is_empty() {
        return Err("the tool's answer is not text".into());
    }
    let text = texts.join("\n");
    let is_json = texts.len() == 1 && json::read_any_number(text.as_bytes()).is_ok();
    Ok(if is_json { text } else { Value::String(text).to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arguments_come_from_the_call() {
        let with = vec![("id".to_owned(), "/ticket/id".to_owned())];
        let read = OwnRead { operation: "tickets.get".into(), with };
        assert_eq!(read.arguments(&json!({"ticket": {"id": 7}, "more": 1})), Ok(json!({"id": 7})));
        for none in [json!({}), json!({"ticket": {"id": null}}), json!({"ticket": 7})] {
            let why = read.arguments(&none).unwrap_err();
            assert_eq!(why, "the arguments of the call have nothing at `/ticket/id`");
        }
        assert_eq!(OwnRead { with: Vec::new(), ..read }.arguments(&json!({})), Ok(json!({})));
    }

    #[test]
    fn a_check_compares_values_and_says_which_failed() {
        let read = OwnRead { operation: "tickets.get".into(), with: Vec::new() };
        let check = vec![("/status".to_owned(), json!("open")), ("/n".to_owned(), json!(null))];
        let rule = EvidenceRule { kind: "ticket".into(), read, check, redact: Vec::new() };
        assert_eq!(rule.check(&json!({"status": "open", "n": null})), Ok(()));
        let why = rule.check(&json!({"status": "secret", "n": null})).unwrap_err();
        assert_eq!(why, "its check failed: `/status` is not \"open\"");
        assert_eq!(rule.check(&json!({"status": "open"})).unwrap_err(), "its check failed: `/n` is not null");
    }

    #[test]
    fn a_tools_result_is_what_it_says() {
        let text = |t: &str| json!({"type": "text", "text": t});
        let said = |result: Value| tool_result(&result.to_string());
        let both = json!({"structuredContent": {"a": 1}, "content": [text("other")], "resultType": "complete"});
        assert_eq!(said(both).unwrap(), r#"{"a":1}"#);
        assert_eq!(said(json!({"content": [text(r#"{"a": 1}"#)]})).unwrap(), r#"{"a": 1}"#);
        assert_eq!(said(json!({"content": [text("plain")]})).unwrap(), r#""plain""#);
        // Of two values of one name nobody can say which is meant: then it is text.
        assert_eq!(said(json!({"content": [text(r#"{"a":1,"a":2}"#)]})).unwrap(), r#""{\"a\":1,\"a\":2}""#);
        assert_eq!(said(json!({"content": [text("1"), text("2")]})).unwrap(), r#""1\n2""#);
        assert_eq!(
            tool_result(r#"{"structuredContent":{"n":12345678901234567890123}}"#).unwrap(),
            r#"{"n":12345678901234567890123}"#
        );
    }

    #[test]
    fn what_says_nothing_is_told_apart() {
        let text = json!({"type": "text", "text": "x"});
        for (result, why) in [
            (json!({"isError": true, "content": [text]}), "failed"),
            (json!({"resultType": "input_required", "content": [text]}), "input_required"),
            (json!({"content": [text, {"type": "image", "data": "AA=="}]}), "not text"),
            (json!({"content": []}), "not text"),
            (json!([]), "no result"),
        ] {
            let said = tool_result(&result.to_string()).unwrap_err();
            assert!(said.contains(why), "{result}: {said}");
        }
    }
}
