//! Calls as they are captured, to be made again as a load test: one line for each.
//!
//! A line is a JSON object whose first key is a checksum of all that stands behind it, so that a line
//! that was torn by a crash is told from a whole one. It holds the call's [`Record`] and its request.
//! Credentials are never in it: of the head only listed fields are kept.
//!
//! Where calls are encrypted, a line holds several such lines, sealed together by whoever has the keys:
//! here it is only told from others.

mod filler;
mod redact;
mod sketch;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kept::{Budget, Kept};
use crate::{Headers, Record};
use filler::Filler;

pub use sketch::{BLOCK_BYTES, Sketch};

/// The version of a line that is one call.
pub const VERSION: u32 = 1;
/// The version of a line in which calls are sealed, and the newest that a reader takes.
pub const SEALED_VERSION: u32 = 2;

/// Fields of a head that say how a body reads, or how it is to be answered.
const FIELDS: [&str; 9] = [
    "content-type",
    "content-encoding",
    "accept",
    "anthropic-version",
    "anthropic-beta",
    "openai-beta",
    "x-amzn-bedrock-accept",
    "x-vertex-ai-llm-request-type",
    "x-vertex-ai-llm-shared-request-type",
];
/// What a line begins with; the checksum follows, and eight digits later the rest.
const OPENING: &[u8] = b"{\"crc\":\"";
const CRC_DIGITS: usize = 8;
/// What stands between the checksum and the rest.
const CLOSING: &[u8] = b"\",";
/// What the rest begins with where calls are sealed.
const SEALED_OPENING: &[u8] = b"\"version\":2,\"age\":\"";

/// How much of a request is kept.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// All of it, as it came.
    Full,
    /// Its form and its sizes; filler in place of every text.
    #[default]
    Redacted,
    /// How long its texts are, and which beginnings it shares with other requests.
    Shape,
}

/// A request in the making: what is kept of it as it goes by.
#[derive(PartialEq)]
pub struct Captured {
    target: String,
    headers: Vec<(String, String)>,
    body: Kept,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The version of the format.
    pub version: u32,
    /// How much of the request was kept.
    pub mode: Mode,
    /// The share of all calls that were captured where this one was; all of them where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<f64>,
    /// How the call went.
    pub record: Record,
    /// What was asked.
    pub request: Request,
}

/// What was asked. Without a body, none was sent or none could be kept.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Path and query, without credentials.
    pub target: String,
    /// Fields of the head, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, where it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The body in base64, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
    /// What is kept of the body where its text is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<Sketch>,
    /// Whether the body was too large to be kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_left_out: bool,
}

/// Why a line cannot be used.
#[derive(Debug)]
pub enum LineError {
    /// It does not begin as one: another file, or the end of a torn one.
    Foreign,
    /// It is not what was written: torn by a crash, or changed since.
    Damaged,
    /// It was written by a newer version.
    Newer {
        /// The version that it says.
        version: u32,
    },
    /// It holds calls that are sealed.
    Sealed,
    /// Its checksum is right, and yet it does not read.
    Unreadable(serde_json::Error),
}

/// Writes captured calls as lines.
#[derive(Clone)]
pub struct Writer {
    mode: Mode,
    /// What each line says of it, with a comma behind it; nothing where all calls are captured.
    sample: String,
    filler: Filler,
}

// === impl Mode ===

impl Mode {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Redacted => "redacted",
            Self::Shape => "shape",
        }
    }
}

// === impl Captured ===

impl Captured {
    /// The request with this head. `target` is without credentials; `also` are fields that the user
    /// wants kept beside the usual ones. Of its body at most `limit` bytes are kept, within `budget`.
    pub fn new(
        target: String,
        headers: &dyn Headers,
        also: &[String],
        limit: usize,
        budget: &Budget,
    ) -> Self {
        let names = FIELDS.into_iter().chain(also.iter().map(String::as_str));
        let value = |name: &str| Some(std::str::from_utf8(headers.value(name)?).ok()?.to_owned());
        let headers = names.filter_map(|name| Some((name.to_owned(), value(name)?))).collect();
        Self { target, headers, body: Kept::new(limit, budget) }
    }

    /// A piece of the body.
    pub fn body(&mut self, bytes: &[u8]) {
        self.body.push(bytes);
    }

    /// Whether the body was too large to be kept.
    pub fn is_left_out(&self) -> bool {
        self.body.is_truncated()
    }
}

impl fmt::Debug for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("headers", &self.headers.len()).finish_non_exhaustive()
    }
}

// === impl Writer ===

impl Writer {
    /// One that keeps so much. Filler and hashes are drawn with this key, which is in no line.
    pub fn new(mode: Mode, key: &[u8; 32]) -> Self {
        Self { mode, sample: String::new(), filler: Filler::new(key) }
    }

