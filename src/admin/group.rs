//! Alike holds, decided together: the odd ones are opened first, and each of them is a decision of its own.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::{CallId, Digest, Tier, money_text, visible};
use crate::store::{CallRecord, Filter, State as CallState};

use super::api::{self, Asked};
use super::ask::Asker;
use super::decide::{Approve, Decision, Refuse, WORDS};
use super::filled::Filled;
use super::openapi::ReasonCode;
use super::page::{self, Visit};
use super::posted::Posted;
use super::problem::Problem;
use super::show::{Head, Line};
use super::weigh::has_hidden;
use super::who::{Visitor, Who};
use super::{Admin, Desk, find, view};

/// Open holds that are looked at for groups, and how many one decision may cover.
const LOOKED_AT: usize = 500;
const TOGETHER: usize = 100;
/// What is remembered of who opened what; past it everybody opens anew.
const REMEMBERED: usize = 20_000;

/// Which holds a person has opened, as they were then. In memory: after a restart they are opened again.
#[derive(Debug, Default)]
pub(super) struct Opened(Mutex<HashMap<(String, CallId), Digest>>);

impl Opened {
    pub(super) fn note(&self, person: &str, record: &CallRecord) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert((person.to_owned(), record.id), record.digest);
    }

    fn has(&self, person: &str, record: &CallRecord) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&(person.to_owned(), record.id)) == Some(&record.digest)
    }
}

/// What makes holds alike: operation, agent, workflow, and why they are held. None for what is decided one by one.
pub(super) fn cluster(record: &CallRecord) -> Option<String> {
    let terms = record.terms.as_ref().filter(|t| t.tier == Tier::Medium && record.state == CallState::Held)?;
    let why: BTreeSet<&str> = terms.why.iter().map(|w| w.policy.as_str()).collect();
    let p = &record.principal;
    let of = json!([record.operation, p.org, p.agent, p.acting_for, record.context.workflow, why]);
    let digest = Digest::of_json(&of).to_string();
    Some(format!("cl_{}", digest.trim_start_matches("sha256:").chars().take(16).collect::<String>()))
}

/// One of a group, and what is odd about it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) record: CallRecord,
    pub(super) odd: Vec<&'static str>,
}

/// The odd ones first: the largest amount, a first time, an effect that nobody can foresee, the lowest confidence that
/// the agent states, what was changed or moved, what a reader would not see. One at least.
fn odd_first(mut records: Vec<CallRecord>) -> Vec<Member> {
    records.sort_by_key(|r| r.id);
    let amount = |r: &CallRecord| r.money.as_ref().map(|m| m.0);
    let largest = records.iter().filter_map(amount).max();
    let same = records.iter().all(|r| amount(r) == largest);
    let lowest = records.iter().filter_map(|r| r.context.confidence).min_by(f64::total_cmp);
    let all_sure = records.iter().all(|r| r.context.confidence == lowest);
    let odd = |r: &CallRecord| {
        let first = r.facts.as_ref().is_some_and(|f| f.history.first_time_target);
        let unknown = r.preview.as_ref().is_some_and(|p| p.certainty == crate::call::Certainty::Unknown);
        let all = [
            (!same && largest.is_some() && amount(r) == largest, "the largest amount"),
            (first, "the first time for this target"),
            (unknown, "its effect is unknown"),
            (!all_sure && lowest.is_some() && r.context.confidence == lowest, "the lowest confidence stated"),
            (r.edited.is_some(), "changed by a reviewer"),
            (r.edited.is_none() && r.renewals > 0, "something moved since it was asked for"),
            (has_hidden(r), "hidden characters"),
        ];
        all.into_iter().filter(|(is, _)| *is).map(|(_, why)| why).collect::<Vec<_>>()
    };
    let mut members: Vec<Member> = records.into_iter().map(|record| Member { odd: odd(&record), record }).collect();
    if members.iter().all(|m| m.odd.is_empty())
        && let Some(first) = members.first_mut()
    {
        first.odd.push("one of them is read");
    }
    members.sort_by_key(|m| (m.odd.is_empty(), m.record.id));
    members
}

