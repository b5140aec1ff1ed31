//! Encoded replies: what is compressed reads as what it was, and what is no such encoding is only
//! given up.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use tidegate_wire::Record;

use crate::input::{Input, cut};
use crate::observer::{ANTHROPIC, Call, OPENAI_CHAT};

pub(crate) fn encoded(data: &[u8]) {
    let mut input = Input::new(data);
    let (kind, level) = (input.byte(), input.byte());
    let call = Call::read(if kind & 1 == 0 { &OPENAI_CHAT } else { &ANTHROPIC }, input.rest());
    if kind & 2 == 0 {
        compressed(&call, u32::from(level % 10));
    } else {
        as_it_is(&call);
    }
}

fn compressed(call: &Call<'_>, level: u32) {
    // What encodes an empty body is not empty: it has a first byte.
    let record = |coding, parts: &[&[u8]]| Record {
        time_to_first_body_byte_s: None,
        ..call.encoded(coding, parts)
    };
    let plain = record("identity", &[&call.reply]);
    let reply = gzip(&call.reply, level);
    assert_eq!(record("gzip", &[&reply]), plain, "whole");
    assert_eq!(record("gzip", &cut(call.seed, &reply)), plain, "cut");
    assert_eq!(record("gzip", &cut(0, &reply)), plain, "byte by byte");
}

fn as_it_is(call: &Call<'_>) {
    let whole = call.encoded("gzip", &[&call.reply]);
    let parts = call.encoded("gzip", &cut(call.seed, &call.reply));
    // How much could be read before a mistake depends on how it came.
    if !is_given_up(&whole) && !is_given_up(&parts) {
        assert_eq!(parts, whole, "cut");
    }
}

fn is_given_up(record: &Record) -> bool {
    record.not_understood.as_deref() == Some("encoded")
}

/// What it compresses to, in two flushes.
pub(crate) fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    encoder.write_all(first).expect("memory takes everything");
    encoder.flush().expect("memory takes everything");
    encoder.write_all(rest).expect("memory takes everything");
    encoder.finish().expect("memory takes everything")
}
