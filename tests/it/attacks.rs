//! Peers that do what no honest one does, and what they must not bring about.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

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
