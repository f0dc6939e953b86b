//! Holds as text for a terminal: 80 columns for lists, nothing cut when one is shown. No control character of a
//! server, an agent or a tool reaches the terminal.

use std::io::{self, Write};

use http::StatusCode;
use serde_json::Value;

use crate::call::{Timestamp, money_text, visible};

/// Text at a pointer, in visible characters; other values as JSON; nothing for nothing.
pub(super) fn of(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => visible(text),
        Some(other) => visible(&other.to_string()),
    }
}

fn items<'v>(value: &'v Value, pointer: &str) -> impl Iterator<Item = &'v Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn list(value: &Value, pointer: &str) -> String {
    items(value, pointer).map(|v| of(v, "")).collect::<Vec<_>>().join(", ")
}

fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return format!("{text:width$}");
    }
    let cut: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{cut}…")
}

/// How long until then, in two figures that matter.
fn left(until: &str, now: Timestamp) -> String {
    let Ok(until) = until.parse::<Timestamp>() else { return "-".to_owned() };
    let minutes = until.since(now).as_secs() / 60;
    match (until <= now, minutes) {
        (true, _) => "over".to_owned(),
        (_, 0) => "<1m".to_owned(),
        (_, m) if m < 60 => format!("{m}m"),
        (_, m) => format!("{}h{:02}", m / 60, m % 60),
    }
}

/// One line for each hold; titles may be cut here, never in [`whole`]. A call has a second line: its whole id.
pub(super) fn table(all: &[Value], now: Timestamp, calls: bool, out: &mut dyn Write) -> io::Result<()> {
    if all.is_empty() {
        return writeln!(
            out,
            "{}",
            if calls { "no such call that you may see" } else { "nothing is waiting that you may see" }
        );
    }
    writeln!(out, "{:12} {:6} {:12} {:6} TITLE", "CODE", "TIER", "STATE", "LEFT")?;
    for hold in all {
        let (state, needed) = (of(hold, "/state"), of(hold, "/needs/people"));
        let held = state == "held" && !needed.is_empty();
        let state = if held { format!("held {}/{needed}", of(hold, "/needs/people_have")) } else { state };
        let mine = items(hold, "/me/can").any(|c| c == "approve");
        let title = format!("{}{}", if mine { "* " } else { "  " }, of(hold, "/title"));
        let left = left(&of(hold, "/times/expires"), now);
        let line = format!(
            "{} {} {} {} {}",
            fit(&of(hold, "/code"), 12),
            fit(&of(hold, "/tier"), 6),
            fit(&state, 12),
            fit(&left, 6),
            fit(&title, 40)
        );
        writeln!(out, "{}", line.trim_end())?;
        if calls {
            writeln!(out, "  {}", of(hold, "/call_id"))?;
        }
    }
    if calls { Ok(()) } else { writeln!(out, "* you can approve it") }
}

fn line(out: &mut dyn Write, name: &str, text: &str) -> io::Result<()> {
    if text.is_empty() { Ok(()) } else { writeln!(out, "  {name:14} {text}") }
}

fn head(out: &mut dyn Write, text: &str) -> io::Result<()> {
    writeln!(out, "\n{text}")
}

/// Everything that the page shows, in its order.
pub(super) fn whole(hold: &Value, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}  {}  {}", of(hold, "/tier").to_uppercase(), of(hold, "/title"), of(hold, "/code"))?;
    let amount = hold.pointer("/impact/amount/minor").and_then(Value::as_i64);
    let amount = amount.map(|minor| money_text(minor, &of(hold, "/impact/amount/currency")));
    line(out, "amount", &amount.unwrap_or_default())?;
    for (name, at) in [
        ("id", "/id"),
        ("state", "/state"),
        ("asked", "/times/created"),
        ("expires", "/times/expires"),
        ("window closes", "/times/window_closes"),
        ("digest", "/digest"),
        ("note", "/note"),
        ("opinion", "/opinion"),
        ("on the wire to", "/quiet_at"),
        ("answer", "/answer"),
    ] {
        line(out, name, &of(hold, at))?;
    }
    change(hold, out)?;
    edited(hold, out)?;
    undo(hold, out)?;
    head(out, "WHO ASKED")?;
    for (name, at) in [
        ("operation", "/call/op"),
        ("agent", "/who/agent"),
        ("run by", "/who/operator"),
        ("owned by", "/who/owner"),
        ("on behalf of", "/who/on_behalf_of"),
        ("workflow", "/who/workflow"),
        ("stage", "/who/stage"),
        ("address", "/who/source_ip"),
    ] {
        line(out, name, &of(hold, at))?;
    }
    line(out, "effects", &list(hold, "/call/effects"))?;
    arguments(hold, out)?;
    reasons(hold, out)?;
    evidence(hold, out)?;
    request(hold, out)?;
    needs(hold, out)?;
    for vote in items(hold, "/approvals") {
        let words = of(vote, "/justification");
        let words = if words.is_empty() { words } else { format!(": {words}") };
        line(out, "approved by", &format!("{} for {}{words}", of(vote, "/by"), list(vote, "/groups")))?;
    }
    talk(hold, out)?;
    for (verb, why) in hold.pointer("/me/cannot").and_then(Value::as_object).into_iter().flatten() {
        line(out, &format!("cannot {}", visible(verb)), &of(why, ""))?;
    }
    head(out, "THE AGENT SAYS (not verified)")?;
    for (name, at) in
        [("run", "/who/run"), ("step", "/who/step"), ("intent", "/claims/intent"), ("confidence", "/claims/confidence")]
    {
        line(out, name, &of(hold, at))?;
    }
    writeln!(out)
}

