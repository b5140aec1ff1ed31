//! `tidegate completions`: what a shell needs to complete commands, flags and their values.

use std::io::Write;

use clap::CommandFactory;

use crate::{Cli, Exit};

/// Print what a shell needs to complete tidegate's commands and flags.
///
/// bash: `tidegate completions bash > ~/.local/share/bash-completion/completions/tidegate`
///
/// zsh: `tidegate completions zsh > "${fpath[1]}/_tidegate"`
///
/// fish: `tidegate completions fish > ~/.config/fish/completions/tidegate.fish`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: clap_complete::Shell,
}

pub(crate) fn run(args: Args) -> anyhow::Result<Exit> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tidegate", &mut text);
    std::io::stdout().write_all(&text)?;
    Ok(Exit::Good)
}
