//! Exponential histograms by OTLP, where they are asked for: as exact as their scale says.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{ExponentialHistogramDataPoint, metric};
use prost::Message as _;

use crate::support::*;

/// The points of this metric in the newest push that has it.
fn pushed(collector: &Upstream, name: &str) -> Option<Vec<ExponentialHistogramDataPoint>> {
    collector.requests().iter().rev().find_map(|request| {
        let push = ExportMetricsServiceRequest::decode(&request.body[..]).ok()?;
        let scopes = push.resource_metrics.into_iter().flat_map(|of| of.scope_metrics);
        let mut metrics = scopes.flat_map(|scope| scope.metrics);
        match metrics.find(|metric| metric.name == name)?.data? {
            metric::Data::ExponentialHistogram(histogram) => Some(histogram.data_points),
            other => panic!("{name} is something else: {other:?}"),
        }
    })
}

/// The middle, by factor, of the bucket in which this share lies, and the most that it is off by.
fn quantile(point: &ExponentialHistogramDataPoint, share: f64) -> (f64, f64) {
    let buckets = point.positive.as_ref().expect("buckets");
    let base = 2_f64.powf(2_f64.powi(-point.scale));
    let rank = (share * point.count as f64).ceil() as u64;
    let mut below = point.zero_count;
    for (at, count) in buckets.bucket_counts.iter().enumerate() {
        below += count;
        if below >= rank {
            let index = f64::from(buckets.offset + at as i32);
            return (base.powf(index + 0.5), base.sqrt() - 1.0);
        }
    }
    unreachable!("all are counted")
}

#[test]
fn quantiles_are_those_of_the_records_within_the_bound_of_the_scale() {
    const CALLS: usize = 40;
    let collector = Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let upstream = Upstream::new(|mut peer| {
        let mut delay = Duration::from_millis(1);
        while peer.request().is_some() {
            std::thread::sleep(delay);
            delay += Duration::from_millis(2);
            peer.wire.send(answer(COMPLETION));
        }
    });
    let aggregation = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
    let sidecar = Launch::new()
        .arg("--upstream")
        .arg(&upstream.url())
        .workers(1)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "1000")
        .env("OTEL_TRACES_EXPORTER", "none")
        .env(aggregation, "base2_exponential_bucket_histogram")
        .start();
    let mut caller = sidecar.connect();
    for _ in 0..CALLS {
        assert_eq!(caller.call(call()).status(), 200);
    }
    let records = sidecar.wait_records(CALLS);
    let mut times: Vec<f64> = records
        .iter()
        .map(|record| record["tidegate.duration_s"].as_f64().expect("a time"))
        .collect();
    times.sort_by(f64::total_cmp);
    let name = "tidegate.call.duration";
    wait_until("all are pushed", || {
        pushed(&collector, name).is_some_and(|points| {
            points.iter().map(|point| point.count).sum::<u64>() == CALLS as u64
        })
    });
    let points = pushed(&collector, name).expect("it is pushed");
    let [point] = &points[..] else { panic!("{points:?}") };
    let sum: f64 = times.iter().sum();
    assert!((point.sum.expect("a sum") - sum).abs() < 1e-4);
    for share in [0.5, 0.9, 0.99] {
        let exact = times[(share * CALLS as f64).ceil() as usize - 1];
        let (told, off) = quantile(point, share);
        println!("P{}: {told} for {exact}, scale {}", share * 100.0, point.scale);
        assert!((told / exact - 1.0).abs() <= off + 1e-4, "{told} for {exact}");
    }
    // With fixed bounds it is what it always was.
    assert_eq!(sidecar.metric("tidegate_call_duration_seconds_count"), CALLS as f64);
}
