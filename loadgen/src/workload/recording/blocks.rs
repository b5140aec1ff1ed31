//! Traces of JSON lines that tell prompts by hashes: each stands for so many tokens and all before
//! them, so equal hashes are a shared beginning.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Number;
use serde_json::value::RawValue;

use super::format::Said;
use super::{Asked, Row, bounded, json_line};
use crate::workload::lengths::Lengths;

/// Such a trace.
pub(super) struct Trace {
    /// Tokens that a hash stands for.
    pub(super) block: u32,
    /// Reads when a call came, in nanoseconds.
    pub(super) moment: fn(&str) -> Option<i64>,
    /// What that is, for whoever wrote something else.
    pub(super) moment_is: &'static str,
    /// Whether each line says to which chat it belongs.
    pub(super) has_chat: bool,
}

#[derive(Deserialize)]
struct Line<'a> {
    chat_id: Option<IgnoredAny>,
    #[serde(borrow)]
    timestamp: &'a RawValue,
    input_length: u64,
    output_length: u64,
    #[serde(default)]
    hash_ids: Vec<Number>,
}

// === impl Trace ===

impl Trace {
    pub(super) fn begins(&self, line: &[u8]) -> bool {
        let read = serde_json::from_slice::<Line<'_>>(line);
        read.is_ok_and(|line| line.chat_id.is_some() || !self.has_chat)
    }

    pub(super) fn read(&self, line: &[u8]) -> Result<Said, String> {
        let Some(line) = json_line::<Line<'_>>(line)? else { return Ok(Said::Nothing) };
        let at = line.timestamp.get();
        let moment = (self.moment)(at)
            .ok_or_else(|| format!("timestamp: `{at}` is no {}", self.moment_is))?;
        let lengths = Lengths {
            input: bounded("input_length", line.input_length)?,
            output: bounded("output_length", line.output_length)?,
            blocks: line.hash_ids.iter().map(number_of).collect(),
            block: self.block,
        };
        Ok(Said::Call(Box::new(Row { at: Some(moment), asked: Asked::Lengths(lengths) })))
    }
}

/// The number of a block: only whether two are equal matters.
fn number_of(number: &Number) -> u64 {
    let signed = || number.as_i64().map(|number| number as u64);
    number.as_u64().or_else(signed).unwrap_or_else(|| number.as_f64().unwrap_or(0.0).to_bits())
}
