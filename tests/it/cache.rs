//! Answers that are kept, and given to equal calls of the same caller.

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::support::*;

const CHAT: &str = "/v1/chat/completions";
/// A call that asks for the same answer each time.
const SAME: &str =
    r#"{"model":"gpt-4o","temperature":0,"messages":[{"role":"user","content":"hi"}]}"#;
const SAME_STREAM: &str = r#"{"model":"gpt-4o","temperature":0,"stream":true}"#;
/// What a stream says of its usage.
const USAGE: &str = "data: {\"id\":\"c1\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n";

fn config(upstream: &Upstream, cache: &str, rest: &str) -> String {
    let url = upstream.url();
    format!(
        "upstreams: {{ a: {{ url: '{url}', provider: openai }} }}\nroutes: [{{ upstream: a, cache: {{ {cache} }} }}]\n{rest}"
    )
}

/// A sidecar before this upstream, whose only route has a cache.
fn caching(upstream: &Upstream, cache: &str) -> Sidecar {
    Launch::new().config(&config(upstream, cache, "")).start()
}

/// A call of this body without any credential.
fn plain(body: &str) -> String {
    bare_post(CHAT, body)
}

/// A request with these lines more.
fn with(request: &str, lines: &str) -> String {
    request.replacen("\r\n", &format!("\r\n{lines}\r\n"), 1)
}

/// What an answer says of the cache, without its age.
fn said(reply: &Message) -> Option<&str> {
    reply.header("x-tidegate-cache").map(|said| said.split(';').next().expect("a word"))
}

/// Waits until so many answers are kept: that is later than the end of an answer.
fn wait_kept(sidecar: &Sidecar, count: usize) {
    let count = count as f64;
    wait_until("answers are kept", || sidecar.metric("tidegate_cache_entries") >= count);
}

/// The call, whose answer is the only one that is kept.
fn hit(sidecar: &Sidecar, request: &str) -> Message {
    wait_kept(sidecar, 1);
    let reply = sidecar.call(request);
    assert_eq!(said(&reply), Some("hit"), "{request}");
    reply
}

/// A stream in pieces, each of which is sent by itself.
fn streamed(pieces: &[&str]) -> Vec<u8> {
    let chunks: String = pieces.iter().map(|piece| chunk(piece)).collect();
    format!("{STREAM_HEAD}{chunks}{LAST_CHUNK}").into_bytes()
}

fn sources(records: &[Value]) -> Vec<&str> {
    records.iter().filter_map(|record| record["tidegate.cache"].as_str()).collect()
}

