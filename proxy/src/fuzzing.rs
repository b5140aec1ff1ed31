//! What of the parsers `tests/fuzz` may call: bytes in, what they say out. No part of the sidecar.

use bytes::Bytes;
use http::Method;

use crate::head::Fields;
use crate::http1::framing::{Decoder, Framing};
use crate::http1::parse::{self, HeadError, Parsed};
use crate::http1::write::{self, BodyAs, KeepAlive};
use crate::layer::include_usage::{self, Filter};

/// A head at the front of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// The parts of its first line: method and target, or status and reason.
    pub first: [Vec<u8>; 2],
    /// The host that a request names.
    pub host: Vec<u8>,
    /// How long the body is.
    pub body: Body,
    /// Names and values as they came.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// Its length, empty lines in front of it included.
    pub length: usize,
    /// What the other side gets.
    pub forwarded: Vec<u8>,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    Empty,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Until the sender closes.
    UntilClose,
}

/// Why something is refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

/// The head of a request, as a caller's connection reads it; `None` while it is cut.
pub fn request(ahead: &[u8]) -> Result<Option<Head>, Refusal> {
    let skipped = parse::empty_lines(ahead);
    let Some(block) = parse::take_head(&ahead[skipped..])? else { return Ok(None) };
    let length = skipped + block.len();
    let Parsed { head, framing, .. } = parse::request(block)?;
    let mut forwarded = Vec::new();
    write::request(&mut forwarded, &head, b"", &head.authority, BodyAs::Framed);
    Ok(Some(Head {
        first: [head.method.as_str().into(), head.target.as_bytes().into()],
        host: head.authority.to_vec(),
        body: framing.into(),
        fields: owned(&head.fields),
        length,
        forwarded,
    }))
}

/// The head of the response to a GET, as an upstream's connection reads it; `None` while it is cut.
pub fn reply(ahead: &[u8]) -> Result<Option<Head>, Refusal> {
    let Some(block) = parse::take_head(ahead)? else { return Ok(None) };
    let length = block.len();
    let Parsed { head, framing, .. } = parse::response(Bytes::clone(&block), &Method::GET)?;
    let mut forwarded = Vec::new();
    write::response(&mut forwarded, &head, BodyAs::Framed, KeepAlive::Usual);
    Ok(Some(Head {
        first: [head.status.to_string().into(), head.reason.to_vec()],
        host: Vec::new(),
        body: framing.into(),
        fields: owned(&head.fields),
        length,
        forwarded,
    }))
}

/// A chunked body that is being read.
#[derive(Debug)]
pub struct Chunked(Decoder);

impl Chunked {
    /// Reads on, adds the payload, and says how many of the bytes belong to this body.
    pub fn advance(&mut self, bytes: &[u8], payload: &mut Vec<u8>) -> Result<usize, Refusal> {
        let taken = self.0.advance(bytes, |run| payload.extend_from_slice(run));
        taken.map_err(|error| Refusal(error.to_string()))
    }

    /// Whether it has come to its end.
    pub fn is_whole(&self) -> bool {
        self.0.is_done()
    }

    /// The trailer section so far.
    pub fn trailers(&self) -> &[u8] {
        self.0.trailers()
    }
}

impl Default for Chunked {
    fn default() -> Self {
        Self(Decoder::new(Framing::Chunked))
    }
}

/// The body of a request with the question for its usage in it; `None` where it is not asked.
pub fn with_usage(body: &[u8]) -> Option<Vec<u8>> {
    include_usage::asking(body)
}

/// A stream of events out of which the usage chunk is taken.
#[derive(Debug, Default)]
pub struct UsageFilter(Filter);

impl UsageFilter {
    /// Takes a piece of the stream, and adds what of it can go on.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.0.feed(bytes, out);
    }

    /// No more comes.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        self.0.end(out);
    }
}

impl From<Framing> for Body {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::Empty => Self::Empty,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked,
            Framing::UntilClose => Self::UntilClose,
        }
    }
}

impl From<HeadError> for Refusal {
    fn from(error: HeadError) -> Self {
        Self(error.to_string())
    }
}

fn owned(fields: &Fields) -> Vec<(Vec<u8>, Vec<u8>)> {
    fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// What is passed on of pages of figures, which are one target's, one after the other.
pub use crate::scrape::fuzzing::{Figures, figures};
