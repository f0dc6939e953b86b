//! Retention: what is older than its time is forgotten, first by the index, then by the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::call::{Fault, Timestamp};
use crate::failpoint;
use crate::journal::{Closed, Frame};
use crate::store::{AuditNote, CallRecord, PayloadRef};

use super::entry::Entry;
use super::forgotten::Forgotten;
use super::health::MIN_FREE;
use super::index::Stored;
use super::{Inner, Store};

/// What is noted before segments are removed; names the first record that stays.
pub(crate) const NOTE: &str = "journal.shortened";

/// How long things are kept. `calls` and `artifacts` are at most `audit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Records of concluded calls in lists and look-ups, with their requests and answers.
    pub calls: Duration,
    /// Evidence.
    pub artifacts: Duration,
    /// Records in the journal.
    pub audit: Duration,
}

impl Default for Keep {
    fn default() -> Self {
        let days = |n: u64| Duration::from_secs(n * 86_400);
        Self { calls: days(90), artifacts: days(30), audit: days(400) }
    }
}

/// What retention took away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Shortened {
    /// Concluded calls that the index forgot.
    pub calls: u64,
    /// Artifacts that the index forgot.
    pub artifacts: u64,
    /// Segments of the journal that are gone.
    pub segments: u64,
    /// Segments whose payloads are gone.
    pub stripped: u64,
    /// Bytes of the journal that are free again.
    pub bytes: u64,
}

/// Payloads that a call still needs.
fn needed(record: &CallRecord) -> impl Iterator<Item = u64> {
    let answer = record.answer.as_ref().and_then(|a| a.body);
    let states = record.preview.as_ref().and_then(|p| p.states);
    let parts = [record.request.body, record.request.arguments, answer, states];
    let evidence = record.evidence.iter().map(|e| e.content);
    let asked = record.edited.iter().flat_map(|e| [e.request.body, e.request.arguments]);
    parts.into_iter().chain(asked).flatten().chain(evidence).map(|p: PayloadRef| p.seq).collect::<Vec<_>>().into_iter()
}

fn is_artifact(frame: &Frame) -> bool {
    frame.event.get().starts_with("{\"type\":\"artifact\"")
}

/// What is older goes.
struct Limits {
    calls: Timestamp,
    artifacts: Timestamp,
    audit: Timestamp,
}

/// Segments that need no second look: first record, and which of the two limits they were older than.
pub(super) type Finished = BTreeSet<(u64, bool, bool)>;

impl Inner {
    /// Blocks on the disk, a while when there is much to do. May be interrupted anywhere. One at a time.
    fn shorten(&self, keep: Keep) -> io::Result<Shortened> {
        let Ok(mut finished) = self.shortened.try_lock() else { return Ok(Shortened::default()) };
        let (now, mut needs) = self.now_and_needed()?;
        let before =
            |age: Duration| Timestamp::from_millis(now.as_millis() - i64::try_from(age.as_millis()).unwrap_or(0));
        let limits = Limits { calls: before(keep.calls), artifacts: before(keep.artifacts), audit: before(keep.audit) };
        let mut done = Shortened::default();
        let reader = self.journal.reader();
        let read = |stored: &Stored| super::entry::fold(&reader, &stored.frames);
        let stays = |record: &CallRecord| needs.extend(needed(record));
        let forgotten = self.say_forgotten(Forgotten { calls: limits.calls, artifacts: limits.artifacts })?;
        (done.calls, done.artifacts) = self.index.forget(forgotten, read, stays).map_err(io::Error::other)?;
        // What the index forgot must not come back after a power cut that follows the removal of its records.
        self.index.sync().map_err(io::Error::other)?;
        let closed = self.journal.closed_segments()?;
        let gone = self.remove(now, &limits, &needs, &closed, &mut done)?;
        let mut wrong = None;
        for segment in closed.iter().skip(gone) {
            if let Err(error) = self.strip(segment, &limits, &needs, &mut finished, &mut done) {
                tracing::error!(first = segment.first, %error, "a segment of the journal cannot be shortened");
                wrong = Some(error);
            }
        }
        wrong.map_or(Ok(done), Err)
    }

