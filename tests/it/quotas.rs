//! What calls may use in a window, and what they are charged, whichever way they end.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use serde_json::Value;

use crate::support::*;

/// A sidecar before this upstream, with these quotas and perhaps more.
fn with_quotas(upstream: &Upstream, quotas: &str, rest: &str) -> Launch {
    let url = upstream.url();
    Launch::new().config(&configuration(&url, quotas, rest))
}

fn configuration(url: &str, quotas: &str, rest: &str) -> String {
    format!(
        "upstreams: {{ a: {{ url: '{url}', provider: openai }} }}\nroutes: [{{ upstream: a }}]\n\
         quotas: {quotas}\n{rest}"
    )
}

/// A chat call with a limit to its answer.
fn call_for(max_tokens: u64) -> String {
    let body = format!(r#"{{"model":"gpt-4o","messages":[],"max_tokens":{max_tokens}}}"#);
    post("/v1/chat/completions", &body)
}

/// Waits until all that was held is settled.
fn wait_settled(sidecar: &Sidecar) {
    wait_until("all is settled", || sidecar.metric("tidegate_quota_reserved") == 0.0);
}

/// The value of the only series of this metric that has this in its labels.
fn series(sidecar: &Sidecar, name: &str, label: &str) -> f64 {
    let text = sidecar.ask("/metrics").text();
    let is_it = |line: &&str| line.starts_with(&format!("{name}{{")) && line.contains(label);
    let lines: Vec<_> = text.lines().filter(is_it).collect();
    assert_eq!(lines.len(), 1, "{name} {label}: {lines:?}");
    lines[0].rsplit(' ').next().expect("a value").parse().expect("a number")
}

#[test]
fn of_a_hundred_callers_at_once_exactly_so_many_get_in_as_there_is_left() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let quotas = "{ all: { window: 1h, requests: 40, mode: enforce } }";
    let sidecar = with_quotas(&upstream, quotas, "").start();
    let entered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                let answer = sidecar.call(call());
                match answer.status() {
                    200 => _ = entered.fetch_add(1, SeqCst),
                    status => {
                        assert_eq!(status, 429, "{answer:?}");
                        assert_eq!(answer.header("x-tidegate-error"), Some("quota_spent"));
                        let error = &answer.json()["error"];
                        assert_eq!(error["code"], "quota_spent");
                        let message = error["message"].as_str().expect("a text");
                        assert!(
                            message.contains("quota `all` is spent: of 40 requests"),
                            "{message}"
                        );
                    }
                }
            });
        }
    });
    assert_eq!((entered.into_inner(), upstream.requests().len()), (40, 40));
    wait_settled(&sidecar);
    assert_eq!(sidecar.metric("tidegate_quota_used"), 40.0);
    assert_eq!(sidecar.metric("tidegate_quota_used_ratio"), 1.0);
    assert_eq!(sidecar.metric("tidegate_quota_exhausted_in_seconds"), 0.0);
    assert_eq!(series(&sidecar, "tidegate_quota_refusals_total", "mode=\"enforce\""), 60.0);

    let records = sidecar.finish();
    let refused: Vec<_> =
        records.iter().filter(|record| record["tidegate.outcome"] == "refused").collect();
    assert_eq!((records.len(), refused.len()), (100, 60));
    for record in refused {
        assert_outcome(record, "refused", Some("quota"));
        assert_eq!(record["error.type"], "quota_spent");
        assert_eq!(record["tidegate.quota.spent"], "all");
        assert_eq!(record["tidegate.block_reason"], "quota_requests");
        assert!(record["tidegate.attempts"].is_null(), "{record:#}");
    }
}

