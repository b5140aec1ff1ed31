//! `tidegate sleep`: waits, for a preStop in an image without a shell.

use std::time::Duration;

use crate::{Exit, units};

/// Wait as long as this, and do nothing else.
///
/// For `preStop: { exec: { command: [/tidegate, sleep, 15s] } }` in clusters that have no
/// `preStop: { sleep: ... }` themselves, where the image has nothing else in it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long: 15s
    #[arg(value_name = "DURATION", value_parser = units::duration)]
    time: Duration,
}

pub(crate) fn run(args: Args) -> anyhow::Result<Exit> {
    std::thread::sleep(args.time);
    Ok(Exit::Good)
}
