//! OpenAI, and those that speak like it: chat, completions, embeddings, responses, images.
//!
//! Cached tokens are inside the input and reasoning is inside the output, unless the provider's
//! own total shows that it stands beside (xAI, Gemini), or more is cached than there is input
//! (Grok on Azure).

use std::sync::LazyLock;

use super::Count::*;
use super::anthropic::COUNT_TOKENS;
use super::{Asks, Call, Counts, Field, Path, Reading, Usage, decoded};
use crate::json::{Table, Want};
use crate::{Dialect, HeadView};

/// Chat, completions and embeddings.
pub(super) static CHAT: Reading = Reading {
    paths: LazyLock::new(|| Table::new(&[CHAT_PATHS, USAGE_PATHS, ERROR_PATHS].concat())),
    nested: None,
    usage,
    has_end: true,
    count_headers: &[],
};

static RESPONSES: Reading = Reading {
    paths: LazyLock::new(|| Table::new(&[RESPONSES_PATHS, ITEM_USAGE_PATHS, ERROR_PATHS].concat())),
    nested: None,
    usage,
    has_end: true,
    count_headers: &[],
};

static EMBEDDINGS: Reading = Reading {
    paths: LazyLock::new(|| Table::new(&[CHAT_PATHS, USAGE_PATHS, ERROR_PATHS].concat())),
    nested: None,
    usage,
    has_end: false,
    count_headers: &[],
};

static IMAGES: Reading = Reading {
    paths: LazyLock::new(|| Table::new(&[IMAGE_PATHS, ITEM_USAGE_PATHS, ERROR_PATHS].concat())),
    nested: None,
    usage,
    has_end: true,
    count_headers: &[],
};

/// Choices, of whole answers and of chunks.
pub(super) const CHAT_PATHS: &[(&str, Want, Field)] = &[
    ("id", Want::Value, Field::Id),
    ("model", Want::Value, Field::Model),
    ("object", Want::Value, Field::Object),
    ("choices[*]", Want::Closed, Field::Choice),
    ("choices[*].index", Want::Value, Field::Index),
    ("choices[*].finish_reason", Want::Value, Field::Finish),
    ("choices[*].text", Want::Seen, Field::Text),
    ("choices[*].delta.content", Want::Text, Field::Text),
    ("choices[*].delta.content[*].text", Want::Seen, Field::Text),
    ("choices[*].delta.content[*].thinking", Want::Seen, Field::Reasoning),
    ("choices[*].delta.content[*].summary[*].text", Want::Seen, Field::Reasoning),
    ("choices[*].delta.refusal", Want::Seen, Field::Text),
    ("choices[*].delta.reasoning_content", Want::Seen, Field::Reasoning),
    ("choices[*].delta.reasoning", Want::Seen, Field::Reasoning),
    ("choices[*].delta.function_call.arguments", Want::Seen, Field::Text),
    ("choices[*].delta.tool_calls[*].function.arguments", Want::Seen, Field::Text),
    ("choices[*].delta.tool_calls[*].custom.input", Want::Seen, Field::Text),
    ("choices[*].delta.function_call", Want::Seen, Field::Tool),
    ("choices[*].delta.tool_calls[*]", Want::Seen, Field::Tool),
    ("choices[*].message.function_call", Want::Seen, Field::Tool),
    ("choices[*].message.tool_calls[*]", Want::Seen, Field::Tool),
    ("choices[*].delta.audio.transcript", Want::Seen, Field::Text),
    ("choices[*].delta.audio.data", Want::Seen, Field::Text),
    ("choices[*].delta.images[*]", Want::Closed, Field::Part),
    ("choices[*].delta.images[*].image_url.url", Want::Seen, Field::Image),
    ("choices[*].message.images[*]", Want::Closed, Field::Part),
    ("choices[*].message.images[*].image_url.url", Want::Seen, Field::Image),
    ("service_tier", Want::Value, Field::Tier),
    ("system_fingerprint", Want::Value, Field::Fingerprint),
    ("type", Want::Value, Field::FlatType),
    ("code", Want::Value, Field::FlatCode),
];

