//! What was said in a call, as its span carries it where the user has switched that on: in
//! attributes, as the newest conventions have it, or in an event for each message, as version 1.36
//! has it.

use serde_json::{Value as Json, json};
use tidegate_wire::content::{Message, Messages, Part};
use tracing::warn;

use super::encode::field;
use crate::export::names::{self, Conventions};
use crate::export::otlp::protobuf::{self, Value};

/// The variable that instrumentations of GenAI share.
const CAPTURE: &str = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";

/// Whether content is captured: as the variable says, else as configured.
pub fn captures_content(configured: bool, variable: impl Fn(&str) -> Option<String>) -> bool {
    let text = variable(CAPTURE).unwrap_or_default().trim().to_ascii_lowercase();
    match &*text {
        "" => configured,
        "true" | "span_only" | "span_and_event" => true,
        "false" | "no_content" | "event_only" => false,
        _ => {
            // What may have been meant to switch it off must not leave it on.
            warn!(variable = CAPTURE, "variable is not understood; no content is captured");
            false
        }
    }
}

/// The attributes of a span.
pub(super) fn attributes(out: &mut Vec<u8>, messages: &Messages, conventions: Conventions) {
    if conventions.shows_latest() {
        let all = |messages: &[Message]| messages.iter().map(Message::to_json).collect();
        put(out, "gen_ai.system_instructions", messages.system.iter().map(Part::to_json).collect());
        put(out, "gen_ai.input.messages", all(&messages.input));
        put(out, "gen_ai.output.messages", all(&messages.output));
        put(out, "gen_ai.tool.definitions", messages.tools.clone());
    }
    if messages.is_truncated {
        let name = "tidegate.content.truncated";
        protobuf::attribute(out, field::ATTRIBUTES, name, Value::Bool(true));
    }
}

fn put(out: &mut Vec<u8>, name: &str, values: Vec<Json>) {
    if !values.is_empty() {
        let text = Json::Array(values).to_string();
        protobuf::attribute(out, field::ATTRIBUTES, name, Value::Text(&text));
    }
}

/// The events of version 1.36: what was asked when the call began, what was answered at its end.
pub(super) fn events(
    out: &mut Vec<u8>,
    messages: &Messages,
    system: Option<&str>,
    start: u64,
    end: u64,
) {
    let mut put = |at: u64, name: &str, body: Json| {
        protobuf::message(out, field::EVENTS, |out| {
            let text = body.to_string();
            protobuf::fixed64(out, field::EVENT_TIME, at);
            protobuf::bytes(out, field::EVENT_NAME, name.as_bytes());
            let mut attribute = |name: &str, text: &str| {
                protobuf::attribute(out, field::EVENT_ATTRIBUTES, name, Value::Text(text));
            };
            system.into_iter().for_each(|system| attribute(names::SYSTEM, system));
            attribute("gen_ai.event.content", &text);
        });
    };
    if !messages.system.is_empty() {
        put(start, "gen_ai.system.message", json!({ "content": content(&messages.system) }));
    }
    for message in &messages.input {
        // Some interfaces have a user hand over what tools answered.
        for part in &message.parts {
            if let Part::ToolResponse { id, response } = part {
                put(start, "gen_ai.tool.message", json!({ "id": id, "content": response }));
            }
        }
        if message.parts.iter().any(|part| !is_tool_response(part)) {
            put(start, event_name(&message.role), body(message));
        }
    }
    for (index, message) in messages.output.iter().enumerate() {
        let reason = message.finish_reason.as_deref().unwrap_or_default();
        let choice = json!({ "index": index, "finish_reason": reason, "message": body(message) });
        put(end, "gen_ai.choice", choice);
    }
}

fn is_tool_response(part: &Part) -> bool {
    matches!(part, Part::ToolResponse { .. })
}

fn event_name(role: &str) -> &'static str {
    match role {
        "system" => "gen_ai.system.message",
        "assistant" => "gen_ai.assistant.message",
        _ => "gen_ai.user.message",
    }
}

fn body(message: &Message) -> Json {
    let mut body = json!({ "role": message.role });
    let parts = message.parts.iter().filter(|part| !is_tool_response(part));
    let (calls, said): (Vec<_>, Vec<_>) =
        parts.partition(|part| matches!(part, Part::ToolCall { .. }));
    if !said.is_empty() {
        body["content"] = content(said);
    }
    if !calls.is_empty() {
        body["tool_calls"] = calls.into_iter().filter_map(tool_call).collect();
    }
    body
}

fn tool_call(part: &Part) -> Option<Json> {
    let Part::ToolCall { id, name, arguments } = part else { return None };
    let function = json!({ "name": name, "arguments": arguments });
    Some(json!({ "id": id, "type": "function", "function": function }))
}

/// A text as such; anything more as parts.
fn content<'a>(parts: impl IntoIterator<Item = &'a Part>) -> Json {
    let parts: Vec<_> = parts.into_iter().collect();
    match parts[..] {
        [Part::Text(text)] => json!(text),
        _ => parts.into_iter().map(Part::to_json).collect(),
    }
}
