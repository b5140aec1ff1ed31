//! AWS Bedrock: Converse here, InvokeModel in [`invoke`], the framing of both in [`eventstream`].

use std::fmt::Display;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::StatusCode;
use serde_json::Value;

use super::{Answer, Call, Dialect, Refusal, Reply, Target, Unreadable, json, set, tool};
use crate::sim::generation::{Ask, Generation, Token, fill, input_tokens, quoted, uuid};
use crate::sim::playback::Script;
use eventstream::{event, midway_error, padding};

mod eventstream;
mod invoke;

pub(super) struct Bedrock;

const CONVERSE: &str = r#"{"metrics":{"latencyMs":$latency_ms},"output":{"message":{"content":[$content],"role":"assistant"}},"stopReason":"$reason","usage":$usage}"#;
const USAGE: &str = r#"{"cacheReadInputTokenCount":0,"cacheReadInputTokens":0,"cacheWriteInputTokenCount":0,"cacheWriteInputTokens":0,"inputTokens":$input,"outputTokens":$output,"serverToolUsage":{},"totalTokens":$total}"#;
const REASONING: &str =
    r#"{"reasoningContent":{"reasoningText":{"signature":"c2ltdWxhdGVk","text":"$text"}}}"#;
const TOOL_USE: &str = r#"{"toolUse":{"input":$arguments,"name":$name,"toolUseId":"tooluse_$id"}}"#;

const MESSAGE_START: &str = r#"{"p":"$padding","role":"assistant"}"#;
const BLOCK_START: &str = r#"{"contentBlockIndex":$index,"p":"$padding","start":{"toolUse":{"name":$name,"toolUseId":"tooluse_$id"}}}"#;
const BLOCK_DELTA: &str = r#"{"contentBlockIndex":$index,"delta":$delta,"p":"$padding"}"#;
const BLOCK_STOP: &str = r#"{"contentBlockIndex":$index,"p":"$padding"}"#;
const MESSAGE_STOP: &str = r#"{"p":"$padding","stopReason":"$reason"}"#;
const METADATA: &str = r#"{"metrics":{"latencyMs":$latency_ms},"p":"$padding","usage":$usage}"#;

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
            _ => invoke::read(model, verb == "invoke", &body),
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
        input_tokens: input_tokens(&[&body["system"], &body["messages"]]),
        limit: body["inferenceConfig"]["maxTokens"].as_u64(),
        thinks: true,
        tool: tool(body, "/toolConfig/tools/0/toolSpec/name"),
        ..Ask::default()
    }
}

fn converse(generation: &Generation) -> Reply {
    let mut content = Vec::new();
    if generation.reasoning_tokens > 0 {
        content.push(fill(REASONING, &[("text", &generation.reasoning_of(0))]));
    }
    content.push(match &generation.tool {
        Some(name) => {
            let arguments = generation.arguments_of(0);
            generation.fill(TOOL_USE, &[("name", &quoted(name)), ("arguments", &arguments)])
        }
        None => format!(r#"{{"text":"{}"}}"#, generation.text()),
    });
    let values: [(&str, &dyn Display); 3] = [
        ("content", &content.join(",")),
        ("reason", &stop_reason(generation)),
        ("usage", &generation.fill(USAGE, &[])),
    ];
    json(StatusCode::OK, generation.fill(CONVERSE, &values))
}

fn converse_stream(generation: &Generation) -> Script {
    let salt = generation.id as u64;
    // The block of what is said comes after that of thoughts.
    let index = u64::from(generation.reasoning_tokens > 0);
    let usage = generation.fill(USAGE, &[]);
    let name = generation.tool.as_deref().map(quoted).unwrap_or_default();
    let write = |event_name, template, number, index: u64| {
        let values: [(&str, &dyn Display); 5] = [
            ("reason", &stop_reason(generation)),
            ("usage", &usage),
            ("name", &name),
            ("index", &index),
            ("padding", &padding(salt, number)),
        ];
        event(event_name, &generation.fill(template, &values))
    };
    let last = generation.output_tokens;
    // Only the block of a tool says that it begins.
    let calls = generation.tool.is_some();
    let mut turn = Vec::new();
    if index > 0 {
        turn.extend(write("contentBlockStop", BLOCK_STOP, last + 3, 0));
    }
    if calls {
        turn.extend(write("contentBlockStart", BLOCK_START, last + 4, index));
    }
    let token = move |token: Token| {
        let (index, delta) = if token.is_reasoning {
            (0, format!(r#"{{"reasoningContent":{{"text":"{}"}}}}"#, token.word))
        } else if calls {
            (index, format!(r#"{{"toolUse":{{"input":"{}"}}}}"#, token.argument()))
        } else {
            (index, format!(r#"{{"text":"{}"}}"#, token.word))
        };
        let values: [(&str, &dyn Display); 3] =
            [("index", &index), ("delta", &delta), ("padding", &padding(salt, token.index))];
        let mut events = if token.is_first_visible { turn.clone() } else { Vec::new() };
        events.extend(event("contentBlockDelta", &fill(BLOCK_DELTA, &values)));
        events
    };
    Script {
        content_type: eventstream::CONTENT_TYPE,
        headers: &[],
        opening: write("messageStart", MESSAGE_START, u64::MAX, 0),
        ending: [
            write("contentBlockStop", BLOCK_STOP, last, index),
            write("messageStop", MESSAGE_STOP, last + 1, 0),
            write("metadata", METADATA, last + 2, 0),
        ]
        .concat(),
        token: Box::new(token),
        error: midway_error(),
    }
}

fn stop_reason(generation: &Generation) -> &'static str {
    generation.end("end_turn", "max_tokens", "tool_use")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_is_a_model_too() {
        let path = "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Aprompt-router%2Fx/converse-stream";
        let target = Target::new(path.parse().expect("a path"));
        let (model, verb) = model_and_verb(&target).expect("Bedrock's form");
        assert_eq!(model, "arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Aprompt-router%2Fx");
        assert_eq!(verb, "converse-stream");
    }
}
