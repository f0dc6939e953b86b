//! What an agent says beside the call, from headers or from `_meta`.

use std::time::Duration;

use http::HeaderMap;
use serde_json::Value;

use crate::call::{ArtifactId, Code, Hints, MAX_EVIDENCE, Preference, Refusal};

fn bad(detail: impl Into<String>) -> Refusal {
    Refusal::new(Code::MalformedRequest, detail.into())
}

/// From request headers.
pub(super) fn from_headers(headers: &HeaderMap) -> Result<Hints, Refusal> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let evidence = text("holdpoint-evidence").unwrap_or_default();
    let ids = evidence.split(',').map(str::trim).filter(|s| !s.is_empty());
    let evidence = artifacts(ids)?;
    Ok(Hints {
        key: text("idempotency-key").map(|k| key(&k)).transpose()?,
        workflow: word("Holdpoint-Workflow", text("holdpoint-workflow"))?,
        run: word("Holdpoint-Run", text("holdpoint-run"))?,
        step: word("Holdpoint-Step", text("holdpoint-step"))?,
        intent: text("holdpoint-intent").map(|t| t.chars().take(4096).collect()),
        confidence: text("holdpoint-confidence").map(|c| confidence(&c)).transpose()?,
        evidence,
        prefer: prefer(headers),
        poll: None,
    })
}

/// From `params._meta` of an MCP message; what is not there comes from the headers.
pub(super) fn from_meta(message: &Value, headers: &HeaderMap) -> Result<Hints, Refusal> {
    let mut hints = from_headers(headers)?;
    let meta = |name: &str| message.pointer(&format!("/params/_meta/dev.holdpoint~1{name}"));
    for name in ["idempotency-key", "workflow", "run", "step", "intent"] {
        if meta(name).is_some_and(|v| !v.is_string()) {
            return Err(bad(format!("`dev.holdpoint/{name}` must be a string")));
        }
    }
    if meta("evidence").is_some_and(|v| !v.is_array()) {
        return Err(bad("`dev.holdpoint/evidence` must be a list of artifact ids"));
    }
    let text = |name: &str| meta(name).and_then(Value::as_str).map(str::to_owned);
    let given = text("idempotency-key")
        .or_else(|| message.pointer("/params/idempotencyKey").and_then(Value::as_str).map(str::to_owned));
    if let Some(k) = given {
        hints.key = Some(key(&k)?);
    }
    hints.workflow = word("workflow", text("workflow"))?.or(hints.workflow);
    hints.run = word("run", text("run"))?.or(hints.run);
    hints.step = word("step", text("step"))?.or(hints.step);
    hints.intent = text("intent").map(|t| t.chars().take(4096).collect()).or(hints.intent);
    if let Some(c) = meta("confidence") {
        hints.confidence = Some(confidence(&c.to_string())?);
    }
    if let Some(ids) = meta("evidence").and_then(Value::as_array) {
        hints.evidence = artifacts(ids.iter().map(|v| v.as_str().unwrap_or_default()))?;
    }
    Ok(hints)
}

/// Each once, and no more than a hold may have: all of them are read, and shown to whoever decides.
fn artifacts<'t>(ids: impl Iterator<Item = &'t str>) -> Result<Vec<ArtifactId>, Refusal> {
    let mut all = Vec::new();
    for text in ids {
        let id = text.parse().map_err(|e| bad(format!("evidence: {e}")))?;
        if !all.contains(&id) {
            all.push(id);
        }
        if all.len() > MAX_EVIDENCE {
            return Err(bad(format!("evidence: a call has at most {MAX_EVIDENCE} pieces")));
        }
    }
    Ok(all)
}

/// `Idempotency-Key`: a quoted structured string or a bare token (draft-ietf-httpapi-idempotency-key-header).
fn key(text: &str) -> Result<String, Refusal> {
    let bare = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    if !crate::call::is_key(bare) {
        return Err(bad("the idempotency key must be 1 to 255 characters of `A-Z a-z 0-9 _ . : -`"));
    }
    Ok(bare.to_owned())
}

fn word(what: &str, text: Option<String>) -> Result<Option<String>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.:-".contains(&b);
    if text.is_empty() || text.len() > 128 || !text.bytes().all(allowed) {
        return Err(bad(format!("{what} must be 1 to 128 characters of `A-Z a-z 0-9 _ . : -`")));
    }
    Ok(Some(text))
}

fn confidence(text: &str) -> Result<f64, Refusal> {
    text.parse().ok().filter(|c| (0.0..=1.0).contains(c)).ok_or_else(|| bad("confidence must be a number from 0 to 1"))
}

/// `Prefer` (RFC 7240): `respond-async` and `wait=N`; anything else is ignored, as the RFC demands.
fn prefer(headers: &HeaderMap) -> Preference {
    let mut found = Preference::default();
    let values = headers.get_all("prefer").iter().filter_map(|v| v.to_str().ok());
    for item in values.flat_map(|v| v.split(',')) {
        let item = item.split(';').next().unwrap_or_default().trim();
        match item.split_once('=') {
            None if item.eq_ignore_ascii_case("respond-async") => found.respond_async = true,
            Some((name, n)) if name.trim().eq_ignore_ascii_case("wait") => {
                found.wait = n.trim().trim_matches('"').parse().ok().map(Duration::from_secs);
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_quoted_or_bare_are_one_key() {
        assert_eq!(key("\"a-1\"").unwrap(), "a-1");
        assert_eq!(key("a-1").unwrap(), "a-1");
        for wrong in ["", "a b", "\"a", &"x".repeat(256), "ä", "derived:1"] {
            assert!(key(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn evidence_is_named_once_and_not_without_end() {
        let id = || crate::call::ArtifactId::new().to_string();
        let one = id();
        let named = |ids: &[String]| {
            let headers =
                HeaderMap::from_iter([("holdpoint-evidence".parse().unwrap(), ids.join(", ").parse().unwrap())]);
            let meta = serde_json::json!({"params": {"_meta": {"dev.holdpoint/evidence": ids}}});
            let by_meta = from_meta(&meta, &HeaderMap::new()).map(|h| h.evidence.len());
            assert_eq!(from_headers(&headers).map(|h| h.evidence.len()).ok(), by_meta.as_ref().ok().copied());
            by_meta.map_err(|refusal| refusal.public_text().to_owned())
        };
        assert_eq!(named(&[one.clone(), one.clone(), one]), Ok(1));
        let mut many: Vec<String> = (0..32).map(|_| id()).collect();
        assert_eq!(named(&many), Ok(32));
        many.push(id());
        assert!(named(&many).unwrap_err().contains("32"));
    }

    #[test]
    fn preferences_are_read_as_rfc_7240_writes_them() {
        let mut h = HeaderMap::new();
        h.append("prefer", "respond-async, wait=10; x=y".parse().unwrap());
        h.append("prefer", "return=minimal".parse().unwrap());
        assert_eq!(prefer(&h), Preference { respond_async: true, wait: Some(Duration::from_secs(10)) });
    }
}
