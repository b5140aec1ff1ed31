//! Where a report goes, and what it comes to for the script that asked for it.

use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tidegate_loadgen::report::{Decision, Report, SearchReport, Unreadable};

use crate::Exit;

/// The flags by which a report is written.
#[derive(clap::Args)]
#[command(next_help_heading = "What becomes of the figures")]
pub(crate) struct Outputs {
    /// Also write the report as JSON; `-` writes it to standard output, and the table to standard
    /// error.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_LOAD_JSON")]
    json: Option<PathBuf>,
    /// Compare with this report of the same load (`--json` wrote it), or with several of them: exit
    /// code 1 where the run is surely worse, 3 where that cannot be told.
    #[arg(long, value_name = "REPORT", env = "TIDEGATE_LOAD_BASELINE", value_delimiter = ',')]
    baseline: Vec<PathBuf>,
    /// Also write it as an HTML page with charts: one file that needs nothing else.
    #[arg(long, value_name = "FILE.html", env = "TIDEGATE_LOAD_REPORT")]
    report: Option<PathBuf>,
    /// Also write the verdict as JUnit's XML, which every CI shows: a case for each objective.
    #[arg(long, value_name = "FILE.xml", env = "TIDEGATE_LOAD_JUNIT")]
    junit: Option<PathBuf>,
    /// Also write it as Markdown, for the note of a merge request or the summary of a job.
    #[arg(long, value_name = "FILE.md", env = "TIDEGATE_LOAD_MARKDOWN")]
    markdown: Option<PathBuf>,
    /// Also write the distributions as an interval log of hdrhistogram, in microseconds.
    #[arg(long, value_name = "FILE.hlog", env = "TIDEGATE_LOAD_HLOG")]
    hlog: Option<PathBuf>,
    /// Also write the figures as `vllm bench serve --save-result` does, from the send as there.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_LOAD_VLLM_JSON")]
    vllm_json: Option<PathBuf>,
    /// Also write the figures as k6's `--summary-export` does: GitLab makes a widget of it.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_LOAD_K6_SUMMARY")]
    k6_summary: Option<PathBuf>,
}

/// A flag's file, and how the report is written there.
type Form<'a, R> = (&'a Option<PathBuf>, fn(&R) -> String);

impl Outputs {
    /// The reports to compare with: read before a run, so that none is made for nothing.
    pub(crate) fn baseline(&self) -> Result<Vec<Report>, Unreadable> {
        self.baseline.iter().map(|path| Report::read(path)).collect()
    }

    /// Where a run may be saved while it goes on.
    pub(crate) fn saved(&self) -> Option<&Path> {
        self.json.as_deref().filter(|path| *path != Path::new("-"))
    }

    /// The report of the run that is to go on; none where none is wanted, or none was begun.
    pub(crate) fn resumed(&self, is_wanted: bool) -> anyhow::Result<Option<Report>> {
        if !is_wanted {
            return Ok(None);
        }
        let path =
            self.saved().context("--resume: what is written to standard output is not read")?;
        if !path.try_exists().with_context(|| format!("cannot read {}", path.display()))? {
            return Ok(None);
        }
        Ok(Some(Report::read(path)?))
    }

    /// Writes a report to where it was asked for, and says what it comes to.
    pub(crate) fn publish(
        &self,
        results: &mut impl Write,
        report: &Report,
    ) -> anyhow::Result<Exit> {
        self.put(results, report, (&report.table(), Report::json), &self.forms())?;
        Ok(exit(report.decision()))
    }

    /// Writes the report of a search to where it was asked for, and says what it comes to.
    pub(crate) fn publish_search(
        &self,
        results: &mut impl Write,
        report: &SearchReport,
    ) -> anyhow::Result<Exit> {
        let forms: [Form<'_, SearchReport>; 3] = [
            (&self.report, SearchReport::html),
            (&self.junit, SearchReport::junit),
            (&self.markdown, SearchReport::markdown),
        ];
        self.put(results, report, (&report.table(), SearchReport::json), &forms)?;
        Ok(exit(report.decision()))
    }

    /// Puts a report where people and programs look for it: its table, its JSON, and its other forms.
    fn put<R>(
        &self,
        results: &mut impl Write,
        report: &R,
        (table, json): (&impl Display, fn(&R) -> String),
        forms: &[Form<'_, R>],
    ) -> anyhow::Result<()> {
        match self.json.as_deref() {
            Some(path) if path == Path::new("-") => {
                eprint!("{table}");
                writeln!(results, "{}", json(report))?;
            }
            Some(path) => {
                write!(results, "{table}")?;
                write_file(path, &json(report))?;
            }
            None => write!(results, "{table}")?,
        }
        for (path, form) in forms {
            if let Some(path) = path {
                write_file(path, &form(report))?;
            }
        }
        Ok(())
    }

    /// Refuses what a search has no form for.
    pub(crate) fn check_search(&self) -> anyhow::Result<()> {
        let others = [
            ("--baseline", !self.baseline.is_empty()),
            ("--hlog", self.hlog.is_some()),
            ("--vllm-json", self.vllm_json.is_some()),
            ("--k6-summary", self.k6_summary.is_some()),
        ];
        for (flag, is_given) in others {
            ensure!(!is_given, "{flag} is of a single run, and --search makes many");
        }
        Ok(())
    }

    fn forms(&self) -> [Form<'_, Report>; 6] {
        [
            (&self.report, Report::html),
            (&self.junit, Report::junit),
            (&self.markdown, Report::markdown),
            (&self.hlog, Report::hlog),
            (&self.vllm_json, Report::vllm_json),
            (&self.k6_summary, Report::k6_summary),
        ]
    }
}

fn exit(decision: Decision) -> Exit {
    match decision {
        Decision::Pass => Exit::Good,
        Decision::Fail => Exit::NotSo,
        Decision::Inconclusive => Exit::Inconclusive,
        Decision::Invalid => Exit::Invalid,
    }
}

fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
