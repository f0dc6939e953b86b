//! Holdpoint.
pub mod call;
pub mod clock;
pub mod config;
pub mod store;
