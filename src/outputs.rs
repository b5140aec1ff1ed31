//! Where a report goes, and what it comes to for the script that asked for it.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tidegate_loadgen::report::{Decision, Report};

use crate::Exit;

/// The flags by which a report is written.
#[derive(clap::Args)]
pub(crate) struct Outputs {
    /// Also write the report as JSON; `-` writes it to standard output, and the table to standard
    /// error.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_LOAD_JSON")]
    json: Option<PathBuf>,
}

impl Outputs {
    /// Writes a report to where it was asked for, and says what it comes to.
    pub(crate) fn publish(
        &self,
        results: &mut impl Write,
        report: &Report,
    ) -> anyhow::Result<Exit> {
        match self.json.as_deref() {
            Some(path) if path == Path::new("-") => {
                eprint!("{}", report.table());
                writeln!(results, "{}", report.json())?;
            }
            Some(path) => {
                write!(results, "{}", report.table())?;
                std::fs::write(path, report.json())
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
            None => write!(results, "{}", report.table())?,
        }
        Ok(match report.decision() {
            Decision::Pass => Exit::Good,
            Decision::Fail => Exit::NotSo,
            Decision::Inconclusive => Exit::Inconclusive,
            Decision::Invalid => Exit::Invalid,
        })
    }
}
