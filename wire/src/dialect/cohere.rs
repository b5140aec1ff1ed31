//! Cohere's own interface: chat, embed and rerank, in both versions.
//!
//! What is billed is told apart from what was read; where both stand, the billed count holds, as
//! the GenAI conventions want it.

use std::sync::LazyLock;

use super::Count::*;
use super::openai::ERROR_PATHS;
use super::{Asks, Call, Counts, Field, Path, Reading, Usage};
use crate::json::{Table, Want};
use crate::{Dialect, HeadView};

static CHAT: Reading = Reading {
    paths: LazyLock::new(|| Table::new(&[PATHS, ERROR_PATHS].concat())),
    nested: None,
    usage,
    has_end: true,
    count_headers: &[],
};

/// Embed and rerank: one reply, nothing to stream.
static OTHER: Reading = Reading {
    paths: LazyLock::new(|| Table::new(&[PATHS, ERROR_PATHS].concat())),
    nested: None,
    usage,
    has_end: false,
    count_headers: &[],
};

const PATHS: &[(&str, Want, Field)] = &[
    ("id", Want::Value, Field::Id),
    ("generation_id", Want::Value, Field::Id),
    ("finish_reason", Want::Value, Field::Stop),
    ("delta.finish_reason", Want::Value, Field::Stop),
    ("delta.message.content.text", Want::Seen, Field::Text),
    ("delta.message.content.thinking", Want::Seen, Field::Reasoning),
    ("delta.message.tool_calls.function.arguments", Want::Seen, Field::Text),
    ("text", Want::Seen, Field::Text),
    ("usage.billed_units.input_tokens", Want::Value, Field::Count(Prompt)),
    ("usage.billed_units.output_tokens", Want::Value, Field::Count(Output)),
    ("usage.tokens.input_tokens", Want::Value, Field::Count(MeteredInput)),
    ("usage.tokens.output_tokens", Want::Value, Field::Count(MeteredOutput)),
    ("usage.cached_tokens", Want::Value, Field::Count(CacheRead)),
    ("delta.usage.billed_units.input_tokens", Want::Value, Field::Count(Prompt)),
    ("delta.usage.billed_units.output_tokens", Want::Value, Field::Count(Output)),
    ("delta.usage.tokens.input_tokens", Want::Value, Field::Count(MeteredInput)),
    ("delta.usage.tokens.output_tokens", Want::Value, Field::Count(MeteredOutput)),
    ("delta.usage.cached_tokens", Want::Value, Field::Count(CacheRead)),
    ("meta.billed_units.input_tokens", Want::Value, Field::Count(Prompt)),
    ("meta.billed_units.output_tokens", Want::Value, Field::Count(Output)),
    ("meta.tokens.input_tokens", Want::Value, Field::Count(MeteredInput)),
    ("meta.tokens.output_tokens", Want::Value, Field::Count(MeteredOutput)),
    ("response.meta.billed_units.input_tokens", Want::Value, Field::Count(Prompt)),
    ("response.meta.billed_units.output_tokens", Want::Value, Field::Count(Output)),
    ("response.meta.tokens.input_tokens", Want::Value, Field::Count(MeteredInput)),
    ("response.meta.tokens.output_tokens", Want::Value, Field::Count(MeteredOutput)),
];

/// Recognises its paths. Others rerank at the first version's: the host says who.
pub(super) fn recognise(head: &HeadView<'_>, path: &Path<'_>) -> Option<Call> {
    if head.method != "POST" {
        return None;
    }
    let (operation, reading) = match path.segments() {
        [.., "v1" | "v2", "chat"] => ("chat", &CHAT),
        [.., "v1" | "v2", "embed"] => ("embeddings", &OTHER),
        [.., "v1" | "v2", "rerank"] => ("rerank", &OTHER),
        _ => return None,
    };
    let is_its_own = operation != "rerank" || path.segments().contains(&"v2");
    let has_stream = operation == "chat";
    Some(Call {
        dialect: Dialect::Other,
        operation,
        provider: is_its_own.then_some("cohere"),
        model: None,
        region: None,
        project: None,
        stream: (!has_stream).then_some(false),
        streams_unasked: false,
        asks: Asks { model: true, stream: has_stream },
        reading,
    })
}

fn usage(counts: &Counts) -> Usage {
    Usage {
        input: counts.first(&[Prompt, MeteredInput]),
        output: counts.first(&[Output, MeteredOutput]),
        cache_read: counts.value(CacheRead),
        ..Usage::default()
    }
}
