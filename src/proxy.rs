//! `tidegate proxy`: the sidecar.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use tidegate_proxy::{Config, FileWatch, Sidecar};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;
use tracing::info;

use crate::Exit;

/// How often a drain looks whether all is over.
const LOOK: Duration = Duration::from_millis(50);

/// Run the sidecar: forward model calls and measure them.
///
/// `tidegate proxy --upstream https://api.openai.com` forwards everything to one place; point the
/// application at it with OPENAI_BASE_URL=http://127.0.0.1:4100/v1. A configuration file gives
/// several upstreams and routes. A flag counts more than its variable, a variable more than the file.
///
/// The configuration file is read again when it changes, and on SIGHUP. A bad one changes nothing
/// and is said loudly; with a good one new calls go by it, and open calls go on as they began.
///
/// An application whose SDK takes no other URL is pointed at it as its proxy: --intercept.
///
/// Metrics and spans are pushed by OTLP where OTEL_EXPORTER_OTLP_ENDPOINT is set. SIGTERM: not ready
/// from then on, and ends when the last call has ended and none has come for 5 s.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Configuration file (YAML); `tidegate check FILE` says what is wrong with one
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Send everything to this URL; the dialect is found from each call
    #[arg(long, value_name = "URL", env = "TIDEGATE_UPSTREAM")]
    upstream: Option<String>,
    /// Where the application connects [default: 127.0.0.1:4100]
    #[arg(long, value_name = "ADDR", env = "TIDEGATE_LISTEN")]
    listen: Option<SocketAddr>,
    /// Where /metrics, /livez, /readyz, /config, /policies and /bypass are served [default: 127.0.0.1:4101]
    #[arg(long, value_name = "ADDR", env = "TIDEGATE_ADMIN")]
    admin: Option<SocketAddr>,
    /// A third address for /metrics, /livez and /readyz alone, meant for probes and scrapes from outside
    #[arg(long, value_name = "ADDR", env = "TIDEGATE_HEALTH")]
    health: Option<SocketAddr>,
    /// Be the application's proxy too: HTTPS_PROXY=http://ADDR takes in its calls to model providers
    /// [default where ADDR is left out: 127.0.0.1:4104]; `tidegate env --way proxy` says what to set
    #[arg(
        long,
        value_name = "ADDR",
        env = "TIDEGATE_INTERCEPT",
        num_args = 0..=1,
        default_missing_value = "127.0.0.1:4104"
    )]
    intercept: Option<SocketAddr>,
    /// The folder of the certificate authority that --intercept and TLS need [default: tidegate in
    /// ~/.local/state]
    #[arg(long, value_name = "FOLDER", env = "TIDEGATE_CA")]
    ca: Option<PathBuf>,
    /// Write one JSON object per call to this file; - is standard output. SIGHUP opens it anew
    #[arg(long, value_name = "FILE", env = "TIDEGATE_RECORDS")]
    records: Option<PathBuf>,
    /// Keep what came to pass, minute by minute, in this file (SQLite), for `tidegate usage`
    #[arg(long, value_name = "FILE", env = "TIDEGATE_HISTORY")]
    history: Option<PathBuf>,
    /// Threads that carry traffic [default: the cores that the container has]
    #[arg(long, value_name = "N", env = "TIDEGATE_WORKERS")]
    workers: Option<NonZeroU16>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<Exit> {
    // Before it is read, so that no change is missed in between.
    let mut file = args.config.as_deref().and_then(FileWatch::new);
    let config = configuration(&args)?;
    if let Some(file) = &mut file {
        file.beside(config.files());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before the first address is announced, so that no signal finds nobody.
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let sidecar = Sidecar::start(config)?;
    runtime.block_on(serve(&sidecar, &args, file, &mut signals));
    sidecar.stop();
    Ok(Exit::Good)
}

fn configuration(args: &Args) -> anyhow::Result<Config> {
    let mut config = match &args.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    if let Some(url) = &args.upstream {
        config = config.everything_to(url).context("--upstream")?;
    }
    if let Some(listen) = args.intercept {
        config.intercept.get_or_insert_default().listen = listen;
    }
    config.ca.folder = args.ca.clone().or(config.ca.folder);
    if config.routes.is_empty() && config.intercept.is_none() {
        anyhow::bail!(
            "there is nowhere to send calls to; give --upstream URL, or --config FILE with `upstreams` \
             and `routes`, or --intercept to take in what an application sends to its proxy"
        );
    }
    config.listen = args.listen.unwrap_or(config.listen);
    config.admin = args.admin.unwrap_or(config.admin);
    config.health = args.health.or(config.health);
    config.records = args.records.clone().or(config.records);
    config.history.path = args.history.clone().or(config.history.path);
    config.workers = args.workers.or(config.workers);
    Ok(config)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// Serves until a signal, then until nothing is left to wait for, or a second signal.
async fn serve(sidecar: &Sidecar, args: &Args, mut file: Option<FileWatch>, signals: &mut Signals) {
    let terminated = loop {
        tokio::select! {
            _ = signals.terminate.recv() => break true,
            _ = signals.interrupt.recv() => break false,
            _ = signals.hangup.recv() => {
                sidecar.reopen();
                if let Some(file) = &mut file {
                    file.note();
                    reload(sidecar, args, file).await;
                }
            }
            file = changed(&mut file) => reload(sidecar, args, file).await,
        }
    };
    sidecar.drain();
    let limit = Sidecar::drain_limit();
    info!(calls = sidecar.calls_in_flight(), limit_s = limit.as_secs(), "draining");
    let over = async {
        while !sidecar.is_over(terminated) {
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = over => {}
        () = sleep(limit) => {}
        _ = signals.terminate.recv() => {}
        _ = signals.interrupt.recv() => {}
    }
}

/// Waits until the file has changed; for ever where there is none.
async fn changed(file: &mut Option<FileWatch>) -> &mut FileWatch {
    match file {
        Some(file) => {
            file.changed().await;
            file
        }
        None => std::future::pending().await,
    }
}

async fn reload(sidecar: &Sidecar, args: &Args, file: &mut FileWatch) {
    sidecar.reload(configuration(args)).await;
    file.beside(sidecar.files());
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}
