//! Anthropic Messages, from Anthropic and on Vertex AI, and the counting of its tokens.

use std::fmt::Display;

use http::StatusCode;
use serde_json::Value;

use super::{Answer, Call, Dialect, Refusal, Reply, Target, Unreadable, gemini, json, retry_later};
use crate::sim::generation::{Ask, Generation, fill, input_tokens, quoted};
use crate::sim::playback::Script;

pub(super) struct Anthropic;

const MESSAGE: &str = r#"{"model":$model,"id":"msg_$id","type":"message","role":"assistant","content":[{"type":"text","text":"$text"}],"stop_reason":"$reason","stop_sequence":null,"usage":$usage}"#;
const USAGE: &str = r#"{"input_tokens":$input,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":$output,"service_tier":"standard"}"#;

const MESSAGE_START: &str = r#"{"type":"message_start","message":{"model":$model,"id":"msg_$id","type":"message","role":"assistant","content":[],"stop_reason":null,"stop_sequence":null,"usage":$usage}}"#;
const BLOCK_START: &str =
    r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
const PING: &str = r#"{"type":"ping"}"#;
const BLOCK_DELTA: &str =
    r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"$word"}}"#;
const BLOCK_STOP: &str = r#"{"type":"content_block_stop","index":0}"#;
const MESSAGE_DELTA: &str = r#"{"type":"message_delta","delta":{"stop_reason":"$reason","stop_sequence":null},"usage":{"input_tokens":$input,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":$output}}"#;
const MESSAGE_STOP: &str = r#"{"type":"message_stop"}"#;

impl Dialect for Anthropic {
    fn name(&self) -> &'static str {
        "anthropic"
    }

    fn claims(&self, target: &Target) -> bool {
        let verb = target.model_and_verb().map(|(_, verb)| verb);
        target.ends_in("v1/messages")
            || target.ends_in("v1/messages/count_tokens")
            || matches!(verb, Some("rawPredict" | "streamRawPredict"))
    }

    fn read(&self, call: &Call<'_>) -> Result<Answer, Unreadable> {
        let body = call.json()?;
        let path = call.target.path();
        let model = match call.target.model_and_verb() {
            Some((model, _)) if model != "count-tokens" => model,
            _ => body["model"].as_str().unwrap_or("sim"),
        };
        let ask = ask(model, &body);
        if path.ends_with("/count_tokens") || path.ends_with("/count-tokens:rawPredict") {
            let count = format!(r#"{{"input_tokens":{}}}"#, ask.input_tokens);
            return Ok(Answer::Ready(json(StatusCode::OK, count)));
        }
        Ok(if body["stream"] == true || path.ends_with(":streamRawPredict") {
            Answer::Stream { ask, write: Box::new(sse) }
        } else {
            Answer::Whole { ask, write: Box::new(|g| json(StatusCode::OK, message(g))) }
        })
    }

    fn refuse(&self, target: &Target, refusal: &Refusal) -> Reply {
        if target.is_vertex() {
            return gemini::refuse(target, refusal);
        }
        let error = fill(
            r#"{"type":"error","error":{"type":"$kind","message":$message},"request_id":"req_$id"}"#,
            &[
                ("kind", &kind(refusal.status)),
                ("message", &quoted(&refusal.message)),
                ("id", &refusal.id),
            ],
        );
        let mut reply = json(refusal.status, error);
        retry_later(&mut reply);
        reply
    }

    fn failures(&self) -> &'static [u16] {
        &[529, 429, 500]
    }

    fn request_id(&self, id: &str) -> Option<(&'static str, String)> {
        Some(("request-id", format!("req_{id}")))
    }
}

/// What a body in Anthropic's form asks for; whoever carries it names the model.
pub(super) fn ask(model: &str, body: &Value) -> Ask {
    Ask {
        model: model.to_owned(),
        input_tokens: input_tokens(&[&body["system"], &body["messages"]]),
        limit: body["max_tokens"].as_u64(),
    }
}

/// The whole answer.
pub(super) fn message(generation: &Generation) -> String {
    let values: [(&str, &dyn Display); 3] = [
        ("text", &generation.text()),
        ("reason", &stop_reason(generation)),
        ("usage", &generation.fill(USAGE, &[])),
    ];
    generation.fill(MESSAGE, &values)
}

/// The events of a stream before its first token: name and data.
pub(super) fn opening(generation: &Generation) -> [(&'static str, String); 3] {
    let usage = generation.fill(USAGE, &[("output", &1)]);
    [
        ("message_start", generation.fill(MESSAGE_START, &[("usage", &usage)])),
        ("content_block_start", BLOCK_START.to_owned()),
        ("ping", PING.to_owned()),
    ]
}

/// The event of one token.
pub(super) fn delta(word: &str) -> String {
    fill(BLOCK_DELTA, &[("word", &word)])
}

/// The events of a stream after its last token: name and data.
pub(super) fn ending(generation: &Generation) -> [(&'static str, String); 3] {
    let reason = stop_reason(generation);
    [
        ("content_block_stop", BLOCK_STOP.to_owned()),
        ("message_delta", generation.fill(MESSAGE_DELTA, &[("reason", &reason)])),
        ("message_stop", MESSAGE_STOP.to_owned()),
    ]
}

fn sse(generation: &Generation) -> Script {
    let events = |events: [(&str, String); 3]| {
        events.iter().map(|(name, data)| event(name, data)).collect::<String>().into_bytes()
    };
    let failed = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    Script {
        content_type: "text/event-stream; charset=utf-8",
        headers: &[("cache-control", "no-cache")],
        opening: events(opening(generation)),
        token: Box::new(|token| event("content_block_delta", &delta(token.word)).into_bytes()),
        ending: events(ending(generation)),
        error: event("error", failed).into_bytes(),
    }
}

fn event(name: &str, data: &str) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

fn stop_reason(generation: &Generation) -> &'static str {
    generation.reason("end_turn", "max_tokens")
}

fn kind(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        _ => "api_error",
    }
}
