//! A snapshot in the messages of OTLP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::Histogram as HistogramPoints;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge,
    HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, exemplar,
    metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use crate::export::catalog::{self, FAMILIES, Family, Kind};
use crate::export::metrics::{self, Exponential, Histogram, Point, Snapshot, Value};
use crate::export::names::Conventions;

/// Encoded bytes of the metrics of one request: a collector takes 4 MiB by default, and a proxy before
/// it may take 1 MiB of all, the resource and what is around the metrics among it.
const PART_BYTES: usize = 900 << 10;
/// Points of one family that are never parted: some 200 KiB of histograms with long labels.
const POINTS: usize = 128;

/// A snapshot as one push, in so many requests as it takes, each made when it is asked for. All tell of
/// the same moment.
///
/// Of exemplars only those that came since the push before: what was told once is told.
pub(crate) fn parts(
    snapshot: Snapshot,
    resource: &BTreeMap<String, String>,
    since: Option<Timestamp>,
) -> impl Iterator<Item = ExportMetricsServiceRequest> {
    let times = Times { started: nanoseconds(snapshot.started), now: now(), since };
    let conventions = snapshot.conventions;
    let slices = snapshot.slices(FAMILIES.iter().copied(), POINTS);
    let mut metrics = slices
        .map(move |slice| encode_family(slice.family, conventions, slice.points, times))
        .map(|metric| (metric.encoded_len(), metric))
        .peekable();
    std::iter::from_fn(move || {
        let (mut bytes, first) = metrics.next()?;
        let mut part = vec![first];
        while let Some((more, metric)) = metrics.next_if(|(more, _)| bytes + more <= PART_BYTES) {
            bytes += more;
            part.push(metric);
        }
        Some(request(scope("tidegate", Vec::new()), part, resource))
    })
}

/// The figures of somebody else, which were read by this name, as one push.
pub(super) fn encode_foreign(
    metrics: Vec<Metric>,
    target: &str,
    resource: &BTreeMap<String, String>,
) -> ExportMetricsServiceRequest {
    let attributes = vec![attribute("target", target)];
    request(scope("tidegate.scrape", attributes), metrics, resource)
}

/// The metrics of a request.
pub(in crate::export) fn metrics(request: ExportMetricsServiceRequest) -> Vec<Metric> {
    let scopes = request.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
    scopes.flat_map(|scope| scope.metrics).collect()
}

fn scope(name: &str, attributes: Vec<KeyValue>) -> InstrumentationScope {
    let version = catalog::VERSION.into();
    InstrumentationScope { name: name.into(), version, attributes, ..Default::default() }
}

fn request(
    scope: InstrumentationScope,
    metrics: Vec<Metric>,
    resource: &BTreeMap<String, String>,
) -> ExportMetricsServiceRequest {
    let attributes = resource.iter().map(|(name, value)| attribute(name, value)).collect();
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes, ..Default::default() }),
            scope_metrics: vec![ScopeMetrics { scope: Some(scope), metrics, ..Default::default() }],
            ..Default::default()
        }],
    }
}

/// When the counters began and when they were read. All begin with the process: each was at zero
/// then, whenever its first call came.
#[derive(Clone, Copy)]
struct Times {
    started: u64,
    now: u64,
    /// The push before, as far as it has arrived.
    since: Option<Timestamp>,
}

fn encode_family(
    family: &Family,
    conventions: Conventions,
    points: Vec<Point>,
    times: Times,
) -> Metric {
    let temporality = AggregationTemporality::Cumulative.into();
    let points = points
        .into_iter()
        .map(|point| (attributes(family, conventions, &point.labels), point.value));
    let data = match family.kind {
        Kind::Counter => metric::Data::Sum(Sum {
            data_points: points.map(|(labels, value)| number(labels, value, times)).collect(),
            aggregation_temporality: temporality,
            is_monotonic: true,
        }),
        Kind::Gauge => metric::Data::Gauge(Gauge {
            data_points: points.map(|(labels, value)| number(labels, value, times)).collect(),
        }),
        Kind::Histogram => {
            let counted = points.filter_map(|(labels, value)| match value {
                Value::Histogram(counted) => Some((labels, counted)),
                _ => None,
            });
            histograms(counted.collect(), times)
        }
    };
    Metric {
        name: family.name.into(),
        description: family.help.into(),
        unit: family.unit.into(),
        data: Some(data),
        ..Default::default()
    }
}

