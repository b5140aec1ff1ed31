//! AWS Bedrock: Converse, and InvokeModel for the families of Anthropic, Amazon and Meta.
//!
//! Streams are event streams, with padding as Bedrock adds it.

use std::fmt::Display;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::StatusCode;
use serde_json::Value;

use super::{
    Answer, Call, Dialect, Refusal, Reply, Target, Unreadable, anthropic, json, set, vector_as_json,
};
use crate::sim::generation::{Ask, Generation, Token, fill, input_tokens, mix, quoted, uuid};
use crate::sim::playback::Script;

pub(super) struct Bedrock;

const CONVERSE: &str = r#"{"metrics":{"latencyMs":$latency_ms},"output":{"message":{"content":[{"text":"$text"}],"role":"assistant"}},"stopReason":"$reason","usage":$usage}"#;
const USAGE: &str = r#"{"cacheReadInputTokenCount":0,"cacheReadInputTokens":0,"cacheWriteInputTokenCount":0,"cacheWriteInputTokens":0,"inputTokens":$input,"outputTokens":$output,"serverToolUsage":{},"totalTokens":$total}"#;

const MESSAGE_START: &str = r#"{"p":"$padding","role":"assistant"}"#;
const BLOCK_DELTA: &str = r#"{"contentBlockIndex":0,"delta":{"text":"$word"},"p":"$padding"}"#;
const BLOCK_STOP: &str = r#"{"contentBlockIndex":0,"p":"$padding"}"#;
const MESSAGE_STOP: &str = r#"{"p":"$padding","stopReason":"$reason"}"#;
const METADATA: &str = r#"{"metrics":{"latencyMs":$latency_ms},"p":"$padding","usage":$usage}"#;

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

impl Dialect for Bedrock {
    fn name(&self) -> &'static str {
        "bedrock"
    }

    fn claims(&self, target: &Target) -> bool {
        model_and_verb(target).is_some()
    }

    fn read(&self, call: &Call<'_>) -> Result<Answer, Unreadable> {
        let body = call.json()?;
        let (model, verb) = model_and_verb(call.target).unwrap_or_default();
        Ok(match verb {
            "count-tokens" => Answer::Ready(count(&body)),
            "converse" => Answer::Whole { ask: converse_ask(&body), write: Box::new(converse) },
            "converse-stream" => {
                Answer::Stream { ask: converse_ask(&body), write: Box::new(converse_stream) }
            }
            _ if model.contains("embed") => embedding(&body),
            _ => {
                let family = Family::of(model);
                let ask = family.ask(model, &body);
                if verb == "invoke" {
                    Answer::Whole { ask, write: Box::new(move |g| family.whole(g)) }
                } else {
                    Answer::Stream { ask, write: Box::new(move |g| family.stream(g)) }
                }
            }
        })
    }

    fn refuse(&self, _: &Target, refusal: &Refusal) -> Reply {
        let body = format!(r#"{{"message":{}}}"#, quoted(&refusal.message));
        let mut reply = json(refusal.status, body);
        let kind = exception(refusal.status);
        let kind = format!("{kind}:http://internal.amazon.com/coral/com.amazon.bedrock/");
        set(reply.headers_mut(), "x-amzn-errortype", kind);
        reply
    }

    fn failures(&self) -> &'static [u16] {
        &[429, 500, 503]
    }

    fn request_id(&self, id: &str) -> Option<(&'static str, String)> {
        let id = u128::from_str_radix(id, 16).unwrap_or_default();
        Some(("x-amzn-requestid", uuid(id)))
    }
}

fn model_and_verb(target: &Target) -> Option<(&str, &str)> {
    let (front, verb) = target.path().rsplit_once('/')?;
    let known = matches!(
        verb,
        "converse" | "converse-stream" | "invoke" | "invoke-with-response-stream" | "count-tokens"
    );
    // Some callers leave the slash of an ARN as it is.
    let (_, model) = front.rsplit_once("/model/")?;
    known.then_some((model, verb))
}

fn exception(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => "AccessDeniedException",
        404 => "ResourceNotFoundException",
        408 => "ModelTimeoutException",
        424 => "ModelErrorException",
        429 => "ThrottlingException",
        400..500 => "ValidationException",
        503 => "ServiceUnavailableException",
        _ => "InternalServerException",
    }
}

// === Converse ===

fn converse_ask(body: &Value) -> Ask {
    Ask {
        model: String::new(),
        input_tokens: input_tokens(&[&body["system"], &body["messages"]]),
        limit: body["inferenceConfig"]["maxTokens"].as_u64(),
    }
}

fn converse(generation: &Generation) -> Reply {
    let values: [(&str, &dyn Display); 3] = [
        ("text", &generation.text()),
        ("reason", &stop_reason(generation)),
        ("usage", &generation.fill(USAGE, &[])),
    ];
    json(StatusCode::OK, generation.fill(CONVERSE, &values))
}

fn converse_stream(generation: &Generation) -> Script {
    let salt = generation.id as u64;
    let usage = generation.fill(USAGE, &[]);
    let write = |name, template, index| {
        let reason = stop_reason(generation);
        let values: [(&str, &dyn Display); 3] =
            [("reason", &reason), ("usage", &usage), ("padding", &padding(salt, index))];
        event(name, &generation.fill(template, &values))
    };
    let last = generation.output_tokens;
    Script {
        content_type: "application/vnd.amazon.eventstream",
        headers: &[],
        opening: write("messageStart", MESSAGE_START, u64::MAX),
        token: Box::new(move |token| {
            let padding = padding(salt, token.index);
            let payload = fill(BLOCK_DELTA, &[("word", &token.word), ("padding", &padding)]);
            event("contentBlockDelta", &payload)
        }),
        ending: [
            write("contentBlockStop", BLOCK_STOP, last),
            write("messageStop", MESSAGE_STOP, last + 1),
            write("metadata", METADATA, last + 2),
        ]
        .concat(),
        error: exception_message(),
    }
}

