//! The usage that a stream is asked for: the question changes nothing else of a request, and of the
//! answer nothing but the chunk with the usage is taken out.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tidegate_proxy::fuzzing::{UsageFilter, with_usage};

use crate::input::{Input, cut};
use crate::members::has_each_once;

/// What is held of one event at most.
const MAX_HELD: usize = 64 << 10;
/// Where an event has more blanks than this, it is let be.
const MAX_UNTOLD: usize = 64;

/// The request: the question is put in, and can be seen to be all that was.
pub(crate) fn usage_question(data: &[u8]) {
    let Some(asking) = with_usage(data) else { return };
    let start = data.iter().zip(&asking).take_while(|(left, right)| left == right).count();
    let added = asking.len() - data.len();
    let places = 0..=start;
    let is_put_in = |at: usize| [&asking[..at], &asking[at + added..]].concat() == data;
    assert!(places.rev().take(added + 1).any(is_put_in), "nothing else has moved");
    // What is no text, or no number, is none of its business.
    if has_each_once(data) {
        check_question(data, &asking);
    }
    assert_eq!(with_usage(&asking), None, "and is asked once");
}

fn check_question(before: &[u8], after: &[u8]) {
    let parse = |text: &[u8]| serde_json::from_slice::<Value>(text).expect("it is JSON");
    let mut expected = parse(before);
    assert_eq!(expected["stream"], true);
    match expected["stream_options"].as_object_mut() {
        Some(options) => {
            let known = options.insert("include_usage".to_owned(), json!(true));
            assert_eq!(known, None, "it said nothing of it");
        }
        None => expected["stream_options"] = json!({ "include_usage": true }),
    }
    assert_eq!(parse(after), expected);
}

/// The answer, wherever it is cut.
pub(crate) fn usage_filter(data: &[u8]) {
    let mut input = Input::new(data);
    let (seed, kind) = (input.short(), input.byte());
    let text = input.rest();
    // Some events are longer than what is held of one: these do not come byte by byte.
    let is_long = kind >= 200;
    let (seed, text) = match is_long {
        true => (seed.max(1), text.repeat(1 + 2 * MAX_HELD / (text.len() + 1))),
        false => (seed, text.to_vec()),
    };
    let whole = filtered([text.as_slice()]);
    assert!(whole == filtered(cut(seed, &text)), "cut");
    assert!(is_long || whole == filtered(cut(0, &text)), "byte by byte");
    let with_nothing = cut(seed, &text).into_iter().flat_map(|part| [part, b""]);
    assert!(whole == filtered(with_nothing), "with empty pieces");
    let naive = naive(&text);
    assert!(whole == naive, "{} {}", whole.escape_ascii(), naive.escape_ascii());
}

fn filtered<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut filter, mut out) = (UsageFilter::default(), Vec::new());
    parts.into_iter().for_each(|part| filter.feed(part, &mut out));
    filter.end(&mut out);
    out
}

/// The events of the text but for those that are a usage chunk.
fn naive(mut text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while !text.is_empty() {
        let line = line(text);
        let is_front = text[0] == b':' || is_blank(&text[..line]);
        let length = if is_front { line } else { event(text) };
        let (event, rest) = text.split_at(length);
        if is_front || !is_usage_chunk(event) {
            out.extend_from_slice(event);
        }
        text = rest;
    }
    out
}

/// The length of the line at the front, its end included.
fn line(text: &[u8]) -> usize {
    let Some(end) = text.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
        return text.len();
    };
    if text[end..].starts_with(b"\r\n") { end + 2 } else { end + 1 }
}

fn is_blank(line: &[u8]) -> bool {
    matches!(line, b"\n" | b"\r" | b"\r\n")
}

/// The length of the event at the front, its empty line included.
fn event(text: &[u8]) -> usize {
    let mut length = 0;
    while length < text.len() {
        let line = line(&text[length..]);
        length += line;
        if is_blank(&text[length - line..length]) {
            break;
        }
    }
    length
}

#[derive(Deserialize)]
struct Chunk {
    choices: Vec<IgnoredAny>,
    usage: serde_json::Map<String, Value>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

fn is_usage_chunk(event: &[u8]) -> bool {
    let Some(behind) = event.strip_prefix(b"data:") else { return false };
    let data = behind.trim_ascii_start();
    let begins = data.first() == Some(&b'{') && behind.len() - data.len() <= MAX_UNTOLD;
    let lines = event.split(|byte| matches!(byte, b'\n' | b'\r'));
    let data: Vec<_> = lines.filter_map(|line| line.strip_prefix(b"data:")).collect();
    let chunk = serde_json::from_slice::<Chunk>(&data.join(&b'\n'));
    begins
        && event.len() <= MAX_HELD
        && !names_choices(event)
        && chunk.is_ok_and(|chunk| {
            chunk.choices.is_empty() && !chunk.usage.is_empty() && chunk.error.is_none()
        })
}

/// Whether choices stand anywhere in it, be it in another object.
fn names_choices(event: &[u8]) -> bool {
    let name = br#""choices""#;
    let starts = (0..event.len()).filter(|at| event[*at..].starts_with(name));
    starts.into_iter().any(|at| {
        let behind = &event[at + name.len()..];
        let near = &behind[..behind.len().min(MAX_UNTOLD)];
        let near: Vec<_> = near.iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
        match near[..] {
            [b':', b'[', first, ..] => *first != b']',
            [] | [b':'] | [b':', b'['] => behind.len() > MAX_UNTOLD,
            _ => false,
        }
    })
}
