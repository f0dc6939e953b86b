//! Bad input: each row with the code of the contract, and an upstream that sees zero bytes.
