//! `tidegate load`.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use tidegate_loadgen::schedule::Schedule;
use tidegate_loadgen::workload::Mix;
use tidegate_loadgen::{Plan, Target};
use tidegate_settings::Objectives;

use crate::outputs::Outputs;
use crate::{Exit, units};

/// Put a model API, or a sidecar before one, under load.
///
/// By default 200 users each wait for an answer before they ask again (closed loop). With --rate
/// calls are due whether or not answers come (open loop), and a call that is sent late is timed from
/// when it was due. Ctrl-C ends the run early and reports; a second one ends it at once.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the calls go, such as http://127.0.0.1:4100.
    #[arg(
        long,
        value_name = "URL",
        env = "TIDEGATE_LOAD_TARGET",
        required_unless_present = "slo_schema"
    )]
    target: Option<String>,
    /// Concurrent users; with --rate, the most calls at once.
    #[arg(long, value_name = "N", default_value = "200", env = "TIDEGATE_LOAD_USERS")]
    users: NonZeroUsize,
    /// For how long calls are made.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::duration,
          env = "TIDEGATE_LOAD_DURATION")]
    duration: Duration,
    /// Open loop: so many calls a second, at random moments.
    #[arg(long, value_name = "CALLS", value_parser = rate, env = "TIDEGATE_LOAD_RATE")]
    rate: Option<f64>,
    /// What is asked, by weight: a YAML list of `{ call: openai/chat, model: gpt-4o, weight: 3,
    /// stream: true }`; by default something of every dialect.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_LOAD_MIX")]
    mix: Option<PathBuf>,
    /// What the run is judged by: a YAML file such as `objectives: [{ metric: time_to_first_token,
    /// quantile: 0.99, below: 3s, model: "gemini-*" }, { metric: error_ratio, below: 1% }]`. Exit
    /// code 0: all are met; 1: one is missed; 3: one cannot be told; 4: the run is invalid.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_LOAD_SLO")]
    slo: Option<PathBuf>,
    /// Print the JSON Schema of such files, for editors, and do nothing else.
    #[arg(long)]
    slo_schema: bool,
    #[command(flatten)]
    outputs: Outputs,
    /// Also write one record for each call, as the sidecar does: JSON lines.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_LOAD_RECORDS")]
    records: Option<PathBuf>,
    /// A table of prices in place of the built-in one (YAML), by which the report says what calls cost.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_LOAD_PRICES")]
    prices: Option<PathBuf>,
    /// Sign the calls, as a sidecar's upstream does: a YAML file with what stands there under
    /// `credential`, such as `{ aws: { region: us-east-1 } }` or `{ bearer: { env: OPENAI_API_KEY } }`.
    /// The files that it names are looked for beside it.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_LOAD_CREDENTIAL")]
    credential: Option<PathBuf>,
    /// What requests and chance are drawn from.
    #[arg(long, value_name = "N", default_value = "1", env = "TIDEGATE_LOAD_SEED")]
    seed: u64,
}

pub(crate) fn run(args: Args) -> anyhow::Result<Exit> {
    let Some(target) = args.target else {
        println!("{:#}", Objectives::schema());
        return Ok(Exit::Good);
    };
    // Not by clap, which would show what it cannot read.
    let target: Target = target.parse().context("--target")?;
    let mix = match &args.mix {
        Some(path) => Mix::read(path)?,
        None => Mix::default(),
    };
    let schedule = match args.rate {
        Some(rate) => Schedule::Poisson { rate },
        None => Schedule::Closed,
    };
    let credential = match &args.credential {
        Some(path) => Some(tidegate_loadgen::read_credential(path, &target)?),
        None => None,
    };
    let plan = Plan {
        target,
        users: args.users,
        duration: args.duration,
        schedule,
        mix,
        seed: args.seed,
        records: args.records,
        prices: tidegate_proxy::prices(args.prices.as_deref())?,
        credential,
        objectives: args.slo.as_deref().map(Objectives::read).transpose()?,
    };
    for objective in plan.objectives_in_vain() {
        eprintln!("warning: `{objective}` applies to no call of the mix, and cannot be met");
    }
    let mut results = results()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(tidegate_loadgen::run(plan))?;
    args.outputs.publish(&mut results, &report)
}

/// Standard output, kept for results alone: what Goose prints there goes to standard error.
fn results() -> anyhow::Result<File> {
    let results = std::io::stdout().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdout(std::io::stderr())?;
    Ok(results.into())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= 1e6 => Ok(rate),
        _ => Err(format!("`{text}` is no rate; write calls a second, such as 50 or 2.5")),
    }
}
