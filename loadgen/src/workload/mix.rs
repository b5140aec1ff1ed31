//! Which calls a load test makes, and in what shares.

use std::fmt;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tidegate_settings::{ConfigError, parse_yaml, within_file};
use tidegate_wire::Dialect;

use super::Request;

/// The kinds of calls under test, each with its weight. Never empty.
#[derive(Clone, Debug)]
pub struct Mix {
    entries: Vec<Entry>,
}

/// One kind of call.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Dialect and operation.
    pub call: Operation,
    /// The model asked for; where the wire names none, the name under which calls are counted.
    pub model: Arc<str>,
    /// The route under which its calls are counted, as a sidecar would name it; the call where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Arc<str>>,
    /// The share of this entry among all.
    #[serde(default = "one")]
    pub weight: NonZeroU32,
    /// Whether the answer is asked for as a stream.
    #[serde(default)]
    pub stream: bool,
    /// Whether that stream comes as a JSON array: Gemini and Vertex `generate-content` only.
    #[serde(default)]
    pub array: bool,
    /// The median length of prompts; single ones vary around it.
    #[serde(default = "typical_input")]
    pub input_tokens: NonZeroU32,
    /// The most tokens that an answer may have.
    #[serde(default = "typical_output")]
    pub output_tokens: NonZeroU32,
    /// Questions of one conversation: each goes with all that was said before it, the model's own answers
    /// among it, once the last is answered and after a rest.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub turns: NonZeroU32,
    /// The length of what stands before every question of this entry, and is the same for all: the
    /// instructions of an application, which servers keep in their caches.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub shared_tokens: u32,
    /// Pictures that go with the first question.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub images: u32,
    /// Their width and height, in points.
    #[serde(default = "typical_image", skip_serializing_if = "is_typical_image")]
    pub image_size: NonZeroU32,
    /// Between an answer and the next call of the same conversation, and in a closed loop of the same
    /// user, how long he rests between an answer and the next call: `500ms`.
    #[serde(default, deserialize_with = "duration", serialize_with = "friendly")]
    pub think: Duration,
}

/// A dialect and what is asked in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub enum Operation {
    /// Chat completions.
    #[serde(rename = "openai/chat")]
    OpenAiChat,
    /// Text completions.
    #[serde(rename = "openai/completions")]
    OpenAiCompletions,
    /// Embeddings.
    #[serde(rename = "openai/embeddings")]
    OpenAiEmbeddings,
    /// The Responses API.
    #[serde(rename = "openai/responses")]
    OpenAiResponses,
    /// Messages.
    #[serde(rename = "anthropic/messages")]
    AnthropicMessages,
    /// `generateContent` and `streamGenerateContent` of the Gemini API.
    #[serde(rename = "gemini/generate-content")]
    GeminiGenerateContent,
    /// `countTokens` of the Gemini API.
    #[serde(rename = "gemini/count-tokens")]
    GeminiCountTokens,
    /// `generateContent` and `streamGenerateContent` of Vertex AI.
    #[serde(rename = "vertex/generate-content")]
    VertexGenerateContent,
    /// `countTokens` of Vertex AI.
    #[serde(rename = "vertex/count-tokens")]
    VertexCountTokens,
    /// Claude on Vertex AI: `rawPredict` and `streamRawPredict`.
    #[serde(rename = "vertex/claude")]
    VertexClaude,
    /// The OpenAI-compatible endpoint of Vertex AI.
    #[serde(rename = "vertex/openai-chat")]
    VertexOpenAiChat,
    /// Converse and ConverseStream.
    #[serde(rename = "bedrock/converse")]
    BedrockConverse,
    /// InvokeModel and InvokeModelWithResponseStream.
    #[serde(rename = "bedrock/invoke")]
    BedrockInvoke,
    /// `/generate` with a `prompt`.
    #[serde(rename = "generate/prompt")]
    GeneratePrompt,
    /// `/generate` with `instances`.
    #[serde(rename = "generate/instances")]
    GenerateInstances,
    /// `/v1/generate`.
    #[serde(rename = "generate/v1")]
    GenerateV1,
}

// === impl Mix ===

impl Default for Mix {
    /// Every dialect, with the weights of `default-mix.yaml`.
    fn default() -> Self {
        Self::parse(include_str!("default-mix.yaml")).expect("a test reads the same file")
    }
}

