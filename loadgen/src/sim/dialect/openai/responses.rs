//! The Responses API: an answer is a list of items, and a stream tells of each in numbered events.

use std::fmt::Display;

use http::StatusCode;
use serde_json::Value;

use super::{ask, streams};
use crate::sim::dialect::{Answer, json, tool};
use crate::sim::generation::{Ask, Generation, Token, fill, quoted};
use crate::sim::playback::Script;

const RESPONSE: &str = r#"{"id":"resp_$id","object":"response","created_at":$created,"status":"$status","background":false,"error":null,"incomplete_details":$incomplete,"instructions":null,"max_output_tokens":null,"max_tool_calls":null,"model":$model,"output":[$items],"parallel_tool_calls":true,"previous_response_id":null,"prompt_cache_key":null,"reasoning":{"effort":null,"summary":null},"safety_identifier":null,"service_tier":"default","store":true,"temperature":1.0,"text":{"format":{"type":"text"},"verbosity":"medium"},"tool_choice":"auto","tools":[],"top_logprobs":0,"top_p":1.0,"truncation":"disabled","usage":$usage,"user":null,"metadata":{}}"#;
const USAGE: &str = r#"{"input_tokens":$input,"input_tokens_details":{"cached_tokens":0},"output_tokens":$output,"output_tokens_details":{"reasoning_tokens":$reasoning},"total_tokens":$total}"#;

const MESSAGE: &str = r#"{"id":"msg_$id","type":"message","status":"$status","content":[$content],"role":"assistant"}"#;
const TEXT: &str = r#"{"type":"output_text","annotations":[],"logprobs":[],"text":"$text"}"#;
const CALL: &str = r#"{"id":"fc_$id","type":"function_call","status":"$status","name":$name,"call_id":"call_$id","arguments":$content}"#;
const REASONING: &str = r#"{"id":"rs_$id","type":"reasoning","summary":[$content]}"#;
const SUMMARY: &str = r#"{"type":"summary_text","text":"$text"}"#;

pub(super) fn response(body: &Value) -> Answer {
    let ask = Ask {
        thinks: true,
        tool: tool(body, "/tools/0/name"),
        ..ask(body, &["instructions", "input"], &["max_output_tokens"])
    };
    if !streams(body) {
        let write = |generation: &Generation| json(StatusCode::OK, whole(generation));
        return Answer::Whole { ask, write: Box::new(write) };
    }
    Answer::Stream { ask, write: Box::new(stream) }
}

/// The response as it is in the end.
fn whole(generation: &Generation) -> String {
    let items: Vec<_> = Item::all(generation).into_iter().map(|item| item.ended).collect();
    let incomplete = if generation.capped { r#"{"reason":"max_output_tokens"}"# } else { "null" };
    let values: [(&str, &dyn Display); 4] = [
        ("status", &status(generation)),
        ("incomplete", &incomplete),
        ("items", &items.join(",")),
        ("usage", &generation.fill(USAGE, &[])),
    ];
    generation.fill(RESPONSE, &values)
}

fn begun(generation: &Generation) -> String {
    let values: [(&str, &dyn Display); 4] =
        [("status", &"in_progress"), ("incomplete", &"null"), ("items", &""), ("usage", &"null")];
    generation.fill(RESPONSE, &values)
}

fn status(generation: &Generation) -> &'static str {
    generation.reason("completed", "incomplete")
}

