//! Streams that are asked for their usage: the upstream hears it, the record has it, and the caller
//! gets what it would have got.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::BodyExt;

use crate::support::*;

/// The chunk that comes for the question.
const USAGE: &str = "data: {\"id\":\"c1\",\"model\":\"gpt-4o\",\"choices\":[],\"usage\":{\"prompt_tokens\":1000000,\"completion_tokens\":2,\"total_tokens\":1000002}}\n\n";
/// The question, where it stands in the body of a stream call.
const ASKING: &str = r#"{"stream_options":{"include_usage":true},"model":"gpt-4o","stream":true}"#;

/// A sidecar before this upstream, on whose only route usage is asked for.
fn adding(upstream: &Upstream) -> Sidecar {
    adding_with(upstream, "")
}

fn adding_with(upstream: &Upstream, rest: &str) -> Sidecar {
    let url = upstream.url();
    let config = format!(
        "upstreams: {{ a: {{ url: '{url}' }} }}\nroutes: [{{ upstream: a, include_usage: add }}]\n{rest}"
    );
    Launch::new().config(&config).start()
}

/// Answers each request with this stream, written in these pieces, if it was asked for usage.
fn streaming(pieces: Vec<String>) -> Upstream {
    Upstream::new(move |mut peer| {
        while let Some(request) = peer.request() {
            assert!(request.text().contains("\"include_usage\":true"), "{}", request.text());
            pieces.iter().for_each(|piece| peer.wire.send(piece));
        }
    })
}

#[test]
fn a_stream_is_asked_for_its_usage_and_its_caller_sees_none_of_it() {
    let stream = [TOKEN, FINISH, USAGE, DONE].concat();
    let upstream = streaming(vec![STREAM_HEAD.to_owned(), chunk(&stream), LAST_CHUNK.to_owned()]);
    let sidecar = adding(&upstream);
    let mut caller = sidecar.connect();
    for _ in 0..2 {
        let request = stream_call().replacen("\r\n", "\r\nAccept-Encoding: gzip, br\r\n", 1);
        let reply = caller.call(request);
        assert_eq!((reply.status(), reply.end), (200, End::Clean));
        assert_eq!(reply.text(), [TOKEN, FINISH, DONE].concat());
        assert_eq!(reply.header("x-tidegate-include-usage"), Some("added"));
    }
    for request in upstream.requests() {
        assert_eq!(request.text(), ASKING);
        assert_eq!(request.header("content-length"), Some(&*ASKING.len().to_string()));
        assert_eq!(request.header("accept-encoding"), Some("identity"));
    }
    drop(caller);
    assert_eq!(upstream.connections(), 1, "connections are used again");
    sidecar.wait_records(2);
    assert_eq!(sidecar.metric("tidegate_usage_absent_total"), 0.0);
    let records = sidecar.finish();
    assert_eq!(records.len(), 2);
    for record in records {
        assert_outcome(&record, "completed", None);
        assert_eq!(record["gen_ai.usage.input_tokens"], 1_000_000);
        assert_eq!(record["gen_ai.usage.output_tokens"], 2);
        assert_eq!(record["gen_ai.request.model"], "gpt-4o");
        assert_eq!(record["gen_ai.request.stream"], true);
        assert_eq!(record["tidegate.request.bytes"], ASKING.len());
        assert_eq!(record["tidegate.response.bytes"], stream.len());
        assert!(record["tidegate.warnings"].is_null(), "{record:#}");
    }
}

#[test]
fn the_stream_is_the_same_wherever_it_is_cut() {
    let stream = [TOKEN, FINISH, USAGE, DONE].concat();
    let upstream = Upstream::new(move |mut peer| {
        let mut at = 0;
        while peer.request().is_some() {
            let (front, back) = stream.split_at(at % stream.len());
            at += 1;
            peer.wire.send(STREAM_HEAD);
            for piece in [front, back].into_iter().filter(|piece| !piece.is_empty()) {
                peer.wire.send(chunk(piece));
            }
            peer.wire.send(LAST_CHUNK);
        }
    });
    let length = [TOKEN, FINISH, USAGE, DONE].concat().len();
    let sidecar = adding(&upstream);
    let mut caller = sidecar.connect();
    for at in 0..length {
        let reply = caller.call(stream_call());
        assert_eq!(reply.text(), [TOKEN, FINISH, DONE].concat(), "cut at {at}");
    }
    drop(caller);
    let records = sidecar.finish();
    assert_eq!(records.len(), length);
    records.iter().for_each(|record| assert_eq!(record["gen_ai.usage.output_tokens"], 2));
}

