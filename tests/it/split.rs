//! Routes whose calls go several ways: each arm gets its share, and the two sides can be compared.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::support::*;

const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o","temperature":0}"#;

/// Upstreams called a, b, c, and one route.
fn config(upstreams: &[&Upstream], route: &str) -> String {
    let upstream = |(name, upstream): (char, &&Upstream)| {
        format!("  {name}: {{ url: '{}', provider: openai }}\n", upstream.url())
    };
    let upstreams: String = ('a'..='z').zip(upstreams).map(upstream).collect();
    format!("upstreams:\n{upstreams}routes: [{{ name: chat, {route} }}]\n")
}

fn start(upstreams: &[&Upstream], route: &str) -> Sidecar {
    Launch::new().config(&config(upstreams, route)).start()
}

fn well() -> Upstream {
    Upstream::answering(answer(COMPLETION))
}

/// A call of this user.
fn of_user(user: usize) -> String {
    bare_post(CHAT, BODY).replacen("\r\n", &format!("\r\nx-user: user-{user}\r\n"), 1)
}

/// The arm that an answer says it is of.
fn arm(reply: &Message) -> String {
    reply.header("x-tidegate-split").expect("it says its arm").to_owned()
}

/// Has the sidecar read this anew, and waits until it has.
fn reload(sidecar: &Sidecar, text: &str) {
    let good = || {
        let text = sidecar.ask("/metrics").text();
        let name = "tidegate_config_reloads_total{result=\"good\"} ";
        text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
    };
    let before = good();
    let next = sidecar.file("next.yaml");
    fs::write(&next, text).expect("a folder to write to");
    fs::rename(next, sidecar.file("tidegate.yaml")).expect("a folder to write to");
    sidecar.signal("HUP");
    wait_until("the configuration is read", || good() != before);
}

/// The arms of the route, as the admin address shows them.
fn shown(sidecar: &Sidecar) -> Value {
    sidecar.ask("/policies").json()["split"]["chat"].clone()
}

/// A metric of each arm, all its other series added up.
fn by_arm(sidecar: &Sidecar, name: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for line in sidecar.ask("/metrics").text().lines() {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with('{'));
        let Some((labels, value)) = rest.and_then(|rest| rest.rsplit_once("} ")) else { continue };
        let arm = labels.split_once("split=\"").and_then(|(_, rest)| rest.split('"').next());
        *sums.entry(arm.unwrap_or_default().to_owned()).or_default() +=
            value.parse::<f64>().expect("a number");
    }
    sums
}

fn sums(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
    pairs.iter().map(|(arm, sum)| ((*arm).to_owned(), *sum)).collect()
}

#[test]
fn records_answers_metrics_and_the_admin_address_agree_on_who_got_what() {
    const CALLS: usize = 200;
    let (a, b) = (well(), Upstream::answering(answer_with(500, "{}")));
    let split = "split: [{ upstream: a, weight: 3 }, { upstream: b, weight: 1, name: canary }]";
    let sidecar = start(&[&a, &b], split);
    let mut caller = sidecar.connect();
    let arms: Vec<_> = (0..CALLS).map(|_| arm(&caller.call(bare_post(CHAT, BODY)))).collect();
    let canaries = arms.iter().filter(|arm| *arm == "canary").count();
    // 50 are to be expected; this is six standard deviations wide.
    assert!((13..=87).contains(&canaries), "{canaries}");
    assert_eq!((a.requests().len(), b.requests().len()), (CALLS - canaries, canaries));

    let (own, other) = ((CALLS - canaries) as f64, canaries as f64);
    wait_until("every call is counted", || {
        by_arm(&sidecar, "tidegate_calls_total") == sums(&[("a", own), ("canary", other)])
    });
    assert_eq!(
        by_arm(&sidecar, "tidegate_call_duration_seconds_count"),
        sums(&[("a", own), ("canary", other)])
    );
    assert_eq!(by_arm(&sidecar, "tidegate_tokens_total"), sums(&[("a", 4.0 * own)]));
    let shown = shown(&sidecar);
    let (stable, canary) = (&shown["arms"]["a"], &shown["arms"]["canary"]);
    assert_eq!((&stable["share"], &canary["share"]), (&json!(0.75), &json!(0.25)));
    assert_eq!(stable["counted"]["outcomes"], json!({ "completed": CALLS - canaries }));
    assert_eq!(stable["counted"]["error_ratio"], 0.0);
    assert_eq!(stable["counted"]["output_tokens"], CALLS - canaries);
    assert_eq!(canary["counted"]["error_ratio"], 1.0);
    assert!(canary["counted"]["duration_s"]["mean"].as_f64().expect("a time") > 0.0);

    let records = sidecar.finish();
    let recorded: Vec<_> = records.iter().map(|record| &record["tidegate.split"]).collect();
    assert_eq!(recorded, arms.iter().collect::<Vec<_>>());
    for record in &records {
        let upstream = if record["tidegate.split"] == "a" { "a" } else { "b" };
        assert_eq!(record["tidegate.upstream"], upstream);
    }
}

