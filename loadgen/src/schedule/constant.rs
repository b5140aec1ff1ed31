//! Calls at even distances.

use std::time::Duration;

use super::Arrivals;

/// Calls that are due `rate` times a second, evenly.
pub(crate) fn arrivals(rate: f64) -> Arrivals {
    // Each offset is computed afresh: a sum of rounded distances would drift.
    Box::new((0_u64..).map(move |call| Duration::from_secs_f64(call as f64 / rate)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_at_three_calls_a_second_does_not_drift() {
        let last = arrivals(3.0).nth(3 * 86_400).expect("arrivals are endless");
        assert_eq!(last, Duration::from_secs(86_400));
    }
}
