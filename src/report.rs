//! `tidegate report`: what can be done with reports once they are written.

use std::path::PathBuf;

use tidegate_loadgen::report::Report;
use tidegate_settings::Objectives;

use crate::Exit;
use crate::outputs::Outputs;

/// Show and join reports that `tidegate load --json` wrote.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    #[command(visible_alias = "render")]
    Merge(Merge),
}

/// Join shards of one load to one report, exactly; or write a single one in other forms.
///
/// Counts and distributions are added, nothing is averaged: it is the report of one run that had
/// made all calls. Each shard has the same mix, duration and objectives; they differ in their --shard, or
/// in their --seed. Exit codes are those of `tidegate load`.
#[derive(clap::Args)]
struct Merge {
    /// What `tidegate load --json` wrote.
    #[arg(value_name = "REPORT", required = true)]
    reports: Vec<PathBuf>,
    /// Judge by these objectives, and not by those that the shards were run with.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_LOAD_SLO")]
    slo: Option<PathBuf>,
    #[command(flatten)]
    outputs: Outputs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<Exit> {
    let What::Merge(merge) = args.what;
    let shards = merge.reports.iter().map(|path| Report::read(path));
    let mut report = Report::merge(shards.collect::<Result<_, _>>()?)?;
    if let Some(path) = &merge.slo {
        report.judge(&Objectives::read(path)?);
    }
    report.compare(&merge.outputs.baseline()?);
    merge.outputs.publish(&mut std::io::stdout(), &report)
}
