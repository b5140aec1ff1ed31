//! What is fuzzed: plain functions of bytes, each with what must hold whatever the bytes are.
//!
//! `tests/replay.rs` runs them on a stable toolchain, over seeds and kept inputs; `cargo-fuzz/`
//! looks for more.

pub mod seeds;

mod chunked;
mod encoded;
mod event_stream;
mod frames;
mod head;
mod input;
mod json;
mod json_array;
mod observer;
mod pieces;
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
    ("request_head", head::request_head),
    ("reply_head", head::reply_head),
    ("chunked", chunked::chunked),
];