impl Mix {
    /// Reads a mix from a YAML file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        within_file(path, Self::parse)
    }

    /// Reads a mix from YAML.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let entries: Vec<Entry> = parse_yaml(text)?;
        if entries.is_empty() {
            return Err(ConfigError::new(
                "this mix is empty: it needs at least one entry such as \
                 `- { call: openai/chat, model: gpt-4o }`",
            ));
        }
        for (at, entry) in entries.iter().enumerate() {
            entry.check().map_err(|(key, message)| {
                ConfigError::at(&[&format!("[{at}]"), key], message).within(text)
            })?;
        }
        Ok(Self { entries })
    }

    /// Streams of one model, by the interface that its name suggests.
    pub fn of_model(model: &str) -> Self {
        let call = match model {
            _ if model.starts_with("claude") => Operation::AnthropicMessages,
            _ if model.starts_with("gemini") => Operation::GeminiGenerateContent,
            _ => Operation::OpenAiChat,
        };
        Self { entries: vec![Entry { stream: true, ..Entry::new(call, model.into()) }] }
    }

    /// The same without calls that generate no text; all of it where nothing would be left.
    pub fn generating(self) -> Self {
        let entries: Vec<_> =
            self.entries.iter().filter(|entry| entry.call.generates()).cloned().collect();
        if entries.is_empty() { self } else { Self { entries } }
    }

    /// The kinds of calls.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry at a place between 0 and 1 on the line on which each has its share.
    pub fn at(&self, place: f64) -> &Entry {
        &self.entries[self.number_at(place)]
    }

    /// The number of that entry, counted from 0.
    pub(crate) fn number_at(&self, place: f64) -> usize {
        let total: f64 = self.entries.iter().map(Entry::share).sum();
        let mut left = place * total;
        let number = self.entries.iter().position(|entry| {
            left -= entry.share();
            left < 0.0
        });
        number.unwrap_or(self.entries.len() - 1)
    }

    /// Shares out `users` by weight, in whole users: everyone gets one while there are enough,
    /// and the rest goes to whoever is furthest below its share.
    pub fn users(&self, users: usize) -> Vec<usize> {
        let total: f64 = self.entries.iter().map(Entry::share).sum();
        let mut shares = vec![0; self.entries.len()];
        for _ in 0..users {
            let next = (0..shares.len())
                .min_by(|&a, &b| {
                    let filled = |i: usize| {
                        let due = self.entries[i].share() / total * users as f64;
                        (shares[i] > 0, shares[i] as f64 / due, -due)
                    };
                    filled(a).partial_cmp(&filled(b)).expect("weights are at least one")
                })
                .expect("a mix is never empty");
            shares[next] += 1;
        }
        shares
    }
}

// === impl Entry ===

impl Entry {
    /// One that says nothing but this.
    pub(crate) fn new(call: Operation, model: Arc<str>) -> Self {
        Self {
            call,
            model,
            route: None,
            weight: one(),
            stream: false,
            array: false,
            input_tokens: typical_input(),
            output_tokens: typical_output(),
            think: Duration::ZERO,
            turns: one(),
            shared_tokens: 0,
            images: 0,
            image_size: typical_image(),
        }
    }

    /// The name under which its calls are counted: the model, unless they do not generate.
    pub fn label(&self) -> Arc<str> {
        match self.call {
            Operation::GeminiCountTokens | Operation::VertexCountTokens => {
                format!("{} countTokens", self.model).into()
            }
            _ => self.model.clone(),
        }
    }

    /// The route under which its calls are counted.
    pub fn route(&self) -> Arc<str> {
        self.route.clone().unwrap_or_else(|| self.call.as_str().into())
    }

    /// The key that is at fault, and how.
    fn check(&self) -> Result<(), (&'static str, String)> {
        let Self { call, model, stream, array, .. } = self;
        if *stream && !call.streams() {
            return Err(("stream", format!("{call} of {model} cannot be streamed")));
        }
        if *array && !(*stream && call.streams_arrays()) {
            let message =
                format!("{call} of {model}: `array` goes with a streamed generate-content only");
            return Err(("array", message));
        }
        if self.turns.get() > 1 && !call.generates() {
            return Err(("turns", format!("{call} of {model} answers nothing to go on from")));
        }
        if self.images > 0 && !call.takes_images(model) {
            return Err(("images", format!("{call} of {model} takes no pictures")));
        }
        let bounds = [
            ("turns", self.turns.get(), 1_000),
            ("shared_tokens", self.shared_tokens, 2_000_000),
            ("images", self.images, 100),
            ("image_size", self.image_size.get(), 8_192),
        ];
        match bounds.into_iter().find(|(_, value, most)| value > most) {
            Some((key, value, most)) => Err((key, format!("{value} is more than {most}"))),
            None => Ok(()),
        }
    }

