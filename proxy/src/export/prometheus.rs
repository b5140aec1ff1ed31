//! Metrics in the text format of Prometheus.

use std::sync::Arc;

use ::prometheus::core::{Collector, Desc};
use ::prometheus::proto::MetricType;
use ::prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily};
use ::prometheus::{TEXT_FORMAT, TextEncoder};

use super::catalog::{FAMILIES, Family, Kind};
use super::metrics::{self, Point, Registry, Value};
use super::names::Conventions;
use super::openmetrics;

/// The content type of [`Prometheus::text`].
pub const CONTENT_TYPE: &str = TEXT_FORMAT;

/// All metrics of a registry, and whatever else is registered beside them.
#[derive(Clone, Debug)]
pub struct Prometheus {
    registry: ::prometheus::Registry,
    calls: Arc<Registry>,
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
    pub fn accepted(&self, accept: &str) -> Result<(&'static str, String), ::prometheus::Error> {
        match prefers_openmetrics(accept) {
            true => Ok((openmetrics::CONTENT_TYPE, openmetrics::text(self.calls.snapshot()))),
            false => Ok((CONTENT_TYPE, self.text()?)),
        }
    }

    /// All metrics, as text.
    pub fn text(&self) -> Result<String, ::prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// Whether OpenMetrics is what is asked for, before the text format of Prometheus.
fn prefers_openmetrics(accept: &str) -> bool {
    let quality = |wanted: fn(&str) -> bool| {
        let ranges = accept.split(',').map(|range| range.split(';').map(str::trim));
        let qualities = ranges.filter_map(|mut range| {
            let is_wanted = wanted(range.next()?);
            let quality = range.find_map(|part| part.strip_prefix("q=")?.parse::<f64>().ok());
            is_wanted.then_some(quality.unwrap_or(1.0))
        });
        qualities.fold(0.0, f64::max)
    };
    let openmetrics = quality(|range| range.eq_ignore_ascii_case("application/openmetrics-text"));
    let plain = quality(|range| range.eq_ignore_ascii_case("text/plain"));
    openmetrics > 0.0 && openmetrics >= plain
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
    fn openmetrics_is_for_who_would_rather_have_it() {
        for (accept, is_preferred) in [
            ("", false),
            ("*/*", false),
            ("text/plain", false),
            ("application/openmetrics-text", true),
            ("application/openmetrics-text; version=1.0.0; q=0", false),
            ("text/plain;version=0.0.4;q=0.5,application/openmetrics-text;q=0.4", false),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                true,
            ),
        ] {
            assert_eq!(prefers_openmetrics(accept), is_preferred, "{accept}");
        }
    }
}