#[test]
fn an_equal_call_gets_the_answer_again_and_no_upstream_hears_of_it() {
    let head = "HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nX-Request-Id: r1\r\nSet-Cookie: a=b\r\nX-RateLimit-Limit-Requests: 5\r\nOpenAI-Version: 2020-10-01\r\nContent-Type: application/json";
    let full = format!("{head}\r\nContent-Length: {}\r\n\r\n{COMPLETION}", COMPLETION.len());
    let upstream = Upstream::answering(full);
    let sidecar = caching(&upstream, "");
    let first = sidecar.call(post(CHAT, SAME));
    assert_eq!((first.text().as_str(), said(&first)), (COMPLETION, None));
    assert_eq!(first.header("x-request-id"), Some("r1"), "it came as the upstream gave it");

    let otherwise = r#" { "messages" : [ {"content":"hi", "role":"user"} ], "temperature" : 0,
        "model":"gpt-4o" } "#;
    let again = hit(&sidecar, &post(CHAT, otherwise));
    assert_eq!((again.status(), again.text().as_str()), (200, COMPLETION));
    assert_eq!(again.header("content-type"), Some("application/json"));
    assert_eq!(again.header("openai-version"), Some("2020-10-01"));
    let age: u64 = again.header("age").expect("an age").parse().expect("seconds");
    assert_eq!(again.header("x-tidegate-cache"), Some(format!("hit; age={age}").as_str()));
    for name in ["date", "x-request-id", "set-cookie", "x-ratelimit-limit-requests"] {
        assert_eq!(again.header(name), None, "{name}");
    }
    // The connection goes on behind it.
    let mut caller = sidecar.connect();
    for _ in 0..3 {
        assert_eq!(said(&caller.call(post(CHAT, SAME))), Some("hit"));
    }
    drop(caller);
    assert_eq!(upstream.requests().len(), 1);

    let records = sidecar.wait_records(5);
    assert_eq!(sources(&records)[..2], ["miss", "hit"]);
    let hit = &records[1];
    assert_outcome(hit, "completed", None);
    for key in [
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "tidegate.usage.source",
        "tidegate.cost_usd",
        "tidegate.attempts",
    ] {
        assert!(hit[key].is_null(), "{key}: {hit:#}");
    }
    assert_eq!(
        (&hit["tidegate.saved.input_tokens"], &hit["tidegate.saved.output_tokens"]),
        (&3.into(), &1.into())
    );
    assert_eq!(hit["tidegate.saved.cost_usd"], records[0]["tidegate.cost_usd"]);
    assert!(hit["tidegate.saved.cost_usd"].is_f64() && hit["tidegate.cache.age_s"].is_f64());
    assert_eq!(
        (&hit["gen_ai.response.model"], &hit["gen_ai.request.model"]),
        (&"gpt-4o".into(), &"gpt-4o".into())
    );
    assert_eq!(hit["gen_ai.response.finish_reasons"][0], "stop");
    assert_eq!(hit["tidegate.response.bytes"], COMPLETION.len());
    assert_eq!(hit["tidegate.request.bytes"], otherwise.len());

    assert_eq!(sidecar.metric("tidegate_tokens_total"), 4.0);
    assert_eq!(sidecar.metric("tidegate_usage_absent_total"), 0.0);
    assert_eq!(sidecar.metric("tidegate_unpriced_calls_total"), 0.0);
    assert_eq!(sidecar.metric("tidegate_cache_saved_tokens_total"), 16.0);
    assert_eq!(sidecar.metric("tidegate_cache_entries"), 1.0);
    let metrics = sidecar.ask("/metrics").text();
    for line in [
        r#"tidegate_cache_calls_total{model="gpt-4o",route="a",upstream="a",cache="hit"} 4"#,
        r#"tidegate_cache_calls_total{model="gpt-4o",route="a",upstream="a",cache="miss"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    let policies = sidecar.ask("/policies").json();
    assert_eq!(policies["cache"]["memory"]["entries"], 1);
}

#[test]
fn a_stream_comes_again_as_a_stream_piece_by_piece() {
    let pieces = [TOKEN, TOKEN, FINISH, USAGE, DONE];
    let upstream = Upstream::answering(streamed(&pieces));
    let sidecar = caching(&upstream, "");
    let request = post(CHAT, SAME_STREAM);
    assert_eq!(sidecar.call(&request).text(), pieces.concat());
    let again = hit(&sidecar, &request);
    assert_eq!((again.text(), again.end), (pieces.concat(), End::Clean));
    assert_eq!(again.header("transfer-encoding"), Some("chunked"));
    assert_eq!(again.header("content-type"), Some("text/event-stream"));
    // One answer is no stream, whatever else is equal.
    let whole = SAME_STREAM.replace("true", "false");
    assert_eq!(said(&sidecar.call(post(CHAT, &whole))), None);

    // Before HTTP/1.1 nobody knew chunks.
    let old = request.replacen("HTTP/1.1", "HTTP/1.0", 1);
    let again = sidecar.call(old);
    assert_eq!((said(&again), again.text()), (Some("hit"), pieces.concat()));
    let records = sidecar.finish();
    let hit = records.iter().find(|record| record["tidegate.cache"] == "hit").expect("a hit");
    assert_eq!(hit["gen_ai.request.stream"], true);
    for key in
        ["tidegate.time_to_first_token_s", "tidegate.token_chunks", "gen_ai.usage.output_tokens"]
    {
        assert!(hit[key].is_null(), "what was replayed says nothing of a model: {hit:#}");
    }
    assert_eq!(hit["tidegate.saved.output_tokens"], 2);
}