    /// The same, of so large a share of all calls: each line states it.
    pub fn sampling(self, share: f64) -> Self {
        let is_all = share >= 1.0;
        let sample = if is_all { String::new() } else { format!("\"sample\":{share:?},") };
        Self { sample, ..self }
    }

    /// Appends the line of a call, with its end.
    pub fn write(&self, record: &Record, captured: &Captured, out: &mut Vec<u8>) {
        checked_line(out, |out| {
            let mode = serde_json::to_string(&self.mode).expect("a word serialises");
            out.extend_from_slice(
                format!("\"version\":{VERSION},\"mode\":{mode},{}\"record\":", self.sample)
                    .as_bytes(),
            );
            record.write_json(out);
            out.extend_from_slice(b",\"request\":");
            serde_json::to_writer(&mut *out, &self.request(captured)).expect("texts serialise");
        });
    }

    /// What is kept of a request.
    fn request(&self, captured: &Captured) -> Request {
        let Captured { target, headers, body } = captured;
        let mut request = Request { is_left_out: body.is_truncated(), ..Request::default() };
        request.target.clone_from(target);
        request.headers.clone_from(headers);
        let bytes = body.bytes();
        if bytes.is_empty() || body.is_truncated() {
            return request;
        }
        let is_encoded = headers.iter().any(|(name, _)| name == "content-encoding");
        match self.mode {
            Mode::Full => request.set_body(bytes.to_vec()),
            // What is compressed cannot be told from what it says.
            _ if is_encoded => request.is_left_out = true,
            Mode::Redacted => request.set_body(redact::redact(bytes, &self.filler)),
            Mode::Shape => match Sketch::of(bytes, &self.filler) {
                Some(sketch) => request.shape = Some(sketch),
                None => request.is_left_out = true,
            },
        }
        request
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("mode", &self.mode).finish_non_exhaustive()
    }
}

// === impl Request ===

impl Request {
    fn set_body(&mut self, body: Vec<u8>) {
        match String::from_utf8(body) {
            Ok(text) => self.body = Some(text),
            Err(error) => self.body_base64 = Some(STANDARD.encode(error.as_bytes())),
        }
    }

    /// The bytes of the body; absent where there are none, or they were not kept.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let decoded = || STANDARD.decode(self.body_base64.as_ref()?).ok();
        self.body.as_ref().map(|text| text.clone().into_bytes()).or_else(decoded)
    }
}

// === impl Entry ===

impl Entry {
    /// Reads a line, with or without its end.
    pub fn read(line: &[u8]) -> Result<Self, LineError> {
        let line = whole(line)?;
        match version(line)? {
            VERSION => serde_json::from_slice(line).map_err(LineError::Unreadable),
            SEALED_VERSION => Err(LineError::Sealed),
            version => Err(LineError::Newer { version }),
        }
    }
}

// === Sealed lines ===

/// Appends the line that holds this message, with its end.
pub fn write_sealed(message: &[u8], out: &mut Vec<u8>) {
    checked_line(out, |out| {
        out.extend_from_slice(SEALED_OPENING);
        out.extend_from_slice(STANDARD.encode(message).as_bytes());
        out.push(b'"');
    });
}

/// The message that a line holds, with or without its end; nothing where it is of another kind, which is
/// told by how it begins.
pub fn read_sealed(line: &[u8]) -> Result<Option<Vec<u8>>, LineError> {
    #[derive(Deserialize)]
    struct Line<'a> {
        age: &'a str,
    }
    let beginning = OPENING.len() + CRC_DIGITS + CLOSING.len();
    if !line.get(beginning..).is_some_and(|rest| rest.starts_with(SEALED_OPENING)) {
        return Ok(None);
    }
    let line = whole(line)?;
    let read: Line<'_> = serde_json::from_slice(line).map_err(LineError::Unreadable)?;
    STANDARD.decode(read.age).map(Some).map_err(|_| LineError::Damaged)
}

// === Any line ===

/// Appends a line of what is written, between its checksum and its end.
fn checked_line(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(OPENING);
    out.extend_from_slice(b"00000000");
    out.extend_from_slice(CLOSING);
    let checked = out.len();
    write(out);
    out.push(b'}');
    let crc = format!("{:08x}", crc32fast::hash(&out[checked..]));
    let place = start + OPENING.len();
    out[place..place + crc.len()].copy_from_slice(crc.as_bytes());
    out.push(b'\n');
}

/// A line without its end, if it is as it was written.
fn whole(line: &[u8]) -> Result<&[u8], LineError> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let rest = line.strip_prefix(OPENING).ok_or(LineError::Foreign)?;
    let (crc, rest) = rest.split_at_checked(CRC_DIGITS).ok_or(LineError::Damaged)?;
    let body = rest.strip_prefix(CLOSING).ok_or(LineError::Damaged)?;
    match crc == format!("{:08x}", crc32fast::hash(body)).as_bytes() {
        true => Ok(line),
        false => Err(LineError::Damaged),
    }
}

