//! What a call must pass, one file or folder per gate. The order, and the reason for it, stand in
//! [`crate::pipeline`].

pub mod authz;
pub mod breaker;
pub mod budget;
pub mod hold;
pub mod idempotency;
pub mod identity;
pub mod pins;
pub mod rate;
pub mod route;
pub mod schema;
pub mod session;
pub mod upstream;
