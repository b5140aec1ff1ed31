//! What does a call cost beside its body? The head of its answer, and its price.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use http::HeaderMap;
use tidegate_wire::{DEFAULT_PRICES, HeadView, Observer, Prices, Record, Shape, UsageSource};

criterion_group!(benches, hints, costs);
criterion_main!(benches);

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
