//! Azure's LLM inference traces: `TIMESTAMP,ContextTokens,GeneratedTokens`.
//!
//! Those of 2023 have seven digits of a second and no zone, those of 2024 any number and a zone, those
//! of 2025 a column more (github.com/Azure/AzurePublicDataset).

use super::columns::{Columns, tokens};
use super::format::{Reading, Said};
use super::{Asked, Row, time};
use crate::workload::lengths::Lengths;

const COLUMNS: [&str; 3] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];

pub(super) fn begins(line: &[u8]) -> bool {
    Columns::find(line, COLUMNS).is_ok()
}

pub(super) fn reading(header: &[u8]) -> Result<Reading, String> {
    let columns = Columns::find(header, COLUMNS)?;
    Ok(Box::new(move |line| read(&columns, line)))
}

fn read(columns: &Columns<3>, line: &[u8]) -> Result<Said, String> {
    if line.trim_ascii().is_empty() {
        return Ok(Said::Nothing);
    }
    let [at, input, output] = columns.of(line)?;
    let moment = time::moment(&at).ok_or_else(|| format!("`{at}` is no moment"))?;
    let lengths = Lengths {
        input: tokens(COLUMNS[1], &input)?,
        output: tokens(COLUMNS[2], &output)?,
        ..Lengths::default()
    };
    Ok(Said::Call(Box::new(Row { at: Some(moment), asked: Asked::Lengths(lengths) })))
}
