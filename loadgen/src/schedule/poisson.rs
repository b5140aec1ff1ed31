//! Calls that come by chance, as from many callers who do not know each other.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::Arrivals;

/// Calls that are due `rate` times a second on average, with exponential distances.
pub(crate) fn arrivals(rate: f64, seed: u64) -> Arrivals {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut due = 0.0;
    Box::new(std::iter::repeat_with(move || {
        // 1 - u lies in (0, 1], whose logarithm is finite.
        due -= (1.0 - random.random::<f64>()).ln() / rate;
        Duration::from_secs_f64(due)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_the_mean_and_the_distances_spread_as_much() {
        let due: Vec<_> = arrivals(50.0, 1).take(20_001).map(|at| at.as_secs_f64()).collect();
        let distances: Vec<_> = due.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = distances.iter().sum::<f64>() / distances.len() as f64;
        let spread = (distances.iter().map(|d| (d - mean).powi(2)).sum::<f64>()
            / distances.len() as f64)
            .sqrt();
        assert!((mean * 50.0 - 1.0).abs() < 0.03, "mean distance {mean}");
        assert!((spread / mean - 1.0).abs() < 0.05, "an exponential's deviation is its mean");
    }

    #[test]
    fn one_seed_gives_one_schedule() {
        let first = |seed| arrivals(10.0, seed).take(100).collect::<Vec<_>>();
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
    }
}
