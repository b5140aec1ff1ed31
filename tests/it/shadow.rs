//! Copies of calls, sent beside them: measured, and of no account to the calls themselves.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::*;

const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{ "model": "gpt-4o", "n": 1 }"#;

fn well() -> Upstream {
    Upstream::answering(answer(COMPLETION))
}

/// A sidecar before `a`, with copies of all calls to `b`.
fn start(a: &Upstream, b: &str, shadow: &str, rest: &str) -> Sidecar {
    let config = format!(
        "upstreams: {{ a: {{ url: '{}', provider: openai }}, b: {{ {b}, provider: openai }} }}\n\
         routes: [{{ name: chat, upstream: a, shadow: {{ upstream: b, share: 100%{shadow} }} }}]\n{rest}",
        a.url()
    );
    Launch::new().config(&config).start()
}

fn url(upstream: &Upstream) -> String {
    format!("url: '{}'", upstream.url())
}

/// What the admin address shows of the copies.
fn shown(sidecar: &Sidecar) -> Value {
    sidecar.ask("/policies").json()["shadow"]["chat"].clone()
}

fn is_copy(record: &Value) -> bool {
    record["tidegate.shadow"] == true
}

/// Waits until no copy is open, and so many were sent.
fn wait_sent(sidecar: &Sidecar, count: u64) {
    wait_until("copies are over", || {
        let shown = shown(sidecar);
        (&shown["sent"], &shown["open"]) == (&json!(count), &json!(0))
    });
}

/// Waits until this many calls were not copied for this reason.
fn wait_not_sent(sidecar: &Sidecar, reason: &str, count: u64) {
    wait_until(reason, || shown(sidecar)["not_sent"][reason] == count);
}

#[test]
fn a_copy_is_the_same_call_under_its_own_names_and_counts_for_no_caller() {
    let (a, b) = (well(), well());
    let sidecar = start(&a, &url(&b), ", model: gemma-4", "");
    let trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let fields = format!("\r\n{trace}\r\nIdempotency-Key: one\r\nX-Team: a\r\n");
    let reply = sidecar.call(bare_post(CHAT, BODY).replacen("\r\n", &fields, 1));
    assert_eq!(reply.text(), COMPLETION);
    wait_sent(&sidecar, 1);
    let (real, copy) = (a.request(), b.request());
    assert_eq!((real.text().as_str(), real.header("idempotency-key")), (BODY, Some("one")));
    assert_eq!(copy.text(), BODY.replace("gpt-4o", "gemma-4"));
    assert_eq!((copy.header("idempotency-key"), copy.header("x-team")), (None, Some("a")));
    assert_eq!(copy.header("traceparent"), real.header("traceparent"));

    assert_eq!(sidecar.metric("tidegate_calls_total"), 1.0);
    assert_eq!(sidecar.metric("tidegate_tokens_total"), 4.0);
    assert_eq!(sidecar.metric("tidegate_call_duration_seconds_count"), 1.0);
    assert_eq!(sidecar.metric("tidegate_own_calls_total"), 1.0);
    assert_eq!(sidecar.metric("tidegate_own_tokens_total"), 4.0);
    assert_eq!(sidecar.metric("tidegate_own_call_duration_seconds_count"), 1.0);
    let cost = sidecar.metric("tidegate_cost_usd_total");
    assert!(cost > 0.0);
    // What the caller asked costs what gpt-4o does; gemma has no price there.
    let records = sidecar.finish();
    let (copies, calls): (Vec<_>, Vec<_>) = records.into_iter().partition(is_copy);
    let [call, copy] = [&calls[0], &copies[0]];
    assert_eq!((calls.len(), copies.len()), (1, 1));
    assert_outcome(call, "completed", None);
    assert_outcome(copy, "completed", None);
    assert_eq!(copy["trace_id"], call["trace_id"]);
    assert_eq!(copy["parent_span_id"], call["span_id"]);
    assert_eq!(
        (&copy["tidegate.route"], &copy["tidegate.upstream"]),
        (&"chat".into(), &"b".into())
    );
    assert_eq!(copy["tidegate.called_model"], "gemma-4");
    assert_eq!(copy["gen_ai.usage.input_tokens"], 3);
    assert!(copy["tidegate.duration_s"].as_f64().is_some_and(|time| time > 0.0));
}

