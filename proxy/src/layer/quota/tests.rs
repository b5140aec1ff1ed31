//! Quotas over real sockets, by a clock that a test sets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Clock;
use super::clock::Now;
use crate::{Config, Sidecar};

/// Where a test gives up.
const STOP: Duration = Duration::from_secs(20);

const ANSWER: &str = r#"{"id":"c1","model":"m","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;

/// A clock that stands until it is set: the steady one goes with the other.
#[derive(Clone)]
struct Told(Arc<Mutex<Timestamp>>);

impl Told {
    fn at(time: &str) -> Self {
        Self(Arc::new(Mutex::new(time.parse().expect("a time"))))
    }

    fn set(&self, time: &str) {
        *self.0.lock().expect("nobody panics with it") = time.parse().expect("a time");
    }

    fn clock(&self) -> Clock {
        let told = self.clone();
        Clock::new(move || {
            let wall = *told.0.lock().expect("nobody panics with it");
            Now { steady: wall.as_millisecond(), wall }
        })
    }
}

/// A server that answers every call alike, one on a connection.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    thread::spawn(move || {
        for tcp in listener.incoming() {
            let mut tcp = tcp.expect("a connection");
            thread::spawn(move || {
                while read_request(&mut tcp) {
                    let length = ANSWER.len();
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
                    );
                    tcp.write_all((head + ANSWER).as_bytes()).expect("the sidecar reads");
                }
            });
        }
    });
    address
}

/// Whether another request came, whose body is `BODY`.
fn read_request(tcp: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    while !seen.ends_with(BODY.as_bytes()) {
        match tcp.read(&mut piece) {
            Ok(0) | Err(_) => return false,
            Ok(n) => seen.extend_from_slice(&piece[..n]),
        }
    }
    true
}

const BODY: &str = r#"{"model":"m","max_tokens":10}"#;

/// One call; its answer as it came.
fn call(sidecar: &Sidecar) -> String {
    let mut tcp = TcpStream::connect_timeout(&sidecar.address, STOP).expect("it listens");
    tcp.set_read_timeout(Some(STOP)).expect("a limit that is not zero");
    let length = BODY.len();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    tcp.write_all((head + BODY).as_bytes()).expect("it reads");
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).expect("an answer");
    // What it used is known once it is over, and that may be after its answer.
    let start = Instant::now();
    while sidecar.calls_in_flight() > 0 {
        assert!(start.elapsed() < STOP, "the call does not end");
        thread::yield_now();
    }
    answer
}

fn sidecar(quotas: &str, told: &Told) -> Sidecar {
    let config = Config::parse(&format!(
        "{{ listen: '127.0.0.1:0', admin: '127.0.0.1:0', workers: 2, quotas: {quotas}, \
         upstreams: {{ a: {{ url: 'http://{}' }} }}, routes: [{{ upstream: a }}] }}",
        server()
    ));
    let resolver = Arc::new(crate::upstream::System);
    let config = config.expect("a good configuration");
    Sidecar::start_with(config, resolver, told.clock()).expect("it starts")
}

fn assert_passes(sidecar: &Sidecar) {
    let answer = call(sidecar);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[track_caller]
fn assert_refused(sidecar: &Sidecar, parts: &[&str]) {
    let answer = call(sidecar);
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    parts.iter().for_each(|part| assert!(answer.contains(part), "no {part} in {answer}"));
}

#[test]
fn what_is_spent_of_a_month_is_there_again_with_the_next_one_in_the_zone_of_the_quota() {
    // Midnight in Berlin, where it is winter.
    let told = Told::at("2026-11-30T22:59:50Z");
    let quota = "{ team: { window: month, zone: Europe/Berlin, requests: 2, mode: enforce } }";
    let sidecar = sidecar(quota, &told);
    assert_passes(&sidecar);
    assert_passes(&sidecar);
    assert_refused(
        &sidecar,
        &["retry-after: 10\r\n", "of 2 requests a month, 2 are used", "2026-11-30T23:00:00Z"],
    );
    told.set("2026-11-30T22:59:59.999Z");
    assert_refused(&sidecar, &["retry-after: 1\r\n"]);
    told.set("2026-11-30T23:00:00Z");
    assert_passes(&sidecar);
    // A clock that is set back opens nothing.
    told.set("2026-11-30T22:59:59Z");
    assert_refused(&sidecar, &["quota_spent"]);
    sidecar.stop();
}

#[test]
fn a_call_is_charged_what_it_used_and_not_what_was_held_for_it() {
    let told = Told::at("2026-11-26T12:00:00Z");
    // Each holds 10 output tokens, and uses one.
    let quota = "{ day: { window: day, output_tokens: 12, mode: enforce, reserve: most } }";
    let sidecar = sidecar(quota, &told);
    for _ in 0..3 {
        assert_passes(&sidecar);
    }
    assert_refused(
        &sidecar,
        &[
            "of 12 output tokens a day, 3 are used",
            "needs 10 output tokens",
            "x-should-retry: false\r\n",
        ],
    );
    told.set("2026-11-27T00:00:00Z");
    assert_passes(&sidecar);
    sidecar.stop();
}

#[test]
fn a_window_that_slides_gives_back_what_is_older_than_itself() {
    let told = Told::at("2026-11-26T12:00:00Z");
    let sidecar = sidecar("{ a: { window: 1m, requests: 2, mode: enforce } }", &told);
    assert_passes(&sidecar);
    told.set("2026-11-26T12:00:30Z");
    assert_passes(&sidecar);
    assert_refused(&sidecar, &["retry-after: 33\r\n", "2 requests in 60 s"]);
    told.set("2026-11-26T12:01:02.999Z");
    assert_refused(&sidecar, &["retry-after: 1\r\n"]);
    told.set("2026-11-26T12:01:03Z");
    assert_passes(&sidecar);
    assert_refused(&sidecar, &["retry-after: 30\r\n"]);
    sidecar.stop();
}