fn number(attributes: Vec<KeyValue>, value: Value, times: Times) -> NumberDataPoint {
    use number_data_point::Value::{AsDouble, AsInt};

    let value = match value {
        Value::Counter(count) => AsInt(i64::try_from(count).unwrap_or(i64::MAX)),
        Value::Amount(amount) => AsDouble(amount.units()),
        Value::Gauge(value) => AsInt(value),
        Value::Measure(value) => AsDouble(value),
        Value::Histogram(_) => unreachable!("a family has one kind of value"),
    };
    NumberDataPoint {
        attributes,
        start_time_unix_nano: times.started,
        time_unix_nano: times.now,
        value: Some(value),
        ..Default::default()
    }
}

/// By exponential buckets where there are such, else by fixed bounds.
fn histograms(points: Vec<(Vec<KeyValue>, Histogram)>, times: Times) -> metric::Data {
    let aggregation_temporality = AggregationTemporality::Cumulative.into();
    let is_exponential = points.iter().all(|(_, counted)| counted.exponential().is_some());
    if is_exponential {
        let points = points.into_iter().filter_map(|(labels, counted)| {
            Some(exponential(labels, &counted, counted.exponential()?, times))
        });
        return metric::Data::ExponentialHistogram(ExponentialHistogram {
            data_points: points.collect(),
            aggregation_temporality,
        });
    }
    let points = points.into_iter().map(|(labels, counted)| histogram(labels, &counted, times));
    metric::Data::Histogram(HistogramPoints {
        data_points: points.collect(),
        aggregation_temporality,
    })
}

fn exponential(
    attributes: Vec<KeyValue>,
    counted: &Histogram,
    buckets: &Exponential,
    times: Times,
) -> ExponentialHistogramDataPoint {
    ExponentialHistogramDataPoint {
        attributes,
        start_time_unix_nano: times.started,
        time_unix_nano: times.now,
        count: counted.count(),
        sum: Some(counted.sum()),
        scale: buckets.scale(),
        zero_count: buckets.zeros(),
        positive: Some(Buckets {
            offset: buckets.offset(),
            bucket_counts: buckets.counts().collect(),
        }),
        exemplars: exemplars(counted, times.since),
        ..Default::default()
    }
}

fn histogram(attributes: Vec<KeyValue>, counted: &Histogram, times: Times) -> HistogramDataPoint {
    HistogramDataPoint {
        attributes,
        start_time_unix_nano: times.started,
        time_unix_nano: times.now,
        count: counted.count(),
        sum: Some(counted.sum()),
        bucket_counts: counted.counts().to_vec(),
        explicit_bounds: counted.bounds().to_vec(),
        exemplars: exemplars(counted, times.since),
        ..Default::default()
    }
}

fn exemplars(counted: &Histogram, since: Option<Timestamp>) -> Vec<Exemplar> {
    let fresh = |exemplar: &&metrics::Exemplar| since.is_none_or(|since| exemplar.time >= since);
    let all = counted.exemplars().map(|(_, exemplar)| exemplar).filter(fresh);
    all.map(|exemplar| Exemplar {
        time_unix_nano: nanoseconds(exemplar.time),
        trace_id: exemplar.trace_id.0.to_vec(),
        span_id: exemplar.span_id.0.to_vec(),
        value: Some(exemplar::Value::AsDouble(exemplar.value)),
        ..Default::default()
    })
    .collect()
}

/// An empty label is an absent attribute.
fn attributes(family: &Family, conventions: Conventions, values: &[Arc<str>]) -> Vec<KeyValue> {
    family
        .shown(conventions)
        .zip(values)
        .filter(|(_, value)| !value.is_empty())
        .map(|(label, value)| attribute(label.name, value))
        .collect()
}

fn attribute(name: &str, value: &str) -> KeyValue {
    let value = any_value::Value::StringValue(value.into());
    KeyValue {
        key: name.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..Default::default()
    }
}

fn now() -> u64 {
    nanoseconds(Timestamp::try_from(SystemTime::now()).unwrap_or_default())
}

fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}
