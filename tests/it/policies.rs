//! Policies together, under callers and upstreams that do what is rare: nothing of it shows, and what
//! a call held is free again.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use flate2::Compression;
use flate2::write::GzEncoder;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use crate::support::*;

const SOON: &str = "retry: { wait: 1ms, limited: { wait: 1ms, longest_wait: 5ms } }";
const PING: &str = ": ping\n\n";
const OVERLOADED: &str =
    "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n";
/// The breaker, the limit and the balancer, all of them strict.
const STRICT: &str = "breaker: { consecutive: 2, open: 60s }, limit: { concurrency: 1, queue: 0 }";

/// Answers the first requests with these, and all later ones with the last.
fn in_turn(answers: Vec<Vec<u8>>) -> Upstream {
    let turn = AtomicUsize::new(0);
    Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            let at = turn.fetch_add(1, SeqCst).min(answers.len() - 1);
            peer.wire.send(&answers[at]);
        }
        peer.closed();
    })
}

/// Fails the first call, and answers the next so.
fn fails_once(then: impl Into<Vec<u8>>) -> Upstream {
    in_turn(vec![answer_with(503, "{}").into_bytes(), then.into()])
}

/// A sidecar before this upstream, which has these policies.
fn start(upstream: &Upstream, policies: &str, route: &str, rest: &str) -> Sidecar {
    Launch::new().config(&config(upstream, policies, route, rest)).start()
}

fn config(upstream: &Upstream, policies: &str, route: &str, rest: &str) -> String {
    format!(
        "upstreams: {{ a: {{ url: '{}', {policies} }} }}\nroutes: [{{ upstream: a, {route} }}]\n{rest}\n",
        upstream.url()
    )
}

fn good_stream() -> String {
    format!("{TOKEN}{FINISH}{DONE}")
}

fn stream_of(events: &str) -> String {
    format!("{STREAM_HEAD}{}{LAST_CHUNK}", chunk(events))
}

fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(text.as_bytes()).expect("memory takes it");
    gzip.finish().expect("memory takes it")
}

/// A stream of known length, encoded so.
fn whole_stream(fields: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{fields}Content-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Nothing is held for a call any more, and its one record says that its caller has left.
#[track_caller]
fn assert_abandoned(sidecar: Sidecar) -> Value {
    wait_until("nothing is in flight", || sidecar.metric("tidegate_calls_in_flight") == 0.0);
    wait_until("its place is free", || sidecar.metric("tidegate_limit_in_use") == 0.0);
    let record = sidecar.finish_with_one();
    assert_outcome(&record, "abandoned", None);
    record
}

/// Failures that the breakers have counted.
fn failures(sidecar: &Sidecar) -> u64 {
    let states = sidecar.ask("/policies").json();
    let breakers = states["breakers"]["a"].as_array().expect("it has breakers");
    breakers.iter().map(|breaker| breaker["bad"].as_u64().expect("a number")).sum()
}

#[test]
fn a_held_stream_of_known_length_stays_one() {
    let body = format!("{PING}{}", good_stream());
    for first in [answer_with(503, "{}").into_bytes(), whole_stream("", OVERLOADED.as_bytes())] {
        let upstream = in_turn(vec![first, whole_stream("", body.as_bytes())]);
        let sidecar = start(&upstream, STRICT, SOON, "");
        let reply = sidecar.call(stream_call());
        assert_eq!((reply.status(), reply.text(), reply.end), (200, body.clone(), End::Clean));
        assert_eq!(reply.header("content-length"), Some(body.len().to_string().as_str()));
        let record = sidecar.finish_with_one();
        assert_outcome(&record, "completed", None);
        assert_eq!(record["tidegate.response.bytes"], body.len());
    }
}

#[test]
fn a_held_stream_that_ends_short_of_its_length_is_made_again() {
    let short = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 1000\r\n\r\n{PING}"
    );
    let turn = AtomicUsize::new(0);
    let upstream = Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            if turn.fetch_add(1, SeqCst) == 0 {
                peer.wire.send(&short);
                return;
            }
            peer.wire.send(stream_of(&good_stream()));
        }
    });
    let sidecar = start(&upstream, STRICT, SOON, "");
    assert_eq!(sidecar.call(stream_call()).text(), good_stream());
    assert_outcome(&sidecar.finish_with_one(), "completed", None);
}

