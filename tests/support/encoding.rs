//! Content encodings, the way that they are sent.

use std::io::Write;

use brotli::CompressorWriter;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

/// Encodes a body, in the word of `content-encoding` or one of our own for what that does not tell
/// apart. A body whose encoding stays unknown is left as it is.
pub(crate) fn encoded(encoding: &str, bytes: Vec<u8>) -> Vec<u8> {
    let level = Compression::default();
    match encoding {
        "gzip" => whole(GzEncoder::new(Vec::new(), level), &bytes).finish(),
        "gzip members" => Ok(members(&bytes)),
        "deflate" => whole(ZlibEncoder::new(Vec::new(), level), &bytes).finish(),
        "bare deflate" => whole(DeflateEncoder::new(Vec::new(), level), &bytes).finish(),
        "br" => Ok(whole(CompressorWriter::new(Vec::new(), 4096, 5, 22), &bytes).into_inner()),
        "zstd" => Ok(zstd(&bytes)),
        _ => Ok(bytes),
    }
    .expect("memory takes everything")
}

fn whole<W: Write>(mut encoder: W, bytes: &[u8]) -> W {
    encoder.write_all(bytes).expect("memory takes everything");
    encoder
}

/// Two gzip members, as a proxy makes them that joins what it got encoded.
fn members(bytes: &[u8]) -> Vec<u8> {
    let (head, tail) = bytes.split_at(bytes.len() / 2);
    [encoded("gzip", head.to_vec()), encoded("gzip", tail.to_vec())].concat()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut compressed = vec![0; zstd_safe::compress_bound(bytes.len())];
    let length = zstd_safe::compress(compressed.as_mut_slice(), bytes, 3).expect("there is room");
    compressed.truncate(length);
    compressed
}
