//! The body of a reply, from its bytes to what they say.

use std::time::Duration;

use crate::Headers;
use crate::dialect::{Field, Reading};
use crate::facts::{Facts, Tokens};
use crate::frame::{Framing, NotUnderstood, Pieces};
use crate::json::{self, Reader};

/// A reply that is being read.
#[derive(Debug)]
pub(crate) struct Reply {
    framing: Framing,
    text: Text,
    /// Reading was given up: no later byte is looked at.
    given_up: bool,
}

/// The JSON texts of a reply.
#[derive(Debug)]
struct Text {
    reader: Reader<Field>,
    facts: Facts,
    /// The text at hand is broken: its rest is passed over.
    is_broken: bool,
    /// The body has ended.
    at_end: bool,
    /// The body ended within a text.
    is_cut: bool,
    not_understood: Option<NotUnderstood>,
}

// === impl Reply ===

impl Reply {
    pub(crate) fn new(reading: &'static Reading, headers: &dyn Headers, tokens: Tokens) -> Self {
        let mut facts = Facts::new(reading, tokens);
        for (name, count) in reading.count_headers {
            if let Some(value) = headers.value(name).and_then(number) {
                facts.counts.set(*count, value);
            }
        }
        let is_encoded =
            headers.value("content-encoding").is_some_and(|coding| coding != b"identity");
        Self {
            framing: Framing::announced(headers.value("content-type")),
            text: Text {
                reader: Reader::new(&reading.paths),
                facts,
                is_broken: false,
                at_end: false,
                is_cut: false,
                not_understood: is_encoded.then_some(NotUnderstood::Encoded),
            },
            given_up: is_encoded,
        }
    }

    /// Reads on.
    pub(crate) fn chunk(&mut self, bytes: &[u8], at: Duration) {
        if self.given_up {
            return;
        }
        self.text.facts.now = at;
        if let Err(reason) = self.framing.feed(bytes, &mut self.text) {
            self.text.not_understood.get_or_insert(reason);
            self.given_up = true;
        }
        self.given_up |= self.text.is_broken && matches!(self.framing, Framing::Json);
    }

    /// No more comes.
    pub(crate) fn end(&mut self) {
        if self.given_up {
            return;
        }
        self.text.at_end = true;
        let is_cut = self.framing.end(&mut self.text);
        self.text.is_cut |= is_cut;
    }

    /// Whether this is framed as streams are.
    pub(crate) fn is_stream(&self) -> bool {
        self.framing.is_stream()
    }

    /// Whether nothing has come.
    pub(crate) fn is_blank(&self) -> bool {
        self.framing.is_blank()
    }

    /// Whether the body ended within a message.
    pub(crate) fn is_cut(&self) -> bool {
        self.text.is_cut
    }

    /// Whether the reply could be read to its end.
    pub(crate) fn is_read(&self) -> bool {
        !self.given_up
    }

    pub(crate) fn not_understood(&self) -> Option<NotUnderstood> {
        let nested = self.text.facts.is_broken.then_some(NotUnderstood::NotJson);
        self.text.not_understood.or(nested)
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.text.facts
    }

    pub(crate) fn facts_mut(&mut self) -> &mut Facts {
        &mut self.text.facts
    }
}

// === impl Text ===

impl Text {
    fn broken(&mut self, error: json::Error) {
        self.not_understood.get_or_insert(match error {
            json::Error::Malformed => NotUnderstood::NotJson,
            json::Error::TooDeep => NotUnderstood::TooDeep,
        });
    }
}

impl Pieces for Text {
    fn payload(&mut self, bytes: &[u8]) {
        if self.is_broken {
            return;
        }
        if let Err(error) = self.reader.feed(bytes, &mut self.facts) {
            self.is_broken = true;
            self.broken(error);
        }
    }

    fn end(&mut self) {
        let ended = self.reader.end(&mut self.facts);
        let was_broken = std::mem::take(&mut self.is_broken);
        match ended {
            Err(_) if self.at_end && !was_broken => self.is_cut = true,
            Err(error) if !was_broken => self.broken(error),
            _ => {}
        }
        self.facts.piece_ended();
    }

    fn name(&mut self, name: &[u8]) {
        if name == b"error" {
            self.facts.event(name);
        }
    }

    fn header(&mut self, name: &[u8], value: &[u8]) {
        if matches!(name, b":exception-type" | b":error-code") {
            let mut kind = String::from_utf8_lossy(value).into_owned();
            // Events name the member, headers of whole replies name the type.
            if let Some(first) = kind.get_mut(..1) {
                first.make_ascii_uppercase();
            }
            self.facts.fail().kind = Some(kind);
        }
    }

    fn done(&mut self) {
        self.facts.ended = true;
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}
