//! A request as it came, and what of it decides the answer.

use crate::dialect::Dialect;

/// Bytes of a body that are kept.
pub(crate) const KEPT_BODY: usize = 1 << 20;

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Its method.
    pub method: String,
    /// Its path, with its query.
    pub target: String,
    /// Names and values as they came; in HTTP/2 without those that begin with a colon.
    pub fields: Vec<(String, String)>,
    /// What was read of its body, up to a megabyte.
    pub body: Vec<u8>,
    /// How much was read of its body.
    pub body_bytes: u64,
    /// Whether it came by HTTP/2.
    pub http2: bool,
}

impl Request {
    /// The first value of this field.
    pub fn field(&self, name: &str) -> Option<&str> {
        let is_it = |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        self.fields.iter().find(is_it).map(|(_, value)| value.as_str())
    }

    /// The interface that it is for, by its path.
    pub fn dialect(&self) -> Dialect {
        let path = self.target.split('?').next().unwrap_or_default();
        let is_in = |part: &str| path.contains(part);
        match () {
            () if is_in("/publishers/anthropic/") || path.ends_with("/messages") => {
                Dialect::Anthropic
            }
            () if is_in(":generateContent") || is_in(":streamGenerateContent") => Dialect::Vertex,
            () if is_in("/model/") => Dialect::Bedrock,
            () if path.ends_with("/generate") => Dialect::Generate,
            () => Dialect::OpenAi,
        }
    }

    /// Whether it asks for a stream, by its path or its body.
    pub fn asks_for_stream(&self) -> bool {
        const VERBS: [&str; 4] = [
            ":streamGenerateContent",
            ":streamRawPredict",
            "/converse-stream",
            "/invoke-with-response-stream",
        ];
        VERBS.iter().any(|verb| self.target.contains(verb)) || self.says_stream()
    }

    fn says_stream(&self) -> bool {
        let body: Option<serde_json::Value> = serde_json::from_slice(&self.body).ok();
        body.is_some_and(|body| body["stream"] == true)
    }

    /// Keeps a piece of the body.
    pub(crate) fn keep(&mut self, piece: &[u8]) {
        self.body_bytes += piece.len() as u64;
        let room = KEPT_BODY - self.body.len();
        self.body.extend_from_slice(&piece[..piece.len().min(room)]);
    }
}
