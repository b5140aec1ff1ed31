//! Metrics in the text format of Prometheus.

use std::sync::Arc;

use ::prometheus::proto::MetricType;
use ::prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily};
use ::prometheus::{TEXT_FORMAT, TextEncoder};
use bytes::Bytes;

use super::catalog::{FAMILIES, Family, Kind};
use super::metrics::{self, Point, Registry, Slice, Snapshot, Value};
use super::names::Conventions;
use super::{delimited, openmetrics};

/// The content type of the text format.
pub const CONTENT_TYPE: &str = TEXT_FORMAT;

/// Points that are written at a time: of histograms some 100 KiB.
const POINTS: usize = 16;

/// A page of metrics, of which each part is made when it is asked for.
pub type Page = Box<dyn Iterator<Item = Bytes> + Send>;

/// All metrics of a registry.
#[derive(Clone, Debug)]
pub struct Prometheus(Arc<Registry>);

/// The formats in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    OpenMetrics,
    Delimited,
}

// === impl Prometheus ===

impl Prometheus {
    /// Shows this registry.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self(registry)
    }

    /// All metrics of this moment, as somebody with this `Accept` asks for them, and the type of that.
    pub fn accepted(&self, accept: &str) -> (&'static str, Page) {
        let snapshot = self.0.snapshot();
        match Format::accepted(accept, self.0.is_exponential()) {
            Format::Delimited => (delimited::CONTENT_TYPE, Box::new(delimited::page(snapshot))),
            Format::OpenMetrics => {
                (openmetrics::CONTENT_TYPE, Box::new(openmetrics::page(snapshot, POINTS)))
            }
            Format::Text => (CONTENT_TYPE, Box::new(page(snapshot, POINTS))),
        }
    }
}

/// All metrics of a snapshot as text, so many points at a time; by name, as the libraries of
/// Prometheus show them.
fn page(snapshot: Snapshot, points: usize) -> impl Iterator<Item = Bytes> {
    let mut families = FAMILIES.to_vec();
    families.sort_by_key(|family| family.prometheus);
    let conventions = snapshot.conventions;
    snapshot.slices(families, points).map(move |slice| Bytes::from(text(slice, conventions)))
}

fn text(slice: Slice, conventions: Conventions) -> String {
    let is_first = slice.is_first;
    let mut text = String::new();
    TextEncoder::new()
        .encode_utf8(&[encode(slice.family, conventions, slice.points)], &mut text)
        .expect("it has a name and points, and a string takes all that is written");
    if !is_first {
        // The encoder says of each part what it is part of: the page says so once.
        let head = text.match_indices('\n').nth(1).map_or(0, |(at, _)| at + 1);
        text.drain(..head);
    }
    text
}

// === impl Format ===

