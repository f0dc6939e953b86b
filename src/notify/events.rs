//! What a record of the journal is to those outside: the name of an event, ids, and a summary. Never arguments.

use serde_json::{Value, json};

use crate::call::{Code, Tier, short_code, visible};
use crate::store::{AuditNote, CallRecord, Grant, News, Sample, State, Step, Told};

/// One event. A record has at most a few; the same record always has the same ones.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    /// One of [`crate::call::EVENTS`].
    pub(super) name: &'static str,
    /// The tier of the hold that it is about.
    pub(super) tier: Option<Tier>,
    pub(super) data: Value,
}

/// The events of one record; `page` is where reviewers find it.
pub(super) fn of(news: &News, page: Option<&str>) -> Vec<Event> {
    match &news.told {
        Told::Step(step, record) => {
            let tier = record.terms.as_ref().map(|t| t.tier);
            let event = |name| Event { name, tier, data: detailed(name, record, page) };
            names(*step, record).into_iter().map(event).collect()
        }
        Told::Grant(grant) => vec![granted(grant, page)],
        Told::Sample(sample) => vec![sampled(sample)],
        Told::Paused(p) => vec![plain("pause.began", json!({"scope": p.scope, "reason": p.reason, "by": p.by}))],
        Told::Resumed { scope, reason, by } => {
            vec![plain("pause.ended", json!({"scope": scope, "reason": reason, "by": by}))]
        }
        Told::Note(note) => noted(note).into_iter().collect(),
    }
}

/// A grant was given, or is over before its time.
fn granted(grant: &Grant, page: Option<&str>) -> Event {
    let mut data = json!({
        "id": grant.id.to_string(), "op": grant.operation, "tool": grant.tool, "workflow": grant.workflow,
        "agent": grant.principal.1, "title": visible(&grant.title), "from_hold": grant.from.hold().to_string(),
        "by": grant.by, "expires": grant.expires,
    });
    let mut put = |name: &str, value: Value| data.as_object_mut().and_then(|d| d.insert(name.to_owned(), value));
    if let Some(page) = page {
        put("links", json!({"html": format!("{page}/grants")}));
    }
    match &grant.ended {
        None => plain("grant.created", data),
        Some(end) => {
            put("ended", json!({"why": end.why.as_str(), "by": end.by, "at": end.at}));
            plain("grant.ended", data)
        }
    }
}

/// A call was picked to be looked at after it ran, or somebody has.
fn sampled(sample: &Sample) -> Event {
    let data = json!({
        "call": sample.id.to_string(), "op": sample.operation, "workflow": sample.workflow,
        "agent": sample.principal.agent, "title": visible(&sample.title),
        "verdict": sample.judged.as_ref().map(|j| j.verdict.as_str()),
        "reason_code": sample.judged.as_ref().and_then(|j| j.reason_code.clone()),
        "by": sample.judged.as_ref().map(|j| j.by.clone()),
    });
    plain(if sample.judged.is_some() { "sample.verdict" } else { "sample.created" }, data)
}

/// An event that is about no hold.
fn plain(name: &'static str, data: Value) -> Event {
    Event { name, tier: None, data }
}

fn names(step: Step, record: &CallRecord) -> Vec<&'static str> {
    let name = match (step, record.state) {
        // What the proxy does with a call of its own accord is no news yet; what comes of it is.
        (Step::Begun | Step::BegunAgain | Step::Waiting | Step::Opined, _) => None,
        (step, state) if record.terms.is_some() => step.of_hold(state),
        (Step::Collected, _) => None,
        (_, State::Succeeded) => Some("call.executed"),
        (_, State::Unknown) => Some("call.unknown"),
        _ => None,
    };
    let mut names: Vec<&'static str> = name.into_iter().collect();
    if record.undoes.is_some() && names.iter().any(|n| ["hold.succeeded", "call.executed"].contains(n)) {
        names.push("call.undone");
    }
    names
}

/// The summary, and what this event alone is about.
fn detailed(name: &str, record: &CallRecord, page: Option<&str>) -> Value {
    let mut data = summary(record, page);
    let handling = record.handling.as_deref();
    let (member, about) = match (name, handling) {
        ("hold.escalated", Some(h)) => {
            let told = h.escalations.last().map(|e| json!({"to": e.to, "by": e.by, "after": e.after}));
            ("escalated", told)
        }
        ("hold.claimed", Some(h)) => ("claimed", h.claim.as_ref().map(|c| json!({"by": c.person, "until": c.until}))),
        _ => return data,
    };
    if let (Some(data), Some(about)) = (data.as_object_mut(), about) {
        data.insert(member.to_owned(), about);
    }
    data
}

/// Ids and a summary; readers fetch what they may see.
fn summary(record: &CallRecord, page: Option<&str>) -> Value {
    let mut data = json!({
        "call": record.id.to_string(),
        "version": record.version,
        "state": record.state.as_str(),
        "tier": record.tier.as_str(),
        "op": record.operation,
        "tool": record.tool,
        "workflow": record.context.workflow,
        "agent": record.principal.agent,
        "title": visible(&record.title),
        "digest": record.digest.to_string(),
        "code": short_code(&record.digest),
    });
    let mut put = |name: &str, value: Value| data.as_object_mut().and_then(|d| d.insert(name.to_owned(), value));
    let at = if let Some(terms) = &record.terms {
        let id = record.id.hold().to_string();
        put("id", json!(id));
        put("groups", json!(terms.needs.groups()));
        put("people", json!({"needed": terms.needs.people, "have": record.people()}));
        put("sla", json!(record.created.plus(terms.sla).to_string()));
        put("expires", json!(record.expires.map(|t| t.to_string())));
        format!("/holds/{id}")
    } else {
        format!("/calls/{}", record.id)
    };
    if let Some(page) = page {
        put("links", json!({"html": format!("{page}{at}")}));
    }
    if let Some(undone) = &record.undoes {
        put("undoes", json!(undone.call.to_string()));
    }
    data
}

fn noted(note: &AuditNote) -> Option<Event> {
    let digests =
        || json!({"config_digest": note.more.get("config_digest"), "policy_digest": note.more.get("policy_digest")});
    let (name, data) = match note.kind.as_str() {
        "call.refused" if note.code.as_deref() == Some(Code::Forbidden.as_str()) => {
            let agent = note.agent.as_ref().map(|(_, agent)| agent);
            let call = note.call.map(|c| c.to_string());
            let policies = note.more.get("policies");
            let data =
                json!({"call": call, "op": note.operation, "agent": agent, "run": note.run, "policies": policies});
            ("near_miss", data)
        }
        "config.reloaded" => ("config.reloaded", digests()),
        "config.rejected" => ("config.rejected", digests()),
        _ => return None,
    };
    Some(plain(name, data))
}
