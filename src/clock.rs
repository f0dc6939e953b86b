//! Time, injected: the machine's clock, or one that tests set by hand.

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::call::Timestamp;

/// Wall time for records and monotonic time for waiting.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Wall time, for what people read and what outlives the process.
    fn now(&self) -> Timestamp;
    /// Monotonic time, for limits and deadlines inside one process.
    fn instant(&self) -> Instant;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// A clock that stands still until it is told to move.
#[derive(Debug)]
pub struct ManualClock {
    origin: Instant,
    state: Mutex<(Timestamp, Duration)>,
}

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "an origin to count from; its value is never shown")]
    pub fn at(now: Timestamp) -> Self {
        Self { origin: Instant::now(), state: Mutex::new((now, Duration::ZERO)) }
    }

    /// Moves both times forward.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *state = (state.0.plus(by), state.1 + by);
    }

    /// Sets the wall time alone, as an operator or NTP may do.
    pub fn set_wall(&self, now: Timestamp) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.0 = now;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).0
    }

    fn instant(&self) -> Instant {
        self.origin + self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1
    }
}