    /// Removes whole segments; returns how many.
    fn remove(
        &self,
        now: Timestamp,
        limits: &Limits,
        needs: &BTreeSet<u64>,
        closed: &[Closed],
        done: &mut Shortened,
    ) -> io::Result<usize> {
        let synced = self.index.synced().map_err(io::Error::other)?.map_or(0, |s| s.seq);
        // A replay begins with the segment that holds what was synced last. A call that is still open keeps the segment
        // with its request, and by the chain all after it; those lose their payloads all the same.
        let goes = |c: &&Closed| c.until < limits.audit && c.next <= synced && !c.holds(needs);
        let gone: Vec<&Closed> = closed.iter().take_while(goes).collect();
        if let Some(last) = gone.last() {
            self.note_shortened(now, last.next)?;
            failpoint::hit("shorten.noted");
        }
        for segment in &gone {
            done.bytes += self.journal.remove(segment)?;
            done.segments += 1;
            failpoint::hit("shorten.removed");
        }
        Ok(gone.len())
    }

    /// Takes the payloads whose time is over out of one segment; remembers that it was done, since looking costs a read of
    /// all of it.
    fn strip(
        &self,
        segment: &Closed,
        limits: &Limits,
        needs: &BTreeSet<u64>,
        finished: &mut Finished,
        done: &mut Shortened,
    ) -> io::Result<()> {
        let (calls, artifacts) = (segment.until < limits.calls, segment.until < limits.artifacts);
        let this = (segment.first, calls, artifacts);
        if !(calls || artifacts) || finished.contains(&this) {
            return Ok(());
        }
        let wanted = |f: &Frame| needs.contains(&f.seq) || !(if is_artifact(f) { artifacts } else { calls });
        let freed = self.journal.strip(segment, MIN_FREE, wanted)?;
        done.stripped += u64::from(freed > 0);
        done.bytes += freed;
        failpoint::hit("shorten.stripped");
        if !segment.holds(needs) {
            finished.insert(this);
        }
        Ok(())
    }

    /// Store time, and the frames whose payloads open calls need.
    fn now_and_needed(&self) -> io::Result<(Timestamp, BTreeSet<u64>)> {
        let (core, now) = self.lock_healthy().map_err(|_| io::Error::other("the store cannot be written"))?;
        let open = core.calls.values().filter(|r| !r.state.is_final()).flat_map(|r| needed(r)).collect();
        Ok((now, open))
    }

    /// Durable before the index lets go of anything: from here on nobody is told of it. Nothing is written when there is
    /// nothing to forget.
    pub(super) fn say_forgotten(&self, older: Forgotten) -> io::Result<Forgotten> {
        let failed = || io::Error::other("the store cannot be written");
        let known = self.lock().map_err(|_| failed())?.0.forgotten;
        let all = known.and(older);
        if all == known || !self.index.has_any(all).map_err(io::Error::other)? {
            return Ok(all);
        }
        let seq = {
            let (mut core, now) = self.lock_healthy().map_err(|_| failed())?;
            self.commit(&mut core, now, Vec::new(), |_| Entry::Forgotten(all)).map_err(|_| failed())?
        };
        self.journal.durable_blocking(seq).map_err(|_| failed())?;
        failpoint::hit("shorten.forgotten");
        Ok(all)
    }

    /// Durable before anything goes: who checks the journal can tell what retention took from what somebody cut.
    fn note_shortened(&self, now: Timestamp, first: u64) -> io::Result<()> {
        let failed = || io::Error::other("the store cannot be written");
        let note = AuditNote::plain(NOTE, BTreeMap::from([("first_seq".to_owned(), json!(first))]));
        let seq = {
            let (mut core, _) = self.lock_healthy().map_err(|_| failed())?;
            self.commit(&mut core, now, Vec::new(), |_| Entry::Note { note }).map_err(|_| failed())?
        };
        self.journal.durable_blocking(seq).map(drop).map_err(|_| failed())
    }
}

impl Store {
    /// Forgets what is older than `keep` says: concluded calls and artifacts leave the index, their payloads the
    /// journal, and segments whose records are all older than `audit` go whole. Open calls lose nothing.
    /// Whatever was done when it fails stays done.
    ///
    /// # Errors
    /// When index or journal cannot be read or written.
    pub async fn shorten(&self, keep: Keep) -> Result<Shortened, Fault> {
        let inner = std::sync::Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || inner.shorten(keep)).await;
        done.map_err(|e| Fault::caused("retention", e))?.map_err(|e| Fault::caused("retention", e))
    }
}
