//! The sidecar.

pub mod export;
