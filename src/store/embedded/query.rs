//! Reading. Whatever discloses a state waits until that state is durable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;

use crate::call::{ArtifactId, CallId, Digest, Fault, History, Principal, PrincipalKey, States, Timestamp, short_code};
use crate::journal::Reader;
use crate::store::{
    Artifact, Balance, CallRecord, Filter, HistoryQuestion, Known, LedgerKey, PayloadRef, Question, State, is_grants,
};

use super::core::view;
use super::entry::fold;
use super::forgotten::Forgotten;
use super::index::{Index, IndexError};
use super::keys;
use super::{Counts, Inner, Store, Unavailable};

/// A list looks at so many concluded records at most.
const MAX_SCAN: usize = 100_000;

fn matches(filter: &Filter, r: &CallRecord) -> bool {
    fn same<T: PartialEq>(wanted: Option<&T>, is: &T) -> bool {
        wanted.is_none_or(|w| w == is)
    }
    (filter.states.is_empty() || filter.states.contains(&r.state))
        && (!filter.holds_only || r.terms.is_some())
        && same(filter.tool.as_ref(), &r.tool)
        && same(filter.operation.as_ref(), &r.operation)
        && same(filter.agent.as_ref(), &r.principal.agent)
        && same(filter.workflow.as_ref(), &r.context.workflow)
        && same(filter.run.as_ref(), &r.context.run)
        && same(filter.tier.as_ref(), &r.tier)
        && filter.since.is_none_or(|since| r.created >= since)
        && filter.until.is_none_or(|until| r.created < until)
        && filter.before.is_none_or(|before| r.id < before)
}

fn concluded(
    index: &Index,
    reader: &Reader,
    forgotten: Forgotten,
    filter: &Filter,
) -> Result<Vec<CallRecord>, Unavailable> {
    let (mut found, mut looked, mut passed) = (Vec::new(), 0, 0);
    let looks = filter.looks.unwrap_or(MAX_SCAN);
    index.newest(filter.before, |id, stored| {
        // What ended before the time that is asked for began before it, too, and is not read.
        let late = filter.since.is_none_or(|since| stored.updated >= since);
        let wanted = late && (filter.states.is_empty() || filter.states.contains(&stored.state));
        passed += 1;
        if wanted && !forgotten.has_stored(id, &stored) {
            looked += 1;
            let record = fold(reader, &stored.frames).map_err(IndexError::of)?;
            found.extend(Some(record).filter(|r| matches(filter, r)));
        }
        Ok(found.len() < filter.limit && looked < looks && passed < MAX_SCAN)
    })?;
    Ok(found)
}

fn told_code(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_uppercase()
}

impl Inner {
    /// Settles what time decided, then tells; with the frame that must be durable first.
    fn look_up(&self, q: &Question<'_>) -> Result<(u64, Known), Unavailable> {
        let hint = self.hint(q);
        let (mut core, now) = self.lock()?;
        let mut known = core.known(q, hint.as_ref(), now)?;
        if let Known::Over(record) = &known {
            self.settle(&mut core, record.id, now)?;
            known = core.known(q, None, now)?;
        }
        let seq = match &known {
            Known::New => 0,
            Known::InFlight(id) | Known::KeyReused(id) => core.record(*id)?.map_or(0, |r| r.seq),
            Known::Concluded(r) | Known::Held(r) | Known::Over(r) | Known::Unknown(r) => r.seq,
        };
        Ok((seq, known))
    }

    pub(super) fn current(&self, id: CallId) -> Result<Option<CallRecord>, Unavailable> {
        let (mut core, now) = self.lock()?;
        if self.journal.healthy() {
            self.settle(&mut core, id, now)?;
        }
        Ok(core.record(id)?.map(|r| view(&r, now)))
    }

    async fn payload(&self, payload: PayloadRef) -> Result<Bytes, Fault> {
        if let Some(bytes) = self.journal.cached_payload(payload.seq, payload.index) {
            return Ok(bytes);
        }
        let journal = Arc::clone(&self.journal);
        let read = move || journal.read_payload(payload.seq, payload.index, &payload.digest);
        let bytes = tokio::task::spawn_blocking(read).await.map_err(|e| Fault::caused("reading a payload", e))?;
        bytes.map_err(|e| Fault::caused("reading a payload", e))
    }
}

/// After this time a call like an unknown one is no duplicate any more.
const DAY: Duration = Duration::from_secs(24 * 3600);

