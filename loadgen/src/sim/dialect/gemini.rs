//! Gemini, from the Gemini API and on Vertex AI.
//!
//! They differ: the Gemini API counts in every chunk, Vertex AI in the last one only. A stream is
//! server-sent events with CRLF, or a pretty-printed array.

use std::fmt::Display;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde_json::Value;

use super::{Answer, Call, Dialect, Refusal, Reply, Target, Unreadable, tool, vector_as_json};
use crate::sim::generation::{Ask, Generation, Token, fill, input_tokens, quoted};
use crate::sim::playback::Script;

pub(super) struct Gemini;

const JSON: &str = "application/json; charset=UTF-8";
const SSE: &str = "text/event-stream";

const CANDIDATE: &str =
    r#"{"content": {"parts": [$parts],"role": "model"}$finish,"index": $choice}"#;
const TEXT: &str = r#"{"text": "$word"}"#;
const THOUGHT: &str = r#"{"text": "$word","thought": true}"#;
const CALL: &str = r#"{"functionCall": {"name": $name,"args": $args},"thoughtSignature": "c2lt"}"#;

const GEMINI: &str = r#"{"candidates": [$candidates],"usageMetadata": {"promptTokenCount": $input$counts,"totalTokenCount": $sum,"promptTokensDetails": [{"modality": "TEXT","tokenCount": $input}]},"modelVersion": $model,"responseId": "$id"}"#;

const VERTEX_CHUNK: &str = r#"{"candidates": [$candidates],"usageMetadata": {"trafficType": "ON_DEMAND"},"modelVersion": $model,"createTime": "$time","responseId": "$id"}"#;
const VERTEX_LAST: &str = r#"{"candidates": [$candidates],"usageMetadata": {"promptTokenCount": $input$counts,"totalTokenCount": $sum,"trafficType": "ON_DEMAND","promptTokensDetails": [{"modality": "TEXT","tokenCount": $input}],"candidatesTokensDetails": [{"modality": "TEXT","tokenCount": $visible}]},"modelVersion": $model,"createTime": "$time","responseId": "$id"}"#;

const COUNT: &str =
    r#"{"totalTokens": $input,"promptTokensDetails": [{"modality": "TEXT","tokenCount": $input}]}"#;
const EMBEDDING: &str = r#"{"embedding": {"values": $vector},"usageMetadata": {"promptTokenCount": $input,"promptTokensDetails": [{"modality": "TEXT","tokenCount": $input}],"totalTokenCount": $input}}"#;

const ERROR: &str = r#"{"error": {"code": $code,"message": $message,"status": "$status"$details}}"#;
const RETRY_IN_A_SECOND: &str =
    r#","details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo","retryDelay": "1s"}]"#;

impl Dialect for Gemini {
    fn name(&self) -> &'static str {
        "gemini"
    }

    fn claims(&self, target: &Target) -> bool {
        let verb = target.model_and_verb().map(|(_, verb)| verb);
        matches!(
            verb,
            Some("generateContent" | "streamGenerateContent" | "countTokens" | "embedContent")
        )
    }

    fn read(&self, call: &Call<'_>) -> Result<Answer, Unreadable> {
        let body = call.json()?;
        let (model, verb) = call.target.model_and_verb().unwrap_or_default();
        let ask = ask(model, &body);
        let form = Form::of(call.target);
        Ok(match verb {
            "countTokens" => Answer::Ready(json(fill(COUNT, &[("input", &ask.input_tokens)]))),
            "embedContent" => Answer::Pass { reply: embedding(&ask), ask },
            "streamGenerateContent" => {
                Answer::Stream { ask, write: Box::new(move |generation| form.stream(generation)) }
            }
            _ => Answer::Whole { ask, write: Box::new(move |generation| form.whole(generation)) },
        })
    }

    fn refuse(&self, target: &Target, refusal: &Refusal) -> Reply {
        refuse(target, refusal)
    }

    fn failures(&self) -> &'static [u16] {
        &[429, 500, 503]
    }
}

