//! Our own failures. A fault always fails closed: it refuses the call.

use std::error::Error as StdError;

use super::{Code, Refusal};

type Source = Box<dyn StdError + Send + Sync + 'static>;

/// Something of ours failed: store, engine, a bug. The text is for the log; outside it reads "internal error".
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Fault {
    what: &'static str,
    #[source]
    source: Option<Source>,
}

impl Fault {
    /// A fault with no cause beneath it.
    #[must_use]
    pub const fn new(what: &'static str) -> Self {
        Self { what, source: None }
    }

    /// A fault caused by another error.
    #[must_use]
    pub fn caused(what: &'static str, source: impl Into<Source>) -> Self {
        Self { what, source: Some(source.into()) }
    }

    /// The whole chain on one line, for the log.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.what.to_owned();
        let mut next = self.source();
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        tracing::error!(fault = %fault.chain(), "internal error; the call is refused");
        Self::new(Code::Unavailable, "internal error; the call was refused and nothing was sent")
    }
}
