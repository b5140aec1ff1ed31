//! Chat completions and completions.
//!
//! A stream has a usage chunk only where the caller asks for it. Reasoning stands in
//! `reasoning_content`, as at DeepSeek and vLLM: OpenAI shows none here.

use std::fmt::Display;

use http::StatusCode;
use serde_json::Value;

use super::{ask, error, streams};
use crate::sim::dialect::{Answer, Reply, json, tool};
use crate::sim::generation::{Ask, Generation, Token, fill, quoted};
use crate::sim::playback::Script;

const CHAT: &str = r#"{"id":"chatcmpl-$id","object":"chat.completion","created":$created,"model":$model,"choices":[$choices],"usage":$usage,"service_tier":"default","system_fingerprint":null}"#;
const CHAT_CHOICE: &str = r#"{"index":$choice,"message":{"role":"assistant","content":$content,"refusal":null,"annotations":[]$more},"logprobs":null,"finish_reason":"$reason"}"#;

const CHAT_CHUNK: &str = r#"{"id":"chatcmpl-$id","object":"chat.completion.chunk","created":$created,"model":$model,"service_tier":"default","system_fingerprint":null,"choices":[$choice]$usage}"#;
const CHAT_DELTA: &str =
    r#"{"index":$index,"delta":{$delta},"logprobs":null,"finish_reason":$finish}"#;
const CHAT_ROLE: &str = r#""role":"assistant","content":"","refusal":null"#;
const CALL: &str = r#"{$index"id":"call_$call","type":"function","function":{"name":$name,"arguments":$arguments}}"#;

const COMPLETION: &str = r#"{"id":"cmpl-$id","object":"text_completion","created":$created,"model":$model,"choices":[$choices],"usage":$usage}"#;
const COMPLETION_CHUNK: &str = r#"{"id":"cmpl-$id","object":"text_completion","created":$created,"choices":[$choice],"model":$model$usage}"#;
const COMPLETION_CHOICE: &str =
    r#"{"text":"$text","index":$choice,"logprobs":null,"finish_reason":$finish}"#;

const USAGE: &str = r#"{"prompt_tokens":$input,"completion_tokens":$output,"total_tokens":$total,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":$reasoning,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#;

const DONE: &str = "data: [DONE]\n\n";

pub(super) fn chat(body: &Value) -> Answer {
    let ask = Ask {
        choices: body["n"].as_u64(),
        thinks: true,
        tool: tool(body, "/tools/0/function/name"),
        ..ask(body, &["messages"], &["max_completion_tokens", "max_tokens"])
    };
    if !streams(body) {
        let write = |generation: &Generation| whole(generation, CHAT, message);
        return Answer::Whole { ask, write: Box::new(write) };
    }
    let told = usage_is_wanted(body);
    Answer::Stream { ask, write: Box::new(move |generation| chat_stream(generation, told)) }
}

pub(super) fn completion(body: &Value) -> Answer {
    let ask = Ask { choices: body["n"].as_u64(), ..ask(body, &["prompt"], &["max_tokens"]) };
    if !streams(body) {
        let write = |generation: &Generation| whole(generation, COMPLETION, text_choice);
        return Answer::Whole { ask, write: Box::new(write) };
    }
    let told = usage_is_wanted(body);
    Answer::Stream { ask, write: Box::new(move |generation| completion_stream(generation, told)) }
}

fn usage_is_wanted(body: &Value) -> bool {
    body["stream_options"]["include_usage"] == true
}

// === in one piece ===

fn whole(generation: &Generation, template: &str, choice: fn(&Generation, u64) -> String) -> Reply {
    let choices: Vec<_> = (0..generation.choices).map(|index| choice(generation, index)).collect();
    let values: [(&str, &dyn Display); 2] =
        [("choices", &choices.join(",")), ("usage", &generation.fill(USAGE, &[]))];
    json(StatusCode::OK, generation.fill(template, &values))
}

