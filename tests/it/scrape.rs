//! Figures of others on their way to a collector, over real sockets: a page of metrics, the sidecar
//! that reads it, and whoever it pushes to.

use std::collections::BTreeMap;
use std::io::Write;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, ScopeMetrics, metric, number_data_point};
use prost::Message as _;

use crate::support::*;

/// Samples by name and labels, as they stand on a page.
type Samples = BTreeMap<(String, BTreeMap<String, String>), f64>;

const SCOPE: &str = "tidegate.scrape";

/// A collector that takes everything.
fn collector() -> Upstream {
    Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
}

/// A sidecar that reads these pages, and pushes every second.
fn sidecar(scrape: &str, upstream: &str, collector: &Upstream) -> Sidecar {
    Launch::new()
        .config(&format!("scrape: [{scrape}]\nupstreams: {{ a: {{ url: '{upstream}' }} }}\nroutes: [{{ upstream: a }}]"))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "1000")
        .env("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=pod-1")
        .start()
}

/// What was pushed of others, oldest first, with the attributes of its resource.
fn foreign(collector: &Upstream) -> Vec<(BTreeMap<String, String>, ScopeMetrics)> {
    let requests = collector.requests();
    let pushes = requests.iter().filter(|request| request.target() == "/v1/metrics");
    let pushes = pushes.map(|request| {
        ExportMetricsServiceRequest::decode(&request.body[..]).expect("it is a push of metrics")
    });
    pushes
        .flat_map(|push| push.resource_metrics)
        .flat_map(|of_resource| {
            let resource = labels(&of_resource.resource.expect("a resource").attributes);
            of_resource.scope_metrics.into_iter().map(move |scope| (resource.clone(), scope))
        })
        .filter(|(_, metrics)| metrics.scope.as_ref().is_some_and(|scope| scope.name == SCOPE))
        .collect()
}

fn labels(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |one: &KeyValue| match one.value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(|one| (one.key.clone(), text(one))).collect()
}

/// What a page would say that shows these metrics.
fn flattened(metrics: &[Metric]) -> Samples {
    let mut samples = Samples::new();
    for Metric { name, data, .. } in metrics {
        let numbers = match data.as_ref().expect("data") {
            metric::Data::Sum(sum) => {
                assert!(sum.is_monotonic && sum.aggregation_temporality == 2, "{name}");
                &sum.data_points[..]
            }
            metric::Data::Gauge(gauge) => &gauge.data_points[..],
            _ => &[],
        };
        for point in numbers {
            let Some(number_data_point::Value::AsDouble(value)) = point.value else {
                panic!("{point:?}")
            };
            samples.insert((name.clone(), labels(&point.attributes)), value);
        }
        let Some(metric::Data::Histogram(histogram)) = data else { continue };
        for point in &histogram.data_points {
            let bounds = point.explicit_bounds.iter().map(f64::to_string);
            let mut below = 0;
            for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(&point.bucket_counts) {
                below += count;
                let mut labels = labels(&point.attributes);
                labels.insert("le".to_owned(), bound);
                samples.insert((format!("{name}_bucket"), labels), below as f64);
            }
            let own = labels(&point.attributes);
            samples.insert((format!("{name}_count"), own.clone()), point.count as f64);
            samples.insert((format!("{name}_sum"), own), point.sum.expect("a sum"));
        }
    }
    samples
}

/// The samples of a page of vLLM or DCGM, with the label that they get on their way.
fn shown(page: &str, target: &str) -> Samples {
    let lines = page.lines().filter(|line| line.starts_with("vllm:") || line.starts_with("DCGM_"));
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, pairs) = series.trim_end_matches('}').split_once('{')?;
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=')?;
            Some((name.to_owned(), value.trim_matches('"').to_owned()))
        };
        let mut labels: BTreeMap<_, _> = pairs.split(',').filter_map(pair).collect();
        labels.insert("target".to_owned(), target.to_owned());
        Some(((name.to_owned(), labels), value.parse().ok()?))
    };
    lines.map(|line| sample(line).expect("a sample")).collect()
}

