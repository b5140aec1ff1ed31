//! An upstream has so many calls at a time; the others wait in order, or are told when to come again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use crate::support::*;

/// A sidecar before this upstream, with this limit.
fn limited(upstream: &Upstream, limit: &str) -> Sidecar {
    let url = upstream.url();
    let config = format!(
        "upstreams: {{ a: {{ url: '{url}', limit: {limit} }} }}\nroutes: [{{ upstream: a }}]"
    );
    Launch::new().config(&config).start()
}

/// A call with this priority and, to be known by, this path.
fn call_of(priority: &str, path: &str) -> String {
    let body = r#"{"model":"gpt-4o"}"#;
    let fields = format!("\r\nX-Tidegate-Priority: {priority}\r\n");
    post(path, body).replacen("\r\n", &fields, 1)
}

/// Waits until so many calls are at the upstream.
fn wait_served(upstream: &Upstream, count: usize) {
    wait_until("the calls are at the upstream", || upstream.requests().len() == count);
}

/// Waits until so many calls wait.
fn wait_queued(sidecar: &Sidecar, count: usize) {
    wait_until("the calls wait", || sidecar.metric("tidegate_limit_queue") == count as f64);
}

#[test]
fn a_hundred_callers_never_make_more_calls_at_a_time_than_may_be() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (inside, highest) = (now.clone(), most.clone());
    let upstream = Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            highest.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
            // Others have time to come, if they are let.
            thread::sleep(std::time::Duration::from_millis(5));
            inside.fetch_sub(1, SeqCst);
            peer.wire.send(answer(COMPLETION));
        }
        peer.closed();
    });
    let sidecar = limited(&upstream, "{ concurrency: 8 }");
    thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                let mut caller = sidecar.connect();
                for _ in 0..3 {
                    assert_eq!(caller.call(call()).status(), 200);
                }
            });
        }
    });
    assert_eq!(most.load(SeqCst), 8);
    assert_eq!(sidecar.metric("tidegate_limit"), 8.0);
    wait_until("all places are free", || sidecar.metric("tidegate_limit_in_use") == 0.0);

    let records = sidecar.finish();
    assert_eq!(records.len(), 300);
    let waited = |record: &&serde_json::Value| record["tidegate.wait.queue_s"].is_f64();
    let waited: Vec<_> = records.iter().filter(waited).collect();
    assert!(waited.len() >= 92, "{} waited", waited.len());
    for record in waited {
        assert_outcome(record, "completed", None);
        let seconds = |key: &str| record[key].as_f64().expect("a time");
        let rest = seconds("tidegate.duration_s") - seconds("tidegate.wait.queue_s");
        assert!(seconds("tidegate.overhead_s") <= rest, "a wait is no overhead: {record:#}");
    }
}

#[test]
fn the_more_urgent_are_served_first_and_equals_in_their_order() {
    let (upstream, gate) = gated(answer(COMPLETION));
    let sidecar =
        limited(&upstream, "{ concurrency: 1, queue_timeout: 60s, priority_ageing: 60s }");
    let mut callers = Vec::new();
    let orders = [
        ("normal", "/v1/0"),
        ("low", "/v1/1"),
        ("normal", "/v1/2"),
        ("HIGH", "/v1/3"),
        ("odd", "/v1/4"),
        ("high", "/v1/5"),
        ("low", "/v1/6"),
    ];
    for (waiting, (priority, path)) in orders.into_iter().enumerate() {
        let mut caller = sidecar.connect();
        caller.send(call_of(priority, path));
        callers.push(caller);
        match waiting {
            0 => wait_served(&upstream, 1),
            waiting => wait_queued(&sidecar, waiting),
        }
    }
    callers.iter().for_each(|_| gate.open());
    callers.iter_mut().for_each(|caller| assert_eq!(caller.response().status(), 200));
    let served = upstream.requests();
    let served: Vec<_> = served.iter().map(|request| request.target()).collect();
    assert_eq!(served, ["/v1/0", "/v1/3", "/v1/5", "/v1/2", "/v1/4", "/v1/1", "/v1/6"]);
}

