//! Google's models by gRPC, as the `aiplatform` clients call them.
//!
//! What a method is and how its counts add up is the same as by HTTP; only where things stand
//! differs. The numbers are those of `google/cloud/aiplatform/v1/prediction_service.proto`,
//! `content.proto`, `usage_metadata.proto` and `llm_utility_service.proto`
//! (github.com/googleapis/googleapis); those of `v1beta1` are the same.

use std::sync::LazyLock;

use super::Count::*;
use super::{Asks, Call, Field, Path, Reading, anthropic, google, openai};
use crate::grpc::{Messages, Method, Resource};
use crate::proto::{Table, Take};
use crate::{Dialect, HeadView};

/// `GenerateContentResponse`.
static GENERATE: LazyLock<Table<Field>> = LazyLock::new(|| Table::new(GENERATE_FIELDS));
/// `PredictResponse`.
static PREDICT: LazyLock<Table<Field>> = LazyLock::new(|| Table::new(PREDICT_FIELDS));
/// `EmbedContentResponse`.
static EMBED: LazyLock<Table<Field>> = LazyLock::new(|| Table::new(EMBED_FIELDS));
/// `CountTokensResponse`.
static COUNT: LazyLock<Table<Field>> =
    LazyLock::new(|| Table::new(&[("total_tokens=1", Take::Value, Field::Count(Counted))]));

/// `GenerateContentRequest.model`.
static MODEL: LazyLock<Table<()>> = LazyLock::new(|| Table::new(&[("model=5", Take::Value, ())]));
/// `PredictRequest.endpoint`, `EmbedContentRequest.model` and the like.
static ENDPOINT: LazyLock<Table<()>> =
    LazyLock::new(|| Table::new(&[("endpoint=1", Take::Value, ())]));

const GENERATE_FIELDS: &[(&str, Take, Field)] = &[
    ("response_id=13", Take::Value, Field::Id),
    ("model_version=11", Take::Value, Field::Model),
    ("candidates=2", Take::Closed, Field::Choice),
    ("candidates=2.index=1", Take::Value, Field::Index),
    ("candidates=2.finish_reason=3", Take::Word(FINISH_REASONS), Field::Finish),
    ("candidates=2.content=2.parts=2", Take::Closed, Field::Part),
    ("candidates=2.content=2.parts=2.text=1", Take::Seen, Field::PartText),
    ("candidates=2.content=2.parts=2.thought=10", Take::Seen, Field::PartThought),
    ("candidates=2.content=2.parts=2.function_call=5", Take::Seen, Field::PartText),
    ("candidates=2.content=2.parts=2.inline_data=2", Take::Seen, Field::PartText),
    ("prompt_feedback=3.block_reason=1", Take::Word(BLOCKED_REASONS), Field::BlockReason),
    ("usage_metadata=4.prompt_token_count=1", Take::Value, Field::Count(Prompt)),
    ("usage_metadata=4.tool_use_prompt_token_count=13", Take::Value, Field::Count(ToolPrompt)),
    ("usage_metadata=4.candidates_token_count=2", Take::Value, Field::Count(Visible)),
    ("usage_metadata=4.thoughts_token_count=14", Take::Value, Field::Count(Reasoning)),
    ("usage_metadata=4.cached_content_token_count=5", Take::Value, Field::Count(CacheRead)),
];

/// Predictions and metadata are `google.protobuf.Value`s; a number in one is `number_value = 2`.
const PREDICT_FIELDS: &[(&str, Take, Field)] = &[
    (
        "predictions=1.{embeddings}.{statistics}.{token_count}.number_value=2",
        Take::Value,
        Field::Add(Prompt),
    ),
    (
        "metadata=6.{tokenMetadata}.{inputTokenCount}.{totalTokens}.number_value=2",
        Take::Value,
        Field::Count(Prompt),
    ),
    (
        "metadata=6.{tokenMetadata}.{outputTokenCount}.{totalTokens}.number_value=2",
        Take::Value,
        Field::Count(Visible),
    ),
];

const EMBED_FIELDS: &[(&str, Take, Field)] =
    &[("usage_metadata=2.prompt_token_count=1", Take::Value, Field::Count(Prompt))];

