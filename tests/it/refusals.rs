//! What could be read in two ways, or goes nowhere, is refused before an upstream hears of it.

use crate::support::*;

/// A request with these fields after a lawful start.
fn with(fields: &str) -> Vec<u8> {
    format!("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n").into_bytes()
}

/// A request with this line.
fn line(line: &str) -> Vec<u8> {
    format!("{line}\r\nHost: a\r\n\r\n").into_bytes()
}

/// Asserts that each is answered so, counted as refused, and never heard of upstream.
#[track_caller]
fn assert_refused(cases: &[(Vec<u8>, u16)]) {
    let upstream = Upstream::answering(answer("{}"));
    let sidecar = Sidecar::to(&upstream);
    for (number, (request, status)) in cases.iter().enumerate() {
        let what = String::from_utf8_lossy(&request[..request.len().min(200)]).into_owned();
        let mut caller = sidecar.connect();
        // A lawful request behind it must not be taken for the next one.
        caller.send([request.as_slice(), b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
        let reply = caller.response();
        assert_eq!(reply.status(), *status, "{what:?}");
        assert_eq!(reply.header("connection"), Some("close"), "{what:?}");
        let message = reply.json()["error"]["message"].as_str().expect("a message").to_owned();
        assert!(message.len() > "tidegate: ".len() + 10, "{what:?}: {message}");
        let (rest, _) = caller.rest();
        assert!(rest.is_empty(), "{what:?}: {:?}", String::from_utf8_lossy(&rest));
        let record = &sidecar.wait_records(number + 1)[number];
        assert_outcome(record, "refused", Some("client"));
        assert_eq!(record["http.response.status_code"], *status, "{what:?}");
    }
    assert_eq!(sidecar.finish().len(), cases.len());
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_body_whose_length_is_said_in_two_ways_is_refused() {
    assert_refused(&[
        (with("Content-Length: 4\r\nTransfer-Encoding: chunked"), 400),
        (with("Transfer-Encoding: chunked\r\nContent-Length: 4"), 400),
        (with("Content-Length: 4\r\nContent-Length: 5"), 400),
        (with("Content-Length: 4\r\ncontent-length: 4"), 400),
        (with("Content-Length: 4, 4"), 400),
        (with("Content-Length: +4"), 400),
        (with("Content-Length: 0x4"), 400),
        (with("Content-Length: 4a"), 400),
        (with("Content-Length:"), 400),
        (with("Content-Length: 18446744073709551616"), 400),
        (with("Transfer-Encoding: gzip, chunked"), 400),
        (with("Transfer-Encoding: chunked, chunked"), 400),
        (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 400),
        (with("Transfer-Encoding: identity"), 400),
        (with("Transfer-Encoding: xchunked"), 400),
        (with("Transfer-Encoding: \"chunked\""), 400),
        (with("Transfer-Encoding : chunked"), 400),
        (with("Transfer-Encoding: chunked\r\nConnection: transfer-encoding"), 400),
        (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(), 400),
    ]);
}

#[test]
fn a_head_whose_lines_can_be_parted_in_two_ways_is_refused() {
    assert_refused(&[
        (with("X: a\r\n b"), 400),
        (with("X: a\r\n\tb"), 400),
        (with("X: a\nY: b"), 400),
        (with("X: a\rY: b"), 400),
        (with("X: a\0b"), 400),
        (with("X\0: a"), 400),
        (with(" X: a"), 400),
        (with(": a"), 400),
        (with("X a"), 400),
        (b"GET / HTTP/1.1\nHost: a\n\n".to_vec(), 400),
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n".to_vec(), 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_vec(), 400),
        (b"GET /\r\n\r\n".to_vec(), 400),
        (b"G\xc3\x89T / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 400),
    ]);
}

#[test]
fn a_caller_does_not_choose_where_its_call_goes() {
    assert_refused(&[
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/1.0\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".to_vec(), 400),
        (line("GET http://b/ HTTP/1.1"), 400),
        (line("GET http://169.254.169.254/latest HTTP/1.1"), 400),
        (line("GET http://u@a/ HTTP/1.1"), 400),
        (line("GET https://a/ HTTP/1.1"), 400),
        (line("GET file:///etc/passwd HTTP/1.1"), 400),
        (line("CONNECT b:443 HTTP/1.1"), 405),
        (line("CONNECT /a HTTP/1.1"), 405),
        (line("GET * HTTP/1.1"), 400),
        (line("GET a HTTP/1.1"), 400),
    ]);
}

#[test]
fn a_path_that_leads_elsewhere_for_another_reader_is_refused() {
    let targets = [
        "/..",
        "/../a",
        "/a/..",
        "/a/../b",
        "/a/./b",
        "/a/%2e%2e/b",
        "/a/%2E./b",
        "/a/.%2e",
        "/a/%2e/b",
        "/a#b",
        "/a\\b",
        "/a\\..\\b",
        "/\u{e9}",
    ];
    let cases: Vec<_> =
        targets.iter().map(|target| (line(&format!("GET {target} HTTP/1.1")), 400)).collect();
    assert_refused(&cases);
}

#[test]
fn a_caller_does_not_have_fields_dropped_that_others_rely_on() {
    let names = ["authorization", "Host", "content-length", "x-api-key", "traceparent", "cookie"];
    let cases: Vec<_> =
        names.iter().map(|name| (with(&format!("Connection: close, {name}")), 400)).collect();
    assert_refused(&cases);
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let fields: String = (0..100).map(|number| format!("X-{number}: a\r\n")).collect();
    assert_refused(&[
        (with(fields.trim_end()), 431),
        (with(&format!("X: {}", "a".repeat(64 * 1024))), 431),
        (line(&format!("GET /{} HTTP/1.1", "a".repeat(64 * 1024))), 431),
        ([b"GET /".as_slice(), &[b'a'; 200_000]].concat(), 431),
    ]);
}

#[test]
fn another_protocol_on_the_port_is_told_so() {
    assert_refused(&[
        // TLS.
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), 400),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec(), 400),
        (b"*1\r\n$4\r\nPING\r\n".to_vec(), 400),
    ]);
}

#[test]
fn a_head_that_does_not_come_in_time_is_refused() {
    for begun in ["GET / HTTP/1.1\r\nHost: a\r\n", "P"] {
        let upstream = Upstream::answering(answer("{}"));
        let sidecar = Sidecar::with(&upstream, "timeouts: { request_head: 100ms }");
        let reply = sidecar.call(begun);
        assert_eq!(reply.status(), 408, "{begun:?}");
        let record = sidecar.finish_with_one();
        assert_outcome(&record, "refused", Some("client"));
        assert_eq!(record["error.type"], "request_head_timeout");
        assert_eq!(upstream.connections(), 0);
    }
}

#[test]
fn a_call_that_no_route_takes_is_refused_in_its_own_dialect() {
    let upstream = Upstream::answering(answer("{}"));
    let sidecar = Launch::new()
        .config(&format!(
            "upstreams: {{ a: {{ url: '{}' }} }}\nroutes: [{{ match: {{ path: /only }}, upstream: a }}]",
            upstream.url()
        ))
        .start();
    let reply = sidecar.call(post("/v1/messages", "{}"));
    assert_eq!(reply.status(), 404);
    assert_eq!(reply.json()["error"]["type"], "no_route");
    assert!(reply.json()["error"]["message"].as_str().is_some_and(|text| text.contains("routes")));

    let record = sidecar.finish_with_one();
    assert_outcome(&record, "refused", Some("client"));
    assert_eq!(record["error.type"], "no_route");
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_body_in_broken_chunks_that_comes_with_its_head_calls_no_upstream() {
    for body in
        ["zz\r\n", "4\r\nwikipedia\r\n0\r\n\r\n", "-4\r\nwiki\r\n0\r\n\r\n", "4\nwiki\n0\n\n"]
    {
        let upstream = Upstream::answering(answer("{}"));
        let sidecar = Sidecar::to(&upstream);
        let head = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let reply = sidecar.call(format!("{head}{body}"));
        assert_eq!(reply.status(), 400, "{body:?}");
        let record = sidecar.finish_with_one();
        assert_outcome(&record, "refused", Some("client"));
        assert_eq!(upstream.connections(), 0, "{body:?}");
    }
}

#[test]
fn a_connection_that_only_begins_http_2_is_not_kept() {
    let upstream = Upstream::answering(answer("{}"));
    let sidecar = Sidecar::with(&upstream, "timeouts: { request_head: 100ms }");
    for begun in ["PRI", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r"] {
        let mut caller = sidecar.connect();
        caller.send(begun);
        assert!((400..=408).contains(&caller.response().status()), "{begun:?}");
    }
    assert_eq!(sidecar.finish().len(), 3);
}
