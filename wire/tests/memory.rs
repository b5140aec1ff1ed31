//! What an open call costs, whatever its reply does: an endless line, a frame of 24 MiB, a body
//! without an end.
//!
//! Each test wants a process of its own, for all of them are measured by the same allocator.

use std::time::Duration;

use http::HeaderMap;
use peak_alloc::PeakAlloc;
use tidegate_wire::{Ending, HeadView, Observer, Record, Shape};

#[path = "../../tests/support/encoding.rs"]
mod encoding;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

const STREAM_GENERATE_CONTENT: &str =
    "/google.cloud.aiplatform.v1.PredictionService/StreamGenerateContent";

#[test]
fn no_reply_makes_an_observer_grow() {
    let chat = "/v1/chat/completions";
    let sse = "text/event-stream";
    let json = "application/json";
    let letters = vec![b'x'; MIB];
    let few = 8 * MIB;

    // Nothing is collected: what is kept is the reader and the longest text of interest.
    check("a line", GIB, chat, sse, "data: {\"choices\":[{\"delta\":{\"content\":\"", &letters);
    check("the name of a field", few, chat, sse, "x", &letters);
    check("the name of an event", few, chat, sse, "event: x", &letters);
    check("a comment", few, chat, sse, ": x", &letters);
    check("an id", few, chat, json, "{\"id\":\"", &letters);
    check("a key", few, chat, json, "{\"", &letters);
    check("no JSON", few, chat, json, "<html>", &letters);

    check("a line of JSON in a stream", few, chat, sse, "data: 1\n\n{\"", &letters);
    check("an array", few, chat, json, "[", &repeated("1,"));
    check("arrays in arrays", few, chat, json, "", &repeated("["));
    check("objects in a line", few, "/generate", json, "", &repeated("{\"text\":[\"a\"]}\n"));
    check("events", few, chat, sse, "", &repeated("data: {\"choices\":[{\"text\":\"a\"}]}\n\n"));
    check("errors", few, chat, sse, "", &repeated("data: {\"error\":{\"type\":\"x\"}}\n\n"));

    let frame = frame(24 * MIB);
    let stream = "application/vnd.amazon.eventstream";
    let converse = "/model/m/converse-stream";
    check_bytes("a frame of 24 MiB", 24 * MIB, converse, stream, &frame, &letters, 8 * KIB);

    // A message as long as a length can say, and within it a string of interest.
    let (grpc, generate) = ("application/grpc", STREAM_GENERATE_CONTENT);
    let endless = b"\0\xFF\xFF\xFF\xFF";
    let id = [&endless[..], b"\x6A\xF0\xFF\xFF\x0F"].concat();
    check_bytes("a message", few, generate, grpc, endless, &letters, 8 * KIB);
    check_bytes("an id in a message", few, generate, grpc, &id, &letters, 8 * KIB);
    check("empty messages", few, generate, grpc, "", &repeated("\0\0\0\0\0"));
}

/// Choices and short frames are kept, up to a bound.
#[test]
fn what_is_kept_is_bounded() {
    let choice = |at: usize| {
        let reason = "r".repeat(4 * KIB);
        format!("data: {{\"choices\":[{{\"index\":{at},\"finish_reason\":\"{reason}\"}}]}}\n\n")
    };
    let choices: String = (0..1000).map(choice).collect();
    let (chat, sse) = ("/v1/chat/completions", "text/event-stream");
    check_bytes("choices", 0, chat, sse, choices.as_bytes(), b"x", 48 * KIB);

    let stream = "application/vnd.amazon.eventstream";
    let begun = frame(64 * KIB);
    check_bytes("a frame", 60 * KIB, "/model/m/converse-stream", stream, &begun, b"x", 112 * KIB);
}

/// A decoder keeps the window of its format.
#[test]
fn a_decoder_is_bounded() {
    let mut random = 1u64;
    let mut noise = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        b'a' + (random % 16) as u8
    };
    let noise: Vec<u8> = (0..MIB).map(|_| noise()).collect();
    let body = noise.repeat(6);
    for (coding, most) in [("gzip", 64 * KIB), ("deflate", 64 * KIB), ("br", 5 * MIB)] {
        let reply = encoding::encoded(coding, [b"{\"x\":\"", body.as_slice()].concat());
        let mut headers = HeaderMap::new();
        headers.insert("content-encoding", coding.parse().expect("a value"));
        let cost = cost("/v1/chat/completions", &headers, |observer| {
            reply.chunks(16 * KIB).for_each(|piece| observer.chunk(piece, Duration::ZERO));
        });
        println!("{coding}: {} KiB", cost / KIB);
        assert!(cost <= most, "{coding}: {cost} bytes");
    }
}

#[track_caller]
fn check(name: &str, length: usize, path: &str, content_type: &str, start: &str, rest: &[u8]) {
    check_bytes(name, length, path, content_type, start.as_bytes(), rest, 8 * KIB);
}

#[track_caller]
fn check_bytes(
    name: &str,
    length: usize,
    path: &str,
    content_type: &str,
    start: &[u8],
    rest: &[u8],
    most: usize,
) {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", content_type.parse().expect("a value"));
    let cost = cost(path, &headers, |observer| {
        observer.chunk(start, Duration::ZERO);
        for _ in 0..length / rest.len() {
            observer.chunk(rest, Duration::ZERO);
        }
    });
    println!("{name}: {cost} bytes");
    assert!(cost <= most, "{name}: {cost} bytes");
}

/// The most that an observer has held.
fn cost(path: &str, headers: &HeaderMap, feed: impl FnOnce(&mut Observer)) -> usize {
    let observe = |feed: Box<dyn FnOnce(&mut Observer) + '_>| {
        let mut observer = Observer::new(Shape::read(&HeadView {
            method: "POST",
            host: Some("localhost"),
            path,
            query: None,
            headers,
        }));
        observer.head(200, headers, Duration::ZERO);
        feed(&mut observer);
        observer.finish(Ending::Broken, Duration::ZERO, &mut Record::default());
    };
    // Tables are made once, and words are kept.
    observe(Box::new(|_| {}));
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    observe(Box::new(feed));
    MEMORY.peak_usage() - before
}

fn repeated(text: &str) -> Vec<u8> {
    text.bytes().cycle().take(MIB / text.len() * text.len()).collect()
}

/// A frame of this length, as far as a string in its payload.
fn frame(length: usize) -> Vec<u8> {
    let header = b"\x0D:message-type\x07\x00\x05event";
    let mut bytes = Vec::from((length as u32).to_be_bytes());
    bytes.extend((header.len() as u32).to_be_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
    bytes.extend(header);
    bytes.extend(b"{\"delta\":{\"text\":\"");
    bytes
}