fn stop_reason(generation: &Generation) -> &'static str {
    generation.reason("end_turn", "max_tokens")
}

fn count(body: &Value) -> Reply {
    let input = &body["input"];
    let invoked = input["invokeModel"]["body"].as_str().unwrap_or_default();
    let invoked = BASE64_STANDARD.decode(invoked).unwrap_or_default();
    let invoked: Value = serde_json::from_slice(&invoked).unwrap_or_default();
    let parts = [&input["converse"], &invoked].map(|body| [&body["system"], &body["messages"]]);
    let count = format!(r#"{{"inputTokens":{}}}"#, input_tokens(&parts.concat()));
    json(StatusCode::OK, count)
}

// === InvokeModel ===

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
        Ask { model: String::new(), input_tokens: prompt, limit }
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
        let (opening, ending) = self.frame(generation);
        let opening: Vec<_> = opening.iter().map(|object| chunk(object, salt, u64::MAX)).collect();
        let mut ending: Vec<_> = ending.to_vec();
        if let Some(last) = ending.last_mut() {
            *last = with_metrics(last, &metrics);
        }
        let ending: Vec<_> =
            ending.iter().map(|object| chunk(object, salt, u64::MAX - 1)).collect();

        let input = generation.input_tokens;
        let reason = quoted(self.reason(generation));
        let metrics_in_token = ending.is_empty();
        let token = move |token: Token| {
            let mut object = self.token(token, input, &reason);
            if token.last && metrics_in_token {
                object = with_metrics(&object, &metrics);
            }
            chunk(&object, salt, token.index)
        };
        Script {
            content_type: "application/vnd.amazon.eventstream",
            headers: &[("x-amzn-bedrock-content-type", "application/json")],
            opening: opening.concat(),
            token: Box::new(token),
            ending: ending.concat(),
            error: exception_message(),
        }
    }

    /// The objects before the first token and after the last one.
    fn frame(self, generation: &Generation) -> (Vec<String>, Vec<String>) {
        match self {
            Self::Anthropic => {
                let objects = |events: [(&str, String); 3]| {
                    let events = events.into_iter().filter(|(name, _)| *name != "ping");
                    events.map(|(_, object)| object).collect()
                };
                (objects(anthropic::opening(generation)), objects(anthropic::ending(generation)))
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

    /// The object of one token.
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
            Self::Anthropic => anthropic::delta(token.word),
            Self::Nova => fill(NOVA_DELTA, &values),
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

// === event stream ===

fn event(kind: &str, payload: &str) -> Vec<u8> {
    let json = "application/json";
    message(&[(":event-type", kind), (":content-type", json), (":message-type", "event")], payload)
}

fn chunk(object: &str, salt: u64, index: u64) -> Vec<u8> {
    let bytes = BASE64_STANDARD.encode(object);
    event("chunk", &fill(CHUNK, &[("bytes", &bytes), ("padding", &padding(salt, index))]))
}

fn exception_message() -> Vec<u8> {
    let headers = [
        (":exception-type", "modelStreamErrorException"),
        (":content-type", "application/json"),
        (":message-type", "exception"),
    ];
    message(
        &headers,
        r#"{"message":"The simulated model failed midway.","originalStatusCode":500}"#,
    )
}

/// One message: lengths, their checksum, headers, payload, checksum of it all.
fn message(headers: &[(&str, &str)], payload: &str) -> Vec<u8> {
    let headers_length: usize =
        headers.iter().map(|(name, value)| 1 + name.len() + 3 + value.len()).sum();
    let length = 12 + headers_length + payload.len() + 4;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend((headers_length as u32).to_be_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
    for (name, value) in headers {
        bytes.push(name.len() as u8);
        bytes.extend(name.as_bytes());
        bytes.push(TYPE_STRING);
        bytes.extend((value.len() as u16).to_be_bytes());
        bytes.extend(value.as_bytes());
    }
    bytes.extend(payload.as_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
    bytes
}

const TYPE_STRING: u8 = 7;

/// Bedrock pads its events, so that their sizes tell nothing of their texts.
fn padding(salt: u64, index: u64) -> &'static str {
    const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    let length = 4 + mix(salt, index) as usize % (LETTERS.len() - 3);
    &LETTERS[..length]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_message_has_the_checksums_of_the_specification() {
        let bytes = message(&[], "");
        let expected = [0, 0, 0, 16, 0, 0, 0, 0, 0x05, 0xc2, 0x48, 0xeb, 0x7d, 0x98, 0xc8, 0xff];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn an_arn_is_a_model_too() {
        let path = "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Aprompt-router%2Fx/converse-stream";
        let target = Target::new(path.parse().expect("a path"));
        let (model, verb) = model_and_verb(&target).expect("Bedrock's form");
        assert_eq!(model, "arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Aprompt-router%2Fx");
        assert_eq!(verb, "converse-stream");
    }

    #[test]
    fn anthropic_names_its_models_shorter() {
        assert_eq!(
            anthropic_name("us.anthropic.claude-sonnet-4-20250514-v1%3A0"),
            "claude-sonnet-4-20250514"
        );
    }
}
