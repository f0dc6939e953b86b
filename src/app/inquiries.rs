//! When to ask the configured read of unknown calls: soon, then with growing pauses, and once quiescence has come.

use std::collections::HashMap;
use std::time::Duration;

use crate::call::{CallId, Timestamp};
use crate::store::CallRecord;

/// The first pause; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(600);
/// Reads that one beat may begin: a backlog of unknown calls is no storm on the upstreams.
const PER_BEAT: usize = 4;

/// What is planned for each unknown call. Kept in memory: after a restart each is asked anew.
#[derive(Debug, Default)]
pub(super) struct Inquiries(HashMap<CallId, Plan>);

#[derive(Debug, Clone, Copy)]
struct Plan {
    pause: Duration,
    next: Timestamp,
}

impl Inquiries {
    /// The calls to ask now, of all that are unknown and have a read.
    pub(super) fn due<'r>(&mut self, unknown: impl IntoIterator<Item = &'r CallRecord>, now: Timestamp) -> Vec<CallId> {
        let old = std::mem::take(&mut self.0);
        let mut due: Vec<(Timestamp, CallId, Option<Timestamp>)> = Vec::new();
        for record in unknown {
            let plan = old.get(&record.id).copied().unwrap_or(Plan { pause: FIRST, next: record.updated });
            self.0.insert(record.id, plan);
            if now >= plan.next {
                due.push((plan.next, record.id, record.quiet_at()));
            }
        }
        // Those that have waited longest go first.
        due.sort_unstable();
        due.truncate(PER_BEAT);
        for (_, id, quiet) in &due {
            if let Some(plan) = self.0.get_mut(id) {
                let pause = now.plus(plan.pause);
                plan.next = quiet.filter(|at| *at > now).map_or(pause, |at| at.min(pause));
                plan.pause = (plan.pause * 2).min(LONGEST);
            }
        }
        due.into_iter().map(|(_, id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::State;
    use crate::store::fixtures::{MINUTE, START, record};

    const S: Duration = Duration::from_secs(1);

    fn unknown() -> CallRecord {
        let mut r = record(State::Unknown, "f", None);
        r.begun = Some(START);
        r.quiet_after = Some(START.plus(MINUTE));
        r
    }

    #[test]
    fn pauses_grow_and_quiescence_cuts_one_short() {
        let (mut plans, r) = (Inquiries::default(), unknown());
        let mut asked = Vec::new();
        for second in 0..200 {
            if !plans.due([&r], START.plus(S * second)).is_empty() {
                asked.push(second);
            }
        }
        assert_eq!(asked, [0, 5, 15, 35, 60, 140]);
        let much_later = START.plus(MINUTE * 60 * 24);
        assert_eq!(plans.due([&r], much_later).len(), 1);
        assert!(plans.due([&r], much_later.plus(S * 300)).is_empty(), "a pause was not even five minutes");
    }

    #[test]
    fn a_backlog_is_asked_little_by_little_and_each_in_its_turn() {
        let (mut plans, all) = (Inquiries::default(), (0..9).map(|_| unknown()).collect::<Vec<_>>());
        let mut asked: Vec<CallId> = Vec::new();
        for _ in 0..3 {
            let now = plans.due(&all, START);
            assert!(now.len() <= PER_BEAT);
            asked.extend(now);
        }
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(asked.len(), 9);
        assert!(plans.due([], START).is_empty() && plans.0.is_empty(), "a plan of a call that is settled is kept");
    }
}
