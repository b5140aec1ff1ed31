//! What does it cost to observe a reply? Over the fixtures, and per chunk of a long stream.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::HeaderMap;
use tidegate_wire::{Ending, HeadView, Observer, Record, Shape};

#[path = "../../tests/support/fixtures.rs"]
mod fixtures;
#[path = "../../tests/support/grpc_messages.rs"]
mod grpc_messages;
#[path = "../../tests/support/protobuf.rs"]
mod protobuf;

criterion_group!(benches, replies, chunks, messages, heads);
criterion_main!(benches);

/// Whole calls, from the head of the request to the record.
fn replies(c: &mut Criterion) {
    let mut group = c.benchmark_group("reply");
    for case in fixtures::all() {
        group.throughput(Throughput::Bytes(case.reply.len() as u64));
        group.bench_function(&case.name, |b| {
            b.iter(|| black_box(case.replay([case.reply.as_slice()], case.ending)));
        });
        assert_eq!(
            case.replay([case.reply.as_slice()], case.ending).outcome,
            serde_json::from_value(case.record["tidegate.outcome"].clone()).expect("an outcome"),
        );
    }
    group.finish();
}

/// One chunk in the middle of a stream.
fn chunks(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunk");
    for (name, path, chunk) in [
        ("openai", "/v1/chat/completions", OPENAI),
        ("anthropic", "/v1/messages", ANTHROPIC),
        ("gemini", "/v1beta/models/gemini-large:streamGenerateContent", GEMINI),
    ] {
        let mut observer = observer(path);
        observer.head(200, &HeaderMap::new(), Duration::ZERO);
        group.throughput(Throughput::Bytes(chunk.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| observer.chunk(black_box(chunk.as_bytes()), Duration::ZERO));
        });
    }
    group.finish();
}

/// One message in the middle of a gRPC stream.
fn messages(c: &mut Criterion) {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", http::HeaderValue::from_static("application/grpc"));
    let mut observer = Observer::new(Shape::read(&HeadView {
        method: "POST",
        host: Some("localhost"),
        path: "/google.cloud.aiplatform.v1.PredictionService/StreamGenerateContent",
        query: None,
        headers: &headers,
    }));
    observer.head(200, &headers, Duration::ZERO);
    let mut group = c.benchmark_group("message");
    for (name, message) in [
        ("gemini", grpc_messages::message(grpc_messages::token(" tide"))),
        ("gemini-usage", grpc_messages::message(grpc_messages::last(1, 10, 2))),
    ] {
        group.throughput(Throughput::Bytes(message.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| observer.chunk(black_box(&message), Duration::ZERO));
        });
    }
    group.finish();
}

/// What every call pays, whatever its reply.
fn heads(c: &mut Criterion) {
    c.bench_function("head", |b| {
        b.iter(|| {
            let mut observer = observer(black_box("/v1/chat/completions"));
            observer.head(200, &HeaderMap::new(), Duration::ZERO);
            let mut record = Record::default();
            observer.finish(Ending::Clean, Duration::ZERO, &mut record);
            black_box(record)
        });
    });
}

fn observer(path: &str) -> Observer {
    Observer::new(Shape::read(&HeadView {
        method: "POST",
        host: Some("localhost"),
        path,
        query: None,
        headers: &HeaderMap::new(),
    }))
}

/// As OpenAI sends it, 250 bytes.
const OPENAI: &str = r#"data: {"id":"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012","object":"chat.completion.chunk","created":1762179802,"model":"gpt-large-2026-01-01","system_fingerprint":"fp_0123456789","choices":[{"index":0,"delta":{"content":" tide"},"logprobs":null,"finish_reason":null}]}

"#;

const ANTHROPIC: &str = r#"event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" tide"}}

"#;

const GEMINI: &str = "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \" tide\"}],\"role\": \"model\"},\"index\": 0}],\"usageMetadata\": {\"promptTokenCount\": 10,\"candidatesTokenCount\": 2,\"totalTokenCount\": 12,\"promptTokensDetails\": [{\"modality\": \"TEXT\",\"tokenCount\": 10}]},\"modelVersion\": \"gemini-large\",\"responseId\": \"AbCdEfGhIjKlMnOp\"}\r\n\r\n";
