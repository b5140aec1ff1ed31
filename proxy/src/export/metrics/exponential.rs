//! A histogram whose buckets grow by a factor and follow the values: as fine as its size allows.
//!
//! Bucket `i` of scale `s` holds what lies above `b^i`, up to `b^(i+1)`, where `b` is 2^(2^-s). Where
//! values lie too far apart for [`SIZE`] buckets, two become one, and the scale falls by one. So a
//! quantile that is told from it is off by no more than `b - 1` of itself, and by half of that where
//! the middle of its bucket is told.
//!
//! Source: OpenTelemetry, "Metrics Data Model", exponential histograms, and the SDK's aggregation
//! `base2_exponential_bucket_histogram`: at most 160 buckets, scale 20.

use std::collections::VecDeque;

/// Buckets, at most.
pub(super) const SIZE: usize = 160;
/// The finest scale.
const MAX_SCALE: i32 = 20;
/// At this one every finite value of a double has a place among few buckets.
const MIN_SCALE: i32 = -10;

/// How often which size occurred.
#[derive(Clone, Debug, PartialEq)]
pub struct Exponential {
    scale: i32,
    /// Of zeros, and of whatever is below: sizes have no sign.
    zeros: u64,
    /// The number of the first bucket.
    offset: i32,
    counts: VecDeque<u64>,
}

// === impl Exponential ===

impl Default for Exponential {
    fn default() -> Self {
        Self { scale: MAX_SCALE, zeros: 0, offset: 0, counts: VecDeque::new() }
    }
}

impl Exponential {
    /// Counts a value that is finite.
    pub(super) fn observe(&mut self, value: f64) {
        if value <= 0.0 {
            self.zeros += 1;
            return;
        }
        // Below the least normal number there is no telling factors apart.
        let value = value.max(f64::MIN_POSITIVE);
        self.make_room(index(value, self.scale), index(value, self.scale));
        self.add(index(value, self.scale), 1);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.zeros += other.zeros;
        if other.counts.is_empty() {
            return;
        }
        self.lower_to(other.scale);
        let last = |of: &Self| of.offset + of.counts.len() as i32 - 1;
        let by = other.scale - self.scale;
        self.make_room(other.offset >> by, last(other) >> by);
        let by = other.scale - self.scale;
        for (at, count) in other.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            self.add((other.offset + at as i32) >> by, *count);
        }
    }

    /// The same, no finer than this.
    pub fn at_most(&self, scale: i32) -> Self {
        let mut coarse = self.clone();
        coarse.lower_to(scale);
        coarse
    }

    /// How fine it is.
    pub fn scale(&self) -> i32 {
        self.scale
    }

    /// How many values are zero.
    pub fn zeros(&self) -> u64 {
        self.zeros
    }

    /// The number of the first bucket.
    pub fn offset(&self) -> i32 {
        self.offset
    }

    /// How many values are in each bucket, from the first on.
    pub fn counts(&self) -> impl Iterator<Item = u64> {
        self.counts.iter().copied()
    }

    /// Lowers the scale until these buckets, of the scale as it is, have room beside those that are
    /// there.
    fn make_room(&mut self, first: i32, last: i32) {
        let (mut first, mut last) = match self.counts.len() as i32 {
            0 => (first, last),
            length => (first.min(self.offset), last.max(self.offset + length - 1)),
        };
        let mut by = 0;
        while last - first >= SIZE as i32 && self.scale - by > MIN_SCALE {
            (first, last, by) = (first >> 1, last >> 1, by + 1);
        }
        self.lower_to(self.scale - by);
    }

    fn lower_to(&mut self, scale: i32) {
        let by = self.scale - scale;
        if by <= 0 {
            return;
        }
        let (old, from) = (std::mem::take(&mut self.counts), self.offset);
        (self.scale, self.offset) = (scale, from >> by);
        for (at, count) in old.into_iter().enumerate() {
            self.add((from + at as i32) >> by, count);
        }
    }

    fn add(&mut self, index: i32, count: u64) {
        if self.counts.is_empty() {
            self.offset = index;
        }
        while index < self.offset {
            self.counts.push_front(0);
            self.offset -= 1;
        }
        let at = (index - self.offset) as usize;
        while self.counts.len() <= at {
            self.counts.push_back(0);
        }
        self.counts[at] += count;
    }
}

