//! `tidegate man`: manual pages, of the same words as `--help`.

use std::io::Write;

use anyhow::Context;
use clap::CommandFactory;

use crate::{Cli, Exit};

/// Print a manual page: of tidegate, or of one of its commands.
///
/// `tidegate man | man -l -` reads it at once; `tidegate man proxy > tidegate-proxy.1` keeps one.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The command; tidegate as a whole where absent
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<Exit> {
    // Built, each command knows its whole name: tidegate-proxy.
    let mut page = Cli::command();
    page.build();
    if let Some(name) = &args.command {
        let command = page.find_subcommand(name).cloned();
        page = command
            .with_context(|| format!("there is no command `{name}`; `tidegate help` lists them"))?;
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    std::io::stdout().write_all(&text)?;
    Ok(Exit::Good)
}