/// The simulator's own page, from its gauges to its histograms.
#[cfg(feature = "loadgen")]
#[test]
fn what_a_model_server_shows_arrives_at_the_collector_to_the_unit() {
    const CALLS: usize = 12;
    let simulator = Simulator::start(&["--ttft", "5ms", "--tpot", "1ms", "--output-tokens", "9"]);
    let collector = collector();
    let target = simulator.url.trim_start_matches("http://").to_owned();
    let scrape = format!("{{ url: '{}/metrics', every: 100ms }}", simulator.url);
    let sidecar = sidecar(&scrape, &simulator.url, &collector);
    for at in 0..CALLS {
        let call = if at % 2 == 0 { call() } else { stream_call() };
        assert_eq!(sidecar.call(call).status(), 200);
    }
    let address = target.parse().expect("an address");
    let page = Wire::to(address).call(format!("GET /metrics HTTP/1.1\r\nhost: {target}\r\n\r\n"));
    let expected = shown(&page.text(), &target);
    let served = simulator.served()["output_tokens"].as_f64().expect("a number");
    assert!(expected.len() > 40, "{}", expected.len());
    wait_until("the newest figures have arrived", || {
        foreign(&collector).last().is_some_and(|(_, last)| flattened(&last.metrics) == expected)
    });

    let (resource, last) = foreign(&collector).pop().expect("it has arrived");
    assert_eq!(resource["service.name"], "tidegate");
    assert_eq!(resource["k8s.pod.name"], "pod-1", "they stand beside the latency of this pod");
    let total = |name: &str| -> f64 {
        let samples = flattened(&last.metrics);
        samples.iter().filter(|((of, _), _)| of == name).map(|(_, value)| value).sum()
    };
    assert_eq!(total("vllm:generation_tokens_total"), served);
    assert_eq!(total("vllm:request_success_total"), CALLS as f64);
    assert!(flattened(&last.metrics).keys().any(|(name, _)| name == "DCGM_FI_DEV_GPU_UTIL"));

    assert_eq!(sidecar.metric("tidegate_scrape_up"), 1.0);
    let page = sidecar.ask("/metrics").text();
    assert!(!page.contains("\nvllm:"), "who scrapes the sidecar scrapes the server itself");
    // A server that is gone is told of, and nothing old is told as new.
    drop(simulator);
    wait_until("it is down", || sidecar.metric("tidegate_scrape_up") == 0.0);
    assert!(sidecar.metric("tidegate_scrape_failures_total") >= 1.0);
    assert_eq!(sidecar.finish().len(), CALLS);
}

