//! Holdpoint.
pub mod call;
pub mod clock;
pub mod store;
