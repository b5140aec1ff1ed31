//! Many models with many statuses: thousands of series, which a sidecar shows and pushes with little memory.

use std::collections::BTreeMap;
use std::io::Read;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric;
use prost::Message as _;

use crate::support::*;

/// As many as become label values.
const MODELS: usize = 200;
/// What each of them answers; the first, so that its name counts.
const STATUSES: [u16; 11] = [200, 400, 401, 403, 404, 408, 429, 500, 502, 503, 504];
/// Callers at a time.
const CALLERS: usize = 8;
/// What all of it may take at most, over a sidecar that has shown one page.
const ROOM_KIB: u64 = 24 * 1024;
/// What a collector takes in one request, unless it is told otherwise.
const PUSH_BYTES: usize = 4 << 20;

/// Answers with the status that it is asked for.
fn model() -> Upstream {
    let body = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
    let answer = move |status: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 {status} So\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    Upstream::new(move |mut peer| {
        while let Some(request) = peer.request() {
            peer.wire.send(answer(request.header("x-status").expect("a status")));
        }
    })
}

fn request(model: usize, status: u16) -> String {
    let body = format!(r#"{{"model":"some-model-{model}","messages":[]}}"#);
    let call = bare_post("/v1/chat/completions", &body);
    call.replacen("\r\n", &format!("\r\nx-status: {status}\r\n"), 1)
}

/// Each model answers with each status.
fn call_all(sidecar: &Sidecar) {
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            scope.spawn(move || {
                let mut wire = sidecar.connect();
                for model in (caller..MODELS).step_by(CALLERS) {
                    for status in STATUSES {
                        assert_eq!(wire.call(request(model, status)).status(), status);
                    }
                }
            });
        }
    });
}

/// The lines of calls on a page.
fn calls(page: &str) -> Vec<&str> {
    page.lines().filter(|line| line.starts_with("tidegate_calls_total{")).collect()
}

fn packed_page(sidecar: &Sidecar) -> (usize, String) {
    let mut admin = Wire::to(sidecar.admin);
    admin.send("GET /metrics HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n");
    let answer = admin.response_to("GET");
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    let mut page = String::new();
    let unpacked = flate2::read::GzDecoder::new(&answer.body[..]).read_to_string(&mut page);
    unpacked.expect("it is gzip, and text");
    (answer.body.len(), page)
}

/// Points of calls in each push, by when it was: the parts of one tell of the same moment.
fn pushed(collector: &Upstream) -> BTreeMap<u64, usize> {
    let mut pushed = BTreeMap::new();
    let requests = collector.requests();
    for push in requests.iter().filter(|request| request.target() == "/v1/metrics") {
        assert!(push.body.len() < PUSH_BYTES, "{} bytes", push.body.len());
        let push = ExportMetricsServiceRequest::decode(&push.body[..]).expect("it is a push");
        let scopes = push.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
        let metrics = scopes.flat_map(|scope| scope.metrics);
        for metric in metrics.filter(|metric| metric.name == "tidegate.calls") {
            let Some(metric::Data::Sum(sum)) = metric.data else { panic!("{metric:?}") };
            for point in sum.data_points {
                *pushed.entry(point.time_unix_nano).or_default() += 1;
            }
        }
    }
    pushed
}

#[test]
fn thousands_of_series_are_shown_and_pushed_with_little_memory() {
    let (model, collector) =
        (model(), Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    let sidecar = Launch::new()
        .workers(1)
        .arg("--upstream")
        .arg(&model.url())
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .env("OTEL_TRACES_EXPORTER", "none")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "1000")
        .start();
    packed_page(&sidecar);
    let idle = sidecar.memory_kib();
    call_all(&sidecar);
    let series = MODELS * STATUSES.len();
    let mut page = String::new();
    wait_until("all calls are counted", || {
        page = sidecar.ask("/metrics").text();
        let count = |line: &str| line.rsplit(' ').next().and_then(|n| n.parse::<usize>().ok());
        calls(&page).into_iter().filter_map(count).sum::<usize>() == series
    });
    // Of one worker: the others are folded.
    assert!((2_000..series).contains(&calls(&page).len()), "{} series", calls(&page).len());
    let (bytes, packed) = packed_page(&sidecar);
    assert!(bytes < page.len() / 10, "{bytes} of {}", page.len());
    assert_eq!(calls(&packed), calls(&page));
    wait_until("all is pushed", || {
        pushed(&collector).last_key_value().is_some_and(|(_, count)| *count == calls(&page).len())
    });
    let grown = sidecar.peak_memory_kib().saturating_sub(idle);
    println!("{} bytes of a page, {bytes} packed; {grown} KiB over idle", page.len());
    assert!(grown < ROOM_KIB, "{grown} KiB over idle");
}
