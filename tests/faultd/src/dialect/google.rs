//! `generateContent`, as server-sent events or as one JSON array that grows.

use serde_json::{Value, json};

use super::{Stream, Trouble, text, token};

pub(super) fn events(tokens: usize) -> Stream {
    Stream {
        content_type: "text/event-stream",
        lead: Vec::new(),
        tokens: (1..=tokens).map(|number| event(&part(number, tokens))).collect(),
        close: Vec::new(),
        end_mark: None,
    }
}

pub(super) fn array(tokens: usize) -> Stream {
    let element = |number| {
        let before = if number == 1 { "[" } else { ",\r\n" };
        format!("{before}{:#}\n", part(number, tokens)).into_bytes()
    };
    Stream {
        content_type: "application/json; charset=UTF-8",
        lead: Vec::new(),
        tokens: (1..=tokens).map(element).collect(),
        close: Vec::new(),
        end_mark: Some(b"]".to_vec()),
    }
}

/// Google ends its lines by CR and LF.
fn event(object: &Value) -> Vec<u8> {
    format!("data: {object}\r\n\r\n").into_bytes()
}

/// The last one says why it is the last, and what it cost.
fn part(number: usize, tokens: usize) -> Value {
    let content = json!({"role": "model", "parts": [{"text": token(number)}]});
    let mut candidate = json!({ "content": content });
    let mut usage = json!({"trafficType": "ON_DEMAND"});
    if number == tokens {
        candidate["finishReason"] = "STOP".into();
        usage = counts(tokens);
    }
    json!({
        "candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-2.5-pro",
        "responseId": "r1",
    })
}

fn counts(tokens: usize) -> Value {
    json!({"promptTokenCount": 7, "candidatesTokenCount": tokens, "totalTokenCount": 7 + tokens})
}

pub(super) fn whole(tokens: usize) -> String {
    let content = json!({"role": "model", "parts": [{"text": text(tokens)}]});
    json!({
        "candidates": [{"content": content, "finishReason": "STOP"}],
        "usageMetadata": counts(tokens), "modelVersion": "gemini-2.5-pro", "responseId": "r1",
    })
    .to_string()
}

pub(super) fn error_event(trouble: Trouble, is_sse: bool) -> Vec<u8> {
    let error = error_object(
        match trouble {
            Trouble::Overloaded => 503,
            Trouble::RateLimited => 429,
            Trouble::Internal => 500,
        },
        None,
    );
    if is_sse { event(&error) } else { format!(",\r\n{error:#}\n").into_bytes() }
}

pub(super) fn error(status: u16, retry_info: Option<&str>) -> String {
    error_object(status, retry_info).to_string()
}

fn error_object(status: u16, retry_info: Option<&str>) -> Value {
    let word = match status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 | 529 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "INTERNAL",
    };
    let mut error = json!({"code": status, "message": "told to fail", "status": word});
    if let Some(delay) = retry_info {
        let info =
            json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay});
        error["details"] = json!([info]);
    }
    json!({ "error": error })
}
