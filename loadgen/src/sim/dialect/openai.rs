//! OpenAI: chat completions, completions, embeddings and responses.
//!
//! One choice per call, no tools. A stream has a usage chunk only where the caller asks for it.

use std::fmt::Display;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::StatusCode;
use serde_json::Value;

use super::{
    Answer, Call, Dialect, Refusal, Reply, Target, Unreadable, json, retry_later, vector,
    vector_as_json,
};
use crate::sim::generation::{Ask, Generation, Token, fill, input_tokens, quoted};
use crate::sim::playback::Script;

pub(super) struct OpenAi;

const CHAT: &str = r#"{"id":"chatcmpl-$id","object":"chat.completion","created":$created,"model":$model,"choices":[{"index":0,"message":{"role":"assistant","content":"$text","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"$reason"}],"usage":$usage,"service_tier":"default","system_fingerprint":null}"#;

const CHAT_CHUNK: &str = r#"{"id":"chatcmpl-$id","object":"chat.completion.chunk","created":$created,"model":$model,"service_tier":"default","system_fingerprint":null,"choices":[$choice]$usage}"#;
const CHAT_ROLE: &str = r#"{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}"#;
const CHAT_DELTA: &str =
    r#"{"index":0,"delta":{"content":"$word"},"logprobs":null,"finish_reason":null}"#;
const CHAT_FINISH: &str = r#"{"index":0,"delta":{},"logprobs":null,"finish_reason":"$reason"}"#;

const COMPLETION: &str = r#"{"id":"cmpl-$id","object":"text_completion","created":$created,"model":$model,"choices":[{"text":"$text","index":0,"logprobs":null,"finish_reason":"$reason"}],"usage":$usage}"#;

const COMPLETION_CHUNK: &str = r#"{"id":"cmpl-$id","object":"text_completion","created":$created,"choices":[$choice],"model":$model$usage}"#;
const COMPLETION_DELTA: &str =
    r#"{"text":"$word","index":0,"logprobs":null,"finish_reason":$finish}"#;

const USAGE: &str = r#"{"prompt_tokens":$input,"completion_tokens":$output,"total_tokens":$total,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#;

const DONE: &str = "data: [DONE]\n\n";

const EMBEDDINGS: &str = r#"{"object":"list","data":[$data],"model":$model,"usage":{"prompt_tokens":$input,"total_tokens":$input}}"#;

const RESPONSE: &str = r#"{"id":"resp_$id","object":"response","created_at":$created,"status":"$status","background":false,"error":null,"incomplete_details":$incomplete,"instructions":null,"max_output_tokens":null,"max_tool_calls":null,"model":$model,"output":[$item],"parallel_tool_calls":true,"previous_response_id":null,"prompt_cache_key":null,"reasoning":{"effort":null,"summary":null},"safety_identifier":null,"service_tier":"default","store":true,"temperature":1.0,"text":{"format":{"type":"text"},"verbosity":"medium"},"tool_choice":"auto","tools":[],"top_logprobs":0,"top_p":1.0,"truncation":"disabled","usage":$usage,"user":null,"metadata":{}}"#;
const RESPONSE_USAGE: &str = r#"{"input_tokens":$input,"input_tokens_details":{"cached_tokens":0},"output_tokens":$output,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":$total}"#;
const ITEM: &str = r#"{"id":"msg_$id","type":"message","status":"$status","content":[$content],"role":"assistant"}"#;
const PART: &str = r#"{"type":"output_text","annotations":[],"logprobs":[],"text":"$text"}"#;
const DELTA: &str = r#"{"type":"response.output_text.delta","sequence_number":$number,"item_id":"msg_$id","output_index":0,"content_index":0,"delta":"$word","logprobs":[]}"#;

impl Dialect for OpenAi {
    fn name(&self) -> &'static str {
        "openai"
    }

    fn claims(&self, target: &Target) -> bool {
        ["completions", "embeddings", "responses"].iter().any(|end| target.ends_in(end))
    }

    fn read(&self, call: &Call<'_>) -> Result<Answer, Unreadable> {
        let body = call.json()?;
        if call.target.ends_in("chat/completions") {
            Ok(chat(&body))
        } else if call.target.ends_in("completions") {
            Ok(completion(&body))
        } else if call.target.ends_in("embeddings") {
            embeddings(&body)
        } else {
            Ok(response(&body))
        }
    }

    fn refuse(&self, _: &Target, refusal: &Refusal) -> Reply {
        let mut reply = json(refusal.status, error(refusal.status, &refusal.message));
        retry_later(&mut reply);
        reply
    }

    fn failures(&self) -> &'static [u16] {
        &[429, 500, 503]
    }

    fn request_id(&self, id: &str) -> Option<(&'static str, String)> {
        Some(("x-request-id", format!("req_{id}")))
    }
}

