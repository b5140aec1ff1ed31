//! Prompts as people keep them: one on each line, or JSON lines with `prompt` or with `messages`.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use serde::Deserialize;
use serde_json::Value;

use super::format::{Reading, Said};
use super::{Asked, Row, json_line};
use crate::workload::written::{Role, Turn};

#[derive(Deserialize)]
struct Line {
    #[serde(alias = "text", alias = "text_input")]
    prompt: Option<String>,
    messages: Option<Vec<Message>>,
    #[serde(alias = "output_tokens", alias = "output_length", alias = "max_completion_tokens")]
    max_tokens: Option<NonZeroU32>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: Value,
}

pub(super) fn begins(line: &[u8]) -> bool {
    match is_json(line) {
        true => serde_json::from_slice::<Line>(line)
            .is_ok_and(|line| line.prompt.is_some() || line.messages.is_some()),
        false => std::str::from_utf8(line).is_ok_and(|text| !text.contains('\0')),
    }
}

/// All lines read as the first one does.
pub(super) fn reading(first: &[u8]) -> Reading {
    match is_json(first) {
        true => Box::new(json),
        false => Box::new(plain),
    }
}

fn is_json(line: &[u8]) -> bool {
    line.trim_ascii_start().starts_with(b"{")
}

fn plain(line: &[u8]) -> Result<Said, String> {
    let text = std::str::from_utf8(line).map_err(|_| "this is not UTF-8".to_owned())?;
    if text.trim().is_empty() {
        return Ok(Said::Nothing);
    }
    let asked =
        Asked::Turns { turns: vec![Turn::user(text)], output: None, later: VecDeque::new() };
    Ok(Said::Call(Box::new(Row { at: None, asked })))
}

fn json(line: &[u8]) -> Result<Said, String> {
    let Some(Line { prompt, messages, max_tokens }) = json_line(line)? else {
        return Ok(Said::Nothing);
    };
    let turns = match (prompt, messages) {
        (Some(prompt), None) => vec![Turn::user(prompt)],
        (None, Some(messages)) => {
            messages.into_iter().map(Message::turn).collect::<Result<_, _>>()?
        }
        _ => return Err("it needs either `prompt` or `messages`".to_owned()),
    };
    match turns.last() {
        None => Err("`messages` is empty".to_owned()),
        Some(last) if last.role != Role::User => {
            Err("the last of `messages` is not of the role `user`".to_owned())
        }
        Some(_) => {
            let asked = Asked::Turns { turns, output: max_tokens, later: VecDeque::new() };
            Ok(Said::Call(Box::new(Row { at: None, asked })))
        }
    }
}

// === impl Message ===

impl Message {
    fn turn(self) -> Result<Turn, String> {
        let role = match &*self.role {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            other => return Err(format!("`{other}` is no role of a prompt")),
        };
        let text = text_of(&self.content);
        let text = text.ok_or("`content` is neither a text nor a list of texts")?;
        Ok(Turn::new(role, text))
    }
}

fn text_of(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts: Option<Vec<_>> =
                parts.iter().map(|part| part.get("text").and_then(Value::as_str)).collect();
            Some(texts?.join("\n"))
        }
        _ => None,
    }
}
