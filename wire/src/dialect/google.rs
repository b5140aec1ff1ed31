//! Vertex AI and the Gemini API.
//!
//! Counts are running totals, merged field by field: the last chunk may lack one. Thoughts stand
//! beside the visible output, and what server-side tools feed back stands beside the prompt.

use std::sync::LazyLock;

use super::Count::*;
use super::openai::{self, CHAT_PATHS, ERROR_PATHS};
use super::{Asks, Call, Counts, Field, Path, Reading, Usage, anthropic, decoded, generate};
use crate::job::JobFact;
use crate::json::{Table, Want};
use crate::{Dialect, HeadView};

pub(super) static GENERATE: Reading = Reading {
    paths: LazyLock::new(|| Table::new(&[GENERATE_PATHS, ERROR_PATHS].concat())),
    nested: None,
    usage,
    has_end: true,
    count_headers: &[],
};

/// Counting, embedding, predicting: one reply, nothing to stream.
pub(super) static OTHER: Reading = Reading {
    paths: LazyLock::new(|| Table::new(&[OTHER_PATHS, USAGE_PATHS, ERROR_PATHS].concat())),
    nested: None,
    usage,
    has_end: false,
    count_headers: &[],
};

/// Own endpoints: whatever server stands there answers in its own words.
static RAW: Reading = Reading {
    paths: LazyLock::new(|| {
        Table::new(&[CHAT_PATHS, openai::USAGE_PATHS, ERROR_PATHS, generate::PATHS].concat())
    }),
    nested: None,
    usage: openai::usage,
    has_end: true,
    count_headers: &[],
};

static OPERATION: Reading = Reading {
    paths: LazyLock::new(|| Table::new(&[OPERATION_PATHS, ERROR_PATHS].concat())),
    nested: None,
    usage,
    has_end: false,
    count_headers: &[],
};

const GENERATE_PATHS: &[(&str, Want, Field)] = &[
    ("responseId", Want::Value, Field::Id),
    ("modelVersion", Want::Value, Field::Model),
    ("candidates[*]", Want::Closed, Field::Choice),
    ("candidates[*].index", Want::Value, Field::Index),
    ("candidates[*].finishReason", Want::Value, Field::Finish),
    ("candidates[*].content.parts[*]", Want::Closed, Field::Part),
    ("candidates[*].content.parts[*].text", Want::Seen, Field::PartText),
    ("candidates[*].content.parts[*].thought", Want::Seen, Field::PartThought),
    ("candidates[*].content.parts[*].functionCall", Want::Seen, Field::PartTool),
    ("candidates[*].content.parts[*].executableCode", Want::Seen, Field::PartText),
    ("candidates[*].content.parts[*].inlineData.mimeType", Want::Value, Field::MimeType),
    ("candidates[*].content.parts[*].inlineData.data", Want::Seen, Field::Image),
    ("promptFeedback.blockReason", Want::Value, Field::BlockReason),
    ("usageMetadata.promptTokenCount", Want::Value, Field::Count(Prompt)),
    ("usageMetadata.toolUsePromptTokenCount", Want::Value, Field::Count(ToolPrompt)),
    ("usageMetadata.candidatesTokenCount", Want::Value, Field::Count(Visible)),
    ("usageMetadata.thoughtsTokenCount", Want::Value, Field::Count(Reasoning)),
    ("usageMetadata.cachedContentTokenCount", Want::Value, Field::Count(CacheRead)),
    ("usageMetadata.serviceTier", Want::Value, Field::Tier),
];

const USAGE_PATHS: &[(&str, Want, Field)] = &[
    ("usageMetadata.promptTokenCount", Want::Value, Field::Count(Prompt)),
    ("predictions[*].embeddings.statistics.token_count", Want::Value, Field::Add(Prompt)),
    ("metadata.tokenMetadata.inputTokenCount.totalTokens", Want::Value, Field::Count(Prompt)),
    ("metadata.tokenMetadata.outputTokenCount.totalTokens", Want::Value, Field::Count(Visible)),
    ("output_token_counts[*]", Want::Value, Field::Add(Visible)),
];

