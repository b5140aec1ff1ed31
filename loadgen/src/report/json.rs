//! The report for programs.

use serde::Serialize;

use super::{DEFINITIONS, Report};

#[derive(Serialize)]
struct Document<'a> {
    tool: &'static str,
    version: &'static str,
    definitions: [&'static str; DEFINITIONS.len()],
    #[serde(flatten)]
    report: &'a Report,
}

impl Report {
    /// The report as a JSON document; times in seconds.
    pub fn json(&self) -> String {
        let document = Document {
            tool: "tidegate load",
            version: env!("CARGO_PKG_VERSION"),
            definitions: DEFINITIONS,
            report: self,
        };
        serde_json::to_string_pretty(&document).expect("a report has no key that is not text")
    }
}
