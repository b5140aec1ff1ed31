//! Stops calls to an upstream that is unwell, and to one that has had enough for now.
//!
//! The *breaker* opens where an upstream fails, and closes step by step once probes are answered.
//! The *rate gate* closes where the provider said 429, until the time that it named. Both answer at
//! once what they keep out. They are kept for each region and model of an upstream, by all workers
//! together, and judge a call at its first token: a stream may last for minutes.

mod circuit;
mod config;
mod gate;
mod lease;
mod map;
mod ramp;
mod sync;
mod window;

#[cfg(all(test, not(feature = "shuttle")))]
mod tests;

#[cfg(all(test, feature = "shuttle"))]
mod model;

use std::time::Duration;

use tokio::time::Instant;

pub use config::{BreakerConfig, Ratio, SlowConfig, Steps, WhenAllOpen};

pub(crate) use circuit::{Position, Signal, Stop, What, Why};
pub(crate) use lease::Lease;
pub(crate) use map::{Breakers, Key, Snapshot};

/// Further ahead than any sidecar lives.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// That time and so much more; times come from users and providers, and may be any.
fn later(time: Instant, more: Duration) -> Instant {
    time.checked_add(more.min(FAR)).unwrap_or(time)
}