/// An error in Google's form. It says that it is an event stream where one was asked for, and is
/// none: so do Google's.
pub(super) fn refuse(target: &Target, refusal: &Refusal) -> Reply {
    let retry = refusal.status == StatusCode::TOO_MANY_REQUESTS && !target.is_vertex();
    let mut reply = json(pretty(&error(refusal.status, &refusal.message, retry)));
    *reply.status_mut() = refusal.status;
    if wants_events(target) {
        reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(SSE));
    }
    reply
}

fn error(status: StatusCode, message: &str, retry: bool) -> String {
    fill(
        ERROR,
        &[
            ("code", &status.as_u16()),
            ("message", &quoted(message)),
            ("status", &status_name(status)),
            ("details", &if retry { RETRY_IN_A_SECOND } else { "" }),
        ],
    )
}

fn status_name(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        400..500 => "INVALID_ARGUMENT",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "INTERNAL",
    }
}

fn wants_events(target: &Target) -> bool {
    target.query().split('&').any(|pair| pair == "alt=sse")
}

pub(super) fn json(body: String) -> Reply {
    let mut reply = Response::new(body.into());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    reply
}

fn ask(model: &str, body: &Value) -> Ask {
    // The Gemini API's `countTokens` may wrap the request that is to be counted.
    let body = body.get("generateContentRequest").unwrap_or(body);
    let config = &body["generationConfig"];
    Ask {
        model: model.to_owned(),
        input_tokens: input_tokens(&[
            &body["systemInstruction"],
            &body["contents"],
            &body["content"],
        ]),
        limit: config["maxOutputTokens"].as_u64(),
        choices: config["candidateCount"].as_u64(),
        thinks: true,
        tool: tool(body, "/tools/0/functionDeclarations/0/name"),
    }
}

fn embedding(ask: &Ask) -> Reply {
    json(fill(EMBEDDING, &[("vector", &vector_as_json(768)), ("input", &ask.input_tokens)]))
}

/// How an answer is written: whose service it is, and how a stream is framed.
#[derive(Clone, Copy)]
struct Form {
    chunk: &'static str,
    last: &'static str,
    events: bool,
}

// === impl Form ===

impl Form {
    fn of(target: &Target) -> Self {
        let events = wants_events(target);
        if target.is_vertex() {
            Self { chunk: VERTEX_CHUNK, last: VERTEX_LAST, events }
        } else {
            Self { chunk: GEMINI, last: GEMINI, events }
        }
    }

    fn whole(self, generation: &Generation) -> Reply {
        let candidates: Vec<_> = (0..generation.choices)
            .map(|choice| {
                let mut parts = Vec::new();
                if generation.reasoning_tokens > 0 {
                    parts.push(fill(THOUGHT, &[("word", &generation.reasoning_of(choice))]));
                }
                parts.push(match &generation.tool {
                    Some(name) => call(name, &generation.arguments_of(choice)),
                    None => fill(TEXT, &[("word", &generation.text_of(choice))]),
                });
                candidate(choice, &parts.join(","), Some(reason(generation)))
            })
            .collect();
        let template = generation.fill(self.last, &[]);
        let (thought, total) = (generation.reasoning_tokens, generation.output_tokens);
        let input = generation.input_tokens;
        json(pretty(&counts(&template, input, &candidates.join(","), thought, total)))
    }

    fn stream(self, generation: &Generation) -> Script {
        let failed = error(StatusCode::SERVICE_UNAVAILABLE, "The model is overloaded.", false);
        let end = if self.events { "" } else { "]" };
        // What a function is given comes whole, with the last of its tokens.
        let holds = generation.tool.is_some();
        let sent = generation.breaks_at;
        let has_begun = if holds { sent.min(generation.reasoning_tokens) > 0 } else { sent > 0 };
        let (chunk, last) = (generation.fill(self.chunk, &[]), generation.fill(self.last, &[]));
        let answer = Answered::new(generation);
        let mut begun = false;
        let token = move |token: Token| {
            if holds && !token.is_reasoning && !token.ends_choice {
                return Vec::new();
            }
            let template = if token.last { &last } else { &chunk };
            let object = answer.chunk(template, token);
            self.framed(&object, std::mem::replace(&mut begun, true)).into_bytes()
        };
        Script {
            content_type: if self.events { SSE } else { JSON },
            headers: &[],
            opening: Vec::new(),
            token: Box::new(token),
            ending: end.as_bytes().to_vec(),
            error: (self.framed(&failed, has_begun) + end).into_bytes(),
        }
    }

