//! Slack: one message for each hold, written anew in place as the hold goes on, and what its buttons say.

mod callback;
mod message;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::{Fault, HoldId};
use crate::config::{Channel, NotifyRule, Slack, safe_url};
use crate::gates::upstream::exchange;
use crate::store::{CallRecord, State};

use super::attempt::{Telling, ours};
use super::outbox::{Failed, Posted};
use super::{Notifier, Receiver, Seen};

pub use callback::{Click, Said, is_signed};
pub use message::is_decided_here;

/// When a receiver does not say how long it wants to be left alone.
const PAUSE: Duration = Duration::from_secs(30);
/// Nobody is left alone for longer.
const LONGEST: Duration = Duration::from_secs(3600);

/// What Slack answers to a method.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    ok: bool,
    error: String,
    channel: String,
    ts: String,
}

/// The message cannot be changed: another one takes its place.
const NO_SUCH_MESSAGE: [&str; 4] = ["message_not_found", "cant_update_message", "edit_window_closed", "is_inactive"];
/// Errors that stay until somebody does something about them: with the app, the channel, or this program.
const FOR_GOOD: [&str; 30] = [
    "account_inactive",
    "access_denied",
    "as_user_not_supported",
    "block_mismatch",
    "cannot_reply_to_message",
    "channel_is_archived",
    "channel_not_found",
    "deprecated_endpoint",
    "ekm_access_denied",
    "enterprise_is_restricted",
    "invalid_arguments",
    "invalid_auth",
    "invalid_blocks",
    "invalid_blocks_format",
    "is_archived",
    "method_deprecated",
    "missing_scope",
    "msg_blocks_too_long",
    "msg_too_long",
    "no_permission",
    "no_text",
    "not_allowed_token_type",
    "not_authed",
    "not_in_channel",
    "org_login_required",
    "restricted_action",
    "team_access_not_granted",
    "team_not_found",
    "token_expired",
    "token_revoked",
];

/// The answer of a method, or why there is none; `Ok` with an error of [`NO_SUCH_MESSAGE`].
fn judged(answer: Response<Bytes>) -> Result<Answer, Failed> {
    let (parts, body) = answer.into_parts();
    if parts.status == StatusCode::TOO_MANY_REQUESTS {
        let said = parts.headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse().ok());
        let wait = said.map_or(PAUSE, Duration::from_secs).min(LONGEST);
        return Err(Failed { wait: Some(wait), ..Failed::again("ratelimited") });
    }
    let answer: Answer = match serde_json::from_slice(&body) {
        Ok(answer) if parts.status.is_success() => answer,
        _ => return Err(Failed::again(format!("status {}", parts.status.as_u16()))),
    };
    let error = answer.error.as_str();
    if answer.ok || NO_SUCH_MESSAGE.contains(&error) {
        return Ok(answer);
    }
    let why = format!("Slack says `{}`", error.escape_debug());
    Err(match error {
        "ratelimited" | "rate_limited" => Failed { wait: Some(PAUSE), ..Failed::again(why) },
        error if FOR_GOOD.contains(&error) => Failed::for_good(why),
        // About the moment, or not known: then nobody can say that it will not pass.
        _ => Failed::again(why),
    })
}

