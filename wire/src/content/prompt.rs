//! Prompts that are no conversation: `/generate` of model servers, and the models of Bedrock that
//! take a text and give one.

use serde_json::Value;

use super::Interface;
use super::message::{Choices, Messages, Part, each, index, text};
use super::openai::CHAT;

pub(super) static PROMPT: Interface = Interface { name: "prompt", request, reply };

fn request(body: &Value, messages: &mut Messages) {
    if body.get("messages").is_some() {
        return (CHAT.request)(body, messages);
    }
    for instance in each(body, "instances") {
        request(instance, messages);
    }
    for prompt in ["prompt", "inputText", "inputs"].into_iter().filter_map(|key| body.get(key)) {
        messages.says("user", texts(prompt).map(|text| Part::Text(text.to_owned())).collect());
    }
}

/// One text, or several.
fn texts(value: &Value) -> impl Iterator<Item = &str> {
    let several = value.as_array().into_iter().flatten();
    value.as_str().into_iter().chain(several.filter_map(Value::as_str))
}

fn reply(event: &Value, choices: &mut Choices) {
    (CHAT.reply)(event, choices);
    // A whole answer, or with each event of a stream all that there is so far.
    let whole = ["text", "predictions"].into_iter().filter_map(|key| event.get(key));
    if let Some(said) = whole.into_iter().find(|said| said.is_array()) {
        choices.clear();
        for (at, said) in texts(said).enumerate() {
            choices.at(at as u64).text(0, said);
        }
    }
    let several = ["generations", "outputs", "results"];
    let several = several.into_iter().flat_map(|key| each(event, key)).enumerate();
    for (at, piece) in several {
        let at = (at as u64).saturating_add(index(piece, "index"));
        more(piece, at, choices);
    }
    more(event, 0, choices);
}

/// More of one answer.
fn more(piece: &Value, at: u64, choices: &mut Choices) {
    let choice = choices.at(at);
    for key in ["text", "generation", "outputText", "completion", "output"] {
        choice.text(0, text(piece, key).unwrap_or_default());
    }
    for key in ["finish_reason", "stop_reason", "completionReason"] {
        choice.finish_reason(text(piece, key));
    }
}
