//! `generateContent` of the Gemini API and of Vertex AI.

use serde_json::Value;

use super::Interface;
use super::message::{Choices, Messages, Part, each, index, modality, text, tool};

pub(super) static GENERATE_CONTENT: Interface =
    Interface { name: "generate_content", request, reply };

fn request(body: &Value, messages: &mut Messages) {
    if let Some(system) = either(body, "systemInstruction", "system_instruction") {
        messages.system.extend(each(system, "parts").filter_map(part));
    }
    match body.get("contents") {
        Some(Value::Array(contents)) => contents.iter().for_each(|each| content(each, messages)),
        Some(one) => content(one, messages),
        None => {}
    }
    for group in each(body, "tools") {
        let functions = either(group, "functionDeclarations", "function_declarations");
        for about in functions.and_then(Value::as_array).into_iter().flatten() {
            let parameters = either(about, "parametersJsonSchema", "parameters_json_schema");
            messages.tools.push(tool(about, parameters.or_else(|| about.get("parameters"))));
        }
    }
}

fn content(content: &Value, messages: &mut Messages) {
    let said: Vec<_> = each(content, "parts").filter_map(part).collect();
    messages.says(role(text(content, "role").unwrap_or("user")), said);
}

fn role(role: &str) -> &str {
    match role {
        "model" => "assistant",
        "function" => "tool",
        role => role,
    }
}

fn part(part: &Value) -> Option<Part> {
    if let Some(said) = text(part, "text") {
        let is_thought = part.get("thought").and_then(Value::as_bool).unwrap_or(false);
        let said = said.to_owned();
        return Some(if is_thought { Part::Reasoning(said) } else { Part::Text(said) });
    }
    if let Some(data) = either(part, "inlineData", "inline_data") {
        let mime_type = mime_type(data);
        return Some(Part::blob(modality(mime_type), mime_type));
    }
    if let Some(data) = either(part, "fileData", "file_data") {
        let (mime_type, uri) = (mime_type(data), either(data, "fileUri", "file_uri")?.as_str()?);
        return Some(Part::uri(modality(mime_type), mime_type, uri));
    }
    if let Some(call) = either(part, "functionCall", "function_call") {
        return Some(Part::ToolCall {
            id: text(call, "id").map(str::to_owned),
            name: text(call, "name").unwrap_or_default().to_owned(),
            arguments: call.get("args").map(Value::to_string).unwrap_or_default(),
        });
    }
    if let Some(code) = either(part, "executableCode", "executable_code") {
        let (id, name) = (None, "code_execution".to_owned());
        return Some(Part::ToolCall { id, name, arguments: code.to_string() });
    }
    if let Some(result) = either(part, "codeExecutionResult", "code_execution_result") {
        return Some(Part::ToolResponse { id: None, response: result.clone() });
    }
    let answer = either(part, "functionResponse", "function_response")?;
    Some(Part::ToolResponse {
        id: text(answer, "id").or_else(|| text(answer, "name")).map(str::to_owned),
        response: answer.get("response").cloned().unwrap_or_default(),
    })
}

fn mime_type(data: &Value) -> Option<&str> {
    either(data, "mimeType", "mime_type")?.as_str()
}

/// Google takes both spellings of a key.
fn either<'a>(value: &'a Value, camel: &str, snake: &str) -> Option<&'a Value> {
    value.get(camel).or_else(|| value.get(snake))
}

fn reply(event: &Value, choices: &mut Choices) {
    for candidate in each(event, "candidates") {
        let choice = choices.at(index(candidate, "index"));
        let content = candidate.get("content").unwrap_or(&Value::Null);
        for part in each(content, "parts").filter_map(part) {
            match part {
                Part::Text(text) => choice.text(0, &text),
                Part::Reasoning(text) => choice.reasoning(0, &text),
                part => choice.push(part),
            }
        }
        // Some encodings of the reply have numbers for words.
        let number = candidate.get("finishReason").filter(|reason| reason.is_u64());
        choice.finish_reason(number.map(Value::to_string).as_deref());
        choice.finish_reason(text(candidate, "finishReason"));
    }
}
