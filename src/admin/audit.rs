//! The journal for those whom `audit.read` permits: who did what, newest first, each record chained to the one before.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use http::StatusCode;
use serde_json::{Value, json};

use crate::call::{CallId, HoldId, visible};
use crate::store::Logged;

use super::Desk;
use super::api::{self, Answer, Asked};
use super::ask::Asker;
use super::page::{self, Visit};
use super::problem::Problem;
use super::show::Head;
use super::who::{Visitor, Who};

/// Lines of one answer, and of one page.
const MAX_LINES: usize = 200;
const LINES: usize = 50;
/// Records that one answer looks at for those that fit.
const LOOKS: u64 = 20_000;

/// Which records.
#[derive(Debug, Default)]
struct Wanted {
    before: Option<u64>,
    limit: usize,
    kind: Option<String>,
    call: Option<CallId>,
    who: Option<String>,
}

impl Wanted {
    fn read(query: Option<&str>) -> Result<Self, Problem> {
        let mut wanted = Self { limit: LINES, ..Self::default() };
        for (name, value) in api::parameters(query, &["kind", "call", "who", "limit", "cursor"])? {
            if value.is_empty() {
                continue;
            }
            match name.as_str() {
                "kind" => wanted.kind = Some(value),
                "who" => wanted.who = Some(value),
                "call" => {
                    let id = value.parse::<CallId>().or_else(|_| value.parse::<HoldId>().map(HoldId::call));
                    wanted.call = Some(id.map_err(|_| Problem::invalid("`call` is the id of a call or of a hold"))?);
                }
                "limit" => {
                    let limit = value.parse().ok().filter(|n| (1..=MAX_LINES).contains(n));
                    wanted.limit = limit.ok_or_else(|| Problem::invalid(format!("`limit` is 1 to {MAX_LINES}")))?;
                }
                _ => {
                    let before = value.parse().map_err(|_| Problem::invalid("`cursor` is not one that was given here"));
                    wanted.before = Some(before?);
                }
            }
        }
        Ok(wanted)
    }

    fn fits(&self, line: &Logged) -> bool {
        let begins = |kind: &String| match kind.strip_suffix('*') {
            Some(start) => line.kind.starts_with(start),
            None => line.kind == *kind,
        };
        self.kind.as_ref().is_none_or(begins)
            && self.call.is_none_or(|call| line.call == Some(call))
            && self.who.as_ref().is_none_or(|who| line.who.as_ref() == Some(who))
    }
}

/// Records, and what is known of the whole.
#[derive(Debug)]
struct Found {
    lines: Vec<Logged>,
    next: Option<u64>,
    /// The first that is still there, the newest, and how many the newest checkpoint covers.
    first: u64,
    newest: u64,
    signed: u64,
}

impl Found {
    /// Looks from the newest one back. What stands beside each other must be chained.
    fn of(desk: &Desk, wanted: &Wanted) -> Result<Self, Problem> {
        let (first, newest) = desk.store.span();
        let mut found = Self { lines: Vec::new(), next: None, first, newest, signed: desk.store.signed() };
        let start = wanted.before.map_or(newest, |before| before.saturating_sub(1).min(newest));
        let mut after: Option<Logged> = None;
        let mut seq = start;
        while seq >= first.max(1) {
            if found.lines.len() >= wanted.limit || start - seq >= LOOKS {
                found.next = Some(seq + 1);
                break;
            }
            let line = desk.store.logged(seq)?;
            if after.as_ref().is_some_and(|after| after.prev != line.hash) {
                let text =
                    format!("record {} does not follow record {seq}: `holdpoint audit verify` says more", seq + 1);
                return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "journal_damaged", text));
            }
            if wanted.fits(&line) {
                found.lines.push(line.clone());
            }
            after = Some(line);
            seq -= 1;
        }
        Ok(found)
    }
}

async fn found(desk: &Arc<Desk>, asker: &Asker<'_>, wanted: Wanted) -> Result<Found, Problem> {
    asker.permit_system(&["audit.read"])?;
    let desk = Arc::clone(desk);
    let read = tokio::task::spawn_blocking(move || Found::of(&desk, &wanted)).await;
    read.map_err(|e| Problem::from(crate::call::Fault::caused("the journal could not be read", e)))?
}

fn json_of(line: &Logged) -> Value {
    json!({
        "seq": line.seq, "at": line.at, "hash": line.hash, "kind": line.kind, "call": line.call, "op": line.operation,
        "who": line.who, "code": line.code,
    })
}

pub(super) async fn list(State(admin): State<Arc<Desk>>, who: Who, RawQuery(query): RawQuery) -> Answer {
    let wanted = Wanted::read(query.as_deref())?;
    let asked = Asked::new(admin, who);
    let found = found(&asked.admin, &asked.asker(), wanted).await?;
    let items: Vec<Value> = found.lines.iter().map(json_of).collect();
    let next = found.next.map(|seq| seq.to_string());
    Ok(api::ok(
        &json!({
            "items": items, "next": next, "first": found.first, "newest": found.newest, "signed": found.signed,
        }),
        None,
    ))
}

/// One line of the page.
#[derive(Debug)]
struct Row {
    seq: u64,
    at: String,
    kind: String,
    call: Option<String>,
    operation: String,
    who: String,
    code: String,
    hash: String,
}

impl Row {
    fn new(line: &Logged) -> Self {
        let text = |t: &Option<String>| t.as_deref().map(visible).unwrap_or_default();
        Self {
            seq: line.seq,
            at: line.at.to_string(),
            kind: visible(&line.kind),
            call: line.call.map(|c| c.to_string()),
            operation: text(&line.operation),
            who: text(&line.who),
            code: text(&line.code),
            hash: line.hash.to_string().chars().skip("sha256:".len()).take(16).collect(),
        }
    }
}

#[derive(Debug, askama::Template)]
#[template(path = "audit.html")]
struct Page {
    head: Head,
    rows: Vec<Row>,
    first: u64,
    newest: u64,
    signed: u64,
    kind: String,
    who: String,
    call: String,
    /// The query of the next page.
    next: Option<String>,
}

pub(super) async fn shown(State(desk): State<Arc<Desk>>, visitor: Visitor, RawQuery(query): RawQuery) -> page::Answer {
    let wanted = Wanted::read(query.as_deref())?;
    let visit = Visit::new(desk, visitor);
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let (kind, who) = (text(&wanted.kind), text(&wanted.who));
    let call = wanted.call.map(|c| c.to_string()).unwrap_or_default();
    let found = found(&visit.desk, &visit.asker(), wanted).await?;
    let filters = [("kind", &kind), ("who", &who), ("call", &call)];
    let kept = filters.iter().filter(|(_, v)| !v.is_empty());
    let kept: String = kept.map(|(n, v)| format!("&{n}={}", crate::call::encode_part(v))).collect();
    let next = found.next.map(|seq| format!("cursor={seq}{kept}"));
    let rows = found.lines.iter().map(Row::new).collect();
    let (first, newest, signed) = (found.first, found.newest, found.signed);
    let (kind, who) = (visible(&kind), visible(&who));
    Ok(page::html(StatusCode::OK, &Page { head: visit.head(), rows, first, newest, signed, kind, who, call, next }))
}
