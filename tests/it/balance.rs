//! Several addresses of one upstream: which of them gets calls, and which no longer.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use http::Response;

use crate::support::*;

/// A model server that streams, with so long to its first token.
fn streaming(first_token: Duration) -> Upstream {
    Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            peer.wire.send(STREAM_HEAD);
            thread::sleep(first_token);
            peer.wire.send([chunk(TOKEN), chunk(FINISH), chunk(DONE)].concat() + LAST_CHUNK);
        }
    })
}

/// A server that answers what its test says to what its test asks.
fn telling(health: Arc<AtomicU16>, metrics: &str) -> Upstream {
    let metrics = answer(metrics);
    Upstream::new(move |mut peer| {
        while let Some(request) = peer.request() {
            match request.target() {
                "/health" => peer.wire.send(answer_with(health.load(SeqCst), "{}")),
                "/metrics" => peer.wire.send(&metrics),
                _ => peer.wire.send(answer(COMPLETION)),
            }
        }
    })
}

/// A configuration of one upstream with these addresses.
fn pool(addresses: &[String], balance: &str) -> String {
    format!(
        "upstreams: {{ pool: {{ addresses: {addresses:?}, balance: {balance} }} }}\nroutes: [{{ upstream: pool }}]"
    )
}

/// How many calls an upstream has had.
fn calls(upstream: &Upstream) -> usize {
    let requests = upstream.requests();
    requests.iter().filter(|request| request.target().starts_with("/v1/chat/completions")).count()
}

/// What the metrics say of the addresses in this state.
fn addresses(sidecar: &Sidecar, state: &str) -> f64 {
    let text = sidecar.ask("/metrics").text();
    let start = format!("tidegate_upstream_addresses{{state=\"{state}\",upstream=\"pool\"}} ");
    let other = format!("tidegate_upstream_addresses{{upstream=\"pool\",state=\"{state}\"}} ");
    let value = |line: &str| {
        let value = line.strip_prefix(&start).or(line.strip_prefix(&other))?;
        value.parse().ok()
    };
    text.lines().find_map(value).unwrap_or_else(|| panic!("no address is {state}: {text}"))
}

#[test]
fn a_slow_address_of_three_gets_clearly_fewer_calls() {
    let upstreams = [0, 0, 150].map(|ms| streaming(Duration::from_millis(ms)));
    let urls = upstreams.each_ref().map(Upstream::url);
    let sidecar = Launch::new().config(&pool(&urls, "{}")).start();
    let mut callers: Vec<_> = (0..6).map(|_| sidecar.connect()).collect();
    for _ in 0..15 {
        callers.iter_mut().for_each(|caller| caller.send(stream_call()));
        callers.iter_mut().for_each(|caller| assert_eq!(caller.response().status(), 200));
    }
    let [fast, other, slow] = upstreams.each_ref().map(calls);
    assert_eq!(fast + other + slow, 90);
    assert!(slow * 2 < fast && slow * 2 < other, "{fast}, {other}, {slow}");
    assert_eq!(addresses(&sidecar, "in_use"), 3.0);
    drop(callers);
    let records = sidecar.finish();
    assert!(records.iter().all(|record| record["tidegate.attempts"] == 1));
    // A record says which address it was.
    let ports =
        records.iter().filter(|record| record["server.port"] == upstreams[2].address.port());
    assert_eq!(ports.count(), slow);
}

#[test]
fn an_address_that_cannot_be_reached_is_ejected_and_comes_back() {
    let (first, second) = (Upstream::answering(answer(COMPLETION)), reserved());
    let urls = [first.url(), format!("http://{}", second)];
    let balance = "{ eject: { failures: 2, time: 300ms, max_time: 300ms, ramp: 10ms } }";
    let sidecar = Launch::new().config(&pool(&urls, balance)).start();
    wait_until("an address is ejected", || {
        assert_eq!(sidecar.call(call()).status(), 200, "the other one serves");
        sidecar.metric("tidegate_upstream_ejections_total") >= 1.0
    });
    let listener = TcpListener::bind(second).expect("it is still free");
    let second = Upstream::at(listener, |mut peer| {
        while peer.request().is_some() {
            peer.wire.send(answer(COMPLETION));
        }
    });
    wait_until("it has calls again", || {
        assert_eq!(sidecar.call(call()).status(), 200);
        calls(&second) >= 5
    });
    wait_until("it is in use", || addresses(&sidecar, "in_use") == 2.0);
    assert!(sidecar.log().contains("address ejected"), "{}", sidecar.log());
    let records = sidecar.finish();
    records.iter().for_each(|record| assert_outcome(record, "completed", None));
}