#[test]
fn a_stream_comes_again_event_by_event_at_the_pace_that_is_set() {
    let pieces = [&format!("{TOKEN}{TOKEN}"), FINISH, USAGE, DONE];
    let upstream = Upstream::answering(streamed(&pieces));
    let sidecar = caching(&upstream, "pace: 50ms");
    let request = post(CHAT, SAME_STREAM);
    sidecar.call(&request);
    wait_kept(&sidecar, 1);
    let start = Instant::now();
    let again = hit(&sidecar, &request);
    assert_eq!((again.text(), again.end), (pieces.concat(), End::Clean));
    // Five events with four times between them.
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    let mut caller = sidecar.connect();
    caller.send(&request);
    let first = caller.through(TOKEN.as_bytes()).expect("an event");
    assert!(!String::from_utf8_lossy(&first).contains("stop"), "no event comes with another");
}

#[test]
fn an_encoded_answer_comes_again_as_it_was_encoded_and_to_whom_can_read_it() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all([TOKEN, FINISH, DONE].concat().as_bytes()).expect("memory");
    let encoded = encoder.finish().expect("memory");
    let (front, back) = encoded.split_at(20);
    let head =
        STREAM_HEAD.replacen("\r\n", "\r\nContent-Encoding: gzip\r\nVary: Accept-Encoding\r\n", 1);
    let framed =
        |piece: &[u8]| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
    let answer = [head.as_bytes(), &framed(front), &framed(back), LAST_CHUNK.as_bytes()].concat();
    let upstream = Upstream::answering(answer);
    let sidecar = caching(&upstream, "");
    let request = with(&plain(SAME_STREAM), "Accept-Encoding: gzip");
    assert_eq!(sidecar.call(&request).body, encoded);
    let again = hit(&sidecar, &request);
    assert_eq!((again.body, upstream.requests().len()), (encoded, 1));
    assert_eq!(said(&sidecar.call(plain(SAME_STREAM))), None, "nobody knows whether it reads gzip");
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_by_http2_and_http1_share_what_one_of_them_was_told() {
    let pieces = [TOKEN, FINISH, USAGE, DONE];
    let upstream = Upstream::answering(streamed(&pieces));
    let sidecar = caching(&upstream, "");
    let mut caller = http2_caller(sidecar.address).await;
    for number in 0..3 {
        let request = http2_post(CHAT, full(SAME_STREAM));
        let reply = caller.send_request(request).await.expect("an answer");
        assert_eq!(reply.headers().contains_key("x-tidegate-cache"), number > 0);
        assert_eq!(whole(reply.into_body()).await.expect("the whole of it"), pieces.concat());
        tokio::task::block_in_place(|| wait_kept(&sidecar, 1));
    }
    drop(caller);
    tokio::task::block_in_place(|| {
        assert_eq!(hit(&sidecar, &post(CHAT, SAME_STREAM)).text(), pieces.concat());
        assert_eq!(upstream.requests().len(), 1);
        let records = sidecar.finish();
        assert_eq!(sources(&records), ["miss", "hit", "hit", "hit"]);
        records.iter().for_each(|record| assert_outcome(record, "completed", None));
    });
}

#[test]
fn nobody_gets_what_another_was_told() {
    let count = Arc::new(AtomicUsize::new(0));
    let told = count.clone();
    let upstream = Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            let number = told.fetch_add(1, SeqCst);
            peer.wire.send(answer(&COMPLETION.replace("\"hi\"", &format!("\"{number}\""))));
        }
    });
    let sidecar = caching(&upstream, "");
    let callers: Vec<_> = [
        "Authorization: Bearer a",
        "Authorization: Bearer b",
        "X-Api-Key: Bearer a",
        "X-Goog-Api-Key: a",
        "Cookie: session=a",
        "X-Gateway-Key: a",
        "OpenAI-Organization: a",
        "X-Nothing: a",
    ]
    .map(|line| with(&plain(SAME), line))
    .into();
    let by_query = plain(SAME).replacen(CHAT, &format!("{CHAT}?key=a"), 1);
    let callers = [callers, vec![plain(SAME), by_query]].concat();
    let first: Vec<_> = callers.iter().map(|request| sidecar.call(request).text()).collect();
    assert_eq!(upstream.requests().len(), callers.len());
    wait_kept(&sidecar, callers.len());
    for (request, first) in callers.iter().zip(first) {
        assert_eq!(hit(&sidecar, request).text(), first, "{request}");
    }
}

/// What a caller that has proven its name by this key sends, with another credential beside.
fn proven(credential: &str, body: &str) -> String {
    let lines = format!("X-Api-Key: key-of-batch-9a8b7c\r\nAuthorization: Bearer {credential}");
    with(&plain(body), &lines)
}

