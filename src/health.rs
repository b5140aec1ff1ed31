//! `tidegate health`: asks a running sidecar, for probes in an image without a shell.

use std::net::SocketAddr;
use std::time::Duration;

use crate::Exit;
use crate::{admin, units};

/// Ask a running sidecar whether it is ready; exit code 0 if so, 1 if not.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The sidecar's admin or health address
    #[arg(long, value_name = "ADDR", env = "TIDEGATE_ADMIN", default_value = "127.0.0.1:4101")]
    admin: SocketAddr,
    /// Ask whether it lives, not whether it is ready
    #[arg(long, env = "TIDEGATE_HEALTH_LIVE")]
    live: bool,
    /// How long it may take to answer
    #[arg(
        long,
        value_name = "DURATION",
        env = "TIDEGATE_HEALTH_TIMEOUT",
        default_value = "2s",
        value_parser = units::duration
    )]
    timeout: Duration,
}

pub(crate) fn run(args: Args) -> anyhow::Result<Exit> {
    let line = if args.live { "GET /livez" } else { "GET /readyz" };
    Ok(admin::show(args.admin, args.timeout, line, "", |_| {}))
}
