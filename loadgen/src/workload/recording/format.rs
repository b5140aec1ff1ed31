//! The formats of files of calls, each told by how such a file begins.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::cut::Layout;
use super::{Row, azure, bailian, burstgpt, capture, mooncake, prompts, sharegpt};

/// What wrote a file, and so how it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Calls that a sidecar captured.
    Capture,
    /// Azure's LLM inference traces of 2023 and 2024: CSV.
    Azure,
    /// Mooncake's traces: JSON lines.
    Mooncake,
    /// Bailian's (Qwen's) traces: JSON lines.
    Bailian,
    /// BurstGPT: CSV.
    BurstGpt,
    /// Conversations of ShareGPT: one JSON array, or JSON lines.
    ShareGpt,
    /// Prompts: one on each line, or JSON lines with `prompt` or `messages`.
    Prompts,
}

/// What a text of a file says.
#[derive(Debug)]
pub(super) enum Said {
    /// A call.
    Call(Box<Row>),
    /// A call that cannot be made again, and why: one of few fixed words.
    LeftOut(&'static str),
    /// Nothing: an empty line.
    Nothing,
    /// Nothing that reads, and why; at the end of a file, what a crash left there.
    Torn(String),
}

/// How the texts of one file read.
pub(super) type Reading = Box<dyn Fn(&[u8]) -> Result<Said, String> + Send + Sync>;

// === impl Format ===

impl Format {
    /// All of them. Where a file could be of several, the first is taken.
    pub const ALL: [Self; 7] = [
        Self::Capture,
        Self::Azure,
        Self::BurstGpt,
        Self::Bailian,
        Self::Mooncake,
        Self::ShareGpt,
        Self::Prompts,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Azure => "azure",
            Self::Mooncake => "mooncake",
            Self::Bailian => "bailian",
            Self::BurstGpt => "burstgpt",
            Self::ShareGpt => "sharegpt",
            Self::Prompts => "prompts",
        }
    }

    /// What a file that begins with this line is, if it is any.
    pub(super) fn told_by(line: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|format| match format {
            Self::Capture => capture::begins(line),
            Self::Azure => azure::TRACE.begins(line),
            Self::Mooncake => mooncake::TRACE.begins(line),
            Self::Bailian => bailian::TRACE.begins(line),
            Self::BurstGpt => burstgpt::TRACE.begins(line),
            Self::ShareGpt => sharegpt::begins(line),
            Self::Prompts => prompts::begins(line),
        })
    }

    /// How the calls of a file that begins with this line are parted.
    pub(super) fn layout(self, first: &[u8]) -> Layout {
        match self {
            Self::Capture => Layout::Captured,
            Self::ShareGpt if first.trim_ascii_start().starts_with(b"[") => Layout::Array,
            _ => Layout::Lines,
        }
    }

    /// How they read, or what is wrong with the line.
    pub(super) fn reading(self, first: &[u8]) -> Result<Reading, String> {
        match self {
            Self::Capture => Ok(Box::new(capture::read)),
            Self::Azure => azure::TRACE.reading(first),
            Self::Mooncake => Ok(Box::new(|line| mooncake::TRACE.read(line))),
            Self::Bailian => Ok(Box::new(|line| bailian::TRACE.read(line))),
            Self::BurstGpt => burstgpt::TRACE.reading(first),
            Self::ShareGpt => Ok(Box::new(sharegpt::read)),
            Self::Prompts => Ok(prompts::reading(first)),
        }
    }

    /// Whether the first line says what stands in the others.
    pub(super) fn has_header(self) -> bool {
        matches!(self, Self::Azure | Self::BurstGpt)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = Self::ALL.map(Self::as_str).join(", ");
        let found = Self::ALL.into_iter().find(|format| format.as_str() == text);
        found.ok_or_else(|| format!("`{text}` is none of {words}"))
    }
}