#[test]
fn a_user_gets_the_same_arm_by_every_worker_and_every_sidecar_and_after_a_reload() {
    const USERS: usize = 60;
    let (a, b) = (well(), well());
    let route = |a: u32, b: u32| {
        format!(
            "sticky: {{ header: x-user }}, split: [{{ upstream: a, weight: {a} }}, {{ upstream: b, weight: {b} }}]"
        )
    };
    let sidecars = [start(&[&a, &b], &route(1, 1)), start(&[&a, &b], &route(1, 1))];
    let arms = |sidecar: &Sidecar| -> Vec<_> {
        (0..USERS).map(|user| arm(&sidecar.call(of_user(user)))).collect()
    };
    let before = arms(&sidecars[0]);
    let count = before.iter().filter(|arm| *arm == "b").count();
    assert!((10..50).contains(&count), "{count}");
    // Each call has a connection of its own, so that both workers take some.
    assert_eq!(arms(&sidecars[0]), before);
    assert_eq!(arms(&sidecars[1]), before);
    reload(&sidecars[0], &config(&[&a, &b], &route(1, 3)));
    let after = arms(&sidecars[0]);
    let has_left = |(before, after): (&String, &String)| before == "b" && after == "a";
    assert!(!before.iter().zip(&after).any(has_left), "{before:?} {after:?}");
    assert!(after.iter().filter(|arm| *arm == "b").count() > count);
}

#[test]
fn an_arm_without_weight_gets_no_more_calls_and_what_was_counted_of_it_stays() {
    let (a, b) = (well(), well());
    let split =
        |b: u32| format!("split: [{{ upstream: a, weight: 1 }}, {{ upstream: b, weight: {b} }}]");
    let sidecar = start(&[&a, &b], &split(1_000_000));
    assert_eq!(arm(&sidecar.call(bare_post(CHAT, BODY))), "b");
    reload(&sidecar, &config(&[&a, &b], &split(0)));
    for _ in 0..20 {
        assert_eq!(arm(&sidecar.call(bare_post(CHAT, BODY))), "a");
    }
    assert_eq!(b.requests().len(), 1);
    wait_until("all is counted", || shown(&sidecar)["arms"]["a"]["counted"]["calls"] == 20);
    let shown = shown(&sidecar);
    assert_eq!(shown["arms"]["b"]["counted"]["calls"], 1);
    assert_eq!(shown["arms"]["b"]["share"], 0.0);
}

