//! Anthropic Messages, from Anthropic and on Vertex AI, and the counting of its tokens.

use std::fmt::Display;

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    Answer, Call, Dialect, Refusal, Reply, Target, Unreadable, gemini, json, retry_later, tool,
};
use crate::sim::generation::{Ask, Generation, Token, fill, input_tokens, quoted};
use crate::sim::playback::Script;

pub(super) struct Anthropic;

const MESSAGE: &str = r#"{"model":$model,"id":"msg_$id","type":"message","role":"assistant","content":[$content],"stop_reason":$reason,"stop_sequence":null,"usage":$usage}"#;
const USAGE: &str = r#"{"input_tokens":$input,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":$output$details,"service_tier":"standard"}"#;
const LAST_USAGE: &str = r#"{"input_tokens":$input,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":$output$details}"#;
const DETAILS: &str = r#","output_tokens_details":{"thinking_tokens":$reasoning}"#;

const THINKING: &str = r#"{"type":"thinking","thinking":"$text","signature":"$signature"}"#;
const TEXT: &str = r#"{"type":"text","text":"$text"}"#;
const TOOL_USE: &str = r#"{"type":"tool_use","id":"toolu_$id","name":$name,"input":$input_json}"#;
const SIGNATURE: &str = "c2ltdWxhdGVk";

const MESSAGE_START: &str = r#"{"type":"message_start","message":$message}"#;
const BLOCK_START: &str = r#"{"type":"content_block_start","index":$index,"content_block":$block}"#;
const PING: &str = r#"{"type":"ping"}"#;
const BLOCK_DELTA: &str =
    r#"{"type":"content_block_delta","index":$index,"delta":{"type":"$kind","$field":"$word"}}"#;
const BLOCK_STOP: &str = r#"{"type":"content_block_stop","index":$index}"#;
const MESSAGE_DELTA: &str = r#"{"type":"message_delta","delta":{"stop_reason":$reason,"stop_sequence":null},"usage":$usage}"#;
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

    fn limits(&self, target: &Target, status: StatusCode) -> Vec<(&'static str, String)> {
        if target.is_vertex() {
            return Vec::new();
        }
        let is_spent = status == StatusCode::TOO_MANY_REQUESTS;
        let reset = Timestamp::now() + SignedDuration::from_secs(1);
        let left = |count: &str| if is_spent { "0".to_owned() } else { count.to_owned() };
        vec![
            ("anthropic-ratelimit-requests-limit", "4000".to_owned()),
            ("anthropic-ratelimit-requests-remaining", left("3999")),
            ("anthropic-ratelimit-requests-reset", format!("{reset:.0}")),
            ("anthropic-ratelimit-input-tokens-limit", "2000000".to_owned()),
            ("anthropic-ratelimit-input-tokens-remaining", left("1999000")),
            ("anthropic-ratelimit-input-tokens-reset", format!("{reset:.0}")),
            ("anthropic-ratelimit-output-tokens-limit", "400000".to_owned()),
            ("anthropic-ratelimit-output-tokens-remaining", left("399000")),
            ("anthropic-ratelimit-output-tokens-reset", format!("{reset:.0}")),
        ]
    }
}

/// What a body in Anthropic's form asks for; whoever carries it names the model.
pub(super) fn ask(model: &str, body: &Value) -> Ask {
    Ask {
        model: model.to_owned(),
        input_tokens: input_tokens(&[&body["system"], &body["messages"]]),
        limit: body["max_tokens"].as_u64(),
        thinks: true,
        tool: tool(body, "/tools/0/name"),
        ..Ask::default()
    }
}

/// The whole answer.
pub(super) fn message(generation: &Generation) -> String {
    let mut content = Vec::new();
    if generation.reasoning_tokens > 0 {
        let thoughts = generation.reasoning_of(0);
        content.push(fill(THINKING, &[("text", &thoughts), ("signature", &SIGNATURE)]));
    }
    content.push(match &generation.tool {
        Some(name) => tool_use(generation, name, &generation.arguments_of(0)),
        None => fill(TEXT, &[("text", &generation.text())]),
    });
    let values: [(&str, &dyn Display); 3] = [
        ("content", &content.join(",")),
        ("reason", &quoted(stop_reason(generation))),
        ("usage", &usage(generation, USAGE, generation.output_tokens)),
    ];
    generation.fill(MESSAGE, &values)
}

