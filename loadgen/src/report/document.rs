//! The report as a file: written for programs, and read again to be shown, joined or compared with.

use std::path::{Path, PathBuf};

use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};
use tidegate_settings::Objectives;

use super::{DEFINITIONS, Ended, Generator, Report, Setup};
use crate::figures::Figures;

/// The version of what stands in the file.
const FORMAT: u32 = 1;

/// Why a file is no report that can be used.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The file could not be read.
    #[error("cannot read report {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what `tidegate load --json` writes.
    #[error("{}: this is no report of `tidegate load --json`: {reason}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What the reader says, with line and column.
        reason: String,
    },
}

#[derive(Serialize)]
struct Written<'a> {
    tool: &'static str,
    version: &'static str,
    format: u32,
    definitions: [&'static str; DEFINITIONS.len()],
    #[serde(flatten)]
    report: &'a Report,
}

/// What is read of it; the rest follows from that.
#[derive(Deserialize)]
struct Read {
    format: u32,
    run: Setup,
    ended: Ended,
    invalid: Option<String>,
    generator: Generator,
    slo: Option<Objectives>,
    figures: Figures,
}

impl Report {
    /// The report as a JSON document; times in seconds.
    pub fn json(&self) -> String {
        let document = Written {
            tool: "tidegate load",
            version: env!("CARGO_PKG_VERSION"),
            format: FORMAT,
            definitions: DEFINITIONS,
            report: self,
        };
        serde_json::to_string_pretty(&document).expect("a report has no key that is not text")
    }

    /// Reads such a document from a file.
    pub fn read(path: &Path) -> Result<Self, Unreadable> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Unreadable::File { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|reason| Unreadable::Malformed { path: path.to_owned(), reason })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let read: Read = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if read.format != FORMAT {
            return Err(format!("its format is {}, and {FORMAT} is expected", read.format));
        }
        if !read.figures.is_sound() {
            return Err("its timeline is not sound".to_owned());
        }
        let report = Self::new(read.run, read.ended, read.generator, read.slo, read.figures);
        Ok(Self { invalid: read.invalid, ..report })
    }
}

/// Thousands of numbers, of which nobody wants one on each line.
pub(super) fn on_one_line<S: Serializer>(
    figures: &Figures,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let text = serde_json::value::to_raw_value(figures).map_err(S::Error::custom)?;
    text.serialize(serializer)
}
