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
