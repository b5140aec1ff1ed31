//! `tidegate usage`: what calls came to over days and months, out of a history file.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use jiff::Timestamp;
use tidegate_proxy::Config;
use tidegate_proxy::usage::{By, Period, Usage, point};

use crate::Exit;

/// Show what calls came to, by model, caller, day and more.
///
/// It reads the file that a sidecar keeps with `history.path` (or --history), while that goes on; with
/// --config, the file that this configuration names. `tidegate usage --history history.db --by
/// model,caller --since 30d` tells calls, errors, tokens, cost and times. Times are UTC, and costs are
/// by the table of prices at the time of each call. For other questions the file takes SQL:
/// docs/history.md.
///
/// Exit codes: 0 it was shown, also where no call fell into the time; 2 usage, or no file that can be
/// read.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What calls are told apart by: any of model, provider, region, route, upstream, caller, month, day, hour, minute
    #[arg(
        long,
        value_name = "WORDS",
        env = "TIDEGATE_USAGE_BY",
        default_value = "model",
        value_delimiter = ','
    )]
    by: Vec<By>,
    /// From when on: how long ago, such as 30d or 12h; a day or time (UTC), such as 2026-11-01; today; month
    #[arg(long, value_name = "TIME", env = "TIDEGATE_USAGE_SINCE", default_value = "24h")]
    since: String,
    /// Until when, written likewise
    #[arg(long, value_name = "TIME", env = "TIDEGATE_USAGE_UNTIL", default_value = "now")]
    until: String,
    /// The file that a sidecar keeps [default: the one that --config names]
    #[arg(long, value_name = "FILE", env = "TIDEGATE_HISTORY")]
    history: Option<PathBuf>,
    /// The sidecar's configuration, which names the file
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    config: Option<PathBuf>,
    /// How it is written: a table for people, CSV and JSON with every figure for programs
    #[arg(long, value_enum, env = "TIDEGATE_USAGE_FORMAT", default_value = "table")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
}

pub(crate) fn run(args: Args) -> anyhow::Result<Exit> {
    let now = Timestamp::now();
    let since = point(&args.since, now).context("--since")?;
    let until = point(&args.until, now).context("--until")?;
    let period = Period::new(since, until).context("--since and --until")?;
    let usage = Usage::read(&file(&args)?, &args.by, period)?;
    if usage.is_empty() {
        eprintln!("tidegate: no call ended between {since} and {until}");
    }
    let text = match args.format {
        Format::Table => usage.to_string(),
        Format::Csv => usage.csv(),
        Format::Json => serde_json::to_string_pretty(&usage)? + "\n",
    };
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // `| head` has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Exit::Good),
        written => written.map(|()| Exit::Good).context("standard output"),
    }
}

fn file(args: &Args) -> anyhow::Result<PathBuf> {
    if let Some(file) = &args.history {
        return Ok(file.clone());
    }
    let Some(config) = &args.config else {
        anyhow::bail!(
            "there is no history to read: name the file with --history FILE, or with --config FILE the \
             configuration of a sidecar that keeps one (`history.path`)"
        );
    };
    named_by(config)
}

fn named_by(config: &Path) -> anyhow::Result<PathBuf> {
    // Its credentials are no business of who only reads.
    let path = Config::read_without_variables(config)?.history.path;
    path.with_context(|| {
        format!(
            "{}: this sidecar keeps no history; name a file under `history.path`, or give --history FILE",
            config.display()
        )
    })
}
