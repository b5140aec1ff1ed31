//! Lawful messages of every kind pass as they came.

use crate::support::*;

#[test]
fn a_caller_that_waits_for_100_continue_hears_it_from_the_upstream() {
    let upstream = Upstream::new(|mut peer| {
        let mut request = peer.head();
        peer.wire.send("HTTP/1.1 100 Continue\r\n\r\n");
        peer.wire.body(&mut request);
        peer.wire.send(answer(&request.text()));
        peer.closed();
    });
    let sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    caller.send("POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(caller.head().expect("an interim head").status(), 100);
    caller.send("body");
    let reply = caller.response();
    assert_eq!((reply.status(), reply.text().as_str()), (200, "body"));
    assert_outcome(&sidecar.finish_with_one(), "completed", None);
    assert_eq!(upstream.request().header("expect"), Some("100-continue"));
}

#[test]
fn a_caller_that_waits_for_100_continue_may_hear_no() {
    let upstream = Upstream::new(|mut peer| {
        peer.head();
        peer.wire.send(answer_with(417, "{}"));
        peer.closed();
    });
    let sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    caller.send("POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    let reply = caller.response();
    assert_eq!((reply.status(), reply.header("connection")), (417, Some("close")));
    assert_eq!(caller.wait_closed(), End::Clean);
    assert_outcome(&sidecar.finish_with_one(), "failed", Some("client"));
}

#[test]
fn interim_responses_pass() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n";
    let upstream = Upstream::answering(format!("{hints}{hints}{}", answer(COMPLETION)));
    let sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    caller.send(call());
    for _ in 0..2 {
        let interim = caller.head().expect("an interim head");
        assert_eq!((interim.status(), interim.header("link")), (103, Some("</a>; rel=preload")));
    }
    assert_eq!(caller.response().text(), COMPLETION);
    let record = sidecar.finish_with_one();
    assert_outcome(&record, "completed", None);
    assert_eq!(record["http.response.status_code"], 200);
}

#[test]
fn answers_without_a_body_leave_the_connection_in_order() {
    let sized = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let empty_chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for (method, answer, status) in [
        ("HEAD", sized, 200),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\n", 304),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
        ("POST", empty_chunks, 200),
        ("DELETE", "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", 200),
    ] {
        let upstream = Upstream::answering(answer);
        let sidecar = Sidecar::to(&upstream);
        let mut caller = sidecar.connect();
        for _ in 0..2 {
            caller.send(format!("{method} /v1/models HTTP/1.1\r\nHost: a\r\n\r\n"));
            let reply = caller.response_to(method);
            assert_eq!((reply.status(), reply.body.len(), reply.end), (status, 0, End::Clean));
        }
        drop(caller);
        let records = sidecar.finish();
        assert_eq!(records.len(), 2, "{method} {answer:?}");
        records.iter().for_each(|record| assert_outcome(record, "completed", None));
        assert_eq!(upstream.connections(), 1, "{method} {answer:?}");
    }
}

#[test]
fn chunks_extensions_and_trailers_pass_as_they_are() {
    let chunks = "4;a=b\r\nwiki\r\n5\r\npedia\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n";
    let answer =
        format!("HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    let upstream = Upstream::answering(answer);
    let sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    let head = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let reply = caller.call(format!("{head}{chunks}"));

    for message in [reply, upstream.request()] {
        assert_eq!(message.text(), "wikipedia");
        assert_eq!(message.trailers, "X-Sum: 1\r\nX-More: 2\r\n");
    }
    let record = sidecar.finish_with_one();
    assert_outcome(&record, "completed", None);
    assert_eq!(record["tidegate.request.bytes"], 9);
    assert_eq!(record["tidegate.response.bytes"], 9);
}

#[test]
fn a_connection_with_more_than_its_answer_is_not_used_again() {
    let smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let upstream = Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            let more = if peer.number == 0 { smuggled } else { "" };
            peer.wire.send(format!("{}{more}", answer("{}")));
        }
    });
    let sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    for _ in 0..3 {
        assert_eq!(caller.call(call()).text(), "{}");
    }
    drop(caller);
    assert_eq!(upstream.connections(), 2, "the first was given up, the second was kept");
    assert_eq!(sidecar.finish().len(), 3);
}