#[test]
fn an_arm_asks_for_its_own_model_in_body_or_path_and_what_it_falls_back_to_gets_the_callers() {
    const GEMINI: &str = "/v1beta/models/gemini-pro:generateContent";
    for (sent, changed, unchanged) in [
        (
            bare_post(CHAT, r#"{ "x":[1], "model": "gpt-4o" }"#),
            (CHAT, r#"{ "x":[1], "model": "gemma-4" }"#),
            (CHAT, r#"{ "x":[1], "model": "gpt-4o" }"#),
        ),
        (bare_post(GEMINI, "{}"), ("/v1beta/models/gemma-4:generateContent", "{}"), (GEMINI, "{}")),
    ] {
        let (well, failing) = (well(), Upstream::answering(answer_with(503, "{}")));
        // Once it answers, and once it is not even there: nothing was sent then.
        for (b, is_sent) in [(failing.url(), true), (format!("http://{}", nowhere()), false)] {
            let config = format!(
                "upstreams: {{ a: {{ url: '{}' }}, b: {{ url: '{b}' }} }}\n\
                 routes: [{{ split: [{{ upstream: b, model: gemma-4, weight: 1, fallback: [{{ upstream: a }}] }}] }}]",
                well.url()
            );
            let sidecar = Launch::new().config(&config).start();
            let reply = sidecar.call(&sent);
            assert_eq!((reply.status(), arm(&reply).as_str()), (200, "b"));
            assert_eq!(reply.header("x-tidegate-fallback"), Some("a"));
            let asked = |upstream: &Upstream| {
                let last = upstream.requests().pop().expect("a request");
                (last.target().to_owned(), last.text())
            };
            if is_sent {
                assert_eq!(asked(&failing), (changed.0.to_owned(), changed.1.to_owned()));
            }
            assert_eq!(asked(&well), (unchanged.0.to_owned(), unchanged.1.to_owned()));
            let record = sidecar.finish_with_one();
            assert_eq!(record["tidegate.split"], "b");
            assert_eq!(record["tidegate.upstream"], "a");
            assert_eq!(record.get("tidegate.called_model"), None);
        }
    }
}

#[test]
fn a_call_that_cannot_get_its_arms_names_is_of_no_arm_and_says_so() {
    let upstream = well();
    let split = "upstream: a, split: [{ model: gemma-4, weight: 1 }]";
    let sidecar = start(&[&upstream], split);
    let reply = sidecar.call(bare_post(CHAT, "{}"));
    assert_eq!((reply.status(), reply.header("x-tidegate-split")), (200, None));
    let record = sidecar.finish_with_one();
    assert_eq!(record.get("tidegate.split"), None);
    assert_eq!(record["tidegate.warnings"], json!(["split_not_applied"]));
}

#[test]
fn what_one_arm_has_answered_is_kept_for_its_own_callers_alone() {
    const CALLS: usize = 100;
    let upstreams = ["a", "b"].map(|name| {
        let named = COMPLETION.replace("\"hi\"", &format!("\"{name}\""));
        Upstream::answering(answer(&named))
    });
    let route = |weight: u32| {
        format!(
            "cache: {{}}, split: [{{ upstream: a, weight: 1 }}, {{ upstream: b, weight: {weight} }}]"
        )
    };
    let [a, b] = [&upstreams[0], &upstreams[1]];
    let sidecar = start(&[a, b], &route(1));
    let mut caller = sidecar.connect();
    let mut ask = || {
        let reply = caller.call(bare_post(CHAT, BODY));
        let content = reply.json()["choices"][0]["message"]["content"].clone();
        assert_eq!(content, arm(&reply), "the answer is the arm's own");
        reply
    };
    (0..CALLS).for_each(|_| drop(ask()));
    wait_until("both are kept", || sidecar.metric("tidegate_cache_entries") == 2.0);
    let asked = || a.requests().len() + b.requests().len();
    let before = asked();
    (0..CALLS).for_each(|_| assert!(ask().header("x-tidegate-cache").is_some()));
    // Other weights change nothing of what an arm has answered.
    reload(&sidecar, &config(&[a, b], &route(3)));
    (0..CALLS).for_each(|_| assert!(ask().header("x-tidegate-cache").is_some()));
    assert_eq!(asked(), before);
    // What was kept is no figure of an arm's.
    let by_arm = by_arm(&sidecar, "tidegate_calls_total");
    assert_eq!(by_arm.get("a").zip(by_arm.get("b")).map(|(a, b)| a + b), Some(before as f64));
    let records = sidecar.finish();
    assert!(records.iter().all(|record| record["tidegate.split"].is_string()));
}

#[test]
fn bypass_leaves_calls_where_their_split_has_them() {
    let (a, b) = (well(), well());
    let split = "split: [{ upstream: a, weight: 0 }, { upstream: b, model: gemma-4, weight: 1 }]";
    let text = format!("{}bypass: true\n", config(&[&a, &b], split));
    let sidecar = Launch::new().config(&text).start();
    let reply = sidecar.call(bare_post(CHAT, BODY));
    assert_eq!((arm(&reply).as_str(), reply.header("x-tidegate-bypass")), ("b", None));
    assert_eq!((a.connections(), b.requests().len()), (0, 1));
    assert!(b.requests()[0].text().contains("gemma-4"));
}

#[test]
fn a_callers_credential_goes_to_every_arm_and_from_one_to_another_and_nowhere_else() {
    let (a, c) = (well(), well());
    let failing = Upstream::answering(answer_with(503, "{}"));
    let elsewhere = |upstream: &Upstream| upstream.url().replace("127.0.0.1", "localhost");
    for (fallback, status) in [("a", 200), ("c", 503)] {
        let config = format!(
            "upstreams: {{ a: {{ url: '{}' }}, b: {{ url: '{}' }}, c: {{ url: '{}', address: '{}' }} }}\n\
             routes: [{{ split: [{{ upstream: a, weight: 0 }}, {{ upstream: b, weight: 1, fallback: [{{ upstream: {fallback} }}] }}] }}]",
            a.url(),
            elsewhere(&failing),
            "http://third.example",
            c.address,
        );
        let sidecar = Launch::new().config(&config).start();
        assert_eq!(sidecar.call(call()).status(), status, "{fallback}");
    }
    for request in failing.requests().iter().chain(&a.requests()) {
        assert!(request.header("authorization").is_some(), "{request:?}");
    }
    assert_eq!((a.requests().len(), c.connections()), (1, 0));
}
