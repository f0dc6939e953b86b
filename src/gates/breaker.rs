//! A breaker per tool. Closed: calls flow. Open: the tool is failing, nothing is sent. Half-open: one probe.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::call::{Call, Code, Refusal};
use crate::clock::Clock;
use crate::config::BreakerRule;

/// Whether calls flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Calls flow; failures in a row are counted.
    Closed {
        /// Failures in a row.
        failures: u32,
        /// The first of them.
        since: Option<Instant>,
    },
    /// Nothing is sent before `until`.
    Open {
        /// When one probe may go.
        until: Instant,
    },
    /// One probe is under way.
    HalfOpen,
}

/// What a breaker says to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Go.
    Flow,
    /// Go, as the one probe.
    Probe,
    /// Not before this much time has passed.
    Refused(Duration),
}

/// The state machine of one breaker, without a clock of its own.
#[derive(Debug, Clone, Copy)]
pub struct BreakerState {
    rule: BreakerRule,
    state: State,
}

impl BreakerState {
    /// Closed.
    #[must_use]
    pub const fn new(rule: BreakerRule) -> Self {
        Self { rule, state: State::Closed { failures: 0, since: None } }
    }

    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// A call asks to go.
    pub fn on_acquire(&mut self, now: Instant) -> Admission {
        match self.state {
            State::Closed { .. } => Admission::Flow,
            State::Open { until } if now >= until => {
                self.state = State::HalfOpen;
                Admission::Probe
            }
            State::Open { until } => Admission::Refused(until.saturating_duration_since(now)),
            State::HalfOpen => Admission::Refused(Duration::from_secs(1)),
        }
    }

    /// A call that went has ended; `probe` is the one that was let through half-open.
    pub fn on_result(&mut self, ok: bool, probe: bool, now: Instant) {
        self.state = match (self.state, ok) {
            (State::HalfOpen, true) if probe => State::Closed { failures: 0, since: None },
            (State::HalfOpen, false) if probe => State::Open { until: now + self.rule.retry_after },
            (State::Closed { .. }, true) => State::Closed { failures: 0, since: None },
            (State::Closed { failures, since }, false) => self.count(failures, since, now),
            // Late results of calls that went before it opened change nothing.
            (state, _) => state,
        };
    }

    fn count(&self, failures: u32, since: Option<Instant>, now: Instant) -> State {
        let recent = since.filter(|s| now.saturating_duration_since(*s) <= self.rule.within);
        let failures = if recent.is_some() { failures + 1 } else { 1 };
        if failures >= self.rule.failures {
            return State::Open { until: now + self.rule.retry_after };
        }
        State::Closed { failures, since: recent.or(Some(now)) }
    }

    /// A probe was given back unused.
    fn on_unused(&mut self, now: Instant) {
        if self.state == State::HalfOpen {
            self.state = State::Open { until: now };
        }
    }
}

/// The breaker gate: one for each tool, shared by all cores.
#[derive(Debug)]
pub struct Breakers {
    tools: Mutex<HashMap<String, BreakerState>>,
    clock: Arc<dyn Clock>,
}

