//! Peers that do what no honest one does, and what they must not bring about.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use http::Response;
use socket2::{Domain, Socket, Type};

use crate::support::*;

#[test]
fn a_body_that_breaks_the_rules_is_never_sent_without_its_broken_part() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    assert_eq!(caller.call(call()).status(), 200);

    // Its upstream connection has served before, so a call that was not sent may take a new one.
    let head = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    caller.send(format!("{head}4\r\nlost\r\nno chunk"));
    assert_eq!(caller.response().status(), 400);

    sidecar.finish();
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn calls_to_a_black_hole_do_not_wait_for_each_other() {
    let (hole, _queue) = black_hole();
    let config = format!(
        "upstreams: {{ a: {{ url: 'http://{hole}', http2: true }} }}\nroutes: [{{ upstream: a }}]\ntimeouts: {{ connect: 500ms }}"
    );
    let sidecar = Launch::new().config(&config).start();
    let start = Instant::now();
    let mut callers: Vec<_> = (0..16).map(|_| sidecar.connect()).collect();
    callers.iter_mut().for_each(|caller| caller.send(call()));
    for caller in &mut callers {
        assert_eq!(caller.response().status(), 504);
    }
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    for record in sidecar.finish() {
        assert_outcome(&record, "failed", Some("upstream"));
    }
}

#[test]
fn what_was_read_ahead_counts_as_held_until_its_upstream_has_answered() {
    let silent = Upstream::new(|mut peer| {
        peer.head();
        peer.closed();
    });
    let other = Upstream::answering(answer(COMPLETION));
    let config = format!(
        "upstreams: {{ silent: {{ url: '{}' }}, other: {{ url: '{}' }} }}\nroutes: [{{ match: {{ model: '*' }}, upstream: silent }}, {{ upstream: other }}]\nlimits: {{ held_bodies: 1MiB }}",
        silent.url(),
        other.url()
    );
    let sidecar = Launch::new().config(&config).start();
    let padding = "x".repeat(900 << 10);
    let long = post("/v1/chat/completions", &format!(r#"{{"a":"{padding}","model":"m"}}"#));

    let mut first = sidecar.connect();
    first.send(&long);
    wait_until("the first call is on its way", || silent.connections() == 1);
    // There is no room to look for the model of a second one.
    assert_eq!(sidecar.call(&long).status(), 200);
    assert_eq!((silent.connections(), other.connections()), (1, 1));
}

#[test]
fn a_path_without_end_is_forwarded_whole_and_recorded_in_part() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let sidecar = Sidecar::to(&upstream);
    let path = format!("/{}", "p".repeat(60_000));
    assert_eq!(sidecar.call(post(&path, "{}")).status(), 200);
    assert_eq!(upstream.request().target(), path);
    assert_eq!(sidecar.finish_with_one()["url.path"], path[..1024]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_over_reads_no_more_of_its_caller() {
    let upstream = serve(Speaks::Http2, |request| async {
        // Neither read nor refused, so that its window stays open.
        std::mem::forget(request);
        let mut answer = Response::new(full("no"));
        *answer.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
        answer
    });
    let sidecar = over_http2(upstream.await, "{}");
    tokio::task::spawn_blocking(move || {
        let mut caller = sidecar.connect();
        caller.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{");
        assert_eq!(caller.head().expect("an answer").status(), 413);
        while caller.try_send("x").is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_outcome(&sidecar.finish_with_one(), "failed", Some("client"));
    })
    .await
    .expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_or_stalls_while_it_sends_is_told_apart_over_http2_too() {
    let upstream = serve(Speaks::Http2, |request| async {
        whole(request.into_body()).await.expect_err("a request that breaks off");
        Response::new(full("{}"))
    });
    let sidecar = over_http2(upstream.await, "{ request_body_idle: 300ms }");
    tokio::task::spawn_blocking(move || {
        let head = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{";
        let mut caller = sidecar.connect();
        caller.send(head);
        drop(caller);
        assert_outcome(&sidecar.wait_records(1)[0], "abandoned", None);
        assert_eq!(sidecar.call(head).status(), 408);
        assert_outcome(&sidecar.finish()[1], "failed", Some("client"));
    })
    .await
    .expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_takes_nothing_for_too_long_is_let_go_over_http2_too() {
    let upstream = Upstream::new(|mut peer| {
        peer.request();
        peer.wire.send(STREAM_HEAD);
        while peer.wire.try_send(chunk(TOKEN)).is_ok() {}
        peer.closed();
    });
    let sidecar = Sidecar::with(&upstream, "timeouts: { idle: 300ms }");
    let mut caller = http2_caller(sidecar.address).await;
    let call = http2_post("/v1/chat/completions", full("{}"));
    let untaken = caller.send_request(call).await.expect("a head");
    tokio::task::spawn_blocking(move || {
        upstream.wait_closed();
        assert_outcome(&sidecar.finish_with_one(), "abandoned", None);
    })
    .await
    .expect("no panic");
    drop(untaken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_by_http2_is_held_to_the_rules_of_http1() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let sidecar = Sidecar::to(&upstream);
    let mut caller = http2_caller(sidecar.address).await;
    let mut status = async |names: &[&str]| {
        let mut call = http2_post("/a", full("{}"));
        for name in names {
            let name: http::HeaderName = name.parse().expect("a name");
            call.headers_mut().append(name, "api.example".parse().expect("a value"));
        }
        caller.send_request(call).await.expect("an answer").status().as_u16()
    };
    assert_eq!(status(&["host"]).await, 200);
    assert_eq!(status(&["host", "host"]).await, 400);
    assert_eq!(status(&["a"; 101]).await, 431);
    drop(upstream);
}

/// A sidecar with these timeouts before an upstream that is spoken to by HTTP/2.
fn over_http2(upstream: SocketAddr, timeouts: &str) -> Sidecar {
    let config = format!(
        "upstreams: {{ a: {{ url: 'http://{upstream}', http2: true }} }}\nroutes: [{{ upstream: a }}]\ntimeouts: {timeouts}"
    );
    Launch::new().config(&config).start()
}

/// An address that answers no connection: its queue is full.
fn black_hole() -> (SocketAddr, Vec<Socket>) {
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let listener = socket();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
    listener.listen(0).expect("a bound socket");
    let address = listener.local_addr().expect("a bound socket");
    let mut sockets = vec![listener];
    for _ in 0..3 {
        let waiting = socket();
        waiting.set_nonblocking(true).expect("a socket");
        let _ = waiting.connect(&address);
        sockets.push(waiting);
    }
    (address.as_socket().expect("an IP address"), sockets)
}