impl Format {
    /// What somebody with this `Accept` would rather have. Protocol buffers say more than text only where
    /// there are native histograms.
    fn accepted(accept: &str, has_native: bool) -> Self {
        const TYPES: [(&str, Format); 3] = [
            ("text/plain", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("application/vnd.google.protobuf", Format::Delimited),
        ];
        let quality = |wanted: &str| {
            let ranges = accept.split(',').map(|range| range.split(';').map(str::trim));
            let qualities = ranges.filter_map(|mut range| {
                let is_wanted = range.next()?.eq_ignore_ascii_case(wanted);
                let quality = range.find_map(|part| part.strip_prefix("q=")?.parse().ok());
                is_wanted.then(|| quality.unwrap_or(1.0))
            });
            qualities.fold(0.0, f64::max)
        };
        let offered = TYPES.iter().filter(|(_, format)| has_native || *format != Self::Delimited);
        let wanted = offered.map(|(name, format)| (quality(name), *format));
        let wanted = wanted.filter(|(quality, _)| *quality > 0.0);
        // Of equals the last, which says the most.
        let best = wanted.max_by(|(one, _), (other, _)| one.total_cmp(other));
        best.map_or(Self::Text, |(_, format)| format)
    }
}

fn encode(family: &Family, conventions: Conventions, points: Vec<Point>) -> MetricFamily {
    let mut encoded = MetricFamily::default();
    encoded.set_name(family.prometheus.into());
    encoded.set_help(family.help.into());
    encoded.set_field_type(match family.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    let points = points.into_iter().map(|point| encode_point(family, conventions, point));
    encoded.set_metric(points.collect());
    encoded
}

fn encode_point(family: &Family, conventions: Conventions, point: Point) -> Metric {
    let labels = family.shown(conventions).zip(point.labels).map(|(label, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(label.prometheus.into());
        pair.set_value(value.to_string());
        pair
    });
    let mut metric = Metric::from_label(labels.collect());
    match point.value {
        Value::Counter(count) => metric.set_counter(counter(count as f64)),
        Value::Amount(amount) => metric.set_counter(counter(amount.units())),
        Value::Gauge(value) => metric.set_gauge(gauge(value as f64)),
        Value::Measure(value) => metric.set_gauge(gauge(value)),
        Value::Histogram(histogram) => metric.set_histogram(encode_histogram(&histogram)),
    }
    metric
}

fn counter(value: f64) -> Counter {
    let mut counter = Counter::default();
    counter.set_value(value);
    counter
}

fn gauge(value: f64) -> Gauge {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    gauge
}

/// Buckets of Prometheus are cumulative; the last one, without a bound, goes by itself.
fn encode_histogram(histogram: &metrics::Histogram) -> Histogram {
    let mut below = 0;
    let buckets = histogram.bounds().iter().zip(histogram.counts()).map(|(bound, count)| {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(below);
        bucket
    });
    let mut encoded = Histogram::default();
    encoded.set_bucket(buckets.collect());
    encoded.set_sample_count(histogram.count());
    encoded.set_sample_sum(histogram.sum());
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::tests::busy_registry;

    #[test]
    fn a_page_reads_the_same_in_whatever_parts_it_is_made() {
        let registry = busy_registry();
        let whole = |page: &mut dyn Iterator<Item = Bytes>| {
            let parts: Vec<_> = page.collect();
            (parts.len(), parts.concat())
        };
        let families: Vec<_> = {
            let snapshot = registry.snapshot();
            let points = snapshot.families();
            points.map(|(family, points)| encode(family, snapshot.conventions, points)).collect()
        };
        let mut by_name = families;
        by_name.sort_by(|one, other| one.name().cmp(other.name()));
        let expected = TextEncoder::new().encode_to_string(&by_name).expect("it encodes");
        for points in [1, 2, 3, POINTS, usize::MAX] {
            let (parts, text) = whole(&mut page(registry.snapshot(), points));
            assert_eq!(text, expected.as_bytes(), "{points} at a time");
            assert!(parts > FAMILIES.len() || points >= POINTS, "{parts} parts");
        }

        let in_parts = |points| whole(&mut openmetrics::page(registry.snapshot(), points)).1;
        let expected = in_parts(usize::MAX);
        assert!(expected.ends_with(b"\n# EOF\n"));
        for points in [1, 2, POINTS] {
            assert_eq!(in_parts(points), expected, "{points} at a time");
        }
    }

    /// What is being shown is of one moment, however long that takes.
    #[test]
    fn calls_that_end_while_a_page_is_read_are_on_the_next_one() {
        let registry = Registry::new([], []);
        let shard = registry.shard();
        let count = || metrics::lock(&shard).add(&tidegate_wire::Record::default());
        let calls = |text: &str| {
            let line = text.lines().find(|line| line.starts_with("tidegate_calls_total{"));
            line.and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
        };
        count();
        let page = page(registry.snapshot(), POINTS);
        count();
        let text = |parts: Vec<Bytes>| String::from_utf8(parts.concat()).expect("it is text");
        assert_eq!(calls(&text(page.collect())).as_deref(), Some("1"));
        let next = super::page(registry.snapshot(), POINTS);
        assert_eq!(calls(&text(next.collect())).as_deref(), Some("2"));
    }

    #[test]
    fn each_gets_the_format_that_it_would_rather_have() {
        use Format::{Delimited, OpenMetrics, Text};
        let usual = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let native = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,text/plain;q=0.5";
        for (accept, plain, with_native) in [
            ("", Text, Text),
            ("*/*", Text, Text),
            ("text/plain", Text, Text),
            ("application/openmetrics-text", OpenMetrics, OpenMetrics),
            ("application/openmetrics-text; version=1.0.0; q=0", Text, Text),
            ("text/plain;version=0.0.4;q=0.5,application/openmetrics-text;q=0.4", Text, Text),
            (usual, OpenMetrics, OpenMetrics),
            (native, OpenMetrics, Delimited),
        ] {
            assert_eq!(Format::accepted(accept, false), plain, "{accept}");
            assert_eq!(Format::accepted(accept, true), with_native, "{accept}");
        }
    }
}
