//! OpenAI: chat completions and completions in [`chat`], responses in [`responses`], embeddings and
//! images here. So speak Azure and Vertex AI's compatible endpoint too.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::StatusCode;
use serde_json::Value;

use super::{
    Answer, Call, Dialect, PICTURE, Refusal, Reply, Target, Unreadable, json, numbers_as_json,
    retry_later, vector_of,
};
use crate::sim::generation::{Ask, Generation, fill, input_tokens, quoted};

mod chat;
mod responses;

pub(super) struct OpenAi;

const EMBEDDINGS: &str = r#"{"object":"list","data":[$data],"model":$model,"usage":{"prompt_tokens":$input,"total_tokens":$input}}"#;

const IMAGES: &str = r#"{"created":$created,"data":[$data],"output_format":"png","usage":{"input_tokens":$input,"input_tokens_details":{"image_tokens":0,"text_tokens":$input},"output_tokens":$output,"total_tokens":$total}}"#;
const IMAGES_WITHOUT_USAGE: &str = r#"{"created":1767225600,"data":[$data]}"#;

impl Dialect for OpenAi {
    fn name(&self) -> &'static str {
        "openai"
    }

    fn claims(&self, target: &Target) -> bool {
        ["completions", "embeddings", "responses", "images/generations"]
            .iter()
            .any(|end| target.ends_in(end))
    }

    fn read(&self, call: &Call<'_>) -> Result<Answer, Unreadable> {
        let body = call.json()?;
        let target = call.target;
        if target.ends_in("chat/completions") {
            Ok(chat::chat(&body))
        } else if target.ends_in("completions") {
            Ok(chat::completion(&body))
        } else if target.ends_in("embeddings") {
            embeddings(&body)
        } else if target.ends_in("images/generations") {
            Ok(images(&body))
        } else {
            Ok(responses::response(&body))
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

    /// Azure counts whole seconds; Google has no such headers.
    fn limits(&self, target: &Target, status: StatusCode) -> Vec<(&'static str, String)> {
        if target.is_vertex() {
            return Vec::new();
        }
        let is_spent = status == StatusCode::TOO_MANY_REQUESTS;
        let reset = if target.path().contains("/deployments/") { "1" } else { "1s" };
        [
            ("x-ratelimit-limit-requests", "10000"),
            ("x-ratelimit-limit-tokens", "2000000"),
            ("x-ratelimit-remaining-requests", if is_spent { "0" } else { "9999" }),
            ("x-ratelimit-remaining-tokens", if is_spent { "0" } else { "1999000" }),
            ("x-ratelimit-reset-requests", if is_spent { reset } else { "6ms" }),
            ("x-ratelimit-reset-tokens", if is_spent { reset } else { "30ms" }),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .into()
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
        ..Ask::default()
    }
}

fn streams(body: &Value) -> bool {
    body["stream"] == true
}

// === embeddings ===

/// The most texts of one call; OpenAI takes as many.
const MOST_INPUTS: usize = 2048;

fn embeddings(body: &Value) -> Result<Answer, Unreadable> {
    let ask = ask(body, &["input"], &[]);
    let texts = texts(&body["input"]);
    if texts.len() > MOST_INPUTS {
        return Err(Unreadable(format!("{} inputs are more than {MOST_INPUTS}", texts.len())));
    }
    let length = body["dimensions"].as_u64().unwrap_or(1536).clamp(1, 4096) as usize;
    let is_encoded = body["encoding_format"] == "base64";
    let embedding = |(index, text): (usize, &Cow<'_, str>)| {
        let vector = vector_of(text, length);
        let vector = match is_encoded {
            true => {
                let bytes: Vec<u8> = vector.into_iter().flat_map(f32::to_le_bytes).collect();
                quoted(&BASE64_STANDARD.encode(bytes))
            }
            false => numbers_as_json(vector),
        };
        format!(r#"{{"object":"embedding","index":{index},"embedding":{vector}}}"#)
    };
    let data: Vec<_> = texts.iter().enumerate().map(embedding).collect();
    let reply = fill(
        EMBEDDINGS,
        &[("data", &data.join(",")), ("model", &quoted(&ask.model)), ("input", &ask.input_tokens)],
    );
    Ok(Answer::Pass { reply: json(StatusCode::OK, reply), ask })
}

/// The texts that are to be embedded. A list of numbers is one text, in tokens.
fn texts(input: &Value) -> Vec<Cow<'_, str>> {
    match input {
        Value::Array(items) if !items.first().is_some_and(Value::is_number) => {
            items.iter().map(text).collect()
        }
        one => vec![text(one)],
    }
}

fn text(input: &Value) -> Cow<'_, str> {
    input.as_str().map_or_else(|| input.to_string().into(), Cow::from)
}

// === images ===

/// Only models that make tokens of their pictures count them.
fn images(body: &Value) -> Answer {
    let ask = ask(body, &["prompt"], &[]);
    let count = body["n"].as_u64().unwrap_or(1).clamp(1, 10) as usize;
    let data = vec![format!(r#"{{"b64_json":"{PICTURE}"}}"#); count].join(",");
    if !ask.model.contains("gpt-image") {
        let reply = json(StatusCode::OK, fill(IMAGES_WITHOUT_USAGE, &[("data", &data)]));
        return Answer::Pass { ask, reply };
    }
    let write = move |generation: &Generation| {
        json(StatusCode::OK, generation.fill(IMAGES, &[("data", &data)]))
    };
    Answer::Whole { ask, write: Box::new(write) }
}
