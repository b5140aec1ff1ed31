//! What was said in a call: the messages that went in and came out.
//!
//! Kept only where the user has switched it on, and then within bounds: so many bytes of each body,
//! and so many of all bodies together. Nothing is read while the call goes by; what its bytes say is
//! asked afterwards, off the data path. What is longer is left out, and that is said.

mod anthropic;
mod bedrock;
mod google;
mod mend;
mod message;
mod openai;
mod prompt;
mod spoken;

use std::fmt;
use std::io::Read;

use base64::Engine;
use flate2::read::GzDecoder;
use serde_json::Value;

use crate::Headers;
use crate::frame::{Framing, Pieces};
use crate::kept::Kept;

pub use crate::kept::Budget;
pub use message::{Message, Messages, Part};
pub use spoken::{MAX_SPOKEN, Spoken};

use message::Choices;

/// Bytes of a request or of a response that are kept, and that they may decode to.
pub const MAX_BODY: usize = 64 << 10;
/// Longer than the name of any media type.
const MAX_TYPE: usize = 256;

/// The bodies of one call.
#[derive(PartialEq)]
pub struct Content {
    interface: &'static Interface,
    request: Body,
    response: Body,
}

/// One body, as far as it is kept.
#[derive(PartialEq)]
struct Body {
    kept: Kept,
    content_type: Option<Vec<u8>>,
    encoding: Encoding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    /// Nothing is kept of it.
    Other,
}

/// How the bodies of one kind of call read.
struct Interface {
    name: &'static str,
    request: fn(&Value, &mut Messages),
    /// One event of a stream, or a whole reply.
    reply: fn(&Value, &mut Choices),
}

// === impl Content ===

impl Content {
    /// The content of a call to this path; absent where the path is of no interface that has any.
    pub fn of(path: &str, headers: &dyn Headers, budget: &Budget) -> Option<Self> {
        let interface = Interface::of(path)?;
        let mut request = Body::new(budget);
        request.announce(headers);
        Some(Self { interface, request, response: Body::new(budget) })
    }

    /// A piece of the request body.
    pub fn request(&mut self, bytes: &[u8]) {
        self.request.push(bytes);
    }

    /// The response head: what came of an answer before it does not count.
    pub fn head(&mut self, headers: &dyn Headers) {
        self.response.kept.clear();
        self.response.announce(headers);
    }

    /// A piece of the response body.
    pub fn response(&mut self, bytes: &[u8]) {
        self.response.push(bytes);
    }

