//! A hold as a message: what the proxy knows of it, in rich text, where no character of an argument means anything.

use serde_json::{Value, json};

use crate::call::{HoldId, REASONS, Tier, Timestamp, short_code, visible};
use crate::store::{CallRecord, State};

use super::super::Seen;
use super::super::events::Event;
use super::callback::about;

/// What one message shows at the most, in UTF-16 code units, as Slack counts. Nothing is ever cut to fit.
const LIMIT: usize = 2800;

/// Text for a place where Slack would read markup: the three characters that begin any.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn length(text: &str) -> usize {
    text.encode_utf16().count()
}

/// Whether its decision may be taken in Slack: medium, no words or evidence to be written or read beside it, and all of what approvers
/// must see fits.
#[must_use]
pub fn is_decided_here(record: &CallRecord, seen: &Seen) -> bool {
    let all = [&seen.sent, &seen.changes, &seen.why, &seen.doubts];
    let lines = all.into_iter().flatten().map(|line| length(line) + 1);
    needs_nothing_else(record) && seen.whole && lines.sum::<usize>() + length(&visible(&record.title)) <= LIMIT
}

fn needs_nothing_else(record: &CallRecord) -> bool {
    let Some(terms) = &record.terms else { return false };
    let said = record.handling.as_ref().is_some_and(|h| !h.comments.is_empty() || !h.requests.is_empty());
    let bare = !terms.needs.justification && terms.needs.evidence.is_empty() && record.evidence.is_empty() && !said;
    terms.tier == Tier::Medium && record.tier == Tier::Medium && bare
}

/// Whether what approvers see of it is shown at all: where it cannot be decided, its arguments stay on the page.
pub(super) fn needs_look(record: &CallRecord, now: Timestamp) -> bool {
    record.state_at(now) == State::Held && needs_nothing_else(record)
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn bold(text: &str) -> Value {
    json!({"type": "text", "text": text, "style": {"bold": true}})
}

fn paragraph(elements: Vec<Value>) -> Value {
    json!({"type": "rich_text_section", "elements": elements})
}

fn literal(lines: &[String]) -> Value {
    json!({"type": "rich_text_preformatted", "elements": [text(&lines.join("\n"))]})
}

/// The sentence about the call; where it does not fit, what names it, and never a part of it.
fn sentence(record: &CallRecord) -> String {
    let title = visible(&record.title);
    if length(&title) <= LIMIT { title } else { format!("{} (its title is too long for this place)", record.operation) }
}

/// Seen as everybody in the channel sees it, and at the reader's own time.
fn time(label: &str, at: Timestamp) -> Vec<Value> {
    let date = json!({
        "type": "date", "timestamp": at.as_millis().div_euclid(1000), "format": "{date_short_pretty} {time}",
        "fallback": at.to_string(),
    });
    vec![text(label), date, text("\n")]
}

/// Who is needed, who said what so far, and how it ended.
fn people(record: &CallRecord, state: State) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(terms) = record.terms.as_ref().filter(|_| state == State::Held) {
        let groups = terms.needs.groups();
        let who = if groups.is_empty() { String::new() } else { format!(" of {}", groups.join(", ")) };
        let (needed, have) = (terms.needs.people, record.people());
        lines.push(format!("Needs {needed} {}{who}; {have} so far", if needed == 1 { "person" } else { "people" }));
    }
    let handling = record.handling.iter().filter(|_| state == State::Held);
    for handling in handling {
        lines.extend(handling.claim.iter().map(|c| format!("{} has it in hand until {}", c.person, c.until)));
        lines.extend(handling.escalations.iter().map(|e| format!("Brought before {}", e.to)));
    }
    let edits = record.edited.iter().flat_map(|e| &e.edits);
    lines.extend(edits.map(|e| format!("Changed by {}", e.person)));
    lines.extend(record.approvals.iter().map(|a| format!("Approved by {} ({})", a.person, a.channel)));
    if let Some(note) = record.note.as_ref().filter(|_| state != State::Succeeded) {
        let by = note.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        lines.push(format!("{}{by}: {}", state.as_str(), note.code));
    }
    lines.iter().map(|l| visible(l)).collect()
}

fn facts(record: &CallRecord, state: State) -> Vec<Value> {
    let head = format!("{} tier · {} · code ", record.tier.as_str(), state.as_str());
    let mut all = vec![text(&head), bold(&short_code(&record.digest)), text("\n")];
    for line in people(record, state) {
        all.push(text(&format!("{line}\n")));
    }
    if let Some(expires) = record.expires.filter(|_| state == State::Held) {
        all.extend(time("Expires ", expires));
    }
    all
}

/// What is said in place of the buttons.
fn why_not(record: &CallRecord) -> &'static str {
    if record.tier == Tier::High {
        "High tier: decided on the page only."
    } else if needs_nothing_else(record) {
        "It does not fit here whole: read and decide it on the page."
    } else {
        "There are words or evidence to read or to give: decided on the page."
    }
}

