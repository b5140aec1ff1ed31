//! The command line: each command is a few lines that call a library.

use std::io::IsTerminal;
#[cfg(not(feature = "loadgen"))]
use std::io::stderr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
#[cfg(feature = "loadgen")]
// Above the view of a load test, where there is one.
use tidegate_loadgen::stderr;
use tracing_subscriber::prelude::*;

mod admin;
mod bypass;
mod check;
mod completions;
#[cfg(feature = "loadgen")]
mod demo;
mod doctor;
mod env;
mod health;
#[cfg(feature = "loadgen")]
mod identities;
#[cfg(feature = "loadgen")]
mod load;
mod man;
#[cfg(feature = "loadgen")]
mod outputs;
mod proxy;
#[cfg(feature = "loadgen")]
mod report;
mod rules;
#[cfg(feature = "loadgen")]
mod search;
#[cfg(feature = "loadgen")]
mod sim;
mod sleep;
mod units;
mod usage;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The observability and load-testing sidecar for model APIs.
///
/// `tidegate demo` shows all of it on one machine. `tidegate proxy --upstream URL` stands before an
/// application; `tidegate sim` stands in for a model server, and `tidegate load` for the users.
/// Exit codes: 0 good; 1 what was checked is not so; 2 usage or configuration; 3 inconclusive; 4 invalid
/// run.
/// TIDEGATE_LOG=debug says more on standard error.
#[derive(Parser)]
#[command(name = "tidegate", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Proxy(proxy::Args),
    Check(check::Args),
    Doctor(doctor::Args),
    Env(env::Args),
    Health(health::Args),
    Bypass(bypass::Args),
    Rules(rules::Args),
    Usage(usage::Args),
    #[cfg(feature = "loadgen")]
    Sim(sim::Args),
    #[cfg(feature = "loadgen")]
    Load(Box<load::Args>),
    #[cfg(feature = "loadgen")]
    Report(report::Args),
    #[cfg(feature = "loadgen")]
    Demo(demo::Args),
    Completions(completions::Args),
    Man(man::Args),
    Sleep(sleep::Args),
}

/// What a command tells the script that called it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Good = 0,
    /// What was checked is not so.
    NotSo = 1,
    /// Usage or configuration.
    Usage = 2,
    /// It cannot be told.
    #[cfg(feature = "loadgen")]
    Inconclusive = 3,
    /// The run itself was at fault.
    #[cfg(feature = "loadgen")]
    Invalid = 4,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One provider for all TLS in the process; dependencies bring a second one, and rustls will not guess.
    let _ = rustls::crypto::ring::default_provider().install_default();
    log_to_standard_error();
    raise_descriptor_limit();
    let result = match cli.command {
        Command::Proxy(args) => proxy::run(args),
        Command::Check(args) => check::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Env(args) => env::run(args),
        Command::Health(args) => health::run(args),
        Command::Bypass(args) => bypass::run(args),
        Command::Rules(args) => rules::run(args),
        Command::Usage(args) => usage::run(args),
        #[cfg(feature = "loadgen")]
        Command::Sim(args) => sim::run(args),
        #[cfg(feature = "loadgen")]
        Command::Load(args) => load::run(*args),
        #[cfg(feature = "loadgen")]
        Command::Report(args) => report::run(args),
        #[cfg(feature = "loadgen")]
        Command::Demo(args) => demo::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
        Command::Sleep(args) => sleep::run(args),
    };
    match result {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(error) => {
            eprintln!("tidegate: {error:#}");
            ExitCode::from(Exit::Usage as u8)
        }
    }
}

/// A soft limit of 1,024 descriptors is 500 calls at a time through a sidecar, and 1,000 users.
fn raise_descriptor_limit() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Libraries below us tell at debug what they send and get, keys and prompts included. Those that
/// fetch credentials do so at any level: a warning of theirs holds the answer that it is about.
fn is_told(metadata: &tracing::Metadata<'_>) -> bool {
    const FETCHING: [&str; 3] = ["aws_", "google_cloud", "reqwest"];
    let target = metadata.target();
    let is_harmless = || !FETCHING.iter().any(|library| target.starts_with(library));
    target.starts_with("tidegate") || *metadata.level() <= tracing::Level::INFO && is_harmless()
}

/// Standard output is for records and results.
fn log_to_standard_error() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TIDEGATE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let has_colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(stderr)
        .with_ansi(has_colours && std::io::stderr().is_terminal())
        .with_filter(tracing_subscriber::filter::filter_fn(is_told));
    tracing_subscriber::registry().with(lines).with(filter).init();
}
