//! What does it cost to observe a request? A typical one, and large ones that carry an image.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use http::HeaderMap;
use tidegate_wire::{Ending, HeadView, Observer, Record, Shape};

criterion_group!(benches, typical, large);
criterion_main!(benches);

const CHAT: &str = "/v1/chat/completions";
const GEMINI: &str = "/v1beta/models/gemini-large:generateContent";
const EMBEDDINGS: &str = "/v1/embeddings";
const VEO: &str = "/v1/projects/p/locations/l/publishers/google/models/veo-3:predictLongRunning";

/// Pieces in which a body comes.
const CHUNK: usize = 16 << 10;

/// A chat of about 1 KiB and an array of numbers, from the head of the request to the record.
fn typical(c: &mut Criterion) {
    let mut group = c.benchmark_group("request");
    for (name, path, body) in [
        ("chat-1k", CHAT, chat()),
        ("chat-1k-stream", CHAT, streaming_chat()),
        ("token-ids-64k", EMBEDDINGS, token_ids(64 << 10)),
    ] {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut observer = observer(path);
                observer.request(black_box(body.as_bytes()));
                let mut record = Record::default();
                observer.finish(Ending::Clean, Duration::ZERO, &mut record);
                black_box(record)
            });
        });
    }
    group.finish();
}

/// Images within the body, read in pieces; beside them the search that any reader needs.
fn large(c: &mut Criterion) {
    let mut group = c.benchmark_group("request");
    group.sample_size(20);
    for (size, length) in [("1m", 1 << 20), ("20m", 20 << 20)] {
        let image = "iVBORw0KGgoAAAANSUhEUgAA".repeat(length / 24);
        let bodies = [
            ("openai", CHAT, openai(&image)),
            ("gemini", GEMINI, gemini(&image)),
            ("veo", VEO, veo(&image)),
        ];
        group.throughput(Throughput::Bytes(length as u64));
        for (name, path, body) in bodies {
            group.bench_function(format!("{name}-image-{size}"), |b| {
                b.iter_batched_ref(
                    || observer(path),
                    |observer| {
                        for piece in black_box(body.as_bytes()).chunks(CHUNK) {
                            observer.request(piece);
                        }
                    },
                    BatchSize::SmallInput,
                );
            });
        }
        group.bench_function(format!("memchr2-{size}"), |b| {
            b.iter(|| {
                let pieces = black_box(image.as_bytes()).chunks(CHUNK);
                pieces.filter_map(|piece| memchr::memchr2(b'"', b'\\', piece)).count()
            });
        });
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

fn chat() -> String {
    let question = "What moves the tide, and why does it come twice a day?\\n".repeat(5);
    format!(
        r#"{{"model":"gpt-large","messages":[{{"role":"system","content":"You are a harbour master. Answer briefly, and say what you do not know."}},{{"role":"user","content":"{question}"}},{{"role":"assistant","content":"The moon, mostly."}},{{"role":"user","content":[{{"type":"text","text":"{question}"}}]}}],"temperature":0.2,"top_p":0.9,"max_tokens":512,"stop":["END"],"tools":[{{"type":"function","function":{{"name":"tide","parameters":{{"type":"object","properties":{{"harbour":{{"type":"string"}}}}}}}}}}],"user":"u-1"}}"#
    )
}

fn streaming_chat() -> String {
    chat().replace(r#""model":"gpt-large","#, r#""model":"gpt-large","stream":true,"#)
}

/// A text that its caller has cut into tokens.
fn token_ids(length: usize) -> String {
    format!(r#"{{"input":[{}15],"model":"embedding-large"}}"#, "10842, ".repeat(length / 7))
}

fn openai(image: &str) -> String {
    format!(
        r#"{{"messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{image}"}}}},{{"type":"text","text":"What is this?"}}]}}],"model":"gpt-large"}}"#
    )
}

fn gemini(image: &str) -> String {
    format!(
        r#"{{"contents":[{{"role":"user","parts":[{{"inlineData":{{"data":"{image}","mimeType":"image/png"}}}}]}}],"generationConfig":{{"maxOutputTokens":64}}}}"#
    )
}

fn veo(image: &str) -> String {
    format!(
        r#"{{"instances":[{{"prompt":"a tide","image":{{"bytesBase64Encoded":"{image}","mimeType":"image/png"}}}}],"parameters":{{"durationSeconds":8}}}}"#
    )
}