impl Breakers {
    /// All closed.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { tools: Mutex::new(HashMap::new()), clock }
    }

    /// Takes over today's rules; a breaker whose rule stays keeps its state.
    pub fn configure(&self, rules: impl IntoIterator<Item = (String, BreakerRule)>) {
        let mut tools = self.lock();
        let old = std::mem::take(&mut *tools);
        for (name, rule) in rules {
            let mut breaker = old.get(&name).copied().unwrap_or(BreakerState::new(rule));
            breaker.rule = rule;
            tools.insert(name, breaker);
        }
    }

    /// Asks to send a call of this tool.
    ///
    /// # Errors
    /// `breaker_open` with the time of the next probe.
    pub fn acquire(self: &Arc<Self>, call: &Call) -> Result<Probe, Refusal> {
        let tool = &call.operation().tool.name;
        let now = self.clock.instant();
        let admission = self.lock().get_mut(tool).map_or(Admission::Flow, |b| b.on_acquire(now));
        match admission {
            Admission::Flow => Ok(Probe::new(self, tool, false)),
            Admission::Probe => Ok(Probe::new(self, tool, true)),
            Admission::Refused(wait) => {
                let text = format!("the tool `{tool}` keeps failing; one call will be tried again soon");
                Err(Refusal::new(Code::BreakerOpen, text).with_retry_after(wait))
            }
        }
    }

    /// Whether nothing flows to this tool.
    #[must_use]
    pub fn is_failing(&self, tool: &str) -> bool {
        self.lock().get(tool).is_some_and(|b| !matches!(b.state(), State::Closed { .. }))
    }

    /// A person says that the tool works again: calls flow at once.
    pub fn reset(&self, tool: &str) {
        if let Some(b) = self.lock().get_mut(tool) {
            *b = BreakerState::new(b.rule);
        }
    }

    /// Where each breaker stands, by tool.
    #[must_use]
    pub fn states(&self) -> Vec<(String, State)> {
        self.lock().iter().map(|(name, b)| (name.clone(), b.state())).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, BreakerState>> {
        self.tools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to send one call. Reports its end; dropped unused, it gives a probe back.
#[must_use]
#[derive(Debug)]
pub struct Probe {
    breakers: Arc<Breakers>,
    tool: String,
    probe: bool,
    done: bool,
}

impl Probe {
    fn new(breakers: &Arc<Breakers>, tool: &str, probe: bool) -> Self {
        Self { breakers: Arc::clone(breakers), tool: tool.to_owned(), probe, done: false }
    }

    /// The call ended: `ok` says whether the upstream worked, not whether it liked the call.
    pub fn observe(mut self, ok: bool) {
        self.done = true;
        let now = self.breakers.clock.instant();
        if let Some(b) = self.breakers.lock().get_mut(&self.tool) {
            b.on_result(ok, self.probe, now);
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if self.probe && !self.done {
            let now = self.breakers.clock.instant();
            if let Some(b) = self.breakers.lock().get_mut(&self.tool) {
                b.on_unused(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const S: Duration = Duration::from_secs(1);

    fn rule() -> BreakerRule {
        BreakerRule { failures: 3, within: 30 * S, retry_after: 20 * S }
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_probe_closes_it() {
        let clock = ManualClock::at(crate::call::Timestamp::from_millis(0));
        let t = clock.instant();
        let mut b = BreakerState::new(rule());
        for i in 0..3 {
            assert_eq!(b.on_acquire(t + i * S), Admission::Flow);
            b.on_result(false, false, t + i * S);
        }
        assert_eq!(b.on_acquire(t + 3 * S), Admission::Refused(19 * S));
        assert_eq!(b.on_acquire(t + 22 * S), Admission::Probe);
        assert!(matches!(b.on_acquire(t + 22 * S), Admission::Refused(_)));
        b.on_result(true, false, t + 22 * S);
        assert_eq!(b.state(), State::HalfOpen, "a late result of another call is no probe");
        b.on_result(true, true, t + 23 * S);
        assert_eq!(b.on_acquire(t + 23 * S), Admission::Flow);
    }

    #[test]
    fn a_success_between_and_old_failures_do_not_count() {
        let clock = ManualClock::at(crate::call::Timestamp::from_millis(0));
        let t = clock.instant();
        let mut b = BreakerState::new(rule());
        for (at, ok) in [(0, false), (1, false), (2, true), (3, false), (4, false), (60, false), (61, false)] {
            b.on_result(ok, false, t + at * S);
        }
        assert!(matches!(b.state(), State::Closed { failures: 2, .. }));
    }

    #[test]
    fn a_probe_that_was_not_used_is_given_back() {
        let clock = Arc::new(ManualClock::at(crate::call::Timestamp::from_millis(0)));
        let breakers = Arc::new(Breakers::new(Arc::clone(&clock) as Arc<dyn Clock>));
        breakers.configure([("t".to_owned(), BreakerRule { failures: 1, ..rule() })]);
        Probe::new(&breakers, "t", false).observe(false);
        clock.advance(21 * S);
        let now = clock.instant();
        assert_eq!(breakers.lock().get_mut("t").unwrap().on_acquire(now), Admission::Probe);
        drop(Probe::new(&breakers, "t", true));
        assert_eq!(breakers.lock().get_mut("t").unwrap().on_acquire(now), Admission::Probe);
    }
}
