//! The same calls, told four times: by the model server, the records, Prometheus and OTLP. They agree to
//! the unit, whatever went wrong with the calls.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};
use prost::Message as _;
use serde_json::Value;

use crate::support::*;

/// Tokens of an answer, and of one that is cut.
const TOKENS: u64 = 9;
const TOKENS_OF_CUT: u64 = TOKENS / 2;
/// Callers at a time.
const CALLERS: usize = 8;

/// What is told of calls, by outcome and status; and the output tokens that were stated.
#[derive(Debug, Default, PartialEq)]
struct Told {
    calls: BTreeMap<(String, String), u64>,
    durations: u64,
    output_tokens: u64,
}

/// Every seventh call goes wrong, in one way or another.
fn request(at: usize) -> String {
    let fault = match at % 28 {
        6 => "x-sim-fault: 500\r\n",
        13 => "x-sim-fault: 429\r\n",
        20 => "x-sim-fault: 503\r\n",
        27 => "x-sim-fault: cut\r\n",
        _ => "",
    };
    let stream = at % 2 == 1;
    let more = if stream { r#","stream_options":{"include_usage":true}"# } else { "" };
    let body = format!(r#"{{"model":"m{}","messages":[],"stream":{stream}{more}}}"#, at % 5);
    let call = bare_post("/v1/chat/completions", &body);
    call.replacen("\r\n", &format!("\r\n{fault}"), 1)
}

fn of_records(records: &[Value]) -> Told {
    let mut told = Told { durations: records.len() as u64, ..Told::default() };
    for record in records {
        let text = |key: &str| match &record[key] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let key = (text("tidegate.outcome"), text("http.response.status_code"));
        *told.calls.entry(key).or_default() += 1;
        told.output_tokens += record["gen_ai.usage.output_tokens"].as_u64().unwrap_or(0);
    }
    told
}

fn of_page(page: &str) -> Told {
    let mut told = Told::default();
    for line in page.lines().filter(|line| line.starts_with("tidegate_")) {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let value = value.parse::<f64>().expect("a number") as u64;
        let label = |name: &str| {
            let at = series.split_once(&format!("{name}=\""))?.1;
            at.split('"').next().map(str::to_owned)
        };
        if series.starts_with("tidegate_calls_total{") {
            let key = (label("outcome").expect("one"), label("status").expect("one"));
            *told.calls.entry(key).or_default() += value;
        } else if series.starts_with("tidegate_call_duration_seconds_count{") {
            told.durations += value;
        } else if series.starts_with("tidegate_tokens_total{")
            && label("type").as_deref() == Some("output")
        {
            told.output_tokens += value;
        }
    }
    told
}

/// What the newest push says.
fn of_collector(collector: &Upstream) -> Option<Told> {
    let requests = collector.requests();
    let push = requests.iter().rfind(|request| request.target() == "/v1/metrics")?;
    let push = ExportMetricsServiceRequest::decode(&push.body[..]).expect("it is a push");
    let scopes = push.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
    let mut told = Told::default();
    for metric in scopes.flat_map(|scope| scope.metrics) {
        match (&*metric.name, metric.data?) {
            ("tidegate.calls", metric::Data::Sum(sum)) => {
                for point in &sum.data_points {
                    let key =
                        (label(&point.attributes, "outcome"), label(&point.attributes, "status"));
                    *told.calls.entry(key).or_default() += count(point.value.as_ref());
                }
            }
            ("tidegate.tokens", metric::Data::Sum(sum)) => {
                let output = |attributes: &[KeyValue]| label(attributes, "type") == "output";
                let points = sum.data_points.iter().filter(|point| output(&point.attributes));
                told.output_tokens += points.map(|point| count(point.value.as_ref())).sum::<u64>();
            }
            ("tidegate.call.duration", metric::Data::Histogram(histogram)) => {
                told.durations +=
                    histogram.data_points.iter().map(|point| point.count).sum::<u64>();
            }
            _ => {}
        }
    }
    Some(told)
}

fn label(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == name);
    match found.and_then(|found| found.value.as_ref()?.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        other => panic!("{name}: {other:?}"),
    }
}

fn count(value: Option<&number_data_point::Value>) -> u64 {
    match value {
        Some(number_data_point::Value::AsInt(count)) => u64::try_from(*count).expect("a count"),
        other => panic!("{other:?}"),
    }
}

fn check(calls: usize) {
    let tokens = TOKENS.to_string();
    let flags = ["--ttft", "0ms", "--tpot", "0ms", "--output-tokens", &tokens];
    let simulator = Simulator::start(&[&flags[..], &["--capacity", "256"]].concat());
    let collector = Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let mut sidecar = Launch::new()
        .arg("--upstream")
        .arg(&simulator.url)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .env("OTEL_TRACES_EXPORTER", "none")
        // The last push alone, as it ends: what came to be meanwhile is in it.
        .env("OTEL_METRIC_EXPORT_INTERVAL", "3600000")
        .start();
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let sidecar = &sidecar;
            scope.spawn(move || {
                let mut wire = sidecar.connect();
                for at in (caller..calls).step_by(CALLERS) {
                    let is_cut = at % 28 == 27;
                    let reply = wire.call(request(at));
                    assert!(reply.status() >= 200);
                    // What is broken off takes its connection with it.
                    if is_cut || reply.header("connection") == Some("close") {
                        wire = sidecar.connect();
                    }
                }
            });
        }
    });
    wait_until("all is counted", || sidecar.metric("tidegate_calls_total") == calls as f64);
    let page = of_page(&sidecar.ask("/metrics").text());
    let dropped = sidecar.metric("tidegate_records_dropped_total") as u64;
    let cpu = sidecar.processor_time();
    sidecar.signal("INT");
    assert!(sidecar.wait().success());
    let mut records = sidecar.records();
    for older in ["records.jsonl.1", "records.jsonl.2"] {
        if sidecar.file(older).exists() {
            records.extend(read_records(&sidecar.file(older)));
        }
    }
    assert_eq!(records.len() as u64 + dropped, calls as u64);
    assert_eq!(dropped, 0, "the records of {calls} calls");
    let records = of_records(&records);
    println!("{records:?}, {cpu:?} of processor time");
    assert_eq!(page, records, "Prometheus and the records");
    assert_eq!(of_collector(&collector).as_ref(), Some(&records), "OTLP and the records");
    // Every way in which they were to go wrong is among them.
    assert!(records.calls.len() >= 5, "{records:?}");

    let served = simulator.served();
    let is = |key: &str| served[key].as_u64().expect("a number");
    let cut = (0..calls).filter(|at| at % 28 == 27).count() as u64;
    let good = records.calls.iter().filter(|((outcome, _), _)| outcome == "completed");
    let good: u64 = good.map(|(_, calls)| calls).sum();
    assert_eq!(is("calls"), calls as u64);
    assert_eq!(is("errors"), calls as u64 - good);
    assert_eq!(is("output_tokens"), records.output_tokens + cut * TOKENS_OF_CUT);
}

#[test]
fn the_server_the_records_prometheus_and_otlp_tell_of_the_same_calls() {
    check(2_800);
}

/// The figure that is promised.
#[test]
#[ignore = "minutes: tests/run --long makes it"]
fn they_do_so_of_a_hundred_thousand_calls() {
    check(100_000);
}
