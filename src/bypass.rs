//! `tidegate bypass`: has all policies of a running sidecar look on only, or act again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use crate::Exit;
use crate::{admin, units};

/// Where the token stands, where no file does.
const TOKEN: &str = "TIDEGATE_ADMIN_TOKEN";

/// Have all policies of a running sidecar look on only, for when they are the suspect.
///
/// While it is on, breakers, limits, retries, fallbacks and ejections judge and count, and act on no
/// call. `tidegate bypass` alone shows how the switch stands. To switch takes the token that the
/// sidecar has as `admin_token` or TIDEGATE_ADMIN_TOKEN; it is never given as a flag, which
/// everybody on the machine could read.
///
/// Exit codes: 0 it is as asked; 1 the sidecar does not answer, or refuses; 2 usage, no token.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What it is to be; shown where absent
    #[arg(value_name = "on|off")]
    wanted: Option<Wanted>,
    /// The sidecar's admin address
    #[arg(long, value_name = "ADDR", env = "TIDEGATE_ADMIN", default_value = "127.0.0.1:4101")]
    admin: SocketAddr,
    /// A file that holds the token and nothing else [default: the token in TIDEGATE_ADMIN_TOKEN]
    #[arg(long, value_name = "FILE", env = "TIDEGATE_ADMIN_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// How long it may take to answer
    #[arg(
        long,
        value_name = "DURATION",
        env = "TIDEGATE_BYPASS_TIMEOUT",
        default_value = "2s",
        value_parser = units::duration
    )]
    timeout: Duration,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Wanted {
    On,
    Off,
}

pub(crate) fn run(args: Args) -> anyhow::Result<Exit> {
    let (line, fields) = match args.wanted {
        None => ("GET /bypass", String::new()),
        Some(Wanted::On) => ("POST /bypass?on=true", authority(&args)?),
        Some(Wanted::Off) => ("POST /bypass?on=false", authority(&args)?),
    };
    Ok(admin::show(args.admin, args.timeout, line, &fields, |answer| print!("{answer}")))
}

/// The fields of a request that switches something.
fn authority(args: &Args) -> anyhow::Result<String> {
    Ok(format!("Authorization: Bearer {}\r\nContent-Length: 0\r\n", token(args)?.expose()))
}

fn token(args: &Args) -> anyhow::Result<tidegate_credential::Secret> {
    let place = match &args.token_file {
        Some(file) => tidegate_credential::Place::File(file.clone()),
        None if std::env::var_os(TOKEN).is_some() => {
            tidegate_credential::Place::Env(TOKEN.to_owned())
        }
        None => anyhow::bail!("to switch takes a token: give --token-file FILE, or set {TOKEN}"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(place.read()).context("the token cannot be used")
}
