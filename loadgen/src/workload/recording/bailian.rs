//! Bailian's (Qwen's) traces: JSON lines with `chat_id`, `timestamp` in seconds, `input_length`,
//! `output_length` and `hash_ids`, each of which stands for 16 tokens and all before them
//! (github.com/alibaba-edu/qwen-bailian-usagetraces-anon).

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Number;
use serde_json::value::RawValue;

use super::format::Said;
use super::{Asked, Row, bounded, json_line, number_of, time};
use crate::workload::lengths::Lengths;

/// Tokens that a hash stands for.
const BLOCK: u32 = 16;

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "chat_id")]
    _chat: IgnoredAny,
    #[serde(borrow)]
    timestamp: &'a RawValue,
    input_length: u64,
    output_length: u64,
    #[serde(default)]
    hash_ids: Vec<Number>,
}

pub(super) fn begins(line: &[u8]) -> bool {
    serde_json::from_slice::<Line<'_>>(line).is_ok()
}

pub(super) fn read(line: &[u8]) -> Result<Said, String> {
    let Some(Line { timestamp, input_length, output_length, hash_ids, .. }) = json_line(line)?
    else {
        return Ok(Said::Nothing);
    };
    let moment = time::seconds(timestamp.get())
        .ok_or_else(|| format!("timestamp: `{timestamp}` is no number of seconds"))?;
    let lengths = Lengths {
        input: bounded("input_length", input_length)?,
        output: bounded("output_length", output_length)?,
        blocks: hash_ids.iter().map(number_of).collect(),
        block: BLOCK,
    };
    Ok(Said::Call(Box::new(Row { at: Some(moment), asked: Asked::Lengths(lengths) })))
}
