//! Calls by gRPC: by HTTP/2 to the upstream whatever the configuration says, with their trailers.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::support::*;

const STREAM: &str = "/google.cloud.aiplatform.v1.PredictionService/StreamGenerateContent";
const MODEL: &str = "projects/p/locations/europe-west4/publishers/google/models/gemini-2.5-flash";

/// A call of Gemini that streams.
fn stream_request() -> Request<Body> {
    let request = message([field(2, field(2, field(1, "why?"))), field(5, MODEL)].concat());
    call(STREAM, full(request))
}

/// A call to this method.
fn call(path: &str, body: Body) -> Request<Body> {
    Request::post(format!("http://api.example{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .expect("a request")
}

fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
        .collect()
}

/// An answer with these messages, and these trailers behind them.
fn answer_with(messages: Vec<Vec<u8>>, trailers: Option<HeaderMap>) -> Response<Body> {
    let (mut pieces, body) = piecewise();
    tokio::spawn(async move {
        for message in messages {
            pieces.send_data(message.into()).await.expect("it is taken");
        }
        if let Some(trailers) = trailers {
            pieces.send_trailers(trailers).await.expect("they are taken");
        }
    });
    grpc_head().body(body).expect("an answer")
}

fn grpc_head() -> http::response::Builder {
    Response::builder().header("content-type", "application/grpc")
}

/// Two tokens and an end.
fn tide() -> Vec<Vec<u8>> {
    vec![message(token("The")), message(token(" tide")), message(last(1, 7, 12))]
}

fn sidecar_to(upstream: std::net::SocketAddr) -> Sidecar {
    Launch::new().arg("--upstream").arg(&format!("http://{upstream}")).start()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_passes_with_its_trailers_and_nothing_is_configured() {
    let (seen, mut saw) = unbounded_channel();
    let upstream = serve(Speaks::Either, move |request: Request<Incoming>| {
        let seen = seen.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = whole(body).await.expect("a clean end");
            let is_grpc = parts.headers["content-type"] == "application/grpc";
            seen.send((parts, body)).expect("somebody waits");
            match is_grpc {
                true => {
                    answer_with(tide(), Some(fields(&[("grpc-status", "0"), ("x-mark", "a b")])))
                }
                false => Response::new(full(COMPLETION)),
            }
        }
    })
    .await;
    let sidecar = sidecar_to(upstream);
    let mut caller = http2_caller(sidecar.address).await;
    for _ in 0..2 {
        let mut request = stream_request();
        request.headers_mut().insert("grpc-timeout", "10S".parse().expect("a value"));
        let reply = caller.send_request(request).await.expect("an answer");
        assert_eq!(reply.headers()["content-type"], "application/grpc");
        let whole = reply.into_body().collect().await.expect("a clean end");
        let trailers = whole.trailers().expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["x-mark"], "a b");
        assert_eq!(whole.to_bytes(), tide().concat());

        let (parts, body) = saw.recv().await.expect("the upstream had it");
        assert_eq!(parts.version, Version::HTTP_2);
        assert_eq!(parts.headers["te"], "trailers");
        assert_eq!(parts.headers["grpc-timeout"], "10S");
        assert_eq!(parts.uri.path(), STREAM);
        assert!(body.ends_with(MODEL.as_bytes()));

        // What is no gRPC goes to the same upstream as it always did.
        let request = http2_post("/v1/chat/completions", full(r#"{"model":"gpt-4o"}"#));
        let reply = caller.send_request(request).await.expect("an answer");
        assert_eq!(
            crate::support::whole(reply.into_body()).await.expect("a clean end"),
            COMPLETION
        );
        assert_eq!(saw.recv().await.expect("the upstream had it").0.version, Version::HTTP_11);
    }
    drop(caller);
    let records = sidecar.finish();
    assert_eq!(records.len(), 4);
    for record in [&records[0], &records[2]] {
        assert_outcome(record, "completed", None);
        let said = |key: &str| record[key].clone();
        assert_eq!(said("rpc.grpc.status_code"), 0);
        assert_eq!(said("http.response.status_code"), 200);
        assert_eq!(said("gen_ai.request.model"), "gemini-2.5-flash");
        assert_eq!(said("gen_ai.provider.name"), "gcp.vertex_ai");
        assert_eq!(said("cloud.region"), "europe-west4");
        assert_eq!(said("gen_ai.usage.output_tokens"), 12);
        assert_eq!(said("gen_ai.response.finish_reasons"), serde_json::json!(["STOP"]));
        assert!(said("tidegate.time_to_first_token_s").is_number(), "{record:#}");
        assert_eq!(said("tidegate.response.bytes"), tide().concat().len());
    }
    assert_outcome(&records[1], "completed", None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_in_the_head_stays_there() {
    let upstream = serve(Speaks::Http2, async |_: Request<Incoming>| {
        let quota = grpc_head().header("grpc-status", "8").header("grpc-message", "quota%20spent");
        quota.body(full("")).expect("an answer")
    })
    .await;
    let sidecar = sidecar_to(upstream);
    let mut caller = http2_caller(sidecar.address).await;
    let reply = caller.send_request(stream_request()).await.expect("an answer");
    assert_eq!(reply.headers()["grpc-status"], "8");
    assert_eq!(reply.headers()["grpc-message"], "quota%20spent");
    assert!(reply.body().is_end_stream(), "nothing follows the head");
    drop(caller);
    let record = sidecar.finish_with_one();
    assert_outcome(&record, "failed", Some("quota"));
    assert_eq!(record["error.type"], "RESOURCE_EXHAUSTED");
    assert_eq!(record["tidegate.error.code"], "8");
    assert_eq!(record["rpc.grpc.status_code"], 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_behind_messages_is_a_failure() {
    let upstream = serve(Speaks::Http2, async |_: Request<Incoming>| {
        let unavailable = fields(&[("grpc-status", "14"), ("grpc-message", "overloaded")]);
        answer_with(vec![message(token("The"))], Some(unavailable))
    })
    .await;
    let sidecar = sidecar_to(upstream);
    let mut caller = http2_caller(sidecar.address).await;
    let reply = caller.send_request(stream_request()).await.expect("an answer");
    let whole = reply.into_body().collect().await.expect("a clean end");
    assert_eq!(whole.trailers().expect("trailers")["grpc-status"], "14");
    drop(caller);
    let record = sidecar.finish_with_one();
    assert_outcome(&record, "failed", Some("upstream"));
    assert_eq!(record["error.type"], "UNAVAILABLE");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_ends_without_a_status_is_truncated() {
    let upstream =
        serve(Speaks::Http2, async |_: Request<Incoming>| answer_with(tide(), None)).await;
    let sidecar = sidecar_to(upstream);
    let mut caller = http2_caller(sidecar.address).await;
    let reply = caller.send_request(stream_request()).await.expect("an answer");
    let whole = reply.into_body().collect().await.expect("a clean end");
    assert!(whole.trailers().is_none(), "a status is not made up");
    drop(caller);
    assert_outcome(&sidecar.finish_with_one(), "truncated", Some("upstream"));
}

/// Sends each message back when it comes, and the trailers as well.
async fn echo(request: Request<Incoming>) -> Response<Body> {
    let (mut pieces, body) = piecewise();
    tokio::spawn(async move {
        let mut request = request.into_body();
        while let Some(frame) = request.frame().await {
            match frame.expect("no error").into_data() {
                Ok(data) => pieces.send_data(data).await.expect("it is taken"),
                Err(frame) => {
                    let mut trailers = frame.into_trailers().expect("trailers");
                    trailers.insert("grpc-status", "0".parse().expect("a value"));
                    pieces.send_trailers(trailers).await.expect("they are taken");
                }
            }
        }
    });
    grpc_head().body(body).expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_of_an_unknown_service_go_on_side_by_side() {
    let upstream = serve(Speaks::Http2, echo).await;
    // The second sidecar reads ahead, in vain: there is no model in it.
    let by_model = format!(
        "upstreams: {{ a: {{ url: 'http://{upstream}' }} }}\nroutes: [{{ match: {{ model: gemini-* }}, upstream: a }}, {{ upstream: a }}]\n"
    );
    for sidecar in [sidecar_to(upstream), Launch::new().config(&by_model).start()] {
        let mut caller = http2_caller(sidecar.address).await;
        let (mut pieces, body) = piecewise();
        let reply = caller.send_request(call("/acme.v1.Talk/Talk", body));
        let messages = [message("no protobuf \u{fc}"), vec![2, 0, 0], message("")];
        pieces.send_data(messages[0].clone().into()).await.expect("it is taken");
        let mut reply =
            tokio::time::timeout(STOP, reply).await.expect("in time").expect("a head").into_body();
        for (at, sent) in messages.iter().enumerate() {
            if at > 0 {
                pieces.send_data(sent.clone().into()).await.expect("it is taken");
            }
            let frame = reply.frame().await.expect("a frame").expect("no error");
            assert_eq!(frame.into_data().expect("data"), sent);
        }
        pieces.send_trailers(fields(&[("x-sum", "1")])).await.expect("they are taken");
        let frame = reply.frame().await.expect("a frame").expect("no error");
        let trailers = frame.into_trailers().expect("trailers");
        assert_eq!(trailers["x-sum"], "1");
        assert_eq!(trailers["grpc-status"], "0");
        drop((caller, pieces, reply));
        let record = sidecar.finish_with_one();
        assert_outcome(&record, "completed", None);
        assert_eq!(record["rpc.grpc.status_code"], 0);
        assert_eq!(record["tidegate.request.bytes"], record["tidegate.response.bytes"]);
        assert_eq!(record["gen_ai.operation.name"], serde_json::Value::Null);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_trailers_that_were_read_ahead_go_on() {
    let upstream = serve(Speaks::Http2, echo).await;
    let config = format!(
        "upstreams: {{ a: {{ url: 'http://{upstream}' }} }}\nroutes: [{{ match: {{ model: gemini-* }}, upstream: a }}, {{ upstream: a }}]\n"
    );
    let sidecar = Launch::new().config(&config).start();
    let mut caller = http2_caller(sidecar.address).await;
    let (mut pieces, body) = piecewise();
    let reply = caller.send_request(call(STREAM, body));
    // Half a message: the model may still come.
    pieces.send_data(Bytes::from_static(b"\0\0\0\0\x09abc")).await.expect("it is taken");
    pieces.send_trailers(fields(&[("x-sum", "1")])).await.expect("they are taken");
    let reply = reply.await.expect("an answer").into_body();
    let whole = reply.collect().await.expect("a clean end");
    assert_eq!(whole.trailers().expect("trailers")["x-sum"], "1");
    assert_eq!(whole.to_bytes(), &b"\0\0\0\0\x09abc"[..]);
    drop(caller);
    assert_eq!(sidecar.finish().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_answers_are_grpc_answers() {
    let config = format!(
        "upstreams: {{ a: {{ url: 'http://{}' }} }}\nroutes: [{{ match: {{ dialect: vertex }}, upstream: a }}]\n",
        nowhere()
    );
    let sidecar = Launch::new().config(&config).start();
    let mut caller = http2_caller(sidecar.address).await;
    for (request, code, kind) in [
        (stream_request(), "14", "upstream_unreachable"),
        (call("/acme.v1.Talk/Talk", full("")), "12", "no_route"),
        (call("/a/%2e%2e/b", full("")), "13", "bad_request"),
    ] {
        let reply = caller.send_request(request).await.expect("an answer");
        let (head, body) = reply.into_parts();
        assert_eq!(head.status, 200);
        assert_eq!(head.headers["content-type"], "application/grpc");
        assert_eq!(head.headers["grpc-status"], code);
        assert_eq!(head.headers["x-tidegate-error"], kind);
        assert!(head.headers["grpc-message"].as_bytes().starts_with(b"tidegate: "));
        assert!(body.is_end_stream(), "nothing follows the head");
    }
    drop(caller);
    let records = sidecar.finish();
    assert_eq!(records.len(), 3);
    assert_outcome(&records[0], "failed", Some("upstream"));
    assert_outcome(&records[1], "refused", Some("client"));
    assert_outcome(&records[2], "refused", Some("client"));
    for (record, code) in records.iter().zip([14, 12, 13]) {
        assert_eq!(record["rpc.grpc.status_code"], code);
        assert_eq!(record["http.response.status_code"], 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_cancels_has_the_upstream_told() {
    let (seen, mut saw): (UnboundedSender<()>, UnboundedReceiver<()>) = unbounded_channel();
    let upstream = serve(Speaks::Http2, move |_: Request<Incoming>| {
        let seen = seen.clone();
        async move {
            let (mut pieces, body) = piecewise();
            tokio::spawn(async move {
                while pieces.send_data(message(token("The")).into()).await.is_ok() {}
                seen.send(()).expect("somebody waits");
            });
            grpc_head().body(body).expect("an answer")
        }
    })
    .await;
    let sidecar = sidecar_to(upstream);
    let mut caller = http2_caller(sidecar.address).await;
    let mut body = caller.send_request(stream_request()).await.expect("an answer").into_body();
    body.frame().await.expect("a token").expect("whole");
    drop(body);
    tokio::time::timeout(STOP, saw.recv()).await.expect("in time").expect("the upstream was told");
    drop(caller);
    let record = sidecar.finish_with_one();
    assert_outcome(&record, "abandoned", None);
    assert_eq!(record["rpc.grpc.status_code"], serde_json::Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_http_2_is_agreed_on_or_the_call_fails() {
    let certificate = Certificate::new();
    for (protocols, code) in [(&["h2", "http/1.1"][..], "0"), (&["http/1.1"], "14")] {
        let answer =
            async |_: Request<Incoming>| answer_with(tide(), Some(fields(&[("grpc-status", "0")])));
        let port = serve(Speaks::Tls(certificate.server(protocols)), answer).await.port();
        let url = format!("https://localhost:{port}");
        let sidecar = Launch::new().arg("--upstream").arg(&url).trust(&certificate).start();
        let mut caller = http2_caller(sidecar.address).await;
        let reply = caller.send_request(stream_request()).await.expect("an answer");
        let (head, body) = reply.into_parts();
        let whole = body.collect().await.expect("a clean end");
        let status = whole.trailers().unwrap_or(&head.headers)["grpc-status"].clone();
        assert_eq!(status, code);
        drop(caller);
        let record = sidecar.finish_with_one();
        assert_eq!(record["rpc.grpc.status_code"].to_string(), code);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_head_says_which_location_is_called() {
    let (seen, mut saw) = unbounded_channel();
    let upstream = serve(Speaks::Http2, move |request: Request<Incoming>| {
        let seen = Arc::new(seen.clone());
        async move {
            let authority = request.uri().authority().map(ToString::to_string);
            seen.send(authority).expect("somebody waits");
            answer_with(tide(), Some(fields(&[("grpc-status", "0")])))
        }
    })
    .await;
    let config = format!(
        "upstreams: {{ v: {{ url: 'http://{{location}}-aiplatform.googleapis.com', address: '{upstream}' }} }}\nroutes: [{{ match: {{ dialect: vertex, model: gemini-* }}, upstream: v }}]\n"
    );
    let sidecar = Launch::new().config(&config).start();
    let mut caller = http2_caller(sidecar.address).await;
    for names_in_head in [true, false] {
        // Where the head names none, the route has the model read, and the location with it.
        let mut request = stream_request();
        if names_in_head {
            let parameters = format!("model={MODEL}").parse().expect("a value");
            request.headers_mut().insert("x-goog-request-params", parameters);
        }
        let reply = caller.send_request(request).await.expect("an answer");
        whole(reply.into_body()).await.expect("a clean end");
        let host = saw.recv().await.expect("the upstream had it");
        assert_eq!(host.as_deref(), Some("europe-west4-aiplatform.googleapis.com"));
    }
    drop(caller);
    for record in sidecar.finish() {
        assert_outcome(&record, "completed", None);
        assert_eq!(record["cloud.region"], "europe-west4");
        assert_eq!(record["gcp.project_id"], "p");
    }
}

#[test]
fn a_caller_by_http_1_1_gets_an_answer_that_it_can_read() {
    let url = format!("http://{}", nowhere());
    let sidecar = Launch::new().arg("--upstream").arg(&url).start();
    let request = post(STREAM, "").replace("application/json", "application/grpc");
    let reply = sidecar.call(request);
    assert_eq!((reply.status(), reply.end), (502, End::Clean));
    assert!(reply.json()["error"]["message"].is_string());
    assert_outcome(&sidecar.finish_with_one(), "failed", Some("upstream"));
}
