//! Brotli (RFC 7932), without its large windows.

use std::fmt;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

use super::{Decoder, Out};
use crate::frame::NotUnderstood;

/// What is decoded at a time.
const PIECE: usize = 4 << 10;

/// Brotli.
pub(super) struct Brotli {
    state: Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>,
    made: usize,
    has_ended: bool,
}

// === impl Brotli ===

impl Default for Brotli {
    fn default() -> Self {
        let memory = StandardAlloc::default;
        let state = BrotliState::new_strict(memory(), memory(), memory());
        Self { state: Box::new(state), made: 0, has_ended: false }
    }
}

impl fmt::Debug for Brotli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Brotli").field("made", &self.made).finish_non_exhaustive()
    }
}

impl Decoder for Brotli {
    fn decode(&mut self, bytes: &[u8], out: &mut Out<'_>) -> Result<(), NotUnderstood> {
        let (mut left, mut used) = (bytes.len(), 0);
        while !self.has_ended {
            let mut piece = [0; PIECE];
            let (mut room, mut length) = (PIECE, 0);
            let result = BrotliDecompressStream(
                &mut left,
                &mut used,
                bytes,
                &mut room,
                &mut length,
                &mut piece,
                &mut self.made,
                &mut self.state,
            );
            out(&piece[..length])?;
            match result {
                BrotliResult::NeedsMoreOutput => {}
                BrotliResult::NeedsMoreInput => return Ok(()),
                BrotliResult::ResultSuccess => self.has_ended = true,
                BrotliResult::ResultFailure => return Err(NotUnderstood::Encoded),
            }
        }
        Ok(())
    }

    fn end(&mut self) -> bool {
        self.has_ended
    }
}
