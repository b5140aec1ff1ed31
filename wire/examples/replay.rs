//! Reads a stream chunk by chunk, or a call whole, so and so often, for a profiler:
//! `replay openai-sse 1000`.
//!
//! What one chunk costs is the difference of two runs, by the difference of their counts.

use std::hint::black_box;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tidegate_wire::{Ending, HeadView, Observer, Record, Shape};

#[path = "../../tests/support/event_stream.rs"]
mod event_stream;

const GAP: Duration = Duration::from_millis(20);
const GEMINI_PATH: &str = "/v1beta/models/gemini-large:streamGenerateContent";
const SSE: &str = "text/event-stream";
const EVENT_STREAM: &str = "application/vnd.amazon.eventstream";

fn main() {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().expect("a name");
    let count: u32 = arguments.next().expect("a count").parse().expect("a number");
    if name == "plain" {
        (0..count).for_each(|_| drop(black_box(plain())));
        return;
    }
    let (path, content_type, chunks) = stream(&name);
    let mut observer = observer(path);
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static(content_type));
    observer.head(200, &headers, GAP);
    for at in 0..count {
        observer.chunk(black_box(&chunks[at as usize % chunks.len()]), GAP * at);
    }
    let mut record = Record::default();
    observer.finish(Ending::Clean, GAP * count, &mut record);
    if std::env::var_os("SHOW").is_some() {
        println!("{}", serde_json::to_string(&record).expect("a record"));
    }
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

fn plain() -> Record {
    let question = "What moves the tide, and why does it come twice a day? ".repeat(16);
    let request = format!(
        r#"{{"model":"gpt-4o-mini","messages":[{{"role":"system","content":"You are a harbour master."}},{{"role":"user","content":"{question}"}}],"temperature":0.7}}"#
    );
    let answer = format!(
        r#"{{"id":"chatcmpl-AbCdEf","object":"chat.completion","created":1760000000,"model":"gpt-4o-mini-2024-07-18","choices":[{{"index":0,"message":{{"role":"assistant","content":"{question}","refusal":null,"annotations":[]}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":210,"completion_tokens":200,"total_tokens":410,"prompt_tokens_details":{{"cached_tokens":0,"audio_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}},"service_tier":"default","system_fingerprint":"fp_0123456789"}}"#
    );
    let mut observer = observer("/v1/chat/completions");
    observer.request(request.as_bytes());
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    observer.head(200, &headers, GAP);
    observer.chunk(answer.as_bytes(), GAP);
    let mut record = Record::default();
    observer.finish(Ending::Clean, GAP, &mut record);
    record
}

/// Path, content type and chunks.
fn stream(name: &str) -> (&'static str, &'static str, Vec<Vec<u8>>) {
    const WORDS: [&str; 10] = [
        " tide",
        " the",
        ",",
        " comes",
        " twice",
        " a",
        " day",
        ".\\n\\n",
        " The",
        " \\u00e9t\\u00e9",
    ];
    let chunks = |one: fn(&str) -> Vec<u8>| WORDS.iter().map(|word| one(word)).collect();
    match name {
        "openai-sse" => ("/v1/chat/completions", SSE, chunks(openai)),
        "responses-sse" => ("/v1/responses", SSE, chunks(responses)),
        "anthropic-sse" => ("/v1/messages", SSE, chunks(anthropic)),
        "gemini-sse" => (GEMINI_PATH, SSE, chunks(gemini)),
        "converse" => ("/model/m/converse-stream", EVENT_STREAM, chunks(converse)),
        "invoke" => ("/model/m/invoke-with-response-stream", EVENT_STREAM, chunks(invoke)),
        "ollama" => ("/api/chat", "application/x-ndjson", chunks(ollama)),
        _ => panic!("no such stream: {name}"),
    }
}

fn openai(word: &str) -> Vec<u8> {
    format!(
        r#"data: {{"id":"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012","object":"chat.completion.chunk","created":1762179802,"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_0123456789","choices":[{{"index":0,"delta":{{"content":"{word}"}},"logprobs":null,"finish_reason":null}}],"usage":null,"obfuscation":"AbCdEfGhIjKl"}}"#
    )
    .into_bytes()
    .into_iter()
    .chain(*b"\n\n")
    .collect()
}

fn responses(word: &str) -> Vec<u8> {
    let data = format!(
        r#"{{"type":"response.output_text.delta","sequence_number":7,"item_id":"msg_0123456789abcdef","output_index":0,"content_index":0,"delta":"{word}","logprobs":[],"obfuscation":"abcdefghijk"}}"#
    );
    format!("event: response.output_text.delta\ndata: {data}\n\n").into_bytes()
}

fn anthropic(word: &str) -> Vec<u8> {
    format!("event: content_block_delta\ndata: {}\n\n", delta(word)).into_bytes()
}

fn delta(word: &str) -> String {
    format!(
        r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{word}"}}}}"#
    )
}

fn gemini(word: &str) -> Vec<u8> {
    format!(
        "data: {{\"candidates\": [{{\"content\": {{\"parts\": [{{\"text\": \"{word}\"}}],\"role\": \"model\"}},\"index\": 0}}],\"usageMetadata\": {{\"promptTokenCount\": 10,\"candidatesTokenCount\": 2,\"totalTokenCount\": 12,\"promptTokensDetails\": [{{\"modality\": \"TEXT\",\"tokenCount\": 10}}]}},\"modelVersion\": \"gemini-large\",\"responseId\": \"AbCdEfGhIjKlMnOp\"}}\r\n\r\n"
    )
    .into_bytes()
}

fn ollama(word: &str) -> Vec<u8> {
    format!(
        "{{\"model\":\"llama-small\",\"created_at\":\"2026-01-01T00:00:00.123456789Z\",\"message\":{{\"role\":\"assistant\",\"content\":\"{word}\"}},\"done\":false}}\n"
    )
    .into_bytes()
}

fn converse(word: &str) -> Vec<u8> {
    let payload = json!({"contentBlockIndex": 0, "delta": {"text": word}, "p": "abcdefghijklmn"});
    event("contentBlockDelta", &payload)
}

fn invoke(word: &str) -> Vec<u8> {
    event("chunk", &json!({"bytes": STANDARD.encode(delta(word)), "p": "abcdefghijklmnopqr"}))
}

fn event(kind: &str, payload: &Value) -> Vec<u8> {
    let headers = json!({
        ":event-type": kind,
        ":content-type": "application/json",
        ":message-type": "event",
    });
    event_stream::message(&json!({"headers": headers, "payload": payload}))
}
