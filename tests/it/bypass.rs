//! One switch for all policies: while it is on they judge and count, and no call is the worse for them.

use std::process::Output;
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::support::*;

/// What the admin address asks for.
const ADMIN_TOKEN: &str = canary::OF_ADMIN;
/// Retries that waste no test's time.
const SOON: &str = "retry: { wait: 1ms, limited: { wait: 1ms, longest_wait: 5ms } }";

/// A sidecar before this upstream, which may be switched.
fn start(url: &str, policies: &str, route: &str, rest: &str) -> Sidecar {
    switchable().config(&config(url, policies, route, rest)).start()
}

fn switchable() -> Launch {
    Launch::new().env("TIDEGATE_ADMIN_TOKEN", ADMIN_TOKEN)
}

fn config(url: &str, policies: &str, route: &str, rest: &str) -> String {
    format!(
        "{rest}\nupstreams: {{ a: {{ url: '{url}', {policies} }} }}\nroutes: [{{ upstream: a, {route} }}]\n"
    )
}

/// An upstream that answers with the status of the moment.
fn with_status(status: u16) -> (Upstream, Arc<AtomicU16>) {
    let now = Arc::new(AtomicU16::new(status));
    let status = now.clone();
    let upstream = Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            peer.wire.send(answer_with(status.load(SeqCst), COMPLETION));
        }
        peer.closed();
    });
    (upstream, now)
}

/// Asks the admin address to switch, in these words.
fn post_admin(sidecar: &Sidecar, target: &str, fields: &str, body: &str) -> Message {
    let length = body.len();
    let head = format!("POST {target} HTTP/1.1\r\nContent-Length: {length}\r\n{fields}");
    let host = if fields.contains("Host:") { "" } else { "Host: localhost\r\n" };
    Wire::to(sidecar.admin).call(format!("{head}{host}\r\n{body}"))
}

fn switch(sidecar: &Sidecar, on: bool) {
    let bearer = format!("Authorization: Bearer {ADMIN_TOKEN}\r\n");
    let answer = post_admin(sidecar, &format!("/bypass?on={on}"), &bearer, "");
    assert_eq!((answer.status(), answer.json()["on"].as_bool()), (200, Some(on)));
}

/// Calls on which this policy would have acted.
fn bypassed(sidecar: &Sidecar, policy: &str) -> u64 {
    sidecar.ask("/policies").json()["bypassed"]["a"][policy].as_u64().unwrap_or_default()
}

#[track_caller]
fn assert_bypassed(sidecar: &Sidecar, counts: &[(&str, u64)]) {
    let counted = sidecar.ask("/policies").json()["bypassed"]["a"].clone();
    let expected = counts.iter().map(|&(policy, count)| (policy.to_owned(), count.into()));
    assert_eq!(counted, serde_json::Value::Object(expected.collect()));
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    assert_eq!(sidecar.metric("tidegate_bypassed_total"), all as f64);
}

#[test]
fn every_policy_stands_aside_and_each_call_counts_for_the_first_that_would_have_acted() {
    let (upstream, status) = with_status(503);
    let policies = "breaker: { consecutive: 1, open: 60s }, limit: { concurrency: 1, queue: 0 }";
    let route = format!("{SOON}, fallback: [{{ model: other }}]");
    let sidecar = start(&upstream.url(), policies, &route, "bypass: true");
    for (attempts, told) in [(1, None), (2, Some("breaker")), (3, Some("breaker"))] {
        let reply = sidecar.call(call());
        assert_eq!((reply.status(), reply.header("x-tidegate-bypass")), (503, told));
        assert_eq!(reply.header("x-tidegate-attempts"), None);
        assert_eq!(upstream.requests().len(), attempts);
        // The breaker knows of it once it is over.
        sidecar.wait_records(attempts);
    }
    status.store(200, SeqCst);
    assert_eq!(sidecar.call(call()).text(), COMPLETION);
    // What would have been refused says nothing to the breaker: it is as it would be.
    let breakers = sidecar.ask("/policies").json()["breakers"]["a"].clone();
    let is_open = |breaker: &serde_json::Value| breaker["state"] == "open";
    assert!(breakers.as_array().is_some_and(|all| all.iter().any(is_open)), "{breakers}");
    assert_eq!(sidecar.metric("tidegate_bypass"), 1.0);
    for nothing_was_done in [
        "tidegate_breaker_refusals_total",
        "tidegate_retries_total",
        "tidegate_retries_denied_total",
        "tidegate_fallbacks_total",
        "tidegate_limit_shed_total",
    ] {
        assert_eq!(sidecar.metric(nothing_was_done), 0.0, "{nothing_was_done}");
    }
    assert_bypassed(&sidecar, &[("breaker", 3), ("retry", 1)]);
    assert!(sidecar.log().contains("bypass is on"), "{}", sidecar.log());
}

