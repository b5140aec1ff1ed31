//! Equal calls at a time: one asks, and all get its answer as it comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http_body_util::BodyExt;
use serde_json::Value;

use crate::support::*;

const CHAT: &str = "/v1/chat/completions";
const STREAM: &str = r#"{"model":"gpt-4o","temperature":0,"stream":true}"#;
const SAME: &str = r#"{"model":"gpt-4o","temperature":0}"#;
/// What a stream says of its usage.
const USAGE: &str = "data: {\"id\":\"c1\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n";

/// A stream of which one token has come.
fn stream() -> (Upstream, Gate) {
    let rest = [TOKEN, FINISH, USAGE, DONE].map(chunk).concat();
    in_two_parts(format!("{STREAM_HEAD}{}", chunk(TOKEN)), format!("{rest}{LAST_CHUNK}"))
}

fn whole_stream() -> String {
    [TOKEN, TOKEN, FINISH, USAGE, DONE].concat()
}

fn caching(upstream: &Upstream, cache: &str) -> Sidecar {
    let url = upstream.url();
    let config = format!(
        "upstreams: {{ a: {{ url: '{url}', provider: openai }} }}\nroutes: [{{ upstream: a, cache: {{ {cache} }} }}]"
    );
    Launch::new().config(&config).start()
}

/// A caller that has asked this.
fn asking(sidecar: &Sidecar, body: &str) -> Wire {
    let mut caller = sidecar.connect();
    caller.send(bare_post(CHAT, body));
    caller
}

/// One that leads: the upstream has its call.
fn leader(sidecar: &Sidecar, upstream: &Upstream, body: &str) -> Wire {
    let asked = upstream.requests().len();
    let caller = asking(sidecar, body);
    wait_until("the upstream has the call", || upstream.requests().len() > asked);
    caller
}

/// Waits until so many wait for the answers to others.
fn wait_followers(sidecar: &Sidecar, count: usize) {
    wait_until("others wait for its answer", || {
        sidecar.ask("/policies").json()["cache"]["under_way"]["followers"] == count
    });
}

/// Callers that wait for the answer to another.
fn followers(sidecar: &Sidecar, body: &str, count: usize) -> Vec<Wire> {
    let callers = (0..count).map(|_| asking(sidecar, body)).collect();
    wait_followers(sidecar, count);
    callers
}

/// What records say of the cache, in the order of words.
fn sources(records: &[Value]) -> Vec<&str> {
    let mut words: Vec<_> =
        records.iter().filter_map(|record| record["tidegate.cache"].as_str()).collect();
    words.sort_unstable();
    words
}

fn of<'a>(records: &'a [Value], source: &str) -> &'a Value {
    records.iter().find(|record| record["tidegate.cache"] == source).expect("one of this source")
}

#[test]
fn whoever_asks_the_same_amid_an_answer_gets_what_has_come_at_once_and_then_what_comes() {
    let (upstream, gate) = stream();
    let sidecar = caching(&upstream, "");
    let mut first = leader(&sidecar, &upstream, STREAM);
    first.through(b"hi").expect("a token");
    let mut others = followers(&sidecar, STREAM, 3);
    for other in &mut others {
        other.through(b"hi").expect("the token that had come");
    }
    gate.open();
    for caller in std::iter::once(&mut first).chain(&mut others) {
        caller.through(LAST_CHUNK.as_bytes()).expect("the whole stream");
    }
    drop((first, others));
    assert_eq!(upstream.requests().len(), 1);

    let records = sidecar.wait_records(4);
    assert_eq!(sources(&records), ["miss", "shared", "shared", "shared"]);
    records.iter().for_each(|record| assert_outcome(record, "completed", None));
    let (asked, shared) = (of(&records, "miss"), of(&records, "shared"));
    for key in [
        "gen_ai.usage.output_tokens",
        "tidegate.usage.source",
        "tidegate.cost_usd",
        "tidegate.attempts",
        "tidegate.time_to_first_token_s",
        "tidegate.token_chunks",
    ] {
        assert!(shared[key].is_null(), "{key}: {shared:#}");
    }
    assert_eq!(shared["tidegate.saved.input_tokens"], asked["gen_ai.usage.input_tokens"]);
    assert_eq!(shared["tidegate.saved.output_tokens"], 2);
    assert_eq!(shared["tidegate.saved.cost_usd"], asked["tidegate.cost_usd"]);
    assert!(asked["tidegate.cost_usd"].is_f64(), "{asked:#}");
    for key in ["gen_ai.response.finish_reasons", "tidegate.response.bytes", "gen_ai.provider.name"]
    {
        assert!(!shared[key].is_null() && shared[key] == asked[key], "{key}: {shared:#}");
    }
    assert_eq!(sidecar.metric("tidegate_tokens_total"), 5.0);
    assert_eq!(sidecar.metric("tidegate_cache_saved_tokens_total"), 15.0);
    // Whoever comes now gets it from memory.
    let again = sidecar.call(bare_post(CHAT, STREAM));
    assert_eq!(again.text(), whole_stream());
    assert!(again.header("x-tidegate-cache").is_some_and(|said| said.starts_with("hit")));
}

