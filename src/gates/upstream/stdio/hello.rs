//! The handshake with a server, made once for each of its processes, and what clients of both eras hear of it.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::call::splice::Edits;

/// The id of the handshake; those of calls come after it.
pub(super) const ID: u64 = 0;
/// The versions with a handshake, oldest first.
pub(super) const LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
/// The version without.
pub(super) const MODERN: &str = "2026-07-28";
/// What is told of the server may be kept for so long, ms: it may be started anew with other tools.
pub(super) const TTL_MS: u64 = 60_000;

/// What a server said of itself.
#[derive(Debug)]
pub(super) struct Hello {
    result: String,
    version: String,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InitializeResult<'a> {
    #[serde(borrow)]
    protocol_version: &'a RawValue,
    #[serde(borrow)]
    capabilities: &'a RawValue,
}

/// The first line to a server. No capability is declared: nothing of a client stands behind it.
pub(super) fn initialize() -> String {
    let client = json!({"name": "holdpoint", "version": env!("CARGO_PKG_VERSION")});
    let newest = LEGACY.last();
    let params = json!({"protocolVersion": newest, "capabilities": {}, "clientInfo": client});
    format!("{}\n", json!({"jsonrpc": "2.0", "id": ID, "method": "initialize", "params": params}))
}

/// The second one.
pub(super) fn initialized() -> String {
    format!("{}\n", json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
}

impl Hello {
    /// Reads the response to [`initialize`].
    ///
    /// # Errors
    /// Why this server cannot be used.
    pub(super) fn read(line: &str) -> Result<Self, String> {
        let wrong = || "its answer to `initialize` cannot be read".to_owned();
        let response: Response<'_> = serde_json::from_str(line).map_err(|_| wrong())?;
        if let Some(error) = response.error {
            let error: String = error.get().chars().take(500).collect();
            return Err(format!("it refused `initialize`: {error}"));
        }
        let result = response.result.ok_or_else(wrong)?.get();
        let parts: InitializeResult<'_> = serde_json::from_str(result).map_err(|_| wrong())?;
        let version: String = serde_json::from_str(parts.protocol_version.get()).map_err(|_| wrong())?;
        if !LEGACY.contains(&version.as_str()) {
            return Err(format!("it speaks MCP `{}`, which is not spoken here", version.escape_debug()));
        }
        Ok(Self { result: result.to_owned(), version })
    }

    /// The result for a client that asked for a version: that one where it is known and no newer than the server's,
    /// else the server's.
    pub(super) fn to_legacy(&self, asked: Option<&str>) -> String {
        let known = asked.filter(|a| LEGACY.contains(a) && *a <= self.version.as_str());
        let version = json!(known.unwrap_or(&self.version)).to_string();
        let Ok(parts) = serde_json::from_str::<InitializeResult<'_>>(&self.result) else { return self.result.clone() };
        let mut edits = Edits::default();
        edits.replace(&self.result, parts.protocol_version.get(), version);
        edits.replace(&self.result, parts.capabilities.get(), self.capabilities(false).to_string());
        edits.apply(&self.result).unwrap_or_else(|| self.result.clone())
    }

    /// The result of `server/discover`.
    pub(super) fn to_modern(&self) -> String {
        let mut result = json!({
            "resultType": "complete",
            "supportedVersions": [MODERN],
            "capabilities": self.capabilities(true),
            "ttlMs": TTL_MS,
            "cacheScope": "private",
        });
        let said: Value = serde_json::from_str(&self.result).unwrap_or_default();
        if let Some(members) = result.as_object_mut() {
            members.extend(said.get("instructions").map(|i| ("instructions".to_owned(), i.clone())));
            let server = said.get("serverInfo");
            let meta = server.map(|s| ("_meta".to_owned(), json!({"io.modelcontextprotocol/serverInfo": s})));
            members.extend(meta);
        }
        result.to_string()
    }

    /// What it can do, without what cannot reach a client: nothing flows but the answers to requests, and its tasks
    /// would be in common.
    fn capabilities(&self, modern: bool) -> Value {
        let said: Value = serde_json::from_str(&self.result).unwrap_or_default();
        let mut can = said.get("capabilities").filter(|c| c.is_object()).cloned().unwrap_or_else(|| json!({}));
        let Some(members) = can.as_object_mut() else { return can };
        members.remove("tasks");
        if modern {
            members.remove("logging");
        }
        for capability in members.values_mut().filter_map(Value::as_object_mut) {
            capability.remove("listChanged");
            capability.remove("subscribe");
        }
        can
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        let line = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true},"tasks":{},"logging":{}},"serverInfo":{"name":"s","version":"1"},"instructions":"be kind", "x":1e2}}"#;
        Hello::read(line).unwrap()
    }

    #[test]
    fn the_version_is_negotiated_by_the_rule_of_the_specification() {
        for (asked, said) in [
            (Some("2025-03-26"), "2025-03-26"),
            (Some("2025-06-18"), "2025-06-18"),
            (Some("2025-11-25"), "2025-06-18"),
            (Some("2026-07-28"), "2025-06-18"),
            (Some("nonsense"), "2025-06-18"),
            (None, "2025-06-18"),
        ] {
            let result = hello().to_legacy(asked);
            let read: Value = serde_json::from_str(&result).unwrap();
            assert_eq!(read["protocolVersion"], said, "{asked:?}");
            assert_eq!(read["capabilities"], json!({"tools": {}, "resources": {}, "logging": {}}));
            assert!(result.contains(r#""instructions":"be kind", "x":1e2}"#), "{result}");
        }
    }

    #[test]
    fn discovery_tells_of_the_handshake() {
        let result: Value = serde_json::from_str(&hello().to_modern()).unwrap();
        assert_eq!(result["capabilities"], json!({"resources": {}, "tools": {}}));
        assert_eq!((&result["resultType"], &result["instructions"]), (&json!("complete"), &json!("be kind")));
        assert_eq!(result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "s");
        assert_eq!((&result["ttlMs"], &result["cacheScope"]), (&json!(60_000), &json!("private")));
    }

    #[test]
    fn a_server_that_cannot_be_used_says_why() {
        for (line, why) in [
            (r#"{"id":0,"error":{"code":-32602,"message":"no"}}"#, "refused"),
            (r#"{"id":0,"result":{"protocolVersion":"1.0","capabilities":{}}}"#, "speaks MCP `1.0`"),
            (r#"{"id":0,"result":{}}"#, "cannot be read"),
        ] {
            assert!(Hello::read(line).unwrap_err().contains(why), "{line}");
        }
    }
}
