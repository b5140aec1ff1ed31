//! Requests and answers that many tests use.

use super::canary::{CALLERS_QUERY, callers_fields};

const CHAT: &str = "/v1/chat/completions";

/// A chat call that asks for a stream, by the OpenAI interface.
pub(crate) fn stream_call() -> String {
    post(&format!("{CHAT}?{CALLERS_QUERY}"), r#"{"model":"gpt-4o","stream":true}"#)
}

/// A chat call that asks for one answer.
pub(crate) fn call() -> String {
    post(&format!("{CHAT}?{CALLERS_QUERY}"), r#"{"model":"gpt-4o"}"#)
}

/// A request with a body, and with a caller's key wherever one may stand.
pub(crate) fn post(path: &str, body: &str) -> String {
    bare_post(path, body).replacen("\r\n", &format!("\r\n{}", callers_fields()), 1)
}

/// A request with a body and without a key.
pub(crate) fn bare_post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: api.example\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A JSON answer.
pub(crate) fn answer(body: &str) -> String {
    answer_with(200, body)
}

/// A JSON answer of this status.
pub(crate) fn answer_with(status: u16, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} Word\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A chat completion, whole.
pub(crate) const COMPLETION: &str = r#"{"id":"c1","model":"gpt-4o","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;

/// The head of a stream of events in chunks.
pub(crate) const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// An event with some text.
pub(crate) const TOKEN: &str = "data: {\"id\":\"c1\",\"model\":\"gpt-4o\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}\n\n";

/// The event that says why the model has stopped.
pub(crate) const FINISH: &str =
    "data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";

/// The end mark.
pub(crate) const DONE: &str = "data: [DONE]\n\n";

/// The end of a body in chunks.
pub(crate) const LAST_CHUNK: &str = "0\r\n\r\n";

/// A chunk.
pub(crate) fn chunk(payload: &str) -> String {
    format!("{:x}\r\n{payload}\r\n", payload.len())
}
