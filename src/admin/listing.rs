//! What a list of holds or calls is asked for, and in which order it comes.

use std::cmp::Reverse;

use axum::response::Response;
use serde_json::{Value, json};

use crate::call::{CallId, HoldId, Tier, Timestamp, short_code};
use crate::store::{CallRecord, Filter, State};

use super::api::{self, Asked, parameters};
use super::ask::{Asker, missing_evidence, places};
use super::find;
use super::group::cluster;
use super::openapi::Op;
use super::problem::Problem;
use super::view;

/// Lines of one answer.
const MAX_LINES: usize = 200;
const DEFAULT_LINES: usize = 50;
/// Characters that are searched for.
const MAX_QUERY: usize = 200;

/// Newest first is how the store keeps them; the others sort what waits, all of which is in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Order {
    #[default]
    Created,
    Sla,
    Amount,
}

/// Where a page ended: what it was sorted by, and the call.
type Place = (i64, Reverse<CallId>);

/// One question.
#[derive(Debug, Default)]
pub(super) struct Listing {
    filter: Filter,
    mine: bool,
    overdue: bool,
    unproven: bool,
    words: Option<String>,
    group: Option<String>,
    cluster: Option<String>,
    order: Order,
    cursor: Option<String>,
}

/// What both lists take.
const BOTH: [&str; 12] =
    ["state", "tier", "tool", "op", "agent", "workflow", "run", "q", "since", "until", "limit", "cursor"];
/// What the pages ask for.
const PAGE: [&str; 8] = ["q", "tier", "state", "op", "agent", "workflow", "overdue", "cursor"];
/// What only holds have.
const HOLDS: [&str; 6] = ["mine", "overdue", "evidence", "group", "cluster", "sort"];

fn states(text: &str) -> Result<Vec<State>, Problem> {
    let one = |name: &str| {
        let found = State::ALL.into_iter().find(|s| s.as_str() == name);
        found.ok_or_else(|| Problem::invalid(format!("`{}` is not a state", name.escape_debug())))
    };
    text.split(',').map(one).collect()
}

fn tier(text: &str) -> Result<Tier, Problem> {
    let tier = [Tier::Low, Tier::Medium, Tier::High].into_iter().find(|t| t.as_str() == text);
    tier.ok_or_else(|| Problem::invalid("`tier` is low, medium or high"))
}

fn flag(name: &str, text: &str) -> Result<bool, Problem> {
    match text {
        "1" => Ok(true),
        "0" => Ok(false),
        _ => Err(Problem::invalid(format!("`{name}` is 1 or 0"))),
    }
}

fn time(name: &str, text: &str) -> Result<Timestamp, Problem> {
    let text = text.parse();
    text.map_err(|_| {
        Problem::invalid(format!("`{name}` is a time such as `2026-11-23T13:00:00Z` (a `+` stands as `%2B`)"))
    })
}

fn bad_cursor() -> Problem {
    Problem::invalid("`cursor` is not one that was given here, for this order")
}

impl Listing {
    /// Of calls.
    pub(super) fn of_calls(query: Option<&str>) -> Result<Self, Problem> {
        Self::read(parameters(query, &BOTH)?)
    }

    /// Of holds.
    pub(super) fn of_holds(query: Option<&str>) -> Result<Self, Problem> {
        let mut listing = Self::read(parameters(query, &[&BOTH[..], &HOLDS].concat())?)?;
        listing.filter.holds_only = true;
        let only_held = listing.mine || listing.overdue || listing.unproven || listing.cluster.is_some();
        let states = &mut listing.filter.states;
        if only_held && states.is_empty() {
            *states = vec![State::Held];
        }
        if listing.order != Order::Created && (states.is_empty() || states.iter().any(|s| s.is_final())) {
            let text =
                "what has ended is not sorted: give `state=held`, or other states of open calls, with this `sort`";
            return Err(Problem::invalid(text));
        }
        Ok(listing)
    }

    /// Of a page's search: a field left empty is a field not given.
    pub(super) fn of_page(query: Option<&str>) -> Result<Self, Problem> {
        let mut pairs = parameters(query, &PAGE)?;
        pairs.retain(|(_, value)| !value.trim().is_empty());
        Self::read(pairs)
    }

    /// What the store looks at.
    pub(super) fn filter(&self) -> &Filter {
        &self.filter
    }

    fn read(pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        let mut listing = Self { filter: Filter { limit: DEFAULT_LINES, ..Filter::default() }, ..Self::default() };
        for (name, value) in pairs {
            listing.take(&name, value)?;
        }
        if listing.order == Order::Created
            && let Some(cursor) = &listing.cursor
        {
            let id = cursor.parse::<CallId>().or_else(|_| cursor.parse::<HoldId>().map(HoldId::call));
            listing.filter.before = Some(id.map_err(|_| bad_cursor())?);
        }
        Ok(listing)
    }