fn version(line: &[u8]) -> Result<u32, LineError> {
    #[derive(Deserialize)]
    struct Line {
        version: u32,
    }
    let read: Line = serde_json::from_slice(line).map_err(LineError::Unreadable)?;
    Ok(read.version)
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => {
                f.write_str("this is not a captured call: it does not begin with {\"crc\":")
            }
            Self::Damaged => f.write_str(
                "the checksum does not match: torn by a crash, or changed since it was written",
            ),
            Self::Newer { version } => write!(
                f,
                "written in version {version} of the format; this program reads {SEALED_VERSION} and older ones"
            ),
            Self::Sealed => f.write_str("its calls are encrypted"),
            Self::Unreadable(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for LineError {}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"model":"m","messages":[{"role":"user","content":"what Ada said"}]}"#;

    fn captured(body: &[u8], limit: usize) -> Captured {
        let mut head = http::HeaderMap::new();
        for (name, value) in
            [("content-type", "application/json"), ("authorization", "Bearer s3cret")]
        {
            head.insert(name, value.parse().expect("a value"));
        }
        let budget = Budget::new(1 << 20);
        let mut captured = Captured::new("/v1/chat".to_owned(), &head, &[], limit, &budget);
        body.chunks(7).for_each(|piece| captured.body(piece));
        captured
    }

    fn line(mode: Mode, body: &[u8]) -> Vec<u8> {
        let record = Record { output_tokens: Some(5), ..Record::default() };
        let mut out = Vec::new();
        Writer::new(mode, &[3; 32]).write(&record, &captured(body, 1 << 16), &mut out);
        out
    }

    #[test]
    fn a_call_reads_back_as_it_was_captured() {
        for body in [BODY, b"\xff\x00 no text", b""] {
            let entry = Entry::read(&line(Mode::Full, body)).expect("it reads");
            assert_eq!(entry.request.bytes().unwrap_or_default(), body);
            assert_eq!(entry.record.output_tokens, Some(5));
            assert_eq!(entry.request.target, "/v1/chat");
        }
    }

    #[test]
    fn a_line_states_of_how_many_calls_it_is_one() {
        let line = |share| {
            let mut out = Vec::new();
            let writer = Writer::new(Mode::Full, &[3; 32]).sampling(share);
            writer.write(&Record::default(), &captured(BODY, 100), &mut out);
            Entry::read(&out).expect("it reads")
        };
        assert_eq!((line(0.05).sample, line(1e-7).sample), (Some(0.05), Some(1e-7)));
        assert_eq!(line(1.0).sample, None);
    }

    #[test]
    fn no_mode_keeps_a_credential_and_only_one_keeps_what_was_said() {
        for mode in [Mode::Full, Mode::Redacted, Mode::Shape] {
            let line = String::from_utf8(line(mode, BODY)).expect("a line is text");
            assert!(!line.contains("s3cret"), "{line}");
            assert_eq!(line.contains("Ada"), mode == Mode::Full, "{line}");
        }
        let redacted = Entry::read(&line(Mode::Redacted, BODY)).expect("it reads").request;
        assert_eq!(redacted.bytes().expect("a body").len(), BODY.len());
        let shape = Entry::read(&line(Mode::Shape, BODY)).expect("it reads").request;
        assert!(shape.shape.is_some() && shape.bytes().is_none());
    }

    #[test]
    fn a_line_that_is_cut_or_changed_anywhere_is_not_taken() {
        let line = line(Mode::Full, BODY);
        let whole = line.len() - 1;
        for cut in 0..whole {
            assert!(Entry::read(&line[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..whole {
            let mut changed = line.clone();
            changed[at] ^= 1;
            assert!(Entry::read(&changed).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn a_sealed_line_gives_its_message_back_and_is_no_call() {
        let mut sealed = Vec::new();
        write_sealed(b"\x00 a message", &mut sealed);
        let text = String::from_utf8(sealed.clone()).expect("a line is text");
        assert!(text.ends_with("\",\"version\":2,\"age\":\"ACBhIG1lc3NhZ2U=\"}\n"), "{text}");
        let read = read_sealed(&sealed).expect("it reads");
        assert_eq!(read.as_deref(), Some(&b"\x00 a message"[..]));
        assert!(matches!(Entry::read(&sealed), Err(LineError::Sealed)));
        assert!(read_sealed(&line(Mode::Full, BODY)).expect("it reads").is_none());
        for at in 0..sealed.len() - 1 {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(!matches!(read_sealed(&changed), Ok(Some(_))), "changed at {at}");
            assert!(Entry::read(&changed).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn a_body_that_is_too_large_is_left_out_whole() {
        let mut out = Vec::new();
        Writer::new(Mode::Full, &[3; 32]).write(&Record::default(), &captured(BODY, 10), &mut out);
        let request = Entry::read(&out).expect("it reads").request;
        assert!(request.is_left_out && request.bytes().is_none());
    }
}
