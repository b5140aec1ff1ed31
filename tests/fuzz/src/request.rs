//! The body of a request, by dialect: cuts, white space and escapes change nothing; what is kept of
//! it is bounded, and warnings are for Veo alone.

use std::collections::HashSet;
use std::time::Duration;

use http::HeaderMap;
use tidegate_wire::{Asked, Ending, HeadView, Media, Observer, Record, Shape};

use crate::input::{Input, cut};
use crate::observer::check_line;

/// One of each way in which bodies read.
pub(crate) const PATHS: &[&str] = &[
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/videos",
    "/v1/messages",
    "/v1beta/models/gemini:generateContent",
    "/v1beta/models/gemini:batchEmbedContents",
    "/v1beta/models/gemini:countTokens",
    "/v1/projects/p/locations/l/publishers/google/models/text-bison:predict",
    "/v1/projects/p/locations/l/publishers/google/models/embed:predict",
    "/v1/projects/p/locations/l/publishers/anthropic/models/m:rawPredict",
    "/v1/projects/p/locations/l/publishers/google/models/veo:fetchPredictOperation",
    "/model/m/converse",
    "/model/m/invoke",
    "/async-invoke",
    "/api/chat",
    "/generate",
    "/v2/chat",
    "/v2/embed",
    "/unknown",
    VEO,
    VEO_AT_ONCE,
];
pub(crate) const VEO: &str =
    "/v1/projects/p/locations/l/publishers/google/models/veo:predictLongRunning";
const VEO_AT_ONCE: &str = "/v1/projects/p/locations/l/publishers/google/models/veo:predict";

const MAX_LIST: usize = 8;
const MAX_ITEM: usize = 64;
const MAX_ID: usize = 256;
/// What is kept of any other text, where none of it was UTF-8.
const MAX_TEXT: usize = 3 * 1024;

pub(crate) fn request(data: &[u8]) {
    let mut input = Input::new(data);
    let (path, seed) = (input.pick(PATHS), input.short());
    let body = input.rest();
    let whole = record(path, &[body]);
    assert_eq!(record(path, &cut(seed, body)), whole, "cut");
    assert_eq!(record(path, &cut(0, body)), whole, "byte by byte");
    if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() {
        assert_eq!(record(path, &cut(seed, &otherwise(body))), whole, "written otherwise");
    }
    check(path, body, &whole);
    check_line(&whole);
}

/// The record of a call whose request comes in these parts, and that gets no answer.
pub(crate) fn record(path: &str, parts: &[&[u8]]) -> Record {
    let mut observer = Observer::new(Shape::read(&HeadView {
        method: "POST",
        host: None,
        path,
        query: None,
        headers: &HeaderMap::new(),
    }));
    for part in parts {
        let (reads, awaits) = (observer.reads_request(), observer.awaits_model());
        let model = observer.model().map(str::to_owned);
        observer.request(part);
        assert!(reads || !observer.reads_request(), "once false, it stays so");
        assert!(awaits || !observer.awaits_model(), "once false, it stays so");
        assert!(model.is_none() || observer.model() == model.as_deref(), "a model stays");
    }
    let mut record = Record::default();
    observer.finish(Ending::NoAnswer, Duration::from_millis(2), &mut record);
    record
}

/// The same JSON with white space where it may stand, and letters escaped.
fn otherwise(body: &[u8]) -> Vec<u8> {
    let mut written = Vec::new();
    let (mut in_text, mut escaped) = (false, 0);
    for (at, &byte) in body.iter().enumerate() {
        match byte {
            _ if escaped > 0 => escaped -= 1,
            // Four digits follow a `u`.
            b'\\' => escaped = if body.get(at + 1) == Some(&b'u') { 5 } else { 1 },
            b'"' => in_text = !in_text,
            _ if in_text && byte.is_ascii_alphanumeric() => {
                written.extend(format!("\\u{byte:04x}").bytes());
                continue;
            }
            b'{' | b'[' | b',' | b':' if !in_text => {
                written.extend([byte, b' ', b'\n']);
                continue;
            }
            _ => {}
        }
        written.push(byte);
    }
    written
}

fn check(path: &str, body: &[u8], record: &Record) {
    if let Some(asked) = record.asked.as_deref() {
        check_asked(asked);
        assert!(asked.messages.is_none_or(|messages| messages <= body.len() as u64));
        assert!(asked.tools.is_none_or(|tools| tools <= body.len() as u64));
    }
    if let Some(media) = record.media.as_deref() {
        check_media(media, body.len() as u64);
    }
    let model = record.request_model.as_ref();
    assert!(model.is_none_or(|model| model.len() <= MAX_TEXT));
    let known = ["image_under_512px", "video_over_8s"];
    let warnings: HashSet<_> = record.warnings.iter().map(|warning| &**warning).collect();
    assert_eq!(warnings.len(), record.warnings.len(), "each once: {record:?}");
    assert!(warnings.iter().all(|warning| known.contains(warning)), "{record:?}");
    let is_for_veo = [VEO, VEO_AT_ONCE].contains(&path);
    assert!(is_for_veo || warnings.is_empty(), "{path}: {record:?}");
}

fn check_asked(asked: &Asked) {
    let lists = [&asked.stop_sequences, &asked.encoding_formats];
    assert!(lists.iter().all(|list| list.len() <= MAX_LIST), "{asked:?}");
    let items = lists.into_iter().flatten().chain(&asked.service_tier);
    assert!(items.map(String::len).all(|length| length <= MAX_ITEM), "{asked:?}");
    let ids = [&asked.conversation_id, &asked.guardrail_id].into_iter().flatten();
    assert!(ids.map(String::len).all(|length| length <= MAX_ID), "{asked:?}");
    let output = asked.output_type.as_deref();
    assert!(output.is_none_or(|kind| ["text", "json", "image", "speech"].contains(&kind)));
    let numbers = [
        asked.temperature,
        asked.top_p,
        asked.top_k,
        asked.frequency_penalty,
        asked.presence_penalty,
    ];
    assert!(numbers.into_iter().flatten().all(f64::is_finite), "{asked:?}");
    assert_ne!(asked.choice_count, Some(1));
}

/// No more came than the body has bytes.
fn check_media(media: &Media, length: u64) {
    let kinds = [
        (media.images, media.image_bytes),
        (media.audios, media.audio_bytes),
        (media.videos, media.video_bytes),
        (media.documents, media.document_bytes),
    ];
    let sum = |values: [Option<u64>; 4]| values.into_iter().flatten().sum::<u64>();
    assert!(sum(kinds.map(|(number, _)| number)) <= length, "{media:?}");
    assert!(sum(kinds.map(|(_, bytes)| bytes)) <= length, "{media:?}");
    assert!(kinds.iter().all(|(number, bytes)| number.is_some() || bytes.is_none()), "{media:?}");
    assert!(kinds.iter().all(|(number, _)| *number != Some(0)), "{media:?}");
    assert!(media.video_seconds.is_none_or(|seconds| seconds.is_finite() && seconds > 0.0));
}
