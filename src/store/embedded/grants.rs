//! Grants in memory, and the steps that give and end them. Each state of a grant is one frame.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use crate::call::{CallId, Fault, GrantId, GrantOver, PrincipalKey, Timestamp};
use crate::failpoint;
use crate::store::{CallRecord, Charge, Grant, GrantEnd, GrantUse, HoldError, Vote, votes};

use super::core::Core;
use super::entry::Entry;
use super::trust::Whose;
use super::{Inner, Store, Unavailable};

/// Past ones are shown for so long; the journal keeps what it says of them.
const SHOWN: Duration = Duration::from_secs(35 * 86_400);

/// All grants that are live, or ended not long ago.
#[derive(Debug, Default)]
pub(super) struct Grants {
    all: HashMap<GrantId, Arc<Grant>>,
    /// The newest frame of any: what must be durable before anybody hears of them.
    seq: u64,
}

impl Grants {
    pub(super) fn put(&mut self, seq: u64, grant: &Arc<Grant>) {
        self.seq = self.seq.max(seq);
        self.all.insert(grant.id, Arc::clone(grant));
    }

    pub(super) fn image(&mut self, now: Timestamp) -> Vec<Arc<Grant>> {
        self.all.retain(|_, g| now < g.ended.as_ref().map_or(g.expires, |end| end.at).plus(SHOWN));
        let mut all: Vec<_> = self.all.values().cloned().collect();
        all.sort_by_key(|g| g.id);
        all
    }

    pub(super) fn restore(image: &[Arc<Grant>]) -> Self {
        Self { all: image.iter().map(|g| (g.id, Arc::clone(g))).collect(), seq: 0 }
    }

    pub(super) fn has(&self, id: &str) -> bool {
        id.parse().is_ok_and(|id: GrantId| self.all.contains_key(&id))
    }

    /// Whether a call that is about to begin may pass by this grant: it is live, for calls of this kind, and who gave it
    /// neither asks for the call nor runs its agent now. What it takes of the grant must be among the charges.
    pub(super) fn lets(&self, id: GrantId, record: &CallRecord, charges: &[Charge], now: Timestamp) -> bool {
        let live = self.all.get(&id).filter(|g| g.over_at(now).is_none() && g.is_about(record) && g.counts(charges));
        live.is_some_and(|g| !votes::is_own_call(record, || g.names()))
    }

    fn live<'g>(
        &'g self,
        now: Timestamp,
        why: impl Fn(&Grant) -> Option<GrantOver> + 'g,
    ) -> impl Iterator<Item = (Arc<Grant>, GrantOver)> + 'g {
        let live = self.all.values().filter(move |g| g.over_at(now).is_none());
        live.filter_map(move |g| Some((Arc::clone(g), why(g)?)))
    }
}

/// The grant from this call that still lets calls pass.
fn granted_from(core: &Core, from: CallId, now: Timestamp) -> Option<GrantId> {
    let same = core.grants.all.values().filter(|g| g.from == from).map(|g| g.used(|key| core.ledgers.balance(key)));
    let mut live = same.filter(|g| g.over_at(now).is_none());
    live.next().map(|g| g.grant.id)
}

impl Inner {
    fn put_grant(&self, core: &mut Core, grant: Arc<Grant>, now: Timestamp) -> Result<u64, Unavailable> {
        self.commit(core, now, Vec::new(), |_| Entry::Grant { grant })
    }

    /// Ends live grants for which `why` gives a reason.
    fn end(
        &self,
        core: &mut Core,
        now: Timestamp,
        by: Option<&str>,
        why: impl Fn(&Grant) -> Option<GrantOver>,
    ) -> Result<Vec<Arc<Grant>>, Unavailable> {
        let mut over: Vec<_> = core.grants.live(now, why).collect();
        over.sort_by_key(|(grant, _)| grant.id);
        let mut ended = Vec::new();
        for (grant, why) in over {
            let end = GrantEnd { at: now, why, by: by.map(str::to_owned) };
            let grant = Arc::new(Grant { ended: Some(end), ..(*grant).clone() });
            self.put_grant(core, Arc::clone(&grant), now)?;
            tracing::info!(grant.id = %grant.id, why = why.as_str(), "a grant has ended");
            ended.push(grant);
        }
        Ok(ended)
    }

    /// People have taken back or refused a call: what was granted for calls like it is over. Written before the step
    /// that does so, under the same lock.
    pub(super) fn end_alike(
        &self,
        core: &mut Core,
        record: &CallRecord,
        why: GrantOver,
        now: Timestamp,
    ) -> Result<(), Unavailable> {
        self.end(core, now, None, |grant| grant.is_about(record).then_some(why)).map(drop)
    }

    /// The same for calls of this caller, operation and workflow.
    pub(super) fn end_for(
        &self,
        core: &mut Core,
        (principal, operation, workflow): (&PrincipalKey, &str, &str),
        why: GrantOver,
        now: Timestamp,
    ) -> Result<(), Unavailable> {
        let about = |g: &Grant| g.principal == *principal && g.operation == operation && g.workflow == workflow;
        self.end(core, now, None, |grant| about(grant).then_some(why)).map(drop)
    }

    /// Policy refused a call that nobody can release: what was granted to that agent for calls like it is over.
    pub(super) fn end_missed(
        &self,
        core: &mut Core,
        (org, agent, workflow, operation): &Whose,
        now: Timestamp,
    ) -> Result<(), Unavailable> {
        let about = |g: &Grant| {
            g.principal.0 == *org && g.principal.1 == *agent && g.operation == *operation && g.workflow == *workflow
        };
        self.end(core, now, None, |grant| about(grant).then_some(GrantOver::NearMiss)).map(drop)
    }

