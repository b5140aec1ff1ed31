//! Connections that change to another protocol: WebSockets, whose bytes pass both ways untouched.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt;

use crate::support::*;

/// What a caller of a realtime API sends.
fn asks(target: &str, more: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: api.example\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

/// What its upstream answers.
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// An upstream that changes its connections, and does this on them.
fn switching(script: impl Fn(&mut Wire) -> After + Send + Sync + 'static) -> Upstream {
    Upstream::new(move |mut peer| {
        peer.head();
        peer.wire.send(SWITCHED);
        match script(&mut peer.wire) {
            After::Close => peer.close(),
            After::Reset => peer.wire.reset(),
            After::WaitForEnd(end) => assert_eq!(peer.closed(), end),
        }
    })
}

/// How a script leaves its connection.
enum After {
    Close,
    Reset,
    WaitForEnd(End),
}

/// A caller that has changed its connection.
fn switched(sidecar: &Sidecar) -> Wire {
    let mut caller = sidecar.connect();
    caller.send(asks("/v1/realtime?model=gpt-realtime&key=secret", ""));
    assert_eq!(caller.response_to("GET").status(), 101);
    caller
}

#[test]
fn a_websocket_passes_with_its_fields_and_bytes_both_ways() {
    let upstream = switching(|wire| {
        wire.send(b"\x81\x02hi");
        assert_eq!(wire.through(b"\xff\x00end"), Some(b"\x82\x05\x00\xff\x00end".to_vec()));
        wire.send(b"\x88\x00");
        After::Close
    });
    let sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    caller.send(asks("/v1/realtime?model=gpt-realtime&key=secret", "Authorization: Bearer k\r\n"));
    let reply = caller.response_to("GET");
    assert_eq!(reply.line, "HTTP/1.1 101 Switching Protocols");
    for (name, value) in [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ] {
        assert_eq!(reply.header(name), Some(value), "{name}");
    }
    assert_eq!(caller.through(b"hi"), Some(b"\x81\x02hi".to_vec()));
    caller.send(b"\x82\x05\x00\xff\x00end");
    assert_eq!(caller.rest(), (b"\x88\x00".to_vec(), End::Clean));
    drop(caller);

    let request = upstream.request();
    assert_eq!(request.target(), "/v1/realtime?model=gpt-realtime&key=secret");
    for (name, value) in [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("authorization", "Bearer k"),
    ] {
        assert_eq!(request.header(name), Some(value), "{name}");
    }
    let record = sidecar.finish_with_one();
    assert_outcome(&record, "completed", None);
    for (key, value) in [
        ("http.response.status_code", serde_json::json!(101)),
        ("tidegate.upgrade", "websocket".into()),
        ("gen_ai.operation.name", "realtime".into()),
        ("gen_ai.request.model", "gpt-realtime".into()),
        ("gen_ai.provider.name", "openai".into()),
        ("url.path", "/v1/realtime".into()),
        ("tidegate.request.bytes", 8.into()),
        ("tidegate.response.bytes", 6.into()),
        ("tidegate.not_understood", serde_json::Value::Null),
    ] {
        assert_eq!(record[key], value, "{key}");
    }
    assert!(
        record["tidegate.duration_s"].as_f64() > record["tidegate.time_to_first_byte_s"].as_f64()
    );
    assert!(!record.to_string().contains("secret"), "the query is not recorded");
}

#[test]
fn live_sessions_of_google_are_known_by_their_paths() {
    let gemini = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent";
    let vertex = "/ws/google.cloud.aiplatform.v1beta1.LlmBidiService/BidiGenerateContent";
    for (path, provider) in [(gemini, "gcp.gemini"), (vertex, "gcp.vertex_ai")] {
        let upstream = switching(|_| After::WaitForEnd(End::Clean));
        let sidecar = Sidecar::to(&upstream);
        let mut caller = sidecar.connect();
        caller.send(asks(&format!("{path}?key=secret"), ""));
        assert_eq!(caller.response_to("GET").status(), 101);
        drop(caller);
        let record = sidecar.finish_with_one();
        assert_outcome(&record, "completed", None);
        assert_eq!(record["gen_ai.operation.name"], "realtime");
        assert_eq!(record["gen_ai.provider.name"], provider);
        assert_eq!(record["url.path"], path);
    }
}

#[test]
fn an_upstream_that_will_not_change_gives_an_ordinary_answer() {
    let refusal = r#"{"error":{"message":"no","type":"invalid_request_error","code":"no_model"}}"#;
    let upstream = Upstream::answering(answer_with(403, refusal));
    let sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    for _ in 0..2 {
        caller.send(asks("/v1/realtime?model=gpt-realtime", ""));
        let reply = caller.response_to("GET");
        assert_eq!((reply.status(), reply.text().as_str()), (403, refusal));
    }
    assert_eq!(upstream.connections(), 1, "it is used again");
    drop(caller);
    for record in sidecar.finish() {
        assert_outcome(&record, "failed", Some("client"));
        assert_eq!(record["error.type"], "invalid_request_error");
        assert_eq!(record["gen_ai.request.model"], "gpt-realtime");
        assert_eq!(record["tidegate.upgrade"], serde_json::Value::Null);
    }
}

#[test]
fn nothing_is_tunnelled_before_the_upstream_has_agreed() {
    let upstream = Upstream::new(|mut peer| {
        peer.head();
        peer.wire.send(answer_with(426, "{}"));
        let (rest, _) = peer.wire.rest();
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
        peer.close();
    });
    let sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    // What would be a frame is, without a change, the next request; and no lawful one.
    caller.send([asks("/v1/realtime", "").as_bytes(), b"\x81\x85frame\r\n\r\n"].concat());
    assert_eq!(caller.response_to("GET").status(), 426);
    assert_eq!(caller.response_to("GET").status(), 400);
    drop(caller);
    let records = sidecar.finish();
    assert_eq!(records.len(), 2);
    assert_outcome(&records[0], "failed", Some("client"));
    assert_outcome(&records[1], "refused", Some("client"));
}

#[test]
fn bytes_that_come_with_the_heads_are_tunnelled() {
    let upstream = Upstream::new(|mut peer| {
        peer.head();
        peer.wire.send([SWITCHED.as_bytes(), b"early"].concat());
        assert_eq!(peer.wire.through(b"too"), Some(b"early too".to_vec()));
        peer.close();
    });
    let sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    caller.send([asks("/", "").as_bytes(), b"early too"].concat());
    assert_eq!(caller.response_to("GET").status(), 101);
    assert_eq!(caller.rest(), (b"early".to_vec(), End::Clean));
    drop(caller);
    let record = sidecar.finish_with_one();
    assert_outcome(&record, "completed", None);
    assert_eq!(record["tidegate.request.bytes"], 9);
    assert_eq!(record["tidegate.response.bytes"], 5);
}

#[test]
fn a_change_that_was_not_asked_for_is_no_answer() {
    let plain = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned();
    let other = SWITCHED.replace("websocket", "h2c");
    let framed = SWITCHED.replace("Sec-", "Content-Length: 5\r\nSec-");
    let nothing = "HTTP/1.1 101 Switching Protocols\r\n\r\n";
    for (request, answer) in [
        (plain, SWITCHED),
        (asks("/a", ""), other.as_str()),
        (asks("/a", ""), framed.as_str()),
        (asks("/a", ""), nothing),
    ] {
        let upstream = Upstream::answering(answer);
        let sidecar = Sidecar::to(&upstream);
        let mut caller = sidecar.connect();
        caller.send(&request);
        assert_eq!(caller.response_to("GET").status(), 502, "{answer}");
        drop(caller);
        let record = sidecar.finish_with_one();
        assert_outcome(&record, "failed", Some("upstream"));
        assert_eq!(record["error.type"], "upstream_protocol");
    }
}

#[test]
fn a_change_that_would_hide_calls_is_not_passed_on() {
    let get = "GET /a HTTP/1.1\r\nHost: a\r\n";
    let post = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n";
    for (head, body) in [
        (
            format!(
                "{get}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
            ),
            "",
        ),
        (format!("{get}Connection: upgrade\r\nUpgrade: websocket, h2c\r\n"), ""),
        (format!("{get}Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: H2C\r\n"), ""),
        (format!("{get}Connection: upgrade\r\nUpgrade: HTTP/2.0\r\n"), ""),
        (format!("{get}Connection: upgrade\r\nUpgrade: TLS/1.2\r\n"), ""),
        // Nor one that is not quite asked for.
        (format!("{get}Upgrade: websocket\r\n"), ""),
        (format!("{get}Connection: upgrade\r\n"), ""),
        (format!("{post}Connection: upgrade\r\nUpgrade: websocket\r\n"), "hi"),
        ("GET /a HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n".into(), ""),
    ] {
        let upstream = Upstream::answering(answer("{}"));
        let sidecar = Sidecar::to(&upstream);
        let reply = sidecar.call(format!("{head}\r\n{body}"));
        assert_eq!((reply.status(), reply.text().as_str()), (200, "{}"), "{head}");
        let request = upstream.request();
        for name in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(request.header(name), None, "{head}");
        }
        assert_outcome(&sidecar.finish_with_one(), "completed", None);
    }
}

