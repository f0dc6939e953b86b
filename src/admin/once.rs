//! `Idempotency-Key` on what changes something (draft-ietf-httpapi-idempotency-key-header): the answer that a request got
//! is the answer to each retry of it.
//!
//! Answers are kept in memory. What keeps a second effect away after a restart is older than this: versions, digests, votes
//! that count once, an undo's own key, one live grant from one hold; a comment, which nothing binds, is kept from standing
//! twice by `If-Match`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, IF_MATCH, RETRY_AFTER};
use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::json;

use crate::call::{Digest, is_key};
use crate::{tasks, wire};

use super::problem::Problem;
use super::who::bearer;
use super::{Desk, brought};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// An answer is kept for so long.
const LIFE: Duration = Duration::from_secs(3600);
/// Answers of one account; past it, and past so many bytes of all, the oldest are forgotten.
const PER_ACCOUNT: usize = 1000;
const BYTES: usize = 64 << 20;
/// What an answer takes beside its body.
const OVERHEAD: usize = 1 << 10;

/// What an account calls an attempt.
type Name = (String, String);

#[derive(Debug, Clone)]
struct Kept {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// One attempt; without an answer while it is running.
#[derive(Debug)]
struct Attempt {
    begun: Instant,
    fingerprint: Digest,
    answer: Option<Kept>,
}

impl Attempt {
    fn bytes(&self) -> usize {
        self.answer.as_ref().map_or(0, |kept| kept.body.len() + OVERHEAD)
    }
}

/// Attempts and their answers.
#[derive(Debug, Clone, Default)]
pub(super) struct Attempts(Arc<Mutex<HashMap<Name, Attempt>>>);

/// What is known of an attempt.
enum Known {
    New(Running),
    Running,
    Another,
    Answered(Kept),
}

/// An attempt that is being answered. Dropped without an answer, it never was.
struct Running {
    attempts: Attempts,
    name: Name,
}

impl Attempts {
    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Attempt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, name: Name, fingerprint: Digest, now: Instant) -> Known {
        let mut all = self.lock();
        all.retain(|_, a| a.answer.is_none() || now.saturating_duration_since(a.begun) < LIFE);
        match all.get(&name) {
            Some(attempt) if attempt.fingerprint != fingerprint => Known::Another,
            Some(Attempt { answer: Some(kept), .. }) => Known::Answered(kept.clone()),
            Some(_) => Known::Running,
            None => {
                all.insert(name.clone(), Attempt { begun: now, fingerprint, answer: None });
                Known::New(Running { attempts: self.clone(), name })
            }
        }
    }
}

/// Forgets the oldest answers, of one account or of all, until `fits`.
fn shrink(all: &mut HashMap<Name, Attempt>, account: Option<&str>, fits: impl Fn(&HashMap<Name, Attempt>) -> bool) {
    while !fits(all) {
        let theirs = |(name, attempt): &(&Name, &Attempt)| {
            attempt.answer.is_some() && account.is_none_or(|account| name.0 == account)
        };
        let Some(oldest) = all.iter().filter(theirs).min_by_key(|(_, a)| a.begun).map(|(name, _)| name.clone()) else {
            return;
        };
        all.remove(&oldest);
    }
}

impl Running {
    fn answered(self, kept: Kept) {
        let mut all = self.attempts.lock();
        if let Some(attempt) = all.get_mut(&self.name) {
            attempt.answer = Some(kept);
        }
        let account = self.name.0.as_str();
        let own = |all: &HashMap<Name, Attempt>| all.keys().filter(|name| name.0 == account).count();
        shrink(&mut all, Some(account), |all| own(all) <= PER_ACCOUNT);
        shrink(&mut all, None, |all| all.values().map(Attempt::bytes).sum::<usize>() <= BYTES);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut all = self.attempts.lock();
        if all.get(&self.name).is_some_and(|a| a.answer.is_none()) {
            all.remove(&self.name);
        }
    }
}

impl IntoResponse for Kept {
    fn into_response(self) -> Response {
        (self.status, self.headers, self.body).into_response()
    }
}

/// Whether the same request would be answered so at any time: not where it is told to come again.
fn lasts(kept: &Kept) -> bool {
    let passing = [StatusCode::UNAUTHORIZED, StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    !kept.status.is_server_error() && !passing.contains(&kept.status) && !kept.headers.contains_key(RETRY_AFTER)
}

/// The key of this attempt, where given.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut all = headers.get_all(KEY).iter();
    let Some(first) = all.next() else { return Ok(None) };
    let text = first.to_str().unwrap_or_default();
    let bare = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    if all.next().is_none() && is_key(bare) {
        return Ok(Some(bare.to_owned()));
    }
    let text = "`Idempotency-Key` stands once and is 1 to 255 characters of `A-Z a-z 0-9 _ . : -`";
    Err(Problem::malformed(text))
}

/// What makes two requests the same one.
fn fingerprint(parts: &Parts, body: &Bytes) -> Digest {
    let header = |name: HeaderName| parts.headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    let channel = HeaderName::from_static("holdpoint-channel");
    let (kind, body) = match brought::framed(&parts.headers, body) {
        // The frame of a form is drawn anew for each attempt.
        Some(within) => (Some("multipart/form-data".to_owned()), within),
        None => (header(CONTENT_TYPE), Digest::of(body)),
    };
    let headers = [kind, header(IF_MATCH), header(channel)];
    Digest::of_json(&json!([parts.method.as_str(), parts.uri.to_string(), headers, body]))
}

