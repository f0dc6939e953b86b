//! What happens by itself, once a second: approved calls that wait are tried again, ends are written down, limits are
//! tidied. Nothing here decides; expiry holds whether or not this runs.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::call::{CallId, Fault};
use crate::gates::breaker::State;
use crate::store::{Filter, Keep, Shortened, State as CallState};

use super::Shared;

const SHORTEN_EVERY: u64 = 3600;
const SHORTEN_FIRST: u64 = 30;

async fn shorten(shared: Shared) {
    let keep = shared.snapshots.current().config.state.keep;
    match shared.store.shorten(Keep { calls: keep.calls, artifacts: keep.artifacts, audit: keep.audit }).await {
        Ok(done) if done == Shortened::default() => {}
        Ok(done) => tracing::info!(?done, "what was older than `state.keep` says is gone"),
        Err(fault) => {
            tracing::error!(fault = %fault.chain(), "old records could not be removed; it is tried again in an hour")
        }
    }
}

pub(super) async fn run(shared: Shared, resume: mpsc::UnboundedSender<CallId>, mut stop: watch::Receiver<bool>) {
    let mut beat = tokio::time::interval(Duration::from_secs(1));
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut beats: u64 = 0;
    loop {
        tokio::select! {
            _ = beat.tick() => {}
            changed = stop.changed() => if changed.is_err() || *stop.borrow() { return },
        }
        beats += 1;
        if let Err(fault) = once(&shared, &resume, beats).await {
            tracing::warn!(fault = %fault.chain(), "the store could not be tended");
        }
    }
}

async fn once(shared: &Shared, resume: &mpsc::UnboundedSender<CallId>, beats: u64) -> Result<(), Fault> {
    let now = shared.clock.now();
    for id in shared.store.expire_due(now).await? {
        tracing::info!(call.id = %id, "expired: nobody decided, or nothing was sent, in time");
        if let Some(record) = shared.store.get(id).await? {
            shared.metrics.hold_ended(&record.operation, record.tier.as_str(), "expired");
        }
    }
    for (tool, state) in shared.breakers.states() {
        let level = match state {
            State::Closed { .. } => 0,
            State::HalfOpen => 1,
            State::Open { .. } => 2,
        };
        shared.metrics.breaker_state.with_label_values(&[&tool]).set(level);
    }
    let approved = Filter { states: vec![CallState::Approved], limit: 1000, ..Filter::default() };
    for record in shared.store.list(approved).await? {
        // The vote itself has asked for the first try.
        let waited = now.since(record.updated) >= Duration::from_secs(2);
        if record.release_by_proxy && waited && resume.send(record.id).is_err() {
            return Ok(());
        }
    }
    if let Some(count) = shared.strangers.flush(now) {
        shared.store.append(crate::pipeline::counted(count), false).await?;
    }
    // Soon after the start, then once an hour; on a thread of its own, since it reads and writes whole segments.
    if beats % SHORTEN_EVERY == SHORTEN_FIRST {
        crate::tasks::spawn(shorten(shared.clone()));
    }
    if beats.is_multiple_of(60) {
        shared.snapshots.current().rates.tidy();
        shared.runs.tidy(now);
    }
    Ok(())
}
