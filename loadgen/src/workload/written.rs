//! What is asked, written as each interface has it.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;

use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::conversation::Later;
use super::{Conversation, Entry, Expected, Operation, Request};

/// What is asked of a model, whatever its interface.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ask {
    /// What was said so far. Never empty; the last turn is the one to answer.
    pub(crate) turns: Vec<Turn>,
    /// How many tokens that has, where it is known.
    pub(crate) input_tokens: Option<u64>,
    /// The most tokens that the answer may have.
    pub(crate) output_tokens: NonZeroU32,
    /// Whether a stream that need not state its usage is to do so.
    pub(crate) states_usage: bool,
    /// What is asked once this is answered.
    pub(crate) later: VecDeque<Later>,
    /// From what words are made up for answers that are not known.
    pub(crate) seed: u64,
}

/// One thing that was said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Turn {
    pub(crate) role: Role,
    pub(crate) text: String,
    /// Pictures that go with it: PNG in base64.
    pub(crate) pictures: Vec<Arc<str>>,
}

/// Who said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    System,
    User,
    Assistant,
}

impl Ask {
    /// The request that asks it, as this entry has it.
    pub(crate) fn request(self, entry: &Entry) -> Request {
        let output = if entry.call.generates() { self.output_tokens.get().into() } else { 0 };
        Request {
            method: Method::POST,
            path: path(entry),
            headers: headers(entry.call),
            body: self.body(entry).to_string().into(),
            dialect: entry.call.dialect(),
            label: entry.label(),
            route: entry.route(),
            stream: entry.stream,
            expected: Expected { input_tokens: self.input_tokens, output_tokens: Some(output) },
            then: (!self.later.is_empty())
                .then(|| Arc::new(Conversation { ask: self, entry: entry.clone() })),
        }
    }

    fn body(&self, entry: &Entry) -> Value {
        let most = self.output_tokens;
        match entry.call {
            Operation::OpenAiChat | Operation::VertexOpenAiChat => self.streamed_with_usage(
                entry,
                json!({
                    "model": entry.model,
                    "messages": self.messages(Turn::of_chat),
                    "max_tokens": most,
                }),
            ),
            Operation::OpenAiCompletions => self.streamed_with_usage(
                entry,
                json!({ "model": entry.model, "prompt": self.text(), "max_tokens": most }),
            ),
            Operation::OpenAiEmbeddings => json!({
                "model": entry.model,
                "input": self.text(),
                "encoding_format": "float",
            }),
            Operation::OpenAiResponses => streamed(
                entry,
                json!({
                    "model": entry.model,
                    "input": self.input(),
                    "max_output_tokens": most,
                }),
            ),
            Operation::AnthropicMessages => {
                let mut body = streamed(entry, self.to_claude());
                body["model"] = json!(entry.model);
                body
            }
            Operation::VertexClaude => {
                let mut body = streamed(entry, self.to_claude());
                body["anthropic_version"] = json!("vertex-2023-10-16");
                body
            }
            Operation::GeminiGenerateContent | Operation::VertexGenerateContent => {
                let mut body = self.contents();
                body["generationConfig"] = json!({ "maxOutputTokens": most });
                body
            }
            Operation::GeminiCountTokens | Operation::VertexCountTokens => self.contents(),
            Operation::BedrockConverse => self.converse(),
            Operation::BedrockInvoke => self.invoked(entry),
            Operation::GeneratePrompt => {
                streamed(entry, json!({ "prompt": self.text(), "max_tokens": most }))
            }
            Operation::GenerateInstances => streamed(
                entry,
                json!({
                    "instances": [{
                        "prompt": self.text(),
                        "max_tokens": most,
                        "raw_response": true,
                    }],
                }),
            ),
            Operation::GenerateV1 => json!({ "input": self.text(), "max_tokens": most }),
        }
    }

    fn streamed_with_usage(&self, entry: &Entry, body: Value) -> Value {
        let mut body = streamed(entry, body);
        if entry.stream && self.states_usage {
            body["stream_options"] = json!({ "include_usage": true });
        }
        body
    }

