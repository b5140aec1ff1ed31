//! The body of a reply, from its bytes to what they say.

use std::time::Duration;

use crate::Headers;
use crate::coding::{Coding, Decoder};
use crate::dialect::{Field, Reading};
use crate::facts::Facts;
use crate::frame::{Framing, Grpc, NotUnderstood, Pieces};
use crate::grpc::{self, Messages};
use crate::http_body::HttpBody;
use crate::times::Times;
use crate::{json, proto};

/// What a body may decode to, whatever its length.
const MAX_DECODED: u64 = 256 << 20;
/// What a short body may decode to.
const FREELY_DECODED: u64 = 8 << 20;
/// What a longer one may decode to, in its own lengths.
const MAX_RATIO: u64 = 100;

/// A reply that is being read.
#[derive(Debug)]
pub(crate) struct Reply {
    plain: Box<Plain>,
    encoded: Option<Encoded>,
}

/// What undoes the encoding of a body, or takes it out of the messages that carry it.
#[derive(Debug)]
struct Encoded {
    decoder: Box<dyn Decoder>,
    /// How much has come.
    length: u64,
    /// How much has been made of it.
    decoded: u64,
}

/// The body without its coding.
#[derive(Debug)]
struct Plain {
    framing: Framing,
    text: Text,
    /// Reading was given up: no later byte is looked at.
    given_up: bool,
}

/// The JSON texts or protobuf messages of a reply.
#[derive(Debug)]
struct Text {
    reader: Reader,
    facts: Facts,
    /// The text at hand is broken: its rest is passed over.
    is_broken: bool,
    /// The body has ended.
    at_end: bool,
    /// The body ended within a text.
    is_cut: bool,
    not_understood: Option<NotUnderstood>,
}

/// What a text is written in.
#[derive(Debug)]
enum Reader {
    Json(json::Repeating<Field>),
    Proto(proto::Reader<Field>),
}

// === impl Reply ===

impl Reply {
    /// A reply with this head; `messages` is how it reads where it comes by gRPC.
    pub(crate) fn new(
        reading: &'static Reading,
        messages: Option<Messages>,
        headers: &dyn Headers,
        times: Times,
    ) -> Self {
        let mut facts = Facts::new(reading, times);
        for (name, count) in reading.count_headers {
            if let Some(value) = headers.value(name).and_then(number) {
                facts.counts.set(*count, value);
            }
        }
        let json = Reader::Json(json::Repeating::new(&reading.paths));
        // What is not gRPC is an answer from somewhere on the way: an error, most likely.
        if let Some(messages) = messages.filter(|_| grpc::is_grpc(headers)) {
            return Self::by_grpc(messages, headers, json, facts);
        }
        let framing = Framing::announced(headers.value("content-type"));
        let mut plain = Box::new(Plain::new(framing, Text::new(json, facts)));
        let encoded = match Coding::read(headers.value("content-encoding")) {
            Coding::Identity => None,
            Coding::Encoded(decoder) => Some(Encoded::by(decoder)),
            Coding::Unknown => {
                plain.give_up(NotUnderstood::Encoded);
                None
            }
        };
        Self { plain, encoded }
    }

    fn by_grpc(messages: Messages, headers: &dyn Headers, json: Reader, facts: Facts) -> Self {
        let encoding = headers.value("grpc-encoding");
        match messages {
            Messages::Fields(table) => {
                let reader = Reader::Proto(proto::Reader::new(table));
                let framing = Framing::Grpc(Box::new(Grpc::new(encoding)));
                let plain = Box::new(Plain::new(framing, Text::new(reader, facts)));
                Self { plain, encoded: None }
            }
            Messages::HttpBody => {
                let plain = Box::new(Plain::new(Framing::announced(None), Text::new(json, facts)));
                let encoded = Encoded::by(Box::new(HttpBody::new(encoding)));
                Self { plain, encoded: Some(encoded) }
            }
        }
    }

    /// Reads on.
    pub(crate) fn chunk(&mut self, bytes: &[u8], at: Duration) {
        if bytes.is_empty() {
            return;
        }
        self.facts_mut().came(at);
        if self.plain.given_up {
            return;
        }
        let Some(encoded) = &mut self.encoded else { return self.plain.feed(bytes) };
        if let Err(reason) = encoded.decode(bytes, &mut self.plain) {
            self.plain.give_up(reason);
        }
    }

    /// No more comes.
    pub(crate) fn end(&mut self) {
        let is_whole = self.encoded.as_mut().is_none_or(Encoded::end);
        self.plain.end();
        // Some servers end a stream, but not its encoding.
        let text = &mut self.plain.text;
        if !self.plain.given_up && !text.facts.ended {
            text.is_cut |= !is_whole;
        }
    }

    /// Whether this is framed as streams are.
    pub(crate) fn is_stream(&self) -> bool {
        self.plain.framing.is_stream()
    }