#[test]
fn an_answer_that_had_not_begun_is_waited_for_and_says_whose_it_is() {
    let (upstream, gate) = in_two_parts(String::new(), answer(COMPLETION));
    let sidecar = caching(&upstream, "");
    let mut first = leader(&sidecar, &upstream, SAME);
    let mut other = followers(&sidecar, SAME, 1).remove(0);
    // Who is somebody else asks for itself.
    let mut somebody = sidecar.connect();
    somebody.send(bare_post(CHAT, SAME).replacen("\r\n", "\r\nAuthorization: Bearer b\r\n", 1));
    wait_until("the upstream has that call too", || upstream.requests().len() == 2);
    gate.open();
    gate.open();
    let (reply, shared) = (first.response(), other.response());
    assert_eq!((reply.header("x-tidegate-cache"), reply.text().as_str()), (None, COMPLETION));
    assert_eq!(
        (shared.header("x-tidegate-cache"), shared.text().as_str()),
        (Some("shared"), COMPLETION)
    );
    assert_eq!(shared.header("content-length"), reply.header("content-length"));
    assert_eq!(somebody.response().header("x-tidegate-cache"), None);
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn others_get_all_of_an_answer_though_the_caller_that_it_was_asked_for_has_left() {
    for has_begun in [false, true] {
        let (upstream, gate) = match has_begun {
            true => stream(),
            false => {
                let pieces = [TOKEN, TOKEN, FINISH, USAGE, DONE].map(chunk).concat();
                in_two_parts(String::new(), format!("{STREAM_HEAD}{pieces}{LAST_CHUNK}"))
            }
        };
        let sidecar = caching(&upstream, "");
        let mut first = leader(&sidecar, &upstream, STREAM);
        if has_begun {
            first.through(b"hi").expect("a token");
        }
        let mut other = followers(&sidecar, STREAM, 1).remove(0);
        first.finish_writing();
        first.rest();
        gate.open();
        let shared = other.response();
        assert_eq!((shared.text(), shared.end), (whole_stream(), End::Clean), "{has_begun}");
        assert_eq!(upstream.requests().len(), 1);
        let records = sidecar.wait_records(2);
        let left = of(&records, "miss");
        assert_outcome(left, "abandoned", None);
        assert_eq!(left["gen_ai.usage.output_tokens"], 2, "it is what was billed");
        assert_eq!(left["tidegate.drain.end"], "whole");
        for key in ["tidegate.wasted.output_tokens", "tidegate.estimated.wasted_output_tokens"] {
            assert!(left[key].is_null(), "it was of use to another: {left:#}");
        }
        assert_eq!(of(&records, "shared")["tidegate.saved.output_tokens"], 2);
        // It is as good as if its caller had stayed.
        wait_until("it is kept", || sidecar.metric("tidegate_cache_entries") == 1.0);
    }
}

#[test]
fn a_call_ends_when_all_who_wait_for_it_have_left() {
    let (upstream, gate) = stream();
    let sidecar = caching(&upstream, "");
    let mut first = leader(&sidecar, &upstream, STREAM);
    first.through(b"hi").expect("a token");
    let mut others = followers(&sidecar, STREAM, 2);
    // It has left for certain before the others do: who leaves last waits for nobody.
    first.finish_writing();
    first.rest();
    for other in &mut others {
        other.through(b"hi").expect("a token");
    }
    drop(others);
    let records = sidecar.wait_records(3);
    gate.open();
    upstream.wait_closed();
    records.iter().for_each(|record| assert_outcome(record, "abandoned", None));
    assert_eq!(of(&records, "miss")["tidegate.drain.end"], "left");
}

#[test]
fn others_ask_for_themselves_where_the_first_gets_no_answer_that_they_may_have() {
    let asked = Arc::new(AtomicUsize::new(0));
    let gate = Gate::default();
    let (open, count) = (gate.clone(), asked.clone());
    let upstream = Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            let number = count.fetch_add(1, SeqCst);
            gate.pass();
            match number {
                0 => peer.wire.send(answer_with(503, "{}")),
                _ => peer.wire.send(answer(COMPLETION)),
            }
        }
    });
    let sidecar = caching(&upstream, "");
    let mut first = leader(&sidecar, &upstream, SAME);
    let mut others = followers(&sidecar, SAME, 3);
    open.open();
    assert_eq!(first.response().status(), 503);
    wait_until("another asks", || asked.load(SeqCst) == 2);
    wait_followers(&sidecar, 2);
    open.open();
    for other in &mut others {
        assert_eq!(other.response().text(), COMPLETION);
    }
    assert_eq!(asked.load(SeqCst), 2, "one of them asks, and the others wait for it");
}

