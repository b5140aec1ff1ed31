//! How a sidecar ends: calls first, and no call without its record.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;

use crate::support::*;

/// How long nothing must have come before a sidecar that was told to end does.
const QUIET: Duration = Duration::from_secs(5);

/// An upstream that streams a token, and the end when it is told to.
fn streaming(head: &'static str, token: String, end: String) -> (Upstream, Gate) {
    let gate = Gate::default();
    let go = gate.clone();
    let upstream = Upstream::new(move |mut peer| {
        while let Some(request) = peer.request() {
            if request.target() == "/quick" {
                peer.wire.send(answer("{}"));
                continue;
            }
            peer.wire.send(format!("{head}{token}"));
            go.pass();
            let _ = peer.wire.try_send(&end);
        }
    });
    (upstream, gate)
}

fn chunks() -> (Upstream, Gate) {
    let end = [&chunk(FINISH), &chunk(DONE), LAST_CHUNK].concat();
    streaming(STREAM_HEAD, chunk(TOKEN), end)
}

#[test]
fn after_sigterm_streams_finish_and_new_calls_are_served_until_it_is_quiet() {
    let (upstream, gate) = chunks();
    let mut sidecar = Sidecar::to(&upstream);
    let (mut caller, idle) = (sidecar.connect(), sidecar.connect());
    caller.send(stream_call());
    caller.through(b"hi").expect("a token");
    assert_eq!(sidecar.ask("/readyz").status(), 200);

    sidecar.signal("TERM");
    wait_until("it is no longer ready", || sidecar.ask("/readyz").status() == 503);
    assert_eq!(sidecar.ask("/livez").status(), 200);
    let start = Instant::now();
    assert_eq!(sidecar.call(post("/quick", "{}")).status(), 200);
    gate.open();
    caller.through(format!("{DONE}\r\n{LAST_CHUNK}").as_bytes()).expect("the whole stream");

    assert!(sidecar.wait().success(), "{}", sidecar.log());
    assert!(start.elapsed() >= QUIET, "{:?}", start.elapsed());
    assert!(start.elapsed() < QUIET * 2, "an idle connection held it up: {:?}", start.elapsed());
    drop((caller, idle));
    let records = sidecar.records();
    assert_eq!(records.len(), 2);
    records.iter().for_each(|record| assert_outcome(record, "completed", None));
}

#[test]
fn after_sigint_it_ends_with_the_last_call() {
    let (upstream, gate) = chunks();
    let mut sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    caller.send(stream_call());
    caller.through(b"hi").expect("a token");
    sidecar.signal("INT");
    wait_until("it is no longer ready", || sidecar.ask("/readyz").status() == 503);
    let start = Instant::now();
    gate.open();
    caller.through(format!("{DONE}\r\n{LAST_CHUNK}").as_bytes()).expect("the whole stream");
    assert!(sidecar.wait().success());
    assert!(start.elapsed() < QUIET, "{:?}", start.elapsed());
    assert_outcome(&sidecar.records()[0], "completed", None);
}

#[test]
fn a_second_signal_cuts_what_is_open_and_makes_no_end_up() {
    let sized = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
    let unsized_body = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    for (head, token) in
        [(STREAM_HEAD, chunk(TOKEN)), (sized, TOKEN.to_owned()), (unsized_body, TOKEN.to_owned())]
    {
        let (upstream, gate) = streaming(head, token, String::new());
        let mut sidecar = Sidecar::to(&upstream);
        let mut caller = sidecar.connect();
        caller.send(stream_call());
        caller.through(b"hi").expect("a token");
        sidecar.signal("TERM");
        wait_until("it is no longer ready", || sidecar.ask("/readyz").status() == 503);
        let start = Instant::now();
        sidecar.signal("TERM");
        assert!(sidecar.wait().success(), "{}", sidecar.log());
        assert!(start.elapsed() < QUIET, "{:?}", start.elapsed());

        let (rest, end) = caller.rest();
        assert!(!String::from_utf8_lossy(&rest).contains(LAST_CHUNK), "{head:?}");
        // Without a stated length a plain close would be a clean end.
        assert!(head != unsized_body || end == End::Reset, "{head:?}");
        assert_cut(&sidecar);
        gate.open();
    }
}

