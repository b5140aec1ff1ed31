//! What a piece says, by dialect.