/// The only known caller; its key is that of [`proven`].
const CALLERS: &str = "callers: { known: { batch: { keys: [\"sha256:a568eba02d6b66b4bfdd4133944f4118f89e9219c41b018c7b63af78aff5b62c\"] } } }\n";

#[test]
fn a_name_that_is_proven_opens_no_answer_to_a_credential_that_the_upstream_would_refuse() {
    let upstream = Upstream::new(|mut peer| {
        while let Some(request) = peer.request() {
            let is_good = request.header("authorization") == Some("Bearer good");
            let refused = answer_with(401, "{}");
            peer.wire.send(if is_good { answer(COMPLETION) } else { refused });
        }
    });
    let rest = format!("{CALLERS}cache: {{ memory: 1MiB }}\n");
    let sidecar = Launch::new().config(&config(&upstream, "alike: {}", &rest)).start();
    assert_eq!(sidecar.call(proven("good", SAME)).status(), 200);
    hit(&sidecar, &proven("good", SAME));
    let spaced = SAME.replace("\"hi\"", "\" hi \"");
    for body in [SAME, &spaced] {
        let reply = sidecar.call(proven("invented", body));
        assert_eq!((reply.status(), said(&reply)), (401, None), "{body}");
    }
    assert_eq!(said(&sidecar.call(proven("good", &spaced))), Some("normalised"));
    let records = sidecar.finish();
    assert!(records.iter().all(|record| record["tidegate.caller"] == "batch"), "{records:#?}");
}

#[test]
fn a_call_under_way_is_not_shared_with_another_credential_of_the_same_caller() {
    let (upstream, gate) = gated(answer(COMPLETION));
    let sidecar = Launch::new().config(&config(&upstream, "", CALLERS)).start();
    let mut callers: Vec<_> = ["good", "invented", "good"]
        .map(|credential| {
            let mut caller = sidecar.connect();
            caller.send(proven(credential, SAME));
            caller
        })
        .into();
    wait_until("two are asked", || upstream.requests().len() == 2);
    let followers = || sidecar.ask("/policies").json()["cache"]["under_way"]["followers"].clone();
    wait_until("and one waits", || followers() == 1);
    (0..2).for_each(|_| gate.open());
    for caller in &mut callers {
        assert_eq!(caller.response().status(), 200);
    }
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn where_callers_credentials_end_here_a_name_that_is_proven_is_all_that_counts() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let text = config(&upstream, "", CALLERS)
        .replace("provider: openai", "provider: openai, credential: { bearer: { env: SOME_KEY } }");
    let sidecar = Launch::new().config(&text).env("SOME_KEY", "ours").start();
    sidecar.call(proven("one", SAME));
    hit(&sidecar, &proven("another", SAME));
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn what_a_caller_signed_is_only_for_the_upstream_to_answer() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let sidecar = caching(&upstream, "");
    let signed = "Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature=00";
    for _ in 0..3 {
        assert_eq!(said(&sidecar.call(with(&plain(SAME), signed))), None);
    }
    let records = sidecar.finish();
    assert!(
        records.iter().all(|record| record["tidegate.cache.reason"] == "signed_by_caller"),
        "{records:#?}"
    );
}

