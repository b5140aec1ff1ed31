//! When to ask.
//!
//! A schedule only says when calls are due, counted from the start of the run. A call that is sent
//! late keeps its due time, and its lateness stays in its figures.

mod closed;
mod constant;
mod poisson;
mod shard;
mod stages;

use std::time::Duration;

pub(crate) use closed::entrance;
pub use shard::Shard;
pub use stages::{Stage, Stages};

/// What makes a call due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    /// The end of its user's last call.
    Closed,
    /// The time alone, whoever is free: so many calls a second, evenly.
    Constant {
        /// Calls a second.
        rate: f64,
    },
    /// The time alone, whoever is free: so many calls a second on average, by chance.
    Poisson {
        /// Calls a second.
        rate: f64,
    },
    /// The time alone, whoever is free: by chance, at rates that rise and fall in stages.
    Staged,
    /// The time alone, whoever is free: as the calls of a file had come.
    Recorded {
        /// How much faster: at 2 what took an hour takes half of one.
        speed: f64,
    },
}

/// The only part of a run that has no stages.
pub(crate) const STAGE: &str = "main";

/// The offsets at which calls are due, rising.
pub(crate) type Arrivals = Box<dyn Iterator<Item = Duration> + Send>;

impl Schedule {
    /// When calls are due, where time decides it and not the file of the calls.
    pub(crate) fn arrivals(&self, stages: Option<&Stages>, seed: u64) -> Option<Arrivals> {
        match *self {
            Self::Closed | Self::Recorded { .. } => None,
            Self::Staged => Some(stages?.arrivals(seed)),
            Self::Constant { rate } => Some(constant::arrivals(rate)),
            Self::Poisson { rate } => Some(poisson::arrivals(rate, seed)),
        }
    }

    /// The word for it in reports.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Constant { .. } => "constant",
            Self::Poisson { .. } => "poisson",
            Self::Staged => "staged",
            Self::Recorded { .. } => "recorded",
        }
    }

    /// Calls a second, where that was asked for.
    pub(crate) fn rate(&self) -> Option<f64> {
        match *self {
            Self::Closed | Self::Recorded { .. } | Self::Staged => None,
            Self::Constant { rate } | Self::Poisson { rate } => Some(rate),
        }
    }
}