fn request(to: &Slack, uri: Uri, body: &Value, with_token: bool) -> Result<Request<Bytes>, Fault> {
    let mut request = Request::new(Bytes::from(body.to_string()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    if with_token {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", to.token.reveal()))
            .map_err(|e| Fault::caused("the token of Slack is no header", e))?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
    }
    Ok(request)
}

/// Where an answer to a click may go: Slack's own hosts, or where its methods are.
fn answer_to(to: &Slack, url: &str) -> Option<Uri> {
    let uri = safe_url(url)?;
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let slacks = uri.scheme_str() == Some("https")
        && uri.port_u16().is_none_or(|port| port == 443)
        && (host == "slack.com" || host.ends_with(".slack.com"));
    let same = (uri.scheme(), uri.authority()) == (to.api.scheme(), to.api.authority());
    (slacks || same).then_some(uri)
}

impl Notifier {
    async fn method(&self, to: &Slack, name: &str, body: &Value) -> Result<Answer, Failed> {
        let uri = format!("{}/{name}", to.api.to_string().trim_end_matches('/')).parse();
        let uri = uri.map_err(|e| ours(Fault::caused("a method of Slack has no address", e)))?;
        let request = request(to, uri, body, true).map_err(ours)?;
        judged(exchange(request, Arc::clone(&self.clock)).await.map_err(ours)?)
    }

    /// Whether people can still decide it: what is told late may not be so any more.
    async fn still_held(&self, held: &CallRecord) -> bool {
        let record = self.store.get(held.id).await.ok().flatten();
        record.is_some_and(|r| r.state_at(self.clock.now()) == State::Held)
    }

    /// What happened to a hold goes into its message; everything else is a message of its own.
    pub(super) async fn say(&self, to: &Slack, receiver: &Receiver, telling: &Telling) -> Result<(), Failed> {
        match telling.held() {
            Some(held) => {
                self.show(to, receiver, held).await?;
                let posted = receiver.outbox().posted.get(&held.id.hold().to_string()).cloned();
                let late = telling.event.name == "hold.expiring" && !self.still_held(held).await;
                match posted
                    .filter(|_| !late)
                    .and_then(|p| Some((message::called(telling.event.name, held, &p.ts)?, p.channel)))
                {
                    Some((body, channel)) => self.post_into(to, &channel, body).await.map(drop),
                    None => Ok(()),
                }
            }
            None => self.post_into(to, &to.channel, message::note(&telling.event)).await.map(drop),
        }
    }

    async fn post_into(&self, to: &Slack, channel: &str, mut body: Value) -> Result<Answer, Failed> {
        message::into_channel(&mut body, channel);
        let answer = self.method(to, "chat.postMessage", &body).await?;
        let stands = answer.ok && !answer.ts.is_empty();
        if stands { Ok(answer) } else { Err(Failed::for_good(format!("Slack says `{}`", answer.error.escape_debug()))) }
    }

    /// The message of a hold as it is now, whatever it was when this was told.
    async fn show(&self, to: &Slack, receiver: &Receiver, told: &CallRecord) -> Result<(), Failed> {
        let record = self.store.get(told.id).await.map_err(ours)?.unwrap_or_else(|| told.clone());
        let hold = record.id.hold().to_string();
        let known = receiver.outbox().posted.get(&hold).cloned();
        if known.as_ref().is_some_and(|p| p.version >= record.version) {
            return Ok(());
        }
        let (now, page) = (self.clock.now(), self.snapshots.current().config.reviews.url.clone().unwrap_or_default());
        let seen = if message::needs_look(&record, now) { (self.look)(record.clone()).await } else { Seen::default() };
        let body = message::of_hold(&record, &seen, &page, now);
        let posted = self.put(to, known, body).await?;
        let over = record.state_at(now).is_final();
        receiver.outbox().post(hold, Posted { version: record.version, over, ..posted });
        Ok(())
    }

    /// Changes the message that is there, or posts one.
    async fn put(&self, to: &Slack, known: Option<Posted>, mut body: Value) -> Result<Posted, Failed> {
        if let Some(posted) = known {
            message::into_message(&mut body, &posted.channel, &posted.ts);
            let answer = self.method(to, "chat.update", &body).await?;
            if answer.ok {
                return Ok(posted);
            }
            tracing::info!(error = answer.error, "a message in Slack cannot be changed; another one takes its place");
        }
        let Answer { channel, ts, .. } = self.post_into(to, &to.channel, body).await?;
        Ok(Posted { channel, ts, version: 0, over: false })
    }

    /// Whether this message stands for this hold: buttons of another one, whoever posted it, decide nothing.
    #[must_use]
    pub fn stands_for(&self, rule: &NotifyRule, hold: HoldId, channel: &str, ts: &str) -> bool {
        let Some(receiver) = self.known(&rule.name) else { return false };
        let outbox = receiver.outbox();
        outbox.posted.get(&hold.to_string()).is_some_and(|p| p.channel == channel && p.ts == ts)
    }

    /// Looks at a call as approvers see it.
    pub async fn seen(&self, record: &CallRecord) -> Seen {
        (self.look)(record.clone()).await
    }

    /// Says something to the one person who clicked, where the callback says that it may go.
    ///
    /// # Errors
    /// It did not arrive.
    pub async fn whisper(&self, rule: &NotifyRule, url: &str, text: &str) -> Result<(), Fault> {
        let Channel::Slack(to) = &rule.channel else { return Ok(()) };
        let uri = answer_to(to, url).ok_or_else(|| Fault::caused("no answer to a click", "it may not go there"))?;
        let said = json!({
            "response_type": "ephemeral", "replace_original": false, "text": message::escaped(text),
        });
        let answer = exchange(request(to, uri, &said, false)?, Arc::clone(&self.clock)).await?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(Fault::caused("no answer to a click", format!("status {}", status.as_u16()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn answer(status: u16, after: Option<&str>, body: &str) -> Response<Bytes> {
        let mut answer = Response::builder().status(status);
        if let Some(after) = after {
            answer = answer.header(RETRY_AFTER, after);
        }
        answer.body(Bytes::from(body.to_owned())).unwrap()
    }

    #[test]
    fn what_slack_answers_is_told_apart() {
        let said = |error: &str| judged(answer(200, None, &format!("{{\"ok\":false,\"error\":\"{error}\"}}")));
        assert!(judged(answer(200, None, r#"{"ok":true,"channel":"C1","ts":"1.2"}"#)).unwrap().ok);
        for error in ["channel_not_found", "invalid_auth", "not_in_channel", "token_revoked"] {
            assert!(said(error).unwrap_err().for_good, "{error}");
        }
        for error in ["internal_error", "service_unavailable", "something_new"] {
            let failed = said(error).unwrap_err();
            assert!(!failed.for_good && failed.wait.is_none(), "{error}");
        }
        assert_eq!(said("message_not_found").unwrap().error, "message_not_found");
        let busy = |after| judged(answer(429, after, "")).unwrap_err().wait;
        assert_eq!(busy(Some("7")), Some(Duration::from_secs(7)));
        assert_eq!(busy(Some("soon")), Some(PAUSE));
        assert_eq!(busy(Some("999999")), Some(LONGEST));
        assert!(judged(answer(503, None, "<html>")).unwrap_err().why.contains("503"));
    }

    #[test]
    fn answers_go_to_slack_and_nowhere_else() {
        let to = Slack {
            api: "http://127.0.0.1:8080/api".parse().unwrap(),
            channel: "#c".into(),
            token: Secret::new("xoxb-1"),
            signing: vec![],
        };
        for good in ["https://hooks.slack.com/actions/T1/2/3", "https://slack.com/x", "http://127.0.0.1:8080/r/1"] {
            assert!(answer_to(&to, good).is_some(), "{good}");
        }
        for bad in [
            "http://hooks.slack.com/actions/T1/2/3",
            "https://hooks.slack.com.evil.test/x",
            "https://evilslack.com/x",
            "https://hooks.slack.com:8443/x",
            "https://u@hooks.slack.com/x",
            "https://169.254.169.254/latest",
            "http://127.0.0.1:8081/r/1",
            "http://localhost:8080/r/1",
            "https://127.0.0.1:8080/r/1",
            "file:///etc/passwd",
            "",
        ] {
            assert!(answer_to(&to, bad).is_none(), "{bad}");
        }
    }
}