    /// All that was said, for interfaces that know no turns.
    fn text(&self) -> String {
        let texts: Vec<_> = self.turns.iter().map(|turn| &*turn.text).collect();
        texts.join("\n\n")
    }

    /// Turns as messages, the system's among them.
    fn messages(&self, content: impl Fn(&Turn) -> Value) -> Vec<Value> {
        let message = |turn: &Turn| json!({ "role": turn.role.as_str(), "content": content(turn) });
        self.turns.iter().map(message).collect()
    }

    /// The turns of user and model, for interfaces that have the system's elsewhere.
    fn dialogue(&self) -> impl Iterator<Item = &Turn> {
        self.turns.iter().filter(|turn| turn.role != Role::System)
    }

    /// What the system says, for those.
    fn system(&self) -> Option<String> {
        let system = self.turns.iter().filter(|turn| turn.role == Role::System);
        let texts: Vec<_> = system.map(|turn| &*turn.text).collect();
        (!texts.is_empty()).then(|| texts.join("\n\n"))
    }

    /// Of the Responses API: a text where there is only one.
    fn input(&self) -> Value {
        match &self.turns[..] {
            [only] if only.pictures.is_empty() => json!(only.text),
            _ => json!(self.messages(Turn::of_responses)),
        }
    }

    /// Anthropic's body without what differs by the way to the model.
    fn to_claude(&self) -> Value {
        let message =
            |turn: &Turn| json!({ "role": turn.role.as_str(), "content": turn.of_claude() });
        let messages: Vec<_> = self.dialogue().map(message).collect();
        let mut body = json!({ "max_tokens": self.output_tokens, "messages": messages });
        if let Some(system) = self.system() {
            body["system"] = json!(system);
        }
        body
    }

    fn contents(&self) -> Value {
        let content = |turn: &Turn| {
            let role = if turn.role == Role::Assistant { "model" } else { "user" };
            let image = |data: &Arc<str>| json!({ "inlineData": { "mimeType": "image/png", "data": data } });
            json!({ "role": role, "parts": turn.parts(json!({ "text": turn.text }), image) })
        };
        let contents: Vec<_> = self.dialogue().map(content).collect();
        let mut body = json!({ "contents": contents });
        if let Some(system) = self.system() {
            body["systemInstruction"] = json!({ "parts": [{ "text": system }] });
        }
        body
    }

    fn converse(&self) -> Value {
        let image =
            |data: &Arc<str>| json!({ "image": { "format": "png", "source": { "bytes": data } } });
        let message = |turn: &Turn| {
            let content = turn.parts(json!({ "text": turn.text }), image);
            json!({ "role": turn.role.as_str(), "content": content })
        };
        let messages: Vec<_> = self.dialogue().map(message).collect();
        let mut body = json!({
            "messages": messages,
            "inferenceConfig": { "maxTokens": self.output_tokens },
        });
        if let Some(system) = self.system() {
            body["system"] = json!([{ "text": system }]);
        }
        body
    }

    /// Every family of models has its own body under InvokeModel.
    fn invoked(&self, entry: &Entry) -> Value {
        let tokens = self.output_tokens;
        let model = &*entry.model;
        if model.contains("meta.llama") {
            json!({ "prompt": self.text(), "max_gen_len": tokens })
        } else if model.contains("amazon.titan-embed") {
            json!({ "inputText": self.text() })
        } else if model.contains("amazon.titan") {
            json!({ "inputText": self.text(), "textGenerationConfig": { "maxTokenCount": tokens } })
        } else if model.contains("amazon.nova") {
            let mut body = self.converse();
            body["schemaVersion"] = json!("messages-v1");
            body
        } else if model.contains("mistral.") {
            json!({ "prompt": self.text(), "max_tokens": tokens })
        } else {
            let mut body = self.to_claude();
            body["anthropic_version"] = json!("bedrock-2023-05-31");
            body
        }
    }
}

// === impl Turn ===

impl Turn {
    /// What a user says.
    pub(crate) fn user(text: impl Into<String>) -> Self {
        Self::new(Role::User, text)
    }

    /// What somebody says.
    pub(crate) fn new(role: Role, text: impl Into<String>) -> Self {
        Self { role, text: text.into(), pictures: Vec::new() }
    }

