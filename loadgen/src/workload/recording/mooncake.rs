//! Mooncake's traces: `{"timestamp": ms, "input_length": n, "output_length": n, "hash_ids": [...]}`.
//!
//! Each hash stands for 512 tokens and all before them: equal hashes are a shared beginning
//! (github.com/kvcache-ai/Mooncake, FAST25-release).

use serde::Deserialize;
use serde_json::Number;
use serde_json::value::RawValue;

use super::format::Said;
use super::{Asked, Row, bounded, json_line, number_of, time};
use crate::workload::lengths::Lengths;

/// Tokens that a hash stands for.
const BLOCK: u32 = 512;

#[derive(Deserialize)]
struct Line<'a> {
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
    let Some(Line { timestamp, input_length, output_length, hash_ids }) = json_line(line)? else {
        return Ok(Said::Nothing);
    };
    let moment = time::milliseconds(timestamp.get())
        .ok_or_else(|| format!("timestamp: `{timestamp}` is no number of milliseconds"))?;
    let lengths = Lengths {
        input: bounded("input_length", input_length)?,
        output: bounded("output_length", output_length)?,
        blocks: hash_ids.iter().map(number_of).collect(),
        block: BLOCK,
    };
    Ok(Said::Call(Box::new(Row { at: Some(moment), asked: Asked::Lengths(lengths) })))
}
