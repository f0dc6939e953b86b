//! One record by what a person typed, and lists of them: only what policy shows this person exists.

use bytes::Bytes;
use http::StatusCode;

use crate::call::{CallId, HoldId};
use crate::store::{CallRecord, Filter, State};

use super::Admin;
use super::ask::Asker;
use super::listing::Listing;
use super::problem::Problem;

/// Records read from the store at a time, and how many times, for one page of a list.
const CHUNK: usize = 200;
const ROUNDS: usize = 25;
/// A suffix shorter than this is a typing mistake.
const SUFFIX: usize = 4;

pub(super) fn full_id(text: &str) -> Option<CallId> {
    text.parse::<HoldId>().map(HoldId::call).or_else(|_| text.parse::<CallId>()).ok()
}

/// A hold by id, unique suffix or code, if this person may see it.
pub(super) async fn hold(admin: &Admin, asker: &Asker<'_>, text: &str) -> Result<CallRecord, Problem> {
    let candidates = match full_id(text) {
        Some(id) => vec![id],
        None if text.chars().filter(char::is_ascii_alphanumeric).count() < SUFFIX => Vec::new(),
        None => admin.store.find_by_suffix_or_code(text)?,
    };
    let mut seen = Vec::new();
    for id in candidates {
        if let Some(record) = admin.store.get(id).await?
            && record.terms.is_some()
            && asker.may("hold.view", &record)
        {
            seen.push(record);
        }
    }
    match (seen.pop(), seen.is_empty()) {
        (Some(record), true) => Ok(record),
        (Some(_), false) => {
            let text = "this fits more than one hold; give more of the id";
            Err(Problem::new(StatusCode::CONFLICT, "ambiguous_id", text))
        }
        (None, _) => Err(Problem::not_found()),
    }
}

/// A call by its whole id, if this person may see it.
pub(super) async fn call(admin: &Admin, asker: &Asker<'_>, text: &str) -> Result<CallRecord, Problem> {
    let id = full_id(text).ok_or_else(Problem::not_found)?;
    let record = admin.store.get(id).await?.ok_or_else(Problem::not_found)?;
    if asker.may("call.view", &record) { Ok(record) } else { Err(Problem::not_found()) }
}

/// One page of what this person may see, newest first, and where the next one begins.
pub(super) async fn list(
    admin: &Admin,
    asker: &Asker<'_>,
    action: &str,
    filter: Filter,
) -> Result<(Vec<CallRecord>, Option<CallId>), Problem> {
    listed(admin, filter, |record| asker.may(action, record)).await
}

/// The same of whatever this person may see as a call or as a hold.
pub(super) async fn either(
    admin: &Admin,
    asker: &Asker<'_>,
    filter: Filter,
) -> Result<(Vec<CallRecord>, Option<CallId>), Problem> {
    let may = |r: &CallRecord| asker.may("call.view", r) || (r.terms.is_some() && asker.may("hold.view", r));
    listed(admin, filter, may).await
}

/// One page of what is to be kept, newest first, and where the next one begins.
pub(super) async fn listed(
    admin: &Admin,
    mut filter: Filter,
    keep: impl Fn(&CallRecord) -> bool,
) -> Result<(Vec<CallRecord>, Option<CallId>), Problem> {
    let wanted = filter.limit;
    let mut seen: Vec<CallRecord> = Vec::new();
    for _ in 0..ROUNDS {
        filter.limit = CHUNK;
        let chunk = admin.store.list(filter.clone()).await?;
        let whole = chunk.len() < CHUNK;
        for record in chunk {
            if seen.len() >= wanted {
                return Ok((seen, filter.before));
            }
            filter.before = Some(record.id);
            if keep(&record) {
                seen.push(record);
            }
        }
        if whole {
            return Ok((seen, None));
        }
    }
    Ok((seen, filter.before))
}

/// The content of each piece of evidence, where this person may see it.
pub(super) async fn contents(
    admin: &Admin,
    asker: &Asker<'_>,
    record: &CallRecord,
) -> Result<Vec<Option<Bytes>>, Problem> {
    let may_read = asker.may("artifact.view", record);
    let mut all = Vec::new();
    for evidence in &record.evidence {
        let found = if may_read { admin.store.artifact(evidence.id).await? } else { None };
        all.push(found.map(|(_, content)| content));
    }
    Ok(all)
}

/// Calls whose outcome is unknown, newest first.
pub(super) fn unknown(limit: usize) -> Filter {
    Filter { states: vec![State::Unknown], limit, ..Filter::default() }
}

/// Holds that wait, that are sought, and that this person may see, the one that expires first ahead; at most `limit`, and whether there are more.
pub(super) async fn waiting(
    admin: &Admin,
    asker: &Asker<'_>,
    sought: &Listing,
    limit: usize,
) -> Result<(Vec<CallRecord>, bool), Problem> {
    // All of them are in memory, and capped.
    let states = vec![State::Held, State::Approved];
    let filter = Filter { states, holds_only: true, limit: usize::MAX, before: None, ..sought.filter().clone() };
    let mut records = admin.store.list(filter).await?;
    records.sort_by_key(|r| (r.expires, r.id));
    let mut seen: Vec<CallRecord> = Vec::new();
    for record in records {
        if !asker.may("hold.view", &record) || !sought.fits(asker, &record) {
            continue;
        }
        if seen.len() >= limit {
            return Ok((seen, true));
        }
        seen.push(record);
    }
    Ok((seen, false))
}
