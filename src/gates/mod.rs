//! What a call must pass, one file or folder per gate.
pub mod authz;
