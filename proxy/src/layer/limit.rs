//! Lets an upstream have so many calls at a time, and the others wait.

mod adaptive;
mod config;
mod gate;
mod map;
mod queue;
mod sync;

pub use config::{AdaptiveConfig, LimitConfig};
