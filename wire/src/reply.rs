//! The body of a reply, from its bytes to what they say.

use std::io::{self, Write};
use std::time::Duration;

use flate2::write::GzDecoder;

use crate::Headers;
use crate::dialect::{Field, Reading};
use crate::facts::{Facts, Tokens};
use crate::frame::{Framing, Grpc, NotUnderstood, Pieces};
use crate::grpc::{self, Messages};
use crate::http_body::HttpBody;
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
    coding: Coding,
}

/// How the body is encoded.
#[derive(Debug)]
enum Coding {
    Identity(Box<Plain>),
    /// Decoded as it comes, beside what goes on to the caller; this takes some 80 KiB.
    Gzip {
        decoder: Box<GzDecoder<Plain>>,
        /// How much has come.
        encoded: u64,
    },
    /// In the messages of a gRPC call.
    HttpBody {
        messages: Box<HttpBody>,
        plain: Box<Plain>,
    },
}

/// The body without its coding.
#[derive(Debug)]
struct Plain {
    framing: Framing,
    text: Text,
    /// Reading was given up: no later byte is looked at.
    given_up: bool,
    /// How much a decoder has made.
    decoded: u64,
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
    Json(json::Reader<Field>),
    Proto(proto::Reader<Field>),
}

// === impl Reply ===

impl Reply {
    /// A reply with this head; `messages` is how it reads where it comes by gRPC.
    pub(crate) fn new(
        reading: &'static Reading,
        messages: Option<Messages>,
        headers: &dyn Headers,
        tokens: Tokens,
    ) -> Self {
        let mut facts = Facts::new(reading, tokens);
        for (name, count) in reading.count_headers {
            if let Some(value) = headers.value(name).and_then(number) {
                facts.counts.set(*count, value);
            }
        }
        let content_type = headers.value("content-type");
        let json = Reader::Json(json::Reader::new(&reading.paths));
        // What is not gRPC is an answer from somewhere on the way: an error, most likely.
        if let Some(messages) = messages.filter(|_| grpc::is_grpc(headers)) {
            let encoding = headers.value("grpc-encoding");
            let coding = match messages {
                Messages::Fields(table) => {
                    let reader = Reader::Proto(proto::Reader::new(table));
                    let framing = Framing::Grpc(Box::new(Grpc::new(encoding)));
                    Coding::Identity(Box::new(Plain::new(framing, Text::new(reader, facts))))
                }
                Messages::HttpBody => {
                    let plain = Plain::new(Framing::announced(None), Text::new(json, facts));
                    let messages = Box::new(HttpBody::new(encoding));
                    Coding::HttpBody { messages, plain: Box::new(plain) }
                }
            };
            return Self { coding };
        }
        let plain = Plain::new(Framing::announced(content_type), Text::new(json, facts));
        Self { coding: Coding::new(headers.value("content-encoding"), plain) }
    }

    /// Reads on.
    pub(crate) fn chunk(&mut self, bytes: &[u8], at: Duration) {
        self.plain_mut().text.facts.now = at;
        match &mut self.coding {
            Coding::Identity(plain) => plain.feed(bytes),
            Coding::Gzip { decoder, encoded } => {
                *encoded += bytes.len() as u64;
                if !decoder.get_ref().given_up
                    && let Err(reason) = inflate(decoder, bytes, *encoded)
                {
                    decoder.get_mut().give_up(reason);
                }
            }
            Coding::HttpBody { messages, plain } => {
                if let Err(reason) = messages.feed(bytes, |body| plain.feed(body)) {
                    plain.give_up(reason);
                }
            }
        }
    }

    /// No more comes.
    pub(crate) fn end(&mut self) {
        if let Coding::Gzip { decoder, encoded: 1.. } = &mut self.coding
            && !decoder.get_ref().given_up
        {
            decoder.get_mut().text.is_cut = decoder.try_finish().is_err();
        }
        self.plain_mut().end();
        if let Coding::HttpBody { messages, plain } = &mut self.coding {
            plain.text.is_cut |= !messages.between();
        }
    }

    /// Whether this is framed as streams are.
    pub(crate) fn is_stream(&self) -> bool {
        self.plain().framing.is_stream()
    }

    /// Whether nothing has come.
    pub(crate) fn is_blank(&self) -> bool {
        self.plain().framing.is_blank()
    }

    /// Whether the body ended within a message.
    pub(crate) fn is_cut(&self) -> bool {
        self.plain().text.is_cut
    }

    /// Whether the reply could be read to its end.
    pub(crate) fn is_read(&self) -> bool {
        !self.plain().given_up
    }

    pub(crate) fn not_understood(&self) -> Option<NotUnderstood> {
        let text = &self.plain().text;
        let nested = text.facts.is_broken.then_some(NotUnderstood::NotJson);
        text.not_understood.or(nested)
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.plain().text.facts
    }

    pub(crate) fn facts_mut(&mut self) -> &mut Facts {
        &mut self.plain_mut().text.facts
    }

    fn plain(&self) -> &Plain {
        match &self.coding {
            Coding::Identity(plain) => plain,
            Coding::Gzip { decoder, .. } => decoder.get_ref(),
            Coding::HttpBody { plain, .. } => plain,
        }
    }

    fn plain_mut(&mut self) -> &mut Plain {
        match &mut self.coding {
            Coding::Identity(plain) => plain,
            Coding::Gzip { decoder, .. } => decoder.get_mut(),
            Coding::HttpBody { plain, .. } => plain,
        }
    }
}

// === impl Coding ===

impl Coding {
    fn new(coding: Option<&[u8]>, mut plain: Plain) -> Self {
        match coding.unwrap_or_default() {
            b"" | b"identity" => Self::Identity(Box::new(plain)),
            b"gzip" | b"x-gzip" => {
                Self::Gzip { decoder: Box::new(GzDecoder::new(plain)), encoded: 0 }
            }
            _ => {
                plain.give_up(NotUnderstood::Encoded);
                Self::Identity(Box::new(plain))
            }
        }
    }
}

/// Decodes all that can be decoded now: an event must not wait for the next one.
fn inflate(
    decoder: &mut GzDecoder<Plain>,
    mut bytes: &[u8],
    encoded: u64,
) -> Result<(), NotUnderstood> {
    let most = encoded.saturating_mul(MAX_RATIO).saturating_add(FREELY_DECODED).min(MAX_DECODED);
    while !bytes.is_empty() {
        match decoder.write(bytes).map_err(|_| NotUnderstood::Encoded)? {
            // The encoding has ended; what follows belongs to nothing.
            0 => break,
            used => bytes = &bytes[used..],
        }
        if decoder.get_ref().decoded > most {
            return Err(NotUnderstood::DecodedTooLarge);
        }
    }
    decoder.flush().map_err(|_| NotUnderstood::Encoded)
}

// === impl Plain ===

impl Plain {
    fn new(framing: Framing, text: Text) -> Self {
        Self { framing, text, given_up: false, decoded: 0 }
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
        self.text.is_cut |= is_cut;
    }

    fn give_up(&mut self, reason: NotUnderstood) {
        self.text.not_understood.get_or_insert(reason);
        self.given_up = true;
    }
}

/// Takes what a decoder makes.
impl io::Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.decoded += bytes.len() as u64;
        self.feed(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
