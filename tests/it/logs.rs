//! Log events by OTLP: which calls are told of, and what is not told.

use crate::support::*;

const GOOD: &str = "4bf92f3577b34da6a3ce929d0e0e4801";
const LIMITED: &str = "4bf92f3577b34da6a3ce929d0e0e4802";
const REFUSED: &str = "4bf92f3577b34da6a3ce929d0e0e4803";
const CUT: &str = "4bf92f3577b34da6a3ce929d0e0e4804";
const SAID: &str = "canary-of-the-caller";

fn call_in_trace(path: &str, model: &str, trace: &str) -> String {
    let body = format!(
        r#"{{"model":"{model}","messages":[{{"role":"user","content":"{SAID}"}}],"stream":{}}}"#,
        model == "cut"
    );
    // Whether a trace is sampled is a question of spans.
    let field = format!("\r\ntraceparent: 00-{trace}-00f067aa0ba902b7-00\r\n");
    post(path, &body).replacen("\r\n", &field, 1)
}

/// A model server that does as the model is called.
fn model() -> Upstream {
    Upstream::new(|mut peer| {
        while let Some(request) = peer.request() {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            let is_for = |model: &str| body.contains(&format!(r#""model":"{model}""#));
            if is_for("limited") {
                let error = r#"{"error":{"message":"slow down","type":"rate_limit_error"}}"#;
                peer.wire.send(answer_with(429, error));
            } else if is_for("cut") {
                peer.wire.send(format!("{STREAM_HEAD}{}", chunk(TOKEN)));
                return peer.close();
            } else {
                peer.wire.send(answer(COMPLETION));
            }
        }
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits");
    (0..hex.len()).step_by(2).map(pair).collect()
}

/// Everything that was pushed as logs.
fn pushed(collector: &Upstream) -> Vec<u8> {
    let requests = collector.requests();
    let logs = requests.iter().filter(|request| request.target() == "/v1/logs");
    logs.flat_map(|request| request.body.clone()).collect()
}

fn has(all: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(all, part).is_some()
}

fn told(config: &str) -> Vec<u8> {
    let (collector, model) =
        (Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), model());
    let config = format!(
        "{config}\nupstreams: {{ a: {{ url: '{}' }} }}\nroutes: [{{ match: {{ path: /v1/* }}, upstream: a }}]",
        model.url()
    );
    let mut sidecar = Launch::new()
        .config(&config)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .env("OTEL_LOGS_EXPORTER", "otlp")
        .env("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=pod-1")
        .start();
    let chat = "/v1/chat/completions";
    for (path, model, trace) in [
        (chat, "good", GOOD),
        (chat, "limited", LIMITED),
        ("/nowhere", "good", REFUSED),
        (chat, "cut", CUT),
    ] {
        sidecar.call(call_in_trace(path, model, trace));
    }
    sidecar.wait_records(4);
    // What waits is pushed at the end.
    sidecar.signal("INT");
    assert!(sidecar.wait().success());
    let all = pushed(&collector);
    assert!(!has(&all, SAID.as_bytes()), "what was said stands in a log event");
    assert!(has(&all, b"k8s.pod.name") && has(&all, b"pod-1"));
    all
}

#[test]
fn calls_that_do_not_end_well_are_told_of_with_their_traces() {
    let all = told("");
    for (trace, words) in [
        (LIMITED, ["tidegate.call.failed", "rate_limit_error", "ERROR"]),
        (REFUSED, ["tidegate.call.refused", "no_route", "WARN"]),
        (CUT, ["tidegate.call.truncated", "cut truncated", "ERROR"]),
    ] {
        assert!(has(&all, &bytes(trace)), "{trace}");
        for word in words {
            assert!(has(&all, word.as_bytes()), "{word}");
        }
    }
    assert!(!has(&all, &bytes(GOOD)) && !has(&all, b"tidegate.call.completed"));
}

#[test]
fn every_call_is_told_of_where_that_is_asked_for() {
    let all = told("otlp: { logs: { calls: all } }");
    for trace in [GOOD, LIMITED, REFUSED, CUT] {
        assert!(has(&all, &bytes(trace)), "{trace}");
    }
    assert!(has(&all, b"tidegate.call.completed"));
}
