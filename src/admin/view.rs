//! Holds and calls as JSON. Only what is computed stands here.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::call::{Timestamp, short_code};
use crate::store::{CallRecord, Edit, Edited, Evidence, PROXY, State};

use super::alike::Like;
use super::ask::{Asker, filled_by, missing_evidence, places};
use super::exact::{Exact, text_or_base64};
use super::foreseen::Foreseen;
use super::handling;
use super::undo::Undo;
use super::weigh;

/// When it should have been looked at.
pub(super) fn sla(record: &CallRecord) -> Option<Timestamp> {
    let terms = record.terms.as_ref()?;
    Some(record.expires?.minus(terms.expires).plus(terms.sla))
}

fn times(record: &CallRecord) -> Value {
    json!({
        "created": record.created,
        "updated": record.updated,
        "sla": sla(record),
        "expires": record.expires,
        "window_s": record.terms.as_ref().map(|t| t.window.as_secs()),
        "window_closes": record.window_closes,
        "stopped_since": record.halted,
    })
}

fn who(record: &CallRecord) -> Value {
    let p = &record.principal;
    json!({
        "agent": p.agent,
        "agent_groups": p.groups,
        "org": p.org,
        "owner": p.owner,
        "operator": p.operator,
        "on_behalf_of": p.acting_for,
        "workflow": record.context.workflow,
        "stage": record.context.stage,
        "run": record.context.run,
        "step": record.context.step,
        "source_ip": record.context.source_ip,
    })
}

/// What is still needed; `null` for a call that was never held.
pub(super) fn needs(record: &CallRecord) -> Value {
    let Some(terms) = &record.terms else { return Value::Null };
    let groups: Vec<Value> = places(&terms.needs)
        .iter()
        .map(|place| json!({"any_of": place, "filled_by": filled_by(record, place)}))
        .collect();
    json!({
        "people": terms.needs.people,
        "people_have": record.people(),
        "justification": terms.needs.justification,
        "groups": groups,
    })
}

fn impact(record: &CallRecord) -> Value {
    let budgets: Vec<Value> =
        weigh::budgets(record).iter().map(|(scope, pct)| json!({"scope": scope, "used_pct": pct})).collect();
    match &record.money {
        Some((minor, currency)) => {
            json!({"amount": {"minor": minor, "currency": currency}, "budgets": budgets})
        }
        None => json!({"budgets": budgets}),
    }
}

fn me(asker: &Asker<'_>, record: &CallRecord) -> Value {
    let (can, cannot) = asker.can(record);
    let cannot: Map<String, Value> = cannot.into_iter().map(|(name, why)| (name.to_owned(), why.into())).collect();
    json!({"can": can, "cannot": cannot, "groups": asker.fillable(record)})
}

/// A line of a list.
pub(super) fn summary(asker: &Asker<'_>, record: &CallRecord) -> Value {
    let held = record.terms.is_some();
    json!({
        "id": if held { record.id.hold().to_string() } else { record.id.to_string() },
        "call_id": record.id,
        "version": record.version,
        "state": record.state_at(asker.now).as_str(),
        "tier": record.tier.as_str(),
        "title": record.title,
        "digest": record.digest,
        "code": short_code(&record.digest),
        "times": times(record),
        "who": who(record),
        "call": {"op": record.operation, "tool": record.tool, "effects": record.effects},
        "impact": impact(record),
        "needs": needs(record),
        "claim": handling::claim(asker, record),
        "me": me(asker, record),
    })
}

/// What was read from the store beside a record.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) exact: &'a Exact,
    pub(super) contents: &'a [Option<Bytes>],
    pub(super) foreseen: Option<&'a Foreseen>,
    pub(super) undo: &'a Undo,
    pub(super) like: &'a Like,
}