/// How it can be taken back.
fn undo(hold: &Value, out: &mut dyn Write) -> io::Result<()> {
    head(out, "TAKING IT BACK")?;
    let operation = of(hold, "/undo/operation");
    line(out, "undone by", if operation.is_empty() { "cannot be undone" } else { &operation })?;
    for (name, at) in
        [("until", "/undo/until"), ("sent at", "/undo/not_before"), ("undone", "/undo/by"), ("undoes", "/undo/of")]
    {
        line(out, name, &of(hold, at))?;
    }
    if hold.pointer("/undo/diff").is_some_and(Value::is_array) {
        differences(hold, "/undo/diff", "as the call left it -> as it was", out)?;
    }
    Ok(())
}

/// What reviewers made of it.
fn edited(hold: &Value, out: &mut dyn Write) -> io::Result<()> {
    let Some(edited) = hold.pointer("/edited").filter(|e| e.is_object()) else { return Ok(()) };
    head(out, "CHANGED BY A REVIEWER")?;
    for edit in items(edited, "/edits") {
        line(out, &of(edit, "/by"), &format!("{}  {}", of(edit, "/at"), of(edit, "/note")))?;
    }
    differences(edited, "/changes", "the agent asked for -> it is now", out)
}

/// What it will change, as far as that is known.
fn change(hold: &Value, out: &mut dyn Write) -> io::Result<()> {
    let Some(change) = hold.pointer("/change").filter(|c| c.is_object()) else { return Ok(()) };
    head(out, &format!("WHAT WILL CHANGE ({})", of(change, "/certainty")))?;
    line(out, "not known", &of(change, "/why"))?;
    for (name, at) in [("read", "/before/target"), ("read at", "/before/read_at"), ("fence", "/before/fence")] {
        line(out, name, &of(change, at))?;
    }
    differences(change, "/moved", "since it was looked at first", out)?;
    differences(change, "/patch", "before -> after", out)?;
    line(out, "the same", &of(change, "/unchanged"))?;
    if change.pointer("/patch").is_none_or(Value::is_null) {
        let mut all = Vec::new();
        change.pointer("/before/state").into_iter().for_each(|state| flatten(state, String::new(), &mut all));
        for (place, value) in all {
            writeln!(out, "  is now {} = {}", visible(&place), visible(&value.to_string()))?;
        }
    }
    Ok(())
}

fn differences(change: &Value, at: &str, name: &str, out: &mut dyn Write) -> io::Result<()> {
    let text = |c: &Value, at: &str| c.get(at).map_or_else(|| "(none)".to_owned(), |v| visible(&v.to_string()));
    for (i, c) in items(change, at).enumerate() {
        if i == 0 {
            writeln!(out, "  {name}:")?;
        }
        writeln!(out, "    {}  {} -> {}", of(c, "/path"), text(c, "from"), text(c, "value"))?;
    }
    Ok(())
}

fn arguments(hold: &Value, out: &mut dyn Write) -> io::Result<()> {
    head(out, "EXACT ARGUMENTS")?;
    let mut all = Vec::new();
    if let Some(input) = hold.pointer("/call/input") {
        flatten(input, String::new(), &mut all);
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    for (place, value) in all {
        // As JSON, so that a backslash that was sent differs from an escape that is shown.
        writeln!(out, "  {} = {}", visible(&place), visible(&value.to_string()))?;
    }
    line(out, "redacted", &list(hold, "/call/request/redacted"))
}

fn flatten<'v>(value: &'v Value, at: String, out: &mut Vec<(String, &'v Value)>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            members.iter().for_each(|(key, value)| {
                flatten(value, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), out);
            });
        }
        Value::Array(all) if !all.is_empty() => {
            all.iter().enumerate().for_each(|(i, value)| flatten(value, format!("{at}/{i}"), out));
        }
        leaf => out.push((at, leaf)),
    }
}

fn reasons(hold: &Value, out: &mut dyn Write) -> io::Result<()> {
    head(out, "WHY IT WAS HELD")?;
    for why in items(hold, "/why") {
        writeln!(out, "  {}  {}  ({})", of(why, "/policy"), of(why, "/reason"), of(why, "/at"))?;
    }
    line(out, "policies", &of(hold, "/policy_digest"))?;
    for doubt in items(hold, "/uncertainty") {
        line(out, "unsure", &of(doubt, "/text"))?;
    }
    let count = |at: &str| of(hold, &format!("/alike/d30/{at}"));
    let (approved, rejected, edited) = (count("approved"), count("rejected"), count("edited"));
    let alike = format!("{approved} approved, {rejected} rejected, {edited} changed first, in 30 days");
    line(out, "alike", if approved.is_empty() { "" } else { &alike })
}