fn plain(text: &str) -> Value {
    json!({"type": "plain_text", "text": text, "emoji": false})
}

fn buttons(record: &CallRecord, page: &str, decide: bool) -> Value {
    let hold = record.id.hold().to_string();
    let reason = |code: &&str| json!({"text": plain(&code.replace('_', " ")), "value": code});
    let mut elements = Vec::new();
    if decide {
        elements.push(json!({"type": "button", "action_id": "approve", "text": plain("Approve"), "value": "approve"}));
        elements.push(json!({
            "type": "static_select", "action_id": "reject", "placeholder": plain("Reject …"),
            "options": REASONS.iter().map(reason).collect::<Vec<_>>(),
        }));
    }
    let url = link(page, record.id.hold());
    elements.push(json!({"type": "button", "action_id": "open", "text": plain("Open"), "url": url}));
    json!({"type": "actions", "block_id": about(&hold, record.version, &record.digest), "elements": elements})
}

fn link(page: &str, hold: HoldId) -> String {
    format!("{page}/holds/{hold}")
}

/// The message of a hold as it is now.
pub(super) fn of_hold(record: &CallRecord, seen: &Seen, page: &str, now: Timestamp) -> Value {
    let state = record.state_at(now);
    let title = sentence(record);
    let decide = state == State::Held && is_decided_here(record, seen);
    let mut parts = vec![paragraph(vec![bold(&title), text("\n")]), paragraph(facts(record, state))];
    if decide {
        let told = [
            ("What will change", &seen.changes),
            ("Why it was held", &seen.why),
            ("Unsure about", &seen.doubts),
            ("What will be sent", &seen.sent),
        ];
        for (name, lines) in told.into_iter().filter(|(_, lines)| !lines.is_empty()) {
            parts.extend([paragraph(vec![bold(name)]), literal(lines)]);
        }
    } else if state == State::Held {
        parts.push(paragraph(vec![text(why_not(record))]));
    }
    let glance = format!("{}: {title} ({} tier, {})", state.as_str(), record.tier.as_str(), short_code(&record.digest));
    whole(&glance, &[json!({"type": "rich_text", "elements": parts}), buttons(record, page, decide)])
}

/// A message about anything else: its name, and what is told of it.
pub(super) fn note(event: &Event) -> Value {
    let members = event.data.as_object().into_iter().flatten();
    let told: Vec<String> = members
        .filter_map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (value != "null").then(|| visible(&format!("{name}: {value}")))
        })
        .collect();
    let parts = json!([paragraph(vec![bold(event.name), text("\n")]), literal(&told)]);
    whole(event.name, &[json!({"type": "rich_text", "elements": parts})])
}

/// What is said of this event below the message of a hold: a message that changes calls nobody.
pub(super) fn called(event: &str, record: &CallRecord, thread: &str) -> Option<Value> {
    let (line, end) = match event {
        "hold.escalated" => (format!("Brought before {}: ", record.handling.as_ref()?.escalations.last()?.to), None),
        "hold.expiring" => ("Still undecided, and soon over: ".to_owned(), record.expires),
        _ => return None,
    };
    let line = visible(&format!("{line}{}", sentence(record)));
    let mut parts = vec![text(&line)];
    parts.extend(end.into_iter().flat_map(|end| time(". It expires ", end)));
    let mut body = whole(&line, &[json!({"type": "rich_text", "elements": [paragraph(parts)]})]);
    put(&mut body, &[("thread_ts", thread)]);
    if let Some(body) = body.as_object_mut() {
        body.insert("reply_broadcast".to_owned(), true.into());
    }
    Some(body)
}

/// `glance` is what notifications show.
fn whole(glance: &str, blocks: &[Value]) -> Value {
    json!({
        "text": escaped(glance), "mrkdwn": false, "parse": "none", "link_names": false, "unfurl_links": false,
        "unfurl_media": false, "blocks": blocks,
    })
}

