//! The step that gives a ledger more room.

use crate::failpoint;
use crate::store::{Balance, TopUp, TopUpError};

use super::entry::Entry;
use super::{Inner, Store, Unavailable};

impl From<Unavailable> for TopUpError {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

impl Inner {
    fn top_up(&self, wanted: TopUp) -> Result<(u64, Balance), TopUpError> {
        let (mut core, now) = self.lock_healthy()?;
        let ledger = wanted.ledger.clone();
        if core.ledgers.check_top_up(&wanted)? {
            // Whoever did it before may not have waited for the disk.
            return Ok((core.newest, core.ledgers.balance(&ledger)));
        }
        let seq = self.commit(&mut core, now, Vec::new(), |_| Entry::ToppedUp { top_up: wanted })?;
        failpoint::hit("topped_up.queued");
        Ok((seq, core.ledgers.balance(&ledger)))
    }
}

impl Store {
    /// Adds to the room of one ledger, once for each key; returns what the ledger is then. Atomic; durable when it returns.
    ///
    /// # Errors
    /// Then nothing was added, or (`Unavailable`) it is not known whether it was.
    pub async fn top_up(&self, wanted: TopUp) -> Result<Balance, TopUpError> {
        failpoint::hit("top_up.before");
        let (seq, balance) = self.inner.top_up(wanted)?;
        self.inner.durable(seq).await?;
        Ok(failpoint::after("top_up.durable", balance))
    }
}
