//! Whether calls pile up: at a rate beyond the capacity those in flight become more and more, even where
//! the objectives still hold in the short time of a step.

use std::time::Duration;

/// So many standard deviations of what chance does to the number of calls that come: beyond that they
/// have not become more by chance.
const SURE: f64 = 2.0;
/// Fewer looks say nothing.
const FEWEST: usize = 5;

/// By how many the calls in flight grew from the first look to the last: by the straight line through all
/// of them (least squares).
pub(crate) fn growth(looks: &[(Duration, u64)]) -> f64 {
    if looks.len() < FEWEST {
        return 0.0;
    }
    let looks: Vec<_> = looks.iter().map(|(at, calls)| (at.as_secs_f64(), *calls as f64)).collect();
    let mean = |of: fn(&(f64, f64)) -> f64| looks.iter().map(of).sum::<f64>() / looks.len() as f64;
    let (at, calls) = (mean(|look| look.0), mean(|look| look.1));
    let together: f64 = looks.iter().map(|look| (look.0 - at) * (look.1 - calls)).sum();
    let spread: f64 = looks.iter().map(|look| (look.0 - at).powi(2)).sum();
    let length = looks[looks.len() - 1].0 - looks[0].0;
    if spread > 0.0 { together / spread * length } else { 0.0 }
}

/// Whether calls grew by more than chance, where so many were to come: their number varies by its root.
pub(crate) fn piles_up((growth, calls): (f64, f64)) -> bool {
    growth > SURE * calls.max(1.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(calls: impl Fn(u64) -> u64) -> Vec<(Duration, u64)> {
        (0..100).map(|second| (Duration::from_secs(second), calls(second))).collect()
    }

    #[test]
    fn what_grows_steadily_is_told_from_what_goes_up_and_down() {
        let steady = growth(&looks(|second| 50 + 3 * second));
        assert!((steady - 297.0).abs() < 1e-6, "{steady}");
        let wavering = growth(&looks(|second| 50 + 30 * (second % 2)));
        assert!(wavering.abs() < 2.0, "{wavering}");
        assert!(piles_up((steady, 2000.0)) && !piles_up((wavering, 2000.0)));
        assert!(!piles_up((steady, 40_000.0)), "as many more may come by chance");
        assert_eq!(growth(&looks(|_| 7)[..3]), 0.0);
    }
}
