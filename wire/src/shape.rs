//! What kind of call this is, as its head says.

use std::sync::Arc;

/// What of a request's head decides how the call reads.
#[derive(Clone, Copy)]
pub struct HeadView<'a> {
    /// `GET`, `POST`, ...
    pub method: &'a str,
    /// The host that the caller named, without its port.
    pub host: Option<&'a str>,
    /// The path as sent, percent-encoded, without its query.
    pub path: &'a str,
    /// The query as sent, without its `?`.
    pub query: Option<&'a str>,
    /// The other headers.
    pub headers: &'a dyn Headers,
}

/// Header fields, whoever holds them.
pub trait Headers {
    /// The first value of the field with this lower-case name.
    fn value(&self, name: &str) -> Option<&[u8]>;
}

impl Headers for http::HeaderMap {
    fn value(&self, name: &str) -> Option<&[u8]> {
        self.get(name).map(|value| value.as_bytes())
    }
}

/// Whose interface the caller speaks: the word of `match: { dialect: ... }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// OpenAI and those that speak like it.
    OpenAi,
    /// Anthropic Messages.
    Anthropic,
    /// The Gemini API.
    Gemini,
    /// Vertex AI, whosever model.
    Vertex,
    /// AWS Bedrock, whosever model.
    Bedrock,
    /// `/generate` of vLLM's demo server, and `/v1/generate`.
    Generate,
    /// No model call that we know.
    Other,
}

/// A call as its head shows it.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Whose interface it is.
    pub dialect: Dialect,
    /// `gen_ai.operation.name`, absent where this is no model call.
    pub operation: Option<Arc<str>>,
    /// Who serves it, where host or path say so.
    pub provider: Option<Arc<str>>,
    /// The model, where the path names it (percent-decoded).
    pub model: Option<String>,
    /// Region or location, where host, path or signature name it.
    pub region: Option<Arc<str>>,
    /// The Google Cloud project, where the path names it.
    pub project: Option<String>,
    /// Whether a stream is asked for, where the path says so.
    pub stream: Option<bool>,
}

impl Shape {
    /// Reads the head of a request.
    pub fn read(head: &HeadView<'_>) -> Self {
        let _ = head;
        Self {
            dialect: Dialect::Other,
            operation: None,
            provider: None,
            model: None,
            region: None,
            project: None,
            stream: None,
        }
    }
}
