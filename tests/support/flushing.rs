//! Content encodings of a stream, each piece ready to be decoded as it comes.

use std::io::Write;

use brotli::CompressorWriter;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use zstd_safe::{CCtx, InBuffer, OutBuffer};

/// Encodes the next piece.
pub(crate) type Encode = Box<dyn FnMut(&[u8]) -> Vec<u8>>;

/// Encodes piece by piece, in the words of `encoding.rs`.
pub(crate) fn flushing(coding: &str) -> Encode {
    let level = Compression::fast();
    match coding {
        "gzip" => encoder(GzEncoder::new(Vec::new(), level), GzEncoder::get_mut),
        "deflate" => encoder(ZlibEncoder::new(Vec::new(), level), ZlibEncoder::get_mut),
        "bare deflate" => encoder(DeflateEncoder::new(Vec::new(), level), DeflateEncoder::get_mut),
        "br" => encoder(CompressorWriter::new(Vec::new(), 4096, 5, 22), CompressorWriter::get_mut),
        "zstd" => zstd(),
        _ => panic!("no encoding is called {coding}"),
    }
}

fn encoder<W: Write + 'static>(mut encoder: W, made: fn(&mut W) -> &mut Vec<u8>) -> Encode {
    Box::new(move |bytes| {
        encoder.write_all(bytes).expect("memory takes everything");
        encoder.flush().expect("memory takes everything");
        std::mem::take(made(&mut encoder))
    })
}

fn zstd() -> Encode {
    let mut context = CCtx::create();
    Box::new(move |bytes| {
        let mut piece = vec![0; 4096];
        let mut output = OutBuffer::around(piece.as_mut_slice());
        let mut input = InBuffer { src: bytes, pos: 0 };
        context.compress_stream(&mut output, &mut input).expect("there is room");
        context.flush_stream(&mut output).expect("there is room");
        output.as_slice().to_vec()
    })
}