    fn take(&mut self, name: &str, value: String) -> Result<(), Problem> {
        let filter = &mut self.filter;
        match name {
            "state" => filter.states = states(&value)?,
            "tier" => filter.tier = Some(tier(&value)?),
            "tool" => filter.tool = Some(value),
            "op" => filter.operation = Some(value),
            "agent" => filter.agent = Some(value),
            "workflow" => filter.workflow = Some(value),
            "run" => filter.run = Some(value),
            "since" => filter.since = Some(time(name, &value)?),
            "until" => filter.until = Some(time(name, &value)?),
            "limit" => {
                let limit = value.parse().ok().filter(|n| (1..=MAX_LINES).contains(n));
                filter.limit = limit.ok_or_else(|| Problem::invalid(format!("`limit` is 1 to {MAX_LINES}")))?;
            }
            "mine" => self.mine = flag(name, &value)?,
            "overdue" => self.overdue = flag(name, &value)?,
            "group" => self.group = Some(value),
            "cluster" => self.cluster = Some(value),
            "evidence" if value == "missing" => self.unproven = true,
            "evidence" => return Err(Problem::invalid("`evidence` is missing")),
            "sort" => self.order = order(&value)?,
            "q" if (1..=MAX_QUERY).contains(&value.chars().count()) => self.words = Some(value.to_lowercase()),
            "q" => return Err(Problem::invalid(format!("`q` is 1 to {MAX_QUERY} characters"))),
            _ => self.cursor = Some(value),
        }
        Ok(())
    }

    /// What the store does not look at.
    pub(super) fn fits(&self, asker: &Asker<'_>, record: &CallRecord) -> bool {
        let held = || record.state_at(asker.now) == State::Held;
        (!self.mine || asker.can(record).0.contains(&"approve"))
            && (!self.overdue || (held() && view::sla(record).is_some_and(|sla| sla <= record.clock(asker.now))))
            && (!self.unproven || (held() && !missing_evidence(record).is_empty()))
            && self.group.as_ref().is_none_or(|group| is_for(record, group))
            && self.cluster.as_ref().is_none_or(|id| cluster(record).as_ref() == Some(id))
            && self.words.as_ref().is_none_or(|words| says(record, words))
    }

    fn place(&self, record: &CallRecord) -> Place {
        let by = match self.order {
            Order::Created => 0,
            Order::Sla => view::sla(record).map_or(i64::MAX, Timestamp::as_millis),
            Order::Amount => record.money.as_ref().map_or(i64::MAX, |(minor, _)| minor.saturating_neg()),
        };
        (by, Reverse(record.id))
    }

    /// One page of what this person may see.
    pub(super) async fn answer(self, asked: &Asked, action: &str) -> Result<Response, Problem> {
        let (records, next) = match self.order {
            Order::Created => {
                let asker = asked.asker();
                let keep = |r: &CallRecord| asker.may(action, r) && self.fits(&asker, r);
                let (records, next) = find::listed(&asked.admin, self.filter.clone(), keep).await?;
                (records, next.map(|id| id.to_string()))
            }
            _ => self.sorted(asked, action).await?,
        };
        let asker = asked.asker();
        let items: Vec<Value> = records.iter().map(|r| view::summary(&asker, r)).collect();
        Ok(api::ok(&json!({"items": items, "next": next}), None))
    }

    async fn sorted(&self, asked: &Asked, action: &str) -> Result<(Vec<CallRecord>, Option<String>), Problem> {
        let after = self.cursor.as_deref().map(|text| place(text).ok_or_else(bad_cursor)).transpose()?;
        let (mut all, mut filter) = (Vec::new(), Filter { limit: MAX_LINES, ..self.filter.clone() });
        loop {
            let asker = asked.asker();
            let keep = |r: &CallRecord| asker.may(action, r) && self.fits(&asker, r);
            let (records, next) = find::listed(&asked.admin, filter.clone(), keep).await?;
            all.extend(
                records.into_iter().map(|r| (self.place(&r), r)).filter(|(at, _)| after.is_none_or(|a| *at > a)),
            );
            filter.before = next;
            if next.is_none() {
                break;
            }
        }
        all.sort_by_key(|(at, _)| *at);
        let more = all.len() > self.filter.limit;
        all.truncate(self.filter.limit);
        let next = all.last().filter(|_| more).map(|((by, Reverse(id)), _)| format!("{by}.{id}"));
        Ok((all.into_iter().map(|(_, record)| record).collect(), next))
    }
}

fn order(text: &str) -> Result<Order, Problem> {
    match text {
        "-created" => Ok(Order::Created),
        "sla" => Ok(Order::Sla),
        "amount" => Ok(Order::Amount),
        _ => Err(Problem::invalid("`sort` is sla, -created or amount")),
    }
}