#[test]
fn a_head_is_asked_for_again_and_has_no_body() {
    let failed =
        "HTTP/1.1 503 Word\r\nContent-Type: text/event-stream\r\nContent-Length: 7\r\n\r\n";
    let good = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 7\r\n\r\n";
    let upstream = in_turn(vec![failed.into(), good.into()]);
    let sidecar = start(&upstream, STRICT, SOON, "");
    let mut caller = sidecar.connect();
    for _ in 0..2 {
        caller.send("HEAD /v1/models HTTP/1.1\r\nHost: a\r\n\r\n");
        let reply = caller.response_to("HEAD");
        assert_eq!((reply.status(), reply.header("content-length")), (200, Some("7")));
    }
    assert_eq!(upstream.requests().len(), 3);
    drop(caller);
    let records = sidecar.finish();
    records.iter().for_each(|record| assert_outcome(record, "completed", None));
    assert_eq!(records.len(), 2);
}

#[test]
fn a_caller_of_http_1_0_gets_a_held_stream_to_its_end() {
    let events = format!("{PING}{}", good_stream());
    for then in [stream_of(&events).into_bytes(), whole_stream("", events.as_bytes())] {
        let upstream = fails_once(then);
        let sidecar = start(&upstream, STRICT, SOON, "");
        let reply = sidecar.call(stream_call().replacen("HTTP/1.1", "HTTP/1.0", 1));
        assert_eq!((reply.status(), reply.text(), reply.end), (200, events.clone(), End::Clean));
        assert_eq!(reply.header("transfer-encoding"), None);
        assert_eq!(upstream.requests().len(), 2);
        assert_outcome(&sidecar.finish_with_one(), "completed", None);
    }
}

#[test]
fn an_encoded_stream_is_held_and_passes_byte_by_byte() {
    let (good, bad) = (gzip(&format!("{PING}{}", good_stream())), gzip(OVERLOADED));
    let field = "Content-Encoding: gzip\r\n";
    let upstream = in_turn(vec![whole_stream(field, &bad), whole_stream(field, &good)]);
    let sidecar = start(&upstream, STRICT, SOON, "");
    let call = stream_call().replacen("\r\n", "\r\nAccept-Encoding: gzip\r\n", 1);
    let reply = sidecar.call(call);
    assert_eq!(reply.header("content-encoding"), Some("gzip"));
    assert!(reply.body == good, "{:?}", reply.body);
    let record = sidecar.finish_with_one();
    assert_outcome(&record, "completed", None);
    assert_eq!(record["tidegate.attempts"], 2);
}

#[test]
fn an_encoding_that_nobody_reads_is_not_held() {
    let gate = Gate::default();
    let opened = gate.clone();
    let upstream = Upstream::new(move |mut peer| {
        peer.request();
        let head = STREAM_HEAD.replacen("\r\n", "\r\nContent-Encoding: x-own\r\n", 1);
        peer.wire.send(format!("{head}{}", chunk("abc")));
        opened.pass();
        peer.wire.send(LAST_CHUNK);
        peer.closed();
    });
    let sidecar = start(&upstream, STRICT, "retry: { hold: 60s }", "");
    let mut caller = sidecar.connect();
    caller.send(stream_call());
    let mut reply = caller.head().expect("a head before the end");
    gate.open();
    caller.body(&mut reply);
    assert_eq!(reply.text(), "abc");
}

