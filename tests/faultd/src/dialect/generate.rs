//! `/generate`: each line repeats all that was said.

use serde_json::json;

use super::{Stream, Trouble, openai, text};

pub(super) fn stream(tokens: usize) -> Stream {
    let line = |number| format!("{}\n", json!({"text": [text(number)]})).into_bytes();
    Stream {
        content_type: "application/x-ndjson",
        lead: Vec::new(),
        tokens: (1..=tokens).map(line).collect(),
        close: Vec::new(),
        end_mark: None,
    }
}

pub(super) fn whole(tokens: usize) -> String {
    json!({"text": [text(tokens)]}).to_string()
}

pub(super) fn error_line(trouble: Trouble) -> Vec<u8> {
    format!("{}\n", openai::error_object(trouble)).into_bytes()
}
