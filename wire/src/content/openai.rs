//! Chat completions, completions and responses of OpenAI and those that speak like it.

use serde_json::Value;

use super::Interface;
use super::message::{Choice, Choices, Messages, Part, each, index, text, tool};

pub(super) static CHAT: Interface =
    Interface { name: "chat", request: chat_request, reply: chat_reply };

pub(super) static COMPLETIONS: Interface =
    Interface { name: "completions", request: completions_request, reply: completions_reply };

pub(super) static RESPONSES: Interface =
    Interface { name: "responses", request: responses_request, reply: responses_reply };

// === chat completions ===

fn chat_request(body: &Value, messages: &mut Messages) {
    for message in each(body, "messages") {
        let role = text(message, "role").unwrap_or("user");
        let content = message.get("content").unwrap_or(&Value::Null);
        if role == "tool" || role == "function" {
            let id = text(message, "tool_call_id").map(str::to_owned);
            let response = content.as_str().map_or_else(
                || parts(content).iter().map(Part::to_json).collect(),
                |text| Value::String(text.to_owned()),
            );
            messages.says("tool", vec![Part::ToolResponse { id, response }]);
            continue;
        }
        let mut said: Vec<Part> =
            reasoning(message).map(|text| Part::Reasoning(text.to_owned())).into_iter().collect();
        said.extend(parts(content));
        said.extend(each(message, "tool_calls").map(tool_call));
        messages.says(if role == "developer" { "system" } else { role }, said);
    }
    messages.tools.extend(each(body, "tools").map(definition));
}

/// `{type: function, function: {…}}`, or flat as Responses has it.
fn definition(value: &Value) -> Value {
    let about = value.get("function").unwrap_or(value);
    tool(about, about.get("parameters"))
}

fn parts(content: &Value) -> Vec<Part> {
    match content {
        Value::String(text) => vec![Part::Text(text.clone())],
        Value::Array(parts) => parts.iter().filter_map(part).collect(),
        _ => Vec::new(),
    }
}

/// A part of a message, in the words of either interface.
fn part(value: &Value) -> Option<Part> {
    let of = |key: &str, inner: &str| value.get(key).and_then(|object| text(object, inner));
    Some(match text(value, "type")? {
        "text" | "input_text" | "output_text" => Part::text(value.get("text")?)?,
        "refusal" => Part::text(value.get("refusal")?)?,
        "image_url" => Part::uri("image", None, of("image_url", "url")?),
        "input_image" => match (text(value, "image_url"), text(value, "file_id")) {
            (Some(url), _) => Part::uri("image", None, url),
            (None, Some(id)) => Part::file("image", id),
            _ => Part::blob("image", None),
        },
        "input_audio" | "audio" => Part::blob("audio", None),
        "video_url" => Part::uri("video", None, of("video_url", "url")?),
        "file" | "input_file" => {
            let about = value.get("file").unwrap_or(value);
            match (text(about, "file_id"), text(about, "file_url")) {
                (Some(id), _) => Part::file("document", id),
                (None, Some(url)) => Part::uri("document", None, url),
                _ => Part::blob("document", None),
            }
        }
        _ => return None,
    })
}

fn tool_call(value: &Value) -> Part {
    let about = value.get("function").unwrap_or(value);
    Part::ToolCall {
        id: text(value, "call_id").or_else(|| text(value, "id")).map(str::to_owned),
        name: text(about, "name").unwrap_or_default().to_owned(),
        arguments: text(about, "arguments")
            .or_else(|| text(about, "input"))
            .unwrap_or_default()
            .to_owned(),
    }
}

/// Several servers have words of their own for it.
fn reasoning(message: &Value) -> Option<&str> {
    text(message, "reasoning_content").or_else(|| text(message, "reasoning"))
}

fn chat_reply(event: &Value, choices: &mut Choices) {
    for piece in each(event, "choices") {
        let choice = choices.at(index(piece, "index"));
        if let Some(message) = piece.get("delta").or_else(|| piece.get("message")) {
            chat_piece(message, choice);
        }
        choice.finish_reason(text(piece, "finish_reason"));
    }
}

