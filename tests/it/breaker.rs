//! Circuit breakers and rate gates: what is kept out is answered at once, and what is well again is
//! found out by few.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::*;

/// What an upstream does with a call; it may change its mind.
#[derive(Clone)]
struct Mood(Arc<Mutex<String>>);

/// It answers with nothing, and waits.
const SILENT: &str = "";

/// An upstream that answers as its mood is, and the mood.
fn moody() -> (Upstream, Mood) {
    let mood = Mood(Arc::new(Mutex::new(answer(COMPLETION))));
    let its = mood.clone();
    let upstream = Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            let answer = its.0.lock().expect("nobody panics with it").clone();
            if answer == SILENT {
                break;
            }
            peer.wire.send(answer);
        }
        peer.closed();
    });
    (upstream, mood)
}

impl Mood {
    fn is(&self, answer: impl Into<String>) {
        *self.0.lock().expect("nobody panics with it") = answer.into();
    }
}

/// A sidecar whose only upstream has this breaker.
fn sidecar(upstream: &Upstream, breaker: &str) -> Sidecar {
    let url = upstream.url();
    let config = format!(
        "upstreams: {{ up: {{ url: \"{url}\", breaker: {breaker} }} }}\nroutes: [ {{ upstream: up }} ]\n"
    );
    Launch::new().config(&config).start()
}

