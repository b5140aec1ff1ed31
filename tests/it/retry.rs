//! Calls that are made again, unseen by their callers, and those that must not be.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::support::*;

/// Retries that waste no test's time.
const SOON: &str = "retry: { wait: 1ms, limited: { wait: 1ms, longest_wait: 5ms } }";
const OVERLOADED: &str =
    "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n";

/// Answers the first requests with these, and all later ones with the last.
fn answering_in_turn(answers: Vec<String>) -> Upstream {
    let turn = AtomicUsize::new(0);
    Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            let at = turn.fetch_add(1, SeqCst).min(answers.len() - 1);
            peer.wire.send(&answers[at]);
            if answers[at].contains("Connection: close") {
                return;
            }
        }
    })
}

fn with_retry(upstream: &Upstream, retry: &str) -> Sidecar {
    let config = format!(
        "upstreams: {{ a: {{ url: '{}' }} }}\nroutes: [{{ upstream: a, {retry} }}]",
        upstream.url()
    );
    Launch::new().config(&config).start()
}

fn stream_of(events: &str) -> String {
    format!("{STREAM_HEAD}{}{LAST_CHUNK}", chunk(events))
}

#[test]
fn a_call_that_failed_is_made_again() {
    for status in [500, 502, 503, 504, 529, 429, 409] {
        let upstream = answering_in_turn(vec![answer_with(status, "{}"), answer(COMPLETION)]);
        let sidecar = with_retry(&upstream, SOON);
        let reply = sidecar.call(call());
        assert_eq!(reply.status(), 200, "{status}");
        assert_eq!(reply.text(), COMPLETION);
        assert_eq!(reply.header("x-tidegate-attempts"), Some("2"));
        let [first, second] = &upstream.requests()[..] else { panic!("two requests") };
        assert_eq!((&first.line, &first.body), (&second.line, &second.body));
        assert_eq!(upstream.connections(), 1, "what was given up leaves its connection");
        let record = &sidecar.finish()[0];
        assert_outcome(record, "completed", None);
        assert_eq!(record["tidegate.attempts"], 2);
        assert_eq!(record["tidegate.request.bytes"], first.body.len());
        assert_eq!(record["tidegate.response.bytes"], COMPLETION.len());
    }
}

#[test]
fn what_would_end_no_better_is_not_made_again() {
    for status in [400, 401, 403, 404, 413, 422, 501] {
        let upstream = answering_in_turn(vec![answer_with(status, "{}"), answer(COMPLETION)]);
        let sidecar = with_retry(&upstream, SOON);
        assert_eq!(sidecar.call(call()).status(), status);
        assert_eq!(upstream.requests().len(), 1, "{status}");
    }
}

