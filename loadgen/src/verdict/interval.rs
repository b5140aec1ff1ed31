//! Between what bounds a figure lies, as far as so many calls can tell.
//!
//! Nothing is assumed of how times are distributed: the bounds of a quantile are times that were
//! measured, at the places that the binomial distribution names (order statistics). Those of a ratio
//! are Wilson's. Each bound holds with the stated confidence by itself.

use statrs::distribution::{ContinuousCDF, Normal};
use statrs::function::beta::beta_reg;

/// Two bounds; one that so few calls do not give is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Interval {
    pub(crate) low: Option<f64>,
    pub(crate) high: Option<f64>,
}

/// The shares of the times, sorted, at which the bounds of a quantile stand.
pub(crate) fn of_quantile(quantile: f64, calls: u64, confidence: f64) -> Interval {
    let doubt = 1.0 - confidence;
    // With the quantile in truth at the time of rank r, so likely are fewer than r below it.
    let low = last(calls, |rank| at_most(rank - 1, calls, quantile) <= doubt);
    let high = first(calls, |rank| 1.0 - at_most(rank - 1, calls, quantile) <= doubt);
    // The middle of the rank: neither edge may be rounded over.
    let share = |rank: u64| (rank as f64 - 0.5) / calls as f64;
    Interval { low: low.map(share), high: high.map(share) }
}

/// The bounds of a ratio, of which `part` of `whole` were counted.
pub(crate) fn of_ratio(part: u64, whole: u64, confidence: f64) -> Interval {
    if whole == 0 {
        return Interval::default();
    }
    let (part, n, z) = (part as f64, whole as f64, normal(confidence));
    let share = part / n;
    let middle = (share + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let reach = z / (1.0 + z * z / n) * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    let low = if part == 0.0 { 0.0 } else { middle - reach };
    let high = if part == n { 1.0 } else { middle + reach };
    Interval { low: Some(low.max(0.0)), high: Some(high.min(1.0)) }
}

/// The fewest calls that give a quantile a bound above it.
pub(crate) fn fewest(quantile: f64, confidence: f64) -> u64 {
    ((1.0 - confidence).ln() / quantile.ln()).ceil() as u64
}

/// The fewest calls that, without a single one at fault, are surely fewer at fault than this share.
pub(crate) fn fewest_without_fault(share: f64, confidence: f64) -> u64 {
    let z = normal(confidence);
    // Wilson's upper bound of none of n is z² / (n + z²).
    (z * z * (1.0 / share - 1.0)).floor() as u64 + 1
}

/// How likely it is that at most so many of all calls are below a time that is in truth at this quantile.
pub(crate) fn at_most(below: u64, calls: u64, quantile: f64) -> f64 {
    if below >= calls {
        return 1.0;
    }
    beta_reg((calls - below) as f64, below as f64 + 1.0, 1.0 - quantile)
}

/// So many standard deviations above the mean, a normal distribution has this much below it.
pub(crate) fn normal(confidence: f64) -> f64 {
    Normal::standard().inverse_cdf(confidence)
}

/// The last rank from 1 to `calls` of which this holds; it holds of all before.
fn last(calls: u64, holds: impl Fn(u64) -> bool) -> Option<u64> {
    let beyond = first(calls, |rank| !holds(rank)).unwrap_or(calls + 1);
    (beyond > 1).then(|| beyond - 1)
}

/// The first rank from 1 to `calls` of which this holds; it holds of all after.
fn first(calls: u64, holds: impl Fn(u64) -> bool) -> Option<u64> {
    let (mut low, mut high) = (1, calls + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    (low <= calls).then_some(low)
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn ranks(quantile: f64, calls: u64) -> (Option<u64>, Option<u64>) {
        let Interval { low, high } = of_quantile(quantile, calls, 0.95);
        let rank = |share: f64| (share * calls as f64 + 0.5).round() as u64;
        (low.map(rank), high.map(rank))
    }

    #[test]
    fn the_bounds_of_a_quantile_stand_where_tables_have_them() {
        // Of the median of 20 values: Conover, Practical Nonparametric Statistics, the sign test.
        assert_eq!(ranks(0.5, 20), (Some(6), Some(15)));
        assert_eq!(ranks(0.99, 298), (Some(292), None));
        assert_eq!(ranks(0.99, 299), (Some(293), Some(299)));
        assert_eq!((fewest(0.99, 0.95), fewest(0.9, 0.95), fewest(0.5, 0.95)), (299, 29, 5));
        assert_eq!(ranks(0.5, 4), (None, None));
        assert_eq!(ranks(0.5, 0), (None, None));
    }

    #[test]
    fn a_bound_is_wrong_no_more_often_than_it_says() {
        let mut random = SmallRng::seed_from_u64(1);
        for (quantile, calls) in [(0.5, 100), (0.9, 200), (0.99, 500)] {
            let Interval { low, high } = of_quantile(quantile, calls, 0.95);
            let (low, high) = (low.expect("enough calls"), high.expect("enough calls"));
            let (mut above, mut below) = (0, 0);
            for _ in 0..2000 {
                let mut times: Vec<f64> = (0..calls).map(|_| random.random()).collect();
                times.sort_by(f64::total_cmp);
                let at = |share: f64| times[(share * calls as f64) as usize];
                // Evenly spread from 0 to 1, a quantile is its own value.
                above += u32::from(at(low) > quantile);
                below += u32::from(at(high) < quantile);
            }
            assert!(above <= 130 && below <= 130, "{quantile}: {above} and {below} of 2000");
            assert!(above >= 20 && below >= 20, "{quantile}: not wider than need be");
        }
    }

    #[test]
    fn the_bounds_of_a_ratio_are_wilsons() {
        // Newcombe 1998, table I: 81 of 263, with 97.5 % on each side.
        let Interval { low, high } = of_ratio(81, 263, 0.975);
        assert!((low.expect("a bound") - 0.2553).abs() < 1e-4, "{low:?}");
        assert!((high.expect("a bound") - 0.3662).abs() < 1e-4, "{high:?}");
        let none = of_ratio(0, 268, 0.95);
        assert!(none.low == Some(0.0) && none.high < Some(0.01), "{none:?}");
        assert!(of_ratio(0, 267, 0.95).high > Some(0.01));
        assert_eq!(fewest_without_fault(0.01, 0.95), 268);
        assert_eq!(of_ratio(10, 10, 0.95).high, Some(1.0));
        assert_eq!(of_ratio(0, 0, 0.95), Interval::default());
    }
}