#[test]
fn a_call_counts_for_the_fallback_only_where_it_would_not_have_been_made_again_before() {
    for (route, policy) in [
        ("fallback: [{ model: other }]", Some("fallback")),
        ("retry: { attempts: 1 }, fallback: [{ model: other }]", Some("fallback")),
        ("retry: {}", Some("retry")),
        ("retry: { budget: 0%, floor: 0 }", None),
        ("retry: { attempts: 1 }", None),
    ] {
        let (upstream, _) = with_status(503);
        let sidecar = start(&upstream.url(), "", route, "bypass: true");
        assert_eq!(sidecar.call(call()).status(), 503, "{route}");
        wait_until("the call is over", || sidecar.metric("tidegate_calls_in_flight") == 0.0);
        let counts: Vec<_> = policy.into_iter().map(|policy| (policy, 1)).collect();
        assert_bypassed(&sidecar, &counts);
    }
}

#[test]
fn what_would_not_have_been_made_again_counts_for_nothing() {
    let (upstream, status) = with_status(503);
    let rest = "bypass: true\nlimits: { held_body: 1KiB }";
    let sidecar = start(&upstream.url(), "", SOON, rest);
    let large = format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(10_000));
    assert_eq!(sidecar.call(post("/v1/chat/completions", &large)).status(), 503);
    assert_eq!(sidecar.call(post("/v1/files", "{}")).status(), 503);
    status.store(400, SeqCst);
    assert_eq!(sidecar.call(call()).status(), 400);
    assert_bypassed(&sidecar, &[]);
}

#[test]
fn a_stream_that_fails_after_content_would_not_have_been_made_again() {
    let overloaded =
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n";
    for (events, count) in [(overloaded.to_owned(), 1), (format!("{TOKEN}{overloaded}"), 0)] {
        let upstream = Upstream::answering(format!("{STREAM_HEAD}{}{LAST_CHUNK}", chunk(&events)));
        let sidecar = start(&upstream.url(), "", SOON, "bypass: true");
        assert_eq!(sidecar.call(stream_call()).text(), events);
        wait_until("the call is over", || sidecar.metric("tidegate_calls_in_flight") == 0.0);
        assert_eq!(bypassed(&sidecar, "retry"), count, "{events}");
    }
}

#[test]
fn who_cannot_be_reached_is_tried_at_each_address_as_ever() {
    let policies = "addresses: ['http://127.0.0.1:1', 'http://localhost:1']";
    let config = format!(
        "bypass: true\nupstreams: {{ a: {{ {policies} }} }}\nroutes: [{{ upstream: a, {SOON} }}]"
    );
    let sidecar = switchable().config(&config).start();
    let reply = sidecar.call(call());
    assert_eq!((reply.status(), reply.header("x-tidegate-attempts")), (502, Some("2")));
    assert_eq!(reply.header("x-tidegate-bypass"), None, "two attempts are all that it has");
}

