//! What happens by itself, once a second: approved calls that wait are tried again, ends are written down, limits are
//! tidied. Nothing here decides; expiry holds whether or not this runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::call::{CallId, Fault, PauseScope, Timestamp};
use crate::failpoint;
use crate::gates::breaker::State;
use crate::store::{CallRecord, Filter, Keep, Shortened, State as CallState};

use super::Shared;
use super::inquiries::Inquiries;

const BEAT: Duration = Duration::from_secs(1);
/// Beats between signed checkpoints, while there is anything new.
const SIGN_EVERY: u64 = 10;
const SHORTEN_EVERY: u64 = 3600;
const SHORTEN_FIRST: u64 = 30;
/// Beats between looks at the files.
const LOOK_EVERY: u64 = 5;

/// How often things are done; only crash tests have another one.
#[derive(Debug, Clone, Copy)]
struct Pace {
    beat: Duration,
    sign: u64,
    shorten: u64,
}

impl Pace {
    fn new() -> Self {
        let every = |name: &str, usual: u64| failpoint::setting(name).unwrap_or(usual).max(1);
        Self {
            beat: failpoint::setting("HOLDPOINT_BEAT_MS").map_or(BEAT, Duration::from_millis),
            sign: every("HOLDPOINT_SIGN_BEATS", SIGN_EVERY),
            shorten: every("HOLDPOINT_SHORTEN_BEATS", SHORTEN_EVERY),
        }
    }
}

async fn sign(shared: Shared) {
    if let Err(fault) = shared.store.checkpoint().await {
        tracing::error!(fault = %fault.chain(), "no checkpoint could be signed; what is recorded now is not protected by one");
    }
}

async fn shorten(shared: Shared) {
    let state = shared.snapshots.current().config.state.keep;
    let keep = Keep { calls: state.calls, artifacts: state.artifacts, audit: state.audit };
    let short = |age: u64| Duration::from_millis(age);
    let keep = failpoint::setting("HOLDPOINT_KEEP_MS").map_or(keep, |age| Keep {
        calls: short(age),
        artifacts: short(age),
        audit: short(age * 3),
    });
    match shared.store.shorten(keep).await {
        Ok(done) if done == Shortened::default() => {}
        Ok(done) => tracing::info!(?done, "what was older than `state.keep` says is gone"),
        Err(fault) => {
            tracing::error!(fault = %fault.chain(), "old records could not be removed; it is tried again in an hour")
        }
    }
}

pub(super) async fn run(shared: Shared, resume: mpsc::UnboundedSender<CallId>, mut stop: watch::Receiver<bool>) {
    let pace = Pace::new();
    let mut beat = tokio::time::interval(pace.beat);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut beats: u64 = 0;
    let mut inquiries = Inquiries::default();
    loop {
        tokio::select! {
            _ = beat.tick() => {}
            changed = stop.changed() => if changed.is_err() || *stop.borrow() { return },
        }
        beats += 1;
        if beats.is_multiple_of(LOOK_EVERY) && shared.files_changed().await {
            // What is wrong was logged, counted and recorded; the old version stays in force.
            let reloaded = super::reload::reload(&shared, None).await.is_ok();
            tracing::debug!(reloaded, "files changed");
        }
        if let Err(fault) = once(&shared, &resume, &mut inquiries, (pace, beats)).await {
            tracing::warn!(fault = %fault.chain(), "the store could not be tended");
        }
    }
}

