//! `tidegate check`: reads a configuration and says what is wrong with it.

use std::path::PathBuf;

use tidegate_proxy::Config;

use crate::Exit;

/// Read a configuration and say what is wrong with it, with file, line and key.
///
/// Nothing is connected to. Exit code 0 if it is good, 2 if not.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Configuration file (YAML)
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(crate) fn run(args: Args) -> anyhow::Result<Exit> {
    let config = Config::read(&args.file)?;
    println!(
        "{}: good; {} upstreams, {} routes",
        args.file.display(),
        config.upstreams.len(),
        config.routes.len()
    );
    Ok(Exit::Good)
}
