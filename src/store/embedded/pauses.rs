//! The kill switch: what is stopped, and the steps that stop it and let it go on.
//!
//! Whether a waiting call's clock stands still is written into its record. [`Inner::align`] makes all of them agree with
//! the pauses: in the step that changes those, and after a crash in the middle of one.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::call::{Fault, PauseScope, Stopped, Timestamp};
use crate::failpoint;
use crate::store::state::Event;
use crate::store::{CallRecord, Pause, PauseDone, State};

use super::core::Core;
use super::entry::Entry;
use super::{Inner, Refused, Store, Unavailable};

/// All that are on, the oldest first. Read without the lock by every call.
#[derive(Debug, Clone)]
pub(super) struct Pauses {
    all: Arc<ArcSwap<Vec<Pause>>>,
    /// Tells whenever they change.
    changed: watch::Sender<()>,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { all: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl Pauses {
    pub(super) fn put(&self, pause: &Pause) {
        let mut all = self.image();
        all.retain(|p| p.scope != pause.scope);
        all.push(pause.clone());
        self.set(all);
    }

    pub(super) fn lift(&self, scope: &PauseScope) {
        let mut all = self.image();
        all.retain(|p| p.scope != *scope);
        self.set(all);
    }

    fn set(&self, all: Vec<Pause>) {
        self.all.store(Arc::new(all));
        self.changed.send_replace(());
    }

    pub(super) fn image(&self) -> Vec<Pause> {
        self.all.load().as_ref().clone()
    }

    pub(super) fn restore(&self, image: &[Pause]) {
        self.set(image.to_vec());
    }

    fn of(&self, scope: &PauseScope) -> Option<Pause> {
        self.all.load().iter().find(|p| p.scope == *scope).cloned()
    }

    /// The one that stops this call: the widest, so that who hears of it knows when it can go on at the earliest.
    pub(super) fn stopping(&self, call: Stopped<'_>) -> Option<Pause> {
        let all = self.all.load();
        if all.is_empty() {
            return None;
        }
        all.iter().filter(|p| p.scope.stops(call)).min_by_key(|p| &p.scope).cloned()
    }

    /// What must be written of a waiting call so that its clock agrees with the pauses; `found` after a crash, when it may
    /// have stood still since the pause began.
    fn due(&self, record: &CallRecord, now: Timestamp, found: bool) -> Option<Event> {
        if !matches!(record.state, State::Held | State::Approved) {
            return None;
        }
        match (self.stopping(record.stopped()), record.halted) {
            (Some(pause), None) if found => Some(Event::Halt(pause.since.max(record.updated))),
            (Some(_), None) => Some(Event::Halt(now)),
            (None, Some(_)) => Some(Event::Continue),
            _ => None,
        }
    }
}

/// Calls whose clock a step has stopped or let go on, and the last frame of those.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Aligned {
    calls: usize,
    seq: u64,
}

impl Inner {
    /// Makes the clocks of all waiting calls agree with the pauses, and says of how many.
    pub(super) fn align(&self, core: &mut Core, now: Timestamp, found: bool) -> Result<Aligned, Unavailable> {
        let due = |r: &Arc<CallRecord>| Some((Arc::clone(r), core.pauses.due(r, now, found)?));
        let mut all: Vec<_> = core.calls.values().filter_map(due).collect();
        all.sort_by_key(|(record, _)| record.id);
        let mut done = Aligned::default();
        for (record, event) in all {
            match self.step(core, &record, event, now, Vec::new()) {
                Ok(next) => done = Aligned { calls: done.calls + 1, seq: next.seq },
                // Its time was over before.
                Err(Refused::Illegal(_)) => {}
                Err(Refused::Unavailable) => return Err(Unavailable),
            }
        }
        Ok(done)
    }