#[test]
fn trailers_behind_what_was_held_go_with_it() {
    let trailed = |events: &str| {
        format!("{STREAM_HEAD}{}0\r\nx-sum: 1\r\n\r\n", chunk(events)).replacen(
            "\r\n",
            "\r\nTrailer: x-sum\r\n",
            1,
        )
    };
    for events in [format!("{PING}{OVERLOADED}"), PING.to_owned(), good_stream()] {
        let upstream = in_turn(vec![trailed(&events).into()]);
        let sidecar = start(&upstream, "", SOON, "");
        let call = stream_call().replacen("\r\n", "\r\nTE: trailers\r\n", 1);
        let reply = sidecar.call(call);
        assert_eq!((reply.text(), reply.end), (events.clone(), End::Clean));
        assert_eq!(reply.trailers.to_ascii_lowercase(), "x-sum: 1\r\n", "{events}");
        assert_eq!(sidecar.finish().len(), 1);
    }
}

#[test]
fn a_caller_that_leaves_while_a_retry_waits_leaves_nothing_behind() {
    let limited = "HTTP/1.1 429 Slow\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n";
    let upstream = in_turn(vec![limited.into()]);
    let policies = "limit: { concurrency: 1, queue: 0 }";
    let sidecar = start(&upstream, policies, "retry: {}", "");
    let mut caller = sidecar.connect();
    caller.send(call());
    wait_until("the call is made", || upstream.requests().len() == 1);
    wait_until("its place is free while it waits", || {
        sidecar.metric("tidegate_limit_in_use") == 0.0
    });
    assert_eq!(sidecar.metric("tidegate_calls_in_flight"), 1.0);
    drop(caller);
    wait_until("it has left", || sidecar.metric("tidegate_calls_in_flight") == 0.0);
    assert_eq!(sidecar.metric("tidegate_retries_total"), 0.0, "nothing was made again");
    let record = assert_abandoned(sidecar);
    assert_eq!(record["tidegate.attempts"], 1);
    let waited_s = record["tidegate.wait.retry_s"].as_f64();
    assert!(waited_s.is_some_and(|seconds| seconds > 0.0 && seconds < 30.0), "{record:#}");
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn a_caller_that_leaves_while_its_stream_is_held_cancels_it() {
    for head in [STREAM_HEAD.to_owned() + &chunk(PING), whole_head(PING)] {
        let upstream = Upstream::new(move |mut peer| {
            peer.request();
            peer.wire.send(&head);
            peer.closed();
        });
        let sidecar = start(&upstream, STRICT, SOON, "");
        let mut caller = sidecar.connect();
        caller.send(stream_call());
        wait_until("the call is made", || upstream.requests().len() == 1);
        drop(caller);
        upstream.wait_closed();
        wait_until("nothing is in flight", || sidecar.metric("tidegate_calls_in_flight") == 0.0);
        assert_eq!(failures(&sidecar), 0, "a caller that leaves is no failure");
        assert_eq!(sidecar.metric("tidegate_retries_total"), 0.0);
        assert_abandoned(sidecar);
    }
}

/// The head of a long answer, and its beginning.
fn whole_head(begin: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 1000\r\n\r\n{begin}"
    )
}

