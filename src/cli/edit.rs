//! What a person types to change a held call, as the JSON Patch that the server takes.

use anyhow::{Context, bail};
use serde_json::{Value, json};

/// A patch of `ARG=VALUE` pairs, or one that was written out.
///
/// # Errors
/// Says what was expected.
pub(super) fn patch(set: &[String], written: Option<&str>) -> anyhow::Result<Value> {
    match written {
        Some(written) => {
            let text = match written.strip_prefix('@') {
                Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?,
                None => written.to_owned(),
            };
            serde_json::from_str(&text).context("the patch is no JSON")
        }
        None if set.is_empty() => bail!("say what to change: --set amountMinor=4400, or --patch '[…]'"),
        None => set.iter().map(|pair| one(pair)).collect::<anyhow::Result<Vec<_>>>().map(Value::Array),
    }
}

/// Adds where nothing was, and replaces what was (RFC 6902, 4.1).
fn one(pair: &str) -> anyhow::Result<Value> {
    let (name, text) = pair.split_once('=').with_context(|| format!("`{pair}` is not ARG=VALUE"))?;
    let path = if name.starts_with('/') { name.to_owned() } else { format!("/{}", name.replace('~', "~0")) };
    let value = serde_json::from_str::<Value>(text).unwrap_or_else(|_| text.into());
    Ok(json!({"op": "add", "path": path, "value": value}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_become_a_patch() {
        let set = ["amountMinor=4400", "reason=double charge", "/address/city=\"Ulm\""].map(str::to_owned);
        let wanted = json!([
            {"op": "add", "path": "/amountMinor", "value": 4400},
            {"op": "add", "path": "/reason", "value": "double charge"},
            {"op": "add", "path": "/address/city", "value": "Ulm"},
        ]);
        assert_eq!(patch(&set, None).unwrap(), wanted);
        assert_eq!(patch(&[], Some("[]")).unwrap(), json!([]));
        assert!(patch(&[], None).is_err() && patch(&["x".into()], None).is_err() && patch(&[], Some("{")).is_err());
    }
}
