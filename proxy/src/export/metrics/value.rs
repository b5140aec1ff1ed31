//! What is counted: numbers, and how often which size occurred.

use jiff::{SignedDuration, Timestamp};
use tidegate_wire::{Record, SpanId, TraceId};

use super::exponential::Exponential;

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

/// What was counted of calls, where it is counted.
#[derive(Clone, Copy, Debug)]
pub(in crate::export) enum Counted<'a> {
    Counter(u64),
    Amount(Amount),
    Histogram(&'a Histogram),
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
    /// The same by buckets that follow the values, where that is asked for.
    exponential: Option<Box<Exponential>>,
    /// The newest of each bucket that has one; absent until the first comes.
    exemplars: Option<Box<Exemplars>>,
}

/// Examples of a histogram, by their buckets.
#[derive(Clone, Debug, Default, PartialEq)]
struct Exemplars(Vec<(u8, Exemplar)>);

/// One call as an example of what was counted: where its trace is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// The trace of the call.
    pub trace_id: TraceId,
    /// Its span there.
    pub span_id: SpanId,
    /// When the call ended.
    pub time: Timestamp,
    /// The value that was counted.
    pub value: f64,
}

/// A histogram for each of so many classes; there is none until one has a value.
#[derive(Clone, Debug)]
pub(in crate::export) struct ByClass<const N: usize> {
    all: Option<Box<[Histogram; N]>>,
    is_exponential: bool,
}

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

    /// Adds what was counted of calls.
    pub(super) fn add(&mut self, counted: Counted<'_>) {
        match (self, counted) {
            (Self::Counter(sum), Counted::Counter(count)) => *sum = sum.saturating_add(count),
            (Self::Amount(sum), Counted::Amount(amount)) => sum.add(amount),
            (Self::Histogram(sum), Counted::Histogram(counted)) => sum.merge(counted),
            _ => debug_assert!(false, "a family has one kind of value"),
        }
    }
}

// === impl Counted ===

impl Counted<'_> {
    /// Whether there is no such series yet.
    pub(super) fn is_nothing(self) -> bool {
        matches!(self, Self::Histogram(counted) if counted.count() == 0)
    }

    pub(super) fn to_value(self) -> Value {
        match self {
            Self::Counter(count) => Value::Counter(count),
            Self::Amount(amount) => Value::Amount(amount),
            Self::Histogram(counted) => Value::Histogram(counted.clone()),
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
        Self { bounds, counts: Vec::new(), sum: 0.0, exponential: None, exemplars: None }
    }

    /// The same, which counts by exponential buckets too, if that is so.
    pub(super) fn with_exponential(self, is_wanted: bool) -> Self {
        Self { exponential: is_wanted.then(Box::default), ..self }
    }

    /// Counts a value, where there is one and it is a number: one NaN would spoil the sum for good.
    pub(crate) fn observe(&mut self, value: Option<f64>) {
        self.observe_call(value, None);
    }

    /// The same, with the call as an example of its bucket.
    pub(super) fn observe_call(&mut self, value: Option<f64>, call: Option<&Record>) {
        let Some(value) = value.filter(|value| value.is_finite()) else { return };
        if self.counts.is_empty() {
            self.counts = vec![0; self.bounds.len() + 1];
        }
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket] += 1;
        self.sum += value;
        if let Some(exponential) = &mut self.exponential {
            exponential.observe(value);
        }
        if let Some(call) = call {
            let exemplar = Exemplar {
                trace_id: call.trace_id,
                span_id: call.span_id,
                time: ended(call),
                value,
            };
            self.exemplars.get_or_insert_default().put(bucket as u8, exemplar);
        }
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
        if let Some(other) = &other.exponential {
            self.exponential.get_or_insert_default().merge(other);
        }
        if let Some(others) = &other.exemplars {
            let mine = self.exemplars.get_or_insert_default();
            others.0.iter().for_each(|(bucket, exemplar)| mine.put(*bucket, *exemplar));
        }
    }

    /// What was counted by exponential buckets; absent where that was not asked for.
    pub fn exponential(&self) -> Option<&Exponential> {
        self.exponential.as_deref()
    }

    /// Examples, each with the number of its bucket, in no order.
    pub fn exemplars(&self) -> impl Iterator<Item = (usize, &Exemplar)> {
        let all = self.exemplars.iter().flat_map(|exemplars| &exemplars.0);
        all.map(|(bucket, exemplar)| (usize::from(*bucket), exemplar))
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

fn ended(call: &Record) -> Timestamp {
    let lasted = SignedDuration::try_from_secs_f64(call.duration_s.unwrap_or_default());
    lasted.ok().and_then(|lasted| call.time.checked_add(lasted).ok()).unwrap_or(call.time)
}

// === impl Exemplars ===

impl Exemplars {
    /// Puts it into this bucket, unless what is there is newer. Few buckets have one: calls with the
    /// same labels take about as long.
    fn put(&mut self, bucket: u8, exemplar: Exemplar) {
        match self.0.iter_mut().find(|(own, _)| *own == bucket) {
            Some((_, old)) if old.time > exemplar.time => {}
            Some((_, old)) => *old = exemplar,
            None => self.0.push((bucket, exemplar)),
        }
    }
}

// === impl ByClass ===

impl<const N: usize> ByClass<N> {
    /// Whether they count by exponential buckets too.
    pub(super) fn new(is_exponential: bool) -> Self {
        Self { all: None, is_exponential }
    }

    /// Counts seconds in this class.
    pub(super) fn observe(&mut self, class: usize, seconds: f64) {
        self.all()[class].observe(Some(seconds));
    }

    /// Those that there are, from the first class on.
    pub(in crate::export) fn iter(&self) -> impl Iterator<Item = &Histogram> {
        self.all.as_deref().into_iter().flatten()
    }

    fn all(&mut self) -> &mut [Histogram; N] {
        let new = |_| Histogram::new(SECONDS).with_exponential(self.is_exponential);
        self.all.get_or_insert_with(|| Box::new(std::array::from_fn(new)))
    }
}
