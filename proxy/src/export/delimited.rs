//! Metrics as protocol buffers, as a Prometheus asks for them that takes native histograms.
//!
//! Offered only where calls are counted by exponential buckets: a native histogram is one. Those with
//! fixed bounds go with it, for servers that keep both.
//!
//! Sources: `io/prometheus/client/metrics.proto` of prometheus/client_model; Prometheus, "Native
//! Histograms".

use bytes::Bytes;

use super::catalog::{FAMILIES, Family, Kind};
use super::metrics::{Exemplar, Exponential, Histogram, Point, Snapshot, Value};
use super::names::Conventions;
use super::otlp::protobuf::{bytes, fixed64, message, number};

/// The content type of [`page`].
pub const CONTENT_TYPE: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// The schemas that Prometheus knows.
const SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;
/// What is no greater counts as zero: the default of Prometheus' own libraries, 2^-128.
const ZERO_THRESHOLD: f64 = 2.938_735_877_055_719e-39;

/// All metrics of a snapshot, a family at a time, each with its length in front.
pub fn page(snapshot: Snapshot) -> impl Iterator<Item = Bytes> {
    let conventions = snapshot.conventions;
    snapshot.slices(FAMILIES.iter().copied(), usize::MAX).map(move |slice| {
        // As a field would be, less its key.
        let mut field = Vec::new();
        message(&mut field, 1, |out| encode(out, slice.family, conventions, &slice.points));
        Bytes::from(field).slice(1..)
    })
}

fn encode(out: &mut Vec<u8>, family: &Family, conventions: Conventions, points: &[Point]) {
    bytes(out, 1, family.prometheus.as_bytes());
    bytes(out, 2, family.help.as_bytes());
    number(
        out,
        3,
        match family.kind {
            Kind::Counter => 0,
            Kind::Gauge => 1,
            Kind::Histogram => 4,
        },
    );
    for point in points {
        message(out, 4, |out| {
            for (label, value) in family.shown(conventions).zip(&point.labels) {
                pair(out, label.prometheus, value);
            }
            match &point.value {
                Value::Counter(count) => message(out, 3, |out| double(out, 1, *count as f64)),
                Value::Amount(amount) => message(out, 3, |out| double(out, 1, amount.units())),
                Value::Gauge(value) => message(out, 2, |out| double(out, 1, *value as f64)),
                Value::Measure(value) => message(out, 2, |out| double(out, 1, *value)),
                Value::Histogram(counted) => message(out, 7, |out| histogram(out, counted)),
            }
        });
    }
}

fn histogram(out: &mut Vec<u8>, counted: &Histogram) {
    number(out, 1, counted.count());
    double(out, 2, counted.sum());
    let mut below = 0;
    let bounds = counted.bounds().iter().copied().chain([f64::INFINITY]);
    for (at, (bound, count)) in bounds.zip(counted.counts()).enumerate() {
        below += count;
        message(out, 3, |out| {
            number(out, 1, below);
            double(out, 2, bound);
            if let Some((_, found)) = counted.exemplars().find(|(bucket, _)| *bucket == at) {
                exemplar(out, 3, found);
            }
        });
    }
    if let Some(buckets) = counted.exponential() {
        native(out, &buckets.at_most(*SCHEMAS.end()));
        counted.exemplars().for_each(|(_, found)| exemplar(out, 16, found));
    }
}

fn native(out: &mut Vec<u8>, buckets: &Exponential) {
    if !SCHEMAS.contains(&buckets.scale()) {
        return;
    }
    number(out, 5, zigzag(buckets.scale().into()));
    double(out, 6, ZERO_THRESHOLD);
    number(out, 7, buckets.zeros());
    let counts: Vec<_> = buckets.counts().collect();
    message(out, 12, |out| {
        // Theirs is called by its upper end, ours by its lower one.
        let offset = if counts.is_empty() { 0 } else { buckets.offset() + 1 };
        number(out, 1, zigzag(offset.into()));
        number(out, 2, counts.len() as u64);
    });
    let mut before = 0;
    for count in counts {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        number(out, 13, zigzag(count - before));
        before = count;
    }
}

fn exemplar(out: &mut Vec<u8>, field: u32, found: &Exemplar) {
    message(out, field, |out| {
        pair(out, "trace_id", &found.trace_id.to_string());
        pair(out, "span_id", &found.span_id.to_string());
        double(out, 2, found.value);
        message(out, 3, |out| {
            number(out, 1, found.time.as_second().cast_unsigned());
            number(out, 2, u64::from(found.time.subsec_nanosecond().unsigned_abs()));
        });
    });
}

fn pair(out: &mut Vec<u8>, name: &str, value: &str) {
    message(out, 1, |out| {
        bytes(out, 1, name.as_bytes());
        bytes(out, 2, value.as_bytes());
    });
}

fn double(out: &mut Vec<u8>, field: u32, value: f64) {
    fixed64(out, field, value.to_bits());
}

/// A signed number, so that small ones are short whatever their sign.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}
