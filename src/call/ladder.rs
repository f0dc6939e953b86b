//! Who is told, and when, of a hold that nobody decides (`reviews.escalate`).

use std::time::Duration;

/// The rungs, as configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ladder {
    /// In the order in which they are written.
    pub rungs: Vec<Rung>,
}

/// One rung.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rung {
    /// How long after the hold's clocks began.
    pub after: After,
    /// The same as written: `1x`, `20m`.
    pub text: String,
    /// Who is told: a name that receivers of `hold.escalated` and reviewers know.
    pub to: String,
}

/// A time, or so many times the hold's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Thousandths of the hold's `sla`.
    Sla(u32),
    /// A time.
    Time(Duration),
}

impl After {
    /// How long that is for a hold with this `sla`.
    #[must_use]
    pub fn from(self, sla: Duration) -> Duration {
        match self {
            Self::Sla(thousandths) => sla.saturating_mul(thousandths) / 1000,
            Self::Time(time) => time,
        }
    }
}