fn message(generation: &Generation, choice: u64) -> String {
    let mut more = String::new();
    if generation.reasoning_tokens > 0 {
        more = format!(r#","reasoning_content":"{}""#, generation.reasoning_of(choice));
    }
    let mut content = quoted(&generation.text_of(choice));
    if let Some(name) = &generation.tool {
        let arguments = quoted(&generation.arguments_of(choice));
        more += &format!(r#","tool_calls":[{}]"#, call(generation, choice, name, "", &arguments));
        content = "null".to_owned();
    }
    let values: [(&str, &dyn Display); 4] = [
        ("choice", &choice),
        ("content", &content),
        ("more", &more),
        ("reason", &reason(generation)),
    ];
    fill(CHAT_CHOICE, &values)
}

fn text_choice(generation: &Generation, choice: u64) -> String {
    let finish = quoted(reason(generation));
    let text = generation.text_of(choice);
    fill(COMPLETION_CHOICE, &[("text", &text), ("choice", &choice), ("finish", &finish)])
}

/// The call of a tool; in a stream it begins with its place.
fn call(generation: &Generation, choice: u64, name: &str, index: &str, arguments: &str) -> String {
    let values: [(&str, &dyn Display); 4] = [
        ("index", &index),
        ("call", &format_args!("{:032x}{choice}", generation.id)),
        ("name", &quoted(name)),
        ("arguments", &arguments),
    ];
    fill(CALL, &values)
}

fn reason(generation: &Generation) -> &'static str {
    generation.end("stop", "length", "tool_calls")
}

// === as a stream ===

fn chat_stream(generation: &Generation, told: bool) -> Script {
    let frame = chunk(generation, CHAT_CHUNK, told);
    let chunk = move |index: u64, delta: &str, finish: &str| {
        let values: [(&str, &dyn Display); 3] =
            [("index", &index), ("delta", &delta), ("finish", &finish)];
        fill(&frame, &[("choice", &fill(CHAT_DELTA, &values))])
    };
    let finish = quoted(reason(generation));
    let choices = 0..generation.choices;
    let opening: String = choices.clone().map(|index| chunk(index, CHAT_ROLE, "null")).collect();
    let ending: String = choices.clone().map(|index| chunk(index, "", &finish)).collect();
    let calls: Option<Vec<_>> = generation.tool.as_ref().map(|name| {
        let call = |index| call(generation, index, name, r#""index":0,"#, r#""""#);
        let call = |index| format!(r#""tool_calls":[{}]"#, call(index));
        choices.map(|index| chunk(index, &call(index), "null")).collect()
    });
    let token = move |token: Token| {
        let delta = |kind: &str| format!(r#""{kind}":"{}""#, token.word);
        let chunk = |delta: &str| chunk(token.choice, delta, "null");
        match &calls {
            _ if token.is_reasoning => chunk(&delta("reasoning_content")),
            None => chunk(&delta("content")),
            Some(calls) => {
                let begin =
                    if token.is_first_visible { &*calls[token.choice as usize] } else { "" };
                let part = format!(
                    r#""tool_calls":[{{"index":0,"function":{{"arguments":"{}"}}}}]"#,
                    token.argument()
                );
                format!("{begin}{}", chunk(&part))
            }
        }
        .into_bytes()
    };
    sse(opening, Box::new(token), ending + &last_words(generation, CHAT_CHUNK, told))
}

fn completion_stream(generation: &Generation, told: bool) -> Script {
    let delta = fill(&chunk(generation, COMPLETION_CHUNK, told), &[("choice", &COMPLETION_CHOICE)]);
    let reason = quoted(reason(generation));
    let token = move |token: Token| {
        let finish = if token.ends_choice { &reason } else { "null" };
        let values: [(&str, &dyn Display); 3] =
            [("text", &token.word), ("choice", &token.choice), ("finish", &finish)];
        fill(&delta, &values).into_bytes()
    };
    sse(String::new(), Box::new(token), last_words(generation, COMPLETION_CHUNK, told))
}

/// A chunk whose choice is still to come.
fn chunk(generation: &Generation, template: &str, told: bool) -> String {
    let usage = if told { r#","usage":null"# } else { "" };
    data(&generation.fill(template, &[("usage", &usage)]))
}

/// The usage, if it is wanted, and the end mark.
fn last_words(generation: &Generation, chunk: &str, told: bool) -> String {
    let usage = format!(r#","usage":{}"#, generation.fill(USAGE, &[]));
    let usage = data(&generation.fill(chunk, &[("choice", &""), ("usage", &usage)]));
    if told { usage + DONE } else { DONE.to_owned() }
}

fn sse(opening: String, token: Box<dyn FnMut(Token) -> Vec<u8> + Send>, ending: String) -> Script {
    let failed = error(StatusCode::INTERNAL_SERVER_ERROR, "the simulated model failed midway");
    Script {
        content_type: "text/event-stream; charset=utf-8",
        headers: &[],
        opening: opening.into_bytes(),
        token,
        ending: ending.into_bytes(),
        error: (data(&failed) + DONE).into_bytes(),
    }
}

fn data(json: &str) -> String {
    format!("data: {json}\n\n")
}
