//! Anthropic Messages, wherever they are served.
//!
//! Cached input stands beside `input_tokens`. What `message_delta` says replaces what
//! `message_start` said: both are totals.

use std::sync::LazyLock;

use super::Count::*;
use super::openai::ERROR_PATHS;
use super::{Asks, Call, Count, Counts, Field, Path, Reading, Usage};
use crate::json::{Table, Want};
use crate::{Dialect, HeadView};

/// Messages, and the older text completions.
pub(super) static MESSAGES: Reading = Reading {
    paths: LazyLock::new(|| Table::new(&[PATHS, ERROR_PATHS].concat())),
    nested: None,
    usage,
    has_end: true,
    count_headers: &[],
};

/// The count of a prompt's tokens.
pub(super) static COUNT_TOKENS: Reading = Reading {
    paths: LazyLock::new(|| Table::new(&[COUNT_PATHS, ERROR_PATHS].concat())),
    nested: None,
    usage,
    has_end: false,
    count_headers: &[],
};

/// Whole answers and events.
pub(super) const PATHS: &[(&str, Want, Field)] = &[
    ("type", Want::Value, Field::Type),
    ("id", Want::Value, Field::Id),
    ("model", Want::Value, Field::Model),
    ("stop_reason", Want::Value, Field::Stop),
    ("completion", Want::Seen, Field::Text),
    ("usage.input_tokens", Want::Value, Field::Count(Input)),
    ("usage.output_tokens", Want::Value, Field::Count(Output)),
    ("usage.cache_read_input_tokens", Want::Value, Field::Count(CacheRead)),
    ("usage.cache_creation_input_tokens", Want::Value, Field::Count(CacheWrite)),
    ("usage.output_tokens_details.thinking_tokens", Want::Value, Field::Count(Reasoning)),
    ("usage.cache_creation.ephemeral_1h_input_tokens", Want::Value, Field::Count(CacheWriteLong)),
    ("usage.service_tier", Want::Value, Field::Tier),
    ("message.id", Want::Value, Field::Id),
    ("message.model", Want::Value, Field::Model),
    (
        "message.usage.cache_creation.ephemeral_1h_input_tokens",
        Want::Value,
        Field::Count(CacheWriteLong),
    ),
    ("message.usage.service_tier", Want::Value, Field::Tier),
    ("message.usage.input_tokens", Want::Value, Field::Count(Input)),
    ("message.usage.output_tokens", Want::Value, Field::Count(Output)),
    ("message.usage.cache_read_input_tokens", Want::Value, Field::Count(CacheRead)),
    ("message.usage.cache_creation_input_tokens", Want::Value, Field::Count(CacheWrite)),
    ("delta.stop_reason", Want::Value, Field::Stop),
    ("delta.text", Want::Seen, Field::Text),
    ("delta.thinking", Want::Seen, Field::Reasoning),
    ("delta.partial_json", Want::Seen, Field::Text),
];

const COUNT_PATHS: &[(&str, Want, Field)] =
    &[("input_tokens", Want::Value, Field::Count(Count::Counted))];

/// Recognises Messages by their version: other interfaces have messages, too.
pub(super) fn recognise(head: &HeadView<'_>, path: &Path<'_>) -> Option<Call> {
    if head.method != "POST" {
        return None;
    }
    let (operation, reading) = match path.segments() {
        [.., "v1", "messages"] => ("chat", &MESSAGES),
        [.., "v1", "messages", "count_tokens"] => ("count_tokens", &COUNT_TOKENS),
        [.., "v1", "complete"] => ("text_completion", &MESSAGES),
        _ => return None,
    };
    let has_stream = operation != "count_tokens";
    Some(Call {
        dialect: Dialect::Anthropic,
        operation,
        provider: Some("anthropic"),
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
        input: counts.with(Input, &[CacheRead, CacheWrite]),
        output: counts.value(Output),
        cache_read: counts.value(CacheRead),
        cache_creation: counts.value(CacheWrite),
        reasoning: counts.value(Reasoning),
    }
}
