//! Callers that leave before the end, where the upstream's answer is read on for its usage.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;

use crate::support::*;

const USAGE: &str = "data: {\"id\":\"c1\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":40}}\n\n";

fn stream() -> (Upstream, Gate) {
    let begun = format!("{STREAM_HEAD}{}", chunk(TOKEN));
    let rest = [TOKEN, TOKEN, TOKEN, FINISH, USAGE, DONE].map(chunk).concat();
    in_two_parts(begun, format!("{rest}{LAST_CHUNK}"))
}

/// A sidecar whose upstream's answers are read on as far as this says.
fn start(upstream: &Upstream, drain: &str, rest: &str) -> Sidecar {
    launch(upstream, drain, rest).start()
}

fn launch(upstream: &Upstream, drain: &str, rest: &str) -> Launch {
    let url = upstream.url();
    Launch::new().config(&format!(
        "upstreams: {{ a: {{ url: '{url}', on_disconnect: {{ drain: {drain} }} }} }}\nroutes: [{{ upstream: a }}]\n{rest}"
    ))
}

/// Waits until so many answers are read on without their callers.
fn wait_open(sidecar: &Sidecar, count: usize) {
    wait_until("answers are read on", || sidecar.metric("tidegate_drains_open") == count as f64);
}

/// The record of the only call, once that is over: its end waits for no answer without a caller.
fn over(sidecar: Sidecar) -> serde_json::Value {
    sidecar.wait_records(1);
    sidecar.finish_with_one()
}