#[test]
fn tokens_are_not_held_for_what_follows() {
    let gate = Gate::default();
    let open = gate.clone();
    let upstream = Upstream::new(move |mut peer| {
        peer.request();
        peer.wire.send(format!("{STREAM_HEAD}{}", chunk(TOKEN)));
        gate.pass();
        peer.wire.send(format!("{}{}{LAST_CHUNK}", chunk(USAGE), chunk(DONE)));
        peer.closed();
    });
    let sidecar = adding(&upstream);
    let mut caller = sidecar.connect();
    caller.send(stream_call());
    caller.through(b"hi").expect("a token");
    open.open();
    let rest = caller.through(LAST_CHUNK.as_bytes()).expect("the end");
    assert!(!String::from_utf8_lossy(&rest).contains("usage"));
    drop(caller);
    assert_outcome(&sidecar.finish_with_one(), "completed", None);
}

#[test]
fn a_body_in_chunks_or_of_a_caller_that_waits_is_asked_too() {
    let stream = [TOKEN, FINISH, USAGE, DONE].concat();
    let upstream = streaming(vec![STREAM_HEAD.to_owned(), chunk(&stream), LAST_CHUNK.to_owned()]);
    let sidecar = adding(&upstream);
    let body = r#"{"model":"gpt-4o","stream":true}"#;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n";

    let (front, back) = body.split_at(9);
    let mut caller = sidecar.connect();
    caller.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunk(front)));
    caller.send(format!("{}{LAST_CHUNK}", chunk(back)));
    assert_eq!(caller.response().text(), [TOKEN, FINISH, DONE].concat());

    caller.send(format!("{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len()));
    assert_eq!(caller.head().expect("an interim head").status(), 100);
    caller.send(body);
    assert_eq!(caller.response().text(), [TOKEN, FINISH, DONE].concat());
    drop(caller);

    for request in upstream.requests() {
        assert_eq!((request.text().as_str(), request.header("transfer-encoding")), (ASKING, None));
        assert_eq!(request.header("expect"), None);
    }
    assert_eq!(sidecar.finish().len(), 2);
}

#[test]
fn answers_of_any_framing_are_filtered() {
    let stream = [TOKEN, FINISH, USAGE, DONE].concat();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n";
    for (framing, closes) in
        [(format!("Content-Length: {}\r\n", stream.len()), false), (String::new(), true)]
    {
        let answer = format!("{head}{framing}\r\n{stream}");
        let upstream = Upstream::new(move |mut peer| {
            while peer.request().is_some() {
                peer.wire.send(&answer);
                if closes {
                    return;
                }
            }
        });
        let sidecar = adding(&upstream);
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            let reply = sidecar.call(stream_call().replace("HTTP/1.1", version));
            assert_eq!(reply.text(), [TOKEN, FINISH, DONE].concat(), "{framing} {version}");
            assert_eq!(reply.header("content-length"), None);
        }
        let records = sidecar.finish();
        records.iter().for_each(|record| assert_outcome(record, "completed", None));
    }
}