#[test]
fn what_open_calls_may_use_is_held_and_what_they_did_not_use_is_there_for_others() {
    let (upstream, gate) = gated(answer(COMPLETION));
    // 100 callers ask for ten tokens each.
    let quotas = "{ all: { window: day, output_tokens: 500, mode: enforce, reserve: most } }";
    let sidecar = with_quotas(&upstream, quotas, "").start();
    let refused = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| match sidecar.call(call_for(10)).status() {
                200 => {}
                status => {
                    assert_eq!(status, 429);
                    refused.fetch_add(1, SeqCst);
                }
            });
        }
        wait_until("no more get in", || refused.load(SeqCst) == 50);
        assert_eq!(sidecar.metric("tidegate_quota_reserved"), 500.0);
        (0..50).for_each(|_| gate.open());
    });
    assert_eq!(upstream.requests().len(), 50);
    wait_settled(&sidecar);
    assert_eq!(sidecar.metric("tidegate_quota_used"), 50.0, "each has used one");
    // Of the 450 that are left another 45 calls may hold ten.
    gate.open();
    assert_eq!(sidecar.call(call_for(10)).status(), 200);
}

#[test]
fn who_always_hangs_up_before_the_usage_comes_is_charged_at_least_what_came() {
    const CALLS: usize = 20;
    /// What a call is expected to use, for it says itself that it wants no more.
    const EXPECTED: u64 = 5;
    // More tokens than anybody has read: whether the caller is there still or not.
    let upstream = Upstream::new(|mut peer| {
        peer.head();
        peer.wire.send(STREAM_HEAD);
        while peer.wire.try_send(chunk(TOKEN)).is_ok() {
            thread::sleep(std::time::Duration::from_millis(1));
        }
    });
    let quotas = "{ all: { window: 1h, output_tokens: 1000000, mode: enforce } }";
    let sidecar = with_quotas(&upstream, quotas, "").start();
    let stream = r#"{"model":"gpt-4o","stream":true,"max_tokens":5}"#;
    // Each leaves one token later than the one before.
    for tokens in 0..CALLS {
        let mut caller = sidecar.connect();
        caller.send(post("/v1/chat/completions", stream));
        caller.head().expect("an answer");
        (0..tokens).for_each(|_| _ = caller.through(b"\"content\"").expect("tokens come"));
    }
    let records = sidecar.wait_records(CALLS);
    wait_settled(&sidecar);
    let came = |record: &Value| record["tidegate.token_chunks"].as_u64().unwrap_or(0);
    let delivered: u64 = records.iter().map(came).sum();
    assert!(delivered >= (0..CALLS as u64).sum());
    let charged = sidecar.metric("tidegate_quota_used");
    println!("{charged} output tokens are charged of {delivered} that were delivered");
    assert!(charged >= delivered as f64);
    assert_eq!(series(&sidecar, "tidegate_quota_charged_calls_total", "by=\"estimated\""), 20.0);
    // What is estimated stands in its own place.
    assert_eq!(sidecar.metric("tidegate_tokens_total"), 0.0);
    for record in &records {
        assert_outcome(record, "abandoned", None);
        assert_eq!(record["tidegate.estimated.output_tokens"], came(record).max(EXPECTED));
        assert!(record["tidegate.estimated.input_tokens"].as_u64().expect("a number") > 0);
        assert!(record["gen_ai.usage.output_tokens"].is_null(), "{record:#}");
    }
}

#[test]
fn who_hangs_up_at_once_is_charged_what_was_expected() {
    let upstream = Upstream::new(|mut peer| {
        peer.head();
        peer.wire.send(STREAM_HEAD);
        peer.closed();
    });
    let quotas = "{ all: { window: 1h, output_tokens: 1000000, mode: enforce } }";
    let sidecar = with_quotas(&upstream, quotas, "").start();
    let mut caller = sidecar.connect();
    let stream = r#"{"model":"gpt-4o","stream":true,"max_tokens":30}"#;
    caller.send(post("/v1/chat/completions", stream));
    caller.head().expect("an answer");
    drop(caller);
    let record = sidecar.wait_records(1).remove(0);
    assert_outcome(&record, "abandoned", None);
    assert_eq!(record["tidegate.estimated.output_tokens"], 30);
    assert_eq!(sidecar.metric("tidegate_quota_used"), 30.0);
}