    /// The votes on a call are void: so is what was granted with them, or it would be given once more with the next ones.
    /// Written before the step that does so, under the same lock.
    pub(super) fn end_from(&self, core: &mut Core, from: CallId, now: Timestamp) -> Result<(), Unavailable> {
        self.end(core, now, None, |grant| (grant.from == from).then_some(GrantOver::Voided)).map(drop)
    }

    /// Writes a new grant, if the call that it comes from is approved.
    fn give(&self, core: &mut Core, grant: Grant, now: Timestamp) -> Result<(u64, Arc<Grant>), HoldError> {
        let record = core.record(grant.from).map_err(Unavailable::from)?.ok_or(HoldError::NotFound)?;
        grant.check_origin(&record, now)?;
        let lasts = grant.expires.since(grant.created);
        let grant = Arc::new(Grant { created: now, expires: now.plus(lasts), ended: None, ..grant });
        Ok((self.put_grant(core, Arc::clone(&grant), now)?, grant))
    }

    fn give_now(&self, grant: Grant) -> Result<(u64, Arc<Grant>), HoldError> {
        let (mut core, now) = self.lock_healthy()?;
        let record = core.record(grant.from).map_err(Unavailable::from)?.ok_or(HoldError::NotFound)?;
        grant.check_origin(&record, now)?;
        // Asked twice, it would be twice what one grant is bounded by.
        if let Some(live) = granted_from(&core, grant.from, now) {
            return Err(HoldError::AlreadyGranted(live));
        }
        self.give(&mut core, grant, now)
    }

    fn vote_giving(&self, vote: &Vote, grant: Grant) -> Result<(u64, CallRecord, Arc<Grant>), HoldError> {
        let (mut core, now) = self.lock_healthy()?;
        let (seq, voted) = self.step_on_hold(&mut core, now, vote.id, Vec::new(), |_, record, now| {
            let (approval, last) = votes::count(record, vote, now)?;
            // What is not approved by all who must, is not granted by one of them.
            if last { Ok(Some(super::Event::Vote { approval, last })) } else { Err(HoldError::NotApproved) }
        })?;
        let record = voted?;
        let (granted, grant) = self.give(&mut core, grant, now)?;
        Ok((seq.max(granted), Arc::unwrap_or_clone(record), grant))
    }
}

impl Store {
    /// Gives a grant for calls like one that people have approved. Its time begins now. Durable when it returns.
    ///
    /// # Errors
    /// `NotApproved`, `AlreadyGranted` while another grant from that call lets calls pass, or `SelfReview` for who asked
    /// for that call or runs its agent.
    pub async fn give_grant(&self, grant: Grant) -> Result<Arc<Grant>, HoldError> {
        let (seq, grant) = self.inner.give_now(grant)?;
        self.inner.durable(seq).await?;
        Ok(grant)
    }

    /// Counts the last vote on a hold and gives a grant for calls like it: both, or neither where nothing fails in
    /// between; a vote alone at worst. Durable when it returns.
    ///
    /// # Errors
    /// As [`Store::vote`]; `NotApproved` when other votes are still needed.
    pub async fn vote_and_grant(&self, vote: Vote, grant: Grant) -> Result<(CallRecord, Arc<Grant>), HoldError> {
        failpoint::hit("vote.before");
        let (seq, record, grant) = self.inner.vote_giving(&vote, grant)?;
        self.inner.durable(seq).await?;
        Ok((record, grant))
    }

    /// Ends live grants for which `why` gives a reason. Durable when it returns.
    ///
    /// # Errors
    /// When nothing can be recorded.
    pub async fn end_grants(
        &self,
        by: Option<&str>,
        why: impl Fn(&Grant) -> Option<GrantOver>,
    ) -> Result<Vec<Arc<Grant>>, Fault> {
        let (seq, ended) = {
            let (mut core, now) = self.inner.lock_healthy()?;
            let ended = self.inner.end(&mut core, now, by, why)?;
            (core.grants.seq, ended)
        };
        if !ended.is_empty() {
            self.inner.durable(seq).await?;
        }
        Ok(ended)
    }

    /// Live grants of this caller for this operation in this workflow, oldest first. For the path alone, which tells
    /// nobody of them before a step of its own is durable.
    ///
    /// # Errors
    /// When a step panicked.
    pub fn live_grants(&self, of: &PrincipalKey, operation: &str, workflow: &str) -> Result<Vec<GrantUse>, Fault> {
        let (core, now) = self.inner.lock()?;
        let wanted = |g: &Grant| g.principal == *of && g.operation == operation && g.workflow == workflow;
        let live = core.grants.live(now, |g| wanted(g).then_some(GrantOver::Expired));
        let mut live: Vec<_> = live.map(|(g, _)| g.used(|key| core.ledgers.balance(key))).collect();
        live.retain(|g| g.over_at(now).is_none());
        live.sort_by_key(|g| g.grant.id);
        Ok(live)
    }

    /// All grants, newest first, with what each has let pass; ended ones for 35 days.
    ///
    /// # Errors
    /// When nothing can be read.
    pub async fn grants(&self) -> Result<Vec<GrantUse>, Fault> {
        let (seq, mut all) = {
            let (core, _) = self.inner.lock()?;
            let all: Vec<_> = core.grants.all.values().map(|g| g.used(|key| core.ledgers.balance(key))).collect();
            (core.grants.seq, all)
        };
        self.inner.durable(seq).await?;
        all.sort_by_key(|g| std::cmp::Reverse(g.grant.id));
        Ok(all)
    }
}
