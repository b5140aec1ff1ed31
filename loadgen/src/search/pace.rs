//! How long a step must be for what it is to tell, and how many users it takes.

use std::time::Duration;

use super::goals::Goals;

/// Near the edge a step has so many times the calls that its objectives need at least.
const STRETCH: f64 = 4.0;
/// The shortest step on the way up, and near the edge.
const SHORTEST: [f64; 2] = [10.0, 20.0];
/// The longest step, likewise.
const LONGEST: [f64; 2] = [30.0, 600.0];
/// The share of a step that it is let run before it counts.
const WARM_UP: f64 = 0.25;
/// So many times as long as calls take, it is let run besides.
const TO_FILL: f64 = 2.0;
/// So many times the calls at once that there are when all is well may be in flight before it is said that
/// they pile up.
const PILED_UP: f64 = 4.0;
/// Users of a step at a rate, at least, and where nobody knows yet how long calls take.
const FEWEST_USERS: f64 = 200.0;

/// What is known of how calls come and go, after all steps so far.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    /// Calls that a step needs at least.
    fewest: f64,
    /// As asked for.
    length: Option<Duration>,
    warm_up: Option<Duration>,
    /// Calls a second for each unit of load: one, where loads are rates.
    calls: f64,
    /// How long calls take on average, at the highest load that held.
    duration: Duration,
    /// The part of all calls that the rarest objective is about.
    rarest: f64,
}

// === impl Pace ===

impl Pace {
    /// Where each step lasts and is let run as long as that, or as is needed.
    pub(crate) fn new(goals: &Goals, length: Option<Duration>, warm_up: Option<Duration>) -> Self {
        Self {
            fewest: goals.fewest_calls() as f64,
            length,
            warm_up,
            calls: 1.0,
            duration: Duration::ZERO,
            rarest: 1.0,
        }
    }

    /// For how long a step at this load is let run before it counts, and how long it counts.
    pub(crate) fn of(&self, load: f64, is_near: bool) -> (Duration, Duration) {
        let near = usize::from(is_near);
        let stretch = if is_near { STRETCH } else { 1.0 };
        let needed = stretch * self.fewest / (self.rarest * self.calls * load);
        let length = Duration::from_secs_f64(needed.clamp(SHORTEST[near], LONGEST[near]));
        let length = self.length.unwrap_or(length);
        let to_fill = length.mul_f64(WARM_UP) + self.duration.mul_f64(TO_FILL);
        (self.warm_up.unwrap_or(to_fill), length)
    }

    /// How many users a step at this rate takes, by Little's law, and some more.
    pub(crate) fn users(&self, rate: f64, most: usize) -> usize {
        let needed = self.piled_up(rate).max(FEWEST_USERS);
        (needed.ceil() as usize).min(most)
    }

    /// More calls in flight than this at that rate are not those of a target that keeps up.
    pub(crate) fn piled_up(&self, rate: f64) -> f64 {
        PILED_UP * rate * self.duration.as_secs_f64()
    }

    /// Takes in what a step that held has shown: the calls each second, how long one took on average,
    /// and the part of all that the rarest objective is about.
    pub(crate) fn learn(&mut self, load: f64, calls_per_s: f64, duration: Duration, rarest: f64) {
        self.calls = calls_per_s / load;
        self.duration = duration;
        self.rarest = rarest;
    }
}