impl Store {
    /// What the store knows of a call that came in. What it tells is durable.
    ///
    /// # Errors
    /// When the store cannot read or an untold end cannot be recorded.
    pub async fn look_up(&self, question: Question<'_>) -> Result<Known, Fault> {
        let (seq, known) = self.inner.look_up(&question)?;
        self.inner.durable(seq).await?;
        Ok(known)
    }

    /// The newest `unknown` call of the same caller, operation and fingerprint within a day: a call under a
    /// new key may be its duplicate.
    ///
    /// # Errors
    /// When a step panicked.
    pub fn unknown_like(
        &self,
        principal: &Principal,
        operation: &str,
        fingerprint: &Digest,
    ) -> Result<Option<CallId>, Fault> {
        let (core, now) = self.inner.lock()?;
        let scope = principal.key();
        let like = |r: &&Arc<CallRecord>| {
            r.state == State::Unknown
                && now.since(r.updated) < DAY
                && r.fingerprint == *fingerprint
                && r.operation == operation
                && r.principal.key() == scope
        };
        Ok(core.calls.values().filter(like).map(|r| r.id).max())
    }

    /// One call as it is now; durable.
    ///
    /// # Errors
    /// When the store cannot read.
    pub async fn get(&self, id: CallId) -> Result<Option<CallRecord>, Fault> {
        let record = self.inner.current(id)?;
        self.inner.durable(record.as_ref().map_or(0, |r| r.seq)).await?;
        Ok(record)
    }

    /// Calls that match, newest first, as they are now; durable. Looks at the newest 100,000 concluded
    /// ones at most.
    ///
    /// # Errors
    /// When the store cannot read.
    pub async fn list(&self, filter: Filter) -> Result<Vec<CallRecord>, Fault> {
        // Calls that are open are all in memory.
        let only_open = !filter.states.is_empty() && !filter.states.iter().any(|s| s.is_final());
        let (mut merged, forgotten) = {
            let (mut core, now) = self.inner.lock()?;
            self.inner.settle_due(&mut core, now)?;
            let wanted = |r: &&Arc<CallRecord>| filter.states.is_empty() || filter.states.contains(&r.state_at(now));
            let fresh = core.calls.values().filter(wanted).filter(|r| !core.forgotten.has_call(r));
            let fresh = fresh.map(|r| view(r, now)).filter(|r| matches(&filter, r));
            (fresh.map(|r| (r.id, r)).collect::<BTreeMap<_, _>>(), core.forgotten)
        };
        let (index, reader, limit) = (Arc::clone(&self.inner.index), self.inner.journal.reader(), filter.limit);
        let scan = move || if only_open { Ok(Vec::new()) } else { concluded(&index, &reader, forgotten, &filter) };
        let old = tokio::task::spawn_blocking(scan).await;
        for record in old.map_err(|e| Fault::caused("listing calls", e))?? {
            merged.entry(record.id).or_insert(record);
        }
        let listed: Vec<_> = merged.into_values().rev().take(limit).collect();
        self.inner.durable(listed.iter().map(|r| r.seq).max().unwrap_or(0)).await?;
        Ok(listed)
    }

    /// Waiting holds whose id ends with `text` or whose short code it is, for commands typed by people.
    ///
    /// # Errors
    /// When a step panicked.
    pub fn find_by_suffix_or_code(&self, text: &str) -> Result<Vec<CallId>, Fault> {
        let (core, now) = self.inner.lock()?;
        let wanted = told_code(text);
        let fits = |r: &&Arc<CallRecord>| {
            matches!(r.state_at(now), State::Held | State::Approved)
                && (told_code(&r.id.to_string()).ends_with(&wanted) || told_code(&short_code(&r.digest)) == wanted)
        };
        let mut found: Vec<CallId> = core.calls.values().filter(fits).map(|r| r.id).collect();
        found.sort_unstable();
        Ok(if wanted.is_empty() { Vec::new() } else { found })
    }

    /// Waits for changes of a call: state and version, sent once they are durable; closed after a final
    /// state. The value at the start is a hint only: read with [`Store::get`] after subscribing. `None`
    /// when there is no such call.
    ///
    /// # Errors
    /// When the store cannot read.
    pub fn watch(&self, id: CallId) -> Result<Option<watch::Receiver<(State, u64)>>, Fault> {
        let (core, _) = self.inner.lock()?;
        let record = core.record(id).map_err(Unavailable::from)?;
        Ok(record.map(|r| self.inner.watchers.watch(id, (r.state, r.version))))
    }

