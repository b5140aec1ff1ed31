//! One call as it goes by: chunks and times in, the keys of a record out.

use std::time::Duration;

use crate::{Ending, Headers, Record, Shape};

/// Reads a call beside its bytes. Never fails: what it cannot read it leaves out, and says so.
///
/// All times are offsets from the start of the call.
pub struct Observer {
    shape: Shape,
}

impl Observer {
    /// An observer for a call of this shape.
    pub fn new(shape: Shape) -> Self {
        Self { shape }
    }

    /// What the head said.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// A piece of the request body (without transfer coding).
    pub fn request(&mut self, bytes: &[u8]) {
        let _ = bytes;
    }

    /// Whether more of the request body could still say something; once false, it stays so.
    pub fn reads_request(&self) -> bool {
        false
    }

    /// Whether routing may still learn the model from more of the request body.
    pub fn awaits_model(&self) -> bool {
        false
    }

    /// The model as requested, once it is known.
    pub fn model(&self) -> Option<&str> {
        self.shape.model.as_deref()
    }

    /// The response head (the final one, not a 1xx).
    pub fn head(&mut self, status: u16, headers: &dyn Headers, at: Duration) {
        let _ = (status, headers, at);
    }

    /// A piece of the response body (without transfer coding), and when it was read.
    pub fn chunk(&mut self, bytes: &[u8], at: Duration) {
        let _ = (bytes, at);
    }

    /// Keeps the offset of every token chunk from here on; [`Observer::token_times`] hands them out.
    pub fn keep_token_times(&mut self) {}

    /// The offsets of the token chunks, where they were kept.
    pub fn token_times(&self) -> &[Duration] {
        &[]
    }

    /// The end. Fills in everything that the wire says, the outcome among it, and leaves what only
    /// the carrier knows (ids, route, bytes, waits) as it is.
    pub fn finish(self, ending: Ending, at: Duration, record: &mut Record) {
        let _ = (ending, at, record);
    }
}
