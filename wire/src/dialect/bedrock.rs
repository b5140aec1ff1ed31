//! AWS Bedrock: Converse, and InvokeModel in the words of each model family.
//!
//! The model's own usage is believed first; where the family has none, the platform's metering
//! stands in: the last event's metrics, or the headers. Cached input stands beside the input.

use std::sync::LazyLock;

use super::Count::*;
use super::openai::{CHAT_PATHS, ERROR_PATHS, USAGE_PATHS};
use super::{Asks, Call, Count, Counts, Field, Path, Reading, Usage, anthropic, decoded, openai};
use crate::job::JobFact;
use crate::json::{Table, Want};
use crate::{Dialect, HeadView};

static CONVERSE: Reading = Reading {
    paths: LazyLock::new(|| Table::new(&[CONVERSE_PATHS, FAULT_PATHS].concat())),
    nested: None,
    usage,
    has_end: true,
    count_headers: &[],
};

static INVOKE: Reading = Reading {
    paths: LazyLock::new(|| {
        let chunk: &[(&str, Want, Field)] = &[("bytes", Want::Fragments, Field::Nested)];
        Table::new(&[family_paths().as_slice(), FAULT_PATHS, chunk].concat())
    }),
    nested: Some(&CHUNK),
    usage,
    has_end: true,
    count_headers: COUNT_HEADERS,
};

static OTHER: Reading = Reading {
    paths: LazyLock::new(|| Table::new(&[COUNT_PATHS, FAULT_PATHS].concat())),
    nested: None,
    usage,
    has_end: false,
    count_headers: &[],
};

static JOB: Reading = Reading {
    paths: LazyLock::new(|| Table::new(&[JOB_PATHS, FAULT_PATHS].concat())),
    nested: None,
    usage,
    has_end: false,
    count_headers: &[],
};

static CHUNK: LazyLock<Table<Field>> = LazyLock::new(|| Table::new(&family_paths()));

const COUNT_HEADERS: &[(&str, Count)] = &[
    ("x-amzn-bedrock-input-token-count", MeteredInput),
    ("x-amzn-bedrock-output-token-count", MeteredOutput),
    ("x-amzn-bedrock-cache-read-input-token-count", MeteredCacheRead),
    ("x-amzn-bedrock-cache-write-input-token-count", MeteredCacheWrite),
];

/// Whole answers and events; Nova's invoke answers are the same.
const CONVERSE_PATHS: &[(&str, Want, Field)] = &[
    ("stopReason", Want::Value, Field::Stop),
    ("usage.inputTokens", Want::Value, Field::Count(Input)),
    ("usage.outputTokens", Want::Value, Field::Count(Output)),
    ("usage.cacheReadInputTokens", Want::Value, Field::Count(CacheRead)),
    ("usage.cacheReadInputTokenCount", Want::Value, Field::Count(CacheRead)),
    ("usage.cacheWriteInputTokens", Want::Value, Field::Count(CacheWrite)),
    ("usage.cacheWriteInputTokenCount", Want::Value, Field::Count(CacheWrite)),
    ("serviceTier.type", Want::Value, Field::Tier),
    ("delta.text", Want::Seen, Field::Text),
    ("delta.reasoningContent.text", Want::Seen, Field::Reasoning),
    ("delta.toolUse.input", Want::Seen, Field::Text),
];

/// Nova's stream: each event's body under the event's name.
const NOVA_PATHS: &[(&str, Want, Field)] = &[
    ("messageStop.stopReason", Want::Value, Field::Stop),
    ("contentBlockDelta.delta.text", Want::Seen, Field::Text),
    ("contentBlockDelta.delta.reasoningContent.text", Want::Seen, Field::Reasoning),
    ("contentBlockDelta.delta.toolUse.input", Want::Seen, Field::Text),
    ("metadata.usage.inputTokens", Want::Value, Field::Count(Input)),
    ("metadata.usage.outputTokens", Want::Value, Field::Count(Output)),
    ("metadata.usage.cacheReadInputTokenCount", Want::Value, Field::Count(CacheRead)),
    ("metadata.usage.cacheWriteInputTokenCount", Want::Value, Field::Count(CacheWrite)),
];