#[test]
fn what_a_provider_states_is_charged_and_nothing_else() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let quotas = "{ all: { window: day, requests: 100, input_tokens: 1000, output_tokens: 1000, \
                  tokens: 1000, cost_usd: 1 } }";
    let table = "version: mine\nprices: [{ models: [gpt-4o], input: 1000, output: 2000 }]";
    let launch = with_quotas(&upstream, quotas, "prices: prices.yaml");
    fs::write(launch.file("prices.yaml"), table).expect("a folder to write to");
    let sidecar = launch.start();
    for _ in 0..4 {
        sidecar.call(call());
    }
    sidecar.wait_records(4);
    wait_settled(&sidecar);
    for (kind, used) in [
        ("requests", 4.0),
        ("input_tokens", 12.0),
        ("output_tokens", 4.0),
        ("tokens", 16.0),
        ("cost_usd", 0.02),
    ] {
        let label = format!("type=\"{kind}\"");
        assert_eq!(series(&sidecar, "tidegate_quota_used", &label), used, "{kind}");
    }
    assert_eq!(series(&sidecar, "tidegate_quota_charged_calls_total", "by=\"stated\""), 4.0);

    let state = &sidecar.ask("/policies").json()["quotas"]["all"];
    assert_eq!((&state["mode"], &state["window"]), (&"observe".into(), &"a day".into()));
    let most = state["most_used"].as_array().expect("a list");
    let of = |kind: &str| most.iter().find(|line| line["of"] == kind).expect("it is limited");
    assert_eq!(of("cost_usd")["used"], 0.02);
    assert_eq!(of("requests")["percent"], 4.0);
    assert!(of("tokens")["renewed_in_s"].as_u64().expect("a time") <= 24 * 3600);
}

#[test]
fn money_that_is_spent_keeps_calls_out_and_a_call_without_a_price_is_counted() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let quotas = "{ all: { window: month, cost_usd: 0.01, mode: enforce } }";
    let table = "version: mine\nprices: [{ models: [gpt-4o], input: 1000, output: 2000 }]";
    let launch = with_quotas(&upstream, quotas, "prices: prices.yaml");
    fs::write(launch.file("prices.yaml"), table).expect("a folder to write to");
    let sidecar = launch.start();
    // Each costs half a cent.
    for calls in 1..=2 {
        assert_eq!(sidecar.call(call_for(1)).status(), 200);
        sidecar.wait_records(calls);
        wait_settled(&sidecar);
    }
    let refused = sidecar.call(call_for(1));
    assert_eq!(refused.status(), 429);
    assert!(refused.text().contains("0.01 US dollars a month"), "{}", refused.text());
    let other = post("/v1/chat/completions", r#"{"model":"unpriced","max_tokens":1}"#);
    assert_eq!(sidecar.call(other).status(), 429, "nothing is left for anybody");

    let upstream = Upstream::answering(answer(&COMPLETION.replace("gpt-4o", "unpriced")));
    let sidecar = with_quotas(&upstream, quotas, "").start();
    let other = post("/v1/chat/completions", r#"{"model":"unpriced","max_tokens":1}"#);
    assert_eq!(sidecar.call(other).status(), 200);
    sidecar.wait_records(1);
    assert_eq!(series(&sidecar, "tidegate_quota_charged_calls_total", "by=\"unpriced\""), 1.0);
}

#[test]
fn a_quota_that_observes_lets_all_through_and_tells_whom_it_would_not() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let sidecar = with_quotas(&upstream, "{ all: { window: 1h, requests: 1 } }", "").start();
    for calls in 1..=3 {
        assert_eq!(sidecar.call(call()).status(), 200);
        sidecar.wait_records(calls);
    }
    assert_eq!(series(&sidecar, "tidegate_quota_refusals_total", "mode=\"observe\""), 2.0);
    let spent =
        sidecar.finish().iter().filter(|record| record["tidegate.quota.spent"] == "all").count();
    assert_eq!(spent, 2);
}

