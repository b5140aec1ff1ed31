//! What does it cost to observe a reply? Over the fixtures, and per chunk of a long stream.

use std::hint::black_box;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::HeaderMap;
use serde_json::{Value, json};
use tidegate_wire::{Ending, HeadView, Observer, Record, Shape};

#[path = "../../tests/support/fixtures.rs"]
mod fixtures;
#[path = "../../tests/support/flushing.rs"]
mod flushing;
#[path = "../../tests/support/grpc_messages.rs"]
mod grpc_messages;
#[path = "../../tests/support/protobuf.rs"]
mod protobuf;

use flushing::flushing;

criterion_group!(benches, chunks, messages, encodings, heads, replies);
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

/// One chunk in the middle of a stream, by dialect and framing.
fn chunks(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunk");
    for (name, path, content_type, chunk) in streams() {
        let mut observer = observer(path);
        observer.head(200, &headers("content-type", content_type), Duration::ZERO);
        // The array of a JSON array is open.
        if content_type == "application/json" {
            observer.chunk(b"[{}", Duration::ZERO);
        }
        group.throughput(Throughput::Bytes(chunk.len() as u64));
        let mut at = Duration::ZERO;
        group.bench_function(name, |b| {
            b.iter(|| {
                at += Duration::from_millis(20);
                observer.chunk(black_box(&chunk), at);
            });
        });
    }
    group.finish();
}

/// Name, path, content type, and one chunk.
fn streams() -> Vec<(&'static str, &'static str, &'static str, Vec<u8>)> {
    let sse = "text/event-stream";
    let event_stream = "application/vnd.amazon.eventstream";
    let gemini = "/v1beta/models/gemini-large:streamGenerateContent";
    let element = format!(",\r\n{}", &GEMINI["data: ".len()..GEMINI.len() - 4]);
    vec![
        ("openai sse", "/v1/chat/completions", sse, OPENAI.into()),
        ("responses sse", "/v1/responses", sse, RESPONSES.into()),
        ("anthropic sse", "/v1/messages", sse, ANTHROPIC.into()),
        ("gemini sse", gemini, sse, GEMINI.into()),
        ("gemini json array", gemini, "application/json", element.into()),
        ("converse event stream", "/model/m/converse-stream", event_stream, converse()),
        ("invoke event stream", "/model/m/invoke-with-response-stream", event_stream, invoke()),
        ("ollama ndjson", "/api/chat", "application/x-ndjson", OLLAMA.into()),
    ]
}

/// Half a thousand chunks of an encoded stream, each flushed.
fn encodings(c: &mut Criterion) {
    const CHUNKS: u64 = 500;
    let mut group = c.benchmark_group("encoded");
    group.throughput(Throughput::Elements(CHUNKS));
    for coding in ["gzip", "deflate", "br", "zstd"] {
        let mut encode = flushing(coding);
        let pieces: Vec<_> = (0..CHUNKS).map(|_| encode(OPENAI.as_bytes())).collect();
        group.bench_function(format!("openai sse {coding}"), |b| {
            b.iter(|| {
                let mut observer = observer("/v1/chat/completions");
                observer.head(200, &headers("content-encoding", coding), Duration::ZERO);
                pieces.iter().for_each(|piece| observer.chunk(black_box(piece), Duration::ZERO));
                observer
            });
        });
    }
    group.finish();
}

fn converse() -> Vec<u8> {
    let payload =
        json!({"contentBlockIndex": 0, "delta": {"text": " tide"}, "p": "abcdefghijklmn"});
    event("contentBlockDelta", &payload)
}

fn invoke() -> Vec<u8> {
    let data = ANTHROPIC.split_once("data: ").expect("an event has data").1.trim_end();
    event("chunk", &json!({"bytes": STANDARD.encode(data), "p": "abcdefghijklmnopqr"}))
}

fn event(kind: &str, payload: &Value) -> Vec<u8> {
    let headers = json!({
        ":event-type": kind,
        ":content-type": "application/json",
        ":message-type": "event",
    });
    fixtures::message(&json!({"headers": headers, "payload": payload}))
}

fn headers(name: &'static str, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(name, value.parse().expect("a value"));
    headers
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

const RESPONSES: &str = r#"event: response.output_text.delta
data: {"type":"response.output_text.delta","sequence_number":7,"item_id":"msg_0123456789abcdef","output_index":0,"content_index":0,"delta":" tide","logprobs":[],"obfuscation":"abcdefghijk"}

"#;

const OLLAMA: &str = r#"{"model":"llama-small","created_at":"2026-01-01T00:00:00.123456789Z","message":{"role":"assistant","content":" tide"},"done":false}
"#;

const ANTHROPIC: &str = r#"event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" tide"}}

"#;

const GEMINI: &str = "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \" tide\"}],\"role\": \"model\"},\"index\": 0}],\"usageMetadata\": {\"promptTokenCount\": 10,\"candidatesTokenCount\": 2,\"totalTokenCount\": 12,\"promptTokensDetails\": [{\"modality\": \"TEXT\",\"tokenCount\": 10}]},\"modelVersion\": \"gemini-large\",\"responseId\": \"AbCdEfGhIjKlMnOp\"}\r\n\r\n";