/// Titan, Llama, Mistral, Cohere and AI21, those that draw, and the metering.
const TEXT_PATHS: &[(&str, Want, Field)] = &[
    ("id", Want::Value, Field::MessageId),
    ("inputTextTokenCount", Want::Value, Field::Count(Prompt)),
    ("totalOutputTextTokenCount", Want::Value, Field::Count(Output)),
    ("completionReason", Want::Value, Field::Stop),
    ("outputText", Want::Seen, Field::Text),
    ("results[*]", Want::Closed, Field::Choice),
    ("results[*].tokenCount", Want::Value, Field::Add(Output)),
    ("results[*].completionReason", Want::Value, Field::Finish),
    ("prompt_token_count", Want::Value, Field::Count(Prompt)),
    ("generation_token_count", Want::Value, Field::Count(Output)),
    ("generation", Want::Seen, Field::Text),
    ("outputs[*]", Want::Closed, Field::Choice),
    ("outputs[*].text", Want::Seen, Field::Text),
    ("outputs[*].stop_reason", Want::Value, Field::Finish),
    ("choices[*].stop_reason", Want::Value, Field::Finish),
    ("choices[*].message.content", Want::Seen, Field::Text),
    ("generations[*]", Want::Closed, Field::Choice),
    ("generations[*].finish_reason", Want::Value, Field::Finish),
    ("finish_reason", Want::Value, Field::Stop),
    ("text", Want::Seen, Field::Text),
    ("completions[*]", Want::Closed, Field::Choice),
    ("completions[*].finishReason.reason", Want::Value, Field::Finish),
    ("finishReason", Want::Value, Field::Stop),
    ("images[*]", Want::Seen, Field::Images),
    ("artifacts[*]", Want::Closed, Field::Part),
    ("artifacts[*].base64", Want::Seen, Field::Image),
    ("amazon-bedrock-invocationMetrics", Want::Seen, Field::End),
    ("amazon-bedrock-invocationMetrics.inputTokenCount", Want::Value, Field::Count(MeteredInput)),
    ("amazon-bedrock-invocationMetrics.outputTokenCount", Want::Value, Field::Count(MeteredOutput)),
    (
        "amazon-bedrock-invocationMetrics.cacheReadInputTokenCount",
        Want::Value,
        Field::Count(MeteredCacheRead),
    ),
    (
        "amazon-bedrock-invocationMetrics.cacheWriteInputTokenCount",
        Want::Value,
        Field::Count(MeteredCacheWrite),
    ),
];

const COUNT_PATHS: &[(&str, Want, Field)] = &[("inputTokens", Want::Value, Field::Count(Counted))];

/// An asynchronous invocation: the answer to its submit, and to every poll.
const JOB_PATHS: &[(&str, Want, Field)] = &[
    ("invocationArn", Want::Value, Field::Job(JobFact::Name)),
    ("status", Want::Value, Field::Job(JobFact::Status)),
    ("submitTime", Want::Value, Field::Job(JobFact::Created)),
    ("endTime", Want::Value, Field::Job(JobFact::Ended)),
    ("modelArn", Want::Value, Field::Model),
];

const FAULT_PATHS: &[(&str, Want, Field)] = &[("__type", Want::Value, Field::FlatType)];

/// Every family at once: their keys do not collide.
fn family_paths() -> Vec<(&'static str, Want, Field)> {
    [CHAT_PATHS, USAGE_PATHS, ERROR_PATHS, anthropic::PATHS, CONVERSE_PATHS, NOVA_PATHS, TEXT_PATHS]
        .concat()
}

