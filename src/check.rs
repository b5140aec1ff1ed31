//! `tidegate check`: reads a configuration and says what is wrong with it.

use std::path::{Path, PathBuf};

use tidegate_proxy::Config;

use crate::Exit;

/// Read a configuration and say what is wrong with it, with file, line and key.
///
/// Nothing is connected to. What it says in vain, such as a route that takes no call, is told on
/// standard error and is no fault. Exit code 0 if it is good, 2 if not.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Configuration file (YAML)
    #[arg(value_name = "FILE", required_unless_present = "schema")]
    file: Option<PathBuf>,
    /// Print the JSON Schema of the configuration, for editors, and read nothing
    #[arg(long, conflicts_with = "file")]
    schema: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<Exit> {
    match args.file {
        Some(file) => check(&file)?,
        None => println!("{:#}", Config::schema()),
    }
    Ok(Exit::Good)
}

fn check(file: &Path) -> anyhow::Result<()> {
    let config = Config::read(file)?;
    for warning in config.warnings_of(file) {
        eprintln!("warning: {warning}");
    }
    let (upstreams, routes) = (config.upstreams.len(), config.routes.len());
    println!("{}: good; {upstreams} upstreams, {routes} routes", file.display());
    if routes == 0 {
        println!("without routes it needs `tidegate proxy --upstream URL`");
    }
    Ok(())
}