#[test]
fn other_protocols_pass_like_websocket() {
    let upstream = Upstream::new(|mut peer| {
        peer.head();
        peer.wire.send(SWITCHED.replace("websocket", "SPDY/3.1"));
        peer.closed();
    });
    let sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    caller.send(
        "POST /exec HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: upgrade\r\nUpgrade: tcp, SPDY/3.1\r\n\r\n",
    );
    assert_eq!(caller.response_to("GET").header("upgrade"), Some("SPDY/3.1"));
    drop(caller);
    assert_eq!(upstream.request().header("upgrade"), Some("tcp, SPDY/3.1"));
    let record = sidecar.finish_with_one();
    assert_outcome(&record, "completed", None);
    assert_eq!(record["tidegate.upgrade"], "spdy/3.1");
}

#[test]
fn a_side_that_closes_is_heard_by_the_other_which_may_go_on() {
    // The caller first.
    let upstream = switching(|wire| {
        assert_eq!(wire.rest(), (b"last".to_vec(), End::Clean));
        wire.send(b"bye");
        After::Close
    });
    let sidecar = Sidecar::to(&upstream);
    let mut caller = switched(&sidecar);
    caller.send(b"last");
    caller.finish_writing();
    assert_eq!(caller.rest(), (b"bye".to_vec(), End::Clean));
    sidecar.wait_records(1);
    let metrics = sidecar.ask("/metrics").text();
    assert!(metrics.contains(r#"model="gpt-realtime""#), "{metrics}");
    assert_outcome(&sidecar.finish_with_one(), "completed", None);

    // The upstream first.
    let upstream = switching(|wire| {
        wire.send(b"last");
        wire.finish_writing();
        assert_eq!(wire.rest(), (b"bye".to_vec(), End::Clean));
        After::Close
    });
    let sidecar = Sidecar::to(&upstream);
    let mut caller = switched(&sidecar);
    assert_eq!(caller.rest(), (b"last".to_vec(), End::Clean));
    caller.send(b"bye");
    drop(caller);
    upstream.wait_closed();
    assert_outcome(&sidecar.finish_with_one(), "completed", None);
}

#[test]
fn a_side_that_breaks_off_is_told_from_one_that_closes() {
    let upstream = switching(|wire| {
        wire.send(b"hi");
        wire.through(b"hi").expect("an answer");
        After::Reset
    });
    let sidecar = Sidecar::to(&upstream);
    let mut caller = switched(&sidecar);
    caller.through(b"hi").expect("a frame");
    caller.send(b"hi");
    assert_eq!(caller.wait_closed(), End::Reset, "no clean end is made up");
    let record = sidecar.finish_with_one();
    assert_outcome(&record, "truncated", Some("upstream"));
    assert_eq!(record["error.type"], "upstream_closed");

    let upstream = switching(|_| After::WaitForEnd(End::Reset));
    let sidecar = Sidecar::to(&upstream);
    switched(&sidecar).reset();
    upstream.wait_closed();
    assert_outcome(&sidecar.finish_with_one(), "abandoned", None);
}

#[test]
fn a_tunnel_carries_much_both_ways_at_once() {
    const SIZE: usize = 8 << 20;
    let big = |seed: usize| -> Vec<u8> { (0..SIZE).map(|at| (at * seed % 251) as u8).collect() };
    let upstream = switching(move |wire| {
        let mut writer = wire.same();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                writer.send(big(3));
                writer.finish_writing();
            });
            assert!(wire.rest().0 == big(5), "what the caller sent");
        });
        After::Close
    });
    let sidecar = Sidecar::to(&upstream);
    let mut caller = switched(&sidecar);
    let mut writer = caller.same();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            writer.send(big(5));
            writer.finish_writing();
        });
        assert!(caller.rest().0 == big(3), "what the upstream sent");
    });
    let record = sidecar.finish_with_one();
    assert_outcome(&record, "completed", None);
    assert_eq!(record["tidegate.request.bytes"], SIZE);
    assert_eq!(record["tidegate.response.bytes"], SIZE);
}

