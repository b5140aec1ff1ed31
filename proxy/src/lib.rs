//! The sidecar.

pub mod admin;
pub mod export;
pub mod recorder;
