//! ShareGPT: conversations of people with a model, of which as many questions are asked again as the mix
//! says: the first alone where it says nothing.
//!
//! `{"id": ..., "conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}`; as
//! other load tests have it, what was answered then is no more than a limit to what is answered now.

use std::num::NonZeroU32;

use serde::Deserialize;

use super::format::Said;
use super::{Asked, Row, json_line};
use crate::workload::conversation::later_of;
use crate::workload::written::{Role, Turn};

/// Bytes of English that one token has, about.
const BYTES_OF_TOKEN: usize = 4;

#[derive(Deserialize)]
struct Element {
    conversations: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    from: String,
    value: String,
}

pub(super) fn begins(line: &[u8]) -> bool {
    let line = line.trim_ascii_start();
    line.starts_with(b"[") || serde_json::from_slice::<Element>(line).is_ok()
}

pub(super) fn read(text: &[u8]) -> Result<Said, String> {
    let Some(Element { conversations }) = json_line(text)? else { return Ok(Said::Nothing) };
    let parts: Vec<_> = conversations.into_iter().filter_map(Part::turn).collect();
    let question = parts.iter().position(|turn| turn.role == Role::User);
    let Some(question) = question else { return Ok(Said::LeftOut("no question in it")) };
    let Some(answer) = parts.get(question + 1).filter(|turn| turn.role == Role::Assistant) else {
        return Ok(Said::LeftOut("no answer in it"));
    };
    let output = NonZeroU32::new((answer.text.len() / BYTES_OF_TOKEN) as u32);
    let is_asked = |turn: &Turn| turn.role != Role::Assistant;
    let later = later_of(&parts[question + 2..]);
    let turns = parts.into_iter().take(question + 1).filter(is_asked).collect();
    let output = Some(output.unwrap_or(NonZeroU32::MIN));
    Ok(Said::Call(Box::new(Row { at: None, asked: Asked::Turns { turns, output, later } })))
}

// === impl Part ===

impl Part {
    /// What is empty was not said.
    fn turn(self) -> Option<Turn> {
        let role = match &*self.from {
            "human" | "user" => Role::User,
            "gpt" | "assistant" | "chatgpt" | "bing" | "bard" => Role::Assistant,
            "system" => Role::System,
            _ => return None,
        };
        (!self.value.trim().is_empty()).then(|| Turn::new(role, self.value))
    }
}
