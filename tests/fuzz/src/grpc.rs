//! Calls by gRPC: cuts change nothing, a reader that holds the whole body finds the same messages,
//! and only a status says that a call is complete.

use std::io::Read;
use std::time::Duration;

use flate2::read::GzDecoder;
use http::{HeaderMap, HeaderName, HeaderValue};
use tidegate_wire::frame::{Grpc, NotUnderstood, Pieces as _};
use tidegate_wire::{Ending, HeadView, Observer, Outcome, Record, Shape};

use crate::encoded::gzip;
use crate::input::{Input, cut};
use crate::observer::{ENDINGS, check};
use crate::pieces::Pieces;

/// One of each way in which methods read, and one that nobody knows.
pub(crate) const METHODS: &[&str] = &[
    "/google.cloud.aiplatform.v1.PredictionService/StreamGenerateContent",
    "/google.cloud.aiplatform.v1.PredictionService/GenerateContent",
    "/google.cloud.aiplatform.v1beta1.PredictionService/EmbedContent",
    "/google.cloud.aiplatform.v1.PredictionService/Predict",
    "/google.cloud.aiplatform.v1.LlmUtilityService/CountTokens",
    "/google.cloud.aiplatform.v1.PredictionService/RawPredict",
    "/google.cloud.aiplatform.v1.PredictionService/StreamRawPredict",
    "/google.cloud.aiplatform.v1.PredictionService/ChatCompletions",
    "/google.cloud.aiplatform.v1.PredictionService/StreamingPredict",
    "/a.b.C/D",
];
const ENCODINGS: &[&str] = &["", "gzip", "identity", "zstd"];
const PARAMETERS: &[&str] = &[
    "",
    "model=projects%2Fp%2Flocations%2Fl%2Fpublishers%2Fgoogle%2Fmodels%2Fm",
    "endpoint=projects/p/locations/l/publishers/anthropic/models/m",
];
/// Choices: what belongs behind the body stands in the head.
const TRAILERS_ONLY: u8 = 1;
/// Choices: the answer is no gRPC.
const NO_GRPC: u8 = 2;
/// Choices: the body is framed by the target.
pub(crate) const FRAMED: u8 = 4;
/// A message is compressed, where it is framed so.
const COMPRESSED: u8 = 1;

/// A call as an input states it: choices, lines of trailers up to an empty one, the request, and
/// the reply.
struct Call<'a> {
    method: &'static str,
    encoding: &'static str,
    parameters: &'static str,
    choices: u8,
    ending: Ending,
    trailers: HeaderMap,
    request: &'a [u8],
    reply: Vec<u8>,
}

pub(crate) fn grpc(data: &[u8]) {
    let mut input = Input::new(data);
    let (method, encoding) = (input.pick(METHODS), input.pick(ENCODINGS));
    let (parameters, choices) = (input.pick(PARAMETERS), input.byte());
    let (ending, seed, length) = (input.pick(ENDINGS), input.short(), input.short());
    let trailers = trailers(&mut input);
    let request = input.take(length.into());
    let reply = if choices & FRAMED == 0 { input.rest().to_vec() } else { framed(input) };
    let call = Call { method, encoding, parameters, choices, ending, trailers, request, reply };
    call.check(seed);
    check_frames(encoding, seed, &call.reply);
}

fn trailers(input: &mut Input<'_>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    while !input.is_empty() {
        let line = input.until(b'\n');
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line.get(colon + 1..).unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            trailers.append(name, value);
        }
    }
    trailers
}

/// Messages behind right prefixes: each a byte that says how it goes out, a length, and its bytes.
fn framed(mut input: Input<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    while !input.is_empty() {
        let (flag, length) = (input.byte() & COMPRESSED, input.short());
        let message = input.take(length.into());
        let message = if flag == COMPRESSED { gzip(message, 6) } else { message.to_vec() };
        body.push(flag);
        body.extend((message.len() as u32).to_be_bytes());
        body.extend(message);
    }
    body
}

