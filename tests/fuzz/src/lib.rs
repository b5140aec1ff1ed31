//! What is fuzzed: plain functions of bytes, each with what must hold whatever the bytes are.
//!
//! `tests/replay.rs` runs them on a stable toolchain, over seeds and kept inputs; `cargo-fuzz/`
//! looks for more.

pub mod seeds;

mod chunked;
mod content;
mod encoded;
mod event_stream;
mod frames;
mod grpc;
mod head;
mod hints;
mod include_usage;
mod input;
mod json;
mod json_array;
mod members;
mod observer;
mod picture;
mod pieces;
mod protobuf;
mod request;
mod scrape;
mod shape;
mod sse;

/// A target: panics where something does not hold.
pub type Target = fn(&[u8]);

/// Inputs are no longer than this; what takes more is built from them.
pub const MAX_INPUT: usize = 8 << 10;

/// All targets, by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("sse", sse::sse),
    ("event_stream", event_stream::event_stream),
    ("json", json::json),
    ("json_array", json_array::json_array),
    ("protobuf", protobuf::protobuf),
    ("encoded", encoded::encoded),
    ("shape", shape::shape),
    ("openai_chat", observer::openai_chat),
    ("openai_responses", observer::openai_responses),
    ("anthropic", observer::anthropic),
    ("gemini", observer::gemini),
    ("vertex", observer::vertex),
    ("bedrock_converse", observer::bedrock_converse),
    ("bedrock_invoke", observer::bedrock_invoke),
    ("generate", observer::generate),
    ("ollama", observer::ollama),
    ("cohere", observer::cohere),
    ("grpc", grpc::grpc),
    ("request", request::request),
    ("picture", picture::picture),
    ("hints", hints::hints),
    ("content", content::content),
    ("scrape", scrape::scrape),
    ("request_head", head::request_head),
    ("reply_head", head::reply_head),
    ("chunked", chunked::chunked),
    ("usage_question", include_usage::usage_question),
    ("usage_filter", include_usage::usage_filter),
];
