//! Outages, with every policy at work: what upstreams get of them, and what callers do.
//!
//! Rows F03, F24, F56, F57 and F58 of the fault matrix (`faults.rs`).

use std::time::{Duration, Instant};

use tidegate_faultd::{Faultd, Script, any, status};

use crate::support::*;

/// Policies that lose no time.
const RETRY: &str = "retry: { wait: 1ms, longest_wait: 1ms }";
const OPEN: Duration = Duration::from_millis(200);

fn sidecar(upstream: &str, breaker: &str, route: &str) -> Sidecar {
    let config = format!(
        "upstreams: {{ a: {{ url: '{upstream}'{breaker} }} }}\nroutes: [{{ upstream: a, {route} }}]"
    );
    Launch::new().config(&config).start()
}

/// The value of the series of this name that has this label.
fn counted(sidecar: &Sidecar, name: &str, label: &str) -> f64 {
    let text = sidecar.ask("/metrics").text();
    let is_it = |line: &&str| line.starts_with(&format!("{name}{{")) && line.contains(label);
    let value = |line: &str| line.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok());
    text.lines().filter(is_it).filter_map(value).sum()
}

/// F03, and F01 and F22 beside it.
#[test]
fn a_connection_that_does_not_come_about_is_counted_by_its_reason() {
    let silent = Faultd::black_hole(any());
    for (url, reason, status) in [
        (format!("http://{}", nowhere()), "refused", 502),
        // The kernel knows no way to all hosts at once.
        ("http://255.255.255.255:80".to_owned(), "unreachable", 502),
        ("http://nobody.invalid".to_owned(), "dns", 502),
        (silent.url(), "timeout", 504),
    ] {
        let sidecar = sidecar(&url, ", timeouts: { connect: 500ms }", "retry: { per_target: 1 }");
        assert_eq!(sidecar.call(call()).status(), status, "{reason}");
        let name = "tidegate_connect_failures_total";
        assert_eq!(sidecar.metric(name), 1.0, "{}", sidecar.ask("/metrics").text());
        assert_eq!(counted(&sidecar, name, &format!("reason=\"{reason}\"")), 1.0, "{reason}");
        assert_outcome(&sidecar.finish_with_one(), "failed", Some("upstream"));
    }
}

/// F24: nobody behind the breaker is asked more than the budget allows, and soon nearly nobody is.
#[test]
fn in_a_total_outage_an_upstream_is_left_alone() {
    const CALLS: usize = 1_000;
    let upstream = Faultd::start(status(503));
    let sidecar = sidecar(&upstream.url(), ", breaker: { open: 60s }", RETRY);
    let mut caller = sidecar.connect();
    for _ in 0..CALLS {
        caller.send(call());
        assert_eq!(caller.response().status(), 503);
    }
    let attempts = upstream.attempts();
    println!("{attempts} attempts for {CALLS} calls");
    // Five failures in a row open it, one more may be on its way.
    assert!((5..=6).contains(&attempts), "{attempts}");
    let is_counted = || sidecar.metric("tidegate_calls_total") == CALLS as f64;
    wait_until("every call is counted", is_counted);
}

/// F56: an upstream that comes and goes.
#[test]
fn a_breaker_before_an_upstream_that_flaps_opens_no_faster_than_its_time_and_the_budget_holds() {
    let half = Duration::from_millis(600);
    let upstream = Faultd::start(Script::cycle([(status(503), half), (any(), half)]));
    let breaker = ", breaker: { open: 200ms, open_max: 400ms, ramp: [1, 1] }";
    let sidecar = sidecar(&upstream.url(), breaker, RETRY);
    let begin = Instant::now();
    let transitions =
        |to: &str| counted(&sidecar, "tidegate_breaker_transitions_total", &format!("to=\"{to}\""));
    let (mut caller, mut calls, mut good) = (sidecar.connect(), 0, 0);
    wait_until("it has opened and closed three times", || {
        for _ in 0..20 {
            caller.send(call());
            calls += 1;
            good += usize::from(caller.response().status() == 200);
        }
        transitions("closed") >= 3.0
    });
    let (opened, elapsed) = (transitions("open"), begin.elapsed());
    let most = elapsed.as_secs_f64() / OPEN.as_secs_f64() + 1.0;
    println!(
        "{opened} times open in {elapsed:?}; {good} of {calls} good, {} attempts",
        upstream.attempts()
    );
    assert!(opened >= 3.0 && opened <= most, "{opened} times open in {elapsed:?}");
    assert!(good > 0);
    // The budget and its floor, over ten seconds each.
    let floor = 10.0 * (elapsed.as_secs_f64() / 10.0).ceil();
    let allowed = calls as f64 * 1.2 + floor;
    assert!(upstream.attempts() as f64 <= allowed, "{} of {allowed}", upstream.attempts());
}

/// F57: callers' SDKs, a mesh and the sidecar itself all try again.
#[test]
fn retries_upon_retries_do_not_multiply() {
    /// Those of OpenAI's and Anthropic's SDKs by default.
    const RETRIES: u32 = 2;
    for (layers, heeds, most) in [(1, true, 2), (2, true, 2), (1, false, 5), (2, false, 5)] {
        let upstream = Faultd::start(status(503));
        let first = sidecar(&upstream.url(), "", RETRY);
        let second = sidecar(&format!("http://{}", first.address), "", RETRY);
        let entry = if layers == 1 { &first } else { &second };
        for number in 0..=RETRIES {
            let field = format!("\r\nx-stainless-retry-count: {number}\r\n");
            let reply = entry.call(call().replacen("\r\n", &field, 1));
            assert_eq!(reply.status(), 503);
            if heeds && reply.header("x-should-retry") == Some("false") {
                break;
            }
        }
        assert_eq!(upstream.attempts(), most, "{layers} sidecars, heeding: {heeds}");
    }
}

/// F58: nobody is there, and everybody is told at once.
#[test]
fn where_all_upstreams_are_down_calls_fail_at_once_and_wait_in_no_queue() {
    const CALLS: usize = 200;
    let down = format!(
        "url: 'http://{}', breaker: {{ open: 60s }}, limit: {{ concurrency: 1 }}",
        nowhere()
    );
    let config = format!(
        "upstreams: {{ a: {{ {down} }}, b: {{ {down} }} }}\nroutes: [{{ upstream: a, {RETRY}, fallback: [{{ upstream: b }}] }}]"
    );
    let sidecar = Launch::new().config(&config).start();
    let mut caller = sidecar.connect();
    let mut ask = || {
        let start = Instant::now();
        caller.send(call());
        (caller.response(), start.elapsed())
    };
    wait_until("both breakers are open", || {
        ask();
        counted(&sidecar, "tidegate_breaker_transitions_total", "to=\"open\"") == 2.0
    });
    let mut times = Vec::new();
    for _ in 0..CALLS {
        let (reply, took) = ask();
        assert_eq!((reply.status(), reply.header("x-tidegate-error")), (503, Some("circuit_open")));
        let wait: u64 = reply.header("retry-after").expect("a hint").parse().expect("seconds");
        assert!((1..=60).contains(&wait), "{wait} s");
        let error = &reply.json()["error"];
        assert!(error["message"].as_str().is_some_and(|text| text.contains("`b`")), "{error}");
        times.push(took);
    }
    assert_eq!(sidecar.metric("tidegate_limit_queue"), 0.0);
    times.sort();
    println!("median {:?}, longest {:?}", times[CALLS / 2], times[CALLS - 1]);
    assert!(times[0] < Duration::from_millis(5), "{:?}", times[0]);
}