#[test]
fn a_caller_that_waits_for_it_is_told_once_to_send_its_body() {
    let upstream = fails_once(answer(COMPLETION));
    let by_model = "match: { model: gpt-4o }, ";
    for route in [SOON.to_owned(), format!("{by_model}{SOON}")] {
        let sidecar = start(&upstream, STRICT, &route, "");
        let mut caller = sidecar.connect();
        let request = call().replacen("\r\n", "\r\nExpect: 100-continue\r\n", 1);
        let (head, body) = request.split_once("\r\n\r\n").expect("a head");
        caller.send(format!("{head}\r\n\r\n"));
        assert_eq!(caller.response().status(), 100);
        assert_eq!(caller.call(body).status(), 200);
        drop(caller);
        assert_outcome(&sidecar.finish_with_one(), "completed", None);
    }
    for request in upstream.requests() {
        assert_eq!(request.header("expect"), None);
        assert_eq!(request.text(), r#"{"model":"gpt-4o"}"#);
    }
}

#[test]
fn a_body_in_chunks_is_sent_whole_each_time() {
    let upstream = fails_once(answer(COMPLETION));
    let sidecar = start(&upstream, STRICT, SOON, "");
    let mut caller = sidecar.connect();
    caller.send(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    for piece in ["{\"mod", "el\":\"gp", "t-4o\"}"] {
        caller.send(chunk(piece));
    }
    let reply = caller.call(LAST_CHUNK);
    assert_eq!(reply.status(), 200);
    // The connection is good for another.
    assert_eq!(caller.call(call()).status(), 200);
    let requests = upstream.requests();
    assert_eq!(requests.len(), 3);
    for request in requests {
        assert_eq!(request.text(), r#"{"model":"gpt-4o"}"#);
        assert_eq!(request.header("content-length"), Some("18"));
        assert_eq!(request.header("transfer-encoding"), None);
    }
    drop(caller);
    let records = sidecar.finish();
    assert_eq!(records[0]["tidegate.request.bytes"], 18);
    assert_eq!(records[0]["gen_ai.request.model"], "gpt-4o");
}

#[test]
fn a_body_is_held_up_to_the_limit_and_not_beyond() {
    for (length, attempts, status) in [(1024, 2, 200), (1025, 1, 503)] {
        let upstream = fails_once(answer(COMPLETION));
        let sidecar = start(&upstream, STRICT, SOON, "limits: { held_body: 1KiB }");
        let rest = length - r#"{"model":"gpt-4o","x":""}"#.len();
        let body = format!(r#"{{"model":"gpt-4o","x":"{}"}}"#, "x".repeat(rest));
        let reply = sidecar.call(post("/v1/chat/completions", &body));
        assert_eq!((reply.status(), upstream.requests().len()), (status, attempts), "{length}");
        assert!(upstream.requests().iter().all(|request| request.text() == body));
    }
}

#[test]
fn usage_is_asked_for_once_however_often_the_call_is_made() {
    let usage = "data: {\"id\":\"c1\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n";
    let good = stream_of(&format!("{TOKEN}{FINISH}{usage}{DONE}"));
    for first in [answer_with(503, "{}"), stream_of(&format!("{PING}{OVERLOADED}"))] {
        let upstream = in_turn(vec![first.into(), good.clone().into()]);
        let sidecar = start(&upstream, STRICT, &format!("include_usage: add, {SOON}"), "");
        let reply = sidecar.call(stream_call());
        assert_eq!((reply.status(), reply.text()), (200, good_stream()));
        let requests = upstream.requests();
        assert_eq!(requests.len(), 2);
        for request in &requests {
            assert_eq!(request.text().matches("include_usage").count(), 1, "{}", request.text());
        }
        assert_eq!(requests[0].body, requests[1].body);
        let record = sidecar.finish_with_one();
        assert_outcome(&record, "completed", None);
        assert_eq!(record["gen_ai.usage.output_tokens"], 1);
    }
}

#[test]
fn every_attempt_is_signed_anew() {
    let limited = "HTTP/1.1 429 Slow\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
    let upstream = in_turn(vec![limited.into(), answer("{}").into()]);
    let policies = "credential: { aws: { region: us-east-1 } }, breaker: {}";
    let launch = Launch::new().config(&config(&upstream, policies, "retry: {}", ""));
    let sidecar = launch.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").start();
    let reply = sidecar.call(post("/model/amazon.nova-pro-v1%3A0/converse", r#"{"a":1}"#));
    assert_eq!(reply.status(), 200, "{}", reply.text());
    let [first, second] = &upstream.requests()[..] else { panic!("two requests") };
    for name in ["authorization", "x-amz-date", "x-amz-security-token", "content-length"] {
        for request in [first, second] {
            let named = |(field, _): &&(String, String)| field.eq_ignore_ascii_case(name);
            assert_eq!(request.headers.iter().filter(named).count(), 1, "{name}: {request:?}");
        }
    }
    assert_ne!(first.header("x-amz-date"), second.header("x-amz-date"));
    assert_ne!(first.header("authorization"), second.header("authorization"));
    assert_eq!(first.body, second.body);
}

#[test]
fn a_call_that_waits_goes_on_by_the_configuration_that_it_began_with() {
    let limited = "HTTP/1.1 429 Slow\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
    let (old, new) =
        (in_turn(vec![limited.into(), answer("1").into()]), in_turn(vec![answer("2").into()]));
    let sidecar = start(&old, STRICT, "retry: {}", "");
    let mut caller = sidecar.connect();
    caller.send(call());
    wait_until("it waits", || sidecar.metric("tidegate_retries_total") == 1.0);
    std::fs::write(sidecar.file("tidegate.yaml"), config(&new, STRICT, "retry: {}", ""))
        .expect("a folder");
    sidecar.signal("HUP");
    wait_until("it is read", || sidecar.metric("tidegate_config_reloads_total") >= 1.0);
    assert_eq!(sidecar.call(call()).text(), "2");
    assert_eq!(caller.response().text(), "1");
    assert_eq!(old.requests().len(), 2);
    drop(caller);
    wait_until("nothing is in flight", || sidecar.metric("tidegate_calls_in_flight") == 0.0);
    sidecar.finish().iter().for_each(|record| assert_outcome(record, "completed", None));
}

#[test]
fn a_call_that_has_waited_as_told_is_not_kept_out_by_its_own_gate() {
    for (hint, retry) in [
        ("Retry-After: 1", "retry: {}"),
        ("Retry-After-Ms: 40", "retry: { limited: { attempts: 2 } }"),
        // Less than a gate is closed where no time is named.
        ("X-None: 1", "retry: { limited: { attempts: 2, wait: 1ms, longest_wait: 5ms } }"),
    ] {
        let limited = format!("HTTP/1.1 429 Slow\r\n{hint}\r\nContent-Length: 0\r\n\r\n");
        let upstream = in_turn(vec![limited.into(), answer(COMPLETION).into()]);
        let sidecar =
            start(&upstream, "breaker: {}, limit: { concurrency: 1, queue: 0 }", retry, "");
        let reply = sidecar.call(call());
        assert_eq!((reply.status(), reply.text()), (200, COMPLETION.to_owned()), "{hint}");
        assert_eq!(upstream.requests().len(), 2);
        let record = sidecar.finish_with_one();
        assert_outcome(&record, "completed", None);
        assert_eq!(record["tidegate.attempts"], 2);
    }
}

#[test]
fn a_breaker_that_opens_between_attempts_sends_the_call_elsewhere() {
    let (bad, good) =
        (in_turn(vec![answer_with(503, "{}").into()]), in_turn(vec![answer("2").into()]));
    let config = format!(
        "upstreams: {{ a: {{ url: '{}', breaker: {{ consecutive: 1, open: 60s }} }}, b: {{ url: '{}' }} }}\nroutes: [{{ upstream: a, {SOON}, fallback: [{{ upstream: b }}] }}]\n",
        bad.url(),
        good.url().replace("127.0.0.1", "localhost"),
    );
    let sidecar = Launch::new().config(&config).start();
    for _ in 0..3 {
        let reply = sidecar.call(bare_post("/v1/chat/completions", r#"{"model":"gpt-4o"}"#));
        assert_eq!((reply.status(), reply.text()), (200, "2".to_owned()));
    }
    assert_eq!((bad.requests().len(), good.requests().len()), (1, 3));
    assert_eq!(failures(&sidecar), 1);
    for record in sidecar.finish() {
        assert_outcome(&record, "completed", None);
        assert_eq!(record["tidegate.upstream"], "b");
    }
}

#[test]
fn a_pool_with_every_policy_hides_a_server_that_fails() {
    let (bad, good) =
        (in_turn(vec![answer_with(500, "{}").into()]), in_turn(vec![answer(COMPLETION).into()]));
    let config = format!(
        "upstreams: {{ a: {{ addresses: ['{}', '{}'], balance: {{}}, breaker: {{ error_ratio: 90% }}, limit: {{ concurrency: 4 }} }} }}\nroutes: [{{ upstream: a, retry: {{ wait: 1ms, budget: 100% }} }}]\n",
        bad.url(),
        good.url(),
    );
    let sidecar = Launch::new().config(&config).start();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut caller = sidecar.connect();
                for _ in 0..5 {
                    assert_eq!(caller.call(call()).status(), 200);
                }
            });
        }
    });
    wait_until("all places are free", || sidecar.metric("tidegate_limit_in_use") == 0.0);
    assert_eq!(sidecar.finish().len(), 40);
}

#[test]
fn calls_in_a_row_on_one_connection_are_answered_in_their_order() {
    let first = format!("{PING}{}", good_stream());
    let upstream = in_turn(vec![
        answer_with(503, "{}").into(),
        stream_of(&first).into(),
        stream_of(&format!("{PING}{OVERLOADED}")).into(),
        answer(COMPLETION).into(),
    ]);
    let sidecar = start(&upstream, STRICT, SOON, "");
    let mut caller = sidecar.connect();
    caller.send(stream_call() + &call());
    assert_eq!(caller.response().text(), first);
    assert_eq!(caller.response().text(), COMPLETION);
    drop(caller);
    let records = sidecar.finish();
    assert_eq!(records.len(), 2);
    for record in records {
        assert_outcome(&record, "completed", None);
        assert_eq!(record["tidegate.attempts"], 2);
    }
}

#[test]
fn an_error_whose_body_never_ends_does_not_hold_up_the_next_attempt() {
    let turn = AtomicUsize::new(0);
    let upstream = Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            if turn.fetch_add(1, SeqCst) == 0 {
                peer.wire.send("HTTP/1.1 503 Word\r\nContent-Length: 1000\r\n\r\n{");
                peer.closed();
                return;
            }
            peer.wire.send(answer(COMPLETION));
        }
    });
    let sidecar = start(&upstream, STRICT, "retry: { wait: 1ms, hold: 50ms }", "");
    assert_eq!(sidecar.call(call()).text(), COMPLETION);
    upstream.wait_closed();
    assert_outcome(&sidecar.finish_with_one(), "completed", None);
}

