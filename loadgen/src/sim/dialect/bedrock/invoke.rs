//! InvokeModel, for the families of Anthropic, Amazon and Meta.
//!
//! Each event of a stream holds an object of the family's own, in base64.

use std::fmt::Display;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::StatusCode;
use serde_json::Value;

use super::super::{Answer, Reply, anthropic, json, set, vector_as_json};
use super::eventstream::{self, event, midway_error, padding};
use super::stop_reason;
use crate::sim::generation::{Ask, Generation, Token, fill, input_tokens, quoted};
use crate::sim::playback::Script;

const CHUNK: &str = r#"{"bytes":"$bytes","p":"$padding"}"#;
const METRICS: &str = r#","amazon-bedrock-invocationMetrics":{"inputTokenCount":$input,"outputTokenCount":$output,"invocationLatency":$latency_ms,"firstByteLatency":$first_ms}}"#;
const NOVA: &str = r#"{"output":{"message":{"content":[{"text":"$text"}],"role":"assistant"}},"stopReason":"$reason","usage":{"inputTokens":$input,"outputTokens":$output,"totalTokens":$total,"cacheReadInputTokenCount":0,"cacheWriteInputTokenCount":0}}"#;
const NOVA_DELTA: &str =
    r#"{"contentBlockDelta":{"delta":{"text":"$word"},"contentBlockIndex":0}}"#;
const NOVA_METADATA: &str = r#"{"metadata":{"usage":{"inputTokens":$input,"outputTokens":$output,"cacheReadInputTokenCount":0,"cacheWriteInputTokenCount":0},"metrics":{},"trace":{}}}"#;
const TITAN: &str = r#"{"inputTextTokenCount":$input,"results":[{"tokenCount":$output,"outputText":"$text","completionReason":"$reason"}]}"#;
const TITAN_CHUNK: &str = r#"{"outputText":"$word","index":0,"totalOutputTextTokenCount":$done,"completionReason":$finish,"inputTextTokenCount":$input}"#;
const TITAN_EMBEDDING: &str = r#"{"embedding":$vector,"inputTextTokenCount":$input}"#;
const LLAMA: &str = r#"{"generation":"$text","prompt_token_count":$input,"generation_token_count":$output,"stop_reason":"$reason"}"#;
const LLAMA_CHUNK: &str = r#"{"generation":"$word","prompt_token_count":$first,"generation_token_count":$done,"stop_reason":$finish}"#;

/// Reads what is asked for; the model's name says in whose form.
pub(super) fn read(model: &str, whole: bool, body: &Value) -> Answer {
    if model.contains("embed") {
        return embedding(body);
    }
    let family = Family::of(model);
    let ask = family.ask(model, body);
    if whole {
        Answer::Whole { ask, write: Box::new(move |generation| family.whole(generation)) }
    } else {
        Answer::Stream { ask, write: Box::new(move |generation| family.stream(generation)) }
    }
}

/// Whose form the body has.
#[derive(Clone, Copy)]
enum Family {
    Anthropic,
    Nova,
    Titan,
    Llama,
}

impl Family {
    /// An id that tells nothing, such as an ARN, is taken for Anthropic's.
    fn of(model: &str) -> Self {
        if model.contains("nova") {
            Self::Nova
        } else if model.contains("titan") {
            Self::Titan
        } else if model.contains("llama") {
            Self::Llama
        } else {
            Self::Anthropic
        }
    }

    fn ask(self, model: &str, body: &Value) -> Ask {
        let (prompt, limit) = match self {
            Self::Anthropic => return anthropic::ask(anthropic_name(model), body),
            Self::Nova => {
                let limits = &body["inferenceConfig"];
                let limit = limits["maxTokens"].as_u64().or(limits["max_new_tokens"].as_u64());
                (input_tokens(&[&body["system"], &body["messages"]]), limit)
            }
            Self::Titan => {
                let limit = body["textGenerationConfig"]["maxTokenCount"].as_u64();
                (input_tokens(&[&body["inputText"]]), limit)
            }
            Self::Llama => (input_tokens(&[&body["prompt"]]), body["max_gen_len"].as_u64()),
        };
        Ask { input_tokens: prompt, limit, ..Ask::default() }
    }

