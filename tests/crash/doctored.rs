//! Histories that lie, and what the verifier says of each.
