//! The integration tests: a real listener, a real upstream, one binary. No sleeps, no fixed ports.
#![expect(
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::let_underscore_must_use,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "tests may use what the product may not, helpers outside of test functions too"
)]

mod attacks;
mod auditor;
mod authoring;
mod bad_input;
mod bad_policies;
mod batch;
mod binary;
mod canary;
mod crash;
mod drain;
mod edit;
mod exact;
mod faults;
mod foresee;
mod grants;
mod handling;
mod hangup;
mod harness;
mod holds;
mod house;
mod identity;
mod init;
mod kill;
mod limits;
mod mail;
mod mcp;
mod mcp_edges;
mod oidc;
mod once;
mod overflow;
mod preview;
mod provider;
mod reload;
mod rest;
mod rollout;
mod samples;
mod slack;
mod stdio;
mod streams;
mod trust;
mod undo;
mod unknown;
mod unsent;
mod verbs;
mod webhooks;
mod workbench;
