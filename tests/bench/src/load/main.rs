//! What the load generator costs and how true its times are, beside Locust, wrk and a bare client.
//!
//! The generator runs alone on one core, what it calls on the other. Tools take turns, so that a machine
//! that turns slow is slow for all of them.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use serde_json::json;
use tidegate_bench::machine::{self, Cores};

use crate::tool::{Kind, Tools};

mod cost;
mod direct;
mod first_token;
mod lag;
mod stall;
mod tool;

/// Measures the load generator beside Locust, wrk and a bare client.
///
/// Every figure is the median over the rounds. CPU is that of the generator alone, between two moments
/// at which all its users are there; memory is the most that it held. Keep the machine quiet: both cores
/// are needed.
#[derive(Parser)]
#[command(name = "tidegate-bench-load", after_help = questions_help())]
struct Args {
    /// One short round of few users: whether it works, not how it does.
    #[arg(long)]
    quick: bool,

    /// Rounds of each question.
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,

    /// Only these questions.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,

    /// Generators to compare.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "tidegate,locust,wrk")]
    tools: Vec<Kind>,

    /// Users, from case to case.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "200,1000,5000")]
    users: Vec<usize>,

    /// The program to measure, instead of the one that was built beside this one.
    #[arg(long, value_name = "FILE")]
    tidegate: Option<PathBuf>,

    /// Also write everything to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A question, and who answers it.
struct Question {
    name: &'static str,
    about: &'static str,
    ask: fn(&Bench) -> Result<serde_json::Value>,
}

const QUESTIONS: &[Question] = &[
    Question {
        name: "cost",
        about: "CPU for each call and each chunk, and memory, by users",
        ask: cost::ask,
    },
    Question {
        name: "first-token",
        about: "first tokens against when the simulator sent them, beside a bare client's",
        ask: first_token::ask,
    },
    Question {
        name: "lag",
        about: "the highest rate at which 99 of 100 calls leave within a millisecond of when they were due",
        ask: lag::ask,
    },
    Question {
        name: "stall",
        about: "whether the 99th percentile tells of a target that stood still for two seconds",
        ask: stall::ask,
    },
];

/// What every question is asked with.
struct Bench {
    cores: Cores,
    tools: Tools,
    users: Vec<usize>,
    rounds: usize,
    quick: bool,
    folder: PathBuf,
}

fn questions_help() -> String {
    let lines = QUESTIONS.iter().map(|one| format!("  {:<12} {}", one.name, one.about));
    format!("Questions:\n{}", lines.collect::<Vec<_>>().join("\n"))
}

fn main() -> ExitCode {
    // A bare client is this program once more, so that it is a process of its own.
    if let Some(asked) = direct::asked() {
        return direct::main(&asked);
    }
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate-bench-load: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<()> {
    for name in &args.only {
        ensure!(QUESTIONS.iter().any(|one| one.name == name), "no question {name}; see --help");
    }
    let folder = std::env::temp_dir().join(format!("tidegate-bench-load-{}", std::process::id()));
    fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
    let asked = ask(args, &folder);
    fs::remove_dir_all(&folder)?;
    asked
}

fn ask(args: &Args, folder: &std::path::Path) -> Result<()> {
    let bench = Bench {
        cores: Cores::take()?,
        tools: Tools::find(&args.tools, args.tidegate.clone(), folder)?,
        users: if args.quick { vec![20] } else { args.users.clone() },
        rounds: if args.quick { 1 } else { args.rounds.max(1) },
        quick: args.quick,
        folder: folder.to_owned(),
    };
    println!("{}; what is called on core 0, the generator alone on core 1", machine::describe());
    let load = machine::load_average();
    if load > 0.5 {
        println!("The machine is busy (load {load:.1}): figures will wobble.");
    }
    for (kind, version) in bench.tools.versions() {
        println!("{kind}: {version}");
    }
    let mut written = json!({ "machine": machine::describe(), "load_average": load });
    let is_asked =
        |one: &&Question| args.only.is_empty() || args.only.iter().any(|n| n == one.name);
    for question in QUESTIONS.iter().filter(is_asked) {
        println!("\n{}: {}", question.name, question.about);
        let answer = (question.ask)(&bench).with_context(|| question.name.to_owned())?;
        written[question.name] = answer;
    }
    if let Some(file) = &args.json {
        fs::write(file, format!("{written:#}\n"))
            .with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

/// The one in the middle; of two the higher.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
