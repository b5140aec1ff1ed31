//! Simple model servers: `/generate` of vLLM's demo, of Model Garden's fork and of SGLang,
//! `/v1/generate`, and Text Generation Inference.
//!
//! They name no model, and hardly ever count tokens: then none are reported.

use std::sync::LazyLock;

use super::Count::*;
use super::openai::ERROR_PATHS;
use super::{Asks, Call, Counts, Field, Path, Reading, Usage};
use crate::json::{Table, Want};
use crate::{Dialect, HeadView, Headers};

static GENERATE: Reading = Reading {
    paths: LazyLock::new(|| Table::new(&[PATHS, ERROR_PATHS].concat())),
    nested: None,
    usage,
    has_end: false,
    count_headers: &[("x-prompt-tokens", Prompt), ("x-generated-tokens", Output)],
};

pub(super) const PATHS: &[(&str, Want, Field)] = &[
    ("text", Want::Text, Field::Text),
    ("text[*]", Want::Seen, Field::Text),
    ("predictions[*]", Want::Seen, Field::Text),
    ("output_token_counts[*]", Want::Value, Field::Add(Output)),
    ("output", Want::Seen, Field::Text),
    ("token.id", Want::Value, Field::More),
    ("token.text", Want::Seen, Field::Text),
    ("details.finish_reason", Want::Value, Field::Stop),
    ("details.generated_tokens", Want::Value, Field::Count(Output)),
    ("details.input_length", Want::Value, Field::Count(Prompt)),
    ("generated_text", Want::Text, Field::End),
    ("meta_info.id", Want::Value, Field::Id),
    ("meta_info.prompt_tokens", Want::Value, Field::Count(Prompt)),
    ("meta_info.completion_tokens", Want::Value, Field::Count(Output)),
    ("meta_info.cached_tokens", Want::Value, Field::Count(CacheRead)),
    ("meta_info.finish_reason.type", Want::Value, Field::Stop),
    ("error_type", Want::Value, Field::ErrorType),
];

/// Recognises the paths; whether it streams, the body says, if it is JSON at all.
pub(super) fn recognise(head: &HeadView<'_>, path: &Path<'_>) -> Option<Call> {
    if head.method != "POST" {
        return None;
    }
    let stream = match path.segments() {
        [.., "generate"] => None,
        [.., "generate_stream"] => Some(true),
        _ => return None,
    };
    Some(Call {
        dialect: Dialect::Generate,
        operation: "text_completion",
        provider: None,
        model: None,
        region: None,
        project: None,
        stream,
        streams_unasked: false,
        asks: Asks { model: false, stream: stream.is_none() },
        reading: &GENERATE,
    })
}

/// Recognises a server by its reply: Text Generation Inference answers at `/`, too, as much else does.
pub(crate) fn recognise_reply(headers: &dyn Headers) -> Option<&'static Reading> {
    const STREAM: &[u8] = b"text/event-stream";
    let is_stream = headers.value("content-type").is_some_and(|kind| kind.starts_with(STREAM));
    let its_own = if is_stream { "x-compute-type" } else { "x-generated-tokens" };
    headers.value(its_own).map(|_| &GENERATE)
}

fn usage(counts: &Counts) -> Usage {
    Usage {
        input: counts.value(Prompt),
        output: counts.value(Output),
        cache_read: counts.value(CacheRead),
        ..Usage::default()
    }
}