const OTHER_PATHS: &[(&str, Want, Field)] = &[
    ("totalTokens", Want::Value, Field::Count(Counted)),
    ("predictions[*]", Want::Closed, Field::Part),
    ("predictions[*].mimeType", Want::Value, Field::MimeType),
    ("predictions[*].bytesBase64Encoded", Want::Seen, Field::Image),
    ("predictions[*].gcsUri", Want::Seen, Field::Image),
    ("predictions[*].videoUri", Want::Seen, Field::Job(JobFact::Video)),
];

/// A long-running operation: the answer to its submit, and to every poll.
const OPERATION_PATHS: &[(&str, Want, Field)] = &[
    ("name", Want::Value, Field::Job(JobFact::Name)),
    ("done", Want::Value, Field::Job(JobFact::Done)),
    ("metadata.createTime", Want::Value, Field::Job(JobFact::Created)),
    ("metadata.updateTime", Want::Value, Field::Job(JobFact::Updated)),
    ("metadata.endTime", Want::Value, Field::Job(JobFact::Ended)),
    ("metadata.genericMetadata.createTime", Want::Value, Field::Job(JobFact::Created)),
    ("metadata.genericMetadata.updateTime", Want::Value, Field::Job(JobFact::Updated)),
    ("response.videos[*]", Want::Seen, Field::Job(JobFact::Video)),
    ("response.generatedVideos[*]", Want::Seen, Field::Job(JobFact::Video)),
    ("response.generatedSamples[*]", Want::Seen, Field::Job(JobFact::Video)),
    ("response.raiMediaFilteredCount", Want::Value, Field::Job(JobFact::Filtered)),
    ("response.generateVideoResponse.generatedSamples[*]", Want::Seen, Field::Job(JobFact::Video)),
    (
        "response.generateVideoResponse.raiMediaFilteredCount",
        Want::Value,
        Field::Job(JobFact::Filtered),
    ),
];

/// Recognises `models/{model}:{verb}` with or without a publisher, endpoints, and operations.
pub(super) fn recognise(head: &HeadView<'_>, path: &Path<'_>) -> Option<Call> {
    let call = match (head.method, path.segments()) {
        ("POST", [.., "endpoints", endpoint, "chat", "completions"]) => chat(endpoint),
        ("POST", [.., "publishers", publisher, "models", last]) => published(publisher, last)?,
        ("POST", [.., "endpoints", last]) => endpoint(last)?,
        ("POST", [.., "models" | "tunedModels", last]) => gemini(last)?,
        ("GET", [.., "publishers", _, "models", model, "operations", _]) => {
            operation(Dialect::Vertex, Some(model))
        }
        ("GET", [.., "locations", _, "operations", _]) => operation(Dialect::Vertex, None),
        ("GET", [.., "models", model, "operations", _]) => operation(Dialect::Gemini, Some(model)),
        ("GET", [.., version, "operations", _]) if is_version(version) => {
            operation(Dialect::Gemini, None)
        }
        _ => return None,
    };
    Some(Call {
        region: path.after("locations").map(|location| decoded(location).into_owned()),
        project: path.after("projects").map(|project| decoded(project).into_owned()),
        ..call
    })
}

/// The endpoint that speaks like OpenAI; the model is in the body.
fn chat(endpoint: &str) -> Call {
    let model = (endpoint != "openapi").then(|| decoded(endpoint).into_owned());
    let call = new(Dialect::Vertex, "chat", model, None, &openai::CHAT);
    Call { asks: Asks::ALL, ..call }
}

