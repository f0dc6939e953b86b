//! Durable state behind domain steps, each atomic and, where it says so, durable when it returns.
//!
//! [`Store`] keeps one [`CallRecord`] per call with effects. A step checks what must hold, changes the
//! state in memory and puts one frame into the journal, all under one lock, so the order of frames is the
//! order of states; then it waits until the frame is on the disk. Readers wait too: no state is told
//! that a crash could take back. `state` is the diagram of the states, `votes` the rules of
//! quorum, both without I/O; `embedded` is the implementation over journal and sled.

mod ask;
mod changed;
mod embedded;
#[cfg(test)]
pub(crate) mod fixtures;
mod fresh;
mod grant;
mod handling;
mod pause;
mod record;
mod sample;
mod state;
mod top_up;
mod trust;
mod votes;

pub use ask::*;
pub(crate) use embedded::SHORTENED;
pub use embedded::{
    Alike, Counts, Gap, Health, HoldStep, Keep, Logged, MIN_FREE, News, OpenError, Options, Recovery, Shortened, Store,
    Told, Trusted, free_bytes, kind_of,
};
pub use fresh::{Made, arguments_of, stored_request, target_of, undo_key};
pub use grant::{Grant, GrantEnd, GrantUse, is_grants};
pub use handling::{Claim, Comment, Escalation, EvidenceRequest, Handled, Handling, MAX_CLAIM, is_kind};
pub use pause::{Pause, PauseDone};
pub use record::*;
pub use sample::{JudgeSample, Judged, Sample};
pub use state::{Editing, Event as CallEvent, Illegal, MAX_RENEWALS, Renewal, Ruling, Step};
pub use top_up::{TopUp, TopUpError};
pub use trust::{Surprise, Surprised};