#[test]
fn the_usage_of_a_stream_is_known_though_its_caller_has_left_and_its_connection_is_free_at_once() {
    let (upstream, gate) = stream();
    let sidecar = launch(&upstream, "{}", "").workers(1).start();
    let mut caller = sidecar.connect();
    caller.send(stream_call());
    caller.through(b"hi").expect("a token");
    caller.finish_writing();
    let (rest, _) = caller.rest();
    assert!(!String::from_utf8_lossy(&rest).contains(LAST_CHUNK), "the end is not made up");
    wait_open(&sidecar, 1);
    assert_eq!(sidecar.records().len(), 0, "it is not over");
    assert_eq!(sidecar.metric("tidegate_calls_in_flight"), 1.0);
    gate.open();

    let record = &sidecar.wait_records(1)[0];
    assert_outcome(record, "abandoned", None);
    assert_eq!(record["http.response.status_code"], 200);
    assert_eq!(record["tidegate.usage.source"], "reported");
    assert_eq!(record["gen_ai.usage.output_tokens"], 40);
    assert_eq!(record["tidegate.drain.end"], "whole");
    assert!(record["tidegate.drain.duration_s"].as_f64() < record["tidegate.duration_s"].as_f64());
    // Three of four chunks came too late; the total is all that was stated.
    assert_eq!(record["tidegate.estimated.wasted_output_tokens"], 30);
    assert!(record["tidegate.wasted.output_tokens"].is_null());
    let metrics = sidecar.ask("/metrics").text();
    for line in [
        r#"tidegate_drains_total{upstream="a",end="whole"} 1"#,
        r#"tidegate_drains_open{upstream="a"} 0"#,
        r#"upstream="a",source="share"} 30"#,
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    // The upstream's connection is as good as new.
    let mut caller = sidecar.connect();
    caller.send(stream_call());
    gate.open();
    caller.through(LAST_CHUNK.as_bytes()).expect("the whole stream");
    assert_eq!(upstream.connections(), 1);
    assert_eq!(sidecar.finish().len(), 2);
}

#[test]
fn an_answer_that_had_not_begun_is_waited_for_and_all_of_it_is_wasted() {
    let (upstream, gate) = in_two_parts(String::new(), answer(COMPLETION));
    let sidecar = start(&upstream, "{}", "");
    let mut caller = sidecar.connect();
    caller.send(call());
    wait_until("the upstream has the call", || upstream.requests().len() == 1);
    drop(caller);
    wait_open(&sidecar, 1);
    gate.open();
    let record = over(sidecar);
    assert_outcome(&record, "abandoned", None);
    assert_eq!(record["gen_ai.usage.output_tokens"], 1);
    assert_eq!(record["tidegate.wasted.output_tokens"], 1);
    assert!(record["http.response.status_code"].is_null(), "the caller got none: {record:#}");
}

#[test]
fn a_connection_whose_call_goes_on_is_closed_and_makes_room() {
    let (upstream, gate) = in_two_parts(String::new(), answer(COMPLETION));
    let sidecar = launch(&upstream, "{}", "limits: { connections: 1 }").workers(1).start();
    let mut caller = sidecar.connect();
    caller.send(call());
    wait_until("the upstream has the call", || upstream.requests().len() == 1);
    caller.finish_writing();
    let (rest, _) = caller.rest();
    assert!(rest.is_empty(), "the connection is closed");
    wait_open(&sidecar, 1);
    // The only place among the connections is free again.
    let mut next = sidecar.connect();
    next.send(call());
    wait_until("the next call is taken", || upstream.requests().len() == 2);
    gate.open();
    gate.open();
    assert_eq!(next.response().status(), 200);
    sidecar.wait_records(2);
    assert_eq!(sidecar.finish().len(), 2);
}

#[test]
fn a_call_that_fails_without_its_caller_is_not_made_again() {
    let (upstream, gate) = in_two_parts(String::new(), answer_with(503, "{}"));
    let url = upstream.url();
    let sidecar = Launch::new()
        .config(&format!(
            "upstreams: {{ a: {{ url: '{url}', on_disconnect: {{ drain: {{}} }} }}, b: {{ url: '{url}' }} }}\nroutes: [{{ upstream: a, retry: {{}}, fallback: [{{ upstream: b }}] }}]"
        ))
        .start();
    let mut caller = sidecar.connect();
    caller.send(bare_post("/v1/chat/completions", r#"{"model":"gpt-4o"}"#));
    wait_until("the upstream has the call", || upstream.requests().len() == 1);
    drop(caller);
    wait_open(&sidecar, 1);
    gate.open();
    let record = over(sidecar);
    assert_outcome(&record, "abandoned", None);
    assert_eq!((&record["tidegate.attempts"], &record["error.type"]), (&1.into(), &().into()));
    assert_eq!(record["tidegate.drain.end"], "whole");
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn an_upstream_that_breaks_off_meanwhile_has_an_abandoned_call_without_usage() {
    let begun = format!("{STREAM_HEAD}{}", chunk(TOKEN));
    let gate = Gate::default();
    let go = gate.clone();
    let upstream = Upstream::new(move |mut peer| {
        peer.request();
        peer.wire.send(&begun);
        go.pass();
        peer.close();
    });
    let sidecar = start(&upstream, "{}", "");
    let mut caller = sidecar.connect();
    caller.send(stream_call());
    caller.through(b"hi").expect("a token");
    drop(caller);
    wait_open(&sidecar, 1);
    gate.open();
    let record = over(sidecar);
    assert_outcome(&record, "abandoned", None);
    assert_eq!(record["tidegate.drain.end"], "broken");
    assert!(record["error.type"].is_null() && record["tidegate.wasted.output_tokens"].is_null());
}

#[test]
fn an_answer_is_read_on_no_longer_and_no_further_than_allowed() {
    let much = format!("{STREAM_HEAD}{}", chunk(TOKEN));
    let more = chunk(&TOKEN.repeat(100));
    for (drain, end) in [("{ time: 100ms }", "time"), ("{ bytes: 1KiB }", "bytes")] {
        let (upstream, gate) = in_two_parts(much.clone(), more.clone());
        let sidecar = start(&upstream, drain, "");
        let mut caller = sidecar.connect();
        caller.send(stream_call());
        caller.through(b"hi").expect("a token");
        drop(caller);
        if end == "bytes" {
            wait_open(&sidecar, 1);
            gate.open();
        }
        let record = &sidecar.wait_records(1)[0];
        assert_outcome(record, "abandoned", None);
        assert_eq!(record["tidegate.drain.end"], end);
        if end == "time" {
            gate.open();
        }
        upstream.wait_closed();
        sidecar.finish_with_one();
    }
}

#[test]
fn where_too_many_are_read_on_the_next_ends_with_its_caller() {
    let (upstream, gate) = stream();
    let sidecar = start(&upstream, "{}", "limits: { drains: 1 }");
    for left in 1..=2 {
        let mut caller = sidecar.connect();
        caller.send(stream_call());
        caller.through(b"hi").expect("a token");
        drop(caller);
        match left {
            1 => wait_open(&sidecar, 1),
            _ => _ = sidecar.wait_records(1),
        }
    }
    assert_eq!(sidecar.records()[0]["tidegate.drain.end"], "full");
    gate.open();
    gate.open();
    sidecar.wait_records(2);
    let records = sidecar.finish();
    assert_eq!(records.len(), 2);
    assert_eq!(records[0]["tidegate.drain.end"], "whole");
}

#[test]
fn a_sidecar_that_ends_waits_for_no_answer_without_a_caller() {
    let (upstream, gate) = stream();
    let mut sidecar = start(&upstream, "{}", "");
    let mut caller = sidecar.connect();
    caller.send(stream_call());
    caller.through(b"hi").expect("a token");
    drop(caller);
    wait_open(&sidecar, 1);
    let start = Instant::now();
    sidecar.signal("INT");
    assert!(sidecar.wait().success(), "{}", sidecar.log());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let records = sidecar.records();
    assert_eq!(records.len(), 1);
    assert_outcome(&records[0], "abandoned", None);
    assert_eq!(records[0]["tidegate.drain.end"], "shutdown");
    gate.open();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_by_http2_may_leave_before_its_answer_or_amid_it() {
    let (upstream, gate) = in_two_parts(String::new(), answer(COMPLETION));
    let sidecar = start(&upstream, "{}", "");
    let mut caller = http2_caller(sidecar.address).await;
    let early = http2_post("/v1/chat/completions", full(r#"{"model":"gpt-4o"}"#));
    let early = tokio::spawn(caller.send_request(early));
    wait_until("the upstream has the call", || upstream.requests().len() == 1);
    early.abort();
    wait_open(&sidecar, 1);
    gate.open();
    let record = over(sidecar);
    assert_outcome(&record, "abandoned", None);
    assert_eq!(record["tidegate.wasted.output_tokens"], 1);

    let (upstream, gate) = stream();
    let sidecar = start(&upstream, "{}", "");
    let mut caller = http2_caller(sidecar.address).await;
    let call = http2_post("/v1/chat/completions", full(r#"{"model":"gpt-4o","stream":true}"#));
    let mut body = caller.send_request(call).await.expect("an answer").into_body();
    let token: Bytes =
        body.frame().await.expect("a token").expect("whole").into_data().expect("data");
    assert!(!token.is_empty());
    drop(body);
    wait_open(&sidecar, 1);
    gate.open();
    let record = over(sidecar);
    assert_outcome(&record, "abandoned", None);
    assert_eq!(record["gen_ai.usage.output_tokens"], 40);
    assert_eq!(record["tidegate.estimated.wasted_output_tokens"], 30);
}

#[test]
fn a_policy_that_is_none_is_told() {
    let folder = Folder::new();
    let path = folder.file("tidegate.yaml");
    for (policy, part) in [
        ("stop", "expected `cancel`, `drain` or `{ drain: { time: 60s, bytes: 16MiB } }`"),
        ("{ drain: { tme: 1s } }", "on_disconnect.drain"),
        ("{ drian: {} }", "did you mean `drain`"),
        ("{ drain: { time: 60 } }", "is not a duration above zero"),
    ] {
        let config = format!(
            "upstreams: {{ a: {{ url: 'http://a', on_disconnect: {policy} }} }}\nroutes: [{{ upstream: a }}]"
        );
        std::fs::write(&path, config).expect("a folder to write to");
        let output = tidegate(["check", path.to_str().expect("text")]).output().expect("it runs");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && told.contains(part), "{policy}: {told}");
    }
}
