//! Calls that must be over in time, as the route, the upstream or the caller says.

use crate::support::*;

/// Answers the first request with nothing but this, and all others as they should be.
fn silent_after(first: &str) -> Upstream {
    let first = first.to_owned();
    let turn = std::sync::atomic::AtomicUsize::new(0);
    Upstream::new(move |mut peer| {
        while let Some(request) = peer.request() {
            let is_stream = request.text().contains("stream");
            if turn.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
                peer.wire.send(&first);
                peer.closed();
                return;
            }
            let events = chunk(&format!("{TOKEN}{FINISH}{DONE}"));
            peer.wire.send(match is_stream {
                true => format!("{STREAM_HEAD}{events}{LAST_CHUNK}"),
                false => answer(COMPLETION),
            });
        }
    })
}

fn start(upstream: &Upstream, timeouts: &str, route: &str) -> Sidecar {
    let config = format!(
        "upstreams: {{ a: {{ url: '{}', timeouts: {{ {timeouts} }} }} }}\nroutes: [{{ upstream: a, {route} }}]",
        upstream.url()
    );
    Launch::new().config(&config).start()
}

const RETRY: &str = "retry: { wait: 1ms }";

#[test]
fn a_stream_without_a_token_in_time_is_given_up() {
    let upstream = silent_after("");
    let sidecar = start(&upstream, "first_token: 100ms", "");
    let reply = sidecar.call(stream_call());
    assert_eq!(
        (reply.status(), reply.header("x-tidegate-error")),
        (504, Some("first_token_timeout"))
    );
    let record = &sidecar.finish()[0];
    assert_outcome(record, "failed", Some("upstream"));

    let head = format!("{STREAM_HEAD}{}", chunk(": ping\n\n"));
    let upstream = silent_after(&head);
    let sidecar = start(&upstream, "first_token: 100ms", "");
    let reply = sidecar.call(stream_call());
    assert_eq!(reply.status(), 200);
    assert_ne!(reply.end, End::Clean);
    let record = &sidecar.finish()[0];
    assert_outcome(record, "truncated", Some("upstream"));
    assert_eq!(record["error.type"], "first_token_timeout");
}

#[test]
fn a_stream_without_a_token_in_time_is_tried_again_unseen() {
    for first in [String::new(), format!("{STREAM_HEAD}{}", chunk(": ping\n\n"))] {
        let upstream = silent_after(&first);
        let sidecar = start(&upstream, "first_token: 100ms", RETRY);
        let reply = sidecar.call(stream_call());
        assert_eq!((reply.status(), reply.text()), (200, format!("{TOKEN}{FINISH}{DONE}")));
        assert_outcome(&sidecar.finish()[0], "completed", None);
    }
}

#[test]
fn who_has_had_a_token_or_asks_for_no_stream_has_time() {
    let slow = |first: &'static str, rest: &'static str| {
        Upstream::new(move |mut peer| {
            peer.request();
            peer.wire.send(first);
            // Longer than the limit, by a clock that is not the sidecar's.
            std::thread::sleep(std::time::Duration::from_millis(300));
            peer.wire.send(rest);
            peer.closed();
        })
    };
    let beginning = format!("{STREAM_HEAD}{}", chunk(TOKEN)).leak();
    let rest = format!("{}{LAST_CHUNK}", chunk(&format!("{FINISH}{DONE}"))).leak();
    let whole = answer(COMPLETION).leak();
    for (upstream, call) in [(slow(beginning, rest), stream_call()), (slow("", whole), call())] {
        let sidecar = start(&upstream, "first_token: 100ms", "");
        assert_eq!(sidecar.call(call).status(), 200);
        assert_outcome(&sidecar.finish()[0], "completed", None);
    }
}

#[test]
fn a_call_that_is_not_over_in_time_ends_whatever_it_waits_for() {
    let upstream = silent_after("");
    let sidecar = start(&upstream, "", "timeout: 100ms");
    let reply = sidecar.call(call());
    assert_eq!((reply.status(), reply.header("x-tidegate-error")), (504, Some("total_timeout")));
    assert_outcome(&sidecar.finish()[0], "failed", Some("upstream"));

    let upstream = silent_after(&format!("{STREAM_HEAD}{}", chunk(TOKEN)));
    let sidecar = start(&upstream, "", "timeout: 200ms");
    let reply = sidecar.call(stream_call());
    assert_eq!((reply.status(), reply.text()), (200, TOKEN.to_owned()));
    assert_ne!(reply.end, End::Clean);
    let record = &sidecar.finish()[0];
    assert_outcome(record, "truncated", Some("upstream"));
    assert_eq!(record["error.type"], "total_timeout");
}

#[test]
fn nobody_waits_for_an_attempt_that_comes_too_late() {
    let limited = "HTTP/1.1 429 Slow\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n";
    for (route, own) in [("timeout: 20s, retry: {}", ""), ("retry: {}", "X-Server-Timeout: 20\r\n")]
    {
        let upstream = Upstream::answering(limited);
        let sidecar = start(&upstream, "", route);
        let request = call().replacen("Content-Type", &format!("{own}Content-Type"), 1);
        assert_eq!(sidecar.call(request).status(), 429);
        assert_eq!(upstream.requests().len(), 1);
        let metrics = sidecar.ask("/metrics").text();
        assert!(
            metrics.contains("tidegate_retries_denied_total{upstream=\"a\",reason=\"deadline\"} 1"),
            "{metrics}"
        );
    }
}