fn published(publisher: &str, last: &str) -> Option<Call> {
    let (model, verb) = model_and_verb(last)?;
    let reading = if publisher == "anthropic" { &anthropic::MESSAGES } else { &openai::CHAT };
    match verb.as_str() {
        "rawPredict" if model == "count-tokens" => {
            let reading = &anthropic::COUNT_TOKENS;
            let call = new(Dialect::Vertex, "count_tokens", None, Some(false), reading);
            Some(Call { asks: Asks { model: true, stream: false }, ..call })
        }
        "rawPredict" | "streamRawPredict" => {
            let is_stream = verb == "streamRawPredict";
            Some(new(Dialect::Vertex, "chat", Some(model), Some(is_stream), reading))
        }
        _ => generated(Dialect::Vertex, model, &verb),
    }
}

fn endpoint(last: &str) -> Option<Call> {
    let (endpoint, verb) = model_and_verb(last)?;
    match verb.as_str() {
        "rawPredict" | "streamRawPredict" => {
            let is_stream = Some(verb == "streamRawPredict");
            Some(new(Dialect::Vertex, "raw_predict", Some(endpoint), is_stream, &RAW))
        }
        _ => generated(Dialect::Vertex, endpoint, &verb),
    }
}

fn gemini(last: &str) -> Option<Call> {
    let (model, verb) = model_and_verb(last)?;
    generated(Dialect::Gemini, model, &verb)
}

fn generated(dialect: Dialect, model: String, verb: &str) -> Option<Call> {
    let operation = match verb {
        "generateContent" | "streamGenerateContent" => {
            let is_stream = verb == "streamGenerateContent";
            return Some(new(dialect, "generate_content", Some(model), Some(is_stream), &GENERATE));
        }
        "embedContent" | "batchEmbedContents" => "embeddings",
        "predict" => predicted(&model),
        "countTokens" => "count_tokens",
        "computeTokens" => "compute_tokens",
        "predictLongRunning" => {
            return Some(new(
                dialect,
                "predict_long_running",
                Some(model),
                Some(false),
                &OPERATION,
            ));
        }
        "fetchPredictOperation" => return Some(operation(dialect, Some(&model))),
        _ => return None,
    };
    Some(new(dialect, operation, Some(model), Some(false), &OTHER))
}

/// What `predict` does depends on the model.
fn predicted(model: &str) -> &'static str {
    const DRAWS: [&str; 2] = ["imagen", "imagegeneration"];
    match model {
        _ if model.contains("embed") => "embeddings",
        _ if DRAWS.iter().any(|family| model.contains(family)) => "generate_image",
        _ if model.contains("chat-bison") => "chat",
        _ if model.contains("-bison") => "text_completion",
        _ => "predict",
    }
}

fn operation(dialect: Dialect, model: Option<&str>) -> Call {
    let model = model.map(|model| decoded(model).into_owned());
    new(dialect, "fetch_predict_operation", model, Some(false), &OPERATION)
}

/// `v1beta`, `v1alpha`; other services have operations at `v1`.
fn is_version(segment: &str) -> bool {
    ["v1beta", "v1alpha"].iter().any(|version| segment.starts_with(version))
}

fn new(
    dialect: Dialect,
    operation: &'static str,
    model: Option<String>,
    stream: Option<bool>,
    reading: &'static Reading,
) -> Call {
    let provider = if dialect == Dialect::Vertex { "gcp.vertex_ai" } else { "gcp.gemini" };
    Call {
        dialect,
        operation,
        provider: Some(provider),
        model,
        region: None,
        project: None,
        stream,
        streams_unasked: false,
        asks: Asks::NOTHING,
        reading,
    }
}

fn model_and_verb(segment: &str) -> Option<(String, String)> {
    let segment = decoded(segment);
    let (model, verb) = segment.rsplit_once(':')?;
    Some((model.to_owned(), verb.to_owned()))
}

fn usage(counts: &Counts) -> Usage {
    Usage {
        input: counts.sum(&[Prompt, ToolPrompt]),
        output: counts.sum(&[Visible, Reasoning]),
        cache_read: counts.value(CacheRead),
        cache_creation: None,
        reasoning: counts.value(Reasoning),
    }
}
