//! Where requests say what: the paths of each dialect, in its own names.
//!
//! Families that share an interface share a table: their keys mean the same where they are the same.

use std::sync::LazyLock;

use super::Ask::{self, *};
use super::media::Kind::*;
use crate::dialect::Call;
use crate::json::{Table, Want};
use crate::{Dialect, HeadView};

/// The paths of one kind of request.
pub(crate) type Asking = LazyLock<Table<Ask>>;

/// A path, what is wanted of it, and what it means.
type Paths = [(&'static str, Want, Ask)];

/// Calls that no dialect knows may still name a model.
pub(crate) static UNKNOWN: Asking = LazyLock::new(|| Table::new(MODEL));

static OPENAI: Asking =
    LazyLock::new(|| Table::new(&[MODEL, SAMPLING, OPENAI_PATHS, OPENAI_MEDIA].concat()));
static EMBEDDINGS: Asking = LazyLock::new(|| Table::new(&[MODEL, EMBEDDING_PATHS].concat()));
static ANTHROPIC: Asking =
    LazyLock::new(|| Table::new(&[MODEL, SAMPLING, MESSAGES_PATHS, ANTHROPIC_MEDIA].concat()));
/// Vertex AI serves Claude and those that speak like OpenAI under the same verbs.
static VERTEX_CHAT: Asking = LazyLock::new(|| {
    Table::new(
        &[MODEL, SAMPLING, OPENAI_PATHS, OPENAI_MEDIA, MESSAGES_PATHS, ANTHROPIC_MEDIA].concat(),
    )
});
static GENERATE_CONTENT: Asking =
    LazyLock::new(|| Table::new(&[GOOGLE_PATHS, GOOGLE_SNAKE_PATHS, GOOGLE_MEDIA].concat()));
static EMBED_CONTENT: Asking = LazyLock::new(|| Table::new(GOOGLE_EMBEDDING_PATHS));
static PREDICT: Asking =
    LazyLock::new(|| Table::new(&[PARAMETERS_PATHS, INSTANCE_PATHS, INSTANCE_MEDIA].concat()));
/// Veo alone: it has limits of its own.
pub(crate) static VEO: Asking = LazyLock::new(|| Table::new(&[VIDEO_PATHS, VIDEO_MEDIA].concat()));
static OPERATION: Asking = LazyLock::new(|| Table::new(&[("operationName", Want::Value, JobName)]));
static CONVERSE: Asking = LazyLock::new(|| Table::new(&[CONVERSE_PATHS, CONVERSE_MEDIA].concat()));
static INVOKE: Asking = LazyLock::new(|| {
    Table::new(
        &[
            SAMPLING,
            FAMILY_PATHS,
            OPENAI_PATHS,
            OPENAI_MEDIA,
            MESSAGES_PATHS,
            ANTHROPIC_MEDIA,
            CONVERSE_PATHS,
            CONVERSE_MEDIA,
        ]
        .concat(),
    )
});
static ASYNC_INVOKE: Asking = LazyLock::new(|| Table::new(ASYNC_PATHS));
/// Interfaces that have no word of their own in `match: { dialect: ... }`: Cohere's.
static OTHER: Asking = LazyLock::new(|| {
    Table::new(&[MODEL, SAMPLING, OPENAI_PATHS, OPENAI_MEDIA, FAMILY_PATHS].concat())
});
static MADE_VIDEO: Asking = LazyLock::new(|| Table::new(&[MODEL, MADE_VIDEO_PATHS].concat()));
static SIMPLE: Asking = LazyLock::new(|| {
    Table::new(&[MODEL, SAMPLING, INSTANCE_PATHS, SIMPLE_PATHS, OLLAMA_MEDIA].concat())
});

const MODEL: &Paths = &[("model", Want::Value, Model), ("stream", Want::Value, Stream)];

/// Names that nearly all share.
const SAMPLING: &Paths = &[
    ("max_tokens", Want::Value, MaxTokens),
    ("temperature", Want::Value, Temperature),
    ("top_p", Want::Value, TopP),
    ("top_k", Want::Value, TopK),
    ("frequency_penalty", Want::Value, FrequencyPenalty),
    ("presence_penalty", Want::Value, PresencePenalty),
    ("seed", Want::Value, Seed),
    ("n", Want::Value, Choices),
    ("stop", Want::Value, Stop),
    ("stop[*]", Want::Value, Stop),
    ("messages[*]", Want::Seen, Message),
    ("tools[*]", Want::Seen, Tool),
];

/// Chat, completions and responses.
const OPENAI_PATHS: &Paths = &[
    ("max_completion_tokens", Want::Value, MaxTokens),
    ("max_output_tokens", Want::Value, MaxTokens),
    ("response_format.type", Want::Value, Format),
    ("text.format.type", Want::Value, Format),
    ("modalities[*]", Want::Value, Format),
    ("service_tier", Want::Value, ServiceTier),
    ("conversation", Want::Value, Conversation),
    ("conversation.id", Want::Value, Conversation),
    ("functions[*]", Want::Seen, Tool),
    ("input[*]", Want::Seen, Message),
];

const OPENAI_MEDIA: &Paths = &[
    ("messages[*].content[*]", Want::Closed, Part),
    ("messages[*].content[*].type", Want::Value, PartType),
    ("messages[*].content[*].image_url", Want::Fragments, Url(Image)),
    ("messages[*].content[*].image_url.url", Want::Fragments, Url(Image)),
    ("messages[*].content[*].video_url", Want::Fragments, Url(Video)),
    ("messages[*].content[*].video_url.url", Want::Fragments, Url(Video)),
    ("messages[*].content[*].audio_url", Want::Fragments, Url(Audio)),
    ("messages[*].content[*].audio_url.url", Want::Fragments, Url(Audio)),
    ("messages[*].content[*].document_url", Want::Fragments, Url(Document)),
    ("messages[*].content[*].input_audio", Want::Seen, Is(Audio)),
    ("messages[*].content[*].input_audio.data", Want::Fragments, Data),
    ("messages[*].content[*].file", Want::Seen, Is(Document)),
    ("messages[*].content[*].file.file_data", Want::Fragments, File),
    ("input[*].content[*]", Want::Closed, Part),
    ("input[*].content[*].type", Want::Value, PartType),
    ("input[*].content[*].image_url", Want::Fragments, Url(Image)),
    ("input[*].content[*].input_audio", Want::Seen, Is(Audio)),
    ("input[*].content[*].input_audio.data", Want::Fragments, Data),
    ("input[*].content[*].file_data", Want::Fragments, File),
    ("input[*].output[*]", Want::Closed, Part),
    ("input[*].output[*].type", Want::Value, PartType),
    ("input[*].output[*].image_url", Want::Fragments, Url(Image)),
    ("input[*].output[*].file_data", Want::Fragments, File),
];

const EMBEDDING_PATHS: &Paths = &[
    ("dimensions", Want::Value, Dimensions),
    ("encoding_format", Want::Value, Encoding),
    ("service_tier", Want::Value, ServiceTier),
];

/// Anthropic's own, beside what all share.
const MESSAGES_PATHS: &Paths =
    &[("max_tokens_to_sample", Want::Value, MaxTokens), ("stop_sequences[*]", Want::Value, Stop)];

const ANTHROPIC_MEDIA: &Paths = &[
    ("messages[*].content[*]", Want::Closed, Part),
    ("messages[*].content[*].type", Want::Value, PartType),
    ("messages[*].content[*].source.type", Want::Value, SourceType),
    ("messages[*].content[*].source.data", Want::Fragments, Data),
    // What a tool gave back.
    ("messages[*].content[*].content[*]", Want::Closed, Part),
    ("messages[*].content[*].content[*].type", Want::Value, PartType),
    ("messages[*].content[*].content[*].source.type", Want::Value, SourceType),
    ("messages[*].content[*].content[*].source.data", Want::Fragments, Data),
];

const GOOGLE_PATHS: &Paths = &[
    ("contents[*]", Want::Seen, Message),
    ("generationConfig.maxOutputTokens", Want::Value, MaxTokens),
    ("generationConfig.temperature", Want::Value, Temperature),
    ("generationConfig.topP", Want::Value, TopP),
    ("generationConfig.topK", Want::Value, TopK),
    ("generationConfig.candidateCount", Want::Value, Choices),
    ("generationConfig.seed", Want::Value, Seed),
    ("generationConfig.stopSequences[*]", Want::Value, Stop),
    ("generationConfig.presencePenalty", Want::Value, PresencePenalty),
    ("generationConfig.frequencyPenalty", Want::Value, FrequencyPenalty),
    ("generationConfig.responseMimeType", Want::Value, Format),
    ("generationConfig.responseModalities[*]", Want::Value, Format),
    ("tools[*]", Want::Closed, ToolGroup),
    ("tools[*].functionDeclarations", Want::Seen, ToolList),
    ("tools[*].functionDeclarations[*]", Want::Seen, GroupedTool),
    ("tools[*].googleSearch", Want::Seen, GroupedTool),
    ("tools[*].googleSearchRetrieval", Want::Seen, GroupedTool),
    ("tools[*].enterpriseWebSearch", Want::Seen, GroupedTool),
    ("tools[*].googleMaps", Want::Seen, GroupedTool),
    ("tools[*].codeExecution", Want::Seen, GroupedTool),
    ("tools[*].urlContext", Want::Seen, GroupedTool),
    ("tools[*].fileSearch", Want::Seen, GroupedTool),
    ("tools[*].computerUse", Want::Seen, GroupedTool),
    ("tools[*].retrieval", Want::Seen, GroupedTool),
];

/// The same in the names of the protocol buffers, which JSON may use as well.
const GOOGLE_SNAKE_PATHS: &Paths = &[
    ("generationConfig.max_output_tokens", Want::Value, MaxTokens),
    ("generationConfig.top_p", Want::Value, TopP),
    ("generationConfig.top_k", Want::Value, TopK),
    ("generationConfig.candidate_count", Want::Value, Choices),
    ("generationConfig.stop_sequences[*]", Want::Value, Stop),
    ("generationConfig.presence_penalty", Want::Value, PresencePenalty),
    ("generationConfig.frequency_penalty", Want::Value, FrequencyPenalty),
    ("generationConfig.response_mime_type", Want::Value, Format),
    ("generationConfig.response_modalities[*]", Want::Value, Format),
    ("generation_config.maxOutputTokens", Want::Value, MaxTokens),
    ("generation_config.max_output_tokens", Want::Value, MaxTokens),
    ("generation_config.temperature", Want::Value, Temperature),
    ("generation_config.topP", Want::Value, TopP),
    ("generation_config.top_p", Want::Value, TopP),
    ("generation_config.topK", Want::Value, TopK),
    ("generation_config.top_k", Want::Value, TopK),
    ("generation_config.candidateCount", Want::Value, Choices),
    ("generation_config.candidate_count", Want::Value, Choices),
    ("generation_config.seed", Want::Value, Seed),
    ("generation_config.stopSequences[*]", Want::Value, Stop),
    ("generation_config.stop_sequences[*]", Want::Value, Stop),
    ("generation_config.presencePenalty", Want::Value, PresencePenalty),
    ("generation_config.presence_penalty", Want::Value, PresencePenalty),
    ("generation_config.frequencyPenalty", Want::Value, FrequencyPenalty),
    ("generation_config.frequency_penalty", Want::Value, FrequencyPenalty),
    ("generation_config.responseMimeType", Want::Value, Format),
    ("generation_config.response_mime_type", Want::Value, Format),
    ("generation_config.responseModalities[*]", Want::Value, Format),
    ("generation_config.response_modalities[*]", Want::Value, Format),
    ("tools[*].function_declarations", Want::Seen, ToolList),
    ("tools[*].function_declarations[*]", Want::Seen, GroupedTool),
    ("tools[*].google_search", Want::Seen, GroupedTool),
    ("tools[*].google_search_retrieval", Want::Seen, GroupedTool),
    ("tools[*].enterprise_web_search", Want::Seen, GroupedTool),
    ("tools[*].google_maps", Want::Seen, GroupedTool),
    ("tools[*].code_execution", Want::Seen, GroupedTool),
    ("tools[*].url_context", Want::Seen, GroupedTool),
    ("tools[*].file_search", Want::Seen, GroupedTool),
    ("tools[*].computer_use", Want::Seen, GroupedTool),
];

const GOOGLE_MEDIA: &Paths = &[
    ("contents[*].parts[*]", Want::Closed, Part),
    ("contents[*].parts[*].inlineData.mimeType", Want::Value, Mime),
    ("contents[*].parts[*].inlineData.mime_type", Want::Value, Mime),
    ("contents[*].parts[*].inlineData.data", Want::Fragments, Data),
    ("contents[*].parts[*].inline_data.mimeType", Want::Value, Mime),
    ("contents[*].parts[*].inline_data.mime_type", Want::Value, Mime),
    ("contents[*].parts[*].inline_data.data", Want::Fragments, Data),
    ("contents[*].parts[*].fileData.mimeType", Want::Value, Mime),
    ("contents[*].parts[*].fileData.mime_type", Want::Value, Mime),
    ("contents[*].parts[*].file_data.mimeType", Want::Value, Mime),
    ("contents[*].parts[*].file_data.mime_type", Want::Value, Mime),
    ("contents[*].parts[*].functionResponse.parts[*]", Want::Closed, Part),
    ("contents[*].parts[*].functionResponse.parts[*].inlineData.mimeType", Want::Value, Mime),
    ("contents[*].parts[*].functionResponse.parts[*].inlineData.data", Want::Fragments, Data),
];

const GOOGLE_EMBEDDING_PATHS: &Paths = &[
    ("outputDimensionality", Want::Value, Dimensions),
    ("output_dimensionality", Want::Value, Dimensions),
    ("embedContentConfig.outputDimensionality", Want::Value, Dimensions),
    ("requests[*].outputDimensionality", Want::Value, Dimensions),
    ("requests[*].output_dimensionality", Want::Value, Dimensions),
    ("parameters.outputDimensionality", Want::Value, Dimensions),
    ("parameters.dimension", Want::Value, Dimensions),
    ("instances[*].image", Want::Closed, Object(Image)),
    ("instances[*].image.bytesBase64Encoded", Want::Fragments, Data),
    ("instances[*].video", Want::Closed, Object(Video)),
    ("instances[*].video.bytesBase64Encoded", Want::Fragments, Data),
];

/// `:predict`, and the parameters of Text Generation Inference.
const PARAMETERS_PATHS: &Paths = &[
    ("parameters.maxOutputTokens", Want::Value, MaxTokens),
    ("parameters.max_output_tokens", Want::Value, MaxTokens),
    ("parameters.maxTokens", Want::Value, MaxTokens),
    ("parameters.max_tokens", Want::Value, MaxTokens),
    ("parameters.max_new_tokens", Want::Value, MaxTokens),
    ("parameters.temperature", Want::Value, Temperature),
    ("parameters.topP", Want::Value, TopP),
    ("parameters.top_p", Want::Value, TopP),
    ("parameters.topK", Want::Value, TopK),
    ("parameters.top_k", Want::Value, TopK),
    ("parameters.frequencyPenalty", Want::Value, FrequencyPenalty),
    ("parameters.frequency_penalty", Want::Value, FrequencyPenalty),
    ("parameters.presencePenalty", Want::Value, PresencePenalty),
    ("parameters.presence_penalty", Want::Value, PresencePenalty),
    ("parameters.seed", Want::Value, Seed),
    ("parameters.candidateCount", Want::Value, Choices),
    ("parameters.n", Want::Value, Choices),
    ("parameters.stopSequences[*]", Want::Value, Stop),
    ("parameters.stop", Want::Value, Stop),
    ("parameters.stop[*]", Want::Value, Stop),
    ("parameters.outputDimensionality", Want::Value, Dimensions),
];

/// Model servers behind `instances`.
const INSTANCE_PATHS: &Paths = &[
    ("instances[*].messages[*]", Want::Seen, Message),
    ("instances[*].max_tokens", Want::Value, MaxTokens),
    ("instances[*].temperature", Want::Value, Temperature),
    ("instances[*].top_p", Want::Value, TopP),
    ("instances[*].top_k", Want::Value, TopK),
    ("instances[*].frequency_penalty", Want::Value, FrequencyPenalty),
    ("instances[*].presence_penalty", Want::Value, PresencePenalty),
    ("instances[*].seed", Want::Value, Seed),
    ("instances[*].n", Want::Value, Choices),
];

const INSTANCE_MEDIA: &Paths = &[
    ("instances[*].image", Want::Closed, Object(Image)),
    ("instances[*].image.bytesBase64Encoded", Want::Fragments, Data),
    ("instances[*].referenceImages[*].referenceImage", Want::Closed, Object(Image)),
    ("instances[*].referenceImages[*].referenceImage.bytesBase64Encoded", Want::Fragments, Data),
    ("instances[*].video", Want::Closed, Object(Video)),
    ("instances[*].video.bytesBase64Encoded", Want::Fragments, Data),
    ("instances[*].audio", Want::Closed, Object(Audio)),
    ("instances[*].audio.bytesBase64Encoded", Want::Fragments, Data),
];

/// Veo, as an operation and at once.
const VIDEO_PATHS: &Paths = &[
    ("parameters.durationSeconds", Want::Value, VideoLength),
    ("parameters.duration_seconds", Want::Value, VideoLength),
    ("parameters.sampleCount", Want::Value, VideoCount),
    ("parameters.sample_count", Want::Value, VideoCount),
    ("parameters.numberOfVideos", Want::Value, VideoCount),
    ("parameters.seed", Want::Value, Seed),
    ("instances[*].parameters.videoLength", Want::Value, VideoLength),
    ("instances[*].parameters.durationSeconds", Want::Value, VideoLength),
    ("instances[*].parameters.sampleCount", Want::Value, VideoCount),
    ("instances[*].parameters.seed", Want::Value, Seed),
];

const VIDEO_MEDIA: &Paths = &[
    ("instances[*].image", Want::Closed, Object(Image)),
    ("instances[*].image.bytesBase64Encoded", Want::Fragments, Frame),
    ("instances[*].image.imageBytes", Want::Fragments, Frame),
    ("instances[*].image.inlineData.data", Want::Fragments, Frame),
    ("instances[*].lastFrame", Want::Closed, Object(Image)),
    ("instances[*].lastFrame.bytesBase64Encoded", Want::Fragments, Frame),
    ("instances[*].lastFrame.imageBytes", Want::Fragments, Frame),
    ("instances[*].lastFrame.inlineData.data", Want::Fragments, Frame),
    ("instances[*].referenceImages[*].image", Want::Closed, Object(Image)),
    ("instances[*].referenceImages[*].image.bytesBase64Encoded", Want::Fragments, Frame),
    ("instances[*].referenceImages[*].image.inlineData.data", Want::Fragments, Frame),
    ("instances[*].mask", Want::Closed, Object(Image)),
    ("instances[*].mask.bytesBase64Encoded", Want::Fragments, Data),
    ("instances[*].video", Want::Closed, Object(Video)),
    ("instances[*].video.bytesBase64Encoded", Want::Fragments, Data),
    ("instances[*].video.inlineData.data", Want::Fragments, Data),
    ("instances[*].parameters.initImage", Want::Closed, Object(Image)),
    ("instances[*].parameters.initImage", Want::Fragments, FrameText),
    ("instances[*].parameters.initImage.bytesBase64Encoded", Want::Fragments, Frame),
];

/// Sora.
const MADE_VIDEO_PATHS: &Paths = &[("seconds", Want::Value, VideoLength)];

/// Converse, and Nova by InvokeModel.
const CONVERSE_PATHS: &Paths = &[
    ("messages[*]", Want::Seen, Message),
    ("inferenceConfig.maxTokens", Want::Value, MaxTokens),
    ("inferenceConfig.max_new_tokens", Want::Value, MaxTokens),
    ("inferenceConfig.temperature", Want::Value, Temperature),
    ("inferenceConfig.topP", Want::Value, TopP),
    ("inferenceConfig.top_p", Want::Value, TopP),
    ("inferenceConfig.topK", Want::Value, TopK),
    ("inferenceConfig.top_k", Want::Value, TopK),
    ("inferenceConfig.stopSequences[*]", Want::Value, Stop),
    ("additionalModelRequestFields.top_k", Want::Value, TopK),
    ("additionalModelRequestFields.inferenceConfig.topK", Want::Value, TopK),
    ("guardrailConfig.guardrailIdentifier", Want::Value, Guardrail),
    // A mark for the cache stands between tools and is none.
    ("toolConfig.tools[*].toolSpec", Want::Seen, Tool),
    ("toolConfig.tools[*].systemTool", Want::Seen, Tool),
];

const CONVERSE_MEDIA: &Paths = &[
    ("messages[*].content[*]", Want::Closed, Part),
    ("messages[*].content[*].image", Want::Seen, Is(Image)),
    ("messages[*].content[*].image.source.bytes", Want::Fragments, Data),
    ("messages[*].content[*].guardContent.image", Want::Seen, Is(Image)),
    ("messages[*].content[*].guardContent.image.source.bytes", Want::Fragments, Data),
    ("messages[*].content[*].video", Want::Seen, Is(Video)),
    ("messages[*].content[*].video.source.bytes", Want::Fragments, Data),
    ("messages[*].content[*].audio", Want::Seen, Is(Audio)),
    ("messages[*].content[*].audio.source.bytes", Want::Fragments, Data),
    ("messages[*].content[*].document", Want::Seen, Is(Document)),
    ("messages[*].content[*].document.source.bytes", Want::Fragments, Data),
    ("messages[*].content[*].toolResult.content[*]", Want::Closed, Part),
    ("messages[*].content[*].toolResult.content[*].image", Want::Seen, Is(Image)),
    ("messages[*].content[*].toolResult.content[*].image.source.bytes", Want::Fragments, Data),
    ("messages[*].content[*].toolResult.content[*].video", Want::Seen, Is(Video)),
    ("messages[*].content[*].toolResult.content[*].video.source.bytes", Want::Fragments, Data),
    ("messages[*].content[*].toolResult.content[*].document", Want::Seen, Is(Document)),
    ("messages[*].content[*].toolResult.content[*].document.source.bytes", Want::Fragments, Data),
];

/// InvokeModel in the words of Titan, Llama, Cohere and AI21.
const FAMILY_PATHS: &Paths = &[
    ("textGenerationConfig.maxTokenCount", Want::Value, MaxTokens),
    ("textGenerationConfig.temperature", Want::Value, Temperature),
    ("textGenerationConfig.topP", Want::Value, TopP),
    ("textGenerationConfig.stopSequences[*]", Want::Value, Stop),
    ("dimensions", Want::Value, Dimensions),
    ("embeddingTypes[*]", Want::Value, Encoding),
    ("inputImage", Want::Fragments, Item(Image)),
    ("max_gen_len", Want::Value, MaxTokens),
    ("p", Want::Value, TopP),
    ("k", Want::Value, TopK),
    ("num_generations", Want::Value, Choices),
    ("embedding_types[*]", Want::Value, Encoding),
    ("output_dimension", Want::Value, Dimensions),
    ("images[*]", Want::Fragments, Item(Image)),
    ("maxTokens", Want::Value, MaxTokens),
    ("topP", Want::Value, TopP),
    ("numResults", Want::Value, Choices),
    ("stopSequences[*]", Want::Value, Stop),
    ("frequencyPenalty.scale", Want::Value, FrequencyPenalty),
    ("presencePenalty.scale", Want::Value, PresencePenalty),
];

/// Nova Reel and Luma Ray.
const ASYNC_PATHS: &Paths = &[
    ("modelId", Want::Value, Model),
    ("modelInput.videoGenerationConfig.durationSeconds", Want::Value, VideoLength),
    ("modelInput.videoGenerationConfig.seed", Want::Value, Seed),
    ("modelInput.duration", Want::Value, VideoLength),
    ("modelInput.textToVideoParams.images[*]", Want::Closed, Object(Image)),
    ("modelInput.textToVideoParams.images[*].source.bytes", Want::Fragments, Data),
    ("modelInput.multiShotManualParams.shots[*].image", Want::Closed, Object(Image)),
    ("modelInput.multiShotManualParams.shots[*].image.source.bytes", Want::Fragments, Data),
    ("modelInput.keyframes.frame0", Want::Closed, Object(Image)),
    ("modelInput.keyframes.frame0.source.data", Want::Fragments, Data),
    ("modelInput.keyframes.frame1", Want::Closed, Object(Image)),
    ("modelInput.keyframes.frame1.source.data", Want::Fragments, Data),
];

/// Text Generation Inference, Ollama and SGLang.
const SIMPLE_PATHS: &Paths = &[
    ("parameters.max_new_tokens", Want::Value, MaxTokens),
    ("parameters.temperature", Want::Value, Temperature),
    ("parameters.top_p", Want::Value, TopP),
    ("parameters.top_k", Want::Value, TopK),
    ("parameters.frequency_penalty", Want::Value, FrequencyPenalty),
    ("parameters.seed", Want::Value, Seed),
    ("parameters.stop[*]", Want::Value, Stop),
    ("options.num_predict", Want::Value, MaxTokens),
    ("options.temperature", Want::Value, Temperature),
    ("options.top_p", Want::Value, TopP),
    ("options.top_k", Want::Value, TopK),
    ("options.frequency_penalty", Want::Value, FrequencyPenalty),
    ("options.presence_penalty", Want::Value, PresencePenalty),
    ("options.seed", Want::Value, Seed),
    ("options.stop", Want::Value, Stop),
    ("options.stop[*]", Want::Value, Stop),
    ("format", Want::Value, Format),
    ("format", Want::Closed, Schema),
    ("dimensions", Want::Value, Dimensions),
    ("sampling_params.max_new_tokens", Want::Value, MaxTokens),
    ("sampling_params.temperature", Want::Value, Temperature),
    ("sampling_params.top_p", Want::Value, TopP),
    ("sampling_params.top_k", Want::Value, TopK),
    ("sampling_params.frequency_penalty", Want::Value, FrequencyPenalty),
    ("sampling_params.presence_penalty", Want::Value, PresencePenalty),
    ("sampling_params.n", Want::Value, Choices),
    ("sampling_params.stop", Want::Value, Stop),
    ("sampling_params.stop[*]", Want::Value, Stop),
];

const OLLAMA_MEDIA: &Paths = &[
    ("images[*]", Want::Fragments, Item(Image)),
    ("messages[*].images[*]", Want::Fragments, Item(Image)),
];

/// How the body of this call reads; absent where it says nothing.
pub(crate) fn asking(call: &Call, head: &HeadView<'_>) -> Option<&'static Asking> {
    if head.method != "POST" {
        return None;
    }
    match (call.dialect, call.operation) {
        (Dialect::OpenAi, "embeddings") => Some(&EMBEDDINGS),
        (Dialect::OpenAi, "generate_video") => Some(&MADE_VIDEO),
        (Dialect::OpenAi, _) => Some(&OPENAI),
        (Dialect::Anthropic, _) => Some(&ANTHROPIC),
        (Dialect::Bedrock, operation) => bedrock(operation, head.path),
        (Dialect::Gemini | Dialect::Vertex, operation) => {
            let model = call.model.as_deref();
            // The verb alone: `rawPredict` and the like have a capital.
            if head.path.ends_with("predict") { predict(model) } else { google(operation, model) }
        }
        (Dialect::Generate, _) => Some(&SIMPLE),
        (Dialect::Other, _) => Some(&OTHER),
    }
}

fn google(operation: &str, model: Option<&str>) -> Option<&'static Asking> {
    match operation {
        "generate_content" => Some(&GENERATE_CONTENT),
        "chat" | "raw_predict" => Some(&VERTEX_CHAT),
        "predict_long_running" => Some(&VEO),
        "embeddings" => Some(&EMBED_CONTENT),
        "fetch_predict_operation" => Some(&OPERATION),
        // A count is asked for with either body.
        "count_tokens" if model.is_none() => Some(&ANTHROPIC),
        "count_tokens" => Some(&GENERATE_CONTENT),
        _ => None,
    }
}

fn predict(model: Option<&str>) -> Option<&'static Asking> {
    let is = |family: &str| model.is_some_and(|model| model.contains(family));
    Some(match () {
        () if is("veo") => &VEO,
        () if is("embed") => &EMBED_CONTENT,
        () => &PREDICT,
    })
}

fn bedrock(operation: &str, path: &str) -> Option<&'static Asking> {
    match operation {
        "async_invoke" => Some(&ASYNC_INVOKE),
        "count_tokens" | "apply_guardrail" => None,
        _ if path.contains("/converse") => Some(&CONVERSE),
        _ => Some(&INVOKE),
    }
}