#[test]
fn what_is_no_stream_or_says_something_itself_passes_as_it_came() {
    let stream = [TOKEN, FINISH, USAGE, DONE].concat();
    let answer = format!("{STREAM_HEAD}{}{LAST_CHUNK}", chunk(&stream));
    let upstream = Upstream::answering(answer);
    let sidecar = adding(&upstream);
    let asked = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
    let refused = r#"{"model":"m","stream":true,"stream_options":{"include_usage":false}}"#;
    let calls = [
        post("/v1/chat/completions", asked),
        post("/v1/chat/completions", refused),
        post("/v1/chat/completions", r#"{"model":"m"}"#),
        post("/v1/chat/completions", "no JSON"),
        post("/v1/responses", r#"{"model":"m","stream":true}"#),
        post("/v1/messages", r#"{"model":"m","stream":true}"#),
    ];
    for call in &calls {
        let call = call.replacen("\r\n", "\r\nAccept-Encoding: gzip\r\n", 1);
        let reply = sidecar.call(&call);
        assert_eq!(reply.text(), stream, "{call}");
        assert_eq!(reply.header("x-tidegate-include-usage"), None, "{call}");
        assert_eq!(reply.header("transfer-encoding"), Some("chunked"));
        let sent = upstream.requests().pop().expect("it was sent");
        assert_eq!(sent.header("accept-encoding"), Some("gzip"));
        assert!(call.ends_with(&sent.text()), "{call}");
    }
    let records = sidecar.finish();
    assert_eq!(records.len(), calls.len());
    records.iter().for_each(|record| assert!(record["tidegate.warnings"].is_null(), "{record:#}"));
}

#[test]
fn a_body_that_cannot_be_held_or_changed_goes_on_as_it_is_and_is_counted() {
    let stream = [TOKEN, FINISH, DONE].concat();
    let upstream = Upstream::answering(format!("{STREAM_HEAD}{}{LAST_CHUNK}", chunk(&stream)));
    let sidecar = adding_with(&upstream, "limits: { held_body: 64KiB }");
    let large = "x".repeat(1 << 20);
    let large = format!(r#"{{"model":"m","stream":true,"messages":"{large}"}}"#);
    let signed = stream_call().replacen("\r\n", "\r\nAuthorization: AWS4-HMAC-SHA256 a\r\n", 1);
    for call in [post("/v1/chat/completions", &large), signed] {
        let reply = sidecar.call(&call);
        assert_eq!(reply.text(), stream);
        assert_eq!(reply.header("x-tidegate-include-usage"), None);
        let sent = upstream.requests().pop().expect("it was sent");
        assert!(call.ends_with(&sent.text()));
    }
    sidecar.wait_records(2);
    assert_eq!(sidecar.metric("tidegate_warnings_total"), 2.0);
    for record in sidecar.finish() {
        assert_outcome(&record, "completed", None);
        assert_eq!(record["tidegate.warnings"][0], "include_usage_not_added");
    }
}

#[test]
fn an_error_passes_untouched() {
    let body =
        r#"{"error":{"message":"no","type":"invalid_request_error","choices":[],"usage":{}}}"#;
    for answer in [answer_with(400, body), answer(COMPLETION)] {
        let upstream = Upstream::answering(answer.clone());
        let sidecar = adding(&upstream);
        let reply = sidecar.call(stream_call());
        assert!(answer.ends_with(&reply.text()));
        assert_eq!(reply.header("content-length"), Some(&*reply.body.len().to_string()));
        assert_eq!(reply.header("x-tidegate-include-usage"), Some("added"));
        assert_eq!(sidecar.finish().len(), 1);
    }
}

#[test]
fn an_answer_that_is_encoded_all_the_same_is_left_as_it_is_and_says_so() {
    let stream = [TOKEN, FINISH, USAGE, DONE].concat();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(stream.as_bytes()).expect("memory takes it");
    let body = gzip.finish().expect("memory takes it");
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let upstream = Upstream::answering([head.as_bytes(), &body].concat());
    let sidecar = adding(&upstream);
    let reply = sidecar.call(stream_call());
    assert!(reply.body == body);
    let said = reply.header("x-tidegate-include-usage");
    assert_eq!(said, Some("added; left in an encoded answer"));
    assert_eq!(sidecar.finish_with_one()["gen_ai.usage.output_tokens"], 2);
}

#[test]
fn a_stream_that_breaks_off_breaks_off_where_it_did() {
    let half = &USAGE[..USAGE.len() / 2];
    for (last, expected) in [(half, half), (USAGE, ""), (&TOKEN[..20], &TOKEN[..20])] {
        let begun = format!("{STREAM_HEAD}{}{}", chunk(TOKEN), chunk(last));
        let upstream = Upstream::new(move |mut peer| {
            peer.request();
            peer.wire.send(&begun);
            peer.close();
        });
        let sidecar = adding(&upstream);
        let reply = sidecar.call(stream_call());
        assert_ne!(reply.end, End::Clean);
        assert_eq!(reply.text(), format!("{TOKEN}{expected}"));
        assert_outcome(&sidecar.finish_with_one(), "truncated", Some("upstream"));
    }
}

#[test]
fn a_caller_that_leaves_frees_the_upstream() {
    let upstream = Upstream::new(|mut peer| {
        peer.request();
        peer.wire.send(format!("{STREAM_HEAD}{}", chunk(TOKEN)));
        peer.closed();
    });
    let sidecar = adding(&upstream);
    let mut caller = sidecar.connect();
    caller.send(stream_call());
    caller.through(b"hi").expect("a token");
    drop(caller);
    upstream.wait_closed();
    assert_outcome(&sidecar.finish_with_one(), "abandoned", None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_http_2_it_is_the_same_on_both_sides() {
    let stream = [TOKEN, FINISH, USAGE, DONE].concat();
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let is_http2 = matches!(speaks, Speaks::Http2);
        let answer = stream.clone();
        let address = serve(speaks, move |request| {
            let answer = answer.clone();
            async move {
                let length = request.headers()["content-length"].clone();
                let body = whole(request.into_body()).await.expect("a request");
                assert_eq!(body, ASKING);
                assert_eq!(length, ASKING.len().to_string());
                http::Response::builder()
                    .header("content-type", "text/event-stream")
                    .body(full(answer))
                    .expect("an answer")
            }
        })
        .await;
        let config = format!(
            "upstreams: {{ a: {{ url: 'http://{address}', http2: {is_http2} }} }}\nroutes: [{{ upstream: a, include_usage: add }}]"
        );
        let sidecar = Launch::new().config(&config).start();
        let mut caller = http2_caller(sidecar.address).await;
        let body = r#"{"model":"gpt-4o","stream":true}"#;
        let request = http2_post("/v1/chat/completions", full(body));
        let response = caller.send_request(request).await.expect("an answer");
        assert_eq!(response.headers()["x-tidegate-include-usage"], "added");
        assert!(!response.headers().contains_key("content-length"));
        let body = whole(response.into_body()).await.expect("a clean end");
        assert_eq!(body, [TOKEN, FINISH, DONE].concat());
        drop(caller);
        let record = sidecar.finish_with_one();
        assert_outcome(&record, "completed", None);
        assert_eq!(record["gen_ai.usage.input_tokens"], 1_000_000);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_with_trailers_by_http_2_goes_on_as_it_is() {
    const BODY: &str = r#"{"model":"gpt-4o","stream":true}"#;
    let address = serve(Speaks::Http2, |request| async {
        let collected = request.into_body().collect().await.expect("a request");
        let sum = collected.trailers().and_then(|trailers| trailers.get("x-sum").cloned());
        let body = collected.to_bytes();
        let answer = format!("{} {sum:?}", String::from_utf8_lossy(&body));
        http::Response::new(full(answer))
    })
    .await;
    let config = format!(
        "upstreams: {{ a: {{ url: 'http://{address}', http2: true }} }}\nroutes: [{{ upstream: a, include_usage: add }}]"
    );
    let sidecar = Launch::new().config(&config).start();
    let mut caller = http2_caller(sidecar.address).await;
    let (mut pieces, body) = piecewise();
    let answer = caller.send_request(http2_post("/v1/chat/completions", body));
    let sending = async {
        pieces.send_data(BODY.into()).await.expect("somebody reads");
        let sum = http::HeaderMap::from_iter([(
            http::HeaderName::from_static("x-sum"),
            http::HeaderValue::from_static("7"),
        )]);
        pieces.send_trailers(sum).await.expect("somebody reads");
        drop(pieces);
    };
    let (response, ()) = tokio::join!(answer, sending);
    let body = whole(response.expect("an answer").into_body()).await.expect("a clean end");
    assert_eq!(body, format!("{BODY} Some(\"7\")"));
    drop(caller);
    let record = sidecar.finish_with_one();
    assert_eq!(record["tidegate.warnings"], serde_json::json!(["include_usage_not_added"]));
}