#[test]
fn a_call_that_finds_the_queue_full_is_told_when_to_come_again() {
    let (upstream, gate) = gated(answer(COMPLETION));
    let sidecar = limited(&upstream, "{ concurrency: 1, queue: 1, queue_timeout: 60s }");
    let [mut first, mut second] = [sidecar.connect(), sidecar.connect()];
    first.send(call());
    wait_served(&upstream, 1);
    second.send(call_of("low", "/v1/chat/completions"));
    wait_queued(&sidecar, 1);

    let shed = sidecar.call(call_of("low", "/v1/chat/completions"));
    assert_shed(&shed, "limit_queue_full");
    // A more urgent one takes the place of the one that waits.
    let mut third = sidecar.connect();
    third.send(call());
    assert_shed(&second.response(), "limit_queue_full");
    [&gate, &gate].iter().for_each(|gate| gate.open());
    assert_eq!((first.response().status(), third.response().status()), (200, 200));
    assert_eq!(sidecar.metric("tidegate_limit_shed_total"), 2.0);

    let records = sidecar.finish();
    let shed: Vec<_> = records.iter().filter(|r| r["tidegate.outcome"] == "refused").collect();
    assert_eq!(shed.len(), 2, "{records:#?}");
    for record in shed {
        assert_outcome(record, "refused", Some("sidecar"));
        assert_eq!(record["error.type"], "limit_queue_full");
        assert_eq!(record["tidegate.block_reason"], "limit_queue_full");
        assert!(record["tidegate.attempts"].is_null(), "{record:#}");
    }
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn a_call_that_waits_too_long_is_told_when_to_come_again() {
    let (upstream, gate) = gated(answer(COMPLETION));
    let sidecar = limited(&upstream, "{ concurrency: 1, queue_timeout: 50ms }");
    let mut first = sidecar.connect();
    first.send(call());
    wait_served(&upstream, 1);

    assert_shed(&sidecar.call(call()), "limit_queue_timeout");
    gate.open();
    assert_eq!(first.response().status(), 200);
    gate.open();
    assert_eq!(sidecar.call(call()).status(), 200);

    let records = sidecar.finish();
    let shed = records.iter().find(|record| record["tidegate.outcome"] == "refused");
    let shed = shed.expect("a record");
    assert_eq!(shed["tidegate.block_reason"], "limit_queue_timeout");
    assert!(shed["tidegate.wait.queue_s"].as_f64().expect("a time") >= 0.05, "{shed:#}");
}

#[track_caller]
fn assert_shed(reply: &Message, kind: &str) {
    assert_eq!((reply.status(), reply.header("x-tidegate-error")), (503, Some(kind)));
    let seconds = reply.header("retry-after").expect("when to come again");
    assert!((1..=60).contains(&seconds.parse::<u32>().expect("seconds")), "{seconds}");
    assert_eq!(reply.json()["error"]["code"], kind);
}

#[test]
fn a_caller_that_leaves_while_it_waits_frees_its_place_in_the_queue() {
    let (upstream, gate) = gated(answer(COMPLETION));
    let limit = "{ concurrency: 1, per_model: false, queue: 1, queue_timeout: 60s }";
    let sidecar = limited(&upstream, limit);
    let mut first = sidecar.connect();
    first.send(call());
    wait_served(&upstream, 1);
    // With a body and without one, for somebody else looks after each.
    let get = "GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n".to_owned();
    for request in [call(), get] {
        let mut leaving = sidecar.connect();
        leaving.send(request);
        wait_queued(&sidecar, 1);
        drop(leaving);
        wait_queued(&sidecar, 0);
    }
    let mut last = sidecar.connect();
    last.send(call());
    wait_queued(&sidecar, 1);
    [&gate, &gate].iter().for_each(|gate| gate.open());
    assert_eq!((first.response().status(), last.response().status()), (200, 200));

    let records = sidecar.finish();
    let left: Vec<_> = records.iter().filter(|r| r["tidegate.outcome"] == "abandoned").collect();
    assert_eq!((records.len(), left.len()), (4, 2), "{records:#?}");
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn a_stream_keeps_its_place_to_its_end_however_it_ends() {
    let gate = Gate::default();
    let opened = gate.clone();
    let upstream = Upstream::new(move |mut peer| {
        let number = peer.number;
        peer.request();
        // Each call is to have a connection of its own.
        let head = STREAM_HEAD.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        peer.wire.send(format!("{head}{:x}\r\n{TOKEN}\r\n", TOKEN.len()));
        match number {
            // Its caller leaves.
            1 => _ = peer.closed(),
            // It breaks off.
            2 => {
                opened.pass();
                peer.close();
            }
            _ => {
                opened.pass();
                peer.wire.send("0\r\n\r\n");
                peer.close();
            }
        }
    });
    let sidecar = limited(&upstream, "{ concurrency: 1, queue_timeout: 60s }");
    let mut callers: Vec<_> = (0..4)
        .map(|number| {
            let mut caller = sidecar.connect();
            caller.send(stream_call());
            match number {
                0 => _ = caller.through(b"hi").expect("a token"),
                number => wait_queued(&sidecar, number),
            }
            caller
        })
        .collect();
    assert_eq!(upstream.requests().len(), 1, "a stream that has begun has its place");
    gate.open();
    callers[1].through(b"hi").expect("the first has ended, so this one has begun");
    assert_eq!(upstream.requests().len(), 2);
    drop(callers.remove(1));
    callers[1].through(b"hi").expect("a caller has left, so this one has begun");
    assert_eq!(upstream.requests().len(), 3);
    gate.open();
    callers[2].through(b"hi").expect("a stream broke off, so this one has begun");
    gate.open();
    wait_until("all places are free", || sidecar.metric("tidegate_limit_in_use") == 0.0);
    assert_eq!(sidecar.finish().len(), 4);
}

#[test]
fn each_model_has_a_limit_of_its_own_wherever_the_call_names_it() {
    let (upstream, gate) = gated(answer(COMPLETION));
    let sidecar = limited(&upstream, "{ concurrency: 1, queue_timeout: 60s }");
    let late = |model: &str| {
        let long = "x".repeat(100_000);
        post("/v1/chat/completions", &format!(r#"{{"messages":"{long}","model":"{model}"}}"#))
    };
    let mut callers: Vec<_> = ["a", "b", "a"]
        .into_iter()
        .map(|model| {
            let mut caller = sidecar.connect();
            caller.send(late(model));
            caller
        })
        .collect();
    wait_served(&upstream, 2);
    wait_queued(&sidecar, 1);
    callers.iter().for_each(|_| gate.open());
    callers.iter_mut().for_each(|caller| assert_eq!(caller.response().status(), 200));

    let (upstream, gate) = gated(answer(COMPLETION));
    let sidecar = limited(&upstream, "{ concurrency: 1, per_model: false, queue_timeout: 60s }");
    let mut callers = [sidecar.connect(), sidecar.connect()];
    callers[0].send(late("a"));
    wait_served(&upstream, 1);
    callers[1].send(late("b"));
    wait_queued(&sidecar, 1);
    [&gate, &gate].iter().for_each(|gate| gate.open());
    callers.iter_mut().for_each(|caller| assert_eq!(caller.response().status(), 200));
}

#[test]
fn a_call_that_finds_no_address_leaves_its_place_to_the_next_try() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let addresses = format!("['http://{}', '{}']", nowhere(), upstream.url());
    let config = format!(
        "upstreams: {{ a: {{ addresses: {addresses}, limit: {{ concurrency: 1, queue_timeout: 60s }} }} }}\nroutes: [{{ upstream: a }}]"
    );
    let sidecar = Launch::new().config(&config).start();
    for _ in 0..4 {
        assert_eq!(sidecar.call(call()).status(), 200);
    }
}

#[test]
fn an_adaptive_limit_grows_while_first_tokens_come_soon() {
    let upstream = Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            peer.wire.send(format!("{STREAM_HEAD}{:x}\r\n{TOKEN}\r\n0\r\n\r\n", TOKEN.len()));
        }
        peer.closed();
    });
    let sidecar = limited(&upstream, "{ adaptive: { min: 1, max: 20 }, queue_timeout: 60s }");
    let mut all: Vec<_> = (0..8).map(|_| sidecar.connect()).collect();
    wait_until("the limit has grown", || {
        all.iter_mut().for_each(|caller| caller.send(stream_call()));
        all.iter_mut().for_each(|caller| assert_eq!(caller.response().status(), 200));
        sidecar.metric("tidegate_limit") > 1.0
    });
    assert_eq!(sidecar.log().matches("panicked").count(), 0);
}