/// The members of a group that this person may see, the odd ones first.
pub(super) async fn found(admin: &Admin, asker: &Asker<'_>, id: &str) -> Result<Vec<Member>, Problem> {
    let held = Filter {
        states: vec![CallState::Held],
        holds_only: true,
        tier: Some(Tier::Medium),
        limit: LOOKED_AT,
        ..Filter::default()
    };
    let (records, _) = find::list(admin, asker, "hold.view", held).await?;
    Ok(odd_first(records.into_iter().filter(|r| cluster(r).as_deref() == Some(id)).collect()))
}

/// The same, where there are any.
async fn members(admin: &Admin, asker: &Asker<'_>, id: &str) -> Result<Vec<Member>, Problem> {
    let members = found(admin, asker, id).await?;
    if members.is_empty() { Err(Problem::not_found()) } else { Ok(members) }
}

pub(super) async fn show(State(admin): State<Arc<Desk>>, who: Who, Path(id): Path<String>) -> api::Answer {
    let asked = Asked::new(admin, who);
    let members = members(&asked.admin, &asked.asker(), &id).await?;
    let one = |m: &Member| {
        let mut line = view::summary(&asked.asker(), &m.record);
        if let Some(line) = line.as_object_mut() {
            line.insert("odd".into(), json!(m.odd));
            line.insert("opened".into(), asked.admin.opened.has(&asked.who().person, &m.record).into());
        }
        line
    };
    let items: Vec<Value> = members.iter().map(one).collect();
    Ok(api::ok(&json!({"id": id, "items": items}), None))
}

/// One hold of a batch, with the digest that was seen.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Seen")]
struct Item {
    id: String,
    digest: Digest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Action {
    Approve,
    Reject,
}

/// The same decision on alike holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Batch {
    action: Action,
    cluster: String,
    #[schemars(length(min = 1, max = TOGETHER))]
    items: Vec<Item>,
    #[serde(default)]
    #[schemars(length(max = WORDS))]
    justification: Option<String>,
    /// To reject, it must be there.
    #[serde(default)]
    #[schemars(with = "Option<ReasonCode>")]
    reason_code: Option<String>,
    #[serde(default)]
    #[schemars(length(max = WORDS))]
    message_to_agent: Option<String>,
}

impl Batch {
    /// The holds that it names, if all of them may be decided together: then, and only then, each is decided.
    fn chosen<'m>(
        &self,
        members: &'m [Member],
        opened: impl Fn(&CallRecord) -> bool,
    ) -> Result<Vec<&'m Member>, Problem> {
        let conflict = |code, text: String| Problem::new(StatusCode::CONFLICT, code, text);
        if self.items.is_empty() || self.items.len() > TOGETHER {
            return Err(Problem::invalid(format!("`items` names 1 to {TOGETHER} holds")));
        }
        let mut chosen: Vec<&Member> = Vec::new();
        for item in &self.items {
            let found = members.iter().find(|m| m.record.id.hold().to_string() == item.id);
            let Some(member) = found else {
                let text = format!("`{}` is not, or not any more, one of this group", item.id.escape_debug());
                return Err(conflict("not_in_cluster", text));
            };
            if member.record.digest != item.digest {
                return Err(conflict("digest_changed", format!("`{}` changed since you read it", item.id)));
            }
            if chosen.iter().any(|m| m.record.id == member.record.id) {
                return Err(Problem::invalid(format!("`{}` stands twice", item.id)));
            }
            chosen.push(member);
        }
        // Whoever is decided: the odd ones of the group tell what the rest is like.
        let unread: Vec<String> = members
            .iter()
            .filter(|m| !m.odd.is_empty() && !opened(&m.record))
            .map(|m| m.record.id.hold().to_string())
            .collect();
        if self.action == Action::Approve && !unread.is_empty() {
            let text = "open the odd ones first".to_owned();
            return Err(conflict("not_opened", text).with("open", unread));
        }
        Ok(chosen)
    }

    async fn decide(&self, decision: Decision<'_>, exact: &super::exact::Exact) -> Result<CallRecord, Problem> {
        let digest = decision.record.digest;
        match self.action {
            Action::Approve => {
                let justification = self.justification.clone();
                decision.approve(Approve { digest, group: None, justification, confirm: None, grant: None }).await
            }
            Action::Reject => {
                let reason_code = self.reason_code.clone().unwrap_or_default();
                let message_to_agent = self.message_to_agent.clone();
                decision.reject(Refuse { digest, reason_code, message_to_agent, deny_alike_minutes: None }, exact).await
            }
        }
    }
}

