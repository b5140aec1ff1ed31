//! Messages in the form of the GenAI conventions: a role, and parts of few types.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// What was said in a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Messages {
    /// Instructions that stand beside the conversation.
    pub system: Vec<Part>,
    /// The conversation.
    pub input: Vec<Message>,
    /// The answer, one message for each choice.
    pub output: Vec<Message>,
    /// The tools that the model may call.
    pub tools: Vec<Value>,
    /// Something was too long to be kept, or encoded in a way that is not read.
    pub is_truncated: bool,
}

/// One message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// What it says.
    pub parts: Vec<Part>,
    /// Why it ended, in the provider's word; of answers alone.
    pub finish_reason: Option<String>,
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Text.
    Text(String),
    /// What the model thinks.
    Reasoning(String),
    /// The model calls a tool.
    ToolCall {
        /// The id of the call.
        id: Option<String>,
        /// The tool.
        name: String,
        /// Its arguments: JSON, as the model wrote it.
        arguments: String,
    },
    /// What a tool answers.
    ToolResponse {
        /// The id of the call.
        id: Option<String>,
        /// The answer.
        response: Value,
    },
    /// Media: that they are there, never their bytes.
    Media {
        /// `image`, `audio`, `video` or `document`.
        modality: &'static str,
        /// Their type, where it is said.
        mime_type: Option<String>,
        /// Where they are; absent where they stand in the message itself.
        place: Option<Place>,
    },
}

/// Where media are.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// At an address, of which the query is left out: it may be a credential.
    Uri(String),
    /// In a file that the provider keeps.
    File(String),
}

// === impl Messages ===

impl Messages {
    pub(super) fn says(&mut self, role: &str, parts: Vec<Part>) {
        if !parts.is_empty() {
            self.input.push(Message { role: role.to_owned(), parts, finish_reason: None });
        }
    }
}

// === impl Message ===

impl Message {
    /// The message in the schema of the conventions.
    pub fn to_json(&self) -> Value {
        let parts: Vec<_> = self.parts.iter().map(Part::to_json).collect();
        let mut message = json!({ "role": self.role, "parts": parts });
        if let Some(reason) = &self.finish_reason {
            message["finish_reason"] = json!(reason);
        }
        message
    }
}

// === impl Part ===

impl Part {
    /// The part in the schema of the conventions.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => json!({ "type": "text", "content": text }),
            Self::Reasoning(text) => json!({ "type": "reasoning", "content": text }),
            Self::ToolCall { id, name, arguments } => {
                let mut part = json!({ "type": "tool_call", "name": name });
                put(&mut part, "id", id.as_deref());
                if !arguments.is_empty() {
                    part["arguments"] = serde_json::from_str(arguments).unwrap_or(json!(arguments));
                }
                part
            }
            Self::ToolResponse { id, response } => {
                let mut part = json!({ "type": "tool_call_response", "response": response });
                put(&mut part, "id", id.as_deref());
                part
            }
            Self::Media { modality, mime_type, place } => {
                let mut part = match place {
                    // Its bytes are left out; the schema asks for the key.
                    None => json!({ "type": "blob", "content": "" }),
                    Some(Place::Uri(uri)) => json!({ "type": "uri", "uri": uri }),
                    Some(Place::File(id)) => json!({ "type": "file", "file_id": id }),
                };
                part["modality"] = json!(modality);
                put(&mut part, "mime_type", mime_type.as_deref());
                part
            }
        }
    }

    pub(super) fn text(value: &Value) -> Option<Self> {
        value.as_str().map(|text| Self::Text(text.to_owned()))
    }

    /// Media that stand in the message.
    pub(super) fn blob(modality: &'static str, mime_type: Option<&str>) -> Self {
        Self::Media { modality, mime_type: mime_type.map(str::to_owned), place: None }
    }

    /// Media at an address, which may itself hold them (`data:`).
    pub(super) fn uri(modality: &'static str, mime_type: Option<&str>, uri: &str) -> Self {
        if let Some(data) = uri.strip_prefix("data:") {
            let mime_type = data.split([';', ',']).next().filter(|kind| !kind.is_empty());
            return Self::blob(modality, mime_type);
        }
        let place = Some(Place::Uri(without_credentials(uri)));
        Self::Media { modality, mime_type: mime_type.map(str::to_owned), place }
    }

    pub(super) fn file(modality: &'static str, id: &str) -> Self {
        let place = Some(Place::File(id.to_owned()));
        Self::Media { modality, mime_type: None, place }
    }
}

fn put(object: &mut Value, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        object[key] = json!(value);
    }
}

/// Without user, query and fragment.
fn without_credentials(uri: &str) -> String {
    let uri = uri.split(['?', '#']).next().unwrap_or_default();
    match uri.split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.find('/').unwrap_or(rest.len());
            let user = rest[..host].rfind('@').map_or(0, |at| at + 1);
            format!("{scheme}://{}", &rest[user..])
        }
        None => uri.to_owned(),
    }
}

/// The kind of media, by their type.
pub(super) fn modality(mime_type: Option<&str>) -> &'static str {
    match mime_type.and_then(|kind| kind.split('/').next()) {
        Some("image") => "image",
        Some("audio") => "audio",
        Some("video") => "video",
        _ => "document",
    }
}