#[test]
fn a_caller_that_reads_nothing_stops_the_upstream() {
    const MOST: usize = 256 << 20;
    let stuck = Gate::default();
    let seen = stuck.clone();
    let upstream = switching(move |wire| {
        let sent = wire.send_until_stuck(Duration::from_millis(300), MOST);
        assert!(sent < MOST / 2, "{sent} bytes are held somewhere");
        seen.open();
        After::WaitForEnd(End::Reset)
    });
    let sidecar = Sidecar::to(&upstream);
    let before = sidecar.memory_kib();
    let caller = switched(&sidecar);
    stuck.pass();
    assert!(sidecar.memory_kib() < before + 4096, "{} KiB", sidecar.memory_kib() - before);
    // It closes with bytes unread, which resets.
    drop(caller);
    upstream.wait_closed();
    assert_outcome(&sidecar.finish_with_one(), "abandoned", None);
}

#[test]
fn an_open_websocket_has_a_limit_of_its_own_for_silence() {
    let upstream = switching(|wire| {
        wire.through(b"still here").expect("the caller speaks again");
        wire.send(b"yes");
        After::WaitForEnd(End::Clean)
    });
    let limits = "timeouts: { idle: 20ms, response_head: 20ms, request_body_idle: 20ms }";
    let sidecar = Sidecar::with(&upstream, limits);
    let mut caller = switched(&sidecar);
    std::thread::sleep(Duration::from_millis(200));
    caller.send(b"still here");
    caller.through(b"yes").expect("the tunnel stands");
    drop(caller);
    assert_outcome(&sidecar.finish_with_one(), "completed", None);

    let upstream = switching(|wire| {
        wire.wait_closed();
        After::Close
    });
    let sidecar = Sidecar::with(&upstream, "timeouts: { upgraded_idle: 100ms }");
    let mut caller = switched(&sidecar);
    assert_eq!(caller.wait_closed(), End::Reset, "no clean end is made up");
    let record = sidecar.finish_with_one();
    assert_outcome(&record, "truncated", Some("sidecar"));
    assert_eq!(record["error.type"], "upgraded_idle_timeout");
}