fn put(body: &mut Value, members: &[(&str, &str)]) {
    if let Some(body) = body.as_object_mut() {
        body.extend(members.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
    }
}

/// To be posted.
pub(super) fn into_channel(body: &mut Value, channel: &str) {
    put(body, &[("channel", channel)]);
    body.as_object_mut().and_then(|b| b.remove("ts"));
}

/// To take the place of this message.
pub(super) fn into_message(body: &mut Value, channel: &str, ts: &str) {
    put(body, &[("channel", channel), ("ts", ts)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::ArtifactId;
    use crate::store::fixtures::{START, record, terms};
    use crate::store::{Evidence, PayloadRef};

    fn held(tier: Tier) -> CallRecord {
        CallRecord { tier, terms: Some(terms(tier, &[(&["leads"], true)], 1)), ..record(State::Held, "f", None) }
    }

    fn medium() -> CallRecord {
        let mut record = held(Tier::Medium);
        if let Some(terms) = record.terms.as_mut() {
            terms.needs.justification = false;
        }
        record
    }

    fn seen(lines: &[&str]) -> Seen {
        Seen { sent: lines.iter().map(|l| (*l).to_owned()).collect(), whole: true, ..Seen::default() }
    }

    fn actions(record: &CallRecord, seen: &Seen) -> Vec<String> {
        let body = of_hold(record, seen, "https://page.test", START);
        let blocks = body["blocks"].as_array().unwrap();
        let all = blocks.iter().find(|b| b["type"] == "actions").unwrap()["elements"].as_array().unwrap();
        all.iter().map(|e| e["action_id"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_medium_hold_is_decided_and_everything_else_opened() {
        let line = seen(&["/amountMinor  8800"]);
        assert_eq!(actions(&medium(), &line), ["approve", "reject", "open"]);
        assert_eq!(actions(&held(Tier::High), &line), ["open"]);
        let mut words = medium();
        words.terms.as_mut().unwrap().needs.justification = true;
        assert_eq!(actions(&words, &line), ["open"]);
        let mut proof = medium();
        proof.terms.as_mut().unwrap().needs.evidence = vec!["ticket".into()];
        assert_eq!(actions(&proof, &line), ["open"]);
        let content = PayloadRef { seq: 1, index: 0, len: 1, digest: crate::call::Digest::of(b"e") };
        let (id, kind, title, by) = (ArtifactId::new(), "ticket".into(), "T".into(), "bot".into());
        let mut attached = medium();
        attached.evidence = vec![Evidence { id, kind, title, by, content, at: START }];
        assert_eq!(actions(&attached, &line), ["open"]);
        let words = crate::store::Comment { by: "li".into(), at: START, text: "look".into() };
        let handling = crate::store::Handling { comments: vec![words], ..crate::store::Handling::default() };
        let said = CallRecord { handling: Some(Box::new(handling)), ..medium() };
        assert_eq!(actions(&said, &line), ["open"]);
        let over = CallRecord { state: State::Approved, ..medium() };
        assert_eq!(actions(&over, &line), ["open"]);
        assert_eq!(actions(&medium(), &Seen { whole: false, ..line.clone() }), ["open"]);
        let mut raised = medium();
        raised.tier = Tier::High;
        assert_eq!(actions(&raised, &line), ["open"]);
    }

    #[test]
    fn what_does_not_fit_is_not_cut_and_not_decided_here() {
        let mut call = medium();
        call.title = "T".repeat(100);
        let fits = "x".repeat(LIMIT - 101);
        assert_eq!(actions(&call, &seen(&[&fits])).len(), 3);
        let body = of_hold(&call, &seen(&[&fits]), "https://page.test", START).to_string();
        assert!(body.contains(&fits) && body.contains(&call.title));
        let long = format!("{fits}y");
        assert_eq!(actions(&call, &seen(&[&long])), ["open"]);
        let body = of_hold(&call, &seen(&[&long]), "https://page.test", START).to_string();
        assert!(!body.contains("xxx") && body.contains("does not fit here"), "no part of it is shown");
        // Two code units each.
        assert_eq!(actions(&call, &seen(&[&"🂡".repeat(LIMIT / 2)])), ["open"]);
        call.title = "T".repeat(LIMIT + 1);
        let body = of_hold(&call, &seen(&[]), "https://page.test", START).to_string();
        assert!(!body.contains("TTT") && body.contains("crm.refund") && body.contains("too long"), "{body}");
    }

    #[test]
    fn nothing_in_it_hides_mentions_or_marks_up() {
        let mut call = medium();
        call.title = "Refund <!channel> *now* & \u{202e}gnp <https://evil.test|here> @here".into();
        let body = of_hold(&call, &seen(&["/note  \"```<@U1>\""]), "https://page.test", START);
        let glance = body["text"].as_str().unwrap();
        assert!(glance.contains("&lt;!channel&gt; *now* &amp; \\u{202e}gnp"), "{glance}");
        assert_eq!(
            (&body["mrkdwn"], &body["parse"], &body["link_names"]),
            (&json!(false), &json!("none"), &json!(false))
        );
        let rich = body["blocks"][0].to_string();
        assert!(!rich.contains("mrkdwn") && !body["blocks"].to_string().contains('\u{202e}'), "{rich}");
        let kinds = ["text", "date", "rich_text", "rich_text_section", "rich_text_preformatted"];
        fn types<'v>(value: &'v Value, out: &mut Vec<&'v str>) {
            match value {
                Value::Object(o) => {
                    out.extend(o.get("type").and_then(Value::as_str));
                    o.values().for_each(|v| types(v, out));
                }
                Value::Array(a) => a.iter().for_each(|v| types(v, out)),
                _ => {}
            }
        }
        let mut all = Vec::new();
        types(&body["blocks"][0], &mut all);
        assert!(all.iter().all(|t| kinds.contains(t)), "only literal text: {all:?}");
        assert!(rich.contains("```<@U1>"), "shown as it is, where it means nothing");
    }
}
