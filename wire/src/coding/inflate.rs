//! Gzip, and what is called deflate.

use std::io::{self, Write};
use std::mem;

use flate2::write::{DeflateDecoder, GzDecoder, ZlibDecoder};

use super::{Decoder, Out};
use crate::frame::NotUnderstood;

/// What a member of a gzip file begins with.
const MEMBER: u8 = 0x1F;

/// Gzip, of one member or several.
#[derive(Debug)]
pub(super) struct Gzip {
    decoder: GzDecoder<Vec<u8>>,
    /// The last member has ended; what follows belongs to nothing.
    has_ended: bool,
}

/// By its definition zlib; some servers send the bare deflate that the name says.
#[derive(Debug)]
pub(super) enum Deflate {
    /// The first two bytes decide; so much of them has come.
    Unsure(Option<u8>),
    Zlib(ZlibDecoder<Vec<u8>>),
    Bare(DeflateDecoder<Vec<u8>>),
}

// === impl Gzip ===

impl Default for Gzip {
    fn default() -> Self {
        Self { decoder: GzDecoder::new(Vec::new()), has_ended: false }
    }
}

impl Decoder for Gzip {
    fn decode(&mut self, mut bytes: &[u8], out: &mut Out<'_>) -> Result<(), NotUnderstood> {
        while !self.has_ended && !bytes.is_empty() {
            let used = write(&mut self.decoder, bytes, out)?;
            if used == 0 {
                self.decoder.try_finish().map_err(|_| NotUnderstood::Encoded)?;
                self.has_ended = bytes[0] != MEMBER;
                if !self.has_ended {
                    self.decoder = GzDecoder::new(mem::take(self.decoder.get_mut()));
                }
            }
            bytes = &bytes[used..];
        }
        if self.has_ended { Ok(()) } else { flush(&mut self.decoder, out) }
    }

    fn end(&mut self) -> bool {
        self.has_ended || self.decoder.try_finish().is_ok()
    }
}

// === impl Deflate ===

impl Deflate {
    fn begun(first: u8, second: u8) -> Self {
        let is_zlib = first & 0x8F == 8 && (u16::from(first) << 8 | u16::from(second)) % 31 == 0;
        if is_zlib {
            Self::Zlib(ZlibDecoder::new(Vec::new()))
        } else {
            Self::Bare(DeflateDecoder::new(Vec::new()))
        }
    }
}

impl Default for Deflate {
    fn default() -> Self {
        Self::Unsure(None)
    }
}

impl Decoder for Deflate {
    fn decode(&mut self, bytes: &[u8], out: &mut Out<'_>) -> Result<(), NotUnderstood> {
        match self {
            Self::Zlib(decoder) => write_all(decoder, bytes, out),
            Self::Bare(decoder) => write_all(decoder, bytes, out),
            Self::Unsure(begin) => match (*begin, bytes) {
                (_, []) => Ok(()),
                (Some(first), [second, ..]) => {
                    *self = Self::begun(first, *second);
                    self.decode(&[first], out)?;
                    self.decode(bytes, out)
                }
                (None, [first]) => {
                    *begin = Some(*first);
                    Ok(())
                }
                (None, [first, second, ..]) => {
                    *self = Self::begun(*first, *second);
                    self.decode(bytes, out)
                }
            },
        }
    }

    fn end(&mut self) -> bool {
        match self {
            Self::Unsure(begin) => begin.is_none(),
            Self::Zlib(decoder) => decoder.try_finish().is_ok(),
            Self::Bare(decoder) => decoder.try_finish().is_ok(),
        }
    }
}

/// A decoder that writes into memory, a few KiB at a time.
trait Inflate: Write {
    fn made(&mut self) -> &mut Vec<u8>;
}

impl Inflate for GzDecoder<Vec<u8>> {
    fn made(&mut self) -> &mut Vec<u8> {
        self.get_mut()
    }
}

impl Inflate for ZlibDecoder<Vec<u8>> {
    fn made(&mut self) -> &mut Vec<u8> {
        self.get_mut()
    }
}

impl Inflate for DeflateDecoder<Vec<u8>> {
    fn made(&mut self) -> &mut Vec<u8> {
        self.get_mut()
    }
}

fn write_all(
    decoder: &mut impl Inflate,
    mut bytes: &[u8],
    out: &mut Out<'_>,
) -> Result<(), NotUnderstood> {
    while !bytes.is_empty() {
        match write(decoder, bytes, out)? {
            // The encoding has ended; what follows belongs to nothing.
            0 => return Ok(()),
            used => bytes = &bytes[used..],
        }
    }
    flush(decoder, out)
}

fn write(
    decoder: &mut impl Inflate,
    bytes: &[u8],
    out: &mut Out<'_>,
) -> Result<usize, NotUnderstood> {
    let used = decoder.write(bytes);
    hand_on(decoder, used, out)
}

fn flush(decoder: &mut impl Inflate, out: &mut Out<'_>) -> Result<(), NotUnderstood> {
    let flushed = decoder.flush();
    hand_on(decoder, flushed, out)
}

fn hand_on<T>(
    decoder: &mut impl Inflate,
    result: io::Result<T>,
    out: &mut Out<'_>,
) -> Result<T, NotUnderstood> {
    let made = decoder.made();
    let handed = out(made);
    made.clear();
    handed.and(result.map_err(|_| NotUnderstood::Encoded))
}
