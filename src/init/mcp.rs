//! The tools of an MCP server, as a tool of the draft.

use super::{At, Operation, Remarks, Tool, effects};
use crate::config::lock::{Lock, is_tool_name};
use serde_json::Value;

/// The tool that a server's `tools/list` describes; its lock file is the one that `holdpoint lock` writes.
///
/// # Errors
/// When it offers nothing.
pub fn tool(name: &str, at: At, definitions: Vec<Value>) -> Result<Tool, String> {
    let mut left_out = Remarks::default();
    let named = |d: &Value| d.get("name").and_then(Value::as_str).map(str::to_owned);
    let (good, odd): (Vec<_>, Vec<_>) =
        definitions.into_iter().partition(|d| named(d).is_some_and(|n| is_tool_name(&n)));
    for odd in odd {
        let shown = named(&odd).map_or_else(|| "?".to_owned(), |n| n.escape_debug().to_string());
        left_out.add("the name has characters that no name may have", &shown);
    }
    let lock = Lock::of(name, good);
    if lock.tools.is_empty() {
        return Err("offers no tools".into());
    }
    let operation = |(name, locked): (&String, &crate::config::lock::Locked)| {
        let (effect, cost, why) = effects::mcp(name, &locked.definition);
        let schema = locked.definition.get("inputSchema").cloned();
        Operation { name: name.clone(), matches: None, effect, why, schema, plain: false, cost }
    };
    Ok(Tool {
        name: name.to_owned(),
        at,
        operations: lock.tools.iter().map(operation).collect(),
        lock: Some(lock.text()),
        headers: Vec::new(),
        token: None,
        env: Vec::new(),
        secured: false,
        left_out,
        notes: Remarks::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_look_alike_stays_out_of_the_lock() {
        let all = vec![json!({"name": "get_x", "inputSchema": {"type": "object"}}), json!({"name": "get_\u{445}"})];
        let t = tool("x", At::Url("http://h/mcp".into()), all).unwrap();
        assert_eq!(t.operations.len(), 1);
        assert_eq!(t.left_out.count(), 1);
        assert!(Lock::parse(t.lock.as_deref().unwrap(), "x").is_ok());
        assert!(tool("x", At::Url("http://h/mcp".into()), Vec::new()).is_err());
    }
}
