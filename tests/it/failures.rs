//! Upstreams that fail: the caller is told the truth, and nothing but it.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::*;

#[test]
fn an_upstream_that_nobody_serves_is_told_in_the_words_of_the_callers_sdk() {
    let sidecar = Launch::new().arg("--upstream").arg(&format!("http://{}", nowhere())).start();

    let openai = sidecar.call(call());
    assert_eq!(openai.status(), 502);
    assert_eq!(openai.header("content-type"), Some("application/json"));
    assert_eq!(openai.json()["error"]["code"], "upstream_unreachable");

    let anthropic = sidecar.call(post("/v1/messages", "{}")).json();
    assert_eq!(anthropic["type"], "error");
    assert_eq!(anthropic["error"]["type"], "upstream_unreachable");

    let gemini = sidecar.call(post("/v1beta/models/gemini-2.5-pro:generateContent", "{}")).json();
    assert_eq!(gemini["error"]["code"], 502);
    assert_eq!(gemini["error"]["status"], "UNAVAILABLE");

    let bedrock = sidecar.call(post("/model/amazon.nova-pro-v1:0/converse", "{}"));
    assert_eq!(bedrock.header("x-amzn-errortype"), Some("upstream_unreachable"));
    assert!(bedrock.json()["message"].is_string());

    let records = sidecar.finish();
    assert_eq!(records.len(), 4);
    for record in records {
        assert_outcome(&record, "failed", Some("upstream"));
        assert_eq!(record["error.type"], "upstream_unreachable");
        assert_eq!(record["http.response.status_code"], 502);
    }
}

