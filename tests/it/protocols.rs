//! Every protocol that callers speak, to every protocol that upstreams speak.

use std::fmt::Write;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{Barrier, Semaphore};

use crate::support::*;

/// How a test's upstream is spoken to.
const UPSTREAMS: [&str; 4] = ["HTTP/1.1", "HTTP/2", "HTTP/1.1 over TLS", "HTTP/2 over TLS"];

/// A sidecar before an upstream that speaks so and answers by this function.
async fn sidecar_to<F, R>(upstream: &str, answer: F) -> Sidecar
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let certificate = Certificate::new();
    let (speaks, scheme, more) = match upstream {
        "HTTP/1.1" => (Speaks::Http1, "http", ""),
        "HTTP/2" => (Speaks::Http2, "http", ", http2: true"),
        "HTTP/1.1 over TLS" => (Speaks::Tls(certificate.server(&["http/1.1"])), "https", ""),
        _ => (Speaks::Tls(certificate.server(&["h2", "http/1.1"])), "https", ""),
    };
    let port = serve(speaks, answer).await.port();
    let url = format!("{scheme}://localhost:{port}");
    let mut config = String::from("upstreams:\n");
    writeln!(config, "  a: {{ url: '{url}', address: 127.0.0.1{more} }}").expect("a text grows");
    config.push_str("routes: [{ upstream: a }]\n");
    Launch::new().config(&config).trust(&certificate).start()
}

/// Sends back what it gets, while it gets it.
async fn echo(request: Request<Incoming>) -> Response<Body> {
    Response::new(request.into_body().map_err(Into::into).boxed())
}