#[test]
fn an_open_websocket_is_a_call_in_flight_that_a_drain_waits_for() {
    let upstream = switching(|_| After::WaitForEnd(End::Clean));
    let mut sidecar = Sidecar::to(&upstream);
    let caller = switched(&sidecar);
    assert_eq!(sidecar.metric("tidegate_calls_in_flight"), 1.0);
    sidecar.signal("INT");
    wait_until("it is no longer ready", || sidecar.ask("/readyz").status() == 503);
    drop(caller);
    assert!(sidecar.wait().success());
    assert_outcome(&sidecar.records()[0], "completed", None);

    let upstream = switching(|wire| {
        wire.wait_closed();
        After::Close
    });
    let mut sidecar = Sidecar::to(&upstream);
    let mut caller = switched(&sidecar);
    sidecar.signal("TERM");
    wait_until("it is no longer ready", || sidecar.ask("/readyz").status() == 503);
    sidecar.signal("TERM");
    assert!(sidecar.wait().success());
    assert_eq!(caller.wait_closed(), End::Reset);
    let records = sidecar.records();
    assert_eq!(records.len(), 1);
    assert_outcome(&records[0], "truncated", Some("sidecar"));
    assert_eq!(records[0]["error.type"], "drain_limit");
}

/// Changes the connection and sends back what comes, by hyper.
async fn echoing(request: Request<Incoming>) -> Response<Body> {
    if request.headers().get("upgrade").is_none() {
        return Response::new(full(Bytes::from_static(b"plain")));
    }
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(request).await.expect("a connection");
        let mut io = hyper_util::rt::TokioIo::new(upgraded);
        let mut piece = [0; 4];
        tokio::io::AsyncReadExt::read_exact(&mut io, &mut piece).await.expect("four bytes");
        io.write_all(&piece).await.expect("they are taken");
        io.shutdown().await.expect("it closes");
    });
    let switched = Response::builder().status(101);
    let switched = switched.header("connection", "upgrade").header("upgrade", "websocket");
    switched.body(full("")).expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_would_rather_speak_http_2_is_asked_by_http_1_1() {
    let certificate = Certificate::new();
    let speaks = Speaks::Tls(certificate.server(&["h2", "http/1.1"]));
    let port = serve(speaks, echoing).await.port();
    let config = format!(
        "upstreams: {{ a: {{ url: 'https://localhost:{port}', address: 127.0.0.1 }} }}\nroutes: [{{ upstream: a }}]\n"
    );
    let sidecar = Launch::new().config(&config).trust(&certificate).start();
    let talk = move || {
        for _ in 0..2 {
            assert_eq!(sidecar.call(post("/a", "{}")).text(), "plain");
            let mut caller = switched(&sidecar);
            caller.send(b"ping");
            assert_eq!(caller.rest(), (b"ping".to_vec(), End::Clean));
        }
        sidecar.finish()
    };
    let records = tokio::task::spawn_blocking(talk).await.expect("no panic");
    assert_eq!(records.len(), 4);
    records.iter().for_each(|record| assert_outcome(record, "completed", None));
}
