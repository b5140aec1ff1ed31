//! What only HTTP/2 can do: streams that end alone, and heads that HTTP/1.1 could misread.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tidegate_faultd::frame;
use tokio::sync::Semaphore;

use crate::support::*;

type Sent = tokio::sync::mpsc::UnboundedSender<&'static str>;

/// Streams tokens until nobody takes them, and says so.
async fn endless(_: Request<Incoming>, seen: Sent) -> Response<Body> {
    let (mut pieces, body) = piecewise();
    tokio::spawn(async move {
        while pieces.send_data(Bytes::from_static(TOKEN.as_bytes())).await.is_ok() {}
        let _ = seen.send("left");
    });
    Response::builder().header("content-type", "text/event-stream").body(body).expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_its_caller_resets_ends_alone() {
    for (speaks, more) in [(Speaks::Http1, ""), (Speaks::Http2, ", http2: true")] {
        let (seen, mut saw) = tokio::sync::mpsc::unbounded_channel();
        let upstream = serve(speaks, move |request| endless(request, seen.clone())).await;
        let sidecar = sidecar_to(upstream, more);
        let mut caller = http2_caller(sidecar.address).await;
        let call = || http2_post("/v1/chat/completions", full(r#"{"stream":true}"#));
        let mut first = caller.send_request(call()).await.expect("an answer").into_body();
        let mut second = caller.send_request(call()).await.expect("an answer").into_body();
        first.frame().await.expect("a token").expect("whole");
        drop(first);
        assert_eq!(next(&mut saw).await, Some("left"), "the upstream was told");
        assert_outcome(&sidecar.wait_records(1)[0], "abandoned", None);

        second.frame().await.expect("a token").expect("whole");
        drop((second, caller));
        let records = sidecar.finish();
        assert_eq!(records.len(), 2);
        assert_outcome(&records[1], "abandoned", None);
    }
}

/// Sends all that its head announces, and keeps the mark behind it to itself.
async fn unending(_: Request<Incoming>, short: usize) -> Response<Body> {
    let (mut pieces, body) = piecewise();
    tokio::spawn(async move {
        let sent = Bytes::from_static(&COMPLETION.as_bytes()[short..]);
        pieces.send_data(sent).await.expect("it is taken");
        std::future::pending::<()>().await;
        drop(pieces);
    });
    let answer = Response::builder().header("content-type", "application/json");
    answer.header("content-length", COMPLETION.len()).body(body).expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_with_all_that_was_announced_has_the_whole_answer() {
    // curl is one: it waits for no mark behind the last byte.
    for (short, outcome) in [(0, "completed"), (1, "abandoned")] {
        let answer = move |request| unending(request, short);
        let sidecar = sidecar_to(serve(Speaks::Http2, answer).await, ", http2: true");
        let mut caller = http2_caller(sidecar.address).await;
        let call = http2_post("/v1/chat/completions", full("{}"));
        let mut answer = caller.send_request(call).await.expect("an answer").into_body();
        let mut came = 0;
        while came < COMPLETION.len() - short {
            let frame = answer.frame().await.expect("more").expect("no fault");
            came += frame.data_ref().map_or(0, Bytes::len);
        }
        drop((answer, caller));
        assert_outcome(&sidecar.finish_with_one(), outcome, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_its_caller_resets_before_the_head_is_abandoned() {
    let upstream = Upstream::new(|mut peer| {
        peer.request();
        peer.closed();
    });
    let sidecar = Sidecar::to(&upstream);
    let mut caller = http2_caller(sidecar.address).await;
    let call = tokio::spawn(caller.send_request(http2_post("/a", full("{}"))));
    wait_until("the upstream has the call", || upstream.requests().len() == 1);
    call.abort();
    upstream.wait_closed();
    drop(caller);
    assert_outcome(&sidecar.finish_with_one(), "abandoned", None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_its_caller_breaks_off_is_abandoned() {
    for (speaks, more) in [(Speaks::Http1, ""), (Speaks::Http2, ", http2: true")] {
        let (seen, mut saw) = tokio::sync::mpsc::unbounded_channel();
        let upstream = serve(speaks, move |request| swallow(request, seen.clone())).await;
        let sidecar = sidecar_to(upstream, more);

        let mut caller = sidecar.connect();
        caller.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\nhalf");
        assert_eq!(next(&mut saw).await, Some("data"));
        drop(caller);
        assert_eq!(next(&mut saw).await, Some("broken"), "the upstream does not take it for whole");
        assert_outcome(&sidecar.wait_records(1)[0], "abandoned", None);

        let mut caller = http2_caller(sidecar.address).await;
        let (mut pieces, body) = piecewise();
        let call = tokio::spawn(caller.send_request(http2_post("/a", body)));
        pieces.send_data(Bytes::from_static(b"half")).await.expect("it is taken");
        assert_eq!(next(&mut saw).await, Some("data"));
        call.abort();
        assert_eq!(next(&mut saw).await, Some("broken"), "the upstream does not take it for whole");
        drop(caller);
        let records = sidecar.finish();
        assert_eq!(records.len(), 2);
        assert_outcome(&records[1], "abandoned", None);
    }
}

/// What the upstream says next.
async fn next(
    saw: &mut tokio::sync::mpsc::UnboundedReceiver<&'static str>,
) -> Option<&'static str> {
    tokio::time::timeout(STOP / 4, saw.recv()).await.expect("the upstream says something")
}

/// Reads a body, and says what came of it.
async fn swallow(request: Request<Incoming>, seen: Sent) -> Response<Body> {
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        let _ = seen.send(if frame.is_ok() { "data" } else { "broken" });
        if frame.is_err() {
            break;
        }
    }
    Response::new(full(""))
}

/// Breaks an answer off once its caller has seen a token.
async fn breaking(_: Request<Incoming>, seen: Arc<Semaphore>) -> Response<Body> {
    let (mut pieces, body) = piecewise();
    tokio::spawn(async move {
        pieces.send_data(Bytes::from_static(TOKEN.as_bytes())).await.expect("it is taken");
        seen.acquire().await.expect("it is open").forget();
        pieces.abort(io::Error::other("broken off by the test").into());
    });
    Response::builder().header("content-type", "text/event-stream").body(body).expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_off_never_ends_clean() {
    for (speaks, more) in [(Speaks::Http1, ""), (Speaks::Http2, ", http2: true")] {
        let seen = Arc::new(Semaphore::new(0));
        let by_caller = seen.clone();
        let upstream = serve(speaks, move |request| breaking(request, by_caller.clone())).await;
        let sidecar = sidecar_to(upstream, more);
        let mut caller = http2_caller(sidecar.address).await;
        let call = http2_post("/v1/chat/completions", full(r#"{"stream":true}"#));
        let mut body = caller.send_request(call).await.expect("an answer").into_body();
        body.frame().await.expect("a token").expect("whole");
        seen.add_permits(1);
        assert!(whole(body).await.is_err(), "a clean end");

        let mut caller = sidecar.connect();
        caller.send(stream_call());
        caller.through(b"hi").expect("a token");
        seen.add_permits(1);
        let (rest, _) = caller.rest();
        assert!(!String::from_utf8_lossy(&rest).contains(LAST_CHUNK), "the end is not made up");
        let records = sidecar.finish();
        assert_eq!(records.len(), 2);
        records.iter().for_each(|record| assert_outcome(record, "truncated", Some("upstream")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_http_1_1_could_misread_is_refused() {
    let upstream = Upstream::answering(answer("{}"));
    let sidecar = Sidecar::to(&upstream);
    let mut caller = http2_caller(sidecar.address).await;
    let post = || Request::post("http://a/v1/messages");
    let cases = [
        ("another host", post().header("host", "b")),
        ("two hosts", post().header("host", "a").header("host", "b")),
        ("one length twice", post().header("content-length", "2").header("content-length", "2")),
        ("dot segments", Request::post("http://a/v1/%2e%2e/b")),
        ("too many fields", (0..101).fold(post(), |post, n| post.header(format!("x-{n}"), "a"))),
    ];
    let count = cases.len();
    for (what, request) in cases {
        let request = request.body(full("{}")).expect("a request");
        let reply = caller.send_request(request).await.expect("an answer");
        let status = reply.status().as_u16();
        assert!(status == 400 || status == 431, "{what}: {status}");
        let body = whole(reply.into_body()).await.expect("a clean end");
        let json: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert!(json["error"]["message"].is_string(), "{what}: {json}");
    }
    drop(caller);
    let records = sidecar.finish();
    assert_eq!(records.len(), count);
    records.iter().for_each(|record| assert_outcome(record, "refused", Some("client")));
    assert_eq!(upstream.connections(), 0);
}

/// A sidecar before an upstream that speaks as the configuration says.
pub(crate) fn sidecar_to(upstream: std::net::SocketAddr, more: &str) -> Sidecar {
    let upstreams = format!("upstreams: {{ a: {{ url: 'http://{upstream}'{more} }} }}\n");
    Launch::new().config(&format!("{upstreams}routes: [{{ upstream: a }}]\n")).start()
}

#[test]
fn an_answer_that_its_upstream_cancels_never_ends_clean() {
    let (no_error, cancel) = (0_u32, 8_u32);
    for reason in [no_error, cancel] {
        let seen = Gate::default();
        let by_caller = seen.clone();
        // What hyper would not send: RST_STREAM behind some data.
        let upstream = Upstream::new(move |mut peer| {
            let (method_post, status_200) = (b"\x83", b"\x88");
            peer.wire.through(method_post).expect("a request");
            peer.wire.send([frame(4, 0, 0, b""), frame(4, 1, 0, b"")].concat());
            peer.wire.send([frame(1, 4, 1, status_200), frame(0, 0, 1, b"hi")].concat());
            by_caller.pass();
            peer.wire.send(frame(3, 0, 1, &reason.to_be_bytes()));
            peer.closed();
        });
        let sidecar = sidecar_to(upstream.address, ", http2: true");
        let mut caller = sidecar.connect();
        caller.send(post("/unknown", "{}"));
        caller.through(b"hi").expect("some data");
        seen.open();
        let (rest, _) = caller.rest();
        assert!(!String::from_utf8_lossy(&rest).contains(LAST_CHUNK), "the end is not made up");
        assert_outcome(&sidecar.finish_with_one(), "truncated", Some("upstream"));
    }
}

#[test]
fn an_upload_that_its_caller_resets_is_not_taken_for_whole() {
    let (no_error, cancel) = (0_u32, 8_u32);
    for reason in [no_error, cancel] {
        let upstream = Upstream::new(|mut peer| {
            let mut request = peer.head();
            peer.wire.body(&mut request);
            assert_ne!(request.end, End::Clean);
            peer.closed();
        });
        let sidecar = Sidecar::to(&upstream);
        let mut caller = sidecar.connect();
        let post_to_root_at_a = b"\x83\x86\x84\x41\x01a";
        caller.send([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, b"")].concat());
        caller.send([frame(1, 4, 1, post_to_root_at_a), frame(0, 0, 1, b"half")].concat());
        wait_until("the upstream has the head", || upstream.requests().len() == 1);
        caller.send(frame(3, 0, 1, &reason.to_be_bytes()));
        upstream.wait_closed();
        assert_outcome(&sidecar.finish_with_one(), "abandoned", None);
    }
}
