//! What is counted: numbers, and how often which size occurred.

/// Upper bounds of times in seconds: 2 s and 3 s are exact, for objectives.
pub const SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0,
    15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 900.0,
];
/// Upper bounds of seconds per output token.
pub const SECONDS_PER_TOKEN: &[f64] =
    &[0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5];
/// Upper bounds of the seconds that Tidegate adds.
pub const SECONDS_ADDED: &[f64] =
    &[0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0];
/// Upper bounds of tokens per call, as the GenAI conventions advise.
pub const TOKENS: &[f64] = &[
    1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0,
    16777216.0, 67108864.0,
];

/// What was counted.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number that only grows.
    Counter(u64),
    /// An amount that only grows.
    Amount(Amount),
    /// A number that goes up and down.
    Gauge(i64),
    /// The same, where it need not be whole: a share, an amount of money, a time.
    Measure(f64),
    /// How often which size occurred.
    Histogram(Histogram),
}

/// An amount such as 0.25 seconds or dollars, counted in whole picos (10⁻¹²) of its unit: whole
/// numbers add up the same in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount(u128);

/// How often which size occurred, by upper bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One count a bound and one beyond them; empty until the first value comes.
    counts: Vec<u64>,
    sum: f64,
}

/// A histogram for each of so many classes; there is none until one has a value.
#[derive(Clone, Debug, Default)]
pub(in crate::export) struct ByClass<const N: usize>(Option<Box<[Histogram; N]>>);

// === impl Value ===

impl Value {
    /// Adds another worker's part of the same series.
    pub(super) fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::Counter(sum), Self::Counter(count)) => *sum = sum.saturating_add(*count),
            (Self::Amount(sum), Self::Amount(amount)) => sum.add(*amount),
            (Self::Gauge(sum), Self::Gauge(count)) => *sum += count,
            (Self::Measure(sum), Self::Measure(measure)) => *sum += measure,
            (Self::Histogram(sum), Self::Histogram(counted)) => sum.merge(counted),
            _ => debug_assert!(false, "a family has one kind of value"),
        }
    }
}

// === impl Amount ===

impl Amount {
    const PICOS: f64 = 1e12;

    /// So many units, and fractions of one. What is below zero, or no number, is nothing.
    pub(crate) fn new(units: f64) -> Self {
        Self((units * Self::PICOS).round() as u128)
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.0 = self.0.saturating_add(other.0);
    }

    /// It in its unit, as exporters show it.
    pub fn units(self) -> f64 {
        self.0 as f64 / Self::PICOS
    }
}

// === impl Histogram ===

impl Histogram {
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: Vec::new(), sum: 0.0 }
    }

    /// Counts a value, where there is one and it is a number: one NaN would spoil the sum for good.
    pub(crate) fn observe(&mut self, value: Option<f64>) {
        let Some(value) = value.filter(|value| value.is_finite()) else { return };
        if self.counts.is_empty() {
            self.counts = vec![0; self.bounds.len() + 1];
        }
        self.counts[self.bounds.partition_point(|bound| *bound < value)] += 1;
        self.sum += value;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.counts.clone_from(&other.counts);
        } else {
            for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
                *sum += count;
            }
        }
        self.sum += other.sum;
    }

    /// The value below which this share of them lies, told from the buckets as Prometheus does: as if
    /// each were filled evenly, and beyond the last bound that bound. Nothing where nothing was counted.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let rank = share * self.count() as f64;
        let mut below = 0.0;
        for (at, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = *count as f64;
            if below + count >= rank {
                let end = self.bounds.get(at).or(self.bounds.last())?;
                let start = at.checked_sub(1).map_or(0.0, |before| self.bounds[before]);
                return Some(start + (end - start) * ((rank - below) / count).min(1.0));
            }
            below += count;
        }
        None
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all values.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// The upper bounds; values beyond the last one are counted too.
    pub fn bounds(&self) -> &'static [f64] {
        self.bounds
    }

    /// How many values lie between each bound and the one before it, and last, beyond them all.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }
}

// === impl ByClass ===

impl<const N: usize> ByClass<N> {
    /// Counts seconds in this class.
    pub(super) fn observe(&mut self, class: usize, seconds: f64) {
        self.all()[class].observe(Some(seconds));
    }

    pub(super) fn merge(&mut self, other: &Self) {
        if let Some(others) = &other.0 {
            self.all().iter_mut().zip(others.iter()).for_each(|(mine, other)| mine.merge(other));
        }
    }

    /// Those that there are, from the first class on.
    pub(in crate::export) fn iter(&self) -> impl Iterator<Item = &Histogram> {
        self.0.as_deref().into_iter().flatten()
    }

    fn all(&mut self) -> &mut [Histogram; N] {
        self.0.get_or_insert_with(|| Box::new(std::array::from_fn(|_| Histogram::new(SECONDS))))
    }
}
