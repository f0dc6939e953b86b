//! HoldStep of held calls as server-sent events (WHATWG HTML, section 9.2): ids and summaries, only of what this person may see.
//! The API's stream wants a token, the page's a session.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::StatusCode;
use http::header::HeaderMap;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Sleep;

use crate::store::HoldStep;

use super::Desk;
use super::api::{self, parameters};
use super::ask::Asker;
use super::problem::Problem;
use super::view;
use super::who::{Visitor, Who};

/// A stream ends after so long: whoever comes back is asked again who it is. Browsers come back by themselves.
const LIFE: Duration = Duration::from_secs(300);
/// Something is sent at least so often, so that both sides notice when the other one is gone.
const ALIVE: Duration = Duration::from_secs(15);
/// Streams that may be open at once: other requests need connections, too.
const MAX_STREAMS: usize = 128;
/// And of one person: others need streams, too.
const PER_PERSON: usize = 16;

/// How many streams are open, by person.
#[derive(Debug, Clone, Default)]
pub(super) struct Streams(Arc<Mutex<HashMap<String, usize>>>);

/// One of them, until it is dropped.
struct Slot(Streams, String);

impl Streams {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, person: &str) -> Result<Slot, Problem> {
        let mut open = self.lock();
        let (own, all) = (open.get(person).copied().unwrap_or(0), open.values().sum::<usize>());
        if own >= PER_PERSON || all >= MAX_STREAMS {
            let text = "too many event streams are open already; ask again later, or poll";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", text));
        }
        open.insert(person.to_owned(), own + 1);
        Ok(Slot(self.clone(), person.to_owned()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.0.lock();
        match open.get_mut(&self.1).filter(|own| **own > 1) {
            Some(own) => *own -= 1,
            None => drop(open.remove(&self.1)),
        }
    }
}

/// What is sent next, and to whom.
struct Feed {
    desk: Arc<Desk>,
    who: Who,
    /// Which events, by the beginning of their names; empty: all.
    types: Vec<String>,
    position: u64,
    head: watch::Receiver<u64>,
    due: VecDeque<HoldStep>,
    end: Pin<Box<Sleep>>,
    _slot: Slot,
}

impl Feed {
    fn new(desk: Arc<Desk>, who: Who, query: Option<&str>, headers: &HeaderMap) -> Result<Self, Problem> {
        let slot = desk.streams.take(&who.person)?;
        let types = parameters(query, &["types"])?.into_iter().flat_map(|(_, v)| types(&v)).collect();
        let head = desk.store.follow_news();
        let last = headers.get("last-event-id").map(|v| v.to_str().unwrap_or_default().trim().to_owned());
        let position = match last.as_deref() {
            None | Some("") => *head.borrow(),
            Some(text) => {
                text.parse().map_err(|_| Problem::malformed("`Last-Event-ID` is not an id of this stream"))?
            }
        };
        let end = Box::pin(tokio::time::sleep(LIFE));
        Ok(Self { desk, who, types, position, head, due: VecDeque::new(), end, _slot: slot })
    }

    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            // However much there is to tell: whoever comes back is asked again who it is.
            if tokio::time::Instant::now() >= self.end.deadline() || self.desk.draining.is_on() {
                return None;
            }
            while let Some(news) = self.due.pop_front() {
                self.position = news.seq;
                if let Some(event) = self.event(&news).await {
                    return Some(event);
                }
            }
            let newest = *self.head.borrow_and_update();
            match self.desk.store.news(self.position) {
                Err(_gap) => {
                    self.position = newest;
                    return Some(Event::default().id(newest.to_string()).event("reset").data("{}"));
                }
                Ok(news) if !news.is_empty() => self.due = news.into(),
                Ok(_) => self.wait().await?,
            }
        }
    }

    /// Until there is something new; `None` when the stream is over.
    async fn wait(&mut self) -> Option<()> {
        tokio::select! {
            changed = self.head.changed() => changed.ok(),
            () = self.end.as_mut() => None,
            () = self.desk.draining.on() => None,
        }
    }

    /// What this person hears of it: nothing of a hold that policy does not show.
    async fn event(&self, news: &HoldStep) -> Option<Event> {
        let name = news.step.of_hold(news.state)?;
        if !self.types.is_empty() && !self.types.iter().any(|t| name.starts_with(t.as_str())) {
            return None;
        }
        let record = self.desk.store.get(news.id).await.ok().flatten()?;
        let snapshot = self.desk.snapshots.current();
        let asker = Asker { snapshot: &snapshot, who: &self.who, now: self.desk.clock.now() };
        if !asker.may("hold.view", &record) {
            return None;
        }
        let groups = record.terms.as_ref().map(|t| super::ask::places(&t.needs)).unwrap_or_default();
        let data = json!({
            "id": news.id.hold(), "version": news.version, "state": news.state.as_str(), "tier": news.tier.as_str(),
            "op": record.operation, "groups": groups, "sla": view::sla(&record),
        });
        Some(Event::default().id(news.seq.to_string()).event(name).data(data.to_string()))
    }
}

/// `hold.*,near_miss` as beginnings of names.
fn types(text: &str) -> Vec<String> {
    text.split(',').map(|t| t.trim().trim_end_matches('*').to_owned()).filter(|t| !t.is_empty()).collect()
}

fn answer(feed: Feed) -> Response {
    let events = stream::unfold(feed, |mut feed| async move {
        let event = feed.next().await?;
        Some((Ok::<_, Infallible>(event), feed))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE)).into_response()
}

/// For those who come with a token.
pub(super) async fn api(
    State(desk): State<Arc<Desk>>,
    who: Who,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> api::Answer {
    Feed::new(desk, who, query.as_deref(), &headers).map(answer)
}

/// For our own page.
pub(super) async fn page(
    State(desk): State<Arc<Desk>>,
    visitor: Visitor,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> api::Answer {
    Feed::new(desk, visitor.who, query.as_deref(), &headers).map(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_bounded_and_given_back() {
        let streams = Streams::default();
        let take = |n: usize| streams.take(&format!("p{}", n / PER_PERSON));
        let slots: Vec<Slot> = (0..MAX_STREAMS).map(|n| take(n).unwrap_or_else(|_| panic!("full"))).collect();
        assert!(streams.take("another").is_err());
        drop(slots);
        let own: Vec<Slot> = (0..PER_PERSON).map(|_| take(0).unwrap_or_else(|_| panic!("full"))).collect();
        assert!(take(0).is_err() && streams.take("another").is_ok(), "one person leaves room for others");
        drop(own);
        assert!(take(0).is_ok());
    }
}
