//! Every way in which a call can end makes one record, and says the right thing.

use crate::support::*;

#[test]
fn a_caller_that_leaves_before_the_head_is_counted_and_frees_the_upstream() {
    let upstream = Upstream::new(|mut peer| {
        peer.request();
        peer.closed();
    });
    let sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    caller.send(call());
    wait_until("the upstream has the call", || upstream.requests().len() == 1);
    drop(caller);
    upstream.wait_closed();

    let record = sidecar.finish_with_one();
    assert_outcome(&record, "abandoned", None);
    assert!(record["http.response.status_code"].is_null(), "{record:#}");
}

#[test]
fn a_caller_that_leaves_before_the_first_token_is_counted_and_frees_the_upstream() {
    let (record, _) = leave_after(STREAM_HEAD.to_owned(), "\r\n\r\n", Wire::reset);
    assert_outcome(&record, "abandoned", None);
    assert!(record["tidegate.time_to_first_token_s"].is_null(), "{record:#}");
}

#[test]
fn a_caller_that_leaves_in_mid_stream_is_counted_and_frees_the_upstream() {
    for leave in [drop, Wire::reset] {
        let begun = format!("{STREAM_HEAD}{}", chunk(TOKEN));
        let (record, _) = leave_after(begun, "hi", leave);
        assert_outcome(&record, "abandoned", None);
        assert!(record["tidegate.time_to_first_token_s"].is_f64(), "{record:#}");
    }
}

#[test]
fn a_caller_that_will_send_no_more_counts_as_gone() {
    let begun = format!("{STREAM_HEAD}{}", chunk(TOKEN));
    let (record, mut caller) = leave_after(begun, "hi", |caller| {
        caller.finish_writing();
        Some(caller)
    });
    assert_outcome(&record, "abandoned", None);
    let caller = caller.as_mut().expect("kept open");
    let (rest, _) = caller.rest();
    assert!(!String::from_utf8_lossy(&rest).contains(LAST_CHUNK), "the end is not made up");
}

/// The record of a call whose caller leaves once it has seen something of the answer.
fn leave_after<R>(begun: String, seen: &str, leave: impl Fn(Wire) -> R) -> (serde_json::Value, R) {
    let upstream = Upstream::new(move |mut peer| {
        peer.request();
        peer.wire.send(&begun);
        peer.closed();
    });
    let sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    caller.send(stream_call());
    caller.through(seen.as_bytes()).expect("the beginning of the answer");
    let left = leave(caller);
    upstream.wait_closed();
    (sidecar.finish_with_one(), left)
}

#[test]
fn a_caller_that_leaves_after_the_end_has_a_completed_call() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    let reply = caller.call(call());
    drop(caller);

    assert_eq!((reply.status(), reply.text().as_str()), (200, COMPLETION));
    assert_outcome(&sidecar.finish_with_one(), "completed", None);
}

#[test]
fn a_caller_that_leaves_amid_its_own_body_is_counted_and_frees_the_upstream() {
    let upstream = Upstream::new(|mut peer| {
        peer.head();
        peer.closed();
    });
    let sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    caller.send("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome");
    wait_until("the upstream has the head", || upstream.requests().len() == 1);
    drop(caller);
    upstream.wait_closed();
    assert_outcome(&sidecar.finish_with_one(), "abandoned", None);
}

#[test]
fn an_error_status_is_a_failed_call_of_the_right_origin() {
    for (status, origin) in
        [(400, "client"), (401, "client"), (429, "quota"), (500, "upstream"), (529, "upstream")]
    {
        let body = r#"{"error":{"message":"no","type":"some_error","code":null}}"#;
        let upstream = Upstream::answering(answer_with(status, body));
        let sidecar = Sidecar::to(&upstream);
        let reply = sidecar.call(call());
        assert_eq!((reply.status(), reply.text().as_str()), (status, body));

        let record = sidecar.finish_with_one();
        assert_outcome(&record, "failed", Some(origin));
        assert_eq!(record["error.type"], "some_error");
    }
}

#[test]
fn a_stream_ends_as_its_events_say() {
    let error = "data: {\"error\":{\"message\":\"no\",\"type\":\"server_error\"}}\n\n";
    for (events, outcome, origin) in [
        (vec![TOKEN, FINISH, DONE], "completed", None),
        (vec![TOKEN, FINISH], "completed", None),
        (vec![TOKEN], "truncated", Some("upstream")),
        (vec![TOKEN, error], "failed", Some("upstream")),
    ] {
        let stream: String = events.iter().map(|event| chunk(event)).collect();
        let upstream = Upstream::answering(format!("{STREAM_HEAD}{stream}{LAST_CHUNK}"));
        let sidecar = Sidecar::to(&upstream);
        let reply = sidecar.call(stream_call());
        assert_eq!((reply.text(), reply.end), (events.concat(), End::Clean));
        assert_outcome(&sidecar.finish_with_one(), outcome, origin);
    }
}

#[test]
fn a_body_without_length_ends_with_its_connection() {
    let upstream = Upstream::new(|mut peer| {
        peer.request();
        peer.wire
            .send(format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{COMPLETION}"));
    });
    let sidecar = Sidecar::to(&upstream);
    let reply = sidecar.call(call());
    assert_eq!((reply.text().as_str(), reply.end), (COMPLETION, End::Clean));
    assert_outcome(&sidecar.finish_with_one(), "completed", None);
}

#[test]
fn records_and_metrics_count_the_same_calls() {
    let upstream = Upstream::new(|mut peer| {
        while let Some(request) = peer.request() {
            match request.target() {
                "/good" => peer.wire.send(answer(COMPLETION)),
                "/bad" => peer.wire.send(answer_with(500, "{}")),
                _ => return,
            }
        }
    });
    let sidecar = Sidecar::to(&upstream);
    for path in ["/good", "/bad", "/gone", "/good"] {
        sidecar.call(post(path, "{}"));
    }
    sidecar.call("GET /../ HTTP/1.1\r\nHost: a\r\n\r\n");

    assert_eq!(sidecar.wait_records(5).len(), 5);
    assert_eq!(sidecar.metric("tidegate_calls_total"), 5.0);
    assert_eq!(sidecar.metric("tidegate_calls_in_flight"), 0.0);
    assert_eq!(sidecar.metric("tidegate_records_dropped_total"), 0.0);
    assert_eq!(sidecar.finish().len(), 5);
}
