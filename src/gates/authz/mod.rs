//! Whether policy lets a call pass.
