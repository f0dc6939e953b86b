//! The journal as a stream of news: one record after the other, as it was when it was written.

use std::sync::Arc;

use crate::call::{Digest, Fault, PauseScope, Timestamp};
use crate::store::{AuditNote, CallRecord, Grant, Pause, Sample, Step};

use super::Store;
use super::entry::{Entry, fold, followed};

/// One record of the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct News {
    /// Its number.
    pub seq: u64,
    /// Store time of the step.
    pub at: Timestamp,
    /// Its chain hash: no other record of any proxy has it.
    pub hash: Digest,
    /// What it tells.
    pub told: Told,
}

/// What one record tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// A step of a call, and the call after it.
    Step(Step, Box<CallRecord>),
    /// The kill switch stopped something.
    Paused(Pause),
    /// What it had stopped goes on.
    Resumed {
        /// What.
        scope: PauseScope,
        /// Why.
        reason: String,
        /// Who says so.
        by: String,
    },
    /// A grant as it is from then on.
    Grant(Arc<Grant>),
    /// A sampled call as it is from then on.
    Sample(Arc<Sample>),
    /// Anything that is no step of a call.
    Note(Box<AuditNote>),
}

impl Store {
    /// Numbers of the first record that is still there, and of the newest durable one.
    #[must_use]
    pub fn span(&self) -> (u64, u64) {
        (self.inner.journal.reader().first(), self.inner.journal.head().seq)
    }

    /// What a durable record tells; nothing for those of the journal's own, and of calls that
    /// retention took. Blocks on the disk.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn told(&self, seq: u64) -> Result<Option<News>, Fault> {
        let odd = |why: String| Fault::caused("a record of the journal cannot be told", why);
        let reader = self.inner.journal.reader();
        let frame = reader.frame(seq).map_err(|e| odd(format!("record {seq}: {e}")))?;
        let entry: Entry = serde_json::from_str(frame.event.get()).map_err(|e| odd(format!("record {seq}: {e}")))?;
        let told = match entry {
            Entry::Call { step, record } => Told::Step(step, Box::new(followed(Arc::unwrap_or_clone(record), seq))),
            Entry::Step { step, id, changed, .. } => {
                let Some(mut record) = self.inner.current(id)? else { return Ok(None) };
                let until: Vec<u64> = record.frames.iter().copied().take_while(|f| *f <= seq).collect();
                // A later segment has it whole again: then what this step changed is put back over how it is now.
                match fold(&reader, &until) {
                    Ok(then) => record = then,
                    Err(_) => changed.apply(&mut record),
                }
                Told::Step(step, Box::new(record))
            }
            Entry::Paused { pause } => Told::Paused(pause),
            Entry::Resumed { scope, reason, by } => Told::Resumed { scope, reason, by },
            Entry::Grant { grant } => Told::Grant(grant),
            Entry::Sample { sample } => Told::Sample(sample),
            Entry::Note { note } => Told::Note(Box::new(note)),
            _ => return Ok(None),
        };
        Ok(Some(News { seq, at: frame.at, hash: frame.hash, told }))
    }
}
