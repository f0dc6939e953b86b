//! What a caller of the admin API reads when something is refused: RFC 9457, with the codes of the review page.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::{Map, Value, json};

use crate::call::{Fault, PolicyNote, Refusal, Timestamp, short_code};
use crate::store::{CallRecord, HoldError, State};

/// One refusal.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    status: StatusCode,
    code: Cow<'static, str>,
    detail: Cow<'static, str>,
    more: Box<Map<String, Value>>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code: code.into(), detail: detail.into(), more: Box::default() }
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    pub(super) fn with_policies(self, notes: &[PolicyNote]) -> Self {
        let all: Vec<Value> = notes.iter().map(|n| json!({"id": n.id, "reason": n.reason})).collect();
        if all.is_empty() { self } else { self.with("policies", all) }
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here that you may see")
    }

    pub(super) fn unauthenticated() -> Self {
        let text = "a reviewer's token is needed: `Authorization: Bearer …`";
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", text)
    }

    pub(super) fn unavailable() -> Self {
        let text = "nothing can be read or recorded now; no decision was taken";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", text)
    }

    pub(super) fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_arguments", detail)
    }

    pub(super) fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed_request", detail)
    }

    pub(super) fn code(&self) -> &str {
        &self.code
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// What policies said, for the page.
    pub(super) fn reasons(&self) -> Vec<String> {
        let policies = self.more.get("policies").and_then(Value::as_array);
        let text = |p: &Value| {
            let part = |name: &str| p.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            format!("{} (policy {})", part("reason"), part("id"))
        };
        policies.into_iter().flatten().map(text).collect()
    }

    /// A step on a hold was refused.
    pub(super) fn of_hold(error: HoldError, now: Timestamp) -> Self {
        let conflict = |code, record: &CallRecord, text: &'static str| {
            Self::new(StatusCode::CONFLICT, code, text)
                .with("state", record.state_at(now).as_str())
                .with("version", record.version)
        };
        let forbidden = |code, text: &'static str| Self::new(StatusCode::FORBIDDEN, code, text);
        match error {
            HoldError::NotFound => Self::not_found(),
            HoldError::VersionChanged(r) => {
                let mut problem = conflict("version_changed", &r, "it changed since you read it");
                problem.status = StatusCode::PRECONDITION_FAILED;
                problem.with("digest", r.digest.to_string())
            }
            HoldError::DigestChanged(r) => {
                conflict("digest_changed", &r, "the call changed since you read it; read it again")
                    .with("digest", r.digest.to_string())
                    .with("short_code", short_code(&r.digest))
                    .with("hold_title", r.title.as_str())
            }
            HoldError::AlreadyDecided(r) if r.state_at(now) == State::Stale => {
                conflict("stale", &r, "what the approvers saw moved too often; it must be asked anew")
            }
            HoldError::AlreadyDecided(r) => conflict("already_decided", &r, "it is decided already"),
            HoldError::Expired(r) => conflict("expired", &r, "its time is over; silence is no"),
            HoldError::SelfReview => forbidden("self_review", "you cannot approve a call that you requested"),
            HoldError::OwnEdit => forbidden(
                "self_review",
                "you changed this call: yours can be the first of two votes, the last is another person's",
            ),
            HoldError::ClaimedByOther(r) => {
                let claim = r.claim_at(now);
                let by = claim.map(|c| c.person.clone()).unwrap_or_default();
                let until = claim.map(|c| c.until.to_string());
                conflict("claimed_by_other", &r, "another person has it in hand; take it over if you must")
                    .with("claimed_by", by)
                    .with("claimed_until", until)
            }
            HoldError::Full => Self::new(
                StatusCode::CONFLICT,
                "too_many",
                "this hold has as much evidence, or as many words, as one may have",
            ),
            HoldError::AlreadyCounted => forbidden("already_counted", "your word was counted already"),
            HoldError::NotInGroup => forbidden("not_in_group", "you are in none of the groups that are still needed"),
            HoldError::JustificationRequired => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "justification_required",
                "a written justification is required",
            ),
            HoldError::NotApproved => Self::new(
                StatusCode::CONFLICT,
                "grant_needs_approval",
                "a grant comes from a call that all who must have approved: approve it first, or with the grant where yours \
                 is the last word",
            ),
            HoldError::AlreadyGranted(id) => Self::new(
                StatusCode::CONFLICT,
                "already_granted",
                "there is a live grant from this call: take it back first, or let it end",
            )
            .with("grant", id.to_string()),
            HoldError::EvidenceMissing(kinds) => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "evidence_missing",
                "evidence must be attached before a vote counts",
            )
            .with("missing", kinds),
            HoldError::TooEarly(r) => {
                let at = r.quiet_at().unwrap_or(now);
                let text = "it may still be on the wire; nobody can know yet that it was not executed";
                conflict("too_early", &r, text)
                    .with("quiet_at", at.to_string())
                    .with("retry_after_s", at.since(now).as_secs() + 1)
            }
            HoldError::Unavailable => Self::unavailable(),
        }
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        tracing::error!(fault = %fault.chain(), "admin");
        Self::unavailable()
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.public_text().to_owned();
        Self {
            status: refusal.status(),
            code: refusal.code().as_str().into(),
            detail: text.into(),
            more: Box::new(refusal.members()),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": format!("https://holdpoint.dev/problems/{}", self.code),
            "title": self.code.replace('_', " "),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
        });
        if let Some(members) = body.as_object_mut() {
            for (name, value) in *self.more {
                members.entry(name).or_insert(value);
            }
        }
        let later = body.get("retry_after_s").and_then(Value::as_u64);
        let mut response = (self.status, body.to_string()).into_response();
        if let Some(seconds) = later {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        if self.status == StatusCode::UNAUTHORIZED {
            let ask = HeaderValue::from_static("Bearer realm=\"holdpoint\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, ask);
        }
        if self.code == "step_up_required" {
            // RFC 9470: the same person may come again with a newer proof.
            let ask = "Bearer realm=\"holdpoint\", error=\"insufficient_user_authentication\", max_age=900";
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(ask));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}