#[test]
fn connections_are_used_again_on_both_sides() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    for _ in 0..20 {
        assert_eq!(caller.call(call()).text(), COMPLETION);
    }
    drop(caller);
    assert_eq!(upstream.connections(), 1);
    assert_eq!(sidecar.finish().len(), 20);
}

#[test]
fn an_idle_connection_that_the_upstream_closed_costs_no_call() {
    let upstream = Upstream::new(|mut peer| {
        peer.request();
        peer.wire.send(answer(COMPLETION));
        peer.close();
    });
    let sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    for number in 1..=10 {
        assert_eq!(caller.call(call()).text(), COMPLETION);
        upstream.wait_for_closed(number);
        assert_eq!(upstream.connections(), number);
        wait_until("the sidecar's kernel knows", || upstream.is_seen_closed());
    }
    drop(caller);
    let records = sidecar.finish();
    assert_eq!(records.len(), 10);
    records.iter().for_each(|record| assert_outcome(record, "completed", None));
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let upstream = Upstream::new(|mut peer| {
        while let Some(request) = peer.request() {
            peer.wire.send(answer(&format!("{} {}", request.target(), request.text())));
        }
    });
    let sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    caller.send([post("/a", "1"), post("/b", "22"), post("/c", "")].concat());
    for expected in ["/a 1", "/b 22", "/c "] {
        assert_eq!(caller.response().text(), expected);
    }
    drop(caller);
    let records = sidecar.finish();
    let paths: Vec<_> = records.iter().map(|record| &record["url.path"]).collect();
    assert_eq!(paths, ["/a", "/b", "/c"]);
}

#[test]
fn an_empty_line_after_a_body_is_no_request() {
    let upstream = Upstream::answering(answer("{}"));
    let sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    for _ in 0..2 {
        assert_eq!(caller.call(format!("{}\r\n", call())).status(), 200);
    }
    drop(caller);
    let records = sidecar.finish();
    assert_eq!(records.len(), 2, "{records:#?}");
}

#[test]
fn a_caller_of_http_1_0_gets_no_chunks() {
    let stream = format!("{STREAM_HEAD}{}{}{LAST_CHUNK}", chunk(TOKEN), chunk(FINISH));
    let upstream = Upstream::answering(stream);
    let sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    let reply = caller.call(stream_call().replace("HTTP/1.1", "HTTP/1.0"));
    assert_eq!(reply.header("transfer-encoding"), None);
    assert_eq!((reply.text(), reply.end), (format!("{TOKEN}{FINISH}"), End::Clean));
    assert_outcome(&sidecar.finish_with_one(), "completed", None);
}

#[test]
fn fields_pass_as_they_came_less_those_of_one_connection() {
    let fields = "X-a: 1\r\nx-A:  2 \r\nACCEPT: */*\r\nx-under_score: ok\r\nX-Empty:\r\nCookie: a=b\r\nCookie: c=d\r\nAuthorization: Bearer key\r\n";
    let hops = "Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nUpgrade: h2c\r\nProxy-Authorization: Basic x\r\nProxy-Connection: close\r\nX-Tidegate-Caller: root\r\n";
    let ours =
        "Server: fake\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nX-Hop: 1\r\nConnection: x-hop\r\n";
    let upstream = Upstream::answering(format!(
        "HTTP/1.1 299 Fine so far\r\n{ours}Content-Length: 2\r\n\r\n{{}}"
    ));
    let sidecar = Sidecar::to(&upstream);
    let reply = sidecar
        .call(format!("GET /a?b=c&d=%20 HTTP/1.1\r\nhOsT: a.example:99\r\n{fields}{hops}\r\n"));

    let request = upstream.request();
    assert_eq!(request.line, "GET /a?b=c&d=%20 HTTP/1.1");
    let lines = |message: &Message| -> Vec<String> {
        message.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect()
    };
    let host = format!("hOsT: {}", upstream.address);
    assert_eq!(
        lines(&request),
        [
            host.as_str(),
            "X-a: 1",
            "x-A: 2",
            "ACCEPT: */*",
            "x-under_score: ok",
            "X-Empty: ",
            "Cookie: a=b",
            "Cookie: c=d",
            "Authorization: Bearer key",
        ]
    );
    assert_eq!(reply.line, "HTTP/1.1 299 Fine so far");
    assert_eq!(
        lines(&reply),
        ["Server: fake", "Set-Cookie: a", "Set-Cookie: b", "Content-Length: 2"]
    );
    assert_eq!(sidecar.finish().len(), 1);
}