    /// What was said.
    pub fn messages(&self) -> Messages {
        let mut messages = Messages::default();
        let mut collected = Collected::default();
        let request = self.request.decoded();
        collected.json(&request.bytes);
        for value in &collected.values {
            (self.interface.request)(value, &mut messages);
        }
        let response = self.response.decoded();
        let mut choices = Choices::default();
        for value in events(&response.bytes, self.response.content_type.as_deref()) {
            (self.interface.reply)(&value, &mut choices);
        }
        messages.output = choices.finish();
        messages.is_truncated = request.is_truncated || response.is_truncated;
        messages
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

// === impl Body ===

/// A body as its caller meant it.
struct Decoded {
    bytes: Vec<u8>,
    is_truncated: bool,
}

impl Body {
    fn new(budget: &Budget) -> Self {
        Self { kept: Kept::new(MAX_BODY, budget), content_type: None, encoding: Encoding::Identity }
    }

    fn announce(&mut self, headers: &dyn Headers) {
        let content_type = headers.value("content-type");
        self.content_type = content_type.map(|kind| kind[..kind.len().min(MAX_TYPE)].to_vec());
        self.encoding = match headers.value("content-encoding") {
            None => Encoding::Identity,
            Some(coding) if coding.eq_ignore_ascii_case(b"identity") => Encoding::Identity,
            Some(coding) if coding.eq_ignore_ascii_case(b"gzip") => Encoding::Gzip,
            Some(_) => Encoding::Other,
        };
    }

    fn push(&mut self, bytes: &[u8]) {
        match self.encoding {
            Encoding::Other => self.kept.leave_out(),
            Encoding::Identity | Encoding::Gzip => self.kept.push(bytes),
        }
    }

    fn decoded(&self) -> Decoded {
        let bytes = self.kept.bytes();
        let is_truncated = self.kept.is_truncated();
        if self.encoding != Encoding::Gzip {
            return Decoded { bytes: bytes.to_vec(), is_truncated };
        }
        let mut decoded = Vec::new();
        // What was decoded before the end of what was kept is good.
        let read = GzDecoder::new(bytes).take(MAX_BODY as u64).read_to_end(&mut decoded);
        let is_cut = read.is_err() || decoded.len() == MAX_BODY;
        Decoded { is_truncated: is_truncated || is_cut, bytes: decoded }
    }
}

/// The JSON texts of a reply, however they are framed.
fn events(bytes: &[u8], content_type: Option<&[u8]>) -> Vec<Value> {
    let mut framing = Framing::announced(content_type);
    let mut collected = Collected::default();
    // A frame that is broken ends what can be read; what came before it is good.
    if framing.feed(bytes, &mut collected).is_ok() {
        framing.end(&mut collected);
    }
    collected.values
}

/// Collects JSON texts.
#[derive(Default)]
struct Collected {
    payload: Vec<u8>,
    values: Vec<Value>,
}

impl Collected {
    /// One or several JSON texts, of which the last may be cut off.
    fn json(&mut self, bytes: &[u8]) {
        // Some servers end each text of a stream with a NUL, which no JSON has.
        bytes.split(|byte| *byte == 0).for_each(|texts| self.texts(texts));
    }

    fn texts(&mut self, bytes: &[u8]) {
        let mut texts = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
        let whole: Vec<_> = texts.by_ref().map_while(Result::ok).collect();
        let rest = &bytes[texts.byte_offset()..];
        let cut = serde_json::from_slice(&mend::mend(rest)).ok();
        for value in whole.into_iter().chain(cut) {
            self.add(value);
        }
    }

    fn add(&mut self, value: Value) {
        match value {
            // A stream of Gemini may come as one array.
            Value::Array(values) => self.values.extend(values),
            value => self.values.push(nested(&value).unwrap_or(value)),
        }
    }
}

/// JSON that comes as base64 within JSON (Bedrock's InvokeModelWithResponseStream).
fn nested(value: &Value) -> Option<Value> {
    let digits = value.get("bytes")?.as_str()?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(digits).ok()?;
    serde_json::from_slice(&bytes).ok()
}

impl Pieces for Collected {
    fn payload(&mut self, bytes: &[u8]) {
        self.payload.extend_from_slice(bytes);
    }

    fn end(&mut self) {
        let payload = std::mem::take(&mut self.payload);
        self.json(&payload);
    }

    fn name(&mut self, _: &[u8]) {}

    fn header(&mut self, _: &[u8], _: &[u8]) {}

    fn done(&mut self) {}
}

// === impl Interface ===

impl Interface {
    fn of(path: &str) -> Option<&'static Self> {
        let path = path.trim_end_matches('/');
        let (_, action) = path.rsplit_once(['/', ':'])?;
        Some(match action {
            "completions" if path.ends_with("/chat/completions") => &openai::CHAT,
            "completions" => &openai::COMPLETIONS,
            "responses" => &openai::RESPONSES,
            "messages" => &anthropic::MESSAGES,
            "generateContent" | "streamGenerateContent" => &google::GENERATE_CONTENT,
            "rawPredict" | "streamRawPredict" if path.contains("/publishers/anthropic/") => {
                &anthropic::MESSAGES
            }
            "rawPredict" | "streamRawPredict" => &openai::CHAT,
            "converse" | "converse-stream" => &bedrock::CONVERSE,
            "invoke" | "invoke-with-response-stream" if path.contains("anthropic.") => {
                &anthropic::MESSAGES
            }
            "invoke" | "invoke-with-response-stream" if path.contains("amazon.nova") => {
                &bedrock::CONVERSE
            }
            "invoke" | "invoke-with-response-stream" | "generate" => &prompt::PROMPT,
            _ => return None,
        })
    }
}

impl PartialEq for Interface {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

#[cfg(test)]
mod tests;
