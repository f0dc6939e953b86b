//! What a record of the journal is to those outside: the name of an event, ids, and a summary. Never arguments.

use serde_json::{Value, json};

use crate::call::{Code, Tier, short_code, visible};
use crate::store::{AuditNote, CallRecord, News, State, Step, Told};

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
            names(*step, record).into_iter().map(|name| Event { name, tier, data: summary(record, page) }).collect()
        }
        Told::Note(note) => noted(note).into_iter().collect(),
    }
}

fn names(step: Step, record: &CallRecord) -> Vec<&'static str> {
    let held = record.terms.is_some();
    let stale = |other| if record.state == State::Stale { "hold.stale" } else { other };
    let mut names = match step {
        Step::Parked => vec!["hold.created"],
        Step::Voted | Step::Attached => vec!["hold.updated"],
        Step::Approved => vec!["hold.approved"],
        Step::Edited => vec![stale("hold.edited")],
        Step::Renewed => vec![stale("hold.updated")],
        Step::Rejected if record.state == State::Revoked => vec!["hold.revoked"],
        Step::Rejected => vec!["hold.rejected"],
        Step::Withdrawn => vec!["hold.withdrawn"],
        Step::Revoked => vec!["hold.revoked"],
        Step::Expired => vec!["hold.expired"],
        Step::Concluded | Step::Died | Step::Reconciled | Step::Found | Step::NotFound => ended(record.state, held),
        _ => Vec::new(),
    };
    if record.undoes.is_some() && names.iter().any(|n| ["hold.succeeded", "call.executed"].contains(n)) {
        names.push("call.undone");
    }
    names
}

fn ended(state: State, held: bool) -> Vec<&'static str> {
    match (state, held) {
        (State::Succeeded, true) => vec!["hold.succeeded"],
        (State::Failed, true) => vec!["hold.failed"],
        (State::Unknown, true) => vec!["hold.unknown"],
        (State::NotExecuted, true) => vec!["hold.not_executed"],
        (State::Succeeded, false) => vec!["call.executed"],
        (State::Unknown, false) => vec!["call.unknown"],
        _ => Vec::new(),
    }
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
        let mut groups: Vec<&str> =
            terms.needs.requirements.iter().flat_map(|r| r.groups.iter()).map(String::as_str).collect();
        groups.sort_unstable();
        groups.dedup();
        put("id", json!(id));
        put("groups", json!(groups));
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
    Some(Event { name, tier: None, data })
}
