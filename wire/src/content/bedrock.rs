//! Converse of AWS Bedrock, and Amazon's own models, which speak likewise.

use serde_json::Value;

use super::Interface;
use super::message::{Choice, Choices, Messages, Part, each, index, text, tool};

pub(super) static CONVERSE: Interface = Interface { name: "converse", request, reply };

fn request(body: &Value, messages: &mut Messages) {
    messages.system.extend(each(body, "system").filter_map(part));
    for message in each(body, "messages") {
        let said: Vec<_> = each(message, "content").filter_map(part).collect();
        messages.says(text(message, "role").unwrap_or("user"), said);
    }
    let config = body.get("toolConfig").unwrap_or(&Value::Null);
    for about in each(config, "tools").filter_map(|tool| tool.get("toolSpec")) {
        let parameters =
            about.get("inputSchema").map(|schema| schema.get("json").unwrap_or(schema));
        messages.tools.push(tool(about, parameters));
    }
}

fn part(block: &Value) -> Option<Part> {
    if let Some(said) = block.get("text") {
        return Part::text(said);
    }
    if let Some(guarded) = block.get("guardContent") {
        return part(guarded.get("text").unwrap_or(guarded));
    }
    if let Some(thought) = block.get("reasoningContent") {
        let thought = thought.get("reasoningText").unwrap_or(thought);
        return Some(Part::Reasoning(text(thought, "text")?.to_owned()));
    }
    if let Some(call) = block.get("toolUse") {
        return Some(Part::ToolCall {
            id: text(call, "toolUseId").map(str::to_owned),
            name: text(call, "name").unwrap_or_default().to_owned(),
            arguments: call.get("input").map(Value::to_string).unwrap_or_default(),
        });
    }
    if let Some(result) = block.get("toolResult") {
        return Some(Part::ToolResponse {
            id: text(result, "toolUseId").map(str::to_owned),
            response: each(result, "content").filter_map(result_part).collect(),
        });
    }
    ["image", "video", "audio", "document"].into_iter().find_map(|kind| media(kind, block))
}

/// What a tool answers may be JSON.
fn result_part(block: &Value) -> Option<Value> {
    block.get("json").cloned().or_else(|| part(block).map(|part| part.to_json()))
}

fn media(kind: &'static str, block: &Value) -> Option<Part> {
    let about = block.get(kind)?;
    let mime_type = match (kind, text(about, "format")) {
        ("document", _) | (_, None) => None,
        (kind, Some(format)) => Some(format!("{kind}/{format}")),
    };
    let source = about.get("source").unwrap_or(&Value::Null);
    let place = source.get("s3Location").and_then(|place| text(place, "uri"));
    Some(match place {
        Some(uri) => Part::uri(kind, mime_type.as_deref(), uri),
        None => Part::blob(kind, mime_type.as_deref()),
    })
}

/// Names of events, where they stand around the event (Amazon's models by InvokeModel).
const EVENTS: [&str; 5] =
    ["messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop"];

fn reply(event: &Value, choices: &mut Choices) {
    let event = EVENTS.iter().find_map(|name| event.get(name)).unwrap_or(event);
    let choice = choices.at(0);
    if let Some(message) = event.get("output").and_then(|output| output.get("message")) {
        choice.role(text(message, "role"));
        each(message, "content").filter_map(part).for_each(|part| choice.push(part));
    }
    choice.role(text(event, "role"));
    let block = index(event, "contentBlockIndex");
    if let Some(call) = event.get("start").and_then(|start| start.get("toolUse")) {
        choice.tool_call(block, text(call, "toolUseId"), text(call, "name"), "");
    }
    if let Some(delta) = event.get("delta") {
        go_on(block, delta, choice);
    }
    choice.finish_reason(text(event, "stopReason"));
}

fn go_on(block: u64, delta: &Value, choice: &mut Choice) {
    choice.text(block, text(delta, "text").unwrap_or_default());
    if let Some(thought) = delta.get("reasoningContent") {
        choice.reasoning(block, text(thought, "text").unwrap_or_default());
    }
    if let Some(call) = delta.get("toolUse") {
        choice.tool_call(block, None, None, text(call, "input").unwrap_or_default());
    }
}
