//! The messages of a gRPC stream by Gemini, written by hand for tests.

use super::protobuf::{field, number};

/// A message behind its prefix.
pub(crate) fn message(payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    [&[0][..], &(payload.len() as u32).to_be_bytes(), payload].concat()
}

/// A `GenerateContentResponse` with some text.
pub(crate) fn token(text: &str) -> Vec<u8> {
    let part = field(2, field(1, text));
    let candidate = field(2, field(2, [field(1, "model"), part].concat()));
    [candidate, field(11, "gemini-2.5-flash-001"), field(13, "r1")].concat()
}

/// One that ends a stream: why, and what it has used.
pub(crate) fn last(reason: u64, prompt: u64, output: u64) -> Vec<u8> {
    let usage = [number(1, prompt), number(2, output), number(3, prompt + output)].concat();
    [
        field(2, number(3, reason)),
        field(4, usage),
        field(11, "gemini-2.5-flash-001"),
        field(13, "r1"),
    ]
    .concat()
}