#[test]
fn a_caller_that_leaves_within_its_body_has_called_nobody() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let sidecar = start(&upstream, STRICT, SOON, "");
    // The model is known, so that the call is in flight.
    let begin = r#"{"model":"gpt-4o","#;
    for body in [
        format!("Content-Length: 100\r\n\r\n{begin}"),
        format!("Transfer-Encoding: chunked\r\n\r\n{}5\r\n\"", chunk(begin)),
    ] {
        let mut caller = sidecar.connect();
        caller.send(format!("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n{body}"));
        wait_until("it is read", || sidecar.metric("tidegate_calls_in_flight") == 1.0);
        drop(caller);
        wait_until("nothing is in flight", || sidecar.metric("tidegate_calls_in_flight") == 0.0);
    }
    assert_eq!(upstream.connections(), 0);
    assert_eq!(failures(&sidecar), 0);
    let records = sidecar.finish();
    assert_eq!(records.len(), 2);
    records.iter().for_each(|record| assert_outcome(record, "abandoned", None));
}

#[test]
fn a_change_of_protocol_is_asked_for_again() {
    let turn = AtomicUsize::new(0);
    let upstream = Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            if turn.fetch_add(1, SeqCst) == 0 {
                peer.wire.send(answer_with(503, "{}"));
                continue;
            }
            let upgraded = "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\nup";
            peer.wire.send(format!("HTTP/1.1 101 Switching Protocols\r\n{upgraded}"));
            peer.wire.wait_for(b"down");
            return;
        }
    });
    let sidecar = start(&upstream, STRICT, SOON, "");
    let mut caller = sidecar.connect();
    caller.send("GET /v1/live HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    assert_eq!(caller.head().expect("a head").status(), 101);
    caller.wait_for(b"up");
    caller.send("down");
    assert_eq!(caller.rest(), (b"up".to_vec(), End::Clean));
    drop(caller);
    wait_until("nothing is in flight", || sidecar.metric("tidegate_calls_in_flight") == 0.0);
    assert_eq!(sidecar.metric("tidegate_limit_in_use"), 0.0);
    assert_eq!(sidecar.finish_with_one()["tidegate.attempts"], 2);
}

