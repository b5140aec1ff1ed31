//! Calls that a sidecar captured: made again as they were, or, where only their shape was kept, with
//! words in place of what was said.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{HeaderMap as Headers, Method};
use tidegate_wire::Record;
use tidegate_wire::capture::{self, BLOCK_BYTES, LineError, Sketch};

use super::format::Said;
use super::{Asked, Row};
use crate::client::shape;
use crate::workload::written::{Ask, Turn};
use crate::workload::{Entry, Expected, Operation, Request, Synthetic};

/// Most bytes of text that a token has on average, whatever is said: where there are more, they were
/// an image or the like.
const MOST_BYTES_OF_TOKEN: u64 = 8;
/// Tokens of an answer whose length was not stated.
const TYPICAL_OUTPUT: NonZeroU32 = NonZeroU32::new(256).expect("it is not zero");

pub(super) fn begins(line: &[u8]) -> bool {
    line.starts_with(b"{\"crc\":\"")
}

pub(super) fn read(line: &[u8]) -> Result<Said, String> {
    let entry = match capture::Entry::read(line) {
        Ok(entry) => entry,
        Err(error @ (LineError::Foreign | LineError::Damaged)) => {
            return Ok(Said::Torn(error.to_string()));
        }
        Err(error) => return Err(error.to_string()),
    };
    if let Some(reason) = unrepeatable(&entry) {
        return Ok(Said::LeftOut(reason));
    }
    let Some(request) = request(&entry) else {
        return Ok(Said::LeftOut("nobody can tell what its body was like"));
    };
    let record = &entry.record;
    let at = i64::try_from(record.time.as_nanosecond()).ok();
    let (mode, sample) = (entry.mode, entry.sample);
    let asked = Asked::Captured { request: Box::new(request), mode, sample };
    Ok(Said::Call(Box::new(Row { at, asked })))
}

/// Why a call cannot be made again, if so.
fn unrepeatable(entry: &capture::Entry) -> Option<&'static str> {
    let fields = &entry.request.headers;
    let is_grpc = fields
        .iter()
        .any(|(name, value)| name == "content-type" && value.starts_with("application/grpc"));
    match entry {
        _ if entry.record.upgrade.is_some() => Some("it became another protocol (WebSocket)"),
        _ if is_grpc => Some("it was made by gRPC"),
        _ if entry.request.is_left_out => Some("its body was too large or encoded, and not kept"),
        _ => None,
    }
}

fn request(entry: &capture::Entry) -> Option<Request> {
    let record = &entry.record;
    let model = record.request_model.as_deref().or(record.response_model.as_deref());
    let route = record.route.clone().or_else(|| record.operation.clone());
    let method = record.method.as_deref().unwrap_or("POST");
    let mut request = Request {
        method: Method::from_bytes(method.as_bytes()).ok()?,
        path: entry.request.target.clone(),
        headers: headers(&entry.request.headers),
        body: entry.request.bytes().unwrap_or_default().into(),
        dialect: tidegate_wire::Dialect::Other,
        label: model.unwrap_or("unknown").into(),
        route: route.unwrap_or_else(|| "captured".into()),
        stream: record.stream.unwrap_or(false),
        expected: Expected {
            input_tokens: record.input_tokens,
            output_tokens: record.output_tokens,
        },
        then: None,
    };
    request.dialect = shape(&request, None).dialect;
    if let Some(sketch) = &entry.request.shape {
        request.body = sketched(sketch, &request, record)?.body;
        // Whatever it was before, it is JSON now.
        request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    Some(request)
}

fn headers(fields: &[(String, String)]) -> Headers {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    headers
}

/// A request of the same kind, with as much text that begins as others of the file did.
fn sketched(sketch: &Sketch, request: &Request, record: &Record) -> Option<Request> {
    let entry = Entry {
        call: Operation::of(request)?,
        model: request.label.clone(),
        stream: request.stream,
        ..Entry::new(Operation::OpenAiChat, Arc::from(""))
    };
    let most = record.input_tokens.map(|tokens| tokens.max(1) * MOST_BYTES_OF_TOKEN);
    let bytes = sketch.texts.iter().sum::<u64>().min(most.unwrap_or(u64::MAX));
    let output = record.output_tokens.and_then(|tokens| NonZeroU32::new(tokens as u32));
    let ask = Ask {
        input_tokens: record.input_tokens,
        turns: vec![Turn::user(text(&sketch.blocks, usize::try_from(bytes).ok()?))],
        output_tokens: output.unwrap_or(TYPICAL_OUTPUT),
        states_usage: record.usage_source.is_some(),
        later: VecDeque::new(),
        seed: 0,
    };
    Some(ask.request(&entry))
}

/// So many bytes of words, of which each block is the same wherever its number is the same.
fn text(blocks: &[u64], bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 16);
    for block in blocks {
        let end = (text.len() + BLOCK_BYTES).min(bytes);
        fill(&mut Synthetic::new(*block, 0), end, &mut text);
    }
    let last = blocks.last().copied().unwrap_or_default();
    fill(&mut Synthetic::new(last, 1), bytes.max(1), &mut text);
    text
}

/// Words up to so many bytes in all.
fn fill(words: &mut Synthetic, end: usize, text: &mut String) {
    while text.len() < end {
        words.words(1, text);
    }
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_as_long_as_it_was_and_begins_as_its_blocks_say() {
        let (one, other) = (text(&[1, 2, 3], 5000), text(&[1, 2, 4], 6000));
        assert_eq!((one.len(), other.len()), (5000, 6000));
        assert_eq!(one[..4096], other[..4096]);
        assert_ne!(one[4096..], other[4096..5000]);
        assert_eq!(text(&[1, 2, 3], 5000), one);
        assert_eq!(text(&[], 0).len(), 1, "nothing cannot be asked");
        assert_eq!(text(&[1], 3000).len(), 3000, "more than its blocks say");
    }
}
