//! Zstandard, with windows of at most 8 MiB as RFC 9659 has it.

use std::fmt;

use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::{Decoder, Out};
use crate::frame::NotUnderstood;

/// What is decoded at a time.
const PIECE: usize = 4 << 10;
/// 8 MiB, as a power of two.
const MAX_WINDOW_LOG: u32 = 23;

/// Zstandard, of one frame or several.
pub(super) struct Zstd {
    context: DCtx<'static>,
    /// A frame has ended, and no other has begun.
    is_between: bool,
}

// === impl Zstd ===

impl Zstd {
    /// A decoder, if there is memory for one.
    pub(super) fn new() -> Option<Self> {
        let mut context = DCtx::try_create()?;
        context.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG)).ok()?;
        Some(Self { context, is_between: false })
    }
}

impl fmt::Debug for Zstd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zstd").field("is_between", &self.is_between).finish_non_exhaustive()
    }
}

impl Decoder for Zstd {
    fn decode(&mut self, bytes: &[u8], out: &mut Out<'_>) -> Result<(), NotUnderstood> {
        let mut input = InBuffer { src: bytes, pos: 0 };
        let mut is_full = false;
        while input.pos < bytes.len() || is_full {
            let mut piece = [0; PIECE];
            let mut output = OutBuffer::around(piece.as_mut_slice());
            let wanted = self.context.decompress_stream(&mut output, &mut input);
            let wanted = wanted.map_err(|_| NotUnderstood::Encoded)?;
            let made = output.as_slice();
            out(made)?;
            // A full piece may not have been all; a frame that has ended has nothing more.
            self.is_between = wanted == 0;
            is_full = made.len() == PIECE && !self.is_between;
        }
        Ok(())
    }

    fn end(&mut self) -> bool {
        self.is_between
    }
}
