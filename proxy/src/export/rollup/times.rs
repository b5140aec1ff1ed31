//! A distribution of times that takes little room where there are few of them.

use hdrhistogram::Histogram;

/// The longest time told apart from longer ones, in milliseconds: an hour.
const LONGEST_MS: u64 = 3_600_000;
/// Significant digits: what is read is off by 1 % at most.
const DIGITS: u8 = 2;
/// Times below so many milliseconds are told apart exactly; above, one bucket is as wide as the
/// 128th part of what it holds, as those of an hdrhistogram of two digits are.
const EXACT_MS: u64 = 256;

/// Times from 1 ms to 1 h, to two significant digits: the buckets of an hdrhistogram that hold any, in
/// order, by the lowest time of each in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times(Vec<(u32, u32)>);

impl Times {
    /// Adds a time in seconds. What is longer than an hour counts as an hour.
    pub(crate) fn add(&mut self, seconds: f64) {
        // What is no number is no time.
        if seconds >= 0.0 {
            self.add_some((seconds * 1e3).round().min(LONGEST_MS as f64) as u64, 1);
        }
    }

    /// Adds other times.
    pub(crate) fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(ms, count)| self.add_some((*ms).into(), *count));
    }

    /// These and others.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        both.merge(other);
        both
    }

    /// The share of them that is over so many seconds; absent where there are none.
    pub(crate) fn share_over(&self, seconds: f64) -> Option<f64> {
        let over = self.0.iter().filter(|(ms, _)| f64::from(*ms) > seconds * 1e3);
        let over: u64 = over.map(|(_, count)| u64::from(*count)).sum();
        (!self.0.is_empty()).then(|| over as f64 / self.count() as f64)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// The buckets that hold any, in order: the lowest time of each in milliseconds, and how many.
    pub(crate) fn buckets(&self) -> impl ExactSizeIterator<Item = (u32, u32)> {
        self.0.iter().copied()
    }

    /// The distribution of these buckets, in any order.
    pub(crate) fn of_buckets(buckets: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut times = Self::default();
        for (ms, count) in buckets {
            times.add_some(u64::from(ms).min(LONGEST_MS), count);
        }
        times
    }

    /// Bytes that it takes beside itself.
    pub(crate) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<(u32, u32)>()
    }

    /// The time in seconds that this share of them is at or below, at most 1 % too high; absent where
    /// there are none.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let [quantile] = self.quantiles([share])?;
        Some(quantile)
    }

    /// Several at once.
    pub(crate) fn quantiles<const N: usize>(&self, shares: [f64; N]) -> Option<[f64; N]> {
        if self.0.is_empty() {
            return None;
        }
        let times = self.histogram();
        Some(shares.map(|share| times.value_at_quantile(share) as f64 / 1e3))
    }

    /// The same as an hdrhistogram, in milliseconds.
    pub(crate) fn histogram(&self) -> Histogram<u64> {
        let mut times = Histogram::new_with_bounds(1, LONGEST_MS, DIGITS).expect("good bounds");
        for (ms, count) in &self.0 {
            times.record_n((*ms).into(), (*count).into()).expect("none is longer than an hour");
        }
        times
    }

    fn add_some(&mut self, ms: u64, count: u32) {
        let lowest = lowest(ms) as u32;
        // Mostly it is one of the last that were added, and there are few.
        match self.0.binary_search_by_key(&lowest, |(ms, _)| *ms) {
            Ok(at) => self.0[at].1 = self.0[at].1.saturating_add(count),
            Err(at) => self.0.insert(at, (lowest, count)),
        }
    }
}

/// The lowest time of the bucket that holds this one.
fn lowest(ms: u64) -> u64 {
    let width = match ms {
        0..EXACT_MS => 0,
        _ => ms.ilog2() - (EXACT_MS.ilog2() - 1),
    };
    ms >> width << width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_an_hdrhistogram_of_two_digits() {
        let times = Histogram::<u64>::new_with_bounds(1, LONGEST_MS, DIGITS).expect("good bounds");
        for ms in (0..5_000).chain((5_000..LONGEST_MS).step_by(977)).chain([LONGEST_MS]) {
            assert_eq!(lowest(ms), times.lowest_equivalent(ms), "{ms}");
        }
    }

    #[test]
    fn quantiles_are_off_by_one_percent_at_most() {
        let mut times = Times::default();
        let exact: Vec<f64> = (1..=20_000).map(|number| f64::from(number) * 0.0037).collect();
        exact.iter().for_each(|time| times.add(*time));
        for share in [0.5, 0.9, 0.99] {
            let (read, exact) =
                (times.quantile(share).expect("some"), exact[(share * 20_000.0) as usize - 1]);
            assert!((read - exact).abs() <= 0.01 * exact, "{share}: {read} for {exact}");
        }
        assert_eq!(times.count(), 20_000);
        assert!(times.buckets().len() < 1_100, "{}", times.buckets().len());
    }

    #[test]
    fn two_distributions_add_up_and_come_back_from_their_buckets() {
        let (mut one, mut other) = (Times::default(), Times::default());
        [0.0, 0.3, 7_200.0].iter().for_each(|time| one.add(*time));
        [0.3, f64::NAN, -1.0].iter().for_each(|time| other.add(*time));
        one.merge(&other);
        assert_eq!(one.buckets().collect::<Vec<_>>(), [(0, 1), (300, 2), (3_588_096, 1)]);
        assert_eq!(Times::of_buckets(one.buckets()), one);
        assert_eq!(one.share_over(0.3), Some(0.25));
        assert_eq!(
            (Times::default().quantile(0.5), Times::default().share_over(1.0)),
            (None, None)
        );
    }
}