/// Unknown calls whose operation has a read are asked for, a few at a time. A breaker that is open leaves them for later.
async fn inquire(
    shared: &Shared,
    resume: &mpsc::UnboundedSender<CallId>,
    inquiries: &mut Inquiries,
    now: Timestamp,
) -> Result<(), Fault> {
    let unknown = Filter { states: vec![CallState::Unknown], limit: 10_000, ..Filter::default() };
    let unknown = shared.store.list(unknown).await?;
    let s = shared.snapshots.current();
    let mut failing = shared.breakers.states();
    failing.retain(|(_, state)| !matches!(state, State::Closed { .. }));
    let readable = |r: &&CallRecord| {
        s.operation(&r.operation).is_some_and(|o| o.reconcile.read.is_some())
            && failing.iter().all(|(tool, _)| *tool != r.tool)
    };
    for id in inquiries.due(unknown.iter().filter(readable), now) {
        if resume.send(id).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Holds that nobody decides are brought before those whom `reviews.escalate` names.
async fn escalate(shared: &Shared) -> Result<(), Fault> {
    let ladder = &shared.snapshots.current().config.reviews.escalate;
    for record in shared.store.escalate_due(ladder).await? {
        let to = record.handling.as_ref().and_then(|h| h.escalations.last()).map_or("", |e| e.to.as_str());
        tracing::warn!(call.id = %record.id, to, "a hold waits longer than it should");
    }
    Ok(())
}

/// How far agents are trusted, and what surprised people since the last beat.
fn trust(shared: &Shared) -> Result<(), Fault> {
    let s = shared.snapshots.current();
    let identity = &s.config.identity;
    let certificates = identity.mtls.iter().flat_map(|m| m.agents.values()).flat_map(|a| &a.groups);
    let known: BTreeSet<&String> = identity.keys.iter().flat_map(|k| &k.groups).chain(certificates).collect();
    let mut lowest: BTreeMap<(String, String), i64> = BTreeMap::new();
    for ((group, workflow), score) in shared.store.lowest_trust()? {
        let group = group.filter(|g| known.contains(g)).unwrap_or_else(|| "_other".to_owned());
        let least = lowest.entry((group, workflow)).or_insert(score);
        *least = score.min(*least);
    }
    shared.metrics.trust.reset();
    for ((group, workflow), score) in lowest {
        shared.metrics.trust.with_label_values(&[&group, &workflow]).set(score);
    }
    for (workflow, kind) in shared.store.take_surprises()? {
        tracing::info!(workflow, kind = kind.as_str(), "a surprise");
        shared.metrics.surprises.with_label_values(&[workflow.as_str(), kind.as_str()]).inc();
    }
    Ok(())
}

async fn once(
    shared: &Shared,
    resume: &mpsc::UnboundedSender<CallId>,
    inquiries: &mut Inquiries,
    (pace, beats): (Pace, u64),
) -> Result<(), Fault> {
    let now = shared.clock.now();
    shared.store.expire_due(now).await?;
    for id in shared.store.take_expired() {
        tracing::info!(call.id = %id, "expired: nobody decided, or nothing was sent, in time");
        if let Ok(Some(record)) = shared.store.get(id).await {
            shared.metrics.hold_ended(&record.operation, record.tier.as_str(), "expired");
        }
    }
    escalate(shared).await?;
    for record in shared.store.warn_due().await? {
        tracing::info!(call.id = %record.id, "a hold's time is nearly over");
    }
    for (tool, state) in shared.breakers.states() {
        let level = match state {
            State::Closed { .. } => 0,
            State::HalfOpen => 1,
            State::Open { .. } => 2,
        };
        shared.metrics.breaker_state.with_label_values(&[&tool]).set(level);
    }
    trust(shared)?;
    for kind in PauseScope::KINDS {
        let on = shared.store.pauses().iter().filter(|p| p.scope.kind() == kind).count();
        shared.metrics.pauses.with_label_values(&[kind]).set(i64::try_from(on).unwrap_or(i64::MAX));
    }
    shared.metrics.paused_tools.reset();
    for drift in shared.pins.all() {
        shared.metrics.paused_tools.with_label_values(&[&drift.tool]).inc();
    }
    let approved = Filter { states: vec![CallState::Approved], limit: 1000, ..Filter::default() };
    for record in shared.store.list(approved).await? {
        // The vote itself has asked for the first try.
        let waited = now.since(record.updated) >= Duration::from_secs(2);
        let due = record.not_before.is_none_or(|at| now >= at);
        if record.release_by_proxy && record.halted.is_none() && waited && due && resume.send(record.id).is_err() {
            return Ok(());
        }
    }
    inquire(shared, resume, inquiries, now).await?;
    if let Some(count) = shared.strangers.flush(now) {
        shared.store.append(crate::pipeline::counted(count), false).await?;
    }
    // Soon after the start, then once an hour; on a thread of its own, since it reads and writes whole segments.
    if beats % pace.shorten == SHORTEN_FIRST % pace.shorten {
        crate::tasks::spawn(shorten(shared.clone()));
    }
    if beats.is_multiple_of(pace.sign) {
        crate::tasks::spawn(sign(shared.clone()));
    }
    if beats.is_multiple_of(60) {
        shared.snapshots.current().rates.tidy();
        shared.runs.tidy(now);
    }
    Ok(())
}
