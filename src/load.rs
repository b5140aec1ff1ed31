//! `tidegate load`.

use crate::Exit;

/// Not there yet.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: Args) -> anyhow::Result<Exit> {
    Ok(Exit::Usage)
}