    fn reason(self, generation: &Generation) -> &'static str {
        match self {
            Self::Anthropic | Self::Nova => stop_reason(generation),
            Self::Titan => generation.reason("FINISH", "LENGTH"),
            Self::Llama => generation.reason("stop", "length"),
        }
    }

    fn whole(self, generation: &Generation) -> Reply {
        let values: [(&str, &dyn Display); 2] =
            [("text", &generation.text()), ("reason", &self.reason(generation))];
        let body = match self {
            Self::Anthropic => anthropic::message(generation),
            Self::Nova => generation.fill(NOVA, &values),
            Self::Titan => generation.fill(TITAN, &values),
            Self::Llama => generation.fill(LLAMA, &values),
        };
        let mut reply = json(StatusCode::OK, body);
        let headers = reply.headers_mut();
        set(headers, "x-amzn-bedrock-input-token-count", generation.input_tokens);
        set(headers, "x-amzn-bedrock-output-token-count", generation.output_tokens);
        set(headers, "x-amzn-bedrock-invocation-latency", generation.latency().as_millis());
        if matches!(self, Self::Anthropic | Self::Nova) {
            set(headers, "x-amzn-bedrock-cache-read-input-token-count", 0);
            set(headers, "x-amzn-bedrock-cache-write-input-token-count", 0);
        }
        reply
    }

    fn stream(self, generation: &Generation) -> Script {
        let salt = generation.id as u64;
        let metrics = generation.fill(METRICS, &[]);
        let claude = anthropic::Stream::new(generation);
        let (opening, mut ending) = self.frame(generation, &claude);
        if let Some(last) = ending.last_mut() {
            *last = with_metrics(last, &metrics);
        }
        let framed = |objects: &[String]| -> Vec<u8> {
            let numbered = objects.iter().zip((0..u64::MAX).rev());
            numbered.flat_map(|(object, number)| chunk(object, salt, number)).collect()
        };
        let (opening, ending) = (framed(&opening), framed(&ending));

        let input = generation.input_tokens;
        let reason = quoted(self.reason(generation));
        let metrics_in_token = ending.is_empty();
        let token = move |token: Token| -> Vec<u8> {
            if matches!(self, Self::Anthropic) {
                let objects = claude.token(token);
                let chunks = objects.iter().map(|(_, object)| chunk(object, salt, token.index));
                return chunks.flatten().collect();
            }
            let mut object = self.token(token, input, &reason);
            if token.last && metrics_in_token {
                object = with_metrics(&object, &metrics);
            }
            chunk(&object, salt, token.index)
        };
        Script {
            content_type: eventstream::CONTENT_TYPE,
            headers: &[("x-amzn-bedrock-content-type", "application/json")],
            opening,
            token: Box::new(token),
            ending,
            error: midway_error(),
        }
    }

    /// The objects before the first token and after the last one.
    fn frame(
        self,
        generation: &Generation,
        claude: &anthropic::Stream,
    ) -> (Vec<String>, Vec<String>) {
        match self {
            Self::Anthropic => {
                let objects = |events: &[anthropic::Event]| {
                    let events = events.iter().filter(|(name, _)| *name != "ping");
                    events.map(|(_, object)| object.clone()).collect()
                };
                (objects(&claude.opening), objects(&claude.ending))
            }
            Self::Nova => {
                let reason = self.reason(generation);
                let stop = format!(r#"{{"messageStop":{{"stopReason":"{reason}"}}}}"#);
                (
                    vec![r#"{"messageStart":{"role":"assistant"}}"#.to_owned()],
                    vec![
                        r#"{"contentBlockStop":{"contentBlockIndex":0}}"#.to_owned(),
                        stop,
                        generation.fill(NOVA_METADATA, &[]),
                    ],
                )
            }
            Self::Titan | Self::Llama => (Vec::new(), Vec::new()),
        }
    }

    /// The object of one token, of families that have one for each.
    fn token(self, token: Token, input: u64, reason: &str) -> String {
        let finish = if token.last { reason } else { "null" };
        let first = if token.index == 0 { input.to_string() } else { "null".to_owned() };
        let values: [(&str, &dyn Display); 5] = [
            ("word", &token.word),
            ("done", &(token.index + 1)),
            ("input", &first),
            ("first", &first),
            ("finish", &finish),
        ];
        match self {
            Self::Anthropic | Self::Nova => fill(NOVA_DELTA, &values),
            Self::Titan => fill(TITAN_CHUNK, &values),
            Self::Llama => fill(LLAMA_CHUNK, &values),
        }
    }
}

/// The name that Anthropic has for a model of Bedrock's name.
fn anthropic_name(model: &str) -> &str {
    let name = model.rsplit_once("anthropic.").map_or(model, |(_, name)| name);
    name.rsplit_once("-v").map_or(name, |(name, _)| name)
}

fn with_metrics(object: &str, metrics: &str) -> String {
    format!("{}{metrics}", object.strip_suffix('}').unwrap_or(object))
}

fn embedding(body: &Value) -> Answer {
    let input_tokens = input_tokens(&[&body["inputText"]]);
    let length = body["dimensions"].as_u64().unwrap_or(1024).clamp(1, 4096) as usize;
    let vector = vector_as_json(length);
    let body = fill(TITAN_EMBEDDING, &[("vector", &vector), ("input", &input_tokens)]);
    let mut reply = json(StatusCode::OK, body);
    set(reply.headers_mut(), "x-amzn-bedrock-input-token-count", input_tokens);
    Answer::Pass { ask: Ask { input_tokens, ..Ask::default() }, reply }
}

fn chunk(object: &str, salt: u64, index: u64) -> Vec<u8> {
    let bytes = BASE64_STANDARD.encode(object);
    event("chunk", &fill(CHUNK, &[("bytes", &bytes), ("padding", &padding(salt, index))]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anthropic_names_its_models_shorter() {
        assert_eq!(
            anthropic_name("us.anthropic.claude-sonnet-4-20250514-v1%3A0"),
            "claude-sonnet-4-20250514"
        );
    }
}