fn failing() -> String {
    answer_with(503, r#"{"error":{"message":"overloaded","type":"server_error"}}"#)
}

/// The state of a breaker as the metrics show it.
fn state(sidecar: &Sidecar, model: &str) -> Option<f64> {
    let text = sidecar.ask("/metrics").text();
    let label = format!("model=\"{model}\"");
    let mut lines = text.lines();
    let line =
        lines.find(|line| line.starts_with("tidegate_breaker_state{") && line.contains(&label))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Calls until it has opened: so that its model is known, the first one is answered.
fn open(sidecar: &Sidecar, mood: &Mood) {
    mood.is(answer(COMPLETION));
    assert_eq!(sidecar.call(call()).status(), 200);
    // A call is over once its caller has all of it, which its caller may know a moment earlier.
    wait_until("the model is known", || state(sidecar, "gpt-4o").is_some());
    mood.is(failing());
    for _ in 0..5 {
        let reply = sidecar.call(call());
        assert_eq!((reply.status(), reply.header("x-tidegate-error")), (503, None));
    }
    wait_until("the breaker is not closed", || state(sidecar, "gpt-4o") > Some(0.0));
}

/// Waits until its time is over and the next call is a probe.
fn wait_half_open(sidecar: &Sidecar) {
    wait_until("the breaker is half-open", || state(sidecar, "gpt-4o") == Some(1.0));
}

/// The rule by which calls were refused, as the records say.
fn refused_by(sidecar: Sidecar) -> String {
    let records = sidecar.finish();
    let mut refused = records.iter().filter(|record| record["tidegate.outcome"] == "refused");
    let record = refused.next().expect("a call was refused");
    record["tidegate.block_reason"].as_str().expect("a rule").to_owned()
}

#[test]
fn an_upstream_that_fails_is_left_alone_and_callers_are_told_at_once() {
    let (upstream, mood) = moody();
    let sidecar = sidecar(&upstream, "{ open: 60s }");
    open(&sidecar, &mood);
    let mut fastest = Duration::MAX;
    for _ in 0..200 {
        let start = Instant::now();
        let reply = sidecar.call(call());
        fastest = fastest.min(start.elapsed());
        assert_eq!(reply.status(), 503);
        assert_eq!(reply.header("x-tidegate-error"), Some("circuit_open"));
        let wait: u64 = reply.header("retry-after").expect("a time").parse().expect("seconds");
        assert!((1..=60).contains(&wait), "{wait}");
        let error = &reply.json()["error"];
        assert_eq!(error["code"], "circuit_open");
        let message = error["message"].as_str().expect("a text");
        let says =
            "circuit breaker of upstream `up`, model `gpt-4o` is open: 5 calls in a row failed";
        assert!(message.contains(says), "{message}");
    }
    assert!(fastest < Duration::from_millis(5), "{fastest:?}");
    assert_eq!(upstream.requests().len(), 6, "no call has reached it since");
    assert_eq!(sidecar.metric("tidegate_breaker_refusals_total"), 200.0);
    assert_eq!(sidecar.metric("tidegate_breaker_transitions_total"), 1.0);
    assert!(sidecar.log().contains("circuit breaker opened"), "{}", sidecar.log());

    let records = sidecar.finish();
    assert_eq!(records.len(), 206);
    // Two workers write them, in no order.
    let refused = records.iter().filter(|record| record["error.type"] == "circuit_open");
    assert_eq!(refused.clone().count(), 200);
    for refused in refused {
        assert_outcome(refused, "refused", Some("upstream"));
        assert_eq!(refused["tidegate.block_reason"], "consecutive_failures");
        assert_eq!(refused["http.response.status_code"], 503);
        assert_eq!(refused["tidegate.attempts"], serde_json::Value::Null);
    }
}

#[test]
fn an_upstream_that_is_well_again_is_found_out_and_taken_back() {
    let (upstream, mood) = moody();
    let sidecar = sidecar(&upstream, "{ open: 100ms }");
    open(&sidecar, &mood);
    mood.is(answer(COMPLETION));
    wait_until("a call is answered", || sidecar.call(call()).status() == 200);
    wait_until("the breaker is closed", || {
        sidecar.call(call());
        state(&sidecar, "gpt-4o") == Some(0.0)
    });
    assert_eq!(sidecar.metric("tidegate_breaker_transitions_total"), 3.0);
}

#[test]
fn an_upstream_without_a_breaker_gets_every_call() {
    let (upstream, mood) = moody();
    mood.is(failing());
    let sidecar = Sidecar::to(&upstream);
    (0..50).for_each(|_| assert_eq!(sidecar.call(call()).status(), 503));
    assert_eq!(upstream.requests().len(), 50);
    assert!(!sidecar.ask("/metrics").text().contains("tidegate_breaker_state{"));
}

#[test]
fn of_a_thousand_calls_at_a_half_open_breaker_one_goes_through() {
    let (upstream, mood) = moody();
    let sidecar = sidecar(&upstream, "{ open: 100ms, probe_limit: 60s }");
    open(&sidecar, &mood);
    mood.is(SILENT);
    wait_half_open(&sidecar);
    let before = upstream.requests().len();
    let address = sidecar.address;
    let herd = (0..20).map(|_| {
        thread::spawn(move || {
            let mut refused = 0;
            let mut caller = Wire::to(address);
            for _ in 0..50 {
                caller.send(call());
                // The probe's caller waits, and then leaves.
                let Some(head) = caller.through(b"\r\n\r\n") else { break };
                assert!(String::from_utf8_lossy(&head).contains("circuit_open"));
                refused += 1;
                caller = Wire::to(address);
            }
            refused
        })
    });
    let herd: Vec<_> = herd.collect();
    wait_until("all but the probe are refused", || {
        sidecar.metric("tidegate_breaker_refusals_total") >= 950.0
    });
    assert_eq!(upstream.requests().len(), before + 1);
    // The probe's caller has nobody to wait for.
    drop(sidecar);
    let refused: usize = herd.into_iter().map(|thread| thread.join().expect("no panic")).sum();
    assert!(refused >= 950, "{refused}");
}

#[test]
fn a_probe_that_is_lost_makes_room_for_the_next() {
    let (upstream, mood) = moody();
    let sidecar = sidecar(&upstream, "{ open: 100ms, probe_limit: 300ms }");
    open(&sidecar, &mood);
    mood.is(SILENT);
    wait_half_open(&sidecar);
    // A probe makes room once its call is over, which its caller may know a moment earlier.
    let mut made = 6;
    let mut are_over = |calls| {
        made += calls;
        sidecar.wait_records(made);
    };

    // Its caller leaves.
    for _ in 0..3 {
        let seen = upstream.requests().len();
        let mut caller = sidecar.connect();
        caller.send(call());
        wait_until("the probe is under way", || upstream.requests().len() == seen + 1);
        assert_eq!(sidecar.call(call()).header("x-tidegate-error"), Some("circuit_open"));
        drop(caller);
        are_over(2);
    }
    // It hangs.
    let seen = upstream.requests().len();
    let mut hangs = sidecar.connect();
    hangs.send(call());
    wait_until("the probe is under way", || upstream.requests().len() == seen + 1);
    // It was no good request, which says nothing.
    mood.is(answer_with(400, r#"{"error":{"message":"no","type":"invalid_request_error"}}"#));
    wait_until("the next probe goes through", || {
        let status = sidecar.call(call()).status();
        are_over(1);
        status == 400
    });
    (0..20).for_each(|number| {
        assert_eq!(sidecar.call(call()).status(), 400, "{number}");
        are_over(1);
    });
    assert_eq!(state(&sidecar, "gpt-4o"), Some(1.0));

    mood.is(answer(COMPLETION));
    wait_until("it is closed", || {
        sidecar.call(call());
        state(&sidecar, "gpt-4o") == Some(0.0)
    });
}

#[test]
fn callers_who_leave_do_an_upstream_no_harm() {
    let (upstream, mood) = moody();
    let sidecar = sidecar(&upstream, "{ open: 60s }");
    mood.is(SILENT);
    for left in 0..30 {
        let mut caller = sidecar.connect();
        caller.send(call());
        wait_until("the call is under way", || upstream.requests().len() == left + 1);
        drop(caller);
        sidecar.wait_records(left + 1);
    }
    mood.is(answer(COMPLETION));
    assert_eq!(sidecar.call(call()).status(), 200);
    assert_eq!(sidecar.metric("tidegate_breaker_transitions_total"), 0.0);
}

#[test]
fn a_429_closes_the_gate_of_its_account_for_as_long_as_it_says() {
    let (upstream, mood) = moody();
    let sidecar = sidecar(&upstream, "{}");
    let by = |key: &str| {
        bare_post("/v1/chat/completions", r#"{"model":"gpt-4o"}"#)
            .replace("Content-Type", &format!("Authorization: Bearer {key}\r\nContent-Type"))
    };
    let limited = answer_with(429, r#"{"error":{"message":"slow down","type":"requests"}}"#);
    let limited = |wait: &str| limited.replace("\r\n\r\n", &format!("\r\n{wait}\r\n\r\n"));
    mood.is(limited("Retry-After: 70"));
    let first = sidecar.call(by("a"));
    assert_eq!((first.status(), first.header("x-tidegate-error")), (429, None));
    wait_until("the gate is closed", || sidecar.metric("tidegate_rate_gate_closed") == 1.0);

    mood.is(answer(COMPLETION));
    let refused = sidecar.call(by("a"));
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.header("x-tidegate-error"), Some("rate_limited_upstream"));
    let wait: u64 = refused.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((60..=70).contains(&wait), "{wait}");
    let message = refused.json()["error"]["message"].as_str().expect("a text").to_owned();
    assert!(message.contains("rate gate of upstream `up` is closed"), "{message}");
    assert_eq!(upstream.requests().len(), 1);
    assert_eq!(sidecar.call(by("b")).status(), 200, "another account has limits of its own");
    assert_eq!(sidecar.metric("tidegate_rate_gate_closed"), 1.0);
    assert_eq!(sidecar.metric("tidegate_breaker_state"), 0.0);
    let records = sidecar.wait_records(3);
    let record = records.iter().find(|record| record["tidegate.outcome"] == "refused");
    let record = record.expect("one was refused");
    assert_outcome(record, "refused", Some("quota"));
    assert_eq!(record["error.type"], "rate_limited_upstream");
    assert_eq!(record["tidegate.block_reason"], "rate_limited");

    mood.is(limited("retry-after-ms: 200"));
    assert_eq!(sidecar.call(by("c")).header("x-tidegate-error"), None);
    mood.is(answer(COMPLETION));
    wait_until("the gate opens", || sidecar.call(by("c")).status() == 200);
}

#[test]
fn each_model_has_a_breaker_of_its_own() {
    let upstream = Upstream::new(|mut peer| {
        while let Some(request) = peer.request() {
            let is_ill = request.text().contains("\"ill\"") && !request.text().contains("once");
            let good = answer(COMPLETION);
            peer.wire.send(if is_ill { failing() } else { good });
        }
        peer.closed();
    });
    let sidecar = sidecar(&upstream, "{ open: 60s }");
    // The model stands behind much else, in more than one piece.
    let call = |model: &str, more: &str| {
        let long = "x".repeat(100_000);
        let body = format!(r#"{{"messages":[{{"content":"{long}{more}"}}],"model":"{model}"}}"#);
        sidecar.call(post("/v1/chat/completions", &body)).status()
    };
    assert_eq!((call("ill", "once"), call("well", "")), (200, 200));
    wait_until("both are known", || {
        state(&sidecar, "ill").is_some() && state(&sidecar, "well").is_some()
    });
    (0..5).for_each(|_| assert_eq!(call("ill", ""), 503));
    wait_until("it is open", || state(&sidecar, "ill") == Some(2.0));
    (0..20).for_each(|_| assert_eq!(call("ill", ""), 503));
    assert_eq!(upstream.requests().len(), 2 + 5);
    assert_eq!((call("well", ""), call("new", "")), (200, 200));
    assert_eq!((state(&sidecar, "ill"), state(&sidecar, "well")), (Some(2.0), Some(0.0)));
}

#[test]
fn names_that_callers_invent_share_one_breaker_and_no_label() {
    let upstream =
        Upstream::answering(answer_with(404, r#"{"error":{"message":"no such model"}}"#));
    let sidecar = sidecar(&upstream, "{}");
    for name in 0..100 {
        let body = format!(r#"{{"model":"junk-{name}"}}"#);
        assert_eq!(sidecar.call(post("/v1/chat/completions", &body)).status(), 404);
    }
    let text = sidecar.ask("/metrics").text();
    let lines = text.lines().filter(|line| line.starts_with("tidegate_breaker_state{"));
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("model=\"other\"") && lines[0].ends_with(" 0"), "{lines:?}");
}

#[test]
fn streams_that_die_after_their_first_token_open_it_too() {
    let begun = format!("{STREAM_HEAD}{}", chunk(TOKEN));
    let upstream = Upstream::new(move |mut peer| {
        peer.request();
        peer.wire.send(&begun);
    });
    let sidecar = sidecar(&upstream, "{ min_calls: 4, consecutive: 100, open: 60s }");
    for _ in 0..4 {
        let reply = sidecar.call(stream_call());
        assert_eq!(reply.status(), 200);
        assert_ne!(reply.end, End::Clean);
    }
    wait_until("it opens", || sidecar.call(stream_call()).status() == 503);
    assert_eq!(refused_by(sidecar), "broken_ratio");
}

#[test]
fn an_error_in_band_before_any_token_is_a_failure() {
    let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
    let (upstream, mood) = moody();
    mood.is(format!("{STREAM_HEAD}{}{LAST_CHUNK}", chunk(error)));
    let sidecar = sidecar(&upstream, "{ open: 60s }");
    let call = || sidecar.call(post("/v1/messages", r#"{"model":"claude","stream":true}"#));
    (0..5).for_each(|_| assert_eq!(call().status(), 200));
    wait_until("it is open", || sidecar.metric("tidegate_breaker_state") == 2.0);
    let refused = call();
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.json()["error"]["type"], "circuit_open");
}

#[test]
fn first_tokens_that_come_late_open_it_where_that_is_configured() {
    let upstream = Upstream::new(|mut peer| {
        while peer.request().is_some() {
            peer.wire.send(STREAM_HEAD);
            thread::sleep(Duration::from_millis(60));
            let rest = [&chunk(TOKEN), &chunk(FINISH), &chunk(DONE), LAST_CHUNK];
            peer.wire.send(rest.concat());
        }
        peer.closed();
    });
    let slow = "{ min_calls: 2, open: 60s, slow: { first_token: 50ms, ratio: 100% } }";
    let sidecar = sidecar(&upstream, slow);
    wait_until("it opens", || sidecar.call(stream_call()).status() == 503);
    assert_eq!(refused_by(sidecar), "slow_ratio");
}

#[test]
fn an_upstream_that_cannot_be_reached_is_refused_in_the_words_of_the_callers_sdk() {
    let config = format!(
        "upstreams: {{ up: {{ url: \"http://{}\", breaker: {{ open: 60s }} }} }}\nroutes: [ {{ upstream: up }} ]\n",
        nowhere()
    );
    let sidecar = Launch::new().config(&config).start();
    (0..5).for_each(|_| assert_eq!(sidecar.call(call()).status(), 502));
    wait_until("it is open", || sidecar.metric("tidegate_breaker_state") == 2.0);

    let anthropic = sidecar.call(post("/v1/messages", "{}"));
    assert_eq!(anthropic.json()["error"]["type"], "circuit_open");
    let gemini = sidecar.call(post("/v1beta/models/gemini-2.5-pro:generateContent", "{}"));
    assert_eq!(gemini.json()["error"]["status"], "UNAVAILABLE");
    let bedrock = sidecar.call(post("/model/amazon.nova-pro-v1:0/converse", "{}"));
    assert_eq!(bedrock.header("x-amzn-errortype"), Some("circuit_open"));
    for reply in [anthropic, gemini, bedrock] {
        assert_eq!(reply.status(), 503);
        assert!(reply.header("retry-after").is_some());
    }
}

#[test]
fn a_trickle_goes_through_an_open_breaker_where_that_is_configured() {
    let (upstream, mood) = moody();
    let sidecar = sidecar(&upstream, "{ open: 60s, when_all_open: trickle }");
    open(&sidecar, &mood);
    mood.is(answer(COMPLETION));
    wait_until("one goes through", || sidecar.call(call()).status() == 200);
    wait_until("it is closed", || {
        sidecar.call(call());
        state(&sidecar, "gpt-4o") == Some(0.0)
    });
}

#[test]
fn what_an_open_breaker_keeps_out_goes_to_the_next_target() {
    let (upstream, mood) = moody();
    let other = Upstream::answering(answer(COMPLETION));
    let config = format!(
        "upstreams:\n  up: {{ url: \"{}\", breaker: {{ open: 60s }} }}\n  other: {{ url: \"{}\" }}\nroutes: [ {{ upstream: up, fallback: [ {{ upstream: other }} ] }} ]\n",
        upstream.url(),
        other.url()
    );
    let sidecar = Launch::new().config(&config).start();
    mood.is(failing());
    wait_until("the breaker is open", || {
        assert_eq!(sidecar.call(call()).status(), 200);
        sidecar.metric("tidegate_breaker_state") == 2.0
    });
    let (seen, taken) = (upstream.requests().len(), other.requests().len());
    for _ in 0..20 {
        assert_eq!(sidecar.call(call()).status(), 200);
    }
    assert_eq!(seen, 5, "each was judged as it was given up");
    assert_eq!(upstream.requests().len(), seen);
    assert_eq!(other.requests().len(), taken + 20);
}

#[test]
fn an_attempt_that_is_given_up_unseen_counts_all_the_same() {
    let slow = Upstream::new(|mut peer| {
        peer.request();
        peer.wire.send(format!("{STREAM_HEAD}{}", chunk(": ping\n\n")));
        peer.closed();
    });
    let events = format!("{TOKEN}{FINISH}{DONE}");
    let good = Upstream::answering(format!("{STREAM_HEAD}{}{LAST_CHUNK}", chunk(&events)));
    let config = format!(
        "upstreams:\n  a: {{ url: '{}', timeouts: {{ first_token: 100ms }}, breaker: {{ consecutive: 2 }} }}\n  b: {{ url: '{}' }}\nroutes: [{{ upstream: a, retry: {{ wait: 1ms }}, fallback: [{{ upstream: b }}] }}]",
        slow.url(),
        good.url()
    );
    let sidecar = Launch::new().config(&config).start();
    let call = bare_post("/v1/chat/completions", r#"{"model":"gpt-4o","stream":true}"#);
    assert_eq!(sidecar.call(&call).text(), events);
    wait_until("the breaker is open", || sidecar.metric("tidegate_breaker_state") == 2.0);
    let before = slow.connections();
    assert_eq!(sidecar.call(&call).text(), events);
    assert_eq!(slow.connections(), before);
}