fn error(status: StatusCode, message: &str) -> String {
    let (kind, code) = match status.as_u16() {
        401 => ("invalid_request_error", r#""invalid_api_key""#),
        404 => ("invalid_request_error", r#""model_not_found""#),
        429 => ("requests", r#""rate_limit_exceeded""#),
        400..500 => ("invalid_request_error", "null"),
        _ => ("server_error", "null"),
    };
    fill(
        r#"{"error":{"message":$message,"type":"$kind","param":null,"code":$code}}"#,
        &[("message", &quoted(message)), ("kind", &kind), ("code", &code)],
    )
}

/// What is asked, by the parts that are the prompt.
fn ask(body: &Value, prompt: &[&str], limit: &[&str]) -> Ask {
    let parts: Vec<_> = prompt.iter().map(|part| &body[part]).collect();
    Ask {
        model: body["model"].as_str().unwrap_or("sim").to_owned(),
        input_tokens: input_tokens(&parts),
        limit: limit.iter().find_map(|key| body[key].as_u64()),
    }
}

fn streams(body: &Value) -> bool {
    body["stream"] == true
}

// === chat completions and completions ===

fn chat(body: &Value) -> Answer {
    let ask = ask(body, &["messages"], &["max_completion_tokens", "max_tokens"]);
    if !streams(body) {
        return Answer::Whole { ask, write: Box::new(|generation| whole(generation, CHAT)) };
    }
    let told = usage_is_wanted(body);
    let write = move |generation: &Generation| {
        let chunk = |choice: &str| {
            let usage = if told { r#","usage":null"# } else { "" };
            let chunk = generation.fill(CHAT_CHUNK, &[("choice", &choice), ("usage", &usage)]);
            data(&chunk)
        };
        let finish = fill(CHAT_FINISH, &[("reason", &generation.reason("stop", "length"))]);
        let delta = chunk(CHAT_DELTA);
        sse(
            chunk(CHAT_ROLE),
            Box::new(move |token| fill(&delta, &[("word", &token.word)]).into_bytes()),
            chunk(&finish) + &last_words(generation, CHAT_CHUNK, told),
        )
    };
    Answer::Stream { ask, write: Box::new(write) }
}

fn completion(body: &Value) -> Answer {
    let ask = ask(body, &["prompt"], &["max_tokens"]);
    if !streams(body) {
        return Answer::Whole { ask, write: Box::new(|generation| whole(generation, COMPLETION)) };
    }
    let told = usage_is_wanted(body);
    let write = move |generation: &Generation| {
        let usage = if told { r#","usage":null"# } else { "" };
        let values: [(&str, &dyn Display); 2] = [("choice", &COMPLETION_DELTA), ("usage", &usage)];
        let delta = data(&generation.fill(COMPLETION_CHUNK, &values));
        let reason = quoted(generation.reason("stop", "length"));
        let token = move |token: Token| {
            let finish = if token.last { &reason } else { "null" };
            fill(&delta, &[("word", &token.word), ("finish", &finish)]).into_bytes()
        };
        sse(String::new(), Box::new(token), last_words(generation, COMPLETION_CHUNK, told))
    };
    Answer::Stream { ask, write: Box::new(write) }
}

fn usage_is_wanted(body: &Value) -> bool {
    body["stream_options"]["include_usage"] == true
}

fn whole(generation: &Generation, template: &str) -> Reply {
    let values: [(&str, &dyn Display); 3] = [
        ("text", &generation.text()),
        ("reason", &generation.reason("stop", "length")),
        ("usage", &generation.fill(USAGE, &[])),
    ];
    json(StatusCode::OK, generation.fill(template, &values))
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

// === embeddings ===

/// The most texts of one call; OpenAI takes as many.
const MOST_INPUTS: usize = 2048;

fn embeddings(body: &Value) -> Result<Answer, Unreadable> {
    let ask = ask(body, &["input"], &[]);
    let inputs = inputs(&body["input"]);
    if inputs > MOST_INPUTS {
        return Err(Unreadable(format!("{inputs} inputs are more than {MOST_INPUTS}")));
    }
    let length = body["dimensions"].as_u64().unwrap_or(1536).clamp(1, 4096) as usize;
    let vector = if body["encoding_format"] == "base64" {
        let bytes: Vec<u8> = vector(length).flat_map(f32::to_le_bytes).collect();
        quoted(&BASE64_STANDARD.encode(bytes))
    } else {
        vector_as_json(length)
    };
    let data: Vec<_> = (0..inputs)
        .map(|index| format!(r#"{{"object":"embedding","index":{index},"embedding":{vector}}}"#))
        .collect();
    let reply = fill(
        EMBEDDINGS,
        &[("data", &data.join(",")), ("model", &quoted(&ask.model)), ("input", &ask.input_tokens)],
    );
    Ok(Answer::Pass { reply: json(StatusCode::OK, reply), ask })
}

/// How many texts are to be embedded. A list of numbers is one text, in tokens.
fn inputs(input: &Value) -> usize {
    match input {
        Value::Array(items) if !items.first().is_some_and(Value::is_number) => items.len(),
        _ => 1,
    }
}

// === responses ===

fn response(body: &Value) -> Answer {
    let ask = ask(body, &["instructions", "input"], &["max_output_tokens"]);
    if !streams(body) {
        let write =
            |generation: &Generation| json(StatusCode::OK, response_object(generation, true));
        return Answer::Whole { ask, write: Box::new(write) };
    }
    Answer::Stream { ask, write: Box::new(response_stream) }
}

fn response_stream(generation: &Generation) -> Script {
    let begun = response_object(generation, false);
    let ended = response_object(generation, true);
    let place = generation.fill(r#""item_id":"msg_$id","output_index":0,"content_index":0"#, &[]);
    let text = generation.text();
    let empty = fill(PART, &[("text", &"")]);
    let part = fill(PART, &[("text", &text)]);

    let opening = [
        event("response.created", 0, &format!(r#""response":{begun}"#)),
        event("response.in_progress", 1, &format!(r#""response":{begun}"#)),
        event(
            "response.output_item.added",
            2,
            &format!(r#""output_index":0,"item":{}"#, item(generation, "in_progress", "")),
        ),
        event("response.content_part.added", 3, &format!(r#"{place},"part":{empty}"#)),
    ];
    let after = 4 + generation.output_tokens;
    let last = if generation.capped { "response.incomplete" } else { "response.completed" };
    let ending = [
        event(
            "response.output_text.done",
            after,
            &format!(r#"{place},"text":"{text}","logprobs":[]"#),
        ),
        event("response.content_part.done", after + 1, &format!(r#"{place},"part":{part}"#)),
        event(
            "response.output_item.done",
            after + 2,
            &format!(r#""output_index":0,"item":{}"#, item(generation, status(generation), &part)),
        ),
        event(last, after + 3, &format!(r#""response":{ended}"#)),
    ];
    let delta = generation.fill(DELTA, &[]);
    let delta = format!("event: response.output_text.delta\ndata: {delta}\n\n");
    let failed =
        r#""code":"server_error","message":"the simulated model failed midway","param":null"#;
    Script {
        content_type: "text/event-stream; charset=utf-8",
        headers: &[],
        opening: opening.concat().into_bytes(),
        token: Box::new(move |token| {
            fill(&delta, &[("word", &token.word), ("number", &(4 + token.index))]).into_bytes()
        }),
        ending: ending.concat().into_bytes(),
        error: event("error", 4 + generation.output_tokens / 2, failed).into_bytes(),
    }
}

fn event(kind: &str, number: u64, fields: &str) -> String {
    format!(
        "event: {kind}\ndata: {{\"type\":\"{kind}\",\"sequence_number\":{number},{fields}}}\n\n"
    )
}

fn response_object(generation: &Generation, ended: bool) -> String {
    let part = fill(PART, &[("text", &generation.text())]);
    let (status, item, usage) = if ended {
        let status = status(generation);
        (status, item(generation, status, &part), generation.fill(RESPONSE_USAGE, &[]))
    } else {
        ("in_progress", String::new(), "null".to_owned())
    };
    let incomplete =
        if ended && generation.capped { r#"{"reason":"max_output_tokens"}"# } else { "null" };
    let values: [(&str, &dyn Display); 4] =
        [("status", &status), ("incomplete", &incomplete), ("item", &item), ("usage", &usage)];
    generation.fill(RESPONSE, &values)
}

fn item(generation: &Generation, status: &str, content: &str) -> String {
    generation.fill(ITEM, &[("status", &status), ("content", &content)])
}

fn status(generation: &Generation) -> &'static str {
    generation.reason("completed", "incomplete")
}