    /// Its text and its pictures, as parts.
    fn parts(&self, text: Value, picture: impl Fn(&Arc<str>) -> Value) -> Vec<Value> {
        self.pictures.iter().map(picture).chain([text]).collect()
    }

    /// The content of a message, which is its text alone where there is no picture.
    fn content(&self, text: &str, picture: impl Fn(&Arc<str>) -> Value) -> Value {
        match self.pictures.is_empty() {
            true => json!(self.text),
            false => json!(self.parts(json!({ "type": text, "text": self.text }), picture)),
        }
    }

    /// As chat completions have it.
    fn of_chat(&self) -> Value {
        let picture =
            |data: &Arc<str>| json!({ "type": "image_url", "image_url": { "url": url(data) } });
        self.content("text", picture)
    }

    /// As the Responses API has it.
    fn of_responses(&self) -> Value {
        let picture = |data: &Arc<str>| json!({ "type": "input_image", "image_url": url(data) });
        self.content("input_text", picture)
    }

    /// As Anthropic has it.
    fn of_claude(&self) -> Value {
        let picture = |data: &Arc<str>| {
            let source = json!({ "type": "base64", "media_type": "image/png", "data": data });
            json!({ "type": "image", "source": source })
        };
        self.content("text", picture)
    }
}

// === impl Role ===

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

fn url(data: &str) -> String {
    format!("data:image/png;base64,{data}")
}

/// A project and a location, as every path of Vertex AI names them.
const VERTEX: &str = "/v1/projects/load-test/locations/us-central1";

/// Path and query.
fn path(entry: &Entry) -> String {
    let model = &entry.model;
    match entry.call {
        Operation::OpenAiChat => "/v1/chat/completions".to_owned(),
        Operation::OpenAiCompletions => "/v1/completions".to_owned(),
        Operation::OpenAiEmbeddings => "/v1/embeddings".to_owned(),
        Operation::OpenAiResponses => "/v1/responses".to_owned(),
        Operation::AnthropicMessages => "/v1/messages".to_owned(),
        Operation::GeminiGenerateContent => {
            format!("/v1beta/models/{model}:{}", generate_verb(entry))
        }
        Operation::GeminiCountTokens => format!("/v1beta/models/{model}:countTokens"),
        Operation::VertexGenerateContent => {
            format!("{VERTEX}/publishers/google/models/{model}:{}", generate_verb(entry))
        }
        Operation::VertexCountTokens => {
            format!("{VERTEX}/publishers/google/models/{model}:countTokens")
        }
        Operation::VertexClaude => {
            let verb = if entry.stream { "streamRawPredict" } else { "rawPredict" };
            format!("{VERTEX}/publishers/anthropic/models/{model}:{verb}")
        }
        Operation::VertexOpenAiChat => format!("{VERTEX}/endpoints/openapi/chat/completions"),
        Operation::BedrockConverse => {
            bedrock_path(entry, if entry.stream { "converse-stream" } else { "converse" })
        }
        Operation::BedrockInvoke => {
            let verb = if entry.stream { "invoke-with-response-stream" } else { "invoke" };
            bedrock_path(entry, verb)
        }
        Operation::GeneratePrompt | Operation::GenerateInstances => "/generate".to_owned(),
        Operation::GenerateV1 => "/v1/generate".to_owned(),
    }
}

fn headers(call: Operation) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if call == Operation::AnthropicMessages {
        headers.insert(
            HeaderName::from_static("anthropic-version"),
            HeaderValue::from_static("2023-06-01"),
        );
    }
    headers
}

fn streamed(entry: &Entry, mut body: Value) -> Value {
    if entry.stream {
        body["stream"] = json!(true);
    }
    body
}

fn generate_verb(entry: &Entry) -> &'static str {
    match (entry.stream, entry.array) {
        (false, _) => "generateContent",
        (true, false) => "streamGenerateContent?alt=sse",
        (true, true) => "streamGenerateContent",
    }
}

/// boto's way to write a model id: the colon encoded.
fn bedrock_path(entry: &Entry, verb: &str) -> String {
    format!("/model/{}/{verb}", entry.model.replace(':', "%3A").replace('/', "%2F"))
}