/// Usage, in all the places where it was seen.
pub(super) const USAGE_PATHS: &[(&str, Want, Field)] = &[
    ("usage.prompt_tokens", Want::Value, Field::Count(Prompt)),
    ("usage.completion_tokens", Want::Value, Field::Count(Output)),
    ("usage.total_tokens", Want::Value, Field::Count(Total)),
    ("usage.prompt_tokens_details.cached_tokens", Want::Value, Field::Count(CacheRead)),
    ("usage.prompt_tokens_details.cache_write_tokens", Want::Value, Field::Count(CacheWrite)),
    ("usage.completion_tokens_details.reasoning_tokens", Want::Value, Field::Count(Reasoning)),
    ("usage.reasoning_tokens", Want::Value, Field::Count(ReasoningElsewhere)),
    ("usage.prompt_cache_hit_tokens", Want::Value, Field::Count(CacheReadElsewhere)),
    ("usage.cached_tokens", Want::Value, Field::Count(CacheReadElsewhere)),
    ("usage.num_cached_tokens", Want::Value, Field::Count(CacheReadElsewhere)),
    ("x_groq.usage.prompt_tokens", Want::Value, Field::Count(Prompt)),
    ("x_groq.usage.completion_tokens", Want::Value, Field::Count(Output)),
    ("x_groq.usage.total_tokens", Want::Value, Field::Count(Total)),
    ("x_groq.usage.prompt_tokens_details.cached_tokens", Want::Value, Field::Count(CacheRead)),
    (
        "x_groq.usage.completion_tokens_details.reasoning_tokens",
        Want::Value,
        Field::Count(Reasoning),
    ),
    ("x_groq.error", Want::Seen, Field::Error),
];

const RESPONSES_PATHS: &[(&str, Want, Field)] = &[
    ("id", Want::Value, Field::Id),
    ("model", Want::Value, Field::Model),
    ("status", Want::Value, Field::Status),
    ("incomplete_details.reason", Want::Value, Field::Stop),
    ("object", Want::Value, Field::Object),
    ("service_tier", Want::Value, Field::Tier),
    ("output[*].result", Want::Seen, Field::Images),
    ("output[*].type", Want::Value, Field::ItemType),
    ("item.type", Want::Value, Field::ItemType),
    ("type", Want::Value, Field::Type),
    ("delta", Want::Seen, Field::Delta),
    ("code", Want::Value, Field::FlatCode),
    ("response.id", Want::Value, Field::Id),
    ("response.model", Want::Value, Field::Model),
    ("response.status", Want::Value, Field::Status),
    ("response.service_tier", Want::Value, Field::Tier),
    ("response.output[*].result", Want::Seen, Field::Images),
    ("response.output[*].type", Want::Value, Field::ItemType),
    ("response.incomplete_details.reason", Want::Value, Field::Stop),
    ("response.error", Want::Seen, Field::Error),
    ("response.error.type", Want::Value, Field::ErrorType),
    ("response.error.code", Want::Value, Field::ErrorCode),
    ("response.usage.input_tokens", Want::Value, Field::Count(Prompt)),
    ("response.usage.output_tokens", Want::Value, Field::Count(Output)),
    ("response.usage.total_tokens", Want::Value, Field::Count(Total)),
    ("response.usage.input_tokens_details.cached_tokens", Want::Value, Field::Count(CacheRead)),
    (
        "response.usage.input_tokens_details.cache_write_tokens",
        Want::Value,
        Field::Count(CacheWrite),
    ),
    ("response.usage.output_tokens_details.reasoning_tokens", Want::Value, Field::Count(Reasoning)),
];

/// Images, of whole answers and of events; where these carry one, their type says that it is done.
const IMAGE_PATHS: &[(&str, Want, Field)] = &[
    ("data[*]", Want::Closed, Field::Part),
    ("data[*].b64_json", Want::Seen, Field::Image),
    ("data[*].url", Want::Seen, Field::Image),
    ("model", Want::Value, Field::Model),
    ("type", Want::Value, Field::Type),
    ("code", Want::Value, Field::FlatCode),
];