#[test]
fn a_call_that_asks_for_more_than_there_ever_is_is_told_so() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let quotas = "{ all: { window: 1m, output_tokens: 100, mode: enforce } }";
    let sidecar = with_quotas(&upstream, quotas, "").start();
    let refused = sidecar.call(call_for(101));
    assert_eq!((refused.status(), refused.header("retry-after")), (429, None));
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    assert_eq!(refused.header("x-tidegate-error"), Some("over_quota"));
    let message = refused.json()["error"]["message"].as_str().expect("a text").to_owned();
    assert!(message.contains("asks for up to 101 output tokens: it can never pass"), "{message}");
    let record = sidecar.wait_records(1).remove(0);
    assert_eq!(sidecar.call(call_for(100)).status(), 200);
    assert_outcome(&record, "refused", Some("quota"));
    assert_eq!(record["error.type"], "over_quota");
}

#[test]
fn a_refusal_has_the_shape_of_each_dialect() {
    let upstream = Upstream::answering(answer("{}"));
    let quotas = "{ all: { window: 1h, requests: 1, per: model, mode: enforce } }";
    let sidecar = with_quotas(&upstream, quotas, "").start();
    for (path, body, pointer, word) in [
        ("/v1/messages", r#"{"model":"claude","max_tokens":5}"#, "/error/type", "quota_spent"),
        ("/v1beta/models/gemini:generateContent", "{}", "/error/status", "RESOURCE_EXHAUSTED"),
        (
            "/model/nova/converse",
            "{}",
            "/message",
            "tidegate: quota `all` of model `nova` is spent",
        ),
    ] {
        assert_eq!(sidecar.call(post(path, body)).status(), 200, "{path}");
        let refused = sidecar.call(post(path, body));
        assert_eq!(refused.status(), 429, "{path}");
        let found = refused.json().pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        assert!(found.as_deref().is_some_and(|text| text.starts_with(word)), "{path}: {found:?}");
        let wait: u64 = refused.header("retry-after").expect("a time").parse().expect("a number");
        assert!((3_500..=3_780).contains(&wait), "{wait}");
    }
}

#[test]
fn a_body_that_a_quota_looks_at_goes_on_as_it_came() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let quotas = "{ all: { window: 1h, output_tokens: 100, mode: enforce } }";
    let sidecar = with_quotas(&upstream, quotas, "").start();
    let body = r#"{"messages":[],"max_tokens":9,"model":"gpt-4o"}"#;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}{}{LAST_CHUNK}",
        chunk(&body[..20]),
        chunk(&body[20..])
    );
    assert_eq!(sidecar.call(request).status(), 200);
    let sent = upstream.request();
    assert_eq!(sent.header("transfer-encoding"), Some("chunked"));
    assert_eq!((sent.header("content-length"), &*sent.text()), (None, body));
    let record = sidecar.finish_with_one();
    assert_eq!(record["gen_ai.request.max_tokens"], 9);
    assert_eq!(record["tidegate.request.bytes"], body.len());
}

#[test]
fn what_was_used_is_kept_over_a_reload_for_as_long_as_the_same_is_counted() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let url = upstream.url();
    let sidecar = with_quotas(&upstream, "{ all: { window: 1h, requests: 2 } }", "").start();
    let reload = |quotas: &str| {
        let before = sidecar.metric("tidegate_config_reloads_total");
        fs::write(sidecar.file("next.yaml"), configuration(&url, quotas, "")).expect("a folder");
        fs::rename(sidecar.file("next.yaml"), sidecar.file("tidegate.yaml")).expect("a folder");
        sidecar.signal("HUP");
        wait_until("it is read", || sidecar.metric("tidegate_config_reloads_total") > before);
    };
    let used = || sidecar.metric("tidegate_quota_used");
    let status = || sidecar.call(call()).status();
    assert_eq!([status(), status()], [200, 200]);
    wait_settled(&sidecar);
    // Now it is enforced: what was used while it only observed is used.
    reload("{ all: { window: 1h, requests: 2, mode: enforce } }");
    assert_eq!((status(), used()), (429, 2.0));
    reload("{ all: { window: 1h, requests: 3, mode: enforce } }");
    assert_eq!([status(), status()], [200, 429]);
    // Another window is another account.
    reload("{ all: { window: 2h, requests: 3, mode: enforce } }");
    assert_eq!(used(), 0.0);
    assert_eq!(status(), 200);
    reload("{}");
    assert_eq!([status(), status(), status(), status()], [200; 4]);
}

