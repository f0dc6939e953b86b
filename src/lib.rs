//! Holdpoint.
pub mod call;
pub mod clock;
pub mod gates;
pub mod policy;
pub mod store;
