//! A reader for items that begin alike, as the chunks of a stream do: what they share is read once.
//!
//! A [`Reader`] is a function of where it stands and of the bytes that come. Where an item begins
//! with the bytes of an earlier one, it says the same and leaves the reader in the same place: both
//! are remembered, and told again instead of read again. Nothing is assumed of the bytes, nor of
//! who takes what is found.

use std::fmt;

use super::{Error, Reader, Scalar, Sink, Table};

/// Of an item, this much is compared with others.
const MAX_HEAD: usize = 512;
/// A shorter beginning is as soon read as told again.
const MIN_HEAD: usize = 32;
/// Items that are compared with the one before: what has not repeated itself by then will not.
const MAX_TRIES: u8 = 64;
/// The most that a beginning may say.
const MAX_CALLS: usize = 16;

/// Reads JSON as a [`Reader`] does, and is quicker where items begin alike.
pub struct Repeating<F: 'static> {
    reader: Reader<F>,
    /// The head of the last item that did not begin as remembered.
    last: Vec<u8>,
    remembered: Option<Box<Beginning<F>>>,
    tries: u8,
}

/// A beginning that items share.
struct Beginning<F: 'static> {
    bytes: Vec<u8>,
    calls: Vec<Call<F>>,
    /// Where the reader stands behind it.
    after: Reader<F>,
}

/// What a reader has said.
enum Call<F> {
    Text(F, Vec<u8>),
    Number(F, Vec<u8>),
    Bool(F, bool),
    Null(F),
    Seen(F),
    Fragment(F, Vec<u8>),
    Ended(F),
    Closed(F, u32),
    Item,
}

/// Passes on what a reader says, and keeps it.
struct Recorder<'a, F> {
    sink: &'a mut dyn Sink<F>,
    calls: Vec<Call<F>>,
}

// === impl Repeating ===

impl<F: Copy> Repeating<F> {
    /// A reader before its first byte.
    pub fn new(table: &'static Table<F>) -> Self {
        Self { reader: Reader::new(table), last: Vec::new(), remembered: None, tries: 0 }
    }

    /// Reads on, as [`Reader::feed`] does.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl Sink<F>) -> Result<(), Error> {
        let may_begin = self.reader.between() && !bytes.is_empty();
        let known = if may_begin { self.begin(bytes, sink)? } else { 0 };
        self.reader.feed(&bytes[known..], sink)
    }

    /// No more of this document comes, as [`Reader::end`] has it.
    pub fn end(&mut self, sink: &mut impl Sink<F>) -> Result<(), Error> {
        self.reader.end(sink)
    }

    /// Items that did not begin as remembered.
    #[cfg(test)]
    pub(super) fn compared(&self) -> u8 {
        self.tries
    }

    /// Reads the beginning of an item, if it is one that others share, and says how long it is.
    fn begin(&mut self, bytes: &[u8], sink: &mut impl Sink<F>) -> Result<usize, Error> {
        if let Some(known) = &self.remembered
            && bytes.starts_with(&known.bytes)
        {
            known.calls.iter().for_each(|call| call.tell(sink));
            self.reader.clone_from(&known.after);
            return Ok(known.bytes.len());
        }
        if self.tries == MAX_TRIES {
            return Ok(0);
        }
        self.tries += 1;
        // Most answers are one item; and the first of many is seldom like the rest.
        if self.tries == 1 {
            return Ok(0);
        }
        let shared = shared(&self.last, bytes);
        self.last.clear();
        self.last.extend_from_slice(&bytes[..bytes.len().min(MAX_HEAD)]);
        if shared < MIN_HEAD {
            return Ok(0);
        }
        self.remember(&bytes[..shared], sink)?;
        Ok(shared)
    }

    fn remember(&mut self, bytes: &[u8], sink: &mut impl Sink<F>) -> Result<(), Error> {
        let mut recorder = Recorder { sink, calls: Vec::new() };
        self.reader.feed(bytes, &mut recorder)?;
        let calls = recorder.calls;
        if calls.len() <= MAX_CALLS {
            let after = self.reader.clone();
            self.remembered = Some(Box::new(Beginning { bytes: bytes.to_vec(), calls, after }));
        }
        Ok(())
    }
}

/// What the items say is nobody's business.
impl<F> fmt::Debug for Repeating<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repeating").field("tries", &self.tries).finish_non_exhaustive()
    }
}

/// How many bytes two items share up to the last quote before they differ: what stands behind that
/// is what varies. None where one is but a part of the other.
fn shared(one: &[u8], other: &[u8]) -> usize {
    let Some(differ) = one.iter().zip(other).position(|(one, other)| one != other) else {
        return 0;
    };
    memchr::memrchr(b'"', &one[..differ]).map_or(0, |quote| quote + 1)
}

// === impl Call ===

impl<F: Copy> Call<F> {
    fn tell(&self, sink: &mut impl Sink<F>) {
        match self {
            Self::Text(field, text) => sink.value(*field, Scalar::Text(text)),
            Self::Number(field, text) => sink.value(*field, Scalar::Number(text)),
            Self::Bool(field, value) => sink.value(*field, Scalar::Bool(*value)),
            Self::Null(field) => sink.value(*field, Scalar::Null),
            Self::Seen(field) => sink.seen(*field),
            Self::Fragment(field, bytes) => sink.fragment(*field, bytes),
            Self::Ended(field) => sink.ended(*field),
            Self::Closed(field, at) => sink.closed(*field, *at),
            Self::Item => sink.item(),
        }
    }
}

// === impl Recorder ===

impl<F: Copy> Sink<F> for Recorder<'_, F> {
    fn value(&mut self, field: F, value: Scalar<'_>) {
        self.calls.push(match value {
            Scalar::Text(text) => Call::Text(field, text.to_vec()),
            Scalar::Number(text) => Call::Number(field, text.to_vec()),
            Scalar::Bool(value) => Call::Bool(field, value),
            Scalar::Null => Call::Null(field),
        });
        self.sink.value(field, value);
    }

    fn seen(&mut self, field: F) {
        self.calls.push(Call::Seen(field));
        self.sink.seen(field);
    }

    fn fragment(&mut self, field: F, bytes: &[u8]) {
        self.calls.push(Call::Fragment(field, bytes.to_vec()));
        self.sink.fragment(field, bytes);
    }

    fn ended(&mut self, field: F) {
        self.calls.push(Call::Ended(field));
        self.sink.ended(field);
    }

    fn closed(&mut self, field: F, at: u32) {
        self.calls.push(Call::Closed(field, at));
        self.sink.closed(field, at);
    }

    fn item(&mut self) {
        self.calls.push(Call::Item);
        self.sink.item();
    }
}
