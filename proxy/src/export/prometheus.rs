//! Metrics in the text format of Prometheus.

use std::sync::Arc;

use ::prometheus::core::{Collector, Desc};
use ::prometheus::proto::MetricType;
use ::prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily};
use ::prometheus::{TEXT_FORMAT, TextEncoder};

use super::catalog::{FAMILIES, Family, Kind};
use super::metrics::{self, Point, Registry, Value};
use super::names::Conventions;
use super::{delimited, openmetrics};

/// The content type of [`Prometheus::text`].
pub const CONTENT_TYPE: &str = TEXT_FORMAT;

/// All metrics of a registry, and whatever else is registered beside them.
#[derive(Clone, Debug)]
pub struct Prometheus {
    registry: ::prometheus::Registry,
    calls: Arc<Registry>,
}

/// The formats in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    OpenMetrics,
    Delimited,
}

/// Shows the calls of a registry to the `prometheus` crate.
struct Calls {
    registry: Arc<Registry>,
    descriptions: Vec<Desc>,
}

impl Prometheus {
    /// Shows this registry.
    pub fn new(registry: Arc<Registry>) -> Self {
        let descriptions =
            FAMILIES.iter().map(|family| describe(family, registry.conventions())).collect();
        let prometheus = ::prometheus::Registry::new();
        prometheus
            .register(Box::new(Calls { registry: registry.clone(), descriptions }))
            .expect("the catalog names each metric once");
        Self { registry: prometheus, calls: registry }
    }

    /// All metrics, as somebody with this `Accept` asks for them, and the type of that.
    pub fn accepted(&self, accept: &str) -> Result<(&'static str, Vec<u8>), ::prometheus::Error> {
        let snapshot = || self.calls.snapshot();
        Ok(match Format::accepted(accept, self.calls.is_exponential()) {
            Format::Delimited => (delimited::CONTENT_TYPE, delimited::encode(&snapshot())),
            Format::OpenMetrics => {
                (openmetrics::CONTENT_TYPE, openmetrics::text(snapshot()).into_bytes())
            }
            Format::Text => (CONTENT_TYPE, self.text()?.into_bytes()),
        })
    }

    /// All metrics, as text.
    pub fn text(&self) -> Result<String, ::prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
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

impl Collector for Calls {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let snapshot = self.registry.snapshot();
        let conventions = snapshot.conventions;
        let families = snapshot.families.into_iter();
        families.map(|(family, points)| encode(family, conventions, points)).collect()
    }
}

fn describe(family: &Family, conventions: Conventions) -> Desc {
    let labels = family.shown(conventions).map(|label| label.prometheus.to_owned()).collect();
    Desc::new(family.prometheus.into(), family.help.into(), labels, Default::default())
        .expect("the names in the catalog are valid")
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
        pair.set_value(value);
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
