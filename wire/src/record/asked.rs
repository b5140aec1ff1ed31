//! What a request asked for, beside the model: its parameters and its size, never its text.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::line::Line;

/// The parameters of a request. What it does not state is absent: no provider's default is filled in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// The most output tokens that it wants.
    #[serde(rename = "gen_ai.request.max_tokens", skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// Sampling temperature.
    #[serde(rename = "gen_ai.request.temperature", skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    #[serde(rename = "gen_ai.request.top_p", skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Sampling among the likeliest tokens.
    #[serde(rename = "gen_ai.request.top_k", skip_serializing_if = "Option::is_none")]
    pub top_k: Option<f64>,
    /// Penalty on frequent tokens.
    #[serde(rename = "gen_ai.request.frequency_penalty", skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f64>,
    /// Penalty on tokens that occurred.
    #[serde(rename = "gen_ai.request.presence_penalty", skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f64>,
    /// Seed of the sampling.
    #[serde(rename = "gen_ai.request.seed", skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Answers asked for, where that is not one.
    #[serde(rename = "gen_ai.request.choice.count", skip_serializing_if = "Option::is_none")]
    pub choice_count: Option<u64>,
    /// Texts at which the model stops; the first few, each cut off where it is long.
    #[serde(rename = "gen_ai.request.stop_sequences", skip_serializing_if = "Vec::is_empty")]
    pub stop_sequences: Vec<String>,
    /// `text`, `json`, `image` or `speech`, where the request says so.
    #[serde(rename = "gen_ai.output.type", skip_serializing_if = "Option::is_none")]
    pub output_type: Option<Arc<str>>,
    /// Encodings of the embeddings.
    #[serde(rename = "gen_ai.request.encoding_formats", skip_serializing_if = "Vec::is_empty")]
    pub encoding_formats: Vec<String>,
    /// Dimensions of the embeddings.
    #[serde(rename = "gen_ai.embeddings.dimension.count", skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<u64>,
    /// The conversation that the call belongs to, where the dialect has one.
    #[serde(rename = "gen_ai.conversation.id", skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<String>,
    /// The service tier asked for.
    #[serde(rename = "openai.request.service_tier", skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// The guardrail that Bedrock is to apply.
    #[serde(rename = "aws.bedrock.guardrail.id", skip_serializing_if = "Option::is_none")]
    pub guardrail_id: Option<String>,
    /// Messages of the conversation that it sends along.
    #[serde(rename = "tidegate.request.messages", skip_serializing_if = "Option::is_none")]
    pub messages: Option<u64>,
    /// Tools that the model may call.
    #[serde(rename = "tidegate.request.tools", skip_serializing_if = "Option::is_none")]
    pub tools: Option<u64>,
}

impl Asked {
    pub(super) fn write(&self, line: &mut Line<'_>) {
        line.plain("gen_ai.request.max_tokens", self.max_tokens);
        line.seconds("gen_ai.request.temperature", self.temperature);
        line.seconds("gen_ai.request.top_p", self.top_p);
        line.seconds("gen_ai.request.top_k", self.top_k);
        line.seconds("gen_ai.request.frequency_penalty", self.frequency_penalty);
        line.seconds("gen_ai.request.presence_penalty", self.presence_penalty);
        line.plain("gen_ai.request.seed", self.seed);
        line.plain("gen_ai.request.choice.count", self.choice_count);
        line.list("gen_ai.request.stop_sequences", &self.stop_sequences);
        line.text("gen_ai.output.type", self.output_type.as_deref());
        line.list("gen_ai.request.encoding_formats", &self.encoding_formats);
        line.plain("gen_ai.embeddings.dimension.count", self.dimensions);
        line.text("gen_ai.conversation.id", self.conversation_id.as_deref());
        line.text("openai.request.service_tier", self.service_tier.as_deref());
        line.text("aws.bedrock.guardrail.id", self.guardrail_id.as_deref());
        line.plain("tidegate.request.messages", self.messages);
        line.plain("tidegate.request.tools", self.tools);
    }
}
