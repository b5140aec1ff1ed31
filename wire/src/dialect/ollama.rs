//! Ollama's own interface: one JSON object, or one for each token, a line each.
//!
//! It streams unless it is told not to. Every object says whether it is the last, so a stream that
//! breaks off is seen.

use std::sync::LazyLock;

use super::Count::*;
use super::openai::ERROR_PATHS;
use super::{Asks, Call, Counts, Field, Path, Reading, Usage};
use crate::json::{Table, Want};
use crate::{Dialect, HeadView};

static OLLAMA: Reading = Reading {
    paths: LazyLock::new(|| Table::new(&[PATHS, ERROR_PATHS].concat())),
    nested: None,
    usage,
    has_end: true,
    count_headers: &[],
};

const PATHS: &[(&str, Want, Field)] = &[
    ("model", Want::Value, Field::Model),
    ("message.content", Want::Seen, Field::Text),
    ("message.thinking", Want::Seen, Field::Reasoning),
    ("message.tool_calls[*]", Want::Seen, Field::Tool),
    ("message.tool_calls[*].function.arguments", Want::Seen, Field::Text),
    ("response", Want::Seen, Field::Text),
    ("thinking", Want::Seen, Field::Reasoning),
    ("done", Want::Value, Field::Done),
    ("done_reason", Want::Value, Field::Stop),
    ("prompt_eval_count", Want::Value, Field::Count(Prompt)),
    ("eval_count", Want::Value, Field::Count(Output)),
];

/// Recognises the paths below `/api`.
pub(super) fn recognise(head: &HeadView<'_>, path: &Path<'_>) -> Option<Call> {
    if head.method != "POST" {
        return None;
    }
    let operation = match path.segments() {
        [.., "api", "chat"] => "chat",
        [.., "api", "generate"] => "text_completion",
        [.., "api", "embed" | "embeddings"] => "embeddings",
        _ => return None,
    };
    let has_stream = operation != "embeddings";
    Some(Call {
        dialect: Dialect::Generate,
        operation,
        provider: Some("ollama"),
        model: None,
        region: None,
        project: None,
        stream: (!has_stream).then_some(false),
        streams_unasked: has_stream,
        asks: Asks { model: true, stream: has_stream },
        reading: &OLLAMA,
    })
}

fn usage(counts: &Counts) -> Usage {
    Usage { input: counts.value(Prompt), output: counts.value(Output), ..Usage::default() }
}