/// An address that is free, and stays so unless somebody means it: not where others look for one.
fn reserved() -> SocketAddr {
    let process = std::process::id().to_be_bytes();
    let host = Ipv4Addr::new(127, 77, process[2], process[3].max(1));
    TcpListener::bind((host, 0)).and_then(|listener| listener.local_addr()).expect("a free port")
}

#[test]
fn an_address_that_answers_with_errors_is_ejected() {
    let good = Upstream::answering(answer(COMPLETION));
    let bad = Upstream::answering(answer_with(503, r#"{"error":{"message":"no"}}"#));
    let balance = "{ eject: { failures: 2 } }";
    let sidecar = Launch::new().config(&pool(&[good.url(), bad.url()], balance)).start();
    wait_until("it is ejected", || {
        sidecar.call(call());
        addresses(&sidecar, "ejected") == 1.0
    });
    let before = calls(&bad);
    for _ in 0..20 {
        assert_eq!(sidecar.call(call()).status(), 200);
    }
    assert_eq!((before, calls(&bad)), (2, 2), "two in a row, and none after");
}

#[test]
fn an_address_is_not_ejected_for_a_limit_or_its_callers() {
    for status in [400, 401, 404, 429] {
        let upstreams = [0, 0].map(|_| Upstream::answering(answer_with(status, "{}")));
        let urls = upstreams.each_ref().map(Upstream::url);
        let sidecar = Launch::new().config(&pool(&urls, "{}")).start();
        for _ in 0..30 {
            assert_eq!(sidecar.call(call()).status(), status);
        }
        assert_eq!(sidecar.metric("tidegate_upstream_ejections_total"), 0.0);
    }
}

#[test]
fn the_last_address_is_never_ejected() {
    let bad = || Upstream::answering(answer_with(500, "{}"));
    let (first, second) = (bad(), bad());
    let sidecar = Launch::new().config(&pool(&[first.url(), second.url()], "{}")).start();
    for _ in 0..40 {
        assert_eq!(sidecar.call(call()).status(), 500);
    }
    assert_eq!(calls(&first) + calls(&second), 40, "each call has gone somewhere");
    assert_eq!((addresses(&sidecar, "in_use"), addresses(&sidecar, "ejected")), (1.0, 1.0));
    assert!(sidecar.metric("tidegate_upstream_ejections_spared_total") > 0.0);
    assert_eq!(sidecar.metric("tidegate_upstream_uses_all"), 0.0);
}

#[test]
fn an_address_whose_health_checks_fail_gets_no_calls_until_they_succeed() {
    let health = [200, 503].map(|status| Arc::new(AtomicU16::new(status)));
    let upstreams = health.each_ref().map(|health| telling(health.clone(), ""));
    let urls = upstreams.each_ref().map(Upstream::url);
    let balance = "{ health: { interval: 20ms, unhealthy: 2, healthy: 1 }, eject: { ramp: 10ms } }";
    let sidecar = Launch::new().config(&pool(&urls, balance)).start();
    wait_until("it is unhealthy", || addresses(&sidecar, "unhealthy") == 1.0);
    let before = calls(&upstreams[1]);
    for _ in 0..20 {
        assert_eq!(sidecar.call(call()).status(), 200);
    }
    assert_eq!(calls(&upstreams[1]), before);
    assert!(sidecar.metric("tidegate_upstream_check_failures_total") >= 2.0);

    health[1].store(204, SeqCst);
    wait_until("it has calls again", || {
        assert_eq!(sidecar.call(call()).status(), 200);
        calls(&upstreams[1]) > before
    });

    health.iter().for_each(|health| health.store(500, SeqCst));
    wait_until("none is healthy", || sidecar.metric("tidegate_upstream_uses_all") == 1.0);
    for _ in 0..10 {
        assert_eq!(sidecar.call(call()).status(), 200, "all are used");
    }
    assert!(sidecar.metric("tidegate_upstream_forced_calls_total") >= 10.0);
    assert!(sidecar.log().contains("no address is fit for use"), "{}", sidecar.log());

    let requests = upstreams[0].requests();
    let check = requests.iter().find(|request| request.target() == "/health").expect("a check");
    assert_eq!(check.header("host"), Some(upstreams[0].address.to_string().as_str()));
    assert!(check.header("user-agent").is_some_and(|agent| agent.starts_with("tidegate/")));
    let served = sidecar.metric("tidegate_calls_total");
    let records = sidecar.finish();
    assert_eq!(records.len() as f64, served);
    assert!(records.iter().all(|record| record["url.path"] == "/v1/chat/completions"));
}

#[test]
fn a_single_address_is_used_whatever_its_health() {
    let upstream = telling(Arc::new(AtomicU16::new(503)), "");
    let config = format!(
        "upstreams: {{ pool: {{ url: '{}', balance: {{ health: {{ interval: 10ms }} }} }} }}\nroutes: [{{ upstream: pool }}]",
        upstream.url()
    );
    let sidecar = Launch::new().config(&config).start();
    wait_until("it is unhealthy", || addresses(&sidecar, "unhealthy") == 1.0);
    assert_eq!(sidecar.call(call()).status(), 200);
    assert_eq!(sidecar.metric("tidegate_upstream_uses_all"), 1.0);
}

#[test]
fn no_credential_goes_with_a_health_check() {
    let upstream = telling(Arc::new(AtomicU16::new(200)), "");
    let config = format!(
        "upstreams: {{ pool: {{ url: '{}', credential: {{ bearer: {{ env: SOME_KEY }} }}, balance: {{ health: {{ interval: 10ms }} }} }} }}\nroutes: [{{ upstream: pool }}]",
        upstream.url()
    );
    let sidecar = Launch::new().config(&config).env("SOME_KEY", "topsecret").start();
    assert_eq!(sidecar.call(call()).status(), 200);
    wait_until("it is checked", || upstream.requests().len() > calls(&upstream));
    for request in upstream.requests() {
        let is_call = request.target() != "/health";
        assert_eq!(request.header("authorization").is_some(), is_call, "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_checks_speak_as_calls_do() {
    let certificate = Certificate::new();
    for (speaks, scheme, more) in [
        (Speaks::Tls(certificate.server(&["h2"])), "https", ""),
        (Speaks::Tls(certificate.server(&["http/1.1"])), "https", ""),
        (Speaks::Http2, "http", "http2: true, "),
    ] {
        let is_checked = Arc::new(AtomicBool::new(false));
        let seen = is_checked.clone();
        let upstream = serve(speaks, move |request: http::Request<_>| {
            if request.uri().path() == "/health" {
                seen.store(true, SeqCst);
            }
            async { Response::new(full(COMPLETION)) }
        })
        .await;
        // `localhost` may stand for ::1 as well, where nobody listens.
        let config = format!(
            "upstreams: {{ pool: {{ {more}url: '{scheme}://localhost:{}', balance: {{ dns: {{}}, health: {{ interval: 20ms }} }} }} }}\nroutes: [{{ upstream: pool }}]",
            upstream.port()
        );
        let sidecar = Launch::new().config(&config).trust(&certificate).start();
        wait_until("it is checked", || is_checked.load(SeqCst));
        for _ in 0..10 {
            assert_eq!(sidecar.call(call()).status(), 200);
        }
        assert_eq!(addresses(&sidecar, "in_use"), 1.0);
        let records = sidecar.finish();
        assert!(records.iter().all(|record| record["server.address"] == "localhost"));
    }
}

#[test]
fn a_server_that_says_it_has_a_queue_gets_fewer_calls() {
    let load = |waiting| format!("vllm:num_requests_waiting{{model_name=\"m\"}} {waiting}\n");
    let health = Arc::new(AtomicU16::new(200));
    let upstreams = [0, 40].map(|waiting| telling(health.clone(), &load(waiting)));
    let urls = upstreams.each_ref().map(Upstream::url);
    let sidecar = Launch::new().config(&pool(&urls, "{ steer: { interval: 10s } }")).start();
    let is_asked = |upstream: &Upstream| upstream.requests().len() > calls(upstream);
    wait_until("they are asked", || upstreams.iter().all(is_asked));
    wait_until("what they say is heard", || {
        let before = calls(&upstreams[1]);
        (0..20).for_each(|_| assert_eq!(sidecar.call(call()).status(), 200));
        calls(&upstreams[1]) == before
    });
    assert_eq!(sidecar.metric("tidegate_upstream_steering_failures_total"), 0.0);
}

#[test]
fn servers_that_tell_no_load_are_used_all_the_same_and_that_is_counted() {
    let health = Arc::new(AtomicU16::new(200));
    let upstreams = [0, 1].map(|_| telling(health.clone(), "nothing"));
    let urls = upstreams.each_ref().map(Upstream::url);
    let sidecar = Launch::new().config(&pool(&urls, "{ steer: { interval: 10ms } }")).start();
    wait_until("that is counted", || {
        sidecar.metric("tidegate_upstream_steering_failures_total") >= 4.0
    });
    (0..20).for_each(|_| assert_eq!(sidecar.call(call()).status(), 200));
    assert!(upstreams.iter().all(|upstream| calls(upstream) > 0));
}