#[test]
fn the_pods_grace_bounds_how_long_calls_are_waited_for() {
    let (upstream, gate) = chunks();
    let launch = Launch::new().arg("--upstream").arg(&upstream.url());
    let mut sidecar = launch.env("TERMINATION_GRACE_PERIOD_SECONDS", "6").start();
    let mut caller = sidecar.connect();
    caller.send(stream_call());
    caller.through(b"hi").expect("a token");
    let start = Instant::now();
    sidecar.signal("TERM");
    assert!(sidecar.wait().success());
    let second = Duration::from_secs(1);
    assert!((second..second * 4).contains(&start.elapsed()), "{:?}", start.elapsed());
    let (rest, _) = caller.rest();
    assert!(!String::from_utf8_lossy(&rest).contains(LAST_CHUNK), "the end is not made up");
    assert_cut(&sidecar);
    gate.open();
}

#[test]
fn two_hundred_streams_end_whole_over_a_rolling_restart() {
    const STREAMS: usize = 200;
    let (upstream, gate) = chunks();
    let mut old = Sidecar::to(&upstream);
    let mut callers: Vec<_> = std::iter::repeat_with(|| old.connect()).take(STREAMS).collect();
    for caller in &mut callers {
        caller.send(stream_call());
        caller.through(b"hi").expect("a token");
    }

    let new = Sidecar::to(&upstream);
    old.signal("TERM");
    wait_until("the old one is no longer ready", || old.ask("/readyz").status() == 503);
    assert_eq!(new.ask("/readyz").status(), 200);
    assert_eq!(new.call(post("/quick", "{}")).status(), 200);
    (0..STREAMS).for_each(|_| gate.open());
    for caller in &mut callers {
        caller.through(format!("{DONE}\r\n{LAST_CHUNK}").as_bytes()).expect("the whole stream");
    }

    assert!(old.wait().success(), "{}", old.log());
    let records = old.records();
    assert_eq!(records.len(), STREAMS);
    records.iter().for_each(|record| assert_outcome(record, "completed", None));
    assert_outcome(&new.finish_with_one(), "completed", None);
}

#[test]
fn after_sigterm_a_caller_makes_its_next_call_by_another_connection() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let mut sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    assert_eq!(caller.call(call()).header("connection"), None);

    sidecar.signal("TERM");
    wait_until("it is no longer ready", || sidecar.ask("/readyz").status() == 503);
    assert_eq!(caller.call(call()).header("connection"), Some("close"));
    caller.wait_closed();
    assert!(sidecar.wait().success(), "{}", sidecar.log());
    assert_eq!(sidecar.records().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_sigterm_a_caller_by_http2_ends_its_streams_and_goes() {
    let (upstream, gate) = chunks();
    let mut sidecar = Sidecar::to(&upstream);
    let mut caller = http2_caller(sidecar.address).await;
    let call = http2_post("/v1/chat/completions", full(r#"{"model":"m","stream":true}"#));
    let mut stream = caller.send_request(call).await.expect("an answer").into_body();
    stream.frame().await.expect("a token").expect("whole");

    sidecar.signal("TERM");
    wait_until("it is no longer ready", || sidecar.ask("/readyz").status() == 503);
    gate.open();
    let rest = whole(stream).await.expect("the whole stream");
    assert!(String::from_utf8_lossy(&rest).contains(DONE), "{rest:?}");
    // With the last stream the connection is over, so that nobody waits for an idle caller.
    let over = async {
        while caller.ready().await.is_ok() {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(Duration::from_secs(20), over).await.expect("the connection ends");
    assert!(sidecar.wait().success(), "{}", sidecar.log());
    assert_outcome(&sidecar.records()[0], "completed", None);
}

/// Asserts that the only call has its record, which does not blame the caller.
#[track_caller]
fn assert_cut(sidecar: &Sidecar) {
    let records = sidecar.records();
    assert_eq!(records.len(), 1, "{records:#?}");
    assert_outcome(&records[0], "truncated", Some("sidecar"));
    assert_eq!(records[0]["error.type"], "drain_limit");
}

#[test]
fn sighup_takes_the_records_file_up_anew() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let sidecar = Sidecar::to(&upstream);
    sidecar.call(call());
    sidecar.wait_records(1);
    let (path, moved) = (sidecar.file("records.jsonl"), sidecar.file("moved.jsonl"));
    std::fs::rename(&path, &moved).expect("the file is there");
    sidecar.signal("HUP");
    // It is there again with the next record that is written.
    let mut calls = 1;
    wait_until("the file is there again", || {
        sidecar.call(call());
        calls += 1;
        path.exists()
    });
    let before = read_records(&moved).len();
    let after = sidecar.finish().len();
    assert_eq!(before + after, calls, "{before} before, {after} after");
}
