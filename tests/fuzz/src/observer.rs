//! A whole call, by dialect: cuts change nothing, an end that is none is never `completed`, and a
//! record agrees with itself.
//!
//! An input chooses ending, content type, status and cuts, then states the head of the request
//! (`METHOD host path`, ended by LF), its body, and the reply.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tidegate_wire::{Dialect, Ending, HeadView, Observer, Outcome, Record, Shape};

use crate::frames;
use crate::input::{Input, cut};

pub(crate) const STATUSES: &[u16] = &[200, 400, 401, 404, 429, 500, 503, 529];
const SSE: &str = "text/event-stream";
pub(crate) const CONTENT_TYPES: &[&str] = &[
    "application/json",
    SSE,
    "application/vnd.amazon.eventstream",
    "",
    "text/html",
    // Frames as they are: no checksum is made right.
    "application/vnd.amazon.eventstream; raw",
];
pub(crate) const ENDINGS: &[Ending] =
    &[Ending::Clean, Ending::Broken, Ending::CallerLeft, Ending::NoAnswer, Ending::Refused];
/// Choices: the headers that count tokens.
pub(crate) const COUNTS: u8 = 1;
/// Choices: the headers that say what failed and how long to wait.
const FAULT: u8 = 2;

/// No text of a record is longer: what is kept of one, where none of it was UTF-8.
const MAX_TEXT: usize = 3 * 1024;
const MAX_CHOICES: usize = 128;

/// The calls that belong to a target.
pub(crate) struct Kind {
    dialect: Dialect,
    /// A word of the path, and whether it stands there.
    word: (&'static str, bool),
    /// The head to use where an input's own is of another kind.
    usual: &'static str,
}

pub(crate) const OPENAI_CHAT: Kind = Kind {
    dialect: Dialect::OpenAi,
    word: ("/responses", false),
    usual: "POST api.openai.com /v1/chat/completions",
};
pub(crate) const OPENAI_RESPONSES: Kind = Kind {
    dialect: Dialect::OpenAi,
    word: ("/responses", true),
    usual: "POST api.openai.com /v1/responses",
};
pub(crate) const ANTHROPIC: Kind = Kind {
    dialect: Dialect::Anthropic,
    word: ("", true),
    usual: "POST api.anthropic.com /v1/messages",
};
pub(crate) const GEMINI: Kind = Kind {
    dialect: Dialect::Gemini,
    word: ("", true),
    usual: "POST generativelanguage.googleapis.com /v1beta/models/gemini:streamGenerateContent",
};
pub(crate) const VERTEX: Kind = Kind {
    dialect: Dialect::Vertex,
    word: ("", true),
    usual: "POST us-east5-aiplatform.googleapis.com /v1/projects/p/locations/us-east5/publishers/google/models/gemini:generateContent",
};
pub(crate) const BEDROCK_CONVERSE: Kind = Kind {
    dialect: Dialect::Bedrock,
    word: ("/invoke", false),
    usual: "POST bedrock-runtime.us-east-1.amazonaws.com /model/m/converse-stream",
};
pub(crate) const BEDROCK_INVOKE: Kind = Kind {
    dialect: Dialect::Bedrock,
    word: ("/invoke", true),
    usual: "POST bedrock-runtime.us-east-1.amazonaws.com /model/m/invoke-with-response-stream",
};
pub(crate) const GENERATE: Kind =
    Kind { dialect: Dialect::Generate, word: ("", true), usual: "POST localhost /generate" };

pub(crate) const OLLAMA: Kind =
    Kind { dialect: Dialect::Generate, word: ("/api/", true), usual: "POST localhost /api/chat" };
/// Cohere's dialect has no word of its own.
pub(crate) const COHERE: Kind =
    Kind { dialect: Dialect::Other, word: ("/v2/", true), usual: "POST api.cohere.com /v2/chat" };

pub(crate) fn openai_chat(data: &[u8]) {
    observe(&OPENAI_CHAT, data);
}

pub(crate) fn openai_responses(data: &[u8]) {
    observe(&OPENAI_RESPONSES, data);
}

pub(crate) fn anthropic(data: &[u8]) {
    observe(&ANTHROPIC, data);
}

pub(crate) fn gemini(data: &[u8]) {
    observe(&GEMINI, data);
}

pub(crate) fn vertex(data: &[u8]) {
    observe(&VERTEX, data);
}

pub(crate) fn bedrock_converse(data: &[u8]) {
    observe(&BEDROCK_CONVERSE, data);
}

pub(crate) fn bedrock_invoke(data: &[u8]) {
    observe(&BEDROCK_INVOKE, data);
}

pub(crate) fn generate(data: &[u8]) {
    observe(&GENERATE, data);
}

pub(crate) fn ollama(data: &[u8]) {
    observe(&OLLAMA, data);
}

pub(crate) fn cohere(data: &[u8]) {
    observe(&COHERE, data);
}

fn observe(kind: &Kind, data: &[u8]) {
    let call = Call::read(kind, data);
    let whole = call.record(&[&call.reply], &[call.request], call.ending);
    let (reply, request) = (cut(call.seed, &call.reply), cut(call.seed, call.request));
    assert_eq!(call.record(&reply, &request, call.ending), whole, "cut");
    let (reply, request) = (cut(0, &call.reply), cut(0, call.request));
    assert_eq!(call.record(&reply, &request, call.ending), whole, "byte by byte");
    if let Some(reply) = call.with_other_line_ends() {
        assert_eq!(call.record(&[&reply], &[call.request], call.ending), whole, "CRLF");
    }
    check(&whole, call.ending);
    for ending in [Ending::Broken, Ending::CallerLeft] {
        check(&call.record(&[&call.reply], &[call.request], ending), ending);
    }
    call.check_times();
}

/// A call as an input states it.
pub(crate) struct Call<'a> {
    shape: Shape,
    status: u16,
    headers: HeaderMap,
    pub(crate) ending: Ending,
    pub(crate) seed: u16,
    pub(crate) request: &'a [u8],
    pub(crate) reply: Vec<u8>,
}

