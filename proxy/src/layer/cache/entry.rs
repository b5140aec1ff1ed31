//! An answer that is kept.

use std::time::Duration;

use bytes::Bytes;
use tidegate_wire::Record;
use tokio::time::Instant;

use super::key::Key;
use crate::exchange::Told;
use crate::head::{Fields, ResponseHead};

/// Fields of an answer that are kept: what its body is. All else was about one call, one moment, or
/// one caller's limits.
const KEPT: &[&str] = &[
    "content-type",
    "content-encoding",
    "content-language",
    "content-disposition",
    "vary",
    "openai-version",
    "x-amzn-bedrock-content-type",
    "x-tidegate-include-usage",
];
/// Bytes that an entry takes beside those that are counted: its place in the map, and itself.
const OVERHEAD: usize = 512;

/// An answer that is kept, with the beginning of each of its pieces and when it came.
#[derive(Debug)]
pub(crate) struct Entry {
    key: Key,
    stored: Instant,
    /// How long it is kept.
    keep: Duration,
    pub(crate) head: ResponseHead,
    pub(crate) body: Bytes,
    pub(crate) pieces: Box<[Piece]>,
    pub(crate) is_stream: bool,
    pub(crate) told: Told,
}

/// A piece of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where it ends.
    pub(crate) end: u32,
    /// When it came, from the head on.
    pub(crate) at: Duration,
}

// === impl Entry ===

impl Entry {
    /// An answer that came just now, by its pieces.
    pub(crate) fn new(
        key: Key,
        head: &ResponseHead,
        came: &[(Bytes, Duration)],
        record: &Record,
        keep: Duration,
    ) -> Self {
        let mut body = Vec::with_capacity(came.iter().map(|(piece, _)| piece.len()).sum());
        let mut pieces = Vec::with_capacity(came.len());
        for (piece, at) in came {
            body.extend_from_slice(piece);
            pieces.push(Piece { end: body.len() as u32, at: *at });
        }
        Self {
            key,
            stored: Instant::now(),
            keep,
            head: kept(head),
            body: body.into(),
            pieces: pieces.into(),
            is_stream: record.stream == Some(true),
            told: told(record),
        }
    }

    /// One that came so long ago, and was kept elsewhere.
    #[expect(clippy::too_many_arguments, reason = "all of an entry was written down")]
    pub(super) fn kept_elsewhere(
        key: Key,
        age: Duration,
        keep: Duration,
        head: ResponseHead,
        body: Bytes,
        pieces: Box<[Piece]>,
        is_stream: bool,
        told: Told,
    ) -> Self {
        let now = Instant::now();
        let stored = now.checked_sub(age).unwrap_or(now);
        Self { key, stored, keep, head, body, pieces, is_stream, told }
    }

    /// Whether it is the answer to a call of this key, of which it was found by one half.
    pub(crate) fn is_for(&self, key: &Key) -> bool {
        self.key == *key
    }

    /// How long ago it was given for the first time.
    pub(crate) fn age(&self) -> Duration {
        self.stored.elapsed()
    }

    /// How long it is kept, all in all.
    pub(crate) fn keep(&self) -> Duration {
        self.keep
    }

    /// How long it is still kept.
    pub(crate) fn left(&self) -> Duration {
        self.keep.saturating_sub(self.age())
    }

    /// Bytes that it takes.
    pub(crate) fn size(&self) -> usize {
        let fields: usize =
            self.head.fields.iter().map(|(name, value)| name.len() + value.len() + 16).sum();
        OVERHEAD + fields + self.body.len() + self.pieces.len() * size_of::<Piece>()
    }
}

/// What is kept of a head.
pub(crate) fn kept(head: &ResponseHead) -> ResponseHead {
    let is_kept =
        |name: &[u8]| KEPT.iter().any(|field| field.as_bytes().eq_ignore_ascii_case(name));
    let lines: Vec<_> = head.fields.iter().filter(|(name, _)| is_kept(name)).collect();
    ResponseHead {
        status: head.status,
        reason: Bytes::copy_from_slice(&head.reason),
        fields: Fields::of(&lines),
    }
}

/// What its own record tells of an answer, for the records of those who get it again.
fn told(record: &Record) -> Told {
    let reasons = record.finish_reasons.iter().map(|reason| reason.as_str().into());
    Told {
        response_model: record.response_model.as_deref().map(Box::from),
        finish_reasons: reasons.collect(),
        provider: record.provider.clone(),
        region: record.region.clone(),
        input_tokens: record.input_tokens,
        output_tokens: record.output_tokens,
        cost_usd: record.cost_usd,
    }
}
