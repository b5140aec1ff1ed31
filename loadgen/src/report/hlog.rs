//! The distributions as an interval log of hdrhistogram, which its tools in every language read.
//!
//! Values are microseconds. What is kept over time has an interval for each slice of the run; the
//! other times have one for all of it. The tag is the name of the metric.

use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use tidegate_settings::Metric;

use super::Report;
use crate::figures::{OVER_TIME, Times};

/// Largest values are written in milliseconds.
const MICROSECONDS_IN_MILLISECOND: f64 = 1e3;

impl Report {
    /// The distributions as the text of an `.hlog` file.
    pub fn hlog(&self) -> String {
        let mut log = Vec::new();
        let mut serializer = V2DeflateSerializer::new();
        let mut builder = IntervalLogWriterBuilder::new();
        builder
            .add_comment("[Histogram log format version 1.3]")
            .add_comment("[tidegate load: values in microseconds, from when a call was due; service_: from when it was sent]")
            .with_start_time(SystemTime::from(self.run.began))
            .with_base_time(SystemTime::from(self.run.began))
            .with_max_value_divisor(MICROSECONDS_IN_MILLISECOND);
        let mut writer = builder
            .begin_log_with(&mut log, &mut serializer)
            .expect("memory takes what it is given");
        for (metric, start, length, times) in self.intervals() {
            let Some(histogram) = times.histogram() else { continue };
            let tag = Tag::new(metric.as_str()).expect("a metric's name has no comma or space");
            writer
                .write_histogram(histogram, start, length, Some(tag))
                .expect("memory takes what it is given");
        }
        String::from_utf8(log).expect("an interval log is text")
    }

    fn intervals(&self) -> Vec<(Metric, Duration, Duration, Times)> {
        let timeline = &self.figures.timeline;
        let whole = Duration::from_secs_f64(self.run.lasted_s.max(0.0));
        let over_time = timeline.slices().flat_map(|(start, slice)| {
            let times = slice.times.iter();
            times.map(move |(metric, times)| (*metric, start, timeline.slice(), times.clone()))
        });
        let others = Metric::TIMES.into_iter().filter(|metric| !OVER_TIME.contains(metric));
        let others =
            others.map(|metric| (metric, Duration::ZERO, whole, self.figures.times(metric)));
        over_time.chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::report::tests::report;

    #[test]
    fn another_reader_finds_the_same_distributions() {
        let report = report("m");
        let log = report.hlog();
        let mut sums = BTreeMap::<String, Histogram<u64>>::new();
        let mut has_start = false;
        for entry in IntervalLogIterator::new(log.as_bytes()) {
            match entry.expect("a line that reads") {
                LogEntry::StartTime(_) => has_start = true,
                LogEntry::BaseTime(_) => {}
                LogEntry::Interval(interval) => {
                    let tag = interval.tag().expect("each has one").as_str().to_owned();
                    let bytes = STANDARD.decode(interval.encoded_histogram()).expect("base64");
                    let read: Histogram<u64> =
                        Deserializer::new().deserialize(&mut &*bytes).expect("a histogram");
                    sums.entry(tag)
                        .or_insert_with(|| Histogram::new(3).expect("three digits"))
                        .add(read)
                        .expect("it grows");
                }
            }
        }
        assert!(has_start && log.starts_with("#[Histogram log format version 1.3]\n"), "{log}");
        for metric in [Metric::TimeToFirstToken, Metric::Duration, Metric::ServiceDuration] {
            let own = report.figures.times(metric).quantiles().expect("it was measured");
            let read = &sums[metric.as_str()];
            assert_eq!(read.len(), own.count, "{metric}");
            assert_eq!(read.value_at_quantile(0.99) as f64 / 1e6, own.p99, "{metric}");
        }
    }
}