#[test]
fn an_upstream_that_gives_no_lawful_head_is_a_bad_gateway() {
    let head_of = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
    for (said, kind) in [
        (String::new(), "upstream_closed"),
        ("HTTP/1.1 200 OK\r\nContent-Le".to_owned(), "upstream_closed"),
        ("SSH-2.0-OpenSSH_9.6\r\n\r\n".to_owned(), "upstream_protocol"),
        ("\0\u{1}\u{2}\u{3}".to_owned(), "upstream_protocol"),
        ("<html>HTTP/0.9</html>".to_owned(), "upstream_protocol"),
        (head_of("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"), "upstream_protocol"),
        (head_of("Content-Length: 2\r\nContent-Length: 3\r\n"), "upstream_protocol"),
        (head_of("Content-Length: -1\r\n"), "upstream_protocol"),
        (head_of("X: a\r\n b\r\n"), "upstream_protocol"),
        (head_of("X: a\n"), "upstream_protocol"),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n".to_owned(), "upstream_protocol"),
        ("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(30), "upstream_protocol"),
    ] {
        let sent = said.clone();
        let upstream = Upstream::new(move |mut peer| {
            peer.request();
            peer.wire.send(&sent);
        });
        let sidecar = Sidecar::to(&upstream);
        let mut caller = sidecar.connect();
        caller.send(call());
        let mut reply = caller.response();
        while reply.status() == 103 {
            reply = caller.response();
        }
        assert_eq!(reply.status(), 502, "{said:?}");
        assert_eq!(reply.json()["error"]["code"], kind, "{said:?}");

        let record = sidecar.finish_with_one();
        assert_outcome(&record, "failed", Some("upstream"));
        assert_eq!(record["error.type"], kind, "{said:?}");
        assert_eq!(upstream.connections(), 1, "what was sent is not sent again: {said:?}");
    }
}

#[test]
fn an_answer_that_breaks_off_never_ends_clean() {
    let close: fn(Wire) = drop;
    let sized = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhi";
    let unsized_body = "HTTP/1.1 200 OK\r\n\r\nhi";
    let token = chunk(TOKEN);
    let chunks = |rest: &str| format!("{STREAM_HEAD}{token}{rest}");
    for (begun, then, last, kind) in [
        (chunks(""), "", Wire::reset as fn(Wire), "upstream_closed"),
        (chunks(""), "", close, "upstream_closed"),
        (chunks(""), "10\r\nhalf", close, "upstream_closed"),
        (chunks(""), "0\r\n", close, "upstream_closed"),
        (chunks(""), "zz\r\n", close, "upstream_protocol"),
        (chunks(""), "-1\r\n\r\n", close, "upstream_protocol"),
        (chunks(""), "1\r\nabc\r\n0\r\n\r\n", close, "upstream_protocol"),
        (sized.to_owned(), "", close, "upstream_closed"),
        (sized.to_owned(), "", Wire::reset, "upstream_closed"),
        (unsized_body.to_owned(), "", Wire::reset, "upstream_closed"),
    ] {
        let (gate, sent) = (Gate::default(), begun.clone());
        let (go, then_sent) = (gate.clone(), then.to_owned());
        let upstream = Upstream::new(move |mut peer| {
            peer.request();
            peer.wire.send(&sent);
            go.pass();
            peer.wire.send(&then_sent);
            last(peer.wire);
        });
        let sidecar = Sidecar::to(&upstream);
        let mut caller = sidecar.connect();
        caller.send(stream_call());
        caller.through(b"hi").expect("the beginning of the answer");
        gate.open();
        let (rest, end) = caller.rest();
        let is_chunked = begun.starts_with(STREAM_HEAD);
        let rest = String::from_utf8_lossy(&rest);
        assert!(!rest.ends_with(LAST_CHUNK), "{begun:?} {then:?}: {rest:?}");
        assert!(is_chunked || begun == sized || end == End::Reset, "{begun:?} {then:?}: {end:?}");

        let record = sidecar.finish_with_one();
        assert_outcome(&record, "truncated", Some("upstream"));
        assert_eq!(record["error.type"], kind, "{begun:?} {then:?}");
        assert_eq!(record["http.response.status_code"], 200);
    }
}

#[test]
fn an_upstream_that_does_not_answer_in_time_is_a_gateway_timeout() {
    for said in ["", "HTTP/1.1 200 OK\r\nContent-"] {
        let upstream = Upstream::new(move |mut peer| {
            peer.request();
            peer.wire.send(said);
            peer.closed();
        });
        let sidecar = Sidecar::with(&upstream, "timeouts: { response_head: 100ms }");
        let reply = sidecar.call(call());
        assert_eq!(reply.status(), 504);
        assert_eq!(reply.json()["error"]["code"], "upstream_response_timeout");
        upstream.wait_closed();
        assert_outcome(&sidecar.finish_with_one(), "failed", Some("upstream"));
    }
}

#[test]
fn an_answer_that_stands_still_is_cut() {
    let begun = format!("{STREAM_HEAD}{}", chunk(TOKEN));
    for begun in [begun, STREAM_HEAD.to_owned()] {
        let upstream = Upstream::new(move |mut peer| {
            peer.request();
            peer.wire.send(&begun);
            peer.closed();
        });
        let sidecar = Sidecar::with(&upstream, "timeouts: { idle: 100ms }");
        let reply = sidecar.call(stream_call());
        assert_eq!(reply.status(), 200);
        assert_ne!(reply.end, End::Clean);
        upstream.wait_closed();

        let record = sidecar.finish_with_one();
        assert_outcome(&record, "truncated", Some("upstream"));
        assert_eq!(record["error.type"], "upstream_idle_timeout");
    }
}

#[test]
fn a_first_token_may_take_longer_than_the_head() {
    let upstream = Upstream::new(|mut peer| {
        peer.request();
        peer.wire.send(STREAM_HEAD);
        // Longer than the limit of the head, which has come by now.
        thread::sleep(Duration::from_millis(300));
        peer.wire.send([&chunk(TOKEN), &chunk(FINISH), &chunk(DONE), LAST_CHUNK].concat());
        peer.closed();
    });
    let sidecar = Sidecar::with(&upstream, "timeouts: { response_head: 100ms }");
    let reply = sidecar.call(stream_call());
    assert_eq!(reply.end, End::Clean);
    assert_outcome(&sidecar.finish_with_one(), "completed", None);
}

#[test]
fn a_caller_that_takes_nothing_for_too_long_is_let_go() {
    let upstream = Upstream::new(|mut peer| {
        peer.request();
        peer.wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        while peer.wire.try_send([b'x'; 65536]).is_ok() {}
        peer.closed();
    });
    let sidecar = Sidecar::with(&upstream, "timeouts: { idle: 200ms }");
    let mut caller = sidecar.connect();
    caller.send(call());
    upstream.wait_closed();
    assert_outcome(&sidecar.wait_records(1)[0], "abandoned", None);
    drop(caller);
    assert_eq!(sidecar.finish().len(), 1);
}

#[test]
fn a_body_that_stands_still_is_a_request_timeout() {
    let upstream = Upstream::new(|mut peer| {
        peer.head();
        peer.closed();
    });
    let sidecar = Sidecar::with(&upstream, "timeouts: { request_body_idle: 100ms }");
    let reply =
        sidecar.call("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{");
    assert_eq!(reply.status(), 408);
    upstream.wait_closed();
    let record = sidecar.finish_with_one();
    assert_outcome(&record, "failed", Some("client"));
    assert_eq!(record["error.type"], "request_body_timeout");
}

#[test]
fn an_upstream_that_has_heard_enough_is_heard() {
    const SIZE: usize = 32 << 20;
    let upstream = Upstream::new(|mut peer| {
        peer.head();
        let body = r#"{"error":{"message":"too large","type":"too_large"}}"#;
        peer.wire.send(answer_with(413, body).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
        peer.wire.finish_writing();
        peer.closed();
    });
    let sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    let mut upload = caller.same();
    let start = Instant::now();
    let uploading = thread::spawn(move || {
        let head = format!("POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n");
        upload.send(head);
        upload.try_send(vec![b'x'; SIZE])
    });
    let reply = caller.response();
    assert_eq!((reply.status(), reply.end), (413, End::Clean));
    assert_eq!(reply.json()["error"]["type"], "too_large");
    drop(caller);
    let _ = uploading.join().expect("no panic");

    let record = sidecar.finish_with_one();
    assert_outcome(&record, "failed", Some("client"));
    assert!(start.elapsed() < STOP, "nobody waited for the rest");
}

#[test]
fn what_an_early_answer_leaves_unread_is_no_time_of_the_call() {
    let upstream = Upstream::new(|mut peer| {
        peer.head();
        peer.wire.send(answer_with(413, "{}"));
        peer.closed();
    });
    let sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    caller.send("POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf");
    assert_eq!(caller.response().status(), 413);
    let record = &sidecar.wait_records(1)[0];
    // The caller keeps its connection open, and its body back, for longer than that.
    let duration = record["tidegate.duration_s"].as_f64().expect("a duration");
    assert!(duration < 0.9, "{record:#}");
    drop(caller);
}