#[test]
fn the_head_of_a_stream_and_the_body_of_a_request_are_not_held() {
    let (sender, body) = mpsc::channel();
    let upstream = Upstream::new(move |mut peer| {
        peer.head();
        peer.wire.send(format!("{STREAM_HEAD}{}", chunk(": ping\n\n")));
        peer.wire.wait_for(b"\"first\"");
        sender.send(()).expect("the test waits");
        peer.closed();
    });
    let route = "retry: { hold: 60s }, fallback: [{ model: other }], include_usage: add";
    let sidecar = start(&upstream.url(), "", route, "bypass: true");
    let mut caller = sidecar.connect();
    caller.send(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{\"model\":\"first\"",
    );
    body.recv_timeout(STOP).expect("what has come of the body is there");
    assert_eq!(caller.head().expect("a head").status(), 200);
}

#[test]
fn calls_that_wait_for_a_place_are_let_in_when_it_is_switched_on() {
    let gate = Gate::default();
    let opened = gate.clone();
    let upstream = Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            opened.pass();
            peer.wire.send(answer(COMPLETION));
        }
        peer.closed();
    });
    let limit = "limit: { concurrency: 1, queue_timeout: 600s }";
    let sidecar = start(&upstream.url(), limit, "", "");
    let served = |count: usize| {
        wait_until("the calls are there", || upstream.requests().len() == count);
    };
    let mut callers: Vec<_> = (0..3).map(|_| sidecar.connect()).collect();
    callers[0].send(call());
    served(1);
    callers[1].send(call());
    wait_until("it waits", || sidecar.metric("tidegate_limit_queue") == 1.0);

    switch(&sidecar, true);
    served(2);
    callers[2].send(call());
    served(3);
    assert_eq!(sidecar.metric("tidegate_limit_in_use"), 3.0);
    callers.iter().for_each(|_| gate.open());
    let told: Vec<_> = callers
        .iter_mut()
        .map(|caller| caller.response().header("x-tidegate-bypass").map(str::to_owned))
        .collect();
    // The second had begun before.
    assert_eq!(told, [None, None, Some("limit".to_owned())]);
    assert_bypassed(&sidecar, &[("limit", 2)]);
    wait_until("all places are free", || sidecar.metric("tidegate_limit_in_use") == 0.0);
    switch(&sidecar, false);
    gate.open();
    assert_eq!(sidecar.call(call()).status(), 200);
}

#[test]
fn an_address_that_is_ejected_gets_its_calls_all_the_same() {
    let bad = Upstream::answering(answer_with(503, "{}"));
    let good = Upstream::answering(answer(COMPLETION));
    let config = format!(
        "bypass: true\nupstreams: {{ a: {{ addresses: ['{}', '{}'], balance: {{ eject: {{ failures: 1, time: 600s, max_time: 600s }} }} }} }}\nroutes: [{{ upstream: a }}]",
        bad.url(),
        good.url()
    );
    let sidecar = switchable().config(&config).start();
    let mut caller = sidecar.connect();
    let mut call_until = |count: usize| {
        while bad.requests().len() < count {
            assert!([200, 503].contains(&caller.call(call()).status()));
        }
    };
    call_until(1);
    let states =
        || sidecar.ask("/policies").json()["addresses"]["a"]["addresses"][0]["state"].clone();
    wait_until("it is ejected, in name", || states() == "ejected");
    call_until(4);
    assert_eq!(bypassed(&sidecar, "ejection"), 3);
    assert_eq!(sidecar.metric("tidegate_upstream_forced_calls_total"), 0.0);

    switch(&sidecar, false);
    let before = bad.requests().len();
    (0..20).for_each(|_| assert_eq!(sidecar.call(call()).status(), 200));
    assert_eq!(bad.requests().len(), before);
}

#[test]
fn a_call_may_take_longer_than_its_route_allows() {
    let upstream = Upstream::new(|mut peer| {
        peer.request();
        std::thread::sleep(Duration::from_millis(300));
        peer.wire.send(answer(COMPLETION));
        peer.closed();
    });
    let sidecar = start(&upstream.url(), "", "timeout: 50ms", "bypass: true");
    let reply = sidecar.call(call());
    assert_eq!((reply.status(), reply.text().as_str()), (200, COMPLETION));
    wait_until("it is counted", || bypassed(&sidecar, "timeout") == 1);
}

