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
/// they pile up; or this many times as many as there were if all took as long as they may.
const PILED_UP: [f64; 2] = [4.0, 1.2];
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
    /// The longest that a call may take, where objectives say that.
    longest: Duration,
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
            longest: Duration::try_from_secs_f64(goals.longest().unwrap_or(0.0))
                .unwrap_or_default(),
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
        let [well, may] = PILED_UP;
        let longest = (self.duration + self.longest).mul_f64(may);
        rate * self.duration.mul_f64(well).max(longest).as_secs_f64()
    }

    /// Takes in what a step that held has shown: the calls each second, how long one took on average,
    /// and the part of all that the rarest objective is about.
    pub(crate) fn learn(&mut self, load: f64, calls_per_s: f64, duration: Duration, rarest: f64) {
        self.calls = calls_per_s / load;
        self.duration = duration;
        self.rarest = rarest;
    }
}

#[cfg(test)]
mod tests {
    use tidegate_settings::Objectives;

    use super::*;

    fn pace(list: &str, length: Option<Duration>) -> Pace {
        let objectives = Objectives::parse(&format!("objectives: [{list}]")).expect("good ones");
        Pace::new(&Goals::of(&objectives).expect("goals"), length, None)
    }

    #[test]
    fn a_step_is_as_long_as_its_quantile_needs() {
        let p99 = "{ metric: duration, quantile: 0.99, below: 3s }";
        let seconds = |pace: &Pace, load, is_near| pace.of(load, is_near).1.as_secs_f64();
        let mut searched = pace(p99, None);
        // 299 calls bound a p99 from above; four times as many near the edge.
        assert!((seconds(&searched, 20.0, true) - 59.8).abs() < 1e-6);
        assert!((seconds(&searched, 20.0, false) - 14.95).abs() < 1e-6);
        assert_eq!(
            seconds(&searched, 1000.0, true),
            20.0,
            "but never too short to see calls pile up"
        );
        assert_eq!(seconds(&searched, 0.1, true), 600.0, "nor for ever");
        assert_eq!(seconds(&pace(p99, Some(Duration::from_secs(7))), 20.0, true), 7.0);

        // Ten users that make forty calls a second, of which a fifth is of the rarest kind.
        searched.learn(10.0, 40.0, Duration::from_millis(250), 0.2);
        assert!((seconds(&searched, 10.0, true) - 149.5).abs() < 1e-6);
    }

    #[test]
    fn a_rate_has_users_for_calls_that_take_as_long_as_they_may() {
        let mut searched = pace("{ metric: duration, quantile: 0.9, below: 10s }", None);
        assert_eq!(searched.users(10.0, 5000), 200);
        searched.learn(100.0, 100.0, Duration::from_secs(1), 1.0);
        assert_eq!(searched.users(100.0, 5000), 1320);
        assert_eq!(searched.users(100.0, 500), 500, "but no more than there may be");
        let mut quick = pace("{ metric: duration, quantile: 0.9, below: 1s }", None);
        quick.learn(100.0, 100.0, Duration::from_secs(1), 1.0);
        assert_eq!(quick.users(100.0, 5000), 400);
    }
}