#[test]
fn what_breaks_off_does_so_for_all_and_is_not_kept() {
    let gate = Gate::default();
    let open = gate.clone();
    let upstream = Upstream::new(move |mut peer| {
        peer.request();
        peer.wire.send(format!("{STREAM_HEAD}{}", chunk(TOKEN)));
        gate.pass();
        peer.close();
    });
    let sidecar = caching(&upstream, "");
    let mut first = leader(&sidecar, &upstream, STREAM);
    first.through(b"hi").expect("a token");
    let mut other = followers(&sidecar, STREAM, 1).remove(0);
    other.through(b"hi").expect("a token");
    open.open();
    for caller in [&mut first, &mut other] {
        let (rest, _) = caller.rest();
        assert!(!String::from_utf8_lossy(&rest).contains(LAST_CHUNK), "the end is not made up");
    }
    let records = sidecar.wait_records(2);
    for record in &records {
        assert_outcome(record, "truncated", Some("upstream"));
        assert_eq!(record["error.type"], "upstream_closed");
    }
    assert_eq!(sidecar.metric("tidegate_cache_entries"), 0.0);
}

#[test]
fn each_asks_for_itself_where_a_route_or_a_caller_says_so() {
    let (upstream, gate) = in_two_parts(String::new(), answer(COMPLETION));
    let sidecar = caching(&upstream, "single_flight: false");
    let mut callers: Vec<_> = (0..2).map(|_| leader(&sidecar, &upstream, SAME)).collect();
    gate.open();
    gate.open();
    callers.iter_mut().for_each(|caller| assert_eq!(caller.response().text(), COMPLETION));

    let (upstream, gate) = in_two_parts(String::new(), answer(COMPLETION));
    let sidecar = caching(&upstream, "");
    let mut first = leader(&sidecar, &upstream, SAME);
    let mut fresh = sidecar.connect();
    let wish = "\r\nCache-Control: no-cache\r\n";
    fresh.send(bare_post(CHAT, SAME).replacen("\r\n", wish, 1));
    wait_until("the upstream has both", || upstream.requests().len() == 2);
    gate.open();
    gate.open();
    assert_eq!(first.response().text(), COMPLETION);
    assert_eq!(fresh.response().text(), COMPLETION);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_by_http2_may_leave_and_a_follower_by_http2_gets_it_as_it_comes() {
    let (upstream, gate) = stream();
    let sidecar = caching(&upstream, "");
    let mut caller = http2_caller(sidecar.address).await;
    let reply = caller.send_request(http2_post(CHAT, full(STREAM))).await.expect("an answer");
    let mut body = reply.into_body();
    body.frame().await.expect("a piece").expect("of payload");
    let mut other = http2_caller(sidecar.address).await;
    let shared = other.send_request(http2_post(CHAT, full(STREAM))).await.expect("an answer");
    assert_eq!(shared.headers()["x-tidegate-cache"], "shared");
    drop((body, caller));
    tokio::task::block_in_place(|| {
        // Its leader has been told to go on, or would have ended the call.
        wait_until("the first has left", || sidecar.metric("tidegate_calls_in_flight") == 2.0);
    });
    gate.open();
    assert_eq!(whole(shared.into_body()).await.expect("the whole of it"), whole_stream());
    tokio::task::block_in_place(|| {
        assert_eq!(upstream.requests().len(), 1);
        assert_eq!(sources(&sidecar.wait_records(2)), ["miss", "shared"]);
    });
}