/// Makes a call twice, and says what the metrics and records give as the reason that it was not kept.
#[track_caller]
fn assert_not_kept(cache: &str, request: &str, answer: impl Into<Vec<u8>>, reason: &str) {
    let upstream = Upstream::answering(answer);
    let sidecar = caching(&upstream, cache);
    for _ in 0..2 {
        assert_eq!(said(&sidecar.call(request)), None, "{reason}");
    }
    let counted = format!(r#"tidegate_cache_not_stored_total{{route="a",reason="{reason}"}} 2"#);
    wait_until(&format!("{reason} is counted"), || {
        sidecar.ask("/metrics").text().contains(&counted)
    });
    assert_eq!((upstream.requests().len(), sidecar.metric("tidegate_cache_entries")), (2, 0.0));
}

#[test]
fn what_asks_for_no_answer_that_could_be_given_again_is_passed_on() {
    let good = || answer(COMPLETION);
    let same = |more: &str| SAME.replacen('{', &format!("{{{more},"), 1);
    let embeddings = |body: &str| bare_post("/v1/embeddings", body);
    for (request, reason) in [
        (plain(r#"{"model":"gpt-4o"}"#), "not_deterministic"),
        (plain(r#"{"model":"gpt-4o","temperature":0.1}"#), "not_deterministic"),
        (plain(&same(r#""store":true"#)), "stateful"),
        (plain(&same(r#""background":true"#)), "stateful"),
        (plain(&same(r#""previous_response_id":"r""#)), "stateful"),
        (bare_post("/v1/responses", SAME), "stateful"),
        (plain(&same(r#""model":"m""#)), "duplicate_key"),
        (plain(&same(&format!(r#""x":{}{}"#, "[".repeat(100), "]".repeat(100)))), "too_complex"),
        (embeddings("[]"), "not_json"),
        (embeddings(r#"{"input":"a""#), "not_json"),
        (with(&plain(SAME), "Content-Encoding: gzip"), "encoded"),
        (with(&plain(SAME), "Range: bytes=0-5"), "range"),
        (with(&plain(SAME), "Cache-Control: no-store"), "no_store"),
        (
            bare_post(
                "/v1/chat",
                r#"{"model":"command-r","temperature":0,"message":"hi","conversation_id":"c"}"#,
            ),
            "stateful",
        ),
        (plain(SAME).replacen(CHAT, "/v1/files", 1), "operation"),
        (plain(SAME).replacen(CHAT, "/v1/videos", 1), "operation"),
        (plain(SAME).replacen("POST", "PUT", 1), "operation"),
    ] {
        assert_not_kept("", &request, good(), reason);
    }
}

#[test]
fn what_could_not_be_told_from_a_bad_answer_is_not_kept() {
    let finish = |reason: &str| COMPLETION.replace("\"stop\"", reason);
    let tool = r#"{"choices":[{"message":{"tool_calls":[{"id":"t"}]},"finish_reason":"stop"}]}"#;
    let head = |line: &str| answer(COMPLETION).replacen("\r\n", &format!("\r\n{line}\r\n"), 1);
    let in_band = streamed(&[TOKEN, "data: {\"error\":{\"type\":\"server_error\"}}\n\n", DONE]);
    let request = plain(SAME);
    for (request, answer, reason) in [
        (&request, answer_with(500, "{}").into_bytes(), "status"),
        (&request, answer_with(404, "{}").into_bytes(), "status"),
        (&request, answer_with(202, COMPLETION).into_bytes(), "status"),
        (&request, answer(&finish("\"content_filter\"")).into_bytes(), "finish_reason"),
        (&request, answer(&finish("\"who knows\"")).into_bytes(), "finish_reason"),
        (&request, answer(&finish("\"length\"")).into_bytes(), "cut_off"),
        (&request, answer(&finish("\"tool_calls\"")).into_bytes(), "tool_call"),
        (&request, answer(tool).into_bytes(), "tool_call"),
        (&request, answer(&finish("null")).into_bytes(), "not_understood"),
        (&request, answer("hello").into_bytes(), "not_understood"),
        (&request, head("Vary: X-Whatever, Accept").into_bytes(), "vary_"),
        (&request, head("Vary: *").into_bytes(), "vary"),
        (&request, head("Vary: accept, User-Agent").into_bytes(), "vary"),
        (&request, head("Cache-Control: private, no-store").into_bytes(), "upstream_no_store"),
        (&plain(SAME_STREAM), in_band, "incomplete"),
        (&plain(SAME_STREAM), streamed(&[TOKEN]), "incomplete"),
    ] {
        if reason == "vary_" {
            // What is compared in any case may make a difference.
            let upstream = Upstream::answering(answer);
            let sidecar = caching(&upstream, "");
            sidecar.call(request);
            hit(&sidecar, request);
            continue;
        }
        assert_not_kept("", request, answer, reason);
    }
    assert_not_kept(
        "entry: 200B",
        &plain(SAME),
        answer(&format!("{COMPLETION}{}", " ".repeat(200))),
        "answer_too_large",
    );
    let long = [TOKEN; 20].concat();
    assert_not_kept(
        "entry: 200B",
        &plain(SAME_STREAM),
        streamed(&[&long, FINISH, DONE]),
        "answer_too_large",
    );
}

#[test]
fn what_a_route_allows_is_kept() {
    let finish = |reason: &str| answer(&COMPLETION.replace("\"stop\"", reason)).into_bytes();
    let tool =
        answer(r#"{"choices":[{"message":{"tool_calls":[{"id":"t"}]},"finish_reason":"stop"}]}"#);
    let embedding = answer(r#"{"data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":5}}"#);
    for (cache, request, answer) in [
        ("allow: all", plain(r#"{"model":"gpt-4o"}"#), answer(COMPLETION).into_bytes()),
        ("cut_off: true", plain(SAME), finish("\"length\"")),
        ("tool_calls: true", plain(SAME), finish("\"tool_calls\"")),
        ("tool_calls: true", plain(SAME), tool.into_bytes()),
        ("", plain(r#"{"model":"gpt-4o","seed":7}"#), answer(COMPLETION).into_bytes()),
        ("", bare_post("/v1/embeddings", r#"{"input":"a"}"#), embedding.into_bytes()),
        (
            "",
            bare_post("/v1/responses", &SAME.replacen('{', r#"{"store":false,"#, 1)),
            answer(r#"{"status":"completed"}"#).into_bytes(),
        ),
    ] {
        let upstream = Upstream::answering(answer);
        let sidecar = caching(&upstream, cache);
        sidecar.call(&request);
        hit(&sidecar, &request);
    }
}

#[test]
fn an_answer_that_breaks_off_or_whose_caller_leaves_is_not_kept() {
    let gate = Gate::default();
    let open = gate.clone();
    let upstream = Upstream::new(move |mut peer| {
        peer.request();
        peer.wire.send(format!("{STREAM_HEAD}{}{}", chunk(TOKEN), chunk(FINISH)));
        gate.pass();
        peer.close();
    });
    let sidecar = caching(&upstream, "");
    open.open();
    let reply = sidecar.call(plain(SAME_STREAM));
    assert_ne!(reply.end, End::Clean);
    // A caller that leaves in the middle.
    let mut caller = sidecar.connect();
    caller.send(plain(SAME_STREAM));
    caller.through(b"hi").expect("a token");
    drop(caller);
    let records = sidecar.wait_records(2);
    open.open();
    assert_outcome(&records[0], "truncated", Some("upstream"));
    assert_outcome(&records[1], "abandoned", None);
    assert_eq!(sidecar.metric("tidegate_cache_entries"), 0.0);
    assert_eq!(sources(&records), ["miss", "miss"]);
}

#[test]
fn a_caller_may_say_what_it_takes() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let sidecar = caching(&upstream, "");
    let wanting = |wish: &str| with(&plain(SAME), &format!("Cache-Control: {wish}"));
    let refused = sidecar.call(wanting("only-if-cached"));
    assert_eq!((refused.status(), refused.header("x-tidegate-error")), (504, Some("not_cached")));
    assert_eq!(refused.json()["error"]["code"], "not_cached");
    assert_eq!(upstream.requests().len(), 0);
    let anthropic = bare_post("/v1/messages", r#"{"model":"m","temperature":0}"#);
    let refused = sidecar.call(with(&anthropic, "Cache-Control: only-if-cached"));
    assert_eq!(refused.json()["error"]["type"], "not_cached");

    sidecar.call(plain(SAME));
    hit(&sidecar, &plain(SAME));
    let asked = upstream.requests().len();
    assert_eq!(said(&sidecar.call(wanting("only-if-cached"))), Some("hit"));
    assert_eq!(said(&sidecar.call(wanting("max-age=3600"))), Some("hit"));
    assert_eq!(said(&sidecar.call(wanting("no-store"))), None);
    assert_eq!(said(&sidecar.call(wanting("max-age=0"))), None);
    assert_eq!(said(&sidecar.call(wanting("no-cache"))), None);
    assert_eq!(said(&sidecar.call(with(&plain(SAME), "Pragma: no-cache"))), None);
    assert_eq!(upstream.requests().len(), asked + 4);
    let records = sidecar.finish();
    assert_outcome(&records[0], "refused", Some("client"));
}

#[test]
fn an_old_answer_is_given_where_the_upstream_fails() {
    let count = Arc::new(AtomicUsize::new(0));
    let asked = count.clone();
    let upstream = Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            match asked.fetch_add(1, SeqCst) {
                0 => peer.wire.send(answer(COMPLETION)),
                1 => peer.wire.send(answer_with(400, "{}")),
                number if number % 2 == 0 => peer.wire.send(answer_with(503, "{}")),
                _ => return,
            }
        }
    });
    let sidecar = caching(&upstream, "ttl: 1ns, stale_if_error: 1h");
    assert_eq!(said(&sidecar.call(plain(SAME))), None);
    wait_kept(&sidecar, 1);
    let own_fault = sidecar.call(plain(SAME));
    assert_eq!((own_fault.status(), said(&own_fault)), (400, None), "a caller's own mistake");
    for _ in 0..2 {
        let stale = sidecar.call(plain(SAME));
        assert_eq!(
            (stale.status(), said(&stale), stale.text().as_str()),
            (200, Some("stale"), COMPLETION)
        );
    }
    let records = sidecar.finish();
    assert_eq!(sources(&records), ["miss", "miss", "stale", "stale"]);
    let stale = &records[2];
    assert_outcome(stale, "completed", None);
    assert_eq!(
        (&stale["tidegate.attempts"], &stale["tidegate.saved.input_tokens"]),
        (&1.into(), &3.into())
    );
    assert!(
        stale["error.type"].is_null() && stale["gen_ai.usage.input_tokens"].is_null(),
        "{stale:#}"
    );
}

#[test]
fn a_reload_keeps_what_is_kept_where_nothing_has_changed() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let sidecar = caching(&upstream, "");
    sidecar.call(plain(SAME));
    hit(&sidecar, &plain(SAME));
    let mut reloads = 0.0;
    let mut reload = |text: &str| {
        fs::write(sidecar.file("next.yaml"), text).expect("a folder to write to");
        fs::rename(sidecar.file("next.yaml"), sidecar.file("tidegate.yaml")).expect("likewise");
        sidecar.signal("HUP");
        reloads += 1.0;
        wait_until("it is read", || sidecar.metric("tidegate_config_reloads_total") >= reloads);
    };
    reload(&config(&upstream, "", "timeouts: { idle: 7s }"));
    assert_eq!(said(&sidecar.call(plain(SAME))), Some("hit"));
    // Another upstream may answer otherwise.
    let other = Upstream::answering(answer(&COMPLETION.replace("\"hi\"", "\"ho\"")));
    reload(&config(&other, "", ""));
    assert_eq!(said(&sidecar.call(plain(SAME))), None);
    wait_kept(&sidecar, 2);
    assert!(hit(&sidecar, &plain(SAME)).text().contains("\"ho\""));
    reload(&config(&other, "", "bypass: true"));
    assert_eq!(said(&sidecar.call(plain(SAME))), None);
    // What was kept is there still.
    reload(&config(&upstream, "", ""));
    assert_eq!(said(&sidecar.call(plain(SAME))), Some("hit"));
    reload(&config(&upstream, "", "cache: { memory: 2MiB }"));
    assert_eq!(said(&sidecar.call(plain(SAME))), None);
}

#[test]
fn memory_has_a_bound_and_what_leaves_it_is_counted() {
    let body = COMPLETION.replace("\"hi\"", &format!("\"{}\"", "x".repeat(10_000)));
    let upstream = Upstream::answering(answer(&body));
    let rest = "cache: { memory: 100KiB }";
    let sidecar = Launch::new().config(&config(&upstream, "entry: 50KiB", rest)).start();
    let mut caller = sidecar.connect();
    for number in 0..50 {
        let request = SAME.replace("\"hi\"", &format!("\"{number}\""));
        assert_eq!(said(&caller.call(plain(&request))), None);
        assert!(sidecar.metric("tidegate_cache_memory_bytes") <= f64::from(100 << 10));
    }
    drop(caller);
    let records = sidecar.wait_records(50);
    assert!(sources(&records).iter().all(|source| *source == "miss"));
    let kept = sidecar.metric("tidegate_cache_entries");
    assert!((1.0..10.0).contains(&kept), "{kept}");
    let metrics = sidecar.ask("/metrics").text();
    assert!(metrics.contains(r#"tidegate_cache_evictions_total{reason="size"}"#), "{metrics}");
}