#[test]
fn the_admin_address_switches_it_at_once_and_back() {
    let (upstream, status) = with_status(503);
    let policies = "breaker: { consecutive: 1, open: 600s, open_max: 600s }";
    let sidecar = start(&upstream.url(), policies, "", "");
    assert_eq!(sidecar.call(call()).status(), 503);
    sidecar.wait_records(1);
    status.store(200, SeqCst);
    assert_eq!(sidecar.call(call()).header("x-tidegate-error"), Some("circuit_open"));
    switch(&sidecar, true);
    let reply = sidecar.call(call());
    assert_eq!((reply.status(), reply.header("x-tidegate-bypass")), (200, Some("breaker")));
    let state = sidecar.ask("/policies").json()["bypass"]["switch"].clone();
    assert_eq!((&state["on"], &state["set_by"]), (&true.into(), &"admin".into()));
    assert_eq!(sidecar.ask("/bypass").json(), state);
    switch(&sidecar, false);
    assert_eq!(sidecar.call(call()).header("x-tidegate-error"), Some("circuit_open"));
    assert_eq!(sidecar.metric("tidegate_bypass"), 0.0);
    assert!(sidecar.log().contains("bypass is off"), "{}", sidecar.log());
}

#[test]
fn a_reload_leaves_the_switch_alone_unless_the_key_has_changed() {
    let (upstream, _) = with_status(200);
    let of = |rest: &str| config(&upstream.url(), "", "", rest);
    let sidecar = switchable().config(&of("")).start();
    let is_on = || sidecar.metric("tidegate_bypass") == 1.0;
    let reload = |rest: &str| {
        let reloads = || sidecar.metric("tidegate_config_reloads_total");
        let before = reloads();
        std::fs::write(sidecar.file("tidegate.yaml"), of(rest)).expect("a folder to write to");
        sidecar.signal("HUP");
        wait_until("it is read", || reloads() > before);
    };
    switch(&sidecar, true);
    reload("timeouts: { idle: 100s }");
    assert!(is_on(), "the file does not say a new thing");
    reload("bypass: true");
    assert!(is_on());
    switch(&sidecar, false);
    reload("bypass: true\ntimeouts: { idle: 100s }");
    assert!(!is_on(), "nor here");
    switch(&sidecar, true);
    reload("bypass: false");
    assert!(!is_on(), "the key has changed");
}