fn place(text: &str) -> Option<Place> {
    let (by, id) = text.split_once('.')?;
    Some((by.parse().ok()?, Reverse(id.parse().ok()?)))
}

/// Whether a person of this group can fill one of its places.
fn is_for(record: &CallRecord, group: &str) -> bool {
    record.terms.as_ref().is_some_and(|t| places(&t.needs).iter().any(|place| place.contains(group)))
}

/// Whether a line of a list says so, in any case.
fn says(record: &CallRecord, words: &str) -> bool {
    let (call, hold, code) = (record.id.to_string(), record.id.hold().to_string(), short_code(&record.digest));
    let p = &record.principal;
    let all = [
        &record.title,
        &call,
        &hold,
        &code,
        &record.operation,
        &p.agent,
        &record.context.workflow,
        &record.context.run,
    ];
    all.into_iter().chain(&p.acting_for).any(|text| text.to_lowercase().contains(words))
}

fn text() -> Value {
    json!({"type": "string"})
}

/// What both lists say of themselves.
pub(super) fn described(op: Op) -> Op {
    let states = State::ALL.map(State::as_str).join("|");
    let states =
        json!({"type": "string", "pattern": format!("^({states})(,({states}))*$"), "examples": ["held,approved"]});
    let time = || json!({"type": "string", "format": "date-time"});
    let words = json!({"type": "string", "minLength": 1, "maxLength": MAX_QUERY});
    op.query("state", "States, separated by commas.", states)
        .query("tier", "Its tier.", json!({"type": "string", "enum": ["low", "medium", "high"]}))
        .query("tool", "By tool.", text())
        .query("op", "By operation.", text())
        .query("agent", "By agent.", text())
        .query("workflow", "By workflow.", text())
        .query("run", "By run.", text())
        .query("q", "What its title, ids, code, operation, agent, workflow, run or person contain, in any case.", words)
        .query("since", "Asked for at this time or later.", time())
        .query("until", "Asked for before this time.", time())
        .pages()
}

/// What the list of holds takes beside.
pub(super) fn described_holds(op: Op) -> Op {
    let flag = || json!({"type": "string", "enum": ["0", "1"]});
    let order = json!({"type": "string", "enum": ["sla", "-created", "amount"], "default": "-created"});
    described(op)
        .query("mine", "1: only what the asking person can approve now.", flag())
        .query("overdue", "1: only what should have been looked at by now.", flag())
        .query(
            "evidence",
            "Only what cannot be approved because evidence is missing.",
            json!({"type": "string", "const": "missing"}),
        )
        .query("group", "Only what a person of this group can approve.", text())
        .query("cluster", "Only one group of alike holds.", text())
        .query(
            "sort",
            "What is due first, what is newest, or the largest amount; all but the second with states of open holds.",
            order,
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixtures::record;

    #[test]
    fn what_is_asked_wrongly_is_said() {
        for (query, words) in [
            ("mine=yes", "1 or 0"),
            ("since=yesterday", "such as"),
            ("since=2026-11-23T13:00:00+01:00", "%2B"),
            ("evidence=there", "missing"),
            ("sort=title", "sla, -created"),
            ("sort=sla", "state=held"),
            ("sort=amount&state=held,succeeded", "state=held"),
            ("q=", "1 to 200"),
            ("cursor=5.call_x", "cursor"),
            ("limit=0", "1 to 200"),
        ] {
            let problem = Listing::of_holds(Some(query)).unwrap_err();
            assert_eq!(problem.code(), "invalid_arguments", "{query}");
            assert!(problem.detail().contains(words), "{query}: {}", problem.detail());
        }
        assert_eq!(Listing::of_calls(Some("mine=1")).unwrap_err().code(), "unknown_parameter");
        assert!(Listing::of_holds(Some("since=2026-11-23T13:00:00%2B01:00&sort=sla&mine=1")).is_ok());
    }

    #[test]
    fn a_place_is_read_as_it_was_written_and_ties_are_told_apart() {
        let (a, b) = (record(State::Held, "f", None), record(State::Held, "g", None));
        let listing = Listing { order: Order::Sla, ..Listing::default() };
        let (by, Reverse(id)) = listing.place(&a);
        assert_eq!(place(&format!("{by}.{id}")), Some(listing.place(&a)));
        assert_ne!(listing.place(&a), listing.place(&b));
        assert!(place("7").is_none() && place("x.y").is_none());
    }

    #[test]
    fn words_are_found_in_what_a_line_says() {
        let mut r = record(State::Held, "f", None);
        r.title = "Refund 880.00 EUR on order O_881".into();
        assert!(says(&r, "o_881") && says(&r, "refund 880") && !says(&r, "o_882"));
        assert!(says(&r, &r.id.hold().to_string().to_lowercase()));
        assert!(says(&r, &short_code(&r.digest).to_lowercase()));
    }
}