impl Call<'_> {
    fn check(&self, seed: u16) {
        let whole = self.record(&[self.request], &[&self.reply], self.ending);
        let (request, reply) = (cut(seed, self.request), cut(seed, &self.reply));
        check_same(&self.record(&request, &reply, self.ending), &whole, "cut");
        let (request, reply) = (cut(0, self.request), cut(0, &self.reply));
        check_same(&self.record(&request, &reply, self.ending), &whole, "byte by byte");
        for ending in [self.ending, Ending::Clean, Ending::Broken, Ending::CallerLeft] {
            let record = self.record(&[self.request], &[&self.reply], ending);
            check(&record, ending);
            let is_complete = record.outcome == Some(Outcome::Completed);
            assert!(!is_complete || record.grpc_status == Some(0), "{record:?}");
            let is_wait = |seconds: f64| seconds.is_finite() && seconds >= 0.0;
            assert!(record.retry_after_s.is_none_or(is_wait), "{record:?}");
            assert!(record.retry_after_s.is_none() || record.grpc_status != Some(0), "{record:?}");
        }
    }

    fn record(&self, request: &[&[u8]], reply: &[&[u8]], ending: Ending) -> Record {
        let mut observer = Observer::new(self.shape());
        request.iter().for_each(|part| observer.request(part));
        assert!(observer.shape().is_grpc());
        if !matches!(ending, Ending::NoAnswer | Ending::Refused) {
            observer.head(200, &self.answer(), Duration::from_millis(1));
        }
        reply.iter().for_each(|part| observer.chunk(part, Duration::from_millis(2)));
        if self.choices & TRAILERS_ONLY == 0 && ending == Ending::Clean {
            observer.trailers(&self.trailers);
        }
        let mut record = Record::default();
        observer.finish(ending, Duration::from_millis(3), &mut record);
        record
    }

    fn shape(&self) -> Shape {
        let headers = headers(&[
            ("content-type", "application/grpc"),
            ("grpc-encoding", self.encoding),
            ("x-goog-request-params", self.parameters),
        ]);
        let path = self.method;
        Shape::read(&HeadView { method: "POST", host: None, path, query: None, headers: &headers })
    }

    fn answer(&self) -> HeaderMap {
        let kind = if self.choices & NO_GRPC == 0 { "application/grpc" } else { "text/html" };
        let mut answer = headers(&[("content-type", kind), ("grpc-encoding", self.encoding)]);
        if self.choices & TRAILERS_ONLY != 0 {
            answer.extend(self.trailers.clone());
        }
        answer
    }
}

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let fields = fields.iter().filter(|(_, value)| !value.is_empty());
    fields
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

/// How much could be read before a mistake in a compressed message depends on how it came.
fn check_same(parts: &Record, whole: &Record, how: &str) {
    let is_given_up = |record: &Record| record.not_understood.as_deref() == Some("encoded");
    if !is_given_up(parts) && !is_given_up(whole) {
        assert_eq!(parts, whole, "{how}");
    }
}

/// The pieces, and whether the body ended between two messages or why it was given up.
type Frames = (Pieces, Result<bool, NotUnderstood>);

fn check_frames(encoding: &str, seed: u16, body: &[u8]) {
    let Some(expected) = naive(encoding, body) else { return };
    assert_eq!(read(encoding, &[body]), expected, "whole");
    assert_eq!(read(encoding, &cut(seed, body)), expected, "cut");
    assert_eq!(read(encoding, &cut(0, body)), expected, "byte by byte");
}

fn read(encoding: &str, parts: &[&[u8]]) -> Frames {
    let (mut grpc, mut pieces) = (Grpc::new(Some(encoding.as_bytes())), Pieces::default());
    let result = parts.iter().try_for_each(|part| grpc.feed(part, &mut pieces));
    (pieces, result.map(|()| grpc.between()))
}

/// Nothing where a compressed message is broken or cut: how much of it is read is nobody's business.
fn naive(encoding: &str, mut body: &[u8]) -> Option<Frames> {
    let mut pieces = Pieces::default();
    while let [flag, behind @ ..] = body {
        let wrong = match (flag, encoding) {
            (0, _) | (1, "gzip") => None,
            (1, "zstd") => Some(NotUnderstood::Encoded),
            _ => Some(NotUnderstood::BadFrame),
        };
        if let Some(wrong) = wrong {
            return Some((pieces, Err(wrong)));
        }
        let Some((length, behind)) = behind.split_first_chunk() else {
            return Some((pieces, Ok(false)));
        };
        let length = u32::from_be_bytes(*length) as usize;
        let Some((message, rest)) = behind.split_at_checked(length) else {
            pieces.payload(behind);
            return Some((pieces, Ok(false))).filter(|_| *flag == 0);
        };
        match flag {
            0 => pieces.payload(message),
            _ => pieces.payload(&decompressed(message)?),
        }
        pieces.end();
        body = rest;
    }
    Some((pieces, Ok(true)))
}

fn decompressed(mut message: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    if !message.is_empty() {
        GzDecoder::new(&mut message).read_to_end(&mut bytes).ok()?;
    }
    message.is_empty().then_some(bytes)
}
