//! Durable state behind domain steps, each atomic and, where it says so, durable when it returns.

mod record;

pub use record::*;
