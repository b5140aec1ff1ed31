//! Converse and InvokeModel, the latter in the words of Claude.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Stream, Trouble, anthropic, text, token};
use crate::event_stream::{event, exception as exception_message};

const CONTENT_TYPE: &str = "application/vnd.amazon.eventstream";

pub(super) fn converse(tokens: usize) -> Stream {
    let delta = |number| {
        let payload = json!({"contentBlockIndex": 0, "delta": {"text": token(number)}, "p": "abc"});
        event("contentBlockDelta", &payload.to_string())
    };
    let metadata = json!({"usage": usage(tokens), "metrics": {"latencyMs": 100}});
    Stream {
        content_type: CONTENT_TYPE,
        lead: vec![event("messageStart", r#"{"role":"assistant"}"#)],
        tokens: (1..=tokens).map(delta).collect(),
        close: vec![
            event("contentBlockStop", r#"{"contentBlockIndex":0}"#),
            event("messageStop", r#"{"stopReason":"end_turn"}"#),
        ],
        end_mark: Some(event("metadata", &metadata.to_string())),
    }
}

pub(super) fn invoke(tokens: usize) -> Stream {
    let (lead, deltas, close, mut end) = anthropic::objects(tokens);
    end["amazon-bedrock-invocationMetrics"] = json!({
        "inputTokenCount": 7, "outputTokenCount": tokens,
        "invocationLatency": 100, "firstByteLatency": 50,
    });
    let chunks = |objects: Vec<Value>| objects.iter().map(chunk).collect();
    Stream {
        content_type: CONTENT_TYPE,
        lead: chunks(lead),
        tokens: chunks(deltas),
        close: chunks(close),
        end_mark: Some(chunk(&end)),
    }
}

fn chunk(object: &Value) -> Vec<u8> {
    let bytes = STANDARD.encode(object.to_string());
    event("chunk", &json!({"bytes": bytes, "p": "abc"}).to_string())
}

fn usage(tokens: usize) -> Value {
    json!({"inputTokens": 7, "outputTokens": tokens, "totalTokens": 7 + tokens})
}

pub(super) fn converse_whole(tokens: usize) -> String {
    let message = json!({"role": "assistant", "content": [{"text": text(tokens)}]});
    json!({
        "output": {"message": message}, "stopReason": "end_turn", "usage": usage(tokens),
        "metrics": {"latencyMs": 100},
    })
    .to_string()
}

pub(super) fn exception(trouble: Trouble) -> Vec<u8> {
    let name = match trouble {
        Trouble::Overloaded => "serviceUnavailableException",
        Trouble::RateLimited => "throttlingException",
        Trouble::Internal => "internalServerException",
    };
    exception_message(name, r#"{"message":"told to fail"}"#)
}

pub(super) fn error(status: u16) -> (String, &'static str) {
    let kind = match status {
        400 => "ValidationException",
        403 => "AccessDeniedException",
        404 => "ResourceNotFoundException",
        408 => "ModelTimeoutException",
        424 => "ModelErrorException",
        429 => "ThrottlingException",
        503 => "ServiceUnavailableException",
        _ => "InternalServerException",
    };
    (json!({"message": "told to fail"}).to_string(), kind)
}