/// By OpenMetrics, compressed, with lines that are none, and more than is allowed.
#[test]
fn a_packed_page_is_read_as_far_as_it_is_allowed_and_good() {
    const PAGE: &str = "# HELP DCGM_FI_DEV_GPU_UTIL Busy.\n# TYPE DCGM_FI_DEV_GPU_UTIL gauge\nDCGM_FI_DEV_GPU_UTIL{gpu=\"0\"} 98\nDCGM_FI_DEV_GPU_UTIL{gpu=\"1\" 98\n# TYPE ours counter\nours_total{a=\"\\\"\"} 5 # {trace_id=\"f\"} 1 1\nours_created{a=\"\\\"\"} 1700000000.25\n# TYPE go_threads gauge\ngo_threads 7\n# TYPE ours_seconds histogram\nours_seconds_bucket{le=\"1\"} 2\nours_seconds_bucket{le=\"+Inf\"} 1\n# EOF\n";
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(PAGE.as_bytes()).expect("memory");
    let packed = packed.finish().expect("memory");
    let exporter = Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            peer.wire.send(format!("HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", packed.len()));
            peer.wire.send(&packed);
        }
    });
    let collector = collector();
    let scrape = format!(
        "{{ url: '{}/gpu?key=canary', every: 300ms, allow: ['DCGM_FI_*', 'ours*'], labels: {{ pod: b }}, headers: {{ authorization: Bearer hush }} }}",
        exporter.url()
    );
    let sidecar = sidecar(&scrape, &exporter.url(), &collector);
    wait_until("it has arrived", || !foreign(&collector).is_empty());
    let request = &exporter.requests()[0];
    assert_eq!(request.target(), "/gpu?key=canary");
    assert_eq!(request.header("authorization"), Some("Bearer hush"));
    assert_eq!(request.header("accept-encoding"), Some("gzip"));
    assert!(request.header("accept").is_some_and(|asked| asked.contains("openmetrics")));

    let (_, first) = foreign(&collector).remove(0);
    let target = format!("{}/gpu", exporter.url().trim_start_matches("http://"));
    let given = [("pod", "b"), ("target", &target)];
    let series = |name: &str, own: (&str, &str)| {
        let labels = given.into_iter().chain([own]);
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        (name.to_owned(), labels.collect::<BTreeMap<_, _>>())
    };
    let expected = Samples::from([
        (series("DCGM_FI_DEV_GPU_UTIL", ("gpu", "0")), 98.0),
        (series("ours_total", ("a", "\"")), 5.0),
    ]);
    assert_eq!(flattened(&first.metrics), expected);
    let Some(metric::Data::Sum(sum)) = &first.metrics[1].data else { panic!("{first:?}") };
    assert_eq!(sum.data_points[0].start_time_unix_nano, 1_700_000_000_250_000_000);

    let page = sidecar.ask("/metrics").text();
    for (result, each) in [("kept", 3), ("not_allowed", 1), ("malformed", 1), ("unusable", 2)] {
        let line = page.lines().find(|line| {
            line.starts_with("tidegate_scrape_samples_total")
                && line.contains(&format!("\"{result}\""))
        });
        let count: u64 = line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect(result);
        assert!(count > 0 && count.is_multiple_of(each), "{result}: {count}");
    }
    assert!(!sidecar.log().contains("canary"), "{}", sidecar.log());
    assert!(!sidecar.ask("/config").text().contains("hush"));
}

/// What is too long, no metrics, an error, or late.
#[test]
fn a_page_that_cannot_be_used_is_told_of_by_its_reason() {
    for (reason, answer) in [
        ("status", answer_with(503, "vllm:a 1\n")),
        ("not_metrics", answer_with(200, "<html>\n<p>no</p>\n")),
        ("too_large", answer_with(200, &"vllm:a 1\n".repeat(200))),
        ("encoding", answer("x").replacen("\r\n", "\r\nContent-Encoding: br\r\n", 1)),
        ("timeout", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".to_owned()),
    ] {
        let exporter = Upstream::answering(answer);
        let collector = collector();
        let scrape = format!(
            "{{ url: '{}/metrics', every: 50ms, timeout: 200ms, max_page: 1KiB }}",
            exporter.url()
        );
        let sidecar = sidecar(&scrape, &exporter.url(), &collector);
        let failed = || {
            let page = sidecar.ask("/metrics").text();
            let mut lines = page.lines();
            let line = lines.find(|line| {
                line.starts_with("tidegate_scrape_failures_total") && line.contains(reason)
            });
            line.is_some_and(|line| !line.ends_with(" 0"))
        };
        wait_until(&format!("it is told of: {reason}"), failed);
        assert_eq!(sidecar.metric("tidegate_scrape_up"), 0.0);
        let told = sidecar.log().matches("cannot be scraped").count();
        assert_eq!(told, 1, "it is said once: {}", sidecar.log());
        assert!(foreign(&collector).is_empty());
    }
}

/// Without anybody to pass them on to, nobody is asked.
#[test]
fn without_a_collector_nothing_is_scraped_and_that_is_said() {
    let exporter = Upstream::answering(answer_with(200, "vllm:a 1\n"));
    let config = format!("scrape: [{{ url: '{}/metrics', every: 50ms }}]", exporter.url());
    let sidecar = Launch::new().config(&config).arg("--upstream").arg(&exporter.url()).start();
    wait_until("it is said", || sidecar.log().contains("nothing is scraped"));
    sidecar.call(call());
    assert!(exporter.requests().iter().all(|request| request.target() != "/metrics"));
}