/// Recognises `model/{id}/{verb}`. An ARN's slash may come undecoded.
pub(super) fn recognise(head: &HeadView<'_>, path: &Path<'_>) -> Option<Call> {
    if head.method == "GET" {
        return poll(path);
    }
    if head.method != "POST" {
        return None;
    }
    match path.segments() {
        [.., "model", id, verb] => call(decoded(id).into_owned(), verb),
        [.., "model", arn, id, verb] if arn.starts_with("arn") => {
            call(decoded(&format!("{arn}/{id}")).into_owned(), verb)
        }
        [.., "guardrail", _, "version", _, "apply"] => Some(new("apply_guardrail", None, &OTHER)),
        [.., "async-invoke"] => {
            let asks = Asks { model: true, stream: false };
            Some(Call { asks, ..new("async_invoke", None, &JOB) })
        }
        _ => None,
    }
}

/// Recognises `async-invoke/{arn}`; without an ARN it lists them.
fn poll(path: &Path<'_>) -> Option<Call> {
    let arn = match path.segments() {
        [.., "async-invoke", arn] | [.., "async-invoke", arn, _] => decoded(arn),
        _ => return None,
    };
    if !arn.starts_with("arn:") {
        return None;
    }
    Some(Call { region: region_of_arn(&arn), ..new("get_async_invoke", None, &JOB) })
}

fn call(model: String, verb: &str) -> Option<Call> {
    let (operation, is_stream, reading) = match verb {
        "converse" => ("chat", false, &CONVERSE),
        "converse-stream" => ("chat", true, &CONVERSE),
        "invoke" => (family_operation(&model), false, &INVOKE),
        "invoke-with-response-stream" => (family_operation(&model), true, &INVOKE),
        "count-tokens" => ("count_tokens", false, &OTHER),
        _ => return None,
    };
    let region = region_of_arn(&model);
    Some(Call { region, stream: Some(is_stream), ..new(operation, Some(model), reading) })
}

fn new(operation: &'static str, model: Option<String>, reading: &'static Reading) -> Call {
    Call {
        dialect: Dialect::Bedrock,
        operation,
        provider: Some("aws.bedrock"),
        model,
        region: None,
        project: None,
        stream: Some(false),
        streams_unasked: false,
        asks: Asks::NOTHING,
        reading,
    }
}

/// What InvokeModel does depends on the family.
fn family_operation(model: &str) -> &'static str {
    const COMPLETES: [&str; 4] = ["titan-t", "ai21.j2", "cohere.command-text", "command-light"];
    const DRAWS: [&str; 3] = ["titan-image", "nova-canvas", "stability."];
    match model {
        _ if model.contains("embed") => "embeddings",
        _ if model.contains("rerank") => "rerank",
        _ if DRAWS.iter().any(|family| model.contains(family)) => "generate_image",
        _ if COMPLETES.iter().any(|family| model.contains(family)) => "text_completion",
        _ => "chat",
    }
}

/// `arn:aws:bedrock:{region}:{account}:...`
fn region_of_arn(model: &str) -> Option<String> {
    let mut parts = model.split(':');
    if parts.next() != Some("arn") {
        return None;
    }
    parts.nth(2).filter(|region| !region.is_empty()).map(str::to_owned)
}

fn usage(counts: &Counts) -> Usage {
    let metered = Usage {
        input: counts.with(MeteredInput, &[MeteredCacheRead, MeteredCacheWrite]),
        output: counts.value(MeteredOutput),
        cache_read: counts.value(MeteredCacheRead),
        cache_creation: counts.value(MeteredCacheWrite),
        reasoning: None,
    };
    let own = openai::usage(counts);
    Usage {
        input: counts.with(Input, &[CacheRead, CacheWrite]).or(own.input).or(metered.input),
        output: own.output.or(metered.output),
        cache_read: own.cache_read.or(metered.cache_read),
        cache_creation: own.cache_creation.or(metered.cache_creation),
        reasoning: own.reasoning,
    }
}
