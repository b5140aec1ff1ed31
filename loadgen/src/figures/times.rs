//! A distribution of times: hdrhistogram's, so that those of several runs add up exactly.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer as Reader, Serializer as _, V2DeflateSerializer};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A distribution of times, in microseconds with three significant digits. Empty, it takes nothing.
///
/// Serialises as the text that `.hlog` files have, which any implementation of hdrhistogram reads.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Times(Option<Box<Histogram<u64>>>);

/// What a report says of a distribution; all in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    /// How many were measured.
    pub count: u64,
    /// The smallest.
    pub min: f64,
    /// The mean.
    pub mean: f64,
    /// Half are at or below.
    pub p50: f64,
    /// Nine in ten are at or below.
    pub p90: f64,
    /// 95 in a hundred are at or below.
    pub p95: f64,
    /// 99 in a hundred are at or below.
    pub p99: f64,
    /// 999 in a thousand are at or below.
    #[serde(rename = "p99.9")]
    pub p999: f64,
    /// The largest.
    pub max: f64,
}

/// The longest text that is taken for a distribution: one of every time up to an hour has less.
const LONGEST_TEXT: usize = 1 << 20;

// === impl Times ===

impl Times {
    /// The longest time told apart from longer ones.
    pub(crate) const LONGEST: Duration = Duration::from_secs(3600);

    pub(crate) fn record(&mut self, time: Duration) {
        let microseconds = time.min(Self::LONGEST).as_micros() as u64;
        self.filled().record(microseconds).expect("the histogram grows up to an hour");
    }

    pub(crate) fn seconds(&mut self, seconds: f64) {
        // A time is never negative but for what rounding takes from it.
        self.record(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Self::LONGEST));
    }

    /// Takes in another distribution.
    pub(crate) fn add(&mut self, other: &Self) {
        if let Some(other) = &other.0 {
            self.filled().add(&**other).expect("the histogram grows to the other's size");
        }
    }

    /// The distribution itself, in microseconds; absent where there are none.
    pub(crate) fn histogram(&self) -> Option<&Histogram<u64>> {
        self.0.as_deref()
    }

    /// In seconds: the standard deviation; absent where there are none.
    pub(crate) fn deviation(&self) -> Option<f64> {
        self.0.as_ref().map(|times| times.stdev() / 1e6)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |times| times.len())
    }

    /// In seconds: this share of all is no longer; absent where there are none.
    pub(crate) fn at(&self, quantile: f64) -> Option<f64> {
        let times = self.0.as_ref()?;
        Some(times.value_at_quantile(quantile) as f64 / 1e6)
    }

    /// How many are shorter than so many seconds, to three digits of it.
    pub(crate) fn below(&self, seconds: f64) -> u64 {
        let microseconds = (seconds * 1e6).ceil() as u64;
        match (&self.0, microseconds.checked_sub(1)) {
            (Some(times), Some(longest)) => times.count_between(0, longest),
            _ => 0,
        }
    }

    /// Seconds and how many there are of them, rising.
    #[cfg(test)]
    pub(crate) fn steps(&self) -> impl Iterator<Item = (f64, u64)> {
        let recorded = self.0.iter().flat_map(|times| times.iter_recorded());
        recorded.map(|step| (step.value_iterated_to() as f64 / 1e6, step.count_at_value()))
    }

    /// The distribution in a few numbers; absent where nothing was measured.
    pub(crate) fn quantiles(&self) -> Option<Quantiles> {
        let times = self.0.as_ref()?;
        let at = |quantile| times.value_at_quantile(quantile) as f64 / 1e6;
        Some(Quantiles {
            count: times.len(),
            min: times.min() as f64 / 1e6,
            mean: times.mean() / 1e6,
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: times.max() as f64 / 1e6,
        })
    }

    fn filled(&mut self) -> &mut Histogram<u64> {
        let new = || Histogram::new(3).expect("three digits are within what a histogram offers");
        self.0.get_or_insert_with(|| Box::new(new()))
    }
}

impl Serialize for Times {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(times) = &self.0 else { return serializer.serialize_none() };
        let mut bytes = Vec::new();
        let written = V2DeflateSerializer::new().serialize(&**times, &mut bytes);
        written.map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Times {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else {
            return Ok(Self::default());
        };
        let wrong = || D::Error::custom("this is no histogram");
        let short = Some(text).filter(|text| text.len() <= LONGEST_TEXT).ok_or_else(wrong)?;
        let bytes = STANDARD.decode(short).map_err(|_| wrong())?;
        let read: Histogram<u64> = Reader::new().deserialize(&mut &*bytes).map_err(|_| wrong())?;
        let is_ours = read.sigfig() == 3 && u128::from(read.max()) <= Self::LONGEST.as_micros() * 2;
        let mut times = Self::default();
        if is_ours && !read.is_empty() {
            // Into one of ours, which grows where that one may not.
            times.filled().add(read).map_err(|_| wrong())?;
        }
        if is_ours { Ok(times) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(milliseconds: impl IntoIterator<Item = u64>) -> Times {
        let mut times = Times::default();
        milliseconds.into_iter().for_each(|ms| times.record(Duration::from_millis(ms)));
        times
    }

    fn near(measured: f64, expected: f64) -> bool {
        (measured / expected - 1.0).abs() < 0.001
    }

    #[test]
    fn quantiles_are_those_of_the_times() {
        let quantiles = times(101..=1100).quantiles().expect("there were some");
        assert_eq!(quantiles.count, 1000);
        assert!(near(quantiles.p50, 0.6) && near(quantiles.p90, 1.0), "{quantiles:?}");
        assert!(near(quantiles.p99, 1.09) && near(quantiles.p999, 1.099), "{quantiles:?}");
        assert!(near(quantiles.max, 1.1), "{quantiles:?}");
        assert_eq!(times([]).quantiles(), None);
    }

    #[test]
    fn a_time_over_an_hour_is_kept_as_an_hour() {
        let mut times = Times::default();
        times.seconds(1e9);
        assert!(near(times.quantiles().expect("one").max, 3600.0));
        let text = serde_json::to_string(&times).expect("it is written");
        assert_eq!(serde_json::from_str::<Times>(&text).expect("and read"), times);
    }

    #[test]
    fn what_is_added_is_as_if_recorded_here() {
        let mut sum = times(1..500);
        sum.add(&times(500..9000));
        sum.add(&times([]));
        assert_eq!(sum, times(1..9000));
        let mut sum = times([]);
        sum.add(&times(1..10));
        assert_eq!(sum, times(1..10));
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for times in [times([]), times([0]), times(1..9000), times([1, 3_600_000])] {
            let text = serde_json::to_string(&times).expect("it is written");
            let read: Times = serde_json::from_str(&text).expect("it is read");
            assert_eq!(read.quantiles(), times.quantiles());
            assert!(read.steps().eq(times.steps()));
        }
        for text in ["\"\"", "\"HISTF\"", "\"AAAA\"", "3"] {
            assert!(serde_json::from_str::<Times>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shorter_is_counted() {
        let times = times(1..=100);
        assert_eq!((times.below(0.0505), times.below(0.001), times.below(10.0)), (50, 0, 100));
        assert_eq!(times.below(0.0), 0);
    }
}
