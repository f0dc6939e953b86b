//! Budgets in memory: what is used and set aside, computed from the records alone.

use std::collections::BTreeMap;
use std::time::Duration;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::call::Timestamp;
use crate::store::{Balance, CallRecord, Charge, LedgerKey, State, is_grants};

/// Ledgers of runs and steps that nothing touched for so long are forgotten.
const IDLE: Duration = Duration::from_secs(7 * 86_400);
/// Ledgers of renewing windows that nothing touched for so long are forgotten; no window is longer than a month.
const OLD_WINDOW: Duration = Duration::from_secs(35 * 86_400);

/// Ledgers as a snapshot keeps them.
pub(super) type LedgersImage = Vec<Line>;

/// One ledger of a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Line {
    ledger: LedgerKey,
    balance: Balance,
    touched: Timestamp,
}

/// All ledgers.
#[derive(Debug, Default)]
pub(super) struct Ledgers(HashMap<LedgerKey, (Balance, Timestamp)>);

/// Which part of a balance a call's charges stand in.
#[derive(PartialEq, Eq, Clone, Copy)]
enum Part {
    Nowhere,
    Reserved,
    Used,
}

fn part(state: State) -> Part {
    match state {
        State::Dispatching | State::Unknown => Part::Reserved,
        State::Succeeded | State::Failed => Part::Used,
        _ => Part::Nowhere,
    }
}

impl Ledgers {
    pub(super) fn balance(&self, key: &LedgerKey) -> Balance {
        self.0.get(key).map(|(b, _)| *b).unwrap_or_default()
    }

    /// The first charge that does not fit, each ledger seen with all charges before it in the list.
    pub(super) fn lacking<'a>(&self, charges: &'a [Charge]) -> Option<&'a Charge> {
        let mut asked: BTreeMap<&LedgerKey, i64> = BTreeMap::new();
        charges.iter().find(|charge| {
            let sum = asked.entry(&charge.ledger).or_default();
            let balance = self.balance(&charge.ledger);
            let total = Some(charge.amount)
                .filter(|a| *a >= 0)
                .and_then(|a| sum.checked_add(a))
                .inspect(|s| *sum = *s)
                .and_then(|s| s.checked_add(balance.used)?.checked_add(balance.reserved));
            total.is_none_or(|t| t > charge.limit)
        })
    }

    /// Moves the charges of a call from where the old record had them to where the new one has them.
    pub(super) fn follow(&mut self, old: Option<&CallRecord>, new: &CallRecord, at: Timestamp) {
        let before = old.map_or(Part::Nowhere, |r| part(r.state));
        let after = part(new.state);
        if before == after {
            return;
        }
        old.into_iter().flat_map(|r| &r.charges).for_each(|c| self.post(c, before, -1, at));
        new.charges.iter().for_each(|c| self.post(c, after, 1, at));
    }

    fn post(&mut self, charge: &Charge, part: Part, sign: i64, at: Timestamp) {
        if part == Part::Nowhere {
            return;
        }
        let (balance, touched) = self.0.entry_ref(&charge.ledger).or_default();
        let line = if part == Part::Used { &mut balance.used } else { &mut balance.reserved };
        *line = line.saturating_add(charge.amount.saturating_mul(sign));
        *touched = at;
    }

    /// Whether what is set aside is what the open calls say; if not, the open calls win.
    pub(super) fn reconcile<'a>(&mut self, calls: impl Iterator<Item = &'a CallRecord>, now: Timestamp) -> bool {
        let mut expected: HashMap<&LedgerKey, i64> = HashMap::new();
        for charge in calls.filter(|r| part(r.state) == Part::Reserved).flat_map(|r| &r.charges) {
            let sum = expected.entry(&charge.ledger).or_default();
            *sum = sum.saturating_add(charge.amount);
        }
        let mut right = true;
        for (key, (balance, _)) in &mut self.0 {
            let wanted = expected.remove(key).unwrap_or(0);
            right &= balance.reserved == wanted;
            balance.reserved = wanted;
        }
        for (key, reserved) in expected {
            right = false;
            self.0.insert(key.clone(), (Balance { used: 0, reserved }, now));
        }
        right
    }

    /// Forgets what has been idle for long, and what counted for a grant that is forgotten.
    pub(super) fn prune(&mut self, now: Timestamp, has_grant: impl Fn(&str) -> bool) {
        self.0.retain(|key, (balance, touched)| {
            let idle = now.since(*touched);
            let over = match key.window {
                Some(_) => idle > OLD_WINDOW,
                None if is_grants(key) => !has_grant(&key.owner),
                None => matches!(key.scope.as_str(), "run" | "step") && idle > IDLE,
            };
            balance.reserved != 0 || !over
        });
    }

    /// Each, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = (LedgerKey, Balance)> {
        self.0.iter().map(|(key, (balance, _))| (key.clone(), *balance))
    }

    pub(super) fn image(&self) -> LedgersImage {
        let line = |(ledger, (balance, touched)): (&LedgerKey, &(Balance, Timestamp))| Line {
            ledger: ledger.clone(),
            balance: *balance,
            touched: *touched,
        };
        let mut lines: Vec<Line> = self.0.iter().map(line).collect();
        lines.sort_by(|a, b| a.ledger.cmp(&b.ledger));
        lines
    }

    pub(super) fn restore(image: &LedgersImage) -> Self {
        Self(image.iter().map(|l| (l.ledger.clone(), (l.balance, l.touched))).collect())
    }
}