impl<'a> Call<'a> {
    pub(crate) fn read(kind: &Kind, data: &'a [u8]) -> Self {
        let mut input = Input::new(data);
        let (ending, content_type) = (input.pick(ENDINGS), input.pick(CONTENT_TYPES));
        let (status, choices) = (input.pick(STATUSES), input.byte());
        let (seed, length) = (input.short(), input.short());
        let shape = kind.shape(input.until(b'\n'));
        let request = input.take(length.into());
        let reply = match content_type {
            "application/vnd.amazon.eventstream" => frames::encode(input.rest()),
            _ => input.rest().to_vec(),
        };
        let headers = headers(content_type, choices);
        Self { shape, status, headers, ending, seed, request, reply }
    }

    /// The record of this call if its bodies come in these parts and the reply ends so.
    pub(crate) fn record(&self, reply: &[&[u8]], request: &[&[u8]], ending: Ending) -> Record {
        let observer = self.observer(request, ending);
        finish(observer, reply.iter().map(|part| (*part, 2)), ending)
    }

    /// The same for a reply in this encoding.
    pub(crate) fn encoded(&self, coding: &'static str, reply: &[&[u8]]) -> Record {
        let mut headers = self.headers.clone();
        headers.insert("content-encoding", HeaderValue::from_static(coding));
        let mut observer = self.observer(&[self.request], Ending::NoAnswer);
        observer.head(self.status, &headers, Duration::from_millis(1));
        finish(observer, reply.iter().map(|part| (*part, 2)), self.ending)
    }

    fn observer(&self, request: &[&[u8]], ending: Ending) -> Observer {
        let mut observer = Observer::new(self.shape.clone());
        for part in request {
            observer.request(part);
        }
        if !matches!(ending, Ending::NoAnswer | Ending::Refused) {
            observer.head(self.status, &self.headers, Duration::from_millis(1));
        }
        observer
    }

    /// The same server-sent events in lines that end in CRLF.
    fn with_other_line_ends(&self) -> Option<Vec<u8>> {
        let is_stream = self.headers.get("content-type").is_some_and(|kind| kind == SSE);
        let starts = self.reply.starts_with(b"data:") || self.reply.starts_with(b"event:");
        let is_plain = !self.reply.contains(&b'\r');
        let lines: Vec<_> = self.reply.split(|byte| *byte == b'\n').collect();
        (is_stream && starts && is_plain).then(|| lines.join(b"\r\n".as_slice()))
    }