/// One call by HTTP/1.1, from a thread of its own.
async fn http1(address: SocketAddr, request: Vec<u8>) -> Message {
    let call = move || {
        let mut caller = Wire::to(address);
        let mut writer = caller.same();
        std::thread::scope(|scope| {
            scope.spawn(move || writer.send(request));
            caller.response()
        })
    };
    tokio::task::spawn_blocking(call).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_all_sizes_pass_both_ways() {
    for upstream in UPSTREAMS {
        let sidecar = sidecar_to(upstream, echo).await;
        let mut caller = http2_caller(sidecar.address).await;
        for size in [0, 10, 1 << 20] {
            let body: Vec<u8> = (0..size).map(|at: usize| (at % 251) as u8).collect();
            let head = format!("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
            let reply = http1(sidecar.address, [head.as_bytes(), &body].concat()).await;
            assert_eq!((reply.status(), reply.end), (200, End::Clean), "{upstream} {size}");
            assert!(reply.body == body, "{upstream} {size}");

            let request = http2_post("/a", full(body.clone()));
            let reply = caller.send_request(request).await.expect("an answer");
            let came = whole(reply.into_body()).await.expect("a clean end");
            assert!(came == body, "{upstream} {size}");
        }
        drop(caller);
        let records = sidecar.finish();
        assert_eq!(records.len(), 6, "{upstream}");
        for record in records {
            assert_outcome(&record, "completed", None);
            assert_eq!(record["tidegate.request.bytes"], record["tidegate.response.bytes"]);
        }
    }
}

/// Streams as many events as permits come, each only when the one before has arrived.
async fn one_by_one(arrived: Arc<Semaphore>) -> Response<Body> {
    let (mut pieces, body) = piecewise();
    tokio::spawn(async move {
        for _ in 0..EVENTS {
            pieces.send_data(Bytes::from_static(TOKEN.as_bytes())).await.expect("it is taken");
            arrived.acquire().await.expect("it is open").forget();
        }
        pieces.send_data(Bytes::from_static(FINISH.as_bytes())).await.expect("it is taken");
    });
    Response::builder().header("content-type", "text/event-stream").body(body).expect("an answer")
}

const EVENTS: usize = 50;
/// What a delayed acknowledgement would cost, were small pieces held back.
const DELAY: Duration = Duration::from_millis(40);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_arrives_before_the_next_is_sent() {
    for upstream in UPSTREAMS {
        let arrived = Arc::new(Semaphore::new(0));
        let sent = arrived.clone();
        let sidecar = sidecar_to(upstream, move |_| one_by_one(sent.clone())).await;

        let start = Instant::now();
        let (address, got) = (sidecar.address, arrived.clone());
        let by_http1 = move || {
            let mut caller = Wire::to(address);
            caller.send(stream_call());
            for _ in 0..EVENTS {
                caller.through(TOKEN.as_bytes()).expect("the next event");
                got.add_permits(1);
            }
            caller.through(LAST_CHUNK.as_bytes()).expect("the end");
        };
        tokio::task::spawn_blocking(by_http1).await.expect("no panic");
        assert!(start.elapsed() < DELAY * EVENTS as u32 / 2, "{upstream}: {:?}", start.elapsed());

        let start = Instant::now();
        let mut caller = http2_caller(sidecar.address).await;
        let request = http2_post("/v1/chat/completions", full(r#"{"stream":true}"#));
        let mut body = caller.send_request(request).await.expect("an answer").into_body();
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            text.extend(frame.expect("no error").into_data().expect("no trailers"));
            arrived.add_permits(1);
        }
        assert_eq!(text.len(), EVENTS * TOKEN.len() + FINISH.len());
        assert!(start.elapsed() < DELAY * EVENTS as u32 / 2, "{upstream}: {:?}", start.elapsed());

        drop(caller);
        let records = sidecar.finish();
        assert_eq!(records.len(), 2);
        records.iter().for_each(|record| assert_outcome(record, "completed", None));
    }
}

/// An answer with trailers.
async fn with_trailers(request: Request<Incoming>) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "1".parse().expect("a value"));
    // Of unknown length: what has a stated one is not sent in chunks, and has no trailers.
    let (mut pieces, body) = piecewise();
    tokio::spawn(async move {
        let echoed = whole(request.into_body()).await.expect("a clean end");
        pieces.send_data(echoed).await.expect("it is taken");
        pieces.send_trailers(trailers).await.expect("they are taken");
    });
    Response::new(body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_of_http_2_reach_callers_of_both_protocols() {
    for upstream in ["HTTP/2", "HTTP/2 over TLS"] {
        let sidecar = sidecar_to(upstream, with_trailers).await;
        let reply = http1(sidecar.address, post("/a", "hi").into_bytes()).await;
        assert_eq!((reply.text().as_str(), reply.trailers.as_str()), ("hi", "x-sum: 1\r\n"));

        let mut caller = http2_caller(sidecar.address).await;
        let reply = caller.send_request(http2_post("/a", full("hi"))).await.expect("an answer");
        let whole = reply.into_body().collect().await.expect("a clean end");
        let sum = whole.trailers().and_then(|trailers| trailers.get("x-sum")).cloned();
        assert_eq!(sum.as_ref().map(|sum| sum.as_bytes()), Some(&b"1"[..]));
        assert_eq!(whole.to_bytes(), "hi");
        drop(caller);
        assert_eq!(sidecar.finish().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_streams_are_open_at_once() {
    const CALLS: usize = 100;
    for upstream in UPSTREAMS {
        let all = Arc::new(Barrier::new(CALLS));
        let answer = move |request| {
            let all = all.clone();
            async move {
                // None is answered before all are there.
                all.wait().await;
                echo(request).await
            }
        };
        let sidecar = sidecar_to(upstream, answer).await;
        let caller = http2_caller(sidecar.address).await;
        let calls = (0..CALLS).map(|number| {
            let mut caller = caller.clone();
            tokio::spawn(async move {
                let body = format!("{{\"number\":{number}}}");
                let request = http2_post("/a", full(body.clone()));
                let reply = caller.send_request(request).await.expect("an answer");
                assert_eq!(whole(reply.into_body()).await.expect("a clean end"), body);
            })
        });
        for call in calls.collect::<Vec<_>>() {
            tokio::time::timeout(STOP, call).await.expect("in time").expect("its own answer");
        }
        drop(caller);
        assert_eq!(sidecar.finish().len(), CALLS, "{upstream}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_nobody_vouches_for_is_not_trusted() {
    let certificate = Certificate::new();
    let port = serve(Speaks::Tls(certificate.server(&["h2"])), echo).await.port();
    for (host, trusted) in [("localhost", Certificate::new()), ("127.0.0.1", certificate)] {
        let url = format!("https://{host}:{port}");
        let sidecar = Launch::new().arg("--upstream").arg(&url).trust(&trusted).start();
        let reply = http1(sidecar.address, call().into_bytes()).await;
        assert_eq!(reply.status(), 502);
        assert_eq!(reply.json()["error"]["code"], "upstream_tls");
        assert_outcome(&sidecar.finish_with_one(), "failed", Some("upstream"));
    }
}
