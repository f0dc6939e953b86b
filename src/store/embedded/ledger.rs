//! Budgets in memory: what is used and set aside, computed from the records alone.

use std::collections::BTreeMap;
use std::time::Duration;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::call::{Digest, Timestamp};
use crate::store::{Balance, CallRecord, Charge, LedgerKey, State, TopUp, TopUpError, is_grants};

/// Ledgers of runs and steps that nothing touched for so long are forgotten.
const IDLE: Duration = Duration::from_secs(7 * 86_400);
/// Ledgers of renewing windows that nothing touched for so long are forgotten; no window is longer than a month.
const OLD_WINDOW: Duration = Duration::from_secs(35 * 86_400);
/// Keys of top-ups that one ledger remembers.
const ATTEMPTS: usize = 1_000;

/// Ledgers as a snapshot keeps them.
pub(super) type LedgersImage = Vec<Line>;

/// One ledger of a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Line {
    ledger: LedgerKey,
    balance: Balance,
    touched: Timestamp,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<(Digest, i64)>,
}

/// What is known of one ledger.
#[derive(Debug, Default)]
struct Account {
    balance: Balance,
    touched: Timestamp,
    /// Keys under which it was topped up, each with its amount.
    attempts: Vec<(Digest, i64)>,
}

/// All ledgers.
#[derive(Debug, Default)]
pub(super) struct Ledgers(HashMap<LedgerKey, Account>);

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
        self.0.get(key).map(|a| a.balance).unwrap_or_default()
    }

    /// The first charge that does not fit, each ledger seen with all charges before it in the list; its limit is the one that
    /// it met, with what was added to it.
    pub(super) fn lacking(&self, charges: &[Charge]) -> Option<Charge> {
        let mut asked: BTreeMap<&LedgerKey, i64> = BTreeMap::new();
        let found = charges.iter().find(|charge| {
            let sum = asked.entry(&charge.ledger).or_default();
            let balance = self.balance(&charge.ledger);
            let total = Some(charge.amount)
                .filter(|a| *a >= 0)
                .and_then(|a| sum.checked_add(a))
                .inspect(|s| *sum = *s)
                .and_then(|s| s.checked_add(balance.used)?.checked_add(balance.reserved));
            total.is_none_or(|t| t > charge.limit.saturating_add(balance.extra))
        })?;
        let limit = found.limit.saturating_add(self.balance(&found.ledger).extra);
        Some(Charge { limit, ..found.clone() })
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
        let Account { balance, touched, .. } = self.0.entry_ref(&charge.ledger).or_default();
        let line = if part == Part::Used { &mut balance.used } else { &mut balance.reserved };
        *line = line.saturating_add(charge.amount.saturating_mul(sign));
        *touched = at;
    }

    /// Whether this was done before, under its key.
    ///
    /// # Errors
    /// When it may not be done.
    pub(super) fn check_top_up(&self, wanted: &TopUp) -> Result<bool, TopUpError> {
        let account = self.0.get(&wanted.ledger).ok_or(TopUpError::NotFound)?;
        let before = account.attempts.iter().find(|(key, _)| Some(*key) == wanted.key);
        match (before, account.balance.extra.checked_add(wanted.amount)) {
            (Some((_, amount)), _) if *amount == wanted.amount => Ok(true),
            (Some(_), _) => Err(TopUpError::KeyReused),
            (None, Some(_)) if wanted.amount > 0 => match wanted.key {
                Some(_) if account.attempts.len() >= ATTEMPTS => Err(TopUpError::Full),
                _ => Ok(false),
            },
            (None, _) => Err(TopUpError::Amount),
        }
    }

    /// Adds to the room of a ledger.
    pub(super) fn top_up(&mut self, wanted: &TopUp, at: Timestamp) {
        let account = self.0.entry_ref(&wanted.ledger).or_default();
        account.balance.extra = account.balance.extra.saturating_add(wanted.amount);
        account.touched = at;
        account.attempts.extend(wanted.key.map(|key| (key, wanted.amount)));
    }

    /// Whether what is set aside is what the open calls say; if not, the open calls win.
    pub(super) fn reconcile<'a>(&mut self, calls: impl Iterator<Item = &'a CallRecord>, now: Timestamp) -> bool {
        let mut expected: HashMap<&LedgerKey, i64> = HashMap::new();
        for charge in calls.filter(|r| part(r.state) == Part::Reserved).flat_map(|r| &r.charges) {
            let sum = expected.entry(&charge.ledger).or_default();
            *sum = sum.saturating_add(charge.amount);
        }
        let mut right = true;
        for (key, Account { balance, .. }) in &mut self.0 {
            let wanted = expected.remove(key).unwrap_or(0);
            right &= balance.reserved == wanted;
            balance.reserved = wanted;
        }
        for (key, reserved) in expected {
            right = false;
            let balance = Balance { reserved, ..Balance::default() };
            self.0.insert(key.clone(), Account { balance, touched: now, attempts: Vec::new() });
        }
        right
    }

    /// Forgets what has been idle for long, and what counted for a grant that is forgotten.
    pub(super) fn prune(&mut self, now: Timestamp, has_grant: impl Fn(&str) -> bool) {
        self.0.retain(|key, Account { balance, touched, .. }| {
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
        self.0.iter().map(|(key, account)| (key.clone(), account.balance))
    }

    pub(super) fn image(&self) -> LedgersImage {
        let line = |(ledger, account): (&LedgerKey, &Account)| Line {
            ledger: ledger.clone(),
            balance: account.balance,
            touched: account.touched,
            attempts: account.attempts.clone(),
        };
        let mut lines: Vec<Line> = self.0.iter().map(line).collect();
        lines.sort_by(|a, b| a.ledger.cmp(&b.ledger));
        lines
    }

    pub(super) fn restore(image: &LedgersImage) -> Self {
        let account = |l: &Line| Account { balance: l.balance, touched: l.touched, attempts: l.attempts.clone() };
        Self(image.iter().map(|l| (l.ledger.clone(), account(l))).collect())
    }
}
