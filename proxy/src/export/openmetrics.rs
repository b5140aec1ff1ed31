//! Metrics in the text format of OpenMetrics, which has room for exemplars.
//!
//! The same families, names and bounds as in the text format of Prometheus: a server that asks for the
//! one today and for the other tomorrow goes on with the same series.
//!
//! Source: OpenMetrics 1.0.

use std::fmt::Write;

use bytes::Bytes;

use super::catalog::{FAMILIES, Family, Kind};
use super::metrics::{Exemplar, Histogram, Point, Slice, Snapshot, Value};
use super::names::Conventions;

/// The content type of [`page`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a snapshot, so many points at a time.
pub fn page(snapshot: Snapshot, points: usize) -> impl Iterator<Item = Bytes> {
    let conventions = snapshot.conventions;
    let slices = snapshot.slices(FAMILIES.iter().copied(), points);
    slices
        .map(move |slice| Bytes::from(text(&slice, conventions)))
        .chain([Bytes::from_static(b"# EOF\n")])
}

fn text(slice: &Slice, conventions: Conventions) -> String {
    let family = slice.family;
    let mut text = Text::default();
    if slice.is_first {
        text.family(family);
    }
    for point in &slice.points {
        let shown = family.shown(conventions);
        let labels = shown.zip(&point.labels).map(|(label, value)| (label.prometheus, &**value));
        text.point(family.prometheus, &labelled(labels), point);
    }
    text.0
}

/// Text that grows by lines.
#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.0.write_fmt(line).expect("a string takes all that is written");
        self.0.push('\n');
    }

    fn family(&mut self, family: &Family) {
        // A family of counters is called like its samples, less what all of these end with.
        let (name, kind) = match family.kind {
            Kind::Counter => (family.prometheus.trim_end_matches("_total"), "counter"),
            Kind::Gauge => (family.prometheus, "gauge"),
            Kind::Histogram => (family.prometheus, "histogram"),
        };
        self.line(format_args!("# HELP {name} {}", escaped(family.help)));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn point(&mut self, name: &str, labels: &str, point: &Point) {
        let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        match &point.value {
            Value::Counter(count) => self.line(format_args!("{name}{braced} {count}")),
            Value::Amount(amount) => self.line(format_args!("{name}{braced} {}", amount.units())),
            Value::Gauge(value) => self.line(format_args!("{name}{braced} {value}")),
            Value::Measure(value) => self.line(format_args!("{name}{braced} {value}")),
            Value::Histogram(counted) => {
                self.buckets(name, labels, counted);
                self.line(format_args!("{name}_count{braced} {}", counted.count()));
                self.line(format_args!("{name}_sum{braced} {}", counted.sum()));
            }
        }
    }

    fn buckets(&mut self, name: &str, labels: &str, counted: &Histogram) {
        let comma = if labels.is_empty() { "" } else { "," };
        let bounds = counted.bounds().iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        let mut below = 0;
        for (at, (bound, count)) in bounds.zip(counted.counts()).enumerate() {
            below += count;
            let exemplar = counted.exemplars().find(|(bucket, _)| *bucket == at);
            let exemplar = exemplar.map(|(_, exemplar)| shown(exemplar)).unwrap_or_default();
            self.line(format_args!(
                "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {below}{exemplar}"
            ));
        }
    }
}

/// An exemplar, as it stands behind a value.
fn shown(exemplar: &Exemplar) -> String {
    let Exemplar { trace_id, span_id, time, value } = exemplar;
    let seconds = time.as_millisecond() as f64 / 1e3;
    format!(" # {{trace_id=\"{trace_id}\",span_id=\"{span_id}\"}} {value} {seconds:.3}")
}

fn labelled<'a>(labels: impl Iterator<Item = (&'static str, &'a str)>) -> String {
    let labels = labels.map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
    labels.collect::<Vec<_>>().join(",")
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}