/// `Candidate.FinishReason`.
const FINISH_REASONS: &[&str] = &[
    "FINISH_REASON_UNSPECIFIED",
    "STOP",
    "MAX_TOKENS",
    "SAFETY",
    "RECITATION",
    "OTHER",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "MALFORMED_FUNCTION_CALL",
    "MODEL_ARMOR",
];

/// `GenerateContentResponse.PromptFeedback.BlockedReason`.
const BLOCKED_REASONS: &[&str] = &[
    "BLOCKED_REASON_UNSPECIFIED",
    "SAFETY",
    "OTHER",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "MODEL_ARMOR",
    "JAILBREAK",
];

/// A method as the proto lists it: what is done, whether answers are streamed, how all reads.
struct Known {
    operation: &'static str,
    stream: bool,
    resource: &'static LazyLock<Table<()>>,
    reply: Option<Messages>,
    reading: &'static Reading,
}

/// Recognises `/google.cloud.aiplatform.{version}.{service}/{method}`.
pub(crate) fn recognise(head: &HeadView<'_>, path: &Path<'_>) -> Option<(Call, Method)> {
    let [.., service, method] = path.segments() else { return None };
    let (version, service) = service.strip_prefix("google.cloud.aiplatform.")?.rsplit_once('.')?;
    let is_ours =
        version.starts_with('v') && matches!(service, "PredictionService" | "LlmUtilityService");
    let resource = Resource::of_head(head.headers).unwrap_or_default();
    let known = is_ours.then(|| known(method, &resource))??;
    let call = Call {
        dialect: Dialect::Vertex,
        operation: known.operation,
        provider: Some("gcp.vertex_ai"),
        stream: Some(known.stream),
        streams_unasked: false,
        asks: Asks::NOTHING,
        reading: known.reading,
        region: resource.location,
        project: resource.project,
        model: resource.model,
    };
    let resource = call.model.is_none().then_some(known.resource);
    let is_gzip = head.headers.value("grpc-encoding") == Some(b"gzip");
    Some((call, Method { resource, is_gzip, reply: known.reply }))
}

/// What a prediction is, which its model tells.
pub(crate) fn predict(model: Option<&str>) -> &'static str {
    if model.is_some_and(|model| model.contains("embed")) { "embeddings" } else { "predict" }
}

fn known(method: &str, resource: &Resource) -> Option<Known> {
    let of = |operation, stream, table| Known {
        operation,
        stream,
        resource: &ENDPOINT,
        reply: Some(Messages::Fields(table)),
        reading: &google::OTHER,
    };
    let unread = |operation, stream| Known { reply: None, ..of(operation, stream, &PREDICT) };
    Some(match method {
        "GenerateContent" | "StreamGenerateContent" => Known {
            resource: &MODEL,
            reading: &google::GENERATE,
            ..of("generate_content", method.starts_with("Stream"), &GENERATE)
        },
        "EmbedContent" => of("embeddings", false, &EMBED),
        "Predict" => of(predict(resource.model.as_deref()), false, &PREDICT),
        "CountTokens" => of("count_tokens", false, &COUNT),
        "RawPredict" | "StreamRawPredict" | "ChatCompletions" => raw(method, resource),
        "ComputeTokens" => unread("compute_tokens", false),
        "Explain" => unread("explain", false),
        "DirectPredict" => unread("predict", false),
        "StreamDirectPredict" | "StreamingPredict" | "ServerStreamingPredict" => {
            unread("predict", true)
        }
        "DirectRawPredict" => unread("raw_predict", false),
        "StreamDirectRawPredict" | "StreamingRawPredict" => unread("raw_predict", true),
        _ => return None,
    })
}

/// What is said by HTTP within these is the business of whoever published the model.
fn raw(method: &str, resource: &Resource) -> Known {
    let publisher = resource.publisher.as_deref();
    let reading = match publisher {
        Some("anthropic") => &anthropic::MESSAGES,
        _ => &openai::CHAT,
    };
    let is_chat = publisher.is_some() || method == "ChatCompletions";
    Known {
        operation: if is_chat { "chat" } else { "raw_predict" },
        stream: method != "RawPredict",
        resource: &ENDPOINT,
        reply: Some(Messages::HttpBody),
        reading,
    }
}
