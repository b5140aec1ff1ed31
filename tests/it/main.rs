//! Integration tests.

#[cfg(feature = "loadgen")]
mod demo;
