//! Simple model servers: `/generate` of vLLM's demo and of Model Garden's fork, `/v1/generate`,
//! and Text Generation Inference.
//!
//! They name no model, and hardly ever count tokens: then none are reported.

use std::sync::LazyLock;

use super::Count::*;
use super::openai::ERROR_PATHS;
use super::{Asks, Call, Counts, Field, Path, Reading, Usage};
use crate::json::{Table, Want};
use crate::{Dialect, HeadView};

static GENERATE: Reading = Reading {
    paths: LazyLock::new(|| Table::new(&[PATHS, ERROR_PATHS].concat())),
    nested: None,
    usage,
    has_end: false,
    count_headers: &[("x-prompt-tokens", Prompt), ("x-generated-tokens", Output)],
};

const PATHS: &[(&str, Want, Field)] = &[
    ("text[*]", Want::Seen, Field::Text),
    ("predictions[*]", Want::Seen, Field::Text),
    ("output_token_counts[*]", Want::Value, Field::Add(Output)),
    ("output", Want::Seen, Field::Text),
    ("token.text", Want::Seen, Field::Text),
    ("details.finish_reason", Want::Value, Field::Stop),
    ("details.generated_tokens", Want::Value, Field::Count(Output)),
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
        asks: Asks { model: false, stream: stream.is_none() },
        reading: &GENERATE,
    })
}

fn usage(counts: &Counts) -> Usage {
    Usage { input: counts.value(Prompt), output: counts.value(Output), ..Usage::default() }
}