/// One item of the output, and the events that tell of it.
struct Item {
    ended: String,
    /// What comes before its tokens and after them: kind and fields.
    before: Vec<(&'static str, String)>,
    after: Vec<(&'static str, String)>,
    /// The kind of the event of a token, and its fields in front of the delta.
    delta: (&'static str, String),
}

// === impl Item ===

impl Item {
    fn all(generation: &Generation) -> Vec<Self> {
        let thoughts = (generation.reasoning_tokens > 0).then(|| Self::reasoning(generation));
        let index = u64::from(thoughts.is_some());
        let said = match &generation.tool {
            Some(name) => Self::call(generation, name, index),
            None => Self::message(generation, index),
        };
        thoughts.into_iter().chain([said]).collect()
    }

    fn reasoning(generation: &Generation) -> Self {
        let text = generation.reasoning_of(0);
        let item = |content: &str| generation.fill(REASONING, &[("content", &content)]);
        let place =
            generation.fill(r#""item_id":"rs_$id","output_index":0,"summary_index":0"#, &[]);
        let part = |text: &str| format!(r#"{place},"part":{}"#, fill(SUMMARY, &[("text", &text)]));
        let ended = item(&fill(SUMMARY, &[("text", &text)]));
        Self {
            before: vec![
                ("response.output_item.added", placed(0, &item(""))),
                ("response.reasoning_summary_part.added", part("")),
            ],
            after: vec![
                ("response.reasoning_summary_text.done", format!(r#"{place},"text":"{text}""#)),
                ("response.reasoning_summary_part.done", part(&text)),
                ("response.output_item.done", placed(0, &ended)),
            ],
            delta: ("response.reasoning_summary_text.delta", place),
            ended,
        }
    }

    fn message(generation: &Generation, index: u64) -> Self {
        let text = generation.text();
        let item = |status: &str, content: &str| {
            generation.fill(MESSAGE, &[("status", &status), ("content", &content)])
        };
        let place = format!(r#""item_id":"msg_$id","output_index":{index},"content_index":0"#);
        let place = generation.fill(&place, &[]);
        let part = |text: &str| format!(r#"{place},"part":{}"#, fill(TEXT, &[("text", &text)]));
        let ended = item(status(generation), &fill(TEXT, &[("text", &text)]));
        let done = format!(r#"{place},"text":"{text}","logprobs":[]"#);
        Self {
            before: vec![
                ("response.output_item.added", placed(index, &item("in_progress", ""))),
                ("response.content_part.added", part("")),
            ],
            after: vec![
                ("response.output_text.done", done),
                ("response.content_part.done", part(&text)),
                ("response.output_item.done", placed(index, &ended)),
            ],
            delta: ("response.output_text.delta", format!(r#"{place},"logprobs":[]"#)),
            ended,
        }
    }

    fn call(generation: &Generation, name: &str, index: u64) -> Self {
        let arguments = quoted(&generation.arguments_of(0));
        let item = |status: &str, content: &str| {
            let values: [(&str, &dyn Display); 3] =
                [("status", &status), ("name", &quoted(name)), ("content", &content)];
            generation.fill(CALL, &values)
        };
        let place = generation.fill(&format!(r#""item_id":"fc_$id","output_index":{index}"#), &[]);
        let ended = item(status(generation), &arguments);
        let done = format!(r#"{place},"name":{},"arguments":{arguments}"#, quoted(name));
        Self {
            before: vec![(
                "response.output_item.added",
                placed(index, &item("in_progress", r#""""#)),
            )],
            after: vec![
                ("response.function_call_arguments.done", done),
                ("response.output_item.done", placed(index, &ended)),
            ],
            delta: ("response.function_call_arguments.delta", place),
            ended,
        }
    }
}

fn placed(index: u64, item: &str) -> String {
    format!(r#""output_index":{index},"item":{item}"#)
}

fn stream(generation: &Generation) -> Script {
    let begun = format!(r#""response":{}"#, begun(generation));
    let mut items = Item::all(generation);
    let said = items.pop().expect("something is always said");
    let thoughts = items.pop();
    let first = thoughts.as_ref().unwrap_or(&said);

    let opening =
        [("response.created", begun.clone()), ("response.in_progress", begun)].into_iter();
    let opening: Vec<_> = opening.chain(first.before.iter().cloned()).collect();
    let between: Vec<_> = match &thoughts {
        Some(thoughts) => thoughts.after.iter().chain(&said.before).cloned().collect(),
        None => Vec::new(),
    };
    let last = if generation.capped { "response.incomplete" } else { "response.completed" };
    let mut ending = said.after;
    ending.push((last, format!(r#""response":{}"#, whole(generation))));

    let start = opening.len() as u64;
    let turn = start + generation.reasoning_tokens;
    let end = start + generation.output_tokens + between.len() as u64;
    let between_events = events(turn, &between);
    let parts = between.len() as u64;
    let (calls, said, thoughts) =
        (generation.tool.is_some(), said.delta, thoughts.map(|thoughts| thoughts.delta));
    let token = move |token: Token| {
        let word = if calls && !token.is_reasoning { token.argument() } else { token.word.into() };
        let number = start + token.index;
        match &thoughts {
            Some(delta) if token.is_reasoning => said_event(number, delta, &word),
            Some(_) if token.is_first_visible => {
                between_events.clone() + &said_event(number + parts, &said, &word)
            }
            _ => said_event(number + parts, &said, &word),
        }
        .into_bytes()
    };
    let failed =
        r#""code":"server_error","message":"the simulated model failed midway","param":null"#;
    Script {
        content_type: "text/event-stream; charset=utf-8",
        headers: &[],
        opening: events(0, &opening).into_bytes(),
        token: Box::new(token),
        ending: events(end, &ending).into_bytes(),
        error: event("error", start + generation.breaks_at, failed).into_bytes(),
    }
}

fn events(first: u64, events: &[(&'static str, String)]) -> String {
    (first..).zip(events).map(|(number, (kind, fields))| event(kind, number, fields)).collect()
}

fn said_event(number: u64, (kind, place): &(&'static str, String), word: &str) -> String {
    event(kind, number, &format!(r#"{place},"delta":"{word}""#))
}

fn event(kind: &str, number: u64, fields: &str) -> String {
    format!(
        "event: {kind}\ndata: {{\"type\":\"{kind}\",\"sequence_number\":{number},{fields}}}\n\n"
    )
}