    /// Whether nothing has come.
    pub(crate) fn is_blank(&self) -> bool {
        self.plain.framing.is_blank()
    }

    /// Whether the body ended within a message.
    pub(crate) fn is_cut(&self) -> bool {
        self.plain.text.is_cut
    }

    /// Whether the reply could be read to its end.
    pub(crate) fn is_read(&self) -> bool {
        !self.plain.given_up
    }

    pub(crate) fn not_understood(&self) -> Option<NotUnderstood> {
        let text = &self.plain.text;
        let nested = text.facts.is_broken.then_some(NotUnderstood::NotJson);
        text.not_understood.or(nested)
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.plain.text.facts
    }

    pub(crate) fn facts_mut(&mut self) -> &mut Facts {
        &mut self.plain.text.facts
    }
}

// === impl Encoded ===

impl Encoded {
    fn by(decoder: Box<dyn Decoder>) -> Self {
        Self { decoder, length: 0, decoded: 0 }
    }

    /// No more comes. Whether it has come to its end.
    fn end(&mut self) -> bool {
        self.length == 0 || self.decoder.end()
    }

    /// Decodes what came, as long as that stays in proportion.
    fn decode(&mut self, bytes: &[u8], plain: &mut Plain) -> Result<(), NotUnderstood> {
        self.length += bytes.len() as u64;
        let most = self.length.saturating_mul(MAX_RATIO).saturating_add(FREELY_DECODED);
        // What grows by nothing is never too large.
        let most = most.min(MAX_DECODED).max(self.length);
        let decoded = &mut self.decoded;
        self.decoder.decode(bytes, &mut |bytes| {
            *decoded += bytes.len() as u64;
            if *decoded > most {
                return Err(NotUnderstood::DecodedTooLarge);
            }
            plain.feed(bytes);
            Ok(())
        })
    }
}

// === impl Plain ===

impl Plain {
    fn new(framing: Framing, text: Text) -> Self {
        Self { framing, text, given_up: false }
    }

    fn feed(&mut self, bytes: &[u8]) {
        if self.given_up {
            return;
        }
        if let Err(reason) = self.framing.feed(bytes, &mut self.text) {
            self.give_up(reason);
        }
        self.given_up |= self.text.is_broken && matches!(self.framing, Framing::Json);
    }

    fn end(&mut self) {
        if self.given_up {
            return;
        }
        self.text.at_end = true;
        let is_cut = self.framing.end(&mut self.text);
        // What follows the end of a stream of lines may be anything.
        let is_over = matches!(self.framing, Framing::Sse(_)) && self.text.facts.is_over();
        self.text.is_cut |= is_cut && !is_over;
    }

    fn give_up(&mut self, reason: NotUnderstood) {
        self.text.not_understood.get_or_insert(reason);
        self.given_up = true;
    }
}

// === impl Text ===

impl Text {
    fn new(reader: Reader, facts: Facts) -> Self {
        Self { reader, facts, is_broken: false, at_end: false, is_cut: false, not_understood: None }
    }
}

// === impl Reader ===

impl Reader {
    fn feed(&mut self, bytes: &[u8], facts: &mut Facts) -> Result<(), NotUnderstood> {
        match self {
            Self::Json(reader) => reader.feed(bytes, facts).map_err(not_json),
            Self::Proto(reader) => reader.feed(bytes, facts).map_err(not_protobuf),
        }
    }

    fn end(&mut self, facts: &mut Facts) -> Result<(), NotUnderstood> {
        match self {
            Self::Json(reader) => reader.end(facts).map_err(not_json),
            Self::Proto(reader) => reader.end(facts).map_err(not_protobuf),
        }
    }
}

fn not_json(error: json::Error) -> NotUnderstood {
    match error {
        json::Error::Malformed => NotUnderstood::NotJson,
        json::Error::TooDeep => NotUnderstood::TooDeep,
    }
}

fn not_protobuf(_: proto::Malformed) -> NotUnderstood {
    NotUnderstood::NotProtobuf
}

impl Pieces for Text {
    fn payload(&mut self, bytes: &[u8]) {
        if self.is_broken {
            return;
        }
        if let Err(error) = self.reader.feed(bytes, &mut self.facts) {
            self.is_broken = true;
            self.not_understood.get_or_insert(error);
        }
    }

    fn end(&mut self) {
        let ended = self.reader.end(&mut self.facts);
        let was_broken = std::mem::take(&mut self.is_broken);
        match ended {
            Err(_) if self.at_end && !was_broken => self.is_cut = true,
            Err(error) if !was_broken => drop(self.not_understood.get_or_insert(error)),
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
        match name {
            b":exception-type" | b":error-code" => self.facts.exception(value),
            b":event-type" if value.ends_with(b"Exception") => self.facts.exception(value),
            b":message-type" if matches!(value, b"exception" | b"error") => {
                self.facts.fail();
            }
            _ => {}
        }
    }

    fn done(&mut self) {
        self.facts.ended = true;
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}
