//! What does it cost to observe a reply? Over the fixtures, and per chunk of a long stream.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::HeaderMap;
use tidegate_wire::{
    DEFAULT_PRICES, Ending, HeadView, Observer, Prices, Record, Shape, UsageSource,
};

#[path = "../../tests/support/fixtures.rs"]
mod fixtures;

criterion_group!(benches, replies, chunks, heads, hints, costs);
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

/// What the head of an answer says of limits: a typical one of twenty fields, and one that names none.
fn hints(c: &mut Criterion) {
    let mut group = c.benchmark_group("answer-head");
    for (name, lines) in [
        ("openai", OPENAI_HEAD),
        ("anthropic", ANTHROPIC_HEAD),
        ("none", PLAIN_HEAD),
        ("empty", ""),
    ] {
        let fields = lines.lines().map(|line| {
            let (name, value) = line.split_once(": ").expect("a field");
            let name: http::HeaderName = name.parse().expect("a name");
            (name, value.parse::<http::HeaderValue>().expect("a value"))
        });
        let headers: HeaderMap = fields.collect();
        let mut observer = observer("/v1/chat/completions");
        group.bench_function(name, |b| {
            b.iter(|| observer.head(200, black_box(&headers), Duration::ZERO));
        });
    }
    group.finish();
}

/// What it takes to find a call's prices in the built-in table and to reckon its cost.
fn costs(c: &mut Criterion) {
    let prices: Prices = serde_saphyr::from_str(DEFAULT_PRICES).expect("the table is a good one");
    let mut group = c.benchmark_group("cost");
    for (provider, asked, answered) in [
        ("openai", "gpt-4o", Some("gpt-4o-2024-08-06")),
        ("anthropic", "claude-sonnet-4-5-20250929", None),
        ("aws.bedrock", "eu.anthropic.claude-haiku-4-5-20251001-v1:0", None),
        ("openai", "gpt-unknown", Some("gpt-unknown-2026-01-01")),
    ] {
        let record = Record {
            operation: Some("chat".into()),
            provider: Some(provider.into()),
            region: Some("eu-west-1".into()),
            request_model: Some(asked.to_owned()),
            response_model: answered.map(str::to_owned),
            input_tokens: Some(1_000),
            output_tokens: Some(100),
            usage_source: Some(UsageSource::Reported),
            ..Record::default()
        };
        group.bench_function(asked, |b| b.iter(|| prices.cost(black_box(&record))));
    }
    group.finish();
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

const PLAIN_HEAD: &str = "date: Sat, 15 Mar 2025 09:38:16 GMT
content-type: application/json
transfer-encoding: chunked
connection: keep-alive
access-control-expose-headers: X-Request-ID
server: edge
vary: Origin
x-request-id: req_0123456789abcdef
x-envoy-upstream-service-time: 512
x-content-type-options: nosniff
strict-transport-security: max-age=31536000; includeSubDomains; preload
cf-cache-status: DYNAMIC
cf-ray: 0123456789abcdef-FRA
alt-svc: h3=\":443\"
cache-control: no-cache
x-processing-time: 512
x-version: 2020-10-01
x-organization: example
x-proxy: edge-1
referrer-policy: no-referrer";

const OPENAI_HEAD: &str = "date: Sat, 15 Mar 2025 09:38:16 GMT
content-type: application/json
transfer-encoding: chunked
connection: keep-alive
access-control-expose-headers: X-Request-ID
openai-organization: example
openai-processing-ms: 512
openai-version: 2020-10-01
x-ratelimit-limit-requests: 10000
x-ratelimit-limit-tokens: 30000000
x-ratelimit-remaining-requests: 9999
x-ratelimit-remaining-tokens: 29999990
x-ratelimit-reset-requests: 6ms
x-ratelimit-reset-tokens: 0s
x-request-id: req_0123456789abcdef
strict-transport-security: max-age=31536000; includeSubDomains; preload
cf-cache-status: DYNAMIC
x-content-type-options: nosniff
server: edge
cf-ray: 0123456789abcdef-FRA";

const ANTHROPIC_HEAD: &str = "date: Sat, 15 Mar 2025 09:38:16 GMT
content-type: application/json
transfer-encoding: chunked
connection: keep-alive
anthropic-ratelimit-requests-limit: 4000
anthropic-ratelimit-requests-remaining: 3999
anthropic-ratelimit-requests-reset: 2025-03-15T09:38:17Z
anthropic-ratelimit-input-tokens-limit: 400000
anthropic-ratelimit-input-tokens-remaining: 400000
anthropic-ratelimit-input-tokens-reset: 2025-03-15T09:38:18Z
anthropic-ratelimit-output-tokens-limit: 80000
anthropic-ratelimit-output-tokens-remaining: 80000
anthropic-ratelimit-output-tokens-reset: 2025-03-15T09:38:18Z
anthropic-ratelimit-tokens-limit: 480000
anthropic-ratelimit-tokens-remaining: 480000
anthropic-ratelimit-tokens-reset: 2025-03-15T09:38:18Z
request-id: req_0123456789abcdef
via: 1.1 edge
cf-ray: 0123456789abcdef-FRA
server: edge";
