//! Gzip (RFC 1952), of one member or several.

use crc32fast::Hasher;

use super::inflate::Inflate;
use super::{Decoder, Out};
use crate::frame::NotUnderstood;

/// What a member begins with: gzip, by deflate.
const MAGIC: [u8; 3] = [0x1F, 0x8B, 8];
const FIXED: usize = 10;
const TRAILER: usize = 8;

/// The parts that a header may have, in their order.
const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;
const CHECKSUM: u8 = 2;
/// Flags that mean nothing yet.
const RESERVED: u8 = 0xE0;

/// Gzip.
#[derive(Debug)]
pub(super) struct Gzip {
    part: Part,
    /// The parts of the header that are still to come.
    flags: u8,
    inflate: Inflate,
    hasher: Hasher,
    /// How long the member is by now; the format counts so far, too.
    length: u32,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Fixed(usize),
    ExtraLength(Option<u8>),
    Skipped(u16),
    /// Up to a zero.
    Text,
    Body,
    Trailer(usize),
    /// A member has ended: another may follow.
    Between,
    /// What follows belongs to nothing.
    Ended,
}

// === impl Gzip ===

impl Gzip {
    /// One byte of the header or the trailer.
    fn byte(&mut self, byte: u8) -> Result<(), NotUnderstood> {
        match self.part {
            Part::Fixed(at) => {
                let is_wrong = MAGIC.get(at).is_some_and(|magic| *magic != byte);
                if at == MAGIC.len() {
                    self.flags = byte;
                }
                if is_wrong || self.flags & RESERVED != 0 {
                    return Err(NotUnderstood::Encoded);
                }
                self.part = Part::Fixed(at + 1);
                if at + 1 == FIXED {
                    self.next_part();
                }
            }
            Part::ExtraLength(None) => self.part = Part::ExtraLength(Some(byte)),
            Part::ExtraLength(Some(low)) => self.skip(u16::from_le_bytes([low, byte])),
            Part::Skipped(left) => self.skip(left - 1),
            Part::Text if byte == 0 => self.next_part(),
            Part::Trailer(at) => {
                let crc = self.hasher.clone().finalize();
                let wanted = [crc.to_le_bytes(), self.length.to_le_bytes()];
                if byte != wanted.as_flattened()[at] {
                    return Err(NotUnderstood::Encoded);
                }
                let is_last = at + 1 == TRAILER;
                self.part = if is_last { Part::Between } else { Part::Trailer(at + 1) };
            }
            Part::Between if byte == MAGIC[0] => {
                self.inflate.restart();
                self.hasher.reset();
                self.length = 0;
                self.part = Part::Fixed(1);
            }
            Part::Between => self.part = Part::Ended,
            Part::Text | Part::Body | Part::Ended => {}
        }
        Ok(())
    }

    fn skip(&mut self, length: u16) {
        match length {
            0 => self.next_part(),
            _ => self.part = Part::Skipped(length),
        }
    }

    fn next_part(&mut self) {
        let parts = [EXTRA, NAME, COMMENT, CHECKSUM];
        let next = parts.into_iter().find(|part| self.flags & part != 0).unwrap_or(0);
        self.flags &= !next;
        self.part = match next {
            EXTRA => Part::ExtraLength(None),
            NAME | COMMENT => Part::Text,
            CHECKSUM => Part::Skipped(2),
            _ => Part::Body,
        };
    }

    fn body(&mut self, bytes: &[u8], out: &mut Out<'_>) -> Result<usize, NotUnderstood> {
        let (hasher, length) = (&mut self.hasher, &mut self.length);
        let used = self.inflate.decode(bytes, &mut |bytes| {
            hasher.update(bytes);
            *length = length.wrapping_add(bytes.len() as u32);
            out(bytes)
        })?;
        if self.inflate.has_ended {
            self.part = Part::Trailer(0);
        } else if used == 0 {
            return Err(NotUnderstood::Encoded);
        }
        Ok(used)
    }
}

impl Default for Gzip {
    fn default() -> Self {
        let (inflate, hasher) = (Inflate::bare(), Hasher::new());
        Self { part: Part::Fixed(0), flags: 0, inflate, hasher, length: 0 }
    }
}

impl Decoder for Gzip {
    fn decode(&mut self, mut bytes: &[u8], out: &mut Out<'_>) -> Result<(), NotUnderstood> {
        while !bytes.is_empty() && self.part != Part::Ended {
            let used = if self.part == Part::Body {
                self.body(bytes, out)?
            } else {
                self.byte(bytes[0])?;
                1
            };
            bytes = &bytes[used..];
        }
        Ok(())
    }

    fn end(&mut self) -> bool {
        matches!(self.part, Part::Between | Part::Ended)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, GzBuilder};

    use super::*;

    fn decoded(gzip: &[u8], piece: usize) -> Result<Vec<u8>, NotUnderstood> {
        let (mut decoder, mut made) = (Gzip::default(), Vec::new());
        for bytes in gzip.chunks(piece) {
            decoder.decode(bytes, &mut |bytes| {
                made.extend_from_slice(bytes);
                Ok(())
            })?;
        }
        assert!(decoder.end(), "the last member has ended");
        Ok(made)
    }

    fn encoded(builder: GzBuilder, text: &[u8]) -> Vec<u8> {
        let mut encoder = builder.write(Vec::new(), Compression::fast());
        encoder.write_all(text).expect("memory takes everything");
        encoder.finish().expect("memory takes everything")
    }

    #[test]
    fn every_part_of_a_header_is_passed_over_and_members_follow_each_other() {
        let full = GzBuilder::new().extra(vec![7; 300]).filename("a").comment("b");
        let empty = GzBuilder::new().extra(Vec::new());
        let gzip = [encoded(full, b"one "), encoded(empty, b""), encoded(GzBuilder::new(), b"two")];
        let gzip = [gzip.concat(), b"and what belongs to nothing".to_vec()].concat();
        for piece in [1, 2, 3, 7, gzip.len()] {
            assert_eq!(decoded(&gzip, piece).as_deref(), Ok(b"one two".as_slice()), "by {piece}");
        }
    }

    #[test]
    fn a_wrong_checksum_or_length_is_no_gzip() {
        let gzip = encoded(GzBuilder::new(), b"text");
        for at in 1..=TRAILER {
            let mut wrong = gzip.clone();
            wrong[gzip.len() - at] ^= 1;
            assert_eq!(decoded(&wrong, gzip.len()), Err(NotUnderstood::Encoded), "byte {at}");
        }
    }
}
