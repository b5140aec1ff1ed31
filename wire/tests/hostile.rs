//! Bytes of bad will: whatever a call consists of, nothing panics and its record holds what can be.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use tidegate_wire::{Ending, HeadView, Observer, Record, Shape};

#[path = "../../tests/support/encoding.rs"]
mod encoding;
#[path = "../../tests/support/random.rs"]
mod random;

use encoding::encoded;
use random::Random;

/// Calls of each kind.
const CALLS: usize = 60;
/// No text of a record is longer: what is kept of one, where none of it was UTF-8.
const MAX_TEXT: usize = 3 * 1024;

const HEADS: &[(&str, &str, &str)] = &[
    ("POST", "api.openai.com", "/v1/chat/completions"),
    ("POST", "localhost", "/v1/completions"),
    ("POST", "localhost", "/v1/embeddings"),
    ("POST", "localhost", "/v1/responses"),
    ("POST", "localhost", "/v1/responses/input_tokens"),
    ("POST", "localhost", "/v1/images/generations"),
    ("POST", "localhost", "/v1/videos"),
    ("POST", "localhost", "/v1/videos/v/remix"),
    ("GET", "localhost", "/v1/videos/v"),
    ("GET", "localhost", "/v1/realtime"),
    ("POST", "localhost", "/openai/deployments/d/chat/completions"),
    ("POST", "localhost", "/serving-endpoints/e/invocations"),
    ("POST", "localhost", "/v1/messages"),
    ("POST", "localhost", "/v1/messages/count_tokens"),
    ("POST", "localhost", "/v1/complete"),
    ("POST", "localhost", "/v1beta/models/m:generateContent"),
    ("POST", "localhost", "/v1beta/models/m:streamGenerateContent"),
    ("POST", "localhost", "/v1beta/models/m:countTokens"),
    ("POST", "localhost", "/v1beta/models/m:embedContent"),
    ("POST", "localhost", "/v1beta/models/m:batchEmbedContents"),
    ("POST", "localhost", "/v1beta/models/imagen:predict"),
    ("POST", "localhost", "/v1beta/models/veo:predictLongRunning"),
    ("GET", "localhost", "/v1beta/models/veo/operations/o"),
    ("POST", "localhost", "/v1/projects/p/locations/l/publishers/google/models/veo:predict"),
    (
        "POST",
        "localhost",
        "/v1/projects/p/locations/l/publishers/google/models/veo:predictLongRunning",
    ),
    (
        "POST",
        "localhost",
        "/v1/projects/p/locations/l/publishers/google/models/veo:fetchPredictOperation",
    ),
    (
        "POST",
        "localhost",
        "/v1/projects/p/locations/l/publishers/anthropic/models/c:streamRawPredict",
    ),
    ("POST", "localhost", "/v1/projects/p/locations/l/endpoints/openapi/chat/completions"),
    ("POST", "localhost", "/v1/projects/p/locations/l/endpoints/7:predict"),
    ("POST", "localhost", "/model/m/converse"),
    ("POST", "localhost", "/model/m/converse-stream"),
    ("POST", "localhost", "/model/amazon.nova-canvas-v1:0/invoke"),
    ("POST", "localhost", "/model/m/invoke-with-response-stream"),
    ("POST", "localhost", "/model/m/count-tokens"),
    ("POST", "localhost", "/async-invoke"),
    ("GET", "localhost", "/async-invoke/arn"),
    ("POST", "localhost", "/api/chat"),
    ("POST", "localhost", "/api/generate"),
    ("POST", "localhost", "/api/embed"),
    ("POST", "localhost", "/v2/chat"),
    ("POST", "localhost", "/v2/embed"),
    ("POST", "localhost", "/generate"),
    ("POST", "localhost", "/generate_stream"),
    ("POST", "localhost", "/anything"),
    ("POST", "localhost", "/google.cloud.aiplatform.v1.PredictionService/Predict"),
    ("POST", "localhost", "/google.cloud.aiplatform.v1.PredictionService/GenerateContent"),
    (
        "POST",
        "localhost",
        "/google.cloud.aiplatform.v1beta1.PredictionService/StreamGenerateContent",
    ),
    ("POST", "localhost", "/google.cloud.aiplatform.v1.PredictionService/StreamRawPredict"),
    ("POST", "localhost", "/google.cloud.aiplatform.v1.PredictionService/Nothing"),
];

const CONTENT_TYPES: &[&str] = &[
    "",
    "application/json",
    "text/event-stream",
    "application/vnd.amazon.eventstream",
    "application/x-ndjson",
    "application/grpc",
    "text/html",
];

