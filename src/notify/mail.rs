//! Letters: plain text, one for what is urgent, one for what was gathered. No link in them decides anything.

use std::time::{Duration, UNIX_EPOCH};

use lettre::message::Mailbox;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use crate::call::{Fault, Timestamp, short_code, visible};
use crate::config::Smtp;
use crate::store::CallRecord;

use super::attempt::Telling;
use super::outbox::Failed;

/// How long the server may take for one letter.
const TIME: Duration = Duration::from_secs(30);
/// A subject is not longer; a title that does not fit stands in the letter alone.
const SUBJECT: usize = 200;

/// One event, and the call as it is when the letter is written.
#[derive(Debug)]
pub(super) struct Item<'t> {
    pub(super) telling: &'t Telling,
    pub(super) now: Option<CallRecord>,
}

impl Item<'_> {
    /// The call as it is now; as it was, when it is not kept any more.
    fn held(&self) -> Option<&CallRecord> {
        self.now.as_ref().or_else(|| self.telling.held())
    }

    fn text(&self, name: &str) -> &str {
        self.telling.event.data.get(name).and_then(serde_json::Value::as_str).unwrap_or_default()
    }

    /// The tier and what the call is, with its code.
    fn subject(&self) -> String {
        let Some(record) = self.held() else { return format!("{} {}", self.telling.event.name, self.text("op")) };
        let (title, code) = (visible(&record.title), short_code(&record.digest));
        let title = if title.chars().count() > SUBJECT { record.operation.clone() } else { title };
        format!("{} tier: {title} ({code})", record.tier.as_str())
    }

    fn lines(&self, page: &str, now: Timestamp) -> Vec<String> {
        let mut lines = Vec::new();
        let mut say = |name: &str, value: &str| {
            if !value.is_empty() {
                lines.push(format!("  {name:<9}{}", visible(value)));
            }
        };
        let event = self.telling.event.name;
        let Some(record) = self.held() else {
            for (name, value) in self.telling.event.data.as_object().into_iter().flatten() {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                say(&format!("{name} "), if value == "null" { "" } else { &value });
            }
            lines.insert(0, event.to_owned());
            return lines;
        };
        let needs = record.terms.as_ref().map(|terms| {
            format!("{} of {}; {} so far", terms.needs.people, terms.needs.groups().join(", "), record.people())
        });
        say("event", event);
        say("state", record.state_at(now).as_str());
        say("tier", record.tier.as_str());
        say("code", &short_code(&record.digest));
        say("agent", &record.principal.agent);
        say("needs", needs.as_deref().unwrap_or_default());
        say("expires", &record.expires.map(|t| t.to_string()).unwrap_or_default());
        say("open", &format!("{page}/holds/{}", record.id.hold()));
        lines.insert(0, visible(&record.title));
        lines
    }
}

/// The letter about these events.
pub(super) fn letter(smtp: &Smtp, items: &[Item<'_>], page: &str, now: Timestamp) -> Result<Message, Fault> {
    let first = items.first().ok_or_else(|| Fault::caused("a letter", "about nothing"))?;
    let subject = match items.len() {
        1 => format!("[holdpoint] {}", first.subject()),
        n => format!("[holdpoint] {n} events of the medium tier"),
    };
    let mut body: Vec<String> = Vec::new();
    for item in items {
        body.extend(item.lines(page, now));
        body.push(String::new());
    }
    body.push("Nothing is decided by this letter: its links open the page, where you sign in.".into());
    let domain = smtp.from.email.domain();
    let mut message = Message::builder()
        .from(smtp.from.clone())
        .date(UNIX_EPOCH + Duration::from_millis(u64::try_from(now.as_millis()).unwrap_or(0)))
        // The same at every attempt: who got it already knows it.
        .message_id(Some(format!("<{}.{}@{domain}>", first.telling.id, items.len())))
        .subject(subject)
        .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".into()))
        .header(ContentType::TEXT_PLAIN);
    if let (1, Some(record)) = (items.len(), first.held()) {
        message = message.references(format!("<{}@{domain}>", record.id.hold()));
    }
    let all = smtp.to.iter().cloned().fold(message, |message, to: Mailbox| message.to(to));
    all.body(body.join("\r\n") + "\r\n").map_err(|e| Fault::caused("a letter could not be written", e))
}

/// Sends it; on a connection of its own.
pub(super) async fn send(smtp: &Smtp, letter: Message) -> Result<(), Failed> {
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(smtp.host.clone())
        .port(smtp.port)
        .tls(smtp.tls.clone())
        .timeout(Some(TIME))
        .hello_name(ClientId::Domain(smtp.from.email.domain().to_owned()));
    if let Some((user, password)) = &smtp.login {
        transport = transport.credentials(Credentials::new(user.clone(), password.reveal().to_owned()));
    }
    let sent = tokio::time::timeout(TIME, transport.build::<Tokio1Executor>().send(letter)).await;
    match sent {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(judged(&error)),
        Err(_) => Err(Failed::again(format!("no answer within {} s", TIME.as_secs()))),
    }
}

/// A refusal with 5xx stays; everything else may pass.
fn judged(error: &lettre::transport::smtp::Error) -> Failed {
    let why = std::error::Error::source(error).map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
    if error.is_permanent() { Failed::for_good(visible(&why)) } else { Failed::again(visible(&why)) }
}