#[test]
fn without_a_word_of_it_what_was_sent_is_not_made_again() {
    let upstream = answering_in_turn(vec![answer_with(503, "{}"), answer(COMPLETION)]);
    let sidecar = Sidecar::to(&upstream);
    assert_eq!(sidecar.call(call()).status(), 503);
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn there_are_as_many_attempts_as_the_contract_says() {
    for (status, attempts) in [(503, 2), (429, 3)] {
        let upstream = answering_in_turn(vec![answer_with(status, r#"{"error":"x"}"#)]);
        let sidecar = with_retry(&upstream, SOON);
        let reply = sidecar.call(call());
        assert_eq!((reply.status(), reply.text()), (status, r#"{"error":"x"}"#.to_owned()));
        assert_eq!(upstream.requests().len(), attempts, "{status}");
        let record = &sidecar.finish()[0];
        assert_eq!(record["tidegate.attempts"], attempts);
        assert_eq!(record["http.response.status_code"], status);
    }
}

#[test]
fn a_stream_that_fails_before_it_means_anything_is_made_again_unseen() {
    let role =
        "data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}]}\n\n";
    let good = format!("{TOKEN}{FINISH}{DONE}");
    for bad in [
        stream_of(OVERLOADED),
        stream_of(&format!(": ping\n\n{role}{OVERLOADED}")),
        format!("{STREAM_HEAD}{}Connection: close", chunk(role)),
    ] {
        let upstream = answering_in_turn(vec![bad.clone(), stream_of(&good)]);
        let sidecar = with_retry(&upstream, SOON);
        let reply = sidecar.call(stream_call());
        assert_eq!((reply.status(), reply.text()), (200, good.clone()), "{bad}");
        assert_eq!(upstream.requests().len(), 2);
        let record = &sidecar.finish()[0];
        assert_outcome(record, "completed", None);
        assert_eq!(record["tidegate.attempts"], 2);
        assert_eq!(record["gen_ai.response.id"], "c1");
    }
}

#[test]
fn a_stream_whose_beginning_was_held_passes_as_it_stands() {
    let role = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}]}\n\n";
    let begin = format!("{:X};ext=\"1\"\r\n{role}\r\n{}", role.len(), chunk(TOKEN));
    let end = format!("{}{}0\r\nX-Done: yes\r\n\r\n", chunk(TOKEN), chunk(DONE));
    let sent = format!("{begin}{end}");
    let (last, go) = (end.clone(), Gate::default());
    let open = go.clone();
    let upstream = Upstream::new(move |mut peer| {
        peer.request();
        peer.wire.send(format!("{STREAM_HEAD}{begin}"));
        go.pass();
        peer.wire.send(&end);
        peer.closed();
    });
    let sidecar = with_retry(&upstream, SOON);
    let mut caller = sidecar.connect();
    caller.send(stream_call());
    assert_eq!(caller.head().expect("a head").status(), 200);
    caller.wait_for(TOKEN.as_bytes());
    open.open();
    let body = caller.through(last.as_bytes()).expect("all of it");
    assert_eq!(String::from_utf8_lossy(&body), sent);
    let record = &sidecar.finish()[0];
    assert_outcome(record, "completed", None);
    let payload = role.len() + 2 * TOKEN.len() + DONE.len();
    assert_eq!(record["tidegate.response.bytes"], payload);
}

#[test]
fn a_stream_that_fails_after_content_is_never_made_again() {
    let events = format!("{TOKEN}{OVERLOADED}");
    let upstream = answering_in_turn(vec![stream_of(&events)]);
    let sidecar = with_retry(&upstream, SOON);
    let reply = sidecar.call(stream_call());
    assert_eq!(reply.text(), events);
    assert_eq!(upstream.requests().len(), 1);
    assert_outcome(&sidecar.finish()[0], "failed", Some("upstream"));
}

#[test]
fn an_error_that_stays_one_comes_as_it_was_sent() {
    let events = format!(": ping\n\n{OVERLOADED}");
    let upstream = answering_in_turn(vec![stream_of(&events)]);
    let sidecar = with_retry(&upstream, SOON);
    assert_eq!(sidecar.call(stream_call()).text(), events);
    assert_eq!(upstream.requests().len(), 2);
    assert_outcome(&sidecar.finish()[0], "failed", Some("upstream"));
}

#[test]
fn the_head_of_a_stream_is_not_held_for_ever() {
    let upstream = Upstream::new(|mut peer| {
        peer.request();
        peer.wire.send(format!("{STREAM_HEAD}{}", chunk(": ping\n\n")));
        peer.closed();
    });
    let sidecar = with_retry(&upstream, "retry: { hold: 50ms }");
    let mut caller = sidecar.connect();
    caller.send(stream_call());
    assert_eq!(caller.head().expect("a head").status(), 200);
}

#[test]
fn a_wait_that_the_provider_asks_for_is_kept_or_the_caller_is_told_at_once() {
    let limited = "HTTP/1.1 429 Slow\r\nRetry-After-Ms: 40\r\nContent-Length: 0\r\n\r\n";
    let upstream = answering_in_turn(vec![limited.to_owned(), answer(COMPLETION)]);
    let sidecar = with_retry(&upstream, SOON);
    assert_eq!(sidecar.call(call()).status(), 200);
    let waited = sidecar.finish()[0]["tidegate.wait.retry_s"].as_f64().expect("a wait");
    assert!((0.04..0.1).contains(&waited), "{waited}");

    let limited = "HTTP/1.1 429 Slow\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n";
    let upstream = answering_in_turn(vec![limited.to_owned(), answer(COMPLETION)]);
    let sidecar = with_retry(&upstream, SOON);
    let reply = sidecar.call(call());
    assert_eq!((reply.status(), reply.header("retry-after")), (429, Some("3600")));
    assert_eq!(upstream.requests().len(), 1);
    let metrics = sidecar.ask("/metrics").text();
    assert!(
        metrics.contains(r#"tidegate_retries_denied_total{upstream="a",reason="wait_too_long"} 1"#),
        "{metrics}"
    );
}

#[test]
fn what_leaves_something_behind_is_not_made_again() {
    for request in [
        post("/v1/responses", r#"{"model":"m","store":true}"#),
        post("/v1/responses", r#"{"model":"m","background":true}"#),
        post("/v1/files", "{}"),
        post("/v1/fine_tuning/jobs", "{}"),
        post("/v1/batches", "{}"),
        post("/v1/projects/p/locations/l/publishers/google/models/veo-3:predictLongRunning", "{}"),
        "DELETE /v1/files/f HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
    ] {
        let upstream = answering_in_turn(vec![answer_with(503, "{}"), answer(COMPLETION)]);
        let sidecar = with_retry(&upstream, SOON);
        assert_eq!(sidecar.call(&request).status(), 503, "{request}");
        assert_eq!(upstream.requests().len(), 1, "{request}");
    }
}

#[test]
fn a_body_too_large_to_be_held_is_sent_once() {
    let upstream = answering_in_turn(vec![answer_with(503, "{}"), answer(COMPLETION)]);
    let config = format!(
        "upstreams: {{ a: {{ url: '{}' }} }}\nroutes: [{{ upstream: a, {SOON} }}]\nlimits: {{ held_body: 1KiB }}",
        upstream.url()
    );
    let sidecar = Launch::new().config(&config).start();
    let body = format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(200_000));
    assert_eq!(sidecar.call(post("/v1/chat/completions", &body)).status(), 503);
    let requests = upstream.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].body, body.as_bytes());
    let metrics = sidecar.ask("/metrics").text();
    assert!(metrics.contains(r#"reason="body_too_large"} 1"#), "{metrics}");
}

#[test]
fn a_body_that_was_read_as_far_as_its_model_is_held_once() {
    let upstream = answering_in_turn(vec![answer_with(503, "{}"), answer(COMPLETION)]);
    let config = format!(
        "upstreams: {{ a: {{ url: '{}' }} }}\nroutes: [{{ match: {{ model: '*' }}, upstream: a, include_usage: add, {SOON} }}]\nlimits: {{ held_bodies: 1MiB }}",
        upstream.url()
    );
    let sidecar = Launch::new().config(&config).start();
    // Twice as much would be too much.
    let body = format!(r#"{{"a":"{}","model":"m"}}"#, "x".repeat(900 << 10));
    for _ in 0..2 {
        assert_eq!(sidecar.call(post("/v1/chat/completions", &body)).status(), 200);
    }
    let requests = upstream.requests();
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|request| request.body == body.as_bytes()));
}

#[test]
fn in_an_outage_an_upstream_gets_little_more_than_it_gets_anyway() {
    let upstream = answering_in_turn(vec![answer_with(503, "{}")]);
    let sidecar = with_retry(&upstream, SOON);
    let mut caller = sidecar.connect();
    for _ in 0..300 {
        caller.send(call());
        assert_eq!(caller.response().status(), 503);
    }
    let attempts = upstream.requests().len();
    println!("{attempts} attempts for 300 calls");
    // The budget, and the floor of one a second for ten seconds.
    assert!((310..=300 + 60 + 10).contains(&attempts), "{attempts}");
}

/// An error that says whether it should be tried again.
fn saying(status: u16, should_retry: &str) -> String {
    let field = format!("\r\nx-should-retry: {should_retry}\r\n");
    answer_with(status, "{}").replacen("\r\n", &field, 1)
}

#[test]
fn what_an_upstream_says_of_another_try_counts_more_than_its_status() {
    for (status, said, attempts) in [
        (503, "false", 1),
        (429, "false", 1),
        (409, "false", 1),
        (400, "true", 2),
        (503, "true", 2),
    ] {
        let upstream = answering_in_turn(vec![saying(status, said), answer(COMPLETION)]);
        let sidecar = with_retry(&upstream, SOON);
        let reply = sidecar.call(call());
        assert_eq!(upstream.requests().len(), attempts, "{status} {said}");
        let expected = if attempts == 1 { (status, Some(said)) } else { (200, None) };
        assert_eq!((reply.status(), reply.header("x-should-retry")), expected);
    }
    // It is for `retry` to go by.
    let upstream = Upstream::answering(saying(503, "true"));
    let sidecar = Sidecar::to(&upstream);
    assert_eq!(sidecar.call(call()).header("x-should-retry"), Some("true"));
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn a_caller_is_told_not_to_try_again_what_was_tried_enough() {
    for (retry, status, attempts, told) in [
        (SOON, 503, 2, Some("false")),
        (SOON, 400, 1, None),
        // So many were made again already.
        ("retry: { budget: 0%, floor: 0 }", 503, 1, Some("false")),
        // Nobody has tried it again.
        ("retry: { per_target: 1 }", 503, 1, None),
    ] {
        let upstream = Upstream::answering(answer_with(status, "{}"));
        let sidecar = with_retry(&upstream, retry);
        let reply = sidecar.call(call());
        assert_eq!(upstream.requests().len(), attempts, "{retry}");
        assert_eq!((reply.status(), reply.header("x-should-retry")), (status, told), "{retry}");
    }
}