/// The keys that mean something somewhere.
const KEYS: &[&str] = &[
    "id",
    "model",
    "object",
    "choices",
    "index",
    "finish_reason",
    "delta",
    "message",
    "content",
    "text",
    "usage",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "input_tokens",
    "output_tokens",
    "prompt_tokens_details",
    "cached_tokens",
    "completion_tokens_details",
    "reasoning_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "type",
    "error",
    "code",
    "status",
    "details",
    "retryDelay",
    "candidates",
    "parts",
    "thought",
    "finishReason",
    "usageMetadata",
    "promptTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
    "totalTokenCount",
    "cachedContentTokenCount",
    "promptFeedback",
    "blockReason",
    "modelVersion",
    "responseId",
    "inlineData",
    "mimeType",
    "data",
    "b64_json",
    "url",
    "name",
    "done",
    "response",
    "videos",
    "generatedVideos",
    "video",
    "uri",
    "raiMediaFilteredCount",
    "metadata",
    "createTime",
    "updateTime",
    "predictions",
    "tokenMetadata",
    "outputTokenCount",
    "totalTokens",
    "inputTokens",
    "outputTokens",
    "cacheReadInputTokens",
    "stopReason",
    "stop_reason",
    "bytes",
    "chunk",
    "amazon-bedrock-invocationMetrics",
    "inputTokenCount",
    "invocationArn",
    "submitTime",
    "endTime",
    "images",
    "seconds",
    "created_at",
    "completed_at",
    "eval_count",
    "prompt_eval_count",
    "messages",
    "tools",
    "stream",
    "max_tokens",
    "temperature",
    "stop",
    "instances",
    "parameters",
    "durationSeconds",
    "sampleCount",
    "image",
    "bytesBase64Encoded",
    "operationName",
    "contents",
    "functionDeclarations",
    "n",
    "seed",
    "dimensions",
    "instances",
    "outputs",
    "generated_text",
];

struct Case<'a> {
    head: (&'a str, &'a str, &'a str),
    kind: &'static str,
    coding: &'static str,
    status: u16,
    request: Vec<u8>,
    reply: Vec<u8>,
    ending: Ending,
}

fn value(random: &mut Random, depth: usize) -> Value {
    match random.below(if depth == 0 { 9 } else { 14 }) {
        0 => json!(u64::MAX),
        1 => json!(-5),
        2 => json!(1e300),
        3 => json!(0.5),
        4 => json!(random.below(2) == 0),
        5 => Value::Null,
        6 => json!(
            ["stop", "2026-01-01T00:00:00Z", "image/png", "failed", "9e999s", "Completed"]
                [random.below(6)]
        ),
        7 => json!("é\u{0}\u{1F600}\"".repeat(random.below(900))),
        8 => json!(random.below(1000)),
        9 | 10 => (0..random.below(5)).map(|_| value(random, depth - 1)).collect(),
        _ => Value::Object(
            (0..random.below(9))
                .map(|_| (KEYS[random.below(KEYS.len())].to_owned(), value(random, depth - 1)))
                .collect::<Map<_, _>>(),
        ),
    }
}

fn frames(random: &mut Random, kind: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..=random.below(4) {
        let text = value(random, 5).to_string();
        let text = text.replace("null", ["null", "NaN", "Infinity"][random.below(3)]);
        match kind {
            "text/event-stream" => {
                let end = ["\n\n", "\r\n\r\n", "\r\r", "\n"][random.below(4)];
                let name = ["", "event: error\n", "event: message_stop\n", ":\n"][random.below(4)];
                out.extend(format!("{name}data: {text}{end}").bytes());
            }
            "application/vnd.amazon.eventstream" => out.extend(message(random, text.as_bytes())),
            "application/grpc" => {
                let bytes: Vec<u8> =
                    (0..random.below(300)).map(|_| random.below(40) as u8).collect();
                let length = [bytes.len() as u32, u32::MAX, 0][random.below(12).min(2) % 3];
                out.push(random.below(3) as u8);
                out.extend(length.to_be_bytes());
                out.extend(bytes);
            }
            _ => out.extend(format!("{text}\n").bytes()),
        }
    }
    for _ in 0..random.below(3) {
        if !out.is_empty() {
            let at = random.below(out.len());
            out[at] = random.below(256) as u8;
        }
    }
    let shorter = if random.below(3) == 0 { random.below(out.len() + 1) } else { out.len() };
    out.truncate(shorter);
    out
}

fn message(random: &mut Random, payload: &[u8]) -> Vec<u8> {
    let header = |name: &str, value: &str| {
        let mut out = vec![name.len() as u8];
        out.extend(name.bytes());
        out.push(7);
        out.extend((value.len() as u16).to_be_bytes());
        out.extend(value.bytes());
        out
    };
    let kinds = ["event", "exception", "error", ""];
    let headers = [
        header(":message-type", kinds[random.below(4)]),
        header(":event-type", ["chunk", "metadata", "é"][random.below(3)]),
        header(":exception-type", ["éx", "", "throttlingException"][random.below(3)]),
    ]
    .concat();
    let mut out = ((headers.len() + payload.len() + 16) as u32).to_be_bytes().to_vec();
    out.extend((headers.len() as u32).to_be_bytes());
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out.extend(headers);
    out.extend(payload);
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out
}

