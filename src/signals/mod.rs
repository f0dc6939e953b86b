//! What the proxy learns from the stream of calls: facts for policies, and one record for each call.

mod entry;
mod facts;

pub use entry::{Entry, Throttle};
pub use facts::gather;
