//! Chat completions.

use serde_json::{Value, json};

use super::{Stream, Trouble, event, text, token};

pub(super) fn stream(tokens: usize) -> Stream {
    let usage = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-4o", "choices": [],
        "usage": usage(tokens),
    });
    Stream {
        content_type: "text/event-stream",
        lead: vec![chunk(json!({"role": "assistant", "content": ""}), Value::Null)],
        tokens: (1..=tokens)
            .map(|number| chunk(json!({"content": token(number)}), Value::Null))
            .collect(),
        close: vec![chunk(json!({}), "stop".into()), event(None, &usage)],
        end_mark: Some(b"data: [DONE]\n\n".to_vec()),
    }
}

fn chunk(delta: Value, finish_reason: Value) -> Vec<u8> {
    let choice = json!({"index": 0, "delta": delta, "finish_reason": finish_reason});
    let chunk = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-4o", "choices": [choice],
    });
    event(None, &chunk)
}

fn usage(tokens: usize) -> Value {
    json!({"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens})
}

pub(super) fn whole(tokens: usize) -> String {
    let message = json!({"role": "assistant", "content": text(tokens)});
    let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o", "choices": [choice],
        "usage": usage(tokens),
    })
    .to_string()
}

pub(super) fn error_event(trouble: Trouble) -> Vec<u8> {
    event(None, &error_object(trouble))
}

pub(super) fn error_object(trouble: Trouble) -> Value {
    let (kind, code) = match trouble {
        Trouble::Overloaded => ("overloaded_error", "overloaded"),
        Trouble::RateLimited => ("rate_limit_error", "rate_limit_exceeded"),
        Trouble::Internal => ("server_error", "internal_error"),
    };
    let error = json!({"message": "told to fail", "type": kind, "param": null, "code": code});
    json!({ "error": error })
}

pub(super) fn error(status: u16) -> String {
    let kind = match status {
        429 => "rate_limit_error",
        ..500 => "invalid_request_error",
        _ => "server_error",
    };
    json!({"error": {"message": "told to fail", "type": kind, "param": null, "code": null}})
        .to_string()
}