impl Case<'_> {
    fn record(&self, random: &mut Random) -> Record {
        let mut headers = HeaderMap::new();
        let by_grpc = self.head.2.starts_with("/google.cloud");
        if by_grpc {
            headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        }
        let (method, host, path) = self.head;
        let shape = Shape::read(&HeadView {
            method,
            host: Some(host),
            path,
            query: None,
            headers: &headers,
        });
        let mut observer = Observer::new(shape);
        random.cut(&self.request).into_iter().for_each(|piece| observer.request(piece));
        let mut answer = HeaderMap::new();
        for (name, text) in [
            ("content-type", self.kind),
            ("content-encoding", self.coding),
            ("grpc-encoding", ["", "gzip", "identity"][random.below(3)]),
            ("x-amzn-errortype", if random.below(9) == 0 { "a:b#é" } else { "" }),
            ("retry-after", ["", "-1", "1e999", "99999999999999999999"][random.below(4)]),
            (
                "x-ratelimit-reset-tokens",
                ["", "-1s", "1e9h", "18446744073709551615h"][random.below(4)],
            ),
            (
                "x-amzn-bedrock-input-token-count",
                ["", "-1", "18446744073709551615"][random.below(3)],
            ),
        ] {
            if !text.is_empty() {
                let value = HeaderValue::from_bytes(text.as_bytes()).expect("a value");
                answer.insert(HeaderName::from_static(name), value);
            }
        }
        observer.head(self.status, &answer, Duration::from_millis(10));
        let mut at = 10;
        for piece in random.cut(&self.reply) {
            at += random.below(2000) as u64;
            observer.chunk(piece, Duration::from_millis(at));
        }
        let mut record = Record::default();
        observer.finish(self.ending, Duration::from_millis(at + 1), &mut record);
        record
    }
}

/// No number of a record is negative or none, no text of it is long.
fn check(record: &Record, case: &str) {
    assert!(record.outcome.is_some(), "{case}");
    let mut line = Vec::new();
    record.write_json(&mut line);
    let written: Value = serde_json::from_slice(&line).expect("a record is JSON");
    assert!(line.len() < 300_000, "{} bytes: {case}", line.len());
    let as_serde = serde_json::to_vec(record).expect("a record");
    let as_serde: Value = serde_json::from_slice(&as_serde).expect("a record is JSON");
    assert_eq!(written, as_serde, "{case}");
    for (key, value) in written.as_object().expect("an object") {
        if let Some(text) = value.as_str() {
            assert!(text.len() <= MAX_TEXT, "{key} of {case}");
        }
        let may_be_negative = ["temperature", "seed", "penalty", "top_"];
        if let Some(number) = value.as_f64()
            && !may_be_negative.iter().any(|word| key.contains(word))
        {
            assert!(number >= 0.0, "{key}: {number} of {case}");
        }
    }
    let head = record.time_to_first_byte_s;
    for time in [
        record.time_to_first_body_byte_s,
        record.time_to_first_event_s,
        record.time_to_first_token_s,
        record.time_to_first_visible_token_s,
        record.time_to_last_token_s,
    ] {
        assert!(time.is_none() || time >= head && time <= record.duration_s, "{case}");
    }
    assert!(record.time_to_first_token_s <= record.time_to_last_token_s, "{case}");
}

#[test]
fn whatever_a_call_consists_of_nothing_panics_and_its_record_holds_what_can_be() {
    let calls = std::env::var("HOSTILE_CALLS").ok().and_then(|n| n.parse().ok()).unwrap_or(CALLS);
    let mut random = Random::new("hostile");
    for &head in HEADS {
        for _ in 0..calls {
            let kind = CONTENT_TYPES[random.below(CONTENT_TYPES.len())];
            let coding = ["", "", "", "gzip", "deflate", "br", "zstd"][random.below(7)];
            let mut reply = frames(&mut random, kind);
            if !coding.is_empty() {
                reply = encoded(coding, reply);
                if random.below(3) == 0 && !reply.is_empty() {
                    let at = random.below(reply.len());
                    reply[at] ^= 1 << random.below(8);
                }
            }
            let request_kind =
                if head.2.starts_with("/google.cloud") { "application/grpc" } else { "" };
            let case = Case {
                head,
                kind,
                coding,
                status: [200, 200, 200, 101, 204, 400, 429, 500][random.below(8)],
                request: frames(&mut random, request_kind),
                reply,
                ending: [Ending::Clean, Ending::Broken, Ending::CallerLeft][random.below(3)],
            };
            let record = case.record(&mut random);
            let shown = format!("{head:?} {kind} {coding} {}", case.status);
            check(&record, &shown);
        }
    }
}