    /// The full argument object.
    ///
    /// # Errors
    /// When it is gone or cannot be read.
    pub async fn arguments(&self, record: &CallRecord) -> Result<Value, Fault> {
        let Some(payload) = record.request.arguments else { return Ok((*record.arguments).clone()) };
        let bytes = self.inner.payload(payload).await?;
        serde_json::from_slice(&bytes).map_err(|e| Fault::caused("stored arguments are no JSON", e))
    }

    /// The exact request body.
    ///
    /// # Errors
    /// When it is gone or cannot be read.
    pub async fn request_body(&self, record: &CallRecord) -> Result<Bytes, Fault> {
        let payload = record.request.body.ok_or_else(|| Fault::new("a record without a request body"))?;
        self.inner.payload(payload).await
    }

    /// The states before and after that were found out of its target; none where there are none.
    ///
    /// # Errors
    /// When they are gone or cannot be read.
    pub async fn states(&self, record: &CallRecord) -> Result<States, Fault> {
        let Some(payload) = record.preview.as_ref().and_then(|p| p.states) else { return Ok(States::default()) };
        let bytes = self.inner.payload(payload).await?;
        serde_json::from_slice(&bytes).map_err(|e| Fault::caused("stored states are no JSON", e))
    }

    /// The stored answer's body; `None` when there is no answer or its body was not kept.
    ///
    /// # Errors
    /// When it is gone or cannot be read.
    pub async fn answer_body(&self, record: &CallRecord) -> Result<Option<Bytes>, Fault> {
        match record.answer.as_ref().and_then(|a| a.body) {
            Some(payload) => self.inner.payload(payload).await.map(Some),
            None => Ok(None),
        }
    }

    /// An artifact and its content.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn artifact(&self, id: ArtifactId) -> Result<Option<(Artifact, Bytes)>, Fault> {
        let found = {
            let (core, _) = self.inner.lock()?;
            core.artifact(id).map_err(Unavailable::from)?
        };
        let Some(artifact) = found else { return Ok(None) };
        self.inner.durable(artifact.evidence.content.seq).await?;
        let content = self.inner.payload(artifact.evidence.content).await?;
        Ok(Some((Arc::unwrap_or_clone(artifact), content)))
    }

    /// How much of each ledger is used and set aside, in the order asked.
    ///
    /// # Errors
    /// When a step panicked.
    pub fn balances(&self, ledgers: &[LedgerKey]) -> Result<Vec<Balance>, Fault> {
        let (core, _) = self.inner.lock()?;
        Ok(ledgers.iter().map(|l| core.ledgers.balance(l)).collect())
    }

    /// Every ledger of which something is used or set aside; those of grants are not among them. Durable.
    ///
    /// # Errors
    /// When a step panicked.
    pub async fn ledgers(&self) -> Result<Vec<(LedgerKey, Balance)>, Fault> {
        let (all, seq) = {
            let (core, _) = self.inner.lock()?;
            let all: Vec<_> = core.ledgers.all().filter(|(key, _)| !is_grants(key)).collect();
            (all, core.newest)
        };
        self.inner.durable(seq).await?;
        Ok(all)
    }

    /// What an agent did of late, before the call that asks.
    ///
    /// # Errors
    /// When the store cannot read.
    pub fn history(&self, q: &HistoryQuestion<'_>) -> Result<History, Fault> {
        let (core, now) = self.inner.lock()?;
        let mut history = core.tally.history(q, now);
        if let Some(target) = &q.target {
            let target = keys::target(&q.principal.org, q.operation, target);
            history.first_time_target = !core.has_seen(&target).map_err(Unavailable::from)?;
        }
        Ok(history)
    }

    /// Runs in which a call with effects took a step since then, each with whose it is and when that was.
    ///
    /// # Errors
    /// When a step panicked.
    pub fn runs(&self, since: Timestamp) -> Result<Vec<(PrincipalKey, String, Timestamp)>, Fault> {
        let (core, _) = self.inner.lock()?;
        Ok(core.tally.runs(since))
    }

    /// Open calls by the state that holds now, and tier.
    ///
    /// # Errors
    /// When a step panicked.
    pub fn open_calls(&self) -> Result<Vec<Counts>, Fault> {
        let (core, now) = self.inner.lock()?;
        let mut counts: BTreeMap<(&str, _), Counts> = BTreeMap::new();
        for record in core.calls.values().filter(|r| !r.state.is_final()) {
            let (state, tier) = (record.state_at(now), record.tier);
            counts.entry((state.as_str(), tier)).or_insert(Counts { state, tier, calls: 0 }).calls += 1;
        }
        Ok(counts.into_values().collect())
    }
}