    /// Whatever comes when, times are in order.
    fn check_times(&self) {
        let parts = cut(self.seed, &self.reply);
        let timed = parts.iter().zip(2..).map(|(part, at)| (*part, at));
        let last = 2 + parts.len() as u64;
        let record = finish(self.observer(&[self.request], self.ending), timed, self.ending);
        let times = [
            record.time_to_first_byte_s,
            record.time_to_first_token_s,
            record.time_to_first_visible_token_s,
            record.time_to_last_token_s,
            Some(last as f64),
        ];
        let times: Vec<_> = times.into_iter().flatten().collect();
        assert!(times.is_sorted(), "{record:?}");
    }
}

fn finish<'a>(
    mut observer: Observer,
    parts: impl Iterator<Item = (&'a [u8], u64)>,
    ending: Ending,
) -> Record {
    let mut last = 2;
    for (part, at) in parts {
        observer.chunk(part, Duration::from_millis(at));
        last = at;
    }
    let mut record = Record::default();
    observer.finish(ending, Duration::from_millis(last), &mut record);
    record
}

fn headers(content_type: &'static str, choices: u8) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut insert = |name, value| {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    };
    if !content_type.is_empty() {
        insert("content-type", content_type);
    }
    if choices & COUNTS != 0 {
        insert("x-amzn-bedrock-input-token-count", "7");
        insert("x-amzn-bedrock-output-token-count", "5");
    }
    if choices & FAULT != 0 {
        insert("x-amzn-errortype", "ThrottlingException:http://example.com/");
        insert("retry-after", "1.5");
    }
    headers
}

/// What holds of every record.
pub(crate) fn check(record: &Record, ending: Ending) {
    let outcome = record.outcome.expect("a record has an outcome");
    if ending != Ending::Clean {
        assert_ne!(outcome, Outcome::Completed, "{record:?}");
    }
    let has_failed = matches!(outcome, Outcome::Failed | Outcome::Truncated);
    assert_eq!(record.error_type.is_some(), has_failed, "{record:?}");
    assert_eq!(record.error_origin.is_some(), has_failed, "{record:?}");
    let counts = [
        record.input_tokens,
        record.output_tokens,
        record.cache_read_tokens,
        record.cache_creation_tokens,
        record.reasoning_tokens,
    ];
    assert_eq!(record.usage_source.is_some(), counts.iter().any(Option::is_some), "{record:?}");
    assert!(record.finish_reasons.len() <= MAX_CHOICES);
    let texts = [&record.response_model, &record.response_id, &record.error_type];
    let texts = texts.into_iter().flatten().chain(&record.finish_reasons);
    assert!(texts.map(String::len).max().unwrap_or(0) <= MAX_TEXT);
    check_line(record);
}

/// The line that is written is the JSON that serde would write.
pub(crate) fn check_line(record: &Record) {
    let mut line = Vec::new();
    record.write_json(&mut line);
    let line = line.trim_ascii_end();
    assert!(!line.contains(&b'\n'), "one line");
    let parse = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).expect("JSON");
    let expected = serde_json::to_vec(record).expect("a record serialises");
    assert_eq!(parse(line), parse(&expected));
}

// === impl Kind ===

impl Kind {
    /// The shape of the head that the line states, or of the usual one.
    fn shape(&self, line: &[u8]) -> Shape {
        let stated = std::str::from_utf8(line).ok().filter(|line| self.has(line)).map(shape);
        stated.filter(|shape| shape.dialect == self.dialect).unwrap_or_else(|| shape(self.usual))
    }

    /// Whether a head is of this kind.
    pub(crate) fn has(&self, line: &str) -> bool {
        let path = line.splitn(3, ' ').nth(2).unwrap_or_default();
        path.contains(self.word.0) == self.word.1 && shape(line).dialect == self.dialect
    }
}

fn shape(line: &str) -> Shape {
    let mut words = line.splitn(3, ' ');
    let mut word = || words.next().unwrap_or_default();
    let (method, host, target) = (word(), word(), word());
    let (path, query) = target.split_once('?').map_or((target, None), |(a, b)| (a, Some(b)));
    Shape::read(&HeadView { method, host: Some(host), path, query, headers: &HeaderMap::new() })
}