/// Everything about one hold or call.
pub(super) fn full(asker: &Asker<'_>, record: &CallRecord, parts: &Parts<'_>) -> Value {
    let mut out = summary(asker, record);
    let kind = asker.snapshot.operation(&record.operation).map(|o| o.tool.kind.as_str());
    let more = json!({
        "call": {
            "op": record.operation,
            "tool": record.tool,
            "kind": kind,
            "effects": record.effects,
            "input": record.arguments,
            "request": parts.exact.json(),
            "idempotency_key": record.key,
            "key_derived": record.key_derived,
            "attempt": record.attempt,
            "schema_digest": record.schema_digest,
        },
        "policies": record.policies,
        "grant": record.grant,
        "facts": record.facts,
        "would": record.would,
        "why": record.terms.as_ref().map(|t| &t.why),
        "policy_digest": record.policy_digest,
        "config_digest": record.config_digest,
        "change": parts.foreseen.map(Foreseen::json),
        "evidence": evidence(record, parts.contents),
        "uncertainty": weigh::doubts_json(&weigh::doubts(record, parts.foreseen, parts.like)),
        "claims": {"intent": record.context.intent, "confidence": record.context.confidence},
        "undo": parts.undo.json(),
        "alike": parts.like.json(),
        "edited": record.edited.as_deref().map(edited),
        "approvals": approvals(record),
        "renewals": record.renewals,
        "receipt": record.state.is_final().then(|| record.id.receipt()),
        "release": if record.release_by_proxy { "approval" } else { "collect" },
        "note": record.note,
        "deny_alike_until": record.deny_alike,
        "opinion": record.opinion.as_deref().map(|o| json!({"person": o.person, "outcome": o.outcome, "reason": o.reason, "at": o.at})),
        "quiet_at": record.quiet_at(),
        "answer": record.answer.as_ref().map(|a| json!({"status": a.status, "bytes": a.len, "sha256": a.digest})),
        "links": links(asker, record),
    });
    for more in [more, handling::json(asker, record)] {
        if let (Some(out), Value::Object(more)) = (out.as_object_mut(), more) {
            out.extend(more);
        }
    }
    out
}

fn evidence(record: &CallRecord, contents: &[Option<Bytes>]) -> Value {
    let required = record.terms.as_ref().map(|t| t.needs.evidence.clone()).unwrap_or_default();
    let one = |(e, content): (&Evidence, &Option<Bytes>)| {
        let mut item = json!({
            "id": e.id, "kind": e.kind, "title": e.title, "by": e.by, "verified": e.by == PROXY,
            "bytes": e.content.len, "sha256": e.content.digest, "at": e.at,
        });
        if let (Some(members), Some(content)) = (item.as_object_mut(), content) {
            let (name, text) = text_or_base64("content", content);
            members.insert(name, text.into());
        }
        item
    };
    let items: Vec<Value> = record.evidence.iter().zip(contents).map(one).collect();
    json!({"required": required, "missing": missing_evidence(record), "items": items, "unfetched": record.unfetched})
}

/// What reviewers changed, beside what the agent had asked for.
fn edited(edited: &Edited) -> Value {
    let one = |e: &Edit| json!({"by": e.person, "at": e.at, "note": e.note, "changes": e.changes});
    json!({
        "asked_for": {"input": edited.arguments, "digest": edited.digest},
        "changes": edited.changes,
        "edits": edited.edits.iter().map(one).collect::<Vec<_>>(),
    })
}

fn approvals(record: &CallRecord) -> Vec<Value> {
    let one = |a: &crate::store::Approval| {
        json!({
            "by": a.person, "groups": a.groups, "at": a.at, "channel": a.channel, "digest": a.digest,
            "justification": a.justification,
        })
    };
    record.approvals.iter().map(one).collect()
}

fn links(asker: &Asker<'_>, record: &CallRecord) -> Value {
    let base = asker.snapshot.config.reviews.url.as_ref().map(|u| u.trim_end_matches('/').to_owned());
    match base {
        Some(base) if record.terms.is_some() => json!({"html": format!("{base}/holds/{}", record.id.hold())}),
        Some(base) => json!({"html": format!("{base}/calls/{}", record.id)}),
        None => json!({}),
    }
}

/// What a decision answers.
pub(super) fn decided(record: &CallRecord, now: Timestamp) -> Value {
    let state = record.state_at(now);
    let mut out = json!({"state": state.as_str(), "version": record.version});
    if state == State::Held
        && let Some(members) = out.as_object_mut()
    {
        members.insert("needs".to_owned(), needs(record));
    }
    out
}
