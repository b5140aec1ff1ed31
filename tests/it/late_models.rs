//! The model in the record of a call that failed before its body had named it.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::Value;
use tidegate_faultd::{Faultd, any};

use crate::support::*;

const CALLS: usize = 200;
const PATH: &str = "/v1/chat/completions";

/// A call that names its model last, as many do, in two parts.
fn parts(model: &str, padding: usize) -> (String, String) {
    let padding = "x".repeat(padding);
    let whole = bare_post(PATH, &format!(r#"{{"messages":["{padding}"],"model":"{model}"}}"#));
    let (head, body) = whole.split_once("\r\n\r\n").expect("a head");
    (format!("{head}\r\n\r\n"), body.to_owned())
}

fn models(records: &[Value]) -> Vec<&str> {
    records.iter().map(|record| record["gen_ai.request.model"].as_str().unwrap_or("")).collect()
}

fn assert_all_named(sidecar: Sidecar) {
    let records = sidecar.finish();
    assert_eq!(records.len(), CALLS);
    assert_eq!(models(&records), vec!["gpt-4o"; CALLS]);
    records.iter().for_each(|record| assert_outcome(record, "failed", Some("upstream")));
}

/// The error comes before the body does, and by a fresh connection each.
#[test]
fn calls_to_an_upstream_that_refuses_are_recorded_under_their_models() {
    let sidecar = Launch::new().arg("--upstream").arg(&format!("http://{}", nowhere())).start();
    let (head, body) = parts("gpt-4o", 0);
    for _ in 0..CALLS {
        let mut caller = sidecar.connect();
        caller.send(&head);
        std::thread::yield_now();
        caller.send(&body);
        assert_eq!(caller.response().status(), 502);
    }
    assert_all_named(sidecar);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_are_those_by_http2_on_one_connection() {
    let sidecar = Launch::new().arg("--upstream").arg(&format!("http://{}", nowhere())).start();
    let mut caller = http2_caller(sidecar.address).await;
    for _ in 0..CALLS {
        let (mut pieces, body) = piecewise();
        let answer = tokio::spawn(caller.send_request(http2_post(PATH, body)));
        tokio::task::yield_now().await;
        for piece in [r#"{"messages":[],"#, r#""model":"gpt-4o"}"#] {
            pieces.send_data(Bytes::from_static(piece.as_bytes())).await.expect("it is read");
        }
        drop(pieces);
        let answer = answer.await.expect("no panic").expect("an answer");
        assert_eq!(answer.status(), 502);
        let _: Bytes = answer.into_body().collect().await.expect("whole").to_bytes();
    }
    drop(caller);
    assert_all_named(sidecar);
}

/// Every way in which we say no before the body has come: the body follows the head by 20 ms.
#[test]
fn whoever_refuses_a_call_early_has_its_model_recorded() {
    let upstream = Faultd::start(any());
    let url = upstream.url();
    let down = nowhere();
    let silent = Faultd::black_hole(any());
    let held = |more: &str| format!("upstreams: {{ a: {{ url: '{url}' }} }}\n{more}");
    let cases = [
        ("no_route", 404, held("routes: [{ match: { path: /other }, upstream: a }]")),
        ("caller_unknown", 401, held("callers: { others: refuse }\nroutes: [{ upstream: a }]")),
        (
            "quota_spent",
            429,
            held(
                "quotas: { q: { requests: 1, window: 1h, mode: enforce } }\nroutes: [{ upstream: a }]",
            ),
        ),
        (
            "circuit_open",
            503,
            format!(
                "upstreams: {{ a: {{ url: 'http://{down}', breaker: {{ consecutive: 1, open: 60s }} }} }}\nroutes: [{{ upstream: a }}]"
            ),
        ),
        (
            "total_timeout",
            504,
            format!(
                "upstreams: {{ a: {{ url: '{}' }} }}\nroutes: [{{ upstream: a, timeout: 5ms }}]",
                silent.url()
            ),
        ),
    ];
    for (kind, status, config) in cases {
        let sidecar = Launch::new().config(&config).start();
        // The first call spends the quota and opens the breaker.
        sidecar.call(call());
        let (head, body) = parts("late-model", 30_000);
        let mut caller = sidecar.connect();
        caller.send(&head);
        std::thread::sleep(Duration::from_millis(20));
        caller.send(&body);
        let reply = caller.response();
        assert_eq!(reply.status(), status, "{kind}: {}", reply.text());
        let records = sidecar.finish();
        let last = records.last().expect("a record");
        assert_eq!(last["error.type"], kind, "{last:#}");
        assert_eq!(last["gen_ai.request.model"], "late-model", "{kind}: {last:#}");
    }
}

/// Who does not send in time gets its answer all the same.
#[test]
fn a_caller_that_takes_its_time_is_not_waited_for() -> io::Result<()> {
    let sidecar = Launch::new().arg("--upstream").arg(&format!("http://{}", nowhere())).start();
    let (head, _) = parts("gpt-4o", 0);
    let mut caller = sidecar.connect();
    let start = Instant::now();
    caller.send(&head);
    assert_eq!(caller.response().status(), 502);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");

    // One that waits to be asked for its body is not asked.
    let mut caller = sidecar.connect();
    caller.send(head.replacen("\r\n", "\r\nExpect: 100-continue\r\n", 1));
    let start = Instant::now();
    let reply = caller.response();
    assert_eq!(reply.status(), 502, "{}", reply.line);
    println!("{took:?} without a body, {:?} with one held back", start.elapsed());
    drop(caller);
    assert_eq!(models(&sidecar.finish()), ["", ""]);
    Ok(())
}
