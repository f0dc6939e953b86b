//! Holdpoint.
pub mod audit;
pub mod call;
pub mod clock;
pub mod journal;
pub mod store;
