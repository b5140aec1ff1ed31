//! `tidegate sim`: a simulated model server that speaks every dialect.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tidegate_loadgen::sim::{Options, Recorded, Simulator, Truth};
use tidegate_loadgen::workload::Mix;
use tidegate_settings::Objectives;
use tokio::signal::unix::{SignalKind, signal};

use crate::identities::IdentityArgs;
use crate::{Exit, units};

/// Stand in for model servers: every dialect on one port, with a real capacity.
///
/// A call may ask for its own: headers x-sim-ttft, x-sim-tpot and x-sim-output-tokens, and
/// x-sim-fault: a status from 400 up, `overload` in place of the first token, or `cut`, `stall` or
/// `error-event` after half of the answer.
/// GET /-/served counts what was served, POST /-/reset begins anew, GET /-/stamps says when each
/// token left, GET /metrics what vLLM and the DCGM exporter would. POST /-/fault has calls fail until further notice, such as
/// {"kind": "429", "ratio": 0.5, "retry_after": 1} or {"kind": "slow", "ttft": "2s"}; {"kind":
/// "none"} heals.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(
        long,
        value_name = "ADDR",
        env = "TIDEGATE_SIM_LISTEN",
        default_value = "127.0.0.1:4102"
    )]
    listen: SocketAddr,

    /// From the start of a sequence to its first token.
    #[arg(long, value_name = "TIME", env = "TIDEGATE_SIM_TTFT", default_value = "200ms", value_parser = units::duration)]
    ttft: Duration,

    /// Between two tokens.
    #[arg(long, value_name = "TIME", env = "TIDEGATE_SIM_TPOT", default_value = "20ms", value_parser = units::duration)]
    tpot: Duration,

    /// Tokens of an answer, unless the caller's limit is lower.
    #[arg(long, value_name = "N", env = "TIDEGATE_SIM_OUTPUT_TOKENS", default_value_t = 128)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    output_tokens: u64,

    /// Part of the calls that are answered by an error, from 0 to 1.
    #[arg(long, value_name = "PART", env = "TIDEGATE_SIM_ERROR_RATE", default_value = "0", value_parser = part)]
    error_rate: f64,

    /// Sequences at once; calls beyond it wait.
    #[arg(long, value_name = "N", env = "TIDEGATE_SIM_CAPACITY", default_value = "64")]
    capacity: NonZeroUsize,

    /// Calls that may wait for their turn; more are refused.
    #[arg(long, value_name = "N", env = "TIDEGATE_SIM_QUEUE", default_value_t = 1024)]
    queue: usize,

    /// Answer calls as they were answered before: with the times, lengths and errors of what a sidecar
    /// captured. A call is known by its path and body, and else by its model; what is not known is
    /// answered as the other options say.
    #[arg(long, value_name = "CAPTURE", env = "TIDEGATE_SIM_FROM")]
    from: Option<PathBuf>,

    #[command(flatten)]
    identities: IdentityArgs,

    /// What texts, ids and errors are drawn from.
    #[arg(long, value_name = "N", env = "TIDEGATE_SIM_SEED", default_value_t = 1)]
    seed: u64,

    /// Do not listen: say what the highest rate is at which this server keeps these objectives, as a
    /// million calls in virtual time tell. What `tidegate load --search` finds can be held against it.
    #[arg(long, value_name = "SLO", conflicts_with = "from", env = "TIDEGATE_SIM_CAPACITY_OF")]
    capacity_of: Option<PathBuf>,

    /// What is asked there, by weight, as of `tidegate load --mix`.
    #[arg(long, value_name = "FILE", requires = "capacity_of", env = "TIDEGATE_SIM_MIX")]
    mix: Option<PathBuf>,

    /// Threads; as many as there are cores, if not given.
    #[arg(long, value_name = "N", env = "TIDEGATE_SIM_WORKERS")]
    workers: Option<NonZeroUsize>,
}

/// Calls at each rate, in virtual time.
const CALLS: u64 = 1_000_000;

pub(crate) fn run(args: Args) -> anyhow::Result<Exit> {
    if let Some(objectives) = &args.capacity_of {
        return capacity(&args, objectives);
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = args.workers {
        runtime.worker_threads(workers.get());
    }
    runtime.enable_all().build().context("cannot start the runtime")?.block_on(serve(args))
}

/// Says what the server can do in truth.
fn capacity(args: &Args, objectives: &Path) -> anyhow::Result<Exit> {
    let objectives = Objectives::read(objectives)?;
    let mix = args.mix.as_deref().map(Mix::read).transpose()?.unwrap_or_default();
    let truth =
        Truth::of(&options(args, None), &mix, &objectives, CALLS).context("--capacity-of")?;
    println!("{truth}");
    Ok(if truth.rate > 0.0 { Exit::Good } else { Exit::NotSo })
}

fn options(args: &Args, recorded: Option<Arc<Recorded>>) -> Options {
    Options {
        listen: args.listen,
        ttft: args.ttft,
        tpot: args.tpot,
        output_tokens: args.output_tokens,
        error_rate: args.error_rate,
        capacity: args.capacity.get(),
        queue: args.queue,
        seed: args.seed,
        recorded,
    }
}

async fn serve(args: Args) -> anyhow::Result<Exit> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let read = |path| Recorded::read(path, args.identities.read()?).context("--from");
    let recorded = args.from.as_deref().map(read).transpose()?;
    if recorded.is_none() {
        args.identities.refuse()?;
    }
    let simulator = Simulator::bind(options(&args, recorded.map(Arc::new)))
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;

    // Other programs wait for this line.
    eprintln!("listening on {}", simulator.addr());
    simulator
        .serve(async {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
            }
        })
        .await;
    Ok(Exit::Good)
}

fn part(text: &str) -> Result<f64, String> {
    let part = text.parse().ok().filter(|part| (0.0..=1.0).contains(part));
    part.ok_or_else(|| format!("`{text}` is not a number from 0 to 1"))
}