/// A tool, by those of its keys that say what it does; others may be credentials.
pub(super) fn tool(value: &Value, parameters: Option<&Value>) -> Value {
    let mut tool = Map::new();
    tool.insert("type".to_owned(), value.get("type").cloned().unwrap_or(json!("function")));
    for key in ["name", "description"] {
        if let Some(text) = value.get(key).filter(|text| text.is_string()) {
            tool.insert(key.to_owned(), text.clone());
        }
    }
    if let Some(parameters) = parameters {
        tool.insert("parameters".to_owned(), parameters.clone());
    }
    Value::Object(tool)
}

/// The elements of an array; nothing where there is none.
pub(super) fn each<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// A text; nothing where there is none.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

/// A number that counts something; 0 where there is none.
pub(super) fn index(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or(0)
}

/// The choices of a reply, as they come together.
#[derive(Debug, Default)]
pub(super) struct Choices(BTreeMap<u64, Choice>);

/// One choice.
#[derive(Debug, Default)]
pub(super) struct Choice {
    role: Option<String>,
    /// Each with the number of its block: pieces of one block belong together.
    parts: Vec<(u64, Part)>,
    finish_reason: Option<String>,
}

// === impl Choices ===

impl Choices {
    pub(super) fn at(&mut self, index: u64) -> &mut Choice {
        self.0.entry(index).or_default()
    }

    /// Forgets what came: here is the whole.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Forgets all but what the first choice says in words, and says how long that is.
    pub(super) fn only_words(&mut self) -> usize {
        while self.0.len() > 1 {
            self.0.pop_last();
        }
        self.0.values_mut().next().map_or(0, Choice::only_words)
    }

    /// What the first choice says in words.
    pub(super) fn into_text(mut self) -> String {
        self.only_words();
        match self.0.pop_first().and_then(|(_, mut choice)| choice.parts.pop()) {
            Some((_, Part::Text(text))) => text,
            _ => String::new(),
        }
    }

    pub(super) fn finish(self) -> Vec<Message> {
        let message = |choice: Choice| Message {
            role: choice.role.unwrap_or_else(|| "assistant".to_owned()),
            parts: choice.parts.into_iter().map(|(_, part)| part).collect(),
            finish_reason: choice.finish_reason,
        };
        let said = |choice: &Choice| !choice.parts.is_empty() || choice.finish_reason.is_some();
        self.0.into_values().filter(said).map(message).collect()
    }
}

// === impl Choice ===

impl Choice {
    pub(super) fn role(&mut self, role: Option<&str>) {
        if let Some(role) = role.filter(|role| !role.is_empty()) {
            self.role = Some(role.to_owned());
        }
    }

    pub(super) fn finish_reason(&mut self, reason: Option<&str>) {
        if let Some(reason) = reason {
            self.finish_reason = Some(reason.to_owned());
        }
    }

    /// Makes one text of all that is said in words, to which the next piece is added.
    fn only_words(&mut self) -> usize {
        if let [(_, Part::Text(text))] = &self.parts[..] {
            return text.len();
        }
        let (mut block, mut all) = (0, String::new());
        for (at, part) in self.parts.drain(..) {
            if let Part::Text(text) = part {
                (block, all) = (at, if all.is_empty() { text } else { all + &text });
            }
        }
        let bytes = all.len();
        if bytes > 0 {
            self.parts.push((block, Part::Text(all)));
        }
        bytes
    }

    pub(super) fn push(&mut self, part: Part) {
        // No piece continues a part that came whole.
        self.parts.push((u64::MAX, part));
    }

    pub(super) fn text(&mut self, block: u64, more: &str) {
        match self.parts.last_mut() {
            Some((at, Part::Text(text))) if *at == block => text.push_str(more),
            _ if more.is_empty() => {}
            _ => self.parts.push((block, Part::Text(more.to_owned()))),
        }
    }

    pub(super) fn reasoning(&mut self, block: u64, more: &str) {
        match self.parts.last_mut() {
            Some((at, Part::Reasoning(text))) if *at == block => text.push_str(more),
            _ if more.is_empty() => {}
            _ => self.parts.push((block, Part::Reasoning(more.to_owned()))),
        }
    }

    /// More of a call of a tool; calls may come interleaved.
    pub(super) fn tool_call(
        &mut self,
        block: u64,
        new_id: Option<&str>,
        new_name: Option<&str>,
        more: &str,
    ) {
        let open = self.parts.iter_mut().rev().find_map(|(at, part)| match part {
            Part::ToolCall { id, name, arguments } if *at == block => Some((id, name, arguments)),
            _ => None,
        });
        let Some((id, name, arguments)) = open else {
            let part = Part::ToolCall {
                id: new_id.map(str::to_owned),
                name: new_name.unwrap_or_default().to_owned(),
                arguments: more.to_owned(),
            };
            return self.parts.push((block, part));
        };
        if id.is_none() {
            *id = new_id.map(str::to_owned);
        }
        name.push_str(new_name.filter(|_| name.is_empty()).unwrap_or_default());
        arguments.push_str(more);
    }
}
