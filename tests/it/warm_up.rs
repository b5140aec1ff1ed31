//! Upstreams that are kept warm: connections before a call needs them, and a small call while nobody calls.

use serde_json::{Value, json};

use crate::support::*;

const CHAT: &str = "/v1/chat/completions";

fn well() -> Upstream {
    Upstream::answering(answer(COMPLETION))
}

fn config(url: &str, upstream: &str, warm_up: &str, rest: &str) -> String {
    format!(
        "upstreams: {{ a: {{ url: '{url}', provider: openai, warm_up: {{ interval: 10ms{warm_up} }}{upstream} }} }}\n\
         routes: [{{ upstream: a }}]\n{rest}"
    )
}

fn start(url: &str, warm_up: &str) -> Sidecar {
    Launch::new().config(&config(url, "", warm_up, "")).start()
}

/// What the admin address shows of it.
fn shown(sidecar: &Sidecar) -> Value {
    sidecar.ask("/policies").json()["warm_up"]["a"].clone()
}

/// A small call, made again where nobody has called for so long.
fn tiny(idle: &str) -> String {
    format!(
        ", call: {{ path: {CHAT}, idle: {idle}, headers: {{ x-warm: one }}, body: '{{\"model\":\"gpt-4o\",\"max_tokens\":1}}' }}"
    )
}

#[test]
fn the_first_calls_find_connections_that_are_open_and_no_more_are_opened_than_that() {
    let upstream = well();
    let sidecar = start(&upstream.url(), ", connections: 3");
    // Two workers.
    wait_until("connections are open", || shown(&sidecar)["connections"]["opened"] == 6);
    let idle = || sidecar.ask("/policies").json()["connections"]["a"]["idle"].clone();
    wait_until("they are ready", || idle() == 6);
    assert_eq!((upstream.connections(), upstream.requests().len()), (6, 0));
    for _ in 0..8 {
        assert_eq!(sidecar.call(bare_post(CHAT, "{}")).status(), 200);
    }
    assert_eq!(upstream.connections(), 6);
    assert_eq!(sidecar.metric("tidegate_warm_up_connections_total"), 6.0);
    for record in sidecar.finish() {
        assert_eq!(record.get("tidegate.wait.connect_s"), None, "{record:#}");
    }
}

#[test]
fn a_small_call_is_made_once_at_the_start_by_all_workers_together_and_counts_for_no_caller() {
    let upstream = well();
    let launch = Launch::new();
    std::fs::write(launch.file("key"), "ours").expect("a folder to write to");
    let own = ", credential: { bearer: { file: key } }";
    let sidecar = launch.config(&config(&upstream.url(), own, &tiny("1h"), "")).start();
    wait_until("it is made", || sidecar.metric("tidegate_own_calls_total") == 1.0);
    let request = upstream.request();
    assert_eq!(request.line, format!("POST {CHAT} HTTP/1.1"));
    assert_eq!(request.text(), r#"{"model":"gpt-4o","max_tokens":1}"#);
    assert_eq!(request.header("authorization"), Some("Bearer ours"));
    assert_eq!(request.header("x-warm"), Some("one"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(sidecar.metric("tidegate_calls_total"), 0.0);
    assert_eq!(sidecar.metric("tidegate_cost_usd_total"), 0.0);
    assert!(sidecar.metric("tidegate_own_cost_usd_total") > 0.0);
    let text = sidecar.ask("/metrics").text();
    assert!(text.contains("tidegate_own_tokens_total{kind=\"warm_up\""), "{text}");
    let record = sidecar.finish_with_one();
    assert_outcome(&record, "completed", None);
    assert_eq!(
        (&record["tidegate.warm_up"], &record["tidegate.upstream"]),
        (&json!(true), &json!("a"))
    );
    assert_eq!((record.get("tidegate.route"), record.get("tidegate.shadow")), (None, None));
}

#[test]
fn it_is_made_again_while_nobody_calls() {
    let upstream = well();
    let sidecar = start(&upstream.url(), &tiny("20ms"));
    wait_until("it is made again", || upstream.requests().len() >= 3);
    assert!(shown(&sidecar)["idle_s"].is_number());
}

#[test]
fn an_upstream_that_is_not_there_is_tried_and_counted_and_holds_nothing_up() {
    let sidecar = start(&format!("http://{}", nowhere()), &tiny("1h"));
    wait_until("it is tried", || shown(&sidecar)["connections"]["failed"].as_u64() >= Some(2));
    assert_eq!(sidecar.ask("/readyz").status(), 200);
    assert_eq!(sidecar.metric("tidegate_calls_total"), 0.0);
    let records = sidecar.finish();
    assert_eq!(records.len(), 1);
    assert_outcome(&records[0], "failed", Some("upstream"));
}

#[test]
fn nothing_is_warmed_while_policies_look_on_only_nor_where_nobody_asked_for_it() {
    let (upstream, other) = (well(), well());
    let bypassed = config(&upstream.url(), "", &tiny("20ms"), "bypass: true\n");
    let bypassed = Launch::new().config(&bypassed).start();
    let plain = Sidecar::to(&other);
    // As many looks as another sidecar takes to make several such calls.
    let third = well();
    let warm = start(&third.url(), &tiny("20ms"));
    wait_until("another one is warm", || third.requests().len() >= 5);
    drop((warm, bypassed, plain));
    assert_eq!((upstream.connections(), other.connections()), (0, 0));
}
