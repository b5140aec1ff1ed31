//! The load test.

pub mod sim;