#[test]
fn only_who_has_the_token_may_switch() {
    let (upstream, _) = with_status(200);
    let sidecar = Launch::new().config(&config(&upstream.url(), "", "", "")).start();
    let refused = post_admin(&sidecar, "/bypass?on=true", "Authorization: Bearer x\r\n", "");
    assert_eq!(refused.status(), 403);
    assert!(
        refused.text().contains("set `admin_token` in the configuration"),
        "{}",
        refused.text()
    );

    let launch = Launch::new();
    std::fs::write(launch.file("token"), format!("{ADMIN_TOKEN}\n")).expect("a folder to write to");
    let of_file = config(&upstream.url(), "", "", "admin_token: { file: token }");
    let sidecar = launch.config(&of_file).start();
    let bearer = format!("Authorization: Bearer {ADMIN_TOKEN}\r\n");
    let ask = |target: &str, fields: &str, body: &str| post_admin(&sidecar, target, fields, body);
    for fields in ["", "Authorization: Bearer x\r\n", "Authorization: Basic x\r\n"] {
        let refused = ask("/bypass?on=true", fields, "");
        assert_eq!((refused.status(), refused.header("www-authenticate")), (401, Some("Bearer")));
    }
    let elsewhere = format!("{bearer}Host: evil.example\r\n");
    assert_eq!(ask("/bypass?on=true", &elsewhere, "").status(), 421);
    for (target, body) in [
        ("/bypass", ""),
        ("/bypass?on=maybe", ""),
        ("/bypass", r#"{"on":"true"}"#),
        ("/bypass", r#"{"on":true,"for":"1h"}"#),
        ("/bypass?on=true", "on=false"),
    ] {
        let refused = ask(target, &bearer, body);
        assert_eq!(refused.status(), 400, "{target} {body}");
        assert!(refused.text().contains("POST /bypass?on=true"), "{}", refused.text());
    }
    assert_eq!(ask("/bypass", &bearer, &"x".repeat(2000)).status(), 413);
    assert_eq!(ask("/config", &bearer, "").status(), 405);
    assert_eq!(sidecar.metric("tidegate_bypass"), 0.0);
    for (target, body, on) in [
        ("/bypass?on=true", "", 1.0),
        ("/bypass", r#"{"on": false}"#, 0.0),
        ("/bypass", "on=true", 1.0),
        ("/bypass?on=false", "on=false", 0.0),
    ] {
        assert_eq!(ask(target, &bearer, body).status(), 200, "{target} {body}");
        assert_eq!(sidecar.metric("tidegate_bypass"), on);
    }
    // A token that is changed in its file is the token from then on.
    std::fs::write(sidecar.file("token"), "another").expect("a folder to write to");
    assert_eq!(ask("/bypass?on=true", &bearer, "").status(), 401);
    assert_eq!(ask("/bypass?on=true", "Authorization: Bearer another\r\n", "").status(), 200);
}

#[test]
fn a_token_that_cannot_be_used_is_told_at_the_start_and_lets_nobody_in() {
    let (upstream, _) = with_status(200);
    let of_file = config(&upstream.url(), "", "", "admin_token: { file: nowhere }");
    let sidecar = Launch::new().config(&of_file).start();
    wait_until("it is told", || sidecar.log().contains("the admin token cannot be used"));
    let refused = post_admin(&sidecar, "/bypass?on=true", "Authorization: Bearer \r\n", "");
    assert_eq!(refused.status(), 403);
    assert!(refused.text().contains("cannot be read"), "{}", refused.text());
}

#[test]
fn a_command_switches_it_and_says_by_its_exit_code_whether_it_has() {
    let (upstream, _) = with_status(200);
    let sidecar = start(&upstream.url(), "", "", "");
    let admin = sidecar.admin.to_string();
    let run = |arguments: &[&str], token: Option<&str>| -> Output {
        let all = ["bypass", "--admin", &admin].into_iter().chain(arguments.iter().copied());
        let mut command = tidegate(all);
        token.into_iter().for_each(|token| _ = command.env("TIDEGATE_ADMIN_TOKEN", token));
        command.output().expect("it runs")
    };
    let told = |output: &Output, code: i32, part: &str| {
        let text = [&output.stdout[..], &output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(output.status.code() == Some(code) && text.contains(part), "{text}");
        assert!(!text.contains(ADMIN_TOKEN), "{text}");
    };
    told(&run(&[], None), 0, "\"on\": false");
    told(&run(&["on"], Some(ADMIN_TOKEN)), 0, "\"on\": true");
    assert_eq!(sidecar.metric("tidegate_bypass"), 1.0);
    let file = sidecar.file("token");
    std::fs::write(&file, ADMIN_TOKEN).expect("a folder to write to");
    told(&run(&["off", "--token-file", file.to_str().expect("text")], None), 0, "\"on\": false");
    told(&run(&["on"], Some("wrong")), 1, "401");
    told(&run(&["on"], None), 2, "--token-file FILE");
    told(&run(&["maybe"], Some(ADMIN_TOKEN)), 2, "possible values: on, off");
    assert_eq!(sidecar.metric("tidegate_bypass"), 0.0);
    drop(sidecar);
    told(&run(&["on"], Some(ADMIN_TOKEN)), 1, "no answer from");
}
