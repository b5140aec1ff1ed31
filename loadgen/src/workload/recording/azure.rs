//! Azure's LLM inference traces: `TIMESTAMP,ContextTokens,GeneratedTokens`.
//!
//! Those of 2023 have seven digits of a second and no zone, those of 2024 any number and a zone, those
//! of 2025 a column more (github.com/Azure/AzurePublicDataset).

use super::columns::Trace;
use super::time;

pub(super) static TRACE: Trace = Trace {
    columns: ["TIMESTAMP", "ContextTokens", "GeneratedTokens"],
    moment: time::moment,
    moment_is: "moment",
};