#[test]
fn interim_answers_do_not_end_an_attempt() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let upstream = in_turn(vec![
        format!("{interim}{}", answer_with(503, "{}")).into(),
        format!("{interim}{}", stream_of(&good_stream())).into(),
    ]);
    let sidecar = start(&upstream, STRICT, SOON, "");
    let mut caller = sidecar.connect();
    caller.send(stream_call());
    let mut reply = caller.response();
    while reply.status() == 103 {
        reply = caller.response();
    }
    assert_eq!((reply.status(), reply.text()), (200, good_stream()));
    drop(caller);
    assert_outcome(&sidecar.finish_with_one(), "completed", None);
}

/// An HTTP/2 upstream that answers the first call by the one, and later ones by the other.
async fn http2_in_turn(
    first: impl Fn() -> Response<Body> + Clone + Send + Sync + 'static,
    then: impl Fn() -> Response<Body> + Clone + Send + Sync + 'static,
) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let turn = Arc::new(AtomicUsize::new(0));
    let turns = turn.clone();
    let address = serve(Speaks::Http2, move |request: Request<Incoming>| {
        let (turns, first, then) = (turns.clone(), first.clone(), then.clone());
        async move {
            let body = whole(request.into_body()).await.expect("a clean end");
            assert!(!body.is_empty(), "every attempt has the body");
            match turns.fetch_add(1, SeqCst) {
                0 => first(),
                _ => then(),
            }
        }
    })
    .await;
    (address, turn)
}

