//! What the other side said of itself while the run went on: series of its metrics, over time.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::timeline::{Sum, Timeline};

/// Series that are kept, of all sources together.
const MOST: usize = 200;

/// All that was read of others' metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Watched {
    series: Vec<Series>,
    /// Texts that were read.
    pub(crate) reads: u64,
    /// Those that could not be had.
    pub(crate) failures: u64,
    /// Values for which there was no room.
    pub(crate) left_out: u64,
}

/// One series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    #[serde(flatten)]
    pub(crate) id: SeriesId,
    pub(crate) over_time: Timeline<Level>,
}

/// Which series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct SeriesId {
    /// The metric, by the name that it has there.
    pub(crate) name: Arc<str>,
    /// What is shown of it.
    pub(crate) shows: Shows,
    /// Where it was read.
    pub(crate) source: Arc<str>,
    /// Its labels, as `gpu="0",model="a"`.
    pub(crate) labels: Arc<str>,
}

/// What of a metric is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shows {
    /// Its value.
    Value,
    /// By how much it rose each second: of counters.
    PerSecond,
    /// The mean of what was observed since the last time: of histograms and summaries.
    Mean,
}

/// What was read in one slice of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Level {
    sum: f64,
    values: u64,
    most: f64,
}

// === impl Watched ===

impl Watched {
    /// Whether nobody was watched.
    pub(crate) fn is_empty(&self) -> bool {
        self.reads + self.failures == 0
    }

    /// Takes in one value, read so long after the start of what counts.
    pub(crate) fn record(&mut self, id: &SeriesId, at: Duration, value: f64) {
        // What is no number is no place on a chart either.
        if !value.is_finite() {
            return;
        }
        let place = self.series.iter().position(|series| series.id == *id);
        let place = match place {
            Some(place) => place,
            None if self.series.len() >= MOST => {
                self.left_out += 1;
                return;
            }
            None => {
                self.series.push(Series { id: id.clone(), over_time: Timeline::default() });
                self.series.len() - 1
            }
        };
        self.series[place].over_time.at(at).add(&Level { sum: value, values: 1, most: value });
    }

    /// Takes in what another machine has read meanwhile.
    pub(crate) fn add(&mut self, other: Self) {
        self.reads += other.reads;
        self.failures += other.failures;
        self.left_out += other.left_out;
        for series in other.series {
            match self.series.iter_mut().find(|own| own.id == series.id) {
                Some(own) => own.over_time.add(series.over_time),
                None => self.series.push(series),
            }
        }
    }

    /// Whether it is one that this program writes.
    pub(crate) fn is_sound(&self) -> bool {
        self.series.iter().all(|series| series.over_time.is_sound())
    }

    /// The series, by name and source.
    pub(crate) fn series(&self) -> Vec<&Series> {
        let mut series: Vec<_> = self.series.iter().collect();
        series.sort_by(|one, other| one.id.cmp(&other.id));
        series
    }
}

// === impl Series ===

impl Series {
    /// All that was read of it.
    pub(crate) fn total(&self) -> Level {
        let mut total = Level::default();
        self.over_time.slices().for_each(|(_, level)| total.add(level));
        total
    }

    /// What was read of it before this moment.
    pub(super) fn before(&self, moment: Duration) -> Level {
        let (mut total, half) = (Level::default(), self.over_time.slice() / 2);
        let slices = self.over_time.slices().filter(|(start, _)| *start + half < moment);
        slices.for_each(|(_, level)| total.add(level));
        total
    }
}

// === impl Shows ===

impl Shows {
    /// As it stands behind a name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Value => "",
            Self::PerSecond => ", a second",
            Self::Mean => ", mean",
        }
    }
}

// === impl Level ===

impl Level {
    /// Absent where nothing was read.
    pub(crate) fn mean(&self) -> Option<f64> {
        (self.values > 0).then(|| self.sum / self.values as f64)
    }

    /// The highest value; absent where nothing was read.
    pub(crate) fn most(&self) -> Option<f64> {
        (self.values > 0).then_some(self.most)
    }
}

impl Sum for Level {
    fn add(&mut self, other: &Self) {
        self.most = match (self.values, other.values) {
            (0, _) => other.most,
            (_, 0) => self.most,
            _ => self.most.max(other.most),
        };
        self.sum += other.sum;
        self.values += other.values;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> SeriesId {
        SeriesId {
            name: name.into(),
            shows: Shows::Value,
            source: "http://127.0.0.1:8000/metrics".into(),
            labels: "".into(),
        }
    }

    fn watched(values: &[(&str, u64, f64)]) -> Watched {
        let mut watched = Watched::default();
        for (name, second, value) in values {
            watched.record(&id(name), Duration::from_secs(*second), *value);
        }
        watched
    }

    #[test]
    fn a_series_has_the_mean_and_the_most_of_its_values() {
        let watched =
            watched(&[("b", 1, -4.0), ("b", 100, -2.0), ("a", 1, 1.0), ("b", 1, f64::NAN)]);
        let series = watched.series();
        let names: Vec<_> = series.iter().map(|series| &*series.id.name).collect();
        assert_eq!(names, ["a", "b"]);
        let total = series[1].total();
        assert_eq!((total.mean(), total.most()), (Some(-3.0), Some(-2.0)));
    }

    #[test]
    fn what_two_machines_read_is_one_series() {
        let mut one = watched(&[("a", 1, 1.0)]);
        one.add(watched(&[("a", 1, 3.0), ("b", 50, 1.0)]));
        assert_eq!(one.series().len(), 2);
        assert_eq!(one.series()[0].total().mean(), Some(2.0));
    }

    #[test]
    fn there_is_room_for_so_many_and_the_rest_is_counted() {
        let mut watched = Watched::default();
        for number in 0..MOST + 5 {
            watched.record(&id(&number.to_string()), Duration::ZERO, 1.0);
        }
        assert_eq!((watched.series().len(), watched.left_out), (MOST, 5));
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let watched = watched(&[("a", 1, 1.0), ("b", 40, 2.5)]);
        let text = serde_json::to_string(&watched).expect("it is written");
        assert_eq!(serde_json::from_str::<Watched>(&text).expect("it is read"), watched);
    }
}
