//! Asks an upstream with a plain read what became of a call whose outcome is unknown.

use http::StatusCode;
use serde_json::Value;

use crate::call::{Call, Digest, Part, ProbeRule};

use super::Upstreams;
use super::endpoint::Endpoint;

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
        let asked = self.read(endpoint, base, &rule.read, call, None, call.operation().limits.deadline).await?;
        let named = rule.read.path.iter().any(|part| !matches!(part, Part::Text(_)));
        let finding = finding(asked.status, &asked.body, &rule.found, named);
        Ok(Probed { finding, target: asked.target, answer: (asked.status.as_u16(), Digest::of(&asked.body)) })
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