/// Answers a retry with what the first request got; carries out what is new.
pub(super) async fn guard(State(desk): State<Arc<Desk>>, request: Request, next: Next) -> Result<Response, Problem> {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(next.run(request).await);
    }
    // Who is not known is told so by the route itself.
    let Ok(who) = bearer(&desk.snapshots.current(), request.headers()) else { return Ok(next.run(request).await) };
    let Some(key) = key(request.headers())? else { return Ok(next.run(request).await) };
    let (parts, body) = request.into_parts();
    let body = wire::body::read(body, brought::most(&parts.headers, parts.uri.path())).await?;
    match desk.attempts.begin((who.subject, key), fingerprint(&parts, &body), desk.clock.instant()) {
        Known::New(running) => answer(running, Request::from_parts(parts, Body::from(body)), next).await,
        Known::Running => {
            let text = "a request with this `Idempotency-Key` is being answered; come again for its answer";
            Err(Problem::new(StatusCode::CONFLICT, "in_flight", text).with("retry_after_s", 1))
        }
        Known::Another => {
            let text = "this `Idempotency-Key` stands for another request; a new attempt takes a new key";
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "key_reused", text))
        }
        Known::Answered(kept) => {
            let mut response = kept.into_response();
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            Ok(response)
        }
    }
}

/// To its end, whoever hangs up: the answer is there for the retry.
async fn answer(running: Running, request: Request, next: Next) -> Result<Response, Problem> {
    let carried = tasks::spawn(async move {
        let (parts, body) = next.run(request).await.into_parts();
        let Ok(body) = to_bytes(body, usize::MAX).await else { return Problem::unavailable().into_response() };
        let kept = Kept { status: parts.status, headers: parts.headers, body };
        if lasts(&kept) {
            running.answered(kept.clone());
        }
        kept.into_response()
    });
    Ok(tasks::join(carried).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Timestamp;
    use crate::clock::{Clock, ManualClock};

    fn instant() -> Instant {
        ManualClock::at(Timestamp::default()).instant()
    }

    fn name(account: &str, key: impl ToString) -> Name {
        (account.to_owned(), key.to_string())
    }

    fn kept(len: usize) -> Kept {
        Kept { status: StatusCode::OK, headers: HeaderMap::new(), body: Bytes::from(vec![b'x'; len]) }
    }

    fn run(attempts: &Attempts, name: Name, len: usize, at: Instant) {
        let Known::New(running) = attempts.begin(name, Digest::of(b"a"), at) else { panic!("not new") };
        running.answered(kept(len));
    }

    #[test]
    fn an_attempt_is_running_then_answered_then_forgotten() {
        let (attempts, start) = (Attempts::default(), instant());
        let begin = |what: &[u8], at| attempts.begin(name("maya", "k"), Digest::of(what), at);
        let Known::New(running) = begin(b"a", start) else { panic!("not new") };
        assert!(matches!(begin(b"a", start), Known::Running));
        assert!(matches!(begin(b"b", start), Known::Another));
        drop(running);
        let Known::New(running) = begin(b"b", start) else { panic!("an attempt without an answer never was") };
        running.answered(kept(3));
        assert!(matches!(begin(b"b", start + LIFE / 2), Known::Answered(kept) if kept.body.len() == 3));
        assert!(matches!(attempts.begin(name("noor", "k"), Digest::of(b"a"), start), Known::New(_)), "another's key");
        assert!(matches!(begin(b"a", start + LIFE), Known::New(_)));
    }

    #[test]
    fn what_is_running_outlives_every_bound() {
        let (attempts, start) = (Attempts::default(), instant());
        let Known::New(running) = attempts.begin(name("maya", "first"), Digest::of(b"a"), start) else {
            panic!("not new")
        };
        assert!(matches!(attempts.begin(name("maya", "first"), Digest::of(b"a"), start + 2 * LIFE), Known::Running));
        running.answered(kept(1));
    }

    #[test]
    fn answers_are_bounded_per_account_and_in_all() {
        let (attempts, start) = (Attempts::default(), instant());
        run(&attempts, name("noor", "k"), 1, start);
        for n in 0..PER_ACCOUNT + 5 {
            run(&attempts, name("maya", n), 1, start + Duration::from_millis(n as u64));
        }
        assert_eq!(attempts.lock().len(), PER_ACCOUNT + 1);
        assert!(attempts.lock().contains_key(&name("noor", "k")), "one account does not push out another's");
        assert!(!attempts.lock().contains_key(&name("maya", 4)));
        run(&attempts, name("maya", "large"), BYTES - OVERHEAD, start + Duration::from_secs(9));
        assert_eq!(attempts.lock().len(), 1);
    }

    #[test]
    fn only_what_would_be_answered_again_is_kept() {
        let of = |status: u16| Kept { status: StatusCode::from_u16(status).unwrap(), ..kept(0) };
        assert!([200, 403, 404, 409, 412, 422].into_iter().all(|status| lasts(&of(status))));
        assert!(![401, 408, 429, 500, 502, 503, 504].into_iter().any(|status| lasts(&of(status))));
        let mut early = of(409);
        early.headers.insert(RETRY_AFTER, HeaderValue::from_static("3"));
        assert!(!lasts(&early));
    }
}