    fn pause(&self, wanted: Pause) -> Result<(u64, PauseDone), Unavailable> {
        let (mut core, now) = self.lock_healthy()?;
        let in_flight = flying(&core, &wanted.scope);
        if let Some(pause) = core.pauses.of(&wanted.scope) {
            // Whoever threw it first may have been stopped in the middle.
            let aligned = self.align(&mut core, now, false)?;
            let seq = core.paused_at.max(aligned.seq);
            return Ok((seq, PauseDone { pause, changed: false, waiting: aligned.calls, in_flight }));
        }
        let pause = Pause { since: now, ..wanted };
        let seq = self.commit(&mut core, now, Vec::new(), |_| Entry::Paused { pause: pause.clone() })?;
        failpoint::hit("paused.queued");
        let Aligned { calls: waiting, seq: last } = self.align(&mut core, now, false)?;
        Ok((seq.max(last), PauseDone { pause, changed: true, waiting, in_flight }))
    }

    fn lift(&self, scope: &PauseScope, reason: String, by: String) -> Result<(u64, Option<PauseDone>), Unavailable> {
        let (mut core, now) = self.lock_healthy()?;
        let Some(pause) = core.pauses.of(scope) else { return Ok((core.paused_at, None)) };
        let scope = scope.clone();
        let seq = self.commit(&mut core, now, Vec::new(), |_| Entry::Resumed { scope, reason, by })?;
        failpoint::hit("resumed.queued");
        let Aligned { calls: waiting, seq: last } = self.align(&mut core, now, false)?;
        let in_flight = flying(&core, &pause.scope);
        Ok((seq.max(last), Some(PauseDone { pause, changed: true, waiting, in_flight })))
    }
}

fn flying(core: &Core, scope: &PauseScope) -> usize {
    let open = core.calls.values().filter(|r| r.state == State::Dispatching);
    open.filter(|r| scope.stops(r.stopped())).count()
}

impl Store {
    /// Stops what is in this scope: none of its calls begins any more, and the clocks of those that wait stand still. In
    /// force at once, durable when it returns. The same scope is stopped once: whoever comes later hears of the first.
    ///
    /// # Errors
    /// When it cannot be recorded: then it is in force until this process ends.
    pub async fn pause(&self, scope: PauseScope, reason: String, by: String) -> Result<PauseDone, Fault> {
        failpoint::hit("pause.before");
        let pause = Pause { scope, reason, by, since: self.inner.clock.now() };
        let thrown = self.inner.pause(pause.clone());
        // Whatever the disk says, nothing more is sent.
        let (seq, done) = thrown.inspect_err(|_| self.inner.pauses.put(&pause))?;
        self.inner.durable(seq).await?;
        Ok(failpoint::after("pause.durable", done))
    }

    /// Lets what is in this scope go on, as far as nothing else stops it. Durable when it returns; `None` when nothing of
    /// this scope was stopped.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub async fn lift(&self, scope: &PauseScope, reason: String, by: String) -> Result<Option<PauseDone>, Fault> {
        failpoint::hit("lift.before");
        let (seq, done) = self.inner.lift(scope, reason, by)?;
        self.inner.durable(seq).await?;
        Ok(failpoint::after("lift.durable", done))
    }

    /// Tells whenever something is stopped or goes on.
    #[must_use]
    pub fn follow_pauses(&self) -> watch::Receiver<()> {
        self.inner.pauses.changed.subscribe()
    }

    /// Whether a call of this agent left a trace here.
    ///
    /// # Errors
    /// When a step panicked.
    pub fn has_seen_agent(&self, agent: &str) -> Result<bool, Fault> {
        let (core, _) = self.inner.lock()?;
        Ok(core.tally.knows(agent)
            || core.trusts.knows(agent)
            || core.calls.values().any(|r| r.principal.agent == agent))
    }

    /// All that is stopped, the oldest first.
    #[must_use]
    pub fn pauses(&self) -> Vec<Pause> {
        self.inner.pauses.image()
    }

    /// What stops this call. Asked without the lock: `begin` and `park` ask once more under it.
    #[must_use]
    pub fn stopping(&self, call: Stopped<'_>) -> Option<Pause> {
        self.inner.pauses.stopping(call)
    }
}
