//! What became of an answer that was read on though its caller had left.

use serde::{Deserialize, Serialize};

use super::line::Line;

/// The rest of an answer, behind the moment when its caller left.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Drain {
    /// How it ended.
    #[serde(rename = "tidegate.drain.end", skip_serializing_if = "Option::is_none")]
    pub end: Option<DrainEnd>,
    /// From when the caller left to its end: a part of the call's duration.
    #[serde(rename = "tidegate.drain.duration_s", skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<f64>,
    /// Output tokens that nobody got, where the answer itself says how many those are.
    #[serde(rename = "tidegate.wasted.output_tokens", skip_serializing_if = "Option::is_none")]
    pub wasted_tokens: Option<u64>,
    /// The same where it states only the total: the share of its chunks with tokens that came after
    /// the caller had left.
    #[serde(
        rename = "tidegate.estimated.wasted_output_tokens",
        skip_serializing_if = "Option::is_none"
    )]
    pub estimated_wasted_tokens: Option<u64>,
}

/// How an answer ended that was read on though its caller had left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainEnd {
    /// It was read to its end.
    Whole,
    /// Its upstream failed, or broke off.
    Broken,
    /// It took too long.
    Time,
    /// It was too large.
    Bytes,
    /// It was not read on: too many others were.
    Full,
    /// Whoever else waited for it left too.
    Left,
    /// The sidecar ended.
    Shutdown,
}

impl Drain {
    pub(super) fn write(&self, line: &mut Line<'_>) {
        line.text("tidegate.drain.end", self.end.map(DrainEnd::as_str));
        line.seconds("tidegate.drain.duration_s", self.duration_s);
        line.plain("tidegate.wasted.output_tokens", self.wasted_tokens);
        line.plain("tidegate.estimated.wasted_output_tokens", self.estimated_wasted_tokens);
    }
}

impl DrainEnd {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Whole,
        Self::Broken,
        Self::Time,
        Self::Bytes,
        Self::Full,
        Self::Left,
        Self::Shutdown,
    ];

    /// The word that stands in records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Broken => "broken",
            Self::Time => "time",
            Self::Bytes => "bytes",
            Self::Full => "full",
            Self::Left => "left",
            Self::Shutdown => "shutdown",
        }
    }
}