pub(super) async fn batch(Posted { asked, said: batch, .. }: Posted<Batch>) -> api::Answer {
    let members = members(&asked.admin, &asked.asker(), &batch.cluster).await?;
    let person = asked.who().person.clone();
    let chosen = batch.chosen(&members, |record| asked.admin.opened.has(&person, record))?;
    let mut items = Vec::new();
    for member in chosen {
        let exact = asked.exact(&member.record).await;
        let done = batch.decide(asked.decision(&member.record, None), &exact).await;
        let id = member.record.id.hold();
        items.push(match done {
            Ok(record) => json!({"id": id, "status": 200, "state": record.state.as_str(), "version": record.version}),
            Err(problem) => {
                json!({"id": id, "status": problem.status().as_u16(), "code": problem.code(), "detail": problem.detail()})
            }
        });
    }
    Ok(api::ok(&json!({"items": items}), None))
}

/// A line of a group's page.
#[derive(Debug)]
pub(super) struct Row {
    line: Line,
    odd: String,
    opened: bool,
}

/// A group.
#[derive(Debug, askama::Template)]
#[template(path = "group.html")]
struct Group {
    head: Head,
    problem: Option<String>,
    id: String,
    name: String,
    rows: Vec<Row>,
    money: String,
    items: String,
    unread: usize,
    can_approve: bool,
    can_reject: bool,
    reasons: &'static [&'static str],
}

/// Median, largest and sum, where all are in one currency.
fn money(members: &[Member]) -> String {
    let mut all: Vec<(i64, &str)> =
        members.iter().filter_map(|m| m.record.money.as_ref()).map(|(a, c)| (*a, c.as_str())).collect();
    all.sort_unstable();
    let Some((largest, currency)) = all.last().copied() else { return String::new() };
    if all.len() != members.len() || all.iter().any(|(_, c)| *c != currency) {
        return String::new();
    }
    let median = all.get(all.len() / 2).map_or(0, |m| m.0);
    let sum = all.iter().try_fold(0i64, |sum, (amount, _)| sum.checked_add(*amount));
    let text = |minor| visible(&money_text(minor, currency));
    format!("median {} · largest {} · sum {}", text(median), text(largest), sum.map_or("(too large)".into(), text))
}

impl Group {
    fn new(visit: &Visit, id: &str, members: &[Member], problem: Option<&Problem>) -> Self {
        let asker = visit.asker();
        let opened = |m: &Member| visit.desk.opened.has(&visit.who().person, &m.record);
        let can = |verb| members.iter().all(|m| asker.can(&m.record).0.contains(&verb));
        let rows = members.iter().map(|m| Row {
            line: Line::new(&asker, &m.record, true),
            odd: m.odd.join(", "),
            opened: opened(m),
        });
        let first = members.first().map(|m| &m.record);
        Self {
            head: visit.head(),
            problem: problem.map(|p| visible(p.detail())),
            id: id.to_owned(),
            name: first.map(name).unwrap_or_default(),
            rows: rows.collect(),
            money: money(members),
            items: members
                .iter()
                .map(|m| format!("{} {}", m.record.id.hold(), m.record.digest))
                .collect::<Vec<_>>()
                .join(","),
            unread: members.iter().filter(|m| !m.odd.is_empty() && !opened(m)).count(),
            can_approve: can("approve"),
            can_reject: can("reject"),
            reasons: &super::decide::REASONS,
        }
    }
}

fn name(record: &CallRecord) -> String {
    visible(&format!("{} · {} · {}", record.operation, record.principal.agent, record.context.workflow))
}

