//! Messages.

use serde_json::{Value, json};

use super::{Stream, Trouble, text, token};

pub(super) fn stream(tokens: usize) -> Stream {
    let (lead, deltas, close, end) = objects(tokens);
    let events = |objects: Vec<Value>| objects.iter().map(event).collect();
    Stream {
        content_type: "text/event-stream",
        lead: events(lead),
        tokens: events(deltas),
        close: events(close),
        end_mark: Some(event(&end)),
    }
}

/// What is said before the first token, the tokens, what is said behind them, and the end mark.
pub(super) fn objects(tokens: usize) -> (Vec<Value>, Vec<Value>, Vec<Value>, Value) {
    let message = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4",
        "content": [], "stop_reason": null, "usage": {"input_tokens": 7, "output_tokens": 1},
    });
    let lead = vec![
        json!({"type": "message_start", "message": message}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "ping"}),
    ];
    let delta = |number| {
        let delta = json!({"type": "text_delta", "text": token(number)});
        json!({"type": "content_block_delta", "index": 0, "delta": delta})
    };
    let close = vec![
        json!({"type": "content_block_stop", "index": 0}),
        json!({
            "type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
            "usage": {"output_tokens": tokens},
        }),
    ];
    (lead, (1..=tokens).map(delta).collect(), close, json!({"type": "message_stop"}))
}

fn event(object: &Value) -> Vec<u8> {
    super::event(object["type"].as_str(), object)
}

pub(super) fn whole(tokens: usize) -> String {
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4",
        "content": [{"type": "text", "text": text(tokens)}], "stop_reason": "end_turn",
        "usage": {"input_tokens": 7, "output_tokens": tokens},
    })
    .to_string()
}

pub(super) fn error_event(trouble: Trouble) -> Vec<u8> {
    event(&error_object(match trouble {
        Trouble::Overloaded => "overloaded_error",
        Trouble::RateLimited => "rate_limit_error",
        Trouble::Internal => "api_error",
    }))
}

pub(super) fn error(status: u16) -> String {
    error_object(match status {
        429 => "rate_limit_error",
        529 => "overloaded_error",
        ..500 => "invalid_request_error",
        _ => "api_error",
    })
    .to_string()
}

fn error_object(kind: &str) -> Value {
    json!({"type": "error", "error": {"type": kind, "message": "told to fail"}})
}
