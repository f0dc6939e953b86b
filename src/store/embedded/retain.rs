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
    let parts = [record.request.body, record.request.arguments, answer];
    let evidence = record.evidence.iter().map(|e| e.content);
    parts.into_iter().flatten().chain(evidence).map(|p: PayloadRef| p.seq).collect::<Vec<_>>().into_iter()
}

fn is_artifact(frame: &Frame) -> bool {
    frame.event.get().starts_with("{\"type\":\"artifact\"")
}

impl Inner {
    /// Blocks on the disk, a while when there is much to do. May be interrupted anywhere.
    fn shorten(&self, keep: Keep) -> io::Result<Shortened> {
        let (now, open) = self.now_and_needed()?;
        let before =
            |age: Duration| Timestamp::from_millis(now.as_millis() - i64::try_from(age.as_millis()).unwrap_or(0));
        let (calls, artifacts, audit) = (before(keep.calls), before(keep.artifacts), before(keep.audit));
        let mut done = Shortened::default();
        let reader = self.journal.reader();
        let forgotten = self.index.forget(calls, artifacts, |stored| super::entry::fold(&reader, &stored.frames));
        (done.calls, done.artifacts) = forgotten.map_err(io::Error::other)?;
        let synced = self.index.synced().map_err(io::Error::other)?.map_or(0, |s| s.seq);
        let closed = self.journal.closed_segments()?;
        // A replay begins with the segment that holds what was synced last. A call that is still open keeps the segment
        // with its request, and by the chain all after it; those lose their payloads all the same.
        let needed = |c: &Closed| open.range(c.first..c.next).next().is_some();
        let old = closed.iter().take_while(|c| c.until < audit && c.next <= synced && !needed(c)).count();
        let (gone, stay) = closed.split_at_checked(old).unwrap_or((&[], &closed));
        if let Some(last) = gone.last() {
            self.note_shortened(now, last.next)?;
            failpoint::hit("shorten.noted");
        }
        for segment in gone {
            done.bytes += self.journal.remove(segment)?;
            done.segments += 1;
            failpoint::hit("shorten.removed");
        }
        for segment in stay.iter().filter(|c| c.until < calls || c.until < artifacts) {
            let calls_too = segment.until < calls;
            let wanted = |f: &Frame| {
                open.contains(&f.seq) || if is_artifact(f) { segment.until >= artifacts } else { !calls_too }
            };
            let freed = self.journal.strip(segment, wanted)?;
            done.stripped += u64::from(freed > 0);
            failpoint::hit("shorten.stripped");
            done.bytes += freed;
        }
        Ok(done)
    }

    fn now_and_needed(&self) -> io::Result<(Timestamp, BTreeSet<u64>)> {
        let (core, now) = self.lock_healthy().map_err(|_| io::Error::other("the store cannot be written"))?;
        let open = core.calls.values().filter(|r| !r.state.is_final()).flat_map(|r| needed(r)).collect();
        Ok((now, open))
    }

    /// Durable before anything goes: who checks the journal can tell what retention took from what somebody cut.
    fn note_shortened(&self, now: Timestamp, first: u64) -> io::Result<()> {
        let failed = || io::Error::other("the store cannot be written");
        let note = AuditNote::plain(NOTE, BTreeMap::from([("first_seq".to_owned(), json!(first))]));
        let seq = {
            let (mut core, _) = self.lock_healthy().map_err(|_| failed())?;
            self.commit(&mut core, now, Vec::new(), |_| super::entry::Entry::Note { note }).map_err(|_| failed())?
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