#[test]
fn a_body_is_copied_however_it_comes_and_whoever_holds_it() {
    let (a, b) = (well(), well());
    for route in ["", ", retry: {}", ", include_usage: add", ", cache: { allow: all }"] {
        let config = format!(
            "upstreams: {{ a: {{ {} }}, b: {{ {} }} }}\n\
             routes: [{{ name: chat, upstream: a, shadow: {{ upstream: b, share: 100% }}{route} }}]",
            url(&a),
            url(&b)
        );
        let sidecar = Launch::new().config(&config).start();
        let large = format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(300_000));
        let chunked = format!(
            "POST {CHAT} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}{}{LAST_CHUNK}",
            chunk(r#"{"model":"#),
            chunk(r#""n"}"#)
        );
        for (sent, body) in [
            (bare_post(CHAT, BODY), BODY),
            (bare_post(CHAT, &large), &large),
            (chunked, r#"{"model":"n"}"#),
        ] {
            let before = b.requests().len();
            assert_eq!(sidecar.call(sent).status(), 200);
            wait_until("it is copied", || b.requests().len() > before);
            let copy = b.requests().pop().expect("a request");
            assert_eq!(copy.text(), body, "{route}");
            assert_eq!(copy.header("content-length"), Some(body.len().to_string().as_str()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_comes_by_http2_is_copied_too() {
    let (a, b) = (well(), well());
    let sidecar = start(&a, &url(&b), "", "");
    let mut caller = http2_caller(sidecar.address).await;
    let (mut pieces, body) = piecewise();
    let answer = tokio::spawn(caller.send_request(http2_post(CHAT, body)));
    for piece in [r#"{"model":"#, r#""gpt-4o"}"#] {
        pieces.send_data(piece.into()).await.expect("it is taken");
    }
    drop(pieces);
    assert_eq!(answer.await.expect("no panic").expect("an answer").status(), 200);
    tokio::task::spawn_blocking(move || wait_sent(&sidecar, 1)).await.expect("it is copied");
    assert_eq!(b.request().text(), r#"{"model":"gpt-4o"}"#);
}

#[test]
fn a_shadow_that_hangs_holds_up_no_call_and_no_end_and_what_finds_no_place_is_counted() {
    const CALLS: u64 = 20;
    let a = well();
    let hanging = Upstream::new(|mut peer| {
        while peer.request().is_some() {}
        peer.closed();
    });
    let sidecar = start(&a, &url(&hanging), ", at_a_time: 3", "");
    let mut caller = sidecar.connect();
    for _ in 0..CALLS {
        assert_eq!(caller.call(bare_post(CHAT, BODY)).status(), 200);
    }
    wait_not_sent(&sidecar, "busy", CALLS - 3);
    assert_eq!(shown(&sidecar)["open"], 3);
    assert_eq!(sidecar.metric("tidegate_shadow_open"), 3.0);
    assert_eq!(sidecar.metric("tidegate_shadow_not_sent_total"), (CALLS - 3) as f64);
    // Calls in flight are those of callers.
    assert_eq!(sidecar.metric("tidegate_calls_in_flight"), 0.0);
    let records = sidecar.finish();
    let copies: Vec<_> = records.iter().filter(|record| is_copy(record)).collect();
    assert_eq!((records.len() as u64, copies.len()), (CALLS + 3, 3));
    for copy in copies {
        assert_eq!(copy["error.type"], "drain_limit", "{copy:#}");
    }
}

#[test]
fn a_copy_that_fails_is_made_once_and_no_policy_of_its_upstream_hears_of_it() {
    let a = well();
    for (b, is_there) in [
        (url(&Upstream::answering(answer_with(503, "{}"))), true),
        (format!("url: 'http://{}'", nowhere()), false),
    ] {
        let sidecar =
            start(&a, &format!("{b}, breaker: {{ consecutive: 1 }}, limit: {{}}"), "", "");
        for count in 1..=3 {
            assert_eq!(sidecar.call(bare_post(CHAT, BODY)).status(), 200);
            wait_sent(&sidecar, count);
        }
        assert_eq!(sidecar.metric("tidegate_breaker_transitions_total"), 0.0);
        assert_eq!(sidecar.metric("tidegate_retries_total"), 0.0);
        let copies: Vec<_> = sidecar.finish().into_iter().filter(is_copy).collect();
        assert_eq!(copies.len(), 3);
        for copy in copies {
            assert_eq!(
                (&copy["tidegate.outcome"], &copy["tidegate.attempts"]),
                (&"failed".into(), &1.into())
            );
            assert_eq!(copy["http.response.status_code"], if is_there { 503 } else { 502 });
        }
    }
}

#[test]
fn an_answer_that_takes_too_long_is_cut_off_and_told() {
    let a = well();
    let b = Upstream::new(|mut peer| {
        peer.request();
        peer.wire.send(format!("{STREAM_HEAD}{}", chunk(TOKEN)));
        peer.closed();
    });
    let sidecar = start(&a, &url(&b), ", time: 200ms", "");
    assert_eq!(sidecar.call(stream_call_without_a_key()).status(), 200);
    wait_sent(&sidecar, 1);
    let records = sidecar.finish();
    let copy = records.iter().find(|record| is_copy(record)).expect("its record");
    assert_eq!(
        (&copy["tidegate.outcome"], &copy["error.type"]),
        (&"truncated".into(), &"total_timeout".into())
    );
    assert!(copy["tidegate.time_to_first_token_s"].is_f64(), "{copy:#}");
}

fn stream_call_without_a_key() -> String {
    bare_post(CHAT, r#"{"model":"gpt-4o","stream":true}"#)
}

#[test]
fn what_is_not_copied_is_counted_by_why() {
    let (a, b) = (well(), well());
    let sidecar = start(&a, &url(&b), ", body: 1KiB", "");
    let large = format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(2_000));
    let chunked = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}{LAST_CHUNK}",
        chunk(&large)
    );
    for sent in [bare_post(CHAT, &large), chunked] {
        assert_eq!(sidecar.call(sent).status(), 200);
    }
    wait_not_sent(&sidecar, "body_too_large", 2);
    assert_eq!(sidecar.call(bare_post(CHAT, r#"{"model":"m","store":true}"#)).status(), 200);
    wait_not_sent(&sidecar, "not_repeatable", 1);
    // What asks no model is none of those that may be copied.
    for path in ["/v1/models", "/v1/files"] {
        assert_eq!(sidecar.call(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).status(), 200);
    }
    assert_eq!(shown(&sidecar)["not_sent"], json!({ "body_too_large": 2, "not_repeatable": 1 }));
    assert_eq!((b.connections(), shown(&sidecar)["open"].clone()), (0, json!(0)));
}

#[test]
fn a_callers_credential_goes_to_no_other_host_with_a_copy() {
    let (a, b) = (well(), well());
    let elsewhere = url(&b).replace("127.0.0.1", "localhost");
    let sidecar = start(&a, &elsewhere, "", "");
    assert_eq!(sidecar.call(call()).status(), 200);
    wait_not_sent(&sidecar, "credential", 1);
    assert_eq!(b.connections(), 0);
    assert_eq!(sidecar.call(bare_post(CHAT, BODY)).status(), 200);
    wait_sent(&sidecar, 1);

    let sidecar = start(&a, &url(&b), "", "");
    assert_eq!(sidecar.call(call()).status(), 200);
    wait_sent(&sidecar, 1);
    let copy = b.requests().pop().expect("a request");
    assert!(copy.header("authorization").is_some(), "the same host may have it");

    let launch = Launch::new();
    std::fs::write(launch.file("key"), "ours").expect("a folder to write to");
    let config = format!(
        "upstreams: {{ a: {{ {} }}, b: {{ {elsewhere}, credential: {{ bearer: {{ file: key }} }} }} }}\n\
         routes: [{{ name: chat, upstream: a, shadow: {{ upstream: b, share: 100% }} }}]",
        url(&a)
    );
    let sidecar = launch.config(&config).start();
    assert_eq!(sidecar.call(call()).status(), 200);
    wait_sent(&sidecar, 1);
    let copy = b.requests().pop().expect("a request");
    assert_eq!(copy.header("authorization"), Some("Bearer ours"));
    assert!(!format!("{copy:?}").contains(canary::OF_CALLER), "{copy:?}");
}

#[test]
fn a_share_of_calls_is_copied_and_none_while_policies_look_on_only() {
    const CALLS: usize = 200;
    for (rest, at_least, at_most) in [("", 20, 90), ("bypass: true", 0, 0)] {
        let (a, b) = (well(), well());
        let config = format!(
            "upstreams: {{ a: {{ {} }}, b: {{ {} }} }}\n\
             routes: [{{ name: chat, upstream: a, shadow: {{ upstream: b, share: 25%, at_a_time: 1000 }} }}]\n{rest}",
            url(&a),
            url(&b)
        );
        let sidecar = Launch::new().config(&config).start();
        let mut caller = sidecar.connect();
        (0..CALLS).for_each(|_| drop(caller.call(bare_post(CHAT, BODY))));
        wait_until("no copy is open", || shown(&sidecar)["open"] == 0);
        let copies = b.requests().len();
        assert!((at_least..=at_most).contains(&copies), "{copies} {rest}");
        assert_eq!(shown(&sidecar)["sent"], copies);
    }
}

/// Says what a call waits for its shadow: nothing, however slow that is. Its figures are for the reader:
/// other work on the machine moves them.
#[test]
fn calls_beside_a_shadow_that_hangs_are_as_fast_as_alone() {
    const CALLS: usize = 300;
    let a = well();
    let hanging = Upstream::new(|mut peer| {
        while peer.request().is_some() {}
        peer.closed();
    });
    let sidecars = [
        ("alone", ""),
        ("beside copies, 8 at a time", ", shadow: { upstream: b, share: 100% }"),
        ("beside copies, any number", ", shadow: { upstream: b, share: 100%, at_a_time: 1000 }"),
    ]
    .map(|(name, shadow)| {
        let config = format!(
            "upstreams: {{ a: {{ {} }}, b: {{ {} }} }}\nroutes: [{{ upstream: a{shadow} }}]",
            url(&a),
            url(&hanging)
        );
        (name, Launch::new().config(&config).workers(1).start())
    });
    let mut callers = sidecars.each_ref().map(|(_, sidecar)| sidecar.connect());
    let mut times = [const { Vec::new() }; 3];
    // By turns, so that other work on the machine strikes all of them.
    for _ in 0..CALLS {
        for (caller, times) in callers.iter_mut().zip(&mut times) {
            let start = Instant::now();
            assert_eq!(caller.call(bare_post(CHAT, BODY)).status(), 200);
            times.push(start.elapsed());
        }
    }
    for ((name, _), times) in sidecars.iter().zip(&mut times) {
        times.sort();
        println!("{name}: median {:?}, 90 % {:?}", times[CALLS / 2], times[CALLS * 9 / 10]);
        // What hangs for ever would take far longer than anything that works.
        assert!(times[CALLS - 1] < Duration::from_secs(10));
    }
}