pub(super) async fn group_page(
    State(desk): State<Arc<Desk>>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> page::Answer {
    let visit = Visit::new(desk, visitor);
    let members = members(&visit.desk, &visit.asker(), &id).await?;
    Ok(page::html(StatusCode::OK, &Group::new(&visit, &id, &members, None)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupForm {
    action: Action,
    /// Each hold and the digest that was shown of it.
    items: String,
    justification: Option<String>,
    reason_code: Option<String>,
    message_to_agent: Option<String>,
}

pub(super) async fn group_form(
    Path(id): Path<String>,
    Filled { visit, said: form }: Filled<GroupForm>,
) -> page::Answer {
    let item = |text: &str| {
        let (id, digest) = text.split_once(' ')?;
        Some(Item { id: id.to_owned(), digest: serde_json::from_value(digest.into()).ok()? })
    };
    let items: Option<Vec<Item>> = form.items.split(',').map(item).collect();
    let batch = Batch {
        action: form.action,
        cluster: id.clone(),
        items: items.ok_or_else(|| Problem::malformed("`items` is not what this page's form carries"))?,
        justification: form.justification,
        reason_code: form.reason_code,
        message_to_agent: form.message_to_agent,
    };
    let members = members(&visit.desk, &visit.asker(), &id).await?;
    let person = &visit.who().person;
    let refused = |problem: &Problem| page::html(problem.status(), &Group::new(&visit, &id, &members, Some(problem)));
    let chosen = match batch.chosen(&members, |record| visit.desk.opened.has(person, record)) {
        Ok(chosen) => chosen,
        Err(problem) => return Ok(refused(&problem)),
    };
    let mut failed: Option<Problem> = None;
    for member in chosen {
        let exact = visit.exact(&member.record).await;
        if let Err(problem) = batch.decide(visit.decision(&member.record), &exact).await {
            failed = failed.or(Some(problem));
        }
    }
    let done: Response = match failed {
        None => Redirect::to("/").into_response(),
        Some(problem) => refused(&problem),
    };
    Ok(done)
}

/// Groups among these holds, for the inbox: where, what, how many.
pub(super) fn groups(records: &[CallRecord], asker: &Asker<'_>) -> Vec<(String, String, usize, String)> {
    let mut all: Vec<(String, Vec<CallRecord>)> = Vec::new();
    for record in records.iter().filter(|r| r.state_at(asker.now) == CallState::Held) {
        let Some(id) = cluster(record) else { continue };
        match all.iter_mut().find(|(known, _)| *known == id) {
            Some((_, members)) => members.push(record.clone()),
            None => all.push((id, vec![record.clone()])),
        }
    }
    let line = |(id, records): (String, Vec<CallRecord>)| {
        let (count, name) = (records.len(), records.first().map(name).unwrap_or_default());
        let money = money(&odd_first(records));
        (id, name, count, money)
    };
    all.into_iter().filter(|(_, members)| members.len() > 1).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixtures::record;

    fn held(amount: i64, confidence: Option<f64>) -> CallRecord {
        let mut r = record(CallState::Held, "f", None);
        r.money = Some((amount, "EUR".into()));
        let context = crate::call::CallContext { confidence, ..(*r.context).clone() };
        r.context = context.into();
        r
    }

    #[test]
    fn the_odd_ones_stand_first() {
        let all = vec![held(5, Some(0.9)), held(9, Some(0.9)), held(5, Some(0.1)), held(5, Some(0.9))];
        let (large, unsure) = (all[1].id, all[2].id);
        let members = odd_first(all);
        let odd: Vec<_> = members.iter().take_while(|m| !m.odd.is_empty()).map(|m| m.record.id).collect();
        assert_eq!(odd, [large, unsure]);
        let mut hidden = held(5, None);
        hidden.arguments = json!({"note": "pay\u{202e}eman"}).into();
        let (hidden, moved) = (hidden, CallRecord { renewals: 1, ..held(5, None) });
        let odd = odd_first(vec![held(5, None), hidden, moved]);
        let odd: Vec<_> = odd.iter().flat_map(|m| &m.odd).collect();
        assert_eq!(odd, [&"hidden characters", &"something moved since it was asked for"]);
        let alike = odd_first(vec![held(5, None), held(5, None)]);
        assert_eq!(alike.iter().filter(|m| !m.odd.is_empty()).count(), 1, "one is always read");
    }

    #[test]
    fn only_medium_holds_that_are_held_for_the_same_reasons_are_alike() {
        let a = held(5, None);
        assert_eq!(cluster(&a), cluster(&held(9, None)));
        let mut high = held(5, None);
        if let Some(terms) = high.terms.as_mut() {
            terms.tier = Tier::High;
        }
        assert_eq!(cluster(&high), None);
        let other = CallRecord { operation: "crm.update".into(), ..held(5, None) };
        assert_ne!(cluster(&a), cluster(&other));
        assert_eq!(cluster(&CallRecord { state: CallState::Approved, ..held(5, None) }), None);
    }
}