    /// Its weight, as a number.
    pub(crate) fn share(&self) -> f64 {
        f64::from(self.weight.get())
    }
}

// === impl Operation ===

impl Operation {
    /// Whose interface this is.
    pub fn dialect(self) -> Dialect {
        match self {
            Self::OpenAiChat
            | Self::OpenAiCompletions
            | Self::OpenAiEmbeddings
            | Self::OpenAiResponses => Dialect::OpenAi,
            Self::AnthropicMessages => Dialect::Anthropic,
            Self::GeminiGenerateContent | Self::GeminiCountTokens => Dialect::Gemini,
            Self::VertexGenerateContent
            | Self::VertexCountTokens
            | Self::VertexClaude
            | Self::VertexOpenAiChat => Dialect::Vertex,
            Self::BedrockConverse | Self::BedrockInvoke => Dialect::Bedrock,
            Self::GeneratePrompt | Self::GenerateInstances | Self::GenerateV1 => Dialect::Generate,
        }
    }

    /// The word that mixes and reports use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAiChat => "openai/chat",
            Self::OpenAiCompletions => "openai/completions",
            Self::OpenAiEmbeddings => "openai/embeddings",
            Self::OpenAiResponses => "openai/responses",
            Self::AnthropicMessages => "anthropic/messages",
            Self::GeminiGenerateContent => "gemini/generate-content",
            Self::GeminiCountTokens => "gemini/count-tokens",
            Self::VertexGenerateContent => "vertex/generate-content",
            Self::VertexCountTokens => "vertex/count-tokens",
            Self::VertexClaude => "vertex/claude",
            Self::VertexOpenAiChat => "vertex/openai-chat",
            Self::BedrockConverse => "bedrock/converse",
            Self::BedrockInvoke => "bedrock/invoke",
            Self::GeneratePrompt => "generate/prompt",
            Self::GenerateInstances => "generate/instances",
            Self::GenerateV1 => "generate/v1",
        }
    }

    /// What a request asks by its path, where it is one of these.
    pub(crate) fn of(request: &Request) -> Option<Self> {
        let path = request.path.split('?').next().unwrap_or_default();
        let last = path.rsplit('/').next().unwrap_or_default();
        let verb = last.rsplit(':').next().unwrap_or_default();
        Some(match (request.dialect, last) {
            (Dialect::OpenAi, "completions") if path.ends_with("/chat/completions") => {
                Self::OpenAiChat
            }
            (Dialect::OpenAi, "completions") => Self::OpenAiCompletions,
            (Dialect::OpenAi, "embeddings") => Self::OpenAiEmbeddings,
            (Dialect::OpenAi, "responses") => Self::OpenAiResponses,
            (Dialect::Anthropic, "messages") => Self::AnthropicMessages,
            (Dialect::Vertex, "completions") => Self::VertexOpenAiChat,
            (Dialect::Bedrock, "converse" | "converse-stream") => Self::BedrockConverse,
            (Dialect::Bedrock, "invoke" | "invoke-with-response-stream") => Self::BedrockInvoke,
            (Dialect::Generate, _) if path.ends_with("/v1/generate") => Self::GenerateV1,
            (Dialect::Generate, "generate") => Self::GeneratePrompt,
            _ => match (request.dialect, verb) {
                (Dialect::Gemini, "generateContent" | "streamGenerateContent") => {
                    Self::GeminiGenerateContent
                }
                (Dialect::Gemini, "countTokens") => Self::GeminiCountTokens,
                (Dialect::Vertex, "generateContent" | "streamGenerateContent") => {
                    Self::VertexGenerateContent
                }
                (Dialect::Vertex, "countTokens") => Self::VertexCountTokens,
                (Dialect::Vertex, "rawPredict" | "streamRawPredict") => Self::VertexClaude,
                _ => return None,
            },
        })
    }

    /// Whether it is answered by text.
    pub(crate) fn generates(self) -> bool {
        !matches!(self, Self::OpenAiEmbeddings | Self::GeminiCountTokens | Self::VertexCountTokens)
    }

    /// Whether it only counts tokens, which takes no model.
    pub(crate) fn counts(self) -> bool {
        matches!(self, Self::GeminiCountTokens | Self::VertexCountTokens)
    }

    fn streams(self) -> bool {
        !matches!(
            self,
            Self::OpenAiEmbeddings
                | Self::GeminiCountTokens
                | Self::VertexCountTokens
                | Self::GenerateV1
        )
    }

    /// Whether a question may have pictures.
    fn takes_images(self, model: &str) -> bool {
        match self {
            Self::OpenAiChat
            | Self::OpenAiResponses
            | Self::AnthropicMessages
            | Self::GeminiGenerateContent
            | Self::GeminiCountTokens
            | Self::VertexGenerateContent
            | Self::VertexCountTokens
            | Self::VertexClaude
            | Self::VertexOpenAiChat
            | Self::BedrockConverse => true,
            Self::BedrockInvoke => model.contains("anthropic.") || model.contains("amazon.nova"),
            _ => false,
        }
    }

    fn streams_arrays(self) -> bool {
        matches!(self, Self::GeminiGenerateContent | Self::VertexGenerateContent)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

fn is_one(number: &NonZeroU32) -> bool {
    *number == one()
}

fn is_nothing(number: &u32) -> bool {
    *number == 0
}

fn typical_image() -> NonZeroU32 {
    NonZeroU32::new(512).expect("512 is not zero")
}

fn is_typical_image(size: &NonZeroU32) -> bool {
    *size == typical_image()
}

fn typical_input() -> NonZeroU32 {
    NonZeroU32::new(200).expect("200 is not zero")
}

fn typical_output() -> NonZeroU32 {
    NonZeroU32::new(256).expect("256 is not zero")
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let duration = SignedDuration::deserialize(deserializer)?;
    Duration::try_from(duration).map_err(|_| serde::de::Error::custom("a duration is not negative"))
}

fn friendly<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    jiff::fmt::serde::unsigned_duration::friendly::compact::required::serialize(
        duration, serializer,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Mix::parse(text).expect_err("this mix is wrong").to_string()
    }

    #[test]
    fn the_default_mix_speaks_every_dialect() {
        let mix = Mix::default();
        for dialect in [
            Dialect::OpenAi,
            Dialect::Anthropic,
            Dialect::Gemini,
            Dialect::Vertex,
            Dialect::Bedrock,
            Dialect::Generate,
        ] {
            assert!(mix.entries().iter().any(|e| e.call.dialect() == dialect), "{dialect:?}");
        }
    }

    #[test]
    fn a_key_that_no_entry_has_is_refused_by_name() {
        let said = refusal("- { call: openai/chat, model: gpt-4o, wieght: 3 }");
        assert!(said.contains("did you mean `weight`?") && said.contains("wieght"), "{said}");
    }

    #[test]
    fn a_call_that_nobody_makes_is_refused_with_those_that_are() {
        let said = refusal("- { call: openai/chats, model: gpt-4o }");
        assert!(said.contains("openai/chats") && said.contains("openai/completions"), "{said}");
    }

    #[test]
    fn an_empty_mix_is_refused() {
        assert!(refusal("[]").contains("is empty"));
    }

    #[test]
    fn embeddings_cannot_be_streamed() {
        let said = refusal("- { call: openai/embeddings, model: e, stream: true }");
        assert!(said.contains("cannot be streamed"), "{said}");
    }

    #[test]
    fn an_array_needs_a_stream_of_generate_content() {
        for text in [
            "- { call: openai/chat, model: m, stream: true, array: true }",
            "- { call: vertex/generate-content, model: m, array: true }",
        ] {
            assert!(refusal(text).contains("`array` goes with"), "{text}");
        }
    }

    #[test]
    fn a_rest_carries_its_unit() {
        let mix = Mix::parse("- { call: openai/chat, model: m, think: 1.5s }");
        let think = mix.expect("a good mix").entries()[0].think;
        assert_eq!(think, Duration::from_millis(1500));
        let said = refusal("- { call: openai/chat, model: m, think: -1s }");
        assert!(said.contains("not negative"), "{said}");
    }

    #[test]
    fn users_are_shared_out_by_weight_and_none_is_left_over() {
        let mix = Mix::parse(
            "[{ call: openai/chat, model: a, weight: 98 }, { call: openai/chat, model: b }, \
              { call: openai/chat, model: c }]",
        )
        .expect("a good mix");
        assert_eq!(mix.users(200), [196, 2, 2]);
        assert_eq!(mix.users(10), [8, 1, 1], "everyone gets one");
        assert_eq!(mix.users(1), [1, 0, 0], "the heaviest first");
    }

    #[test]
    fn a_place_on_the_line_falls_to_the_entry_whose_share_lies_there() {
        let mix = Mix::parse(
            "[{ call: openai/chat, model: a, weight: 3 }, { call: openai/chat, model: b }]",
        )
        .expect("a good mix");
        assert_eq!(&*mix.at(0.0).model, "a");
        assert_eq!(&*mix.at(0.74).model, "a");
        assert_eq!(&*mix.at(0.76).model, "b");
    }
}
