//! `tidegate doctor`: examines each upstream hop by hop, and says what to do where one fails.

mod show;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use tidegate_proxy::Config;
use tidegate_proxy::doctor::clients::{self, Surroundings, Version};
use tidegate_proxy::doctor::{Doctor, Examination, Progress};

use crate::Exit;
use crate::{admin, units};

/// A hop that takes longer is shown while it does.
const SLOW: Duration = Duration::from_secs(1);
/// How often what is under way is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Goes back to the beginning of a terminal's line, and wipes it.
const WIPE: &str = "\r\x1b[2K";

/// Examine each upstream hop by hop, and say what to do where one fails.
///
/// For every upstream: its name (DNS), a connection, TLS, the credential source by source, and a
/// call that costs nothing: a list of models, a count of tokens, or a health check. Run it where the
/// sidecar runs (kubectl exec), for names, networks and credentials differ elsewhere.
///
/// Keys and tokens are never shown: of a key its length, of an AWS access key id its two ends.
/// An upstream without a credential of its own is called without any; 401 is then as it should be.
///
/// With --clients, which way each SDK on this machine would take is examined, too, by its variables: run
/// it where the application runs, with the configuration of its sidecar. And what has gone past that, as
/// its admin address tells.
/// Exit code 0 if nothing failed, 1 if something did, 2 if the configuration cannot be read.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Configuration file (YAML) whose upstreams are examined
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Examine this URL, as `tidegate proxy --upstream URL` would call it, and no other
    #[arg(long, value_name = "URL", env = "TIDEGATE_UPSTREAM")]
    upstream: Option<String>,
    /// Examine the SDKs on this machine: in Python's environments and folders of node_modules
    #[arg(long, env = "TIDEGATE_DOCTOR_CLIENTS")]
    clients: bool,
    /// Look for SDKs in this folder, too; may be given more than once
    #[arg(long, value_name = "FOLDER", requires = "clients")]
    look: Vec<PathBuf>,
    /// The sidecar's admin address, which tells what has gone past it
    #[arg(long, value_name = "ADDR", env = "TIDEGATE_ADMIN")]
    admin: Option<SocketAddr>,
    /// How long each hop may take
    #[arg(
        long,
        value_name = "DURATION",
        env = "TIDEGATE_DOCTOR_TIMEOUT",
        default_value = "10s",
        value_parser = units::duration
    )]
    timeout: Duration,
    /// Write one JSON document: `ok`, `environment`, and `upstreams` with their `hops`; `clients` and `past`
    #[arg(long, env = "TIDEGATE_DOCTOR_JSON")]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<Exit> {
    let config = configuration(&args)?;
    if args.timeout.is_zero() {
        anyhow::bail!("--timeout: nothing is found in no time; give for example 10s");
    }
    let mut all = of_clients(&args, &config);
    if !args.json {
        all.iter().for_each(|examination| write(&show::block(examination)));
    }
    if !config.upstreams.is_empty() {
        let doctor = Doctor::new(config, args.timeout);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        all.extend(runtime.block_on(examine(&doctor, args.json)));
        // A name server that never answers holds its thread, and nobody waits for it.
        runtime.shutdown_background();
    }
    let text = if args.json { show::document(&all)? } else { show::summary(&all) };
    write(&text);
    match all.iter().all(|examination| examination.ok) {
        true => Ok(Exit::Good),
        false => Ok(Exit::NotSo),
    }
}

fn configuration(args: &Args) -> anyhow::Result<Config> {
    let mut config = match &args.config {
        // A variable that is not set is a finding here.
        Some(path) => Config::read_without_variables(path)?,
        None => Config::default(),
    };
    if let Some(url) = &args.upstream {
        config.upstreams.clear();
        config = config.everything_to(url).context("--upstream")?;
    }
    if config.upstreams.is_empty() && !args.clients {
        anyhow::bail!(
            "there is nothing to examine; give --config FILE with `upstreams`, --upstream URL, or --clients"
        );
    }
    Ok(config)
}

/// What is told of SDKs, where it is asked for.
fn of_clients(args: &Args, config: &Config) -> Vec<Examination> {
    if !args.clients {
        return Vec::new();
    }
    let variable = |name: &str| std::env::var(name).ok();
    let around = Surroundings {
        variable: &variable,
        found: clients::installed(&clients::folders(&variable, &args.look)),
        node: node(),
        metrics: admin::metrics(args.admin.unwrap_or(config.admin), args.timeout),
    };
    clients::examine(config, &around)
}

/// The version of Node.js, where there is one.
fn node() -> Option<Version> {
    let said = Command::new("node").arg("--version").stdin(Stdio::null()).output().ok()?;
    Version::read(&String::from_utf8_lossy(&said.stdout))
}

async fn examine(doctor: &Doctor, is_json: bool) -> Vec<Examination> {
    let is_watched = std::io::stderr().is_terminal();
    let watching = is_watched.then(|| tokio::spawn(watch(doctor.progress())));
    let mut all = Vec::new();
    let tell = |examination: Examination| {
        if is_watched {
            eprint!("{WIPE}");
        }
        if !is_json {
            write(&show::block(&examination));
        }
        all.push(examination);
    };
    doctor.examine(tell).await;
    if let Some(watching) = watching {
        watching.abort();
        eprint!("{WIPE}");
    }
    all
}

/// Shows what takes its time, on a line of its own.
async fn watch(progress: Progress) {
    loop {
        tokio::time::sleep(LOOK).await;
        let line = match progress.slower_than(SLOW).as_slice() {
            [] => String::new(),
            [(what, taken), rest @ ..] => {
                let more = match rest.len() {
                    0 => String::new(),
                    count => format!(", and {count} more"),
                };
                format!("waiting for {what}, {} s{more} ...", taken.as_secs())
            }
        };
        eprint!("{WIPE}{line}");
    }
}

/// Whoever reads may have gone: that is no fault of what was examined.
fn write(text: &str) {
    _ = std::io::stdout().write_all(text.as_bytes());
}