    fn framed(self, json: &str, begun: bool) -> String {
        if self.events {
            format!("data: {json}\r\n\r\n")
        } else {
            format!("{}{}\n", if begun { ",\r\n" } else { "[" }, pretty(json))
        }
    }
}

/// What a stream needs to know of its generation.
struct Answered {
    input: u64,
    reasoning: u64,
    reason: &'static str,
    /// The calls of a function, one for each choice.
    calls: Option<Vec<String>>,
}

// === impl Answered ===

impl Answered {
    fn new(generation: &Generation) -> Self {
        let calls = generation.tool.as_ref().map(|name| {
            let choices = 0..generation.choices;
            choices.map(|choice| call(name, &generation.arguments_of(choice))).collect()
        });
        Self {
            input: generation.input_tokens,
            reasoning: generation.reasoning_tokens,
            reason: reason(generation),
            calls,
        }
    }

    fn chunk(&self, template: &str, token: Token) -> String {
        let part = match &self.calls {
            _ if token.is_reasoning => fill(THOUGHT, &[("word", &token.word)]),
            Some(calls) => calls[token.choice as usize].clone(),
            None => fill(TEXT, &[("word", &token.word)]),
        };
        let candidate = candidate(token.choice, &part, token.ends_choice.then_some(self.reason));
        let done = token.index + 1;
        counts(template, self.input, &candidate, self.reasoning.min(done), done)
    }
}

/// Fills in what was said so far; thoughts are counted where there are some.
fn counts(template: &str, input: u64, candidates: &str, thought: u64, done: u64) -> String {
    let mut counts = format!(r#","candidatesTokenCount": {}"#, done - thought);
    if thought > 0 {
        counts += &format!(r#","thoughtsTokenCount": {thought}"#);
    }
    let values: [(&str, &dyn Display); 3] =
        [("candidates", &candidates), ("counts", &counts), ("sum", &(input + done))];
    fill(template, &values)
}

fn candidate(choice: u64, parts: &str, reason: Option<&str>) -> String {
    let finish = reason.map(|reason| format!(r#","finishReason": "{reason}""#));
    let values: [(&str, &dyn Display); 3] =
        [("parts", &parts), ("finish", &finish.unwrap_or_default()), ("choice", &choice)];
    fill(CANDIDATE, &values)
}

fn call(name: &str, arguments: &str) -> String {
    fill(CALL, &[("name", &quoted(name)), ("args", &arguments)])
}

fn reason(generation: &Generation) -> &'static str {
    generation.reason("STOP", "MAX_TOKENS")
}

/// Breaks JSON, or a template of JSON, into lines as Google does.
fn pretty(json: &str) -> String {
    let mut text = String::with_capacity(2 * json.len());
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    let line = |depth: usize| format!("\n{}", "  ".repeat(depth));
    for c in json.chars() {
        if in_string {
            in_string = c != '"' || escaped;
            escaped = c == '\\' && !escaped;
            text.push(c);
            continue;
        }
        match c {
            '{' | '[' => {
                depth += 1;
                text.push(c);
                text.push_str(&line(depth));
            }
            '}' | ']' => {
                depth -= 1;
                text.push_str(&line(depth));
                text.push(c);
            }
            ',' => {
                text.push(c);
                text.push_str(&line(depth));
            }
            _ => {
                in_string = c == '"';
                text.push(c);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_broken_into_lines() {
        let lines = pretty(r#"{"a": [{"b": "{,\"}"}],"c": $c}"#);
        let expected =
            "{\n  \"a\": [\n    {\n      \"b\": \"{,\\\"}\"\n    }\n  ],\n  \"c\": $c\n}";
        assert_eq!(lines, expected);
    }
}