/// The bucket of a value that is normal and above zero.
fn index(value: f64, scale: i32) -> i32 {
    const MANTISSA: u64 = (1 << 52) - 1;
    let exponent = (value.to_bits() >> 52) as i32 - 1023;
    let is_power = value.to_bits() & MANTISSA == 0;
    // A power of two is the upper end of its bucket, at every scale: told by its bits, for a
    // logarithm might miss it.
    match (is_power, scale > 0) {
        (true, true) => (exponent << scale) - 1,
        (true, false) => (exponent - 1) >> -scale,
        (false, false) => exponent >> -scale,
        (false, true) => {
            let fraction = f64::from_bits(value.to_bits() & MANTISSA | 1023 << 52);
            let within = (fraction.log2() * f64::from(1_i32 << scale)).ceil() as i32 - 1;
            // Rounding must not carry it beyond its octave.
            (exponent << scale) + within.clamp(0, (1 << scale) - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counted(values: &[f64]) -> Exponential {
        let mut histogram = Exponential::default();
        values.iter().for_each(|value| histogram.observe(*value));
        histogram
    }

    fn total(histogram: &Exponential) -> u64 {
        histogram.zeros() + histogram.counts().sum::<u64>()
    }

    fn base(scale: i32) -> f64 {
        2_f64.powf(2_f64.powi(-scale))
    }

    /// The middle, by factor, of the bucket in which this share lies.
    fn quantile(histogram: &Exponential, share: f64) -> f64 {
        let rank = (share * total(histogram) as f64).ceil().max(1.0) as u64;
        let mut below = histogram.zeros();
        if below >= rank {
            return 0.0;
        }
        for (at, count) in histogram.counts().enumerate() {
            below += count;
            if below >= rank {
                let index = f64::from(histogram.offset() + at as i32);
                return base(histogram.scale()).powf(index + 0.5);
            }
        }
        unreachable!("all are counted")
    }

    #[test]
    fn values_lie_in_the_buckets_that_the_specification_gives_them() {
        for (value, scale, expected) in [
            (1.0, 0, -1),
            (1.5, 0, 0),
            (2.0, 0, 0),
            (2.1, 0, 1),
            (4.0, 0, 1),
            (4.0, -1, 0),
            (4.1, -1, 1),
            (0.25, 0, -3),
            (0.3, 0, -2),
            (1.0, 3, -1),
            (2.0, 3, 7),
            (2_f64.powf(0.25), 2, 0),
            (1.2, 2, 1),
        ] {
            assert_eq!(index(value, scale), expected, "{value} at {scale}");
        }
    }

    #[test]
    fn one_value_is_as_fine_as_can_be_and_far_ones_are_not() {
        let one = counted(&[2.5]);
        assert_eq!((one.scale(), one.counts().collect::<Vec<_>>()), (20, vec![1]));
        let far = counted(&[f64::MIN_POSITIVE, f64::MAX, 0.0, 5e-324]);
        assert_eq!((total(&far), far.zeros()), (4, 1));
        assert!(far.counts().count() <= SIZE);
        // From a millisecond to a quarter of an hour: within 4.4 % of itself, or 2.2 % off its middle.
        let calls: Vec<_> = (1..=900_000).step_by(7).map(|ms| f64::from(ms) / 1e3).collect();
        assert_eq!(counted(&calls).scale(), 3);
    }

    fn times() -> impl Strategy<Value = Vec<f64>> {
        let magnitudes =
            prop_oneof![1e-5..1e-2_f64, 0.001..10.0_f64, 1.0..900.0_f64, Just(0.0), Just(2.0)];
        prop::collection::vec(magnitudes, 1..400)
    }

    proptest! {
        #[test]
        fn quantiles_are_within_the_bound_of_the_scale(mut values in times()) {
            let histogram = counted(&values);
            prop_assert_eq!(total(&histogram), values.len() as u64);
            prop_assert!(histogram.counts().count() <= SIZE);
            values.sort_by(f64::total_cmp);
            let most = base(histogram.scale()).sqrt() * (1.0 + 1e-9);
            for share in [0.01, 0.5, 0.9, 0.99, 1.0] {
                let rank = (share * values.len() as f64).ceil().max(1.0) as usize;
                let (exact, told) = (values[rank - 1], quantile(&histogram, share));
                let is_good = exact == told || (told <= exact * most && told >= exact / most);
                prop_assert!(is_good, "{told} for {exact} at scale {}", histogram.scale());
            }
        }

        #[test]
        fn two_add_up_to_what_one_would_have_counted(one in times(), other in times()) {
            let mut sum = counted(&one);
            sum.merge(&counted(&other));
            let whole = counted(&[one, other].concat());
            prop_assert!(sum.counts().count() <= SIZE);
            prop_assert!(sum.scale() >= whole.scale() - 1 && sum.scale() <= whole.scale());
            let trimmed = |histogram: &Exponential| {
                let counts: Vec<_> = histogram.counts().enumerate().filter(|(_, count)| *count > 0).collect();
                counts.into_iter().map(|(at, count)| (histogram.offset() + at as i32, count)).collect::<Vec<_>>()
            };
            prop_assert_eq!(trimmed(&sum), trimmed(&whole.at_most(sum.scale())));
            prop_assert_eq!(sum.zeros(), whole.zeros());
        }
    }
}