fn tool_use(generation: &Generation, name: &str, input: &str) -> String {
    generation.fill(TOOL_USE, &[("name", &quoted(name)), ("input_json", &input)])
}

/// Thoughts are told apart only where there are some.
fn usage(generation: &Generation, template: &str, output: u64) -> String {
    let thinks = generation.reasoning_tokens > 0 && output == generation.output_tokens;
    let details = if thinks { generation.fill(DETAILS, &[]) } else { String::new() };
    generation.fill(template, &[("output", &output), ("details", &details)])
}

/// An event of a stream: name and data.
pub(super) type Event = (&'static str, String);

/// The events of a stream: a message, in it blocks, in them deltas.
pub(super) struct Stream {
    /// Those before the first token, and after the last one.
    pub(super) opening: Vec<Event>,
    pub(super) ending: Vec<Event>,
    /// From the block of thoughts to the one of what is said, where both are.
    turn: Vec<Event>,
    /// The block of what is said.
    index: u64,
    calls: bool,
}

// === impl Stream ===

impl Stream {
    pub(super) fn new(generation: &Generation) -> Self {
        let said = match &generation.tool {
            Some(name) => tool_use(generation, name, "{}"),
            None => fill(TEXT, &[("text", &"")]),
        };
        let empty: [(&str, &dyn Display); 3] =
            [("content", &""), ("reason", &"null"), ("usage", &usage(generation, USAGE, 1))];
        let empty = generation.fill(MESSAGE, &empty);
        let mut opening = vec![("message_start", fill(MESSAGE_START, &[("message", &empty)]))];
        let mut turn = Vec::new();
        let thinks = generation.reasoning_tokens > 0;
        let index = u64::from(thinks);
        if thinks {
            let thoughts = fill(THINKING, &[("text", &""), ("signature", &"")]);
            opening.push(block_start(0, &thoughts));
            turn.push(block_delta(0, "signature", SIGNATURE));
            turn.push(block_stop(0));
            turn.push(block_start(index, &said));
        } else {
            opening.push(block_start(index, &said));
        }
        opening.push(("ping", PING.to_owned()));

        let last = [
            ("reason", &quoted(stop_reason(generation)) as &dyn Display),
            ("usage", &usage(generation, LAST_USAGE, generation.output_tokens)),
        ];
        let ending = vec![
            block_stop(index),
            ("message_delta", fill(MESSAGE_DELTA, &last)),
            ("message_stop", MESSAGE_STOP.to_owned()),
        ];
        Self { opening, ending, turn, index, calls: generation.tool.is_some() }
    }

    /// The events of one token; the first one said may have others before it.
    pub(super) fn token(&self, token: Token) -> Vec<Event> {
        if token.is_reasoning {
            return vec![block_delta(0, "thinking", token.word)];
        }
        let mut events = if token.is_first_visible { self.turn.clone() } else { Vec::new() };
        events.push(if self.calls {
            block_delta(self.index, "partial_json", &token.argument())
        } else {
            block_delta(self.index, "text", token.word)
        });
        events
    }
}

fn block_start(index: u64, block: &str) -> Event {
    ("content_block_start", fill(BLOCK_START, &[("index", &index), ("block", &block)]))
}

fn block_delta(index: u64, field: &str, word: &str) -> Event {
    let kind = match field {
        "thinking" => "thinking_delta",
        "signature" => "signature_delta",
        "partial_json" => "input_json_delta",
        _ => "text_delta",
    };
    let values: [(&str, &dyn Display); 4] =
        [("index", &index), ("kind", &kind), ("field", &field), ("word", &word)];
    ("content_block_delta", fill(BLOCK_DELTA, &values))
}

fn block_stop(index: u64) -> Event {
    ("content_block_stop", fill(BLOCK_STOP, &[("index", &index)]))
}

fn sse(generation: &Generation) -> Script {
    let stream = Stream::new(generation);
    let failed = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    Script {
        content_type: "text/event-stream; charset=utf-8",
        headers: &[("cache-control", "no-cache")],
        opening: events(&stream.opening),
        ending: events(&stream.ending),
        token: Box::new(move |token| events(&stream.token(token))),
        error: event("error", failed).into_bytes(),
    }
}

fn events(events: &[Event]) -> Vec<u8> {
    events.iter().map(|(name, data)| event(name, data)).collect::<String>().into_bytes()
}

fn event(name: &str, data: &str) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

fn stop_reason(generation: &Generation) -> &'static str {
    generation.end("end_turn", "max_tokens", "tool_use")
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
