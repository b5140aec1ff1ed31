//! Anthropic Messages, wherever they are served.

use serde_json::Value;

use super::Interface;
use super::message::{Choice, Choices, Messages, Part, each, index, modality, text, tool};

pub(super) static MESSAGES: Interface = Interface { name: "messages", request, reply };

fn request(body: &Value, messages: &mut Messages) {
    messages.system.extend(parts(body.get("system").unwrap_or(&Value::Null)));
    for message in each(body, "messages") {
        let said = parts(message.get("content").unwrap_or(&Value::Null));
        messages.says(text(message, "role").unwrap_or("user"), said);
    }
    messages.tools.extend(each(body, "tools").map(|about| tool(about, about.get("input_schema"))));
}

fn parts(content: &Value) -> Vec<Part> {
    match content {
        Value::String(text) => vec![Part::Text(text.clone())],
        Value::Array(blocks) => blocks.iter().filter_map(part).collect(),
        _ => Vec::new(),
    }
}

fn part(block: &Value) -> Option<Part> {
    Some(match text(block, "type")? {
        "text" => Part::text(block.get("text")?)?,
        "thinking" => Part::Reasoning(text(block, "thinking")?.to_owned()),
        "tool_use" | "server_tool_use" => Part::ToolCall {
            id: text(block, "id").map(str::to_owned),
            name: text(block, "name").unwrap_or_default().to_owned(),
            arguments: block.get("input").map(Value::to_string).unwrap_or_default(),
        },
        "tool_result" => Part::ToolResponse {
            id: text(block, "tool_use_id").map(str::to_owned),
            response: match block.get("content") {
                Some(Value::String(text)) => Value::String(text.clone()),
                Some(content) => parts(content).iter().map(Part::to_json).collect(),
                None => Value::Null,
            },
        },
        "image" => media("image", block),
        "document" => media("document", block),
        _ => return None,
    })
}

fn media(kind: &'static str, block: &Value) -> Part {
    let source = block.get("source").unwrap_or(&Value::Null);
    let mime_type = text(source, "media_type");
    match (text(source, "type"), text(source, "url"), text(source, "file_id")) {
        (Some("url"), Some(url), _) => Part::uri(kind, mime_type, url),
        (Some("file"), _, Some(id)) => Part::file(kind, id),
        _ if mime_type.is_some() => match modality(mime_type) {
            "image" => Part::blob("image", mime_type),
            _ => Part::blob(kind, mime_type),
        },
        _ => Part::blob(kind, None),
    }
}

fn reply(event: &Value, choices: &mut Choices) {
    let choice = choices.at(0);
    match text(event, "type") {
        Some("message_start") => {
            whole(event.get("message").unwrap_or(&Value::Null), choice);
        }
        Some("content_block_start") => {
            let block = event.get("content_block").unwrap_or(&Value::Null);
            begin(index(event, "index"), block, choice);
        }
        Some("content_block_delta") => {
            let delta = event.get("delta").unwrap_or(&Value::Null);
            go_on(index(event, "index"), delta, choice);
        }
        Some("message_delta") => {
            let delta = event.get("delta").unwrap_or(&Value::Null);
            choice.finish_reason(text(delta, "stop_reason"));
        }
        Some("message") => whole(event, choice),
        _ => {}
    }
}

fn whole(message: &Value, choice: &mut Choice) {
    choice.role(text(message, "role"));
    for part in parts(message.get("content").unwrap_or(&Value::Null)) {
        choice.push(part);
    }
    choice.finish_reason(text(message, "stop_reason"));
}

fn begin(at: u64, block: &Value, choice: &mut Choice) {
    match text(block, "type") {
        Some("text") => choice.text(at, text(block, "text").unwrap_or_default()),
        Some("thinking") => choice.reasoning(at, text(block, "thinking").unwrap_or_default()),
        Some("tool_use" | "server_tool_use") => {
            choice.tool_call(at, text(block, "id"), text(block, "name"), "");
        }
        _ => {}
    }
}

fn go_on(at: u64, delta: &Value, choice: &mut Choice) {
    match text(delta, "type") {
        Some("text_delta") => choice.text(at, text(delta, "text").unwrap_or_default()),
        Some("thinking_delta") => choice.reasoning(at, text(delta, "thinking").unwrap_or_default()),
        Some("input_json_delta") => {
            choice.tool_call(at, None, None, text(delta, "partial_json").unwrap_or_default());
        }
        _ => {}
    }
}
