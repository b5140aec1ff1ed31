//! The sidecar.

pub mod export;
pub mod recorder;