fn evidence(hold: &Value, out: &mut dyn Write) -> io::Result<()> {
    head(out, "EVIDENCE")?;
    line(out, "missing", &list(hold, "/evidence/missing"))?;
    for item in items(hold, "/evidence/unfetched") {
        writeln!(out, "  {}  was not fetched: {}, {}", of(item, "/kind"), of(item, "/call"), of(item, "/why"))?;
    }
    for item in items(hold, "/evidence/items") {
        let proven = item.pointer("/verified").and_then(Value::as_bool).unwrap_or(false);
        let by = if proven {
            "fetched by the proxy".to_owned()
        } else {
            format!("brought by {} (not verified)", of(item, "/by"))
        };
        let (bytes, digest) = (of(item, "/bytes"), of(item, "/sha256"));
        writeln!(out, "  {}  {}  {by}, {bytes} bytes, {digest}", of(item, "/kind"), of(item, "/title"))?;
        for name in ["content", "content_base64"] {
            raw(item.get(name), out)?;
        }
    }
    Ok(())
}

fn request(hold: &Value, out: &mut dyn Write) -> io::Result<()> {
    head(out, "EXACT REQUEST")?;
    writeln!(out, "  {} {}", of(hold, "/call/request/method"), of(hold, "/call/request/url"))?;
    line(out, "content type", &of(hold, "/call/request/content_type"))?;
    for header in items(hold, "/call/request/headers") {
        line(out, "header", &format!("{}: {}", of(header, "/0"), of(header, "/1")))?;
    }
    line(out, "key", &of(hold, "/call/idempotency_key"))?;
    let (bytes, digest) = (of(hold, "/call/request/body_bytes"), of(hold, "/call/request/body_sha256"));
    line(out, "body", &format!("{bytes} bytes {digest}"))?;
    line(out, "not shown", &of(hold, "/call/request/body_withheld"))?;
    for name in ["body", "body_base64"] {
        raw(hold.pointer(&format!("/call/request/{name}")), out)?;
    }
    Ok(())
}

/// Text that somebody else wrote: a line break is shown, and breaks the line.
fn raw(text: Option<&Value>, out: &mut dyn Write) -> io::Result<()> {
    for part in text.and_then(Value::as_str).into_iter().flat_map(|t| t.split_inclusive('\n')) {
        writeln!(out, "  | {}", visible(part))?;
    }
    Ok(())
}

/// Who is still needed.
pub(super) fn needs(hold: &Value, out: &mut dyn Write) -> io::Result<()> {
    let people = of(hold, "/needs/people");
    if people.is_empty() {
        return Ok(());
    }
    head(out, &format!("APPROVED BY {} OF {people}", of(hold, "/needs/people_have")))?;
    for place in items(hold, "/needs/groups") {
        let by = of(place, "/filled_by");
        let by = if by.is_empty() { "still needed".to_owned() } else { by };
        let groups: Vec<String> = items(place, "/any_of").map(|g| of(g, "")).collect();
        writeln!(out, "  {}: {by}", groups.join(" or "))?;
    }
    Ok(())
}

/// Who has it in hand, and what was said, asked and escalated.
pub(super) fn talk(hold: &Value, out: &mut dyn Write) -> io::Result<()> {
    let claimed = of(hold, "/claim/by");
    if !claimed.is_empty() {
        line(out, "claimed by", &format!("{claimed} until {}", of(hold, "/claim/until")))?;
    }
    for comment in items(hold, "/comments") {
        line(out, &of(comment, "/by"), &format!("{}  {}", of(comment, "/at"), of(comment, "/text")))?;
    }
    for request in items(hold, "/evidence_requests") {
        let words = format!("{}  {}", list(request, "/kinds"), of(request, "/message"));
        line(out, "asked for", words.trim_end())?;
    }
    for raised in items(hold, "/escalation") {
        let by = of(raised, "/by");
        let by = if by.is_empty() { format!("after {}", of(raised, "/after")) } else { format!("by {by}") };
        line(
            out,
            "escalated to",
            &format!("{} {by}, {}  {}", of(raised, "/to"), of(raised, "/at"), of(raised, "/reason")),
        )?;
    }
    Ok(())
}

/// What the server refused, and why.
pub(super) fn problem(problem: &Value, status: StatusCode, err: &mut dyn Write) -> io::Result<()> {
    let code = of(problem, "/code");
    writeln!(err, "{}: {}", if code.is_empty() { status.to_string() } else { code }, of(problem, "/detail"))?;
    for policy in items(problem, "/policies") {
        writeln!(err, "  {} (policy {})", of(policy, "/reason"), of(policy, "/id"))?;
    }
    for (name, at) in [
        ("state", "/state"),
        ("digest", "/digest"),
        ("missing", "/missing"),
        ("claimed by", "/claimed_by"),
        ("until", "/claimed_until"),
    ] {
        line(err, name, &of(problem, at))?;
    }
    Ok(())
}