#[test]
fn a_call_that_falls_back_is_charged_where_it_ended() {
    let broken = Upstream::answering(answer_with(503, "{}"));
    let good = Upstream::answering(answer(COMPLETION));
    let config = format!(
        "upstreams: {{ a: {{ url: '{}' }}, b: {{ url: '{}' }} }}\n\
         routes: [{{ upstream: a, fallback: [{{ upstream: b }}] }}]\n\
         quotas: {{ all: {{ window: 1h, requests: 10, per: upstream }}, \
                    total: {{ window: 1h, tokens: 1000 }} }}",
        broken.url(),
        good.url()
    );
    let sidecar = Launch::new().config(&config).start();
    assert_eq!(sidecar.call(bare_post("/v1/chat/completions", r#"{"model":"m"}"#)).status(), 200);
    sidecar.wait_records(1);
    assert_eq!(series(&sidecar, "tidegate_quota_used", "upstream=\"b\""), 1.0);
    assert_eq!(series(&sidecar, "tidegate_quota_used", "quota=\"total\""), 4.0);
    assert_eq!(sidecar.metric("tidegate_quota_reserved"), 0.0);
    assert!(!sidecar.ask("/metrics").text().contains("upstream=\"a\",type=\"requests\""));
}

#[test]
fn a_call_that_falls_back_is_charged_to_a_quota_of_that_upstream_alone() {
    let broken = Upstream::answering(answer_with(503, "{}"));
    let good = Upstream::answering(answer(COMPLETION));
    let config = format!(
        "upstreams: {{ a: {{ url: '{}' }}, b: {{ url: '{}' }} }}\n\
         routes: [{{ upstream: a, fallback: [{{ upstream: b }}] }}]\n\
         quotas: {{ spare: {{ match: {{ upstream: b, model: m }}, window: 1h, tokens: 1000 }} }}",
        broken.url(),
        good.url()
    );
    let sidecar = Launch::new().config(&config).start();
    assert_eq!(sidecar.call(bare_post("/v1/chat/completions", r#"{"model":"m"}"#)).status(), 200);
    sidecar.wait_records(1);
    assert_eq!(series(&sidecar, "tidegate_quota_used", "quota=\"spare\""), 4.0);
}

#[test]
fn what_never_left_costs_nothing_nor_does_who_only_looks() {
    let upstream = Upstream::answering(answer("{}"));
    let quotas = "{ all: { window: 1h, requests: 1, mode: enforce } }";
    let sidecar = with_quotas(&upstream, quotas, "").start();
    for _ in 0..3 {
        let models = "GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut caller = sidecar.connect();
        caller.send(models);
        assert_eq!(caller.response_to("GET").status(), 200);
    }
    assert_eq!(sidecar.metric("tidegate_quota_used"), 0.0);

    let url = format!("http://{}", nowhere());
    let sidecar = Launch::new().config(&configuration(&url, quotas, "")).start();
    for calls in 1..=3 {
        assert_eq!(sidecar.call(call()).status(), 502);
        sidecar.wait_records(calls);
    }
    assert_eq!(sidecar.metric("tidegate_quota_used"), 0.0);
}

#[test]
fn with_bypass_on_no_quota_keeps_anybody_out_and_all_is_charged_all_the_same() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let quotas = "{ all: { window: 1h, requests: 1, mode: enforce } }";
    let sidecar = with_quotas(&upstream, quotas, "bypass: true").start();
    for calls in 1..=3 {
        let reply = sidecar.call(call());
        let would = (calls > 1).then_some("quota");
        assert_eq!((reply.status(), reply.header("x-tidegate-bypass")), (200, would));
        sidecar.wait_records(calls);
    }
    assert_eq!(series(&sidecar, "tidegate_bypassed_total", "policy=\"quota\""), 2.0);
    assert_eq!(sidecar.metric("tidegate_quota_used"), 3.0);
}

#[test]
fn what_the_provider_has_left_stands_beside_what_we_have() {
    let limits = "HTTP/1.1 200 OK\r\nx-ratelimit-limit-requests: 500\r\n\
                  x-ratelimit-remaining-requests: 499";
    let upstream = Upstream::answering(answer(COMPLETION).replacen("HTTP/1.1 200 Word", limits, 1));
    let sidecar = with_quotas(&upstream, "{ all: { window: 1h, requests: 9 } }", "").start();
    sidecar.call(call());
    sidecar.wait_records(1);
    assert_eq!(sidecar.metric("tidegate_ratelimit_limit"), 500.0);
    assert_eq!(series(&sidecar, "tidegate_ratelimit_remaining", "dimension=\"requests\""), 499.0);
}

/// Has so many callers call at once and again, each until it is refused. Each asks for 200 output
/// tokens at most, and its answer states 1 to 200 of them, 100 on average. How many output tokens were
/// used of how many there are.
fn spend_at_once(callers: usize, reserve: &str) -> (f64, f64) {
    const LIMIT: f64 = 40_000.0;
    let answers = AtomicUsize::new(0);
    let upstream = Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            let tokens = answers.fetch_add(1, SeqCst) * 73 % 200 + 1;
            let stated = format!("\"completion_tokens\":{tokens}");
            peer.wire.send(answer(&COMPLETION.replace("\"completion_tokens\":1", &stated)));
        }
    });
    let quotas = format!(
        "{{ all: {{ window: day, output_tokens: {LIMIT}, mode: enforce, reserve: {reserve} }} }}"
    );
    let sidecar = with_quotas(&upstream, &quotas, "").start();
    thread::scope(|scope| {
        for _ in 0..callers {
            scope.spawn(|| while sidecar.call(call_for(200)).status() == 200 {});
        }
    });
    wait_settled(&sidecar);
    let used = sidecar.metric("tidegate_quota_used");
    println!(
        "{callers} callers at once, reserve {reserve}: {used} of {LIMIT} output tokens are used"
    );
    (used, LIMIT)
}

#[test]
fn callers_at_once_spend_no_more_than_there_is_where_calls_hold_all_that_they_ask_for() {
    let (used, limit) = spend_at_once(64, "most");
    assert!(used <= limit, "{used}");
    // Who is refused has not found its 200.
    assert!(used > limit - 64.0 * 200.0, "{used}");
}

#[test]
fn callers_at_once_spend_little_more_than_there_is_where_calls_hold_what_is_usual() {
    let (used, limit) = spend_at_once(64, "average");
    // All that the calls under way may use beyond what they hold.
    assert!(used <= limit + 64.0 * 200.0, "{used}");
    assert!(used > limit - 64.0 * 200.0, "{used}");
}

#[test]
fn of_a_thousand_calls_under_way_at_once_none_is_lost_or_counted_twice() {
    const CALLS: usize = 1_000;
    let (upstream, gate) = gated(answer(COMPLETION));
    let quotas = "{ all: { window: day, requests: 600, output_tokens: 100000, mode: enforce } }";
    let sidecar = with_quotas(&upstream, quotas, "").start();
    let refused = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..CALLS {
            scope.spawn(|| match sidecar.call(call_for(10)).status() {
                200 => {}
                status => {
                    assert_eq!(status, 429);
                    refused.fetch_add(1, SeqCst);
                }
            });
        }
        wait_until("no more get in", || refused.load(SeqCst) == CALLS - 600);
        let held =
            |kind: &str| series(&sidecar, "tidegate_quota_reserved", &format!("type=\"{kind}\""));
        assert_eq!((held("requests"), held("output_tokens")), (600.0, 6_000.0));
        (0..600).for_each(|_| gate.open());
    });
    assert_eq!(upstream.requests().len(), 600);
    let used = |kind: &str| series(&sidecar, "tidegate_quota_used", &format!("type=\"{kind}\""));
    wait_settled(&sidecar);
    assert_eq!((used("requests"), used("output_tokens")), (600.0, 600.0));
}