fn http2_sidecar(upstream: std::net::SocketAddr) -> Sidecar {
    let config = format!(
        "upstreams: {{ a: {{ url: 'http://{upstream}', http2: true, {STRICT} }} }}\nroutes: [{{ upstream: a, {SOON} }}]\n"
    );
    Launch::new().config(&config).start()
}

fn events(events: String) -> Response<Body> {
    let response = Response::builder().header("content-type", "text/event-stream");
    response.body(full(events)).expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_by_http2_are_made_again_too() {
    let failing = || Response::builder().status(503).body(full("{}")).expect("an answer");
    let broken = || events(format!("{PING}{OVERLOADED}"));
    let firsts: [fn() -> Response<Body>; 2] = [failing, broken];
    for first in firsts {
        let (upstream, turns) = http2_in_turn(first, || events(good_stream())).await;
        let sidecar = http2_sidecar(upstream);
        let mut caller = http2_caller(sidecar.address).await;
        let request =
            http2_post("/v1/chat/completions", full(r#"{"model":"gpt-4o","stream":true}"#));
        let reply = caller.send_request(request).await.expect("an answer");
        assert_eq!(reply.status(), 200);
        assert_eq!(whole(reply.into_body()).await.expect("a clean end"), good_stream());
        assert_eq!(turns.load(SeqCst), 2);
        drop(caller);
        let record = sidecar.finish_with_one();
        assert_outcome(&record, "completed", None);
        assert_eq!(record["tidegate.attempts"], 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_caller_that_leaves_while_its_stream_is_held_cancels_it() {
    let (left, mut has_left) = tokio::sync::mpsc::unbounded_channel();
    let begun = Arc::new(AtomicUsize::new(0));
    let begins = begun.clone();
    let upstream = serve(Speaks::Http2, move |_: Request<Incoming>| {
        let left = left.clone();
        begins.fetch_add(1, SeqCst);
        async move {
            let (mut pieces, body) = piecewise();
            tokio::spawn(async move {
                while pieces.send_data(PING.into()).await.is_ok() {
                    tokio::task::yield_now().await;
                    if left.is_closed() {
                        return;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                let _ = left.send(());
            });
            let response = Response::builder().header("content-type", "text/event-stream");
            response.body(body).expect("an answer")
        }
    })
    .await;
    let sidecar = http2_sidecar(upstream);
    let mut caller = http2_caller(sidecar.address).await;
    let request = http2_post("/v1/chat/completions", full(r#"{"model":"gpt-4o","stream":true}"#));
    let reply = tokio::spawn(caller.send_request(request));
    tokio::task::block_in_place(|| {
        wait_until("it is under way", || begun.load(SeqCst) == 1);
        assert_eq!(sidecar.metric("tidegate_limit_in_use"), 1.0);
    });
    reply.abort();
    tokio::time::timeout(STOP, has_left.recv()).await.expect("in time").expect("it was told");
    assert_eq!(failures(&sidecar), 0);
    drop(caller);
    tokio::task::block_in_place(|| assert_abandoned(sidecar));
}

fn grpc(status: &str) -> Response<Body> {
    let head = Response::builder().header("content-type", "application/grpc");
    head.header("grpc-status", status)
        .header("grpc-message", "no")
        .body(full(""))
        .expect("an answer")
}

fn grpc_request() -> Request<Body> {
    let model = "projects/p/locations/europe-west4/publishers/google/models/gemini-2.5-flash";
    let request = message([field(2, field(2, field(1, "why?"))), field(5, model)].concat());
    Request::post(
        "http://api.example/google.cloud.aiplatform.v1.PredictionService/StreamGenerateContent",
    )
    .header("content-type", "application/grpc")
    .header("te", "trailers")
    .body(full(request))
    .expect("a request")
}

/// Messages, and a good status behind them.
fn grpc_good() -> Response<Body> {
    let (mut pieces, body) = piecewise();
    tokio::spawn(async move {
        for sent in [message(token("The")), message(last(1, 7, 12))] {
            pieces.send_data(sent.into()).await.expect("it is taken");
        }
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().expect("a value"));
        pieces.send_trailers(trailers).await.expect("they are taken");
    });
    let head = Response::builder().header("content-type", "application/grpc");
    head.body(body).expect("an answer")
}

/// Nothing but trailers, in a block of their own behind the head.
fn grpc_trailers(status: &'static str) -> Response<Body> {
    let (mut pieces, body) = piecewise();
    tokio::spawn(async move {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", status.parse().expect("a value"));
        pieces.send_trailers(trailers).await.expect("they are taken");
    });
    let head = Response::builder().header("content-type", "application/grpc");
    head.body(body).expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_grpc_without_a_message_are_hidden_by_another_attempt() {
    let firsts: [fn() -> Response<Body>; 4] =
        [|| grpc("14"), || grpc("8"), || grpc_trailers("14"), || grpc_trailers("8")];
    for first in firsts {
        let (upstream, turns) = http2_in_turn(first, grpc_good).await;
        let sidecar = http2_sidecar_without_gate(upstream);
        let mut caller = http2_caller(sidecar.address).await;
        let reply = caller.send_request(grpc_request()).await.expect("an answer");
        assert_eq!(reply.headers().get("grpc-status"), None);
        let whole = reply.into_body().collect().await.expect("a clean end");
        assert_eq!(whole.trailers().expect("trailers")["grpc-status"], "0");
        let messages = [message(token("The")), message(last(1, 7, 12))].concat();
        assert_eq!(whole.to_bytes(), messages);
        assert_eq!(turns.load(SeqCst), 2);
        drop(caller);
        let record = sidecar.finish_with_one();
        assert_outcome(&record, "completed", None);
        assert_eq!(record["rpc.grpc.status_code"], 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_grpc_that_stays_one_comes_as_it_was_sent() {
    let (upstream, turns) = http2_in_turn(|| grpc("14"), || grpc("14")).await;
    let sidecar = http2_sidecar_without_gate(upstream);
    let mut caller = http2_caller(sidecar.address).await;
    let reply = caller.send_request(grpc_request()).await.expect("an answer");
    assert_eq!(reply.headers()["grpc-status"], "14");
    assert_eq!(reply.headers()["grpc-message"], "no");
    assert_eq!(turns.load(SeqCst), 2);
    drop((reply, caller));
    let record = sidecar.finish_with_one();
    assert_outcome(&record, "failed", Some("upstream"));
    assert_eq!(record["rpc.grpc.status_code"], 14);
}

fn http2_sidecar_without_gate(upstream: std::net::SocketAddr) -> Sidecar {
    let config = format!(
        "upstreams: {{ a: {{ url: 'http://{upstream}', http2: true, limit: {{ concurrency: 1 }} }} }}\nroutes: [{{ upstream: a, {SOON} }}]\n"
    );
    Launch::new().config(&config).start()
}
