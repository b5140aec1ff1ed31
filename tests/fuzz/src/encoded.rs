//! Encoded replies: what is compressed reads as what it was, wherever it is cut, and what is no such
//! encoding is only given up.

use std::io::Write;

use brotli::CompressorWriter;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use tidegate_wire::Record;
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer};

use crate::input::{Input, cut};
use crate::observer::{ANTHROPIC, Call, OPENAI_CHAT};

/// The word in a head, and what encodes at one of its levels.
type Coding = (&'static str, fn(&[u8], u32) -> Vec<u8>);

pub(crate) const CODINGS: &[Coding] =
    &[("gzip", gzip), ("deflate", deflate), ("deflate", bare_deflate), ("br", br), ("zstd", zstd)];
/// Kinds: the reply is compressed as it comes.
pub(crate) const RAW: u8 = 2;
/// Kinds: the reply in two bodies of its encoding, one behind the other.
const TWICE: u8 = 4;

pub(crate) fn encoded(data: &[u8]) {
    let mut input = Input::new(data);
    let (kind, level) = (input.byte(), input.byte());
    let coding = CODINGS[usize::from(kind >> 3) % CODINGS.len()];
    let call = Call::read(if kind & 1 == 0 { &OPENAI_CHAT } else { &ANTHROPIC }, input.rest());
    if kind & RAW == 0 {
        compressed(&call, coding, u32::from(level % 10), kind & TWICE != 0);
    } else {
        as_it_is(&call, coding.0);
    }
}

fn compressed(call: &Call<'_>, (coding, encode): Coding, level: u32, is_twice: bool) {
    // What encodes an empty body is not empty: it has a first byte.
    let record = |coding, parts: &[&[u8]]| Record {
        time_to_first_body_byte_s: None,
        ..call.encoded(coding, parts)
    };
    let plain = record("identity", &[&call.reply]);
    let reply = match call.reply.split_at(call.reply.len() / 2) {
        // Only these formats have it.
        (head, tail) if is_twice && matches!(coding, "gzip" | "zstd") => {
            [encode(head, level), encode(tail, level)].concat()
        }
        _ => encode(&call.reply, level),
    };
    assert_eq!(record(coding, &[&reply]), plain, "{coding}, whole");
    assert_eq!(record(coding, &cut(call.seed, &reply)), plain, "{coding}, cut");
    assert_eq!(record(coding, &cut(0, &reply)), plain, "{coding}, byte by byte");
}

fn as_it_is(call: &Call<'_>, coding: &'static str) {
    let whole = call.encoded(coding, &[&call.reply]);
    let parts = call.encoded(coding, &cut(call.seed, &call.reply));
    // How much could be read before a mistake depends on how it came.
    if !is_given_up(&whole) && !is_given_up(&parts) {
        assert_eq!(parts, whole, "{coding}, cut");
    }
}

fn is_given_up(record: &Record) -> bool {
    record.not_understood.as_deref() == Some("encoded")
}

/// What it compresses to, in two flushes, as all of these.
pub(crate) fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
    let encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    flushed(encoder, bytes).finish().expect("memory takes everything")
}

fn deflate(bytes: &[u8], level: u32) -> Vec<u8> {
    let encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
    flushed(encoder, bytes).finish().expect("memory takes everything")
}

fn bare_deflate(bytes: &[u8], level: u32) -> Vec<u8> {
    let encoder = DeflateEncoder::new(Vec::new(), Compression::new(level));
    flushed(encoder, bytes).finish().expect("memory takes everything")
}

fn br(bytes: &[u8], level: u32) -> Vec<u8> {
    // Its higher levels take some 30 MiB.
    flushed(CompressorWriter::new(Vec::new(), 4096, level.min(4), 16), bytes).into_inner()
}

fn flushed<W: Write>(mut encoder: W, bytes: &[u8]) -> W {
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    encoder.write_all(first).expect("memory takes everything");
    encoder.flush().expect("memory takes everything");
    encoder.write_all(rest).expect("memory takes everything");
    encoder
}

fn zstd(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut context = CCtx::create();
    let parameters = [
        CParameter::CompressionLevel(level as i32),
        // Small windows, that little memory does.
        CParameter::WindowLog(10 + level),
        CParameter::ChecksumFlag(level & 1 == 1),
    ];
    for parameter in parameters {
        context.set_parameter(parameter).expect("a parameter that it has");
    }
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    let mut encoded = vec![0; 2 * zstd_safe::compress_bound(bytes.len())];
    let mut output = OutBuffer::around(encoded.as_mut_slice());
    let mut feed = |bytes, is_last: bool| {
        let mut input = InBuffer::around(bytes);
        context.compress_stream(&mut output, &mut input).expect("there is room");
        let left = match is_last {
            true => context.end_stream(&mut output),
            false => context.flush_stream(&mut output),
        };
        assert_eq!(left, Ok(0), "there was room");
    };
    feed(first, false);
    feed(rest, true);
    let length = output.pos();
    encoded.truncate(length);
    encoded
}
