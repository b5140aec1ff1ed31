//! Deflate: as zlib, or bare.

use flate2::{Decompress, FlushDecompress, Status};

use super::{Decoder, Out};
use crate::frame::NotUnderstood;

/// What is decoded at a time.
const PIECE: usize = 4 << 10;

/// Undoes deflate; this takes some 45 KiB.
#[derive(Debug)]
pub(super) struct Inflate {
    state: Decompress,
    pub(super) has_ended: bool,
}

/// What is called deflate: by its definition zlib; some servers send what the name says.
#[derive(Debug)]
pub(super) enum Deflate {
    /// The first two bytes decide; so much of them has come.
    Unsure(Option<u8>),
    Sure(Inflate),
}

// === impl Inflate ===

impl Inflate {
    pub(super) fn bare() -> Self {
        Self { state: Decompress::new(false), has_ended: false }
    }

    fn zlib() -> Self {
        Self { state: Decompress::new(true), has_ended: false }
    }

    /// The same again, from its beginning.
    pub(super) fn restart(&mut self) {
        self.state.reset(false);
        self.has_ended = false;
    }

    /// Decodes as far as the encoding goes, and says how far that was.
    pub(super) fn decode(
        &mut self,
        bytes: &[u8],
        out: &mut Out<'_>,
    ) -> Result<usize, NotUnderstood> {
        let mut used = 0;
        while !self.has_ended {
            let mut piece = [0; PIECE];
            let before = (self.state.total_in(), self.state.total_out());
            let status = self
                .state
                .decompress(&bytes[used..], &mut piece, FlushDecompress::None)
                .map_err(|_| NotUnderstood::Encoded)?;
            let read = (self.state.total_in() - before.0) as usize;
            let made = (self.state.total_out() - before.1) as usize;
            used += read;
            out(&piece[..made])?;
            self.has_ended = status == Status::StreamEnd;
            // A full piece may not have been all.
            if made < PIECE && used == bytes.len() || read == 0 && made == 0 {
                break;
            }
        }
        Ok(used)
    }
}

// === impl Deflate ===

impl Deflate {
    fn begun(first: u8, second: u8) -> Inflate {
        let is_zlib = first & 0x8F == 8 && (u16::from(first) << 8 | u16::from(second)) % 31 == 0;
        if is_zlib { Inflate::zlib() } else { Inflate::bare() }
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
            // What follows the end belongs to nothing.
            Self::Sure(inflate) => inflate.decode(bytes, out).map(drop),
            Self::Unsure(begin) => match (*begin, bytes) {
                (_, []) => Ok(()),
                (None, [first]) => {
                    *begin = Some(*first);
                    Ok(())
                }
                (None, [first, second, ..]) => {
                    *self = Self::Sure(Self::begun(*first, *second));
                    self.decode(bytes, out)
                }
                (Some(first), [second, ..]) => {
                    *self = Self::Sure(Self::begun(first, *second));
                    self.decode(&[first], out)?;
                    self.decode(bytes, out)
                }
            },
        }
    }

    fn end(&mut self) -> bool {
        matches!(self, Self::Sure(Inflate { has_ended: true, .. }))
    }
}
