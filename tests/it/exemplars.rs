//! From a latency to the trace of a call that had it: exemplars, by OTLP and by OpenMetrics.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{HistogramDataPoint, exemplar, metric};
use prost::Message as _;
use serde_json::Value;

use crate::support::*;

/// The histograms of times that have exemplars.
const NAMES: [&str; 3] =
    ["tidegate.call.duration", "tidegate.time_to_first_token", "tidegate.time_per_output_token"];

fn call_in_trace(model: &str, trace: &str, flags: &str) -> String {
    let body = format!(r#"{{"model":"{model}","stream":true}}"#);
    let field = format!("\r\ntraceparent: 00-{trace}-00f067aa0ba902b7-{flags}\r\n");
    post("/v1/chat/completions", &body).replacen("\r\n", &field, 1)
}

/// A model server that streams two tokens.
fn model() -> Upstream {
    let usage = "data: {\"id\":\"c1\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n";
    let stream: String = [TOKEN, TOKEN, FINISH, usage, DONE].map(chunk).concat();
    Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            peer.wire.send(format!("{STREAM_HEAD}{stream}{LAST_CHUNK}"));
        }
    })
}

/// The newest points of each histogram that was pushed, by its name.
fn pushed(collector: &Upstream) -> BTreeMap<String, Vec<HistogramDataPoint>> {
    let mut histograms: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for request in collector.requests() {
        if request.target() != "/v1/metrics" {
            continue;
        }
        let push = ExportMetricsServiceRequest::decode(&request.body[..]).expect("a push");
        let scopes = push.resource_metrics.into_iter().flat_map(|of| of.scope_metrics);
        for metric in scopes.flat_map(|scope| scope.metrics) {
            if let Some(metric::Data::Histogram(histogram)) = metric.data {
                histograms.entry(metric.name).or_default().extend(histogram.data_points);
            }
        }
    }
    histograms
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_time_leads_to_the_trace_of_a_call_that_took_it() {
    let (collector, model) =
        (Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), model());
    let sidecar = Launch::new()
        .arg("--upstream")
        .arg(&model.url())
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "1000")
        .start();
    let sampled = ["4bf92f3577b34da6a3ce929d0e0e4701", "4bf92f3577b34da6a3ce929d0e0e4702"];
    let unsampled = "4bf92f3577b34da6a3ce929d0e0e4703";
    for (at, trace) in sampled.into_iter().enumerate() {
        sidecar.call(call_in_trace(&format!("m{at}"), trace, "01"));
    }
    sidecar.call(call_in_trace("unsampled", unsampled, "00"));
    let records = sidecar.wait_records(3);
    let count = |points: &[HistogramDataPoint]| -> usize {
        points.iter().map(|point| point.exemplars.len()).sum()
    };
    wait_until("they are pushed", || {
        let pushed = pushed(&collector);
        NAMES.iter().all(|name| pushed.get(*name).is_some_and(|points| count(points) >= 2))
    });
    let of_trace = |trace: &str| -> &Value {
        records.iter().find(|record| record["trace_id"] == trace).expect("it is recorded")
    };
    let keys = ["tidegate.duration_s", "tidegate.time_to_first_token_s", ""];
    for (name, key) in NAMES.into_iter().zip(keys) {
        for point in &pushed(&collector)[name] {
            for exemplar in &point.exemplars {
                let trace = hex(&exemplar.trace_id);
                assert!(sampled.contains(&&*trace), "{name} leads to {trace}");
                let record = of_trace(&trace);
                assert_eq!(record["span_id"], hex(&exemplar.span_id));
                let Some(exemplar::Value::AsDouble(value)) = exemplar.value else {
                    panic!("{exemplar:?}")
                };
                if let Some(recorded) = record[key].as_f64() {
                    assert!((value - recorded).abs() < 1e-6, "{name}: {value}, {recorded}");
                }
                assert!(exemplar.time_unix_nano <= point.time_unix_nano);
            }
        }
    }

    let mut admin = Wire::to(sidecar.admin);
    admin.send(
        "GET /metrics HTTP/1.0\r\nAccept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n\r\n",
    );
    let page = admin.response_to("GET");
    assert_eq!(
        page.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    let page = page.text();
    assert!(page.ends_with("# EOF\n"));
    for trace in sampled {
        let span = of_trace(trace)["span_id"].as_str().expect("an id");
        let mark = format!(" # {{trace_id=\"{trace}\",span_id=\"{span}\"}} ");
        let lines = page.lines().filter(|line| line.contains(&mark));
        let buckets =
            lines.filter(|line| line.starts_with("tidegate_") && line.contains("_bucket{"));
        assert_eq!(buckets.count(), 3, "{mark}");
    }
    assert!(!page.contains(unsampled));

    // Who asks for no more than text gets the same, without examples.
    let text = sidecar.ask("/metrics").text();
    assert!(!text.contains(" # {"));
    let series = |page: &str| -> Vec<String> {
        let lines = page.lines().filter(|line| line.starts_with("tidegate_call"));
        let plain = lines.map(|line| line.split(" # ").next().unwrap_or(line).to_owned());
        let mut plain: Vec<_> = plain.collect();
        plain.sort();
        plain
    };
    assert_eq!(series(&text), series(&page));
}

/// An example that leads nowhere is none.
#[test]
fn without_spans_there_are_no_exemplars() {
    let model = model();
    let sidecar = Launch::new().arg("--upstream").arg(&model.url()).start();
    sidecar.call(call_in_trace("m", "4bf92f3577b34da6a3ce929d0e0e4701", "01"));
    sidecar.wait_records(1);
    let mut admin = Wire::to(sidecar.admin);
    admin.send("GET /metrics HTTP/1.0\r\nAccept: application/openmetrics-text\r\n\r\n");
    let page = admin.response_to("GET").text();
    assert!(page.ends_with("# EOF\n") && page.contains("tidegate_call_duration_seconds_bucket"));
    assert!(!page.contains("trace_id"));
}
