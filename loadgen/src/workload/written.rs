//! What is asked, written as each interface has it.

use std::num::NonZeroU32;

use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::{Entry, Expected, Operation, Request};

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
}

/// One thing that was said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Turn {
    pub(crate) role: Role,
    pub(crate) text: String,
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
    pub(crate) fn request(&self, entry: &Entry) -> Request {
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
        }
    }

    fn body(&self, entry: &Entry) -> Value {
        let most = self.output_tokens;
        match entry.call {
            Operation::OpenAiChat | Operation::VertexOpenAiChat => self.streamed_with_usage(
                entry,
                json!({
                    "model": entry.model,
                    "messages": self.messages(|text| json!(text)),
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
    fn messages(&self, content: impl Fn(&str) -> Value) -> Vec<Value> {
        let message =
            |turn: &Turn| json!({ "role": turn.role.as_str(), "content": content(&turn.text) });
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
            [only] => json!(only.text),
            _ => json!(self.messages(|text| json!(text))),
        }
    }

    /// Anthropic's body without what differs by the way to the model.
    fn to_claude(&self) -> Value {
        let message = |turn: &Turn| json!({ "role": turn.role.as_str(), "content": turn.text });
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
            json!({ "role": role, "parts": [{ "text": turn.text }] })
        };
        let contents: Vec<_> = self.dialogue().map(content).collect();
        let mut body = json!({ "contents": contents });
        if let Some(system) = self.system() {
            body["systemInstruction"] = json!({ "parts": [{ "text": system }] });
        }
        body
    }

    fn converse(&self) -> Value {
        let message =
            |turn: &Turn| json!({ "role": turn.role.as_str(), "content": [{ "text": turn.text }] });
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
        Self { role: Role::User, text: text.into() }
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