/// Usage in the words of responses and images.
const ITEM_USAGE_PATHS: &[(&str, Want, Field)] = &[
    ("usage.input_tokens", Want::Value, Field::Count(Prompt)),
    ("usage.output_tokens", Want::Value, Field::Count(Output)),
    ("usage.total_tokens", Want::Value, Field::Count(Total)),
    ("usage.input_tokens_details.cached_tokens", Want::Value, Field::Count(CacheRead)),
    ("usage.input_tokens_details.cache_write_tokens", Want::Value, Field::Count(CacheWrite)),
    ("usage.output_tokens_details.reasoning_tokens", Want::Value, Field::Count(Reasoning)),
];

/// Errors of all who speak like OpenAI, and Google's, which come from its compatible endpoints.
pub(super) const ERROR_PATHS: &[(&str, Want, Field)] = &[
    ("error", Want::Seen, Field::Error),
    ("error.type", Want::Value, Field::ErrorType),
    ("error.code", Want::Value, Field::ErrorCode),
    ("error.status", Want::Value, Field::ErrorStatus),
    ("error.details[*].retryDelay", Want::Value, Field::RetryDelay),
];

/// Recognises chat, completions, embeddings, responses and images, behind whatever prefix.
pub(super) fn recognise(head: &HeadView<'_>, path: &Path<'_>) -> Option<Call> {
    if head.method != "POST" {
        return None;
    }
    let (operation, reading, front) = match path.segments() {
        [front @ .., "chat", "completions"] => ("chat", &CHAT, front),
        [front @ .., "completions"] => ("text_completion", &CHAT, front),
        [front @ .., "embeddings"] => ("embeddings", &EMBEDDINGS, front),
        [front @ .., "responses"] => ("chat", &RESPONSES, front),
        [front @ .., "responses", "input_tokens"] => ("count_tokens", &COUNT_TOKENS, front),
        [front @ .., "images", "generations" | "edits" | "variations"] => {
            ("generate_image", &IMAGES, front)
        }
        [front @ .., "serving-endpoints", _, "invocations"] => ("chat", &CHAT, front),
        _ => return None,
    };
    let (model, provider) = match (front, path.segments()) {
        ([.., "deployments", deployment] | [.., "deployments", deployment, "extensions"], _) => {
            (Some(*deployment), "azure.ai.openai")
        }
        ([.., "engines", engine], _) => (Some(*engine), "openai"),
        (_, [.., "serving-endpoints", endpoint, "invocations"]) => (Some(*endpoint), "databricks"),
        (["", "models"], _) => (None, "azure.ai.inference"),
        _ => (None, "openai"),
    };
    let has_stream = !matches!(operation, "embeddings" | "count_tokens");
    Some(Call {
        dialect: Dialect::OpenAi,
        operation,
        provider: Some(provider),
        model: model.map(|model| decoded(model).into_owned()),
        region: None,
        project: None,
        stream: (!has_stream).then_some(false),
        streams_unasked: false,
        asks: Asks { model: true, stream: has_stream },
        reading,
    })
}

/// How the counts add up.
pub(super) fn usage(counts: &Counts) -> Usage {
    let cache_read = counts.first(&[CacheRead, CacheReadElsewhere]);
    let reasoning = counts.first(&[Reasoning, ReasoningElsewhere]);
    Usage {
        input: input(counts, cache_read),
        output: output(counts, reasoning),
        cache_read,
        cache_creation: counts.value(CacheWrite),
        reasoning,
    }
}

fn input(counts: &Counts, cache_read: Option<u64>) -> Option<u64> {
    let prompt = counts.value(Prompt)?;
    let beside = cache_read.filter(|cached| *cached > prompt).unwrap_or(0);
    Some(prompt.saturating_add(beside))
}

fn output(counts: &Counts, reasoning: Option<u64>) -> Option<u64> {
    let output = counts.value(Output)?;
    let with_reasoning = output.saturating_add(reasoning.unwrap_or(0));
    let parts = counts.value(Prompt).unwrap_or(0).saturating_add(with_reasoning);
    Some(if counts.value(Total) == Some(parts) { with_reasoning } else { output })
}
