//! Simple servers: `/generate` of vLLM's old server as Vertex AI deploys it, and `/v1/generate`.
//!
//! Neither names a model nor counts tokens. The one streams texts that end with NUL; the other reads
//! JSON or a form, and does not stream.

use std::fmt::Display;

use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::Value;

use super::{Answer, Call, Dialect, Refusal, Reply, Target, Unreadable, json};
use crate::sim::generation::{Ask, Generation, fill, input_tokens, quoted, tokens_of};
use crate::sim::playback::Script;

pub(super) struct Generate;

const PROMPTS: [&str; 5] = ["prompt", "inputs", "input", "text", "messages"];

impl Dialect for Generate {
    fn name(&self) -> &'static str {
        "generate"
    }

    fn claims(&self, target: &Target) -> bool {
        target.ends_in("generate")
    }

    fn read(&self, call: &Call<'_>) -> Result<Answer, Unreadable> {
        if !call.target.ends_in("v1/generate") {
            return Ok(predictions(&call.json()?));
        }
        let kind = call.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let ask = match kind.and_then(boundary) {
            Some(boundary) => form(&call.body, boundary),
            None => fields(&call.json()?),
        };
        let write = |generation: &Generation| {
            json(StatusCode::OK, format!(r#"{{"output":"{}"}}"#, generation.text()))
        };
        Ok(Answer::Whole { ask, write: Box::new(write) })
    }

    fn refuse(&self, _: &Target, refusal: &Refusal) -> Reply {
        json(refusal.status, format!(r#"{{"detail":{}}}"#, quoted(&refusal.message)))
    }

    fn failures(&self) -> &'static [u16] {
        &[503, 500]
    }
}

// === /generate ===

fn predictions(body: &Value) -> Answer {
    let instance = body["instances"].get(0).unwrap_or(body);
    let ask = fields(instance);
    let prompt = instance["prompt"].as_str().unwrap_or_default().to_owned();
    if instance["stream"] == true || body["stream"] == true {
        return Answer::Stream { ask, write: Box::new(stream) };
    }
    let raw = instance["raw_response"] == true;
    let write = move |generation: &Generation| {
        let text = generation.text();
        let body = if raw {
            let values: [(&str, &dyn Display); 1] = [("text", &text)];
            generation.fill(r#"{"predictions":["$text"],"output_token_counts":[$output]}"#, &values)
        } else {
            let echo = quoted(&format!("Prompt:\n{prompt}\nOutput:\n{text}"));
            format!(r#"{{"predictions":[{echo}]}}"#)
        };
        json(StatusCode::OK, body)
    };
    Answer::Whole { ask, write: Box::new(write) }
}

fn stream(_: &Generation) -> Script {
    Script {
        content_type: "application/octet-stream",
        headers: &[],
        opening: Vec::new(),
        token: Box::new(|token| {
            fill("{\"predictions\":[\"$word\"]}\0", &[("word", &token.word)]).into_bytes()
        }),
        ending: Vec::new(),
        error: b"{\"error\":\"the simulated model failed midway\"}\0".to_vec(),
    }
}

fn fields(body: &Value) -> Ask {
    Ask {
        input_tokens: input_tokens(&PROMPTS.map(|name| &body[name])),
        limit: body["max_tokens"].as_u64().or(body["max_new_tokens"].as_u64()),
        ..Ask::default()
    }
}

// === multipart/form-data ===

fn boundary(content_type: &str) -> Option<&str> {
    let parameters = content_type.strip_prefix("multipart/form-data")?;
    let (_, boundary) = parameters.split_once("boundary=")?;
    Some(boundary.split(';').next().unwrap_or(boundary).trim_matches('"'))
}

/// Reads the fields that are a prompt or a limit; files and the rest are no text.
fn form(body: &[u8], boundary: &str) -> Ask {
    let body = String::from_utf8_lossy(body);
    let delimiter = format!("--{boundary}");
    let (mut bytes, mut limit) = (0, None);
    for part in body.split(delimiter.as_str()) {
        let Some((head, value)) = part.split_once("\r\n\r\n") else { continue };
        let value = value.strip_suffix("\r\n").unwrap_or(value);
        let Some((_, name)) = head.split_once("name=\"") else { continue };
        match name.split('"').next() {
            Some("max_tokens") => limit = value.parse().ok(),
            Some(name) if PROMPTS.contains(&name) && !head.contains("filename=") => {
                bytes += value.len() as u64;
            }
            _ => {}
        }
    }
    Ask { input_tokens: tokens_of(bytes), limit, ..Ask::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_its_prompt_counted_and_its_files_not() {
        let boundary = boundary("multipart/form-data; boundary=\"x\"").expect("it has one");
        let body = "--x\r\ncontent-disposition: form-data; name=\"prompt\"\r\n\r\n12345\r\n\
                    --x\r\ncontent-disposition: form-data; name=\"input\"; filename=\"a\"\r\n\r\n123\r\n\
                    --x\r\ncontent-disposition: form-data; name=\"max_tokens\"\r\n\r\n7\r\n--x--\r\n";
        let ask = form(body.as_bytes(), boundary);
        assert_eq!(ask.input_tokens, 2);
        assert_eq!(ask.limit, Some(7));
    }
}