fn chat_piece(message: &Value, choice: &mut Choice) {
    choice.role(text(message, "role"));
    choice.reasoning(0, reasoning(message).unwrap_or_default());
    match message.get("content") {
        Some(Value::String(text)) => choice.text(0, text),
        Some(content) => parts(content).into_iter().for_each(|part| choice.push(part)),
        None => {}
    }
    choice.text(0, text(message, "refusal").unwrap_or_default());
    if message.get("audio").is_some_and(Value::is_object) {
        choice.text(0, text(&message["audio"], "transcript").unwrap_or_default());
    }
    for (at, call) in each(message, "tool_calls").enumerate() {
        let about = call.get("function").unwrap_or(call);
        // Whole calls have no index; they come all at once.
        let block = call.get("index").and_then(Value::as_u64).unwrap_or(at as u64);
        let arguments = text(about, "arguments").unwrap_or_default();
        choice.tool_call(block, text(call, "id"), text(about, "name"), arguments);
    }
}

// === completions ===

fn completions_request(body: &Value, messages: &mut Messages) {
    let prompts = match body.get("prompt") {
        Some(Value::Array(prompts)) => prompts.iter().filter_map(Part::text).collect(),
        Some(prompt) => Part::text(prompt).into_iter().collect(),
        None => Vec::new(),
    };
    messages.says("user", prompts);
}

fn completions_reply(event: &Value, choices: &mut Choices) {
    for piece in each(event, "choices") {
        let choice = choices.at(index(piece, "index"));
        choice.text(0, text(piece, "text").unwrap_or_default());
        choice.finish_reason(text(piece, "finish_reason"));
    }
}

// === responses ===

fn responses_request(body: &Value, messages: &mut Messages) {
    messages.system.extend(body.get("instructions").and_then(Part::text));
    match body.get("input") {
        Some(Value::String(text)) => messages.says("user", vec![Part::Text(text.clone())]),
        Some(Value::Array(items)) => items.iter().for_each(|item| input_item(item, messages)),
        _ => {}
    }
    messages.tools.extend(each(body, "tools").map(definition));
}

fn input_item(item: &Value, messages: &mut Messages) {
    match text(item, "type").unwrap_or("message") {
        "message" => {
            let role = text(item, "role").unwrap_or("user");
            let said = parts(item.get("content").unwrap_or(&Value::Null));
            messages.says(if role == "developer" { "system" } else { role }, said);
        }
        "function_call" | "custom_tool_call" => messages.says("assistant", vec![tool_call(item)]),
        "function_call_output" | "custom_tool_call_output" => {
            let id = text(item, "call_id").map(str::to_owned);
            let response = match item.get("output") {
                Some(Value::String(text)) => Value::String(text.clone()),
                Some(output) => parts(output).iter().map(Part::to_json).collect(),
                None => Value::Null,
            };
            messages.says("tool", vec![Part::ToolResponse { id, response }]);
        }
        "reasoning" => messages.says("assistant", thoughts(item)),
        _ => {}
    }
}

fn thoughts(item: &Value) -> Vec<Part> {
    let texts = each(item, "summary").chain(each(item, "content"));
    let texts = texts.filter_map(|part| text(part, "text"));
    texts.map(|text| Part::Reasoning(text.to_owned())).collect()
}

fn responses_reply(event: &Value, choices: &mut Choices) {
    let block = index(event, "output_index");
    let delta = text(event, "delta").unwrap_or_default();
    match text(event, "type") {
        Some("response.completed" | "response.incomplete" | "response.failed") => {
            choices.clear();
            whole_response(event.get("response").unwrap_or(&Value::Null), choices.at(0));
        }
        Some("response.output_text.delta" | "response.refusal.delta") => {
            choices.at(0).text(block, delta);
        }
        Some("response.reasoning_text.delta" | "response.reasoning_summary_text.delta") => {
            choices.at(0).reasoning(block, delta);
        }
        Some("response.output_item.added") => {
            let item = event.get("item").unwrap_or(&Value::Null);
            if let Some("function_call" | "custom_tool_call") = text(item, "type") {
                choices.at(0).tool_call(block, text(item, "call_id"), text(item, "name"), "");
            }
        }
        Some(
            "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta",
        ) => choices.at(0).tool_call(block, None, None, delta),
        Some(_) => {}
        None => whole_response(event, choices.at(0)),
    }
}

fn whole_response(response: &Value, choice: &mut Choice) {
    for item in each(response, "output") {
        match text(item, "type") {
            Some("message") => {
                let said = parts(item.get("content").unwrap_or(&Value::Null));
                said.into_iter().for_each(|part| choice.push(part));
            }
            Some("reasoning") => thoughts(item).into_iter().for_each(|part| choice.push(part)),
            Some("function_call" | "custom_tool_call") => choice.push(tool_call(item)),
            _ => {}
        }
    }
    choice.finish_reason(text(response, "status"));
}
