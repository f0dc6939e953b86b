//! Holdpoint.
pub mod admin;
pub mod app;
pub mod audit;
pub mod call;
pub mod clock;
pub mod config;
pub mod gates;
pub mod inquiry;
pub mod journal;
pub mod pipeline;
pub mod policy;
pub mod signals;
pub mod snapshot;
pub mod store;
pub mod tasks;
pub mod telemetry;
pub mod wire;
