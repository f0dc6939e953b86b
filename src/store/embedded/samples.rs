//! Calls that are looked at after the fact. Each state of one is a frame.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::call::{CallId, Fault, GrantOver, Timestamp, Verdict};
use crate::store::{HoldError, JudgeSample, Judged, Sample, votes};

use super::entry::Entry;
use super::{Inner, Store, Unavailable};

/// So many are kept, the newest ones; each new segment begins with them.
const MOST: usize = 2000;
/// And for so long; the journal keeps what it says of them.
const SHOWN: Duration = Duration::from_secs(35 * 86_400);

/// Those that are open, or were judged not long ago.
#[derive(Debug, Default)]
pub(super) struct Samples {
    all: BTreeMap<CallId, Arc<Sample>>,
    /// The newest frame of any.
    seq: u64,
}

impl Samples {
    pub(super) fn put(&mut self, seq: u64, sample: &Arc<Sample>) {
        self.seq = self.seq.max(seq);
        self.all.insert(sample.id, Arc::clone(sample));
        if self.all.len() > MOST {
            self.all.pop_first();
        }
    }

    pub(super) fn image(&mut self, now: Timestamp) -> Vec<Arc<Sample>> {
        self.all.retain(|_, sample| now < sample.at.plus(SHOWN));
        self.all.values().cloned().collect()
    }

    pub(super) fn restore(image: &[Arc<Sample>]) -> Self {
        Self { all: image.iter().map(|s| (s.id, Arc::clone(s))).collect(), seq: 0 }
    }
}

impl Inner {
    fn put_sample(&self, sample: Sample) -> Result<(), Unavailable> {
        let (mut core, now) = self.lock_healthy()?;
        let sample = Arc::new(Sample { at: now, judged: None, ..sample });
        self.commit(&mut core, now, Vec::new(), |_| Entry::Sample { sample }).map(drop)
    }

    fn judge_sample(&self, said: JudgeSample) -> Result<(u64, Arc<Sample>), HoldError> {
        let (mut core, now) = self.lock_healthy()?;
        let sample = core.samples.all.get(&said.id).cloned().ok_or(HoldError::NotFound)?;
        if votes::is_own(&sample.principal, || said.names.iter().chain([&said.person]).map(String::as_str)) {
            return Err(HoldError::SelfReview);
        }
        if !sample.is_open() {
            return Err(HoldError::AlreadyCounted);
        }
        let judged = Judged { verdict: said.verdict, reason_code: said.reason_code, by: said.person, at: now };
        let sample = Arc::new(Sample { judged: Some(judged), ..(*sample).clone() });
        if said.verdict == Verdict::Bad {
            let (principal, operation, workflow) = (sample.principal.key(), &sample.operation, &sample.workflow);
            self.end_for(&mut core, (&principal, operation, workflow), GrantOver::JudgedBad, now)?;
        }
        let seq = self.commit(&mut core, now, Vec::new(), |_| Entry::Sample { sample: Arc::clone(&sample) })?;
        Ok((seq, sample))
    }
}

impl Store {
    /// Puts a call that is about to run on the list of those that are looked at later. Goes with the next batch: nobody
    /// waits for it.
    ///
    /// # Errors
    /// When nothing can be recorded.
    pub fn sample(&self, sample: Sample) -> Result<(), Fault> {
        Ok(self.inner.put_sample(sample)?)
    }

    /// A person's verdict; `unsure` leaves it to another one. Durable when it returns.
    ///
    /// # Errors
    /// `NotFound`, `SelfReview` for who asked for the call or runs its agent, `AlreadyCounted` when it was judged.
    pub async fn judge_sample(&self, said: JudgeSample) -> Result<Arc<Sample>, HoldError> {
        let (seq, sample) = self.inner.judge_sample(said)?;
        self.inner.durable(seq).await?;
        Ok(sample)
    }

    /// The newest sampled calls of the last 35 days, 2000 at most, newest first.
    ///
    /// # Errors
    /// When nothing can be read.
    pub async fn samples(&self) -> Result<Vec<Arc<Sample>>, Fault> {
        let (seq, all) = {
            let (core, _) = self.inner.lock()?;
            (core.samples.seq, core.samples.all.values().rev().cloned().collect())
        };
        self.inner.durable(seq).await?;
        Ok(all)
    }
}
