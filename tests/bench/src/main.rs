//! Side by side with nginx and a direct connection: CPU, memory and added delay of the sidecar.
//!
//! The bench is both ends of every call, knows every byte, and compares them all. Between the ends
//! stands one proxy at a time, a process of its own on a core of its own. Machines turn slow and
//! fast within minutes, so the targets alternate, and what counts is the ratio within a round.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};

use crate::report::{Round, Row};
use crate::scenario::{SCENARIOS, Scenario};
use crate::target::{Kind, Setup};
use tidegate_bench::machine::{self, Cores};
use tidegate_bench::mock;

mod client;
mod counts;
mod report;
mod scenario;
mod sink;
mod target;
mod truth;

/// Measures what the sidecar costs, beside nginx and a direct connection.
///
/// Each scenario runs its targets in turn, round after round. A figure is the median over the
/// rounds with the lowest and the highest; `tidegate / nginx` compares the two within each round.
/// Goals stand at the right. The exit code is 1 where a goal is missed and --strict is given.
///
/// Trust the ratios to about 8 %, a single figure in µs to about 20 %, and the counts of --counts
/// to about 1 %. Keep the machine quiet: both cores are needed.
#[derive(Parser)]
#[command(name = "tidegate-bench", after_help = scenarios_help())]
struct Args {
    /// Shorter slices and one round: whether it all works, not how fast it is.
    #[arg(long)]
    quick: bool,

    /// Rounds of each scenario.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,

    /// Only these scenarios.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,

    /// What to measure; haproxy is another that can be named.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "direct,nginx,tidegate")]
    targets: Vec<Kind>,

    /// Count instructions and system calls instead, under valgrind and strace.
    #[arg(long)]
    counts: bool,

    /// Have tidegate send a span for each call, too.
    #[arg(long)]
    spans: bool,

    /// Also write everything to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Exit with 1 where a goal is missed.
    #[arg(long)]
    strict: bool,

    /// The program to measure, instead of the one that was built beside this one.
    #[arg(long, value_name = "FILE")]
    tidegate: Option<PathBuf>,
}

fn scenarios_help() -> String {
    let lines =
        SCENARIOS.iter().map(|scenario| format!("  {:<12} {}", scenario.name, scenario.about));
    format!("Scenarios:\n{}", lines.collect::<Vec<_>>().join("\n"))
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("tidegate-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// True unless a goal was missed where that matters.
fn run(args: &Args) -> Result<bool> {
    let chosen = chosen(&args.only)?;
    let scratch = Scratch::new()?;
    let setup = Setup {
        cores: Cores::take()?,
        upstream: mock::start()?,
        sink: sink::start()?,
        tidegate: args.tidegate.clone().map_or_else(built_beside, Ok)?,
        spans: args.spans,
        folder: scratch.0.clone(),
    };
    let mut written = introduce(args, &setup)?;
    let mut met = true;
    if args.counts {
        written["counts"] = counts::run(&args.targets, &setup)?;
    } else {
        let mut scenarios = Vec::new();
        for scenario in chosen {
            let rows = measure(scenario, args, &setup)?;
            report::print(scenario, &args.targets, &rows);
            met &= rows.iter().all(|row| row.met() != Some(false));
            scenarios.push(report::json(scenario, &rows));
        }
        written["scenarios"] = Value::Array(scenarios);
    }
    if let Some(file) = &args.json {
        fs::write(file, format!("{written:#}\n"))
            .with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(met || !args.strict)
}

fn chosen(only: &[String]) -> Result<Vec<&'static Scenario>> {
    for name in only {
        let known = SCENARIOS.iter().any(|scenario| scenario.name == name);
        ensure!(known, "no scenario {name}; --help lists them");
    }
    let wanted = |scenario: &&Scenario| only.is_empty() || only.iter().any(|n| n == scenario.name);
    Ok(SCENARIOS.iter().filter(wanted).collect())
}

fn built_beside() -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("tidegate"))
}

/// Says what the figures are from, and begins the JSON with the same.
fn introduce(args: &Args, setup: &Setup) -> Result<Value> {
    let machine = machine::describe();
    let load = machine::load_average();
    println!("{machine}; {}", setup.cores.describe());
    if load > 0.5 {
        println!("The machine is busy (load {load:.1}): figures will wobble, ratios less so.");
    }
    let mut versions = serde_json::Map::new();
    for &kind in &args.targets {
        if let Some(version) = kind.version(&setup.tidegate)? {
            println!("{kind}: {version}");
            versions.insert(kind.to_string(), version.into());
        }
    }
    Ok(json!({
        "machine": machine,
        "cores": setup.cores.describe(),
        "load_average": load,
        "versions": versions,
        "rounds": rounds(args),
        "quick": args.quick,
    }))
}

fn measure(scenario: &Scenario, args: &Args, setup: &Setup) -> Result<Vec<Row>> {
    let mut done: Vec<Round> = Vec::new();
    for round in 1..=rounds(args) {
        let sample = |&kind: &Kind| {
            let sample = scenario
                .measure(kind, setup, args.quick)
                .with_context(|| format!("{} through {kind}, round {round}", scenario.name))?;
            Ok((kind, sample))
        };
        done.push(args.targets.iter().map(sample).collect::<Result<_>>()?);
    }
    Ok(Row::all(scenario, &args.targets, &done))
}

fn rounds(args: &Args) -> usize {
    args.rounds.unwrap_or(if args.quick { 1 } else { 5 }).max(1)
}

/// A folder for configurations and logs, gone when the run is.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("tidegate-bench-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left in a temporary folder harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}
