//! Asks an upstream with a plain read what became of a call whose outcome is unknown.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, HeaderMap, HeaderValue};
use http::{Request, StatusCode, Uri};
use http_body_util::Full;
use serde_json::Value;

use crate::call::{Call, Digest, IDLE, Part, ProbeRule, encode_part, encode_path};

use super::endpoint::{Endpoint, Origin};
use super::flow::{Flow, Piece, Raw};
use super::pool::{Freshness, SendError};
use super::started::Started;
use super::{Upstreams, credential, own, pool_key};

/// A longer answer says nothing.
const LIMIT: usize = 1 << 20;

/// What a read tells of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// It was executed.
    Found,
    /// The upstream does not know it.
    NotFound,
    /// Neither: an error, a redirect, an answer that is no JSON.
    Unclear,
}

/// A read and its answer.
#[derive(Debug)]
pub struct Probed {
    /// What it tells.
    pub finding: Finding,
    /// The target that was read, below the upstream's base.
    pub target: String,
    /// The answer's status, and the digest of its bytes.
    pub answer: (u16, Digest),
}

impl Upstreams {
    /// Reads whether a call was executed: with the tool's own credential, within the operation's deadline, at most
    /// 1 MiB, no redirects.
    ///
    /// # Errors
    /// Why it could not be asked: that says nothing of the call.
    pub async fn probe(
        &self,
        endpoint: &Endpoint,
        base: &str,
        rule: &ProbeRule,
        call: &Call,
    ) -> Result<Probed, String> {
        let Endpoint::Http(endpoint) = endpoint else { return Err("a command has no such read".into()) };
        let target = target(rule, call)?;
        let _place = self.probes.try_acquire().map_err(|_| "too many such reads are under way".to_owned())?;
        let path = format!("{base}{target}");
        let asked = self.read(endpoint, &path);
        let answer = tokio::time::timeout(call.operation().limits.deadline, asked).await;
        let (status, body) = answer.map_err(|_| "it did not answer in time".to_owned())??;
        let named = rule.path.iter().any(|part| !matches!(part, Part::Text(_)));
        let finding = finding(status, &body, &rule.found, named);
        Ok(Probed { finding, target, answer: (status.as_u16(), Digest::of(&body)) })
    }

    async fn read(&self, endpoint: &Arc<Origin>, path: &str) -> Result<(StatusCode, Bytes), String> {
        let uri: Uri = path.parse().map_err(|_| "the target is no URL".to_owned())?;
        let mut head = HeaderMap::new();
        own(&mut head, endpoint);
        head.insert(ACCEPT, HeaderValue::from_static("application/json"));
        credential(&mut head, endpoint, None)?;
        let request = || {
            let mut request = Request::new(Full::new(Bytes::new()));
            *request.uri_mut() = uri.clone();
            *request.headers_mut() = head.clone();
            request
        };
        let key = pool_key(endpoint, None);
        let sent = self.pool.send(endpoint, &key, Freshness::Any, &Started::default(), request).await;
        let (response, connection) = sent.map_err(SendError::why)?;
        let status = response.status();
        let mut flow = Flow::bytes(Raw::new(response.into_body(), connection, LIMIT, IDLE), Bytes::new());
        let mut all = Vec::new();
        while let Some(piece) = flow.next().await {
            if let Piece::Bytes(bytes) = piece? {
                all.extend_from_slice(&bytes);
            }
        }
        Ok((status, Bytes::from(all)))
    }
}

/// What the answer says: only a whole 2xx answer in JSON of the form that `found` names, or a 404 to a path that names
/// the call, says anything. A 404 to a fixed path, or another document, may come from a gateway before the tool.
fn finding(status: StatusCode, body: &[u8], found: &str, named: bool) -> Finding {
    if status == StatusCode::NOT_FOUND {
        return if named { Finding::NotFound } else { Finding::Unclear };
    }
    let Some(answer) = serde_json::from_slice::<Value>(body).ok().filter(|_| status.is_success()) else {
        return Finding::Unclear;
    };
    let holder = found.rsplit_once('/').and_then(|(holder, _)| answer.pointer(holder));
    match answer.pointer(found) {
        None if !holder.is_some_and(|h| h.is_object() || h.is_array()) => Finding::Unclear,
        None | Some(Value::Null | Value::Bool(false)) => Finding::NotFound,
        Some(Value::Array(all)) if all.is_empty() => Finding::NotFound,
        Some(_) => Finding::Found,
    }
}

/// The read's target for one call.
///
/// # Errors
/// When a placeholder stands for nothing that the upstream was told of this call.
fn target(rule: &ProbeRule, call: &Call) -> Result<String, String> {
    let path = rule.path.iter().map(|p| value(p, call)).collect::<Result<Vec<_>, _>>()?;
    if path.iter().any(|p| matches!(p.as_str(), "" | "." | "..")) {
        return Err("a part of its path would be empty or a dot segment".into());
    }
    let pair =
        |(name, part): &(String, Part)| Ok(format!("{}={}", encode_part(name), encode_part(&value(part, call)?)));
    let query = rule.query.iter().map(pair).collect::<Result<Vec<_>, String>>()?;
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    Ok(format!("{}{query}", encode_path(path.iter().map(String::as_str))))
}

fn value(part: &Part, call: &Call) -> Result<String, String> {
    let id = call.id().to_string();
    match part {
        Part::Text(text) => Ok(text.clone()),
        Part::Key => told_key(call).ok_or_else(|| "the upstream was told no key of this call".into()),
        Part::Call if call.upstream_key().as_ref() == Some(&id) => Ok(id),
        Part::Call => Err("the upstream was told the client's key, not the call's id".into()),
        Part::Argument(name) => {
            let given = call.arguments().get(name).and_then(plain);
            given.ok_or_else(|| format!("the call has no single value `{name}`"))
        }
    }
}

/// The key in the header, else the one that stands in the arguments. A key that only we know proves nothing.
fn told_key(call: &Call) -> Option<String> {
    let pointer = call.operation().idempotency.pointer.as_deref();
    call.upstream_key().or_else(|| pointer.and_then(|p| call.arguments().pointer(p)).and_then(plain))
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_says_anything() {
        use Finding::{Found, NotFound, Unclear};
        for (status, body, said) in [
            (200, r#"{"items":[{"id":1}]}"#, Found),
            (200, r#"{"items":[[]]}"#, NotFound),
            (200, r#"{"items":[]}"#, NotFound),
            (200, r#"{"items":[null]}"#, NotFound),
            (200, r#"{"items":[false]}"#, NotFound),
            (200, r#"{"items":[0]}"#, Found),
            (200, "{}", Unclear),
            (200, r#"{"maintenance":true}"#, Unclear),
            (200, "", Unclear),
            (204, "", Unclear),
            (200, "<html>", Unclear),
            (301, r#"{"items":[1]}"#, Unclear),
            (403, "{}", Unclear),
            (404, "", NotFound),
            (500, r#"{"items":[1]}"#, Unclear),
        ] {
            assert_eq!(
                finding(StatusCode::from_u16(status).unwrap(), body.as_bytes(), "/items/0", true),
                said,
                "{status} {body}"
            );
        }
        assert_eq!(finding(StatusCode::NOT_FOUND, b"", "/items/0", false), Unclear, "a 404 to a fixed path");
        assert_eq!(finding(StatusCode::OK, b"{}", "/id", false), NotFound);
    }
}
