//! `tidegate demo`: the whole house on one machine, and its books compared.
//!
//! Simulator, sidecar and load generator are processes of their own, as they are in earnest. Each
//! counts for itself; at the end the three counts must be equal. A chapter shows something else.

mod cache;
mod canary;
mod compare;
mod outage;
mod process;
mod stand;

use std::io::{Write, stdout};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::{Exit, units};
use compare::Books;
use process::{Server, get};

/// How long records may be on their way to their file after the last call.
const RECORDS_LATE: Duration = Duration::from_secs(5);

/// Run simulator, sidecar and load together, and compare what each of them counted.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Show this instead.
    #[arg(long, value_enum, env = "TIDEGATE_DEMO_CHAPTER")]
    chapter: Option<Chapter>,
    /// Concurrent users: 200, in a chapter 20 (on each side, where there are two).
    #[arg(long, value_name = "N", env = "TIDEGATE_DEMO_USERS")]
    users: Option<NonZeroUsize>,
    /// For how long calls are made: 20s, in a chapter 3s in each phase.
    #[arg(long, value_name = "TIME", value_parser = units::duration, env = "TIDEGATE_DEMO_DURATION")]
    duration: Option<Duration>,
    /// Keep simulator and sidecar up after the load, until Ctrl-C.
    #[arg(long, env = "TIDEGATE_DEMO_STAY", conflicts_with = "chapter")]
    stay: bool,
}

/// What a demo may be about.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Chapter {
    /// A model server fails, one way after the other (500, 429 with a wait, overload inside a 200,
    /// cut streams, late first tokens, refused connections), before users behind a plain sidecar
    /// and users behind one with breaker, retry, fallback and a limit to the first token. A table
    /// compares them. Exit code 1: the policies did not at least halve the errors.
    Outage,
    /// A new version of a model gets a tenth of the calls, and is slower, dearer and less reliable; a
    /// table compares both sides. Then its weight is set to 0, and the sidecar reads its file anew.
    /// Exit code 1: the sides could not be told apart, or the canary had calls to the end.
    Canary,
    /// Users ask the same questions over and over before a sidecar with a cache. A table shows what was
    /// saved: calls, tokens, money and time. Exit code 1: nothing was.
    Cache,
}

/// A load as it was asked for, or as it is good to watch.
#[derive(Clone, Copy)]
struct Size {
    users: NonZeroUsize,
    duration: Duration,
}

pub(crate) fn run(args: Args) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(demonstrate(args))
}

async fn demonstrate(args: Args) -> anyhow::Result<Exit> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    tokio::select! {
        exit = chapter(args, &mut interrupts) => exit,
        // Whatever is still open falls with its owner: processes, files.
        _ = terminations.recv() => anyhow::bail!("terminated"),
    }
}

async fn chapter(args: Args, interrupts: &mut Signal) -> anyhow::Result<Exit> {
    match args.chapter {
        None => demonstration(args.size(200, 20), args.stay, interrupts).await,
        Some(chapter) => tokio::select! {
            exit = chapter.show(args.size(20, 3)) => exit,
            _ = interrupts.recv() => anyhow::bail!("interrupted"),
        },
    }
}

async fn demonstration(size: Size, stay: bool, interrupts: &mut Signal) -> anyhow::Result<Exit> {
    let files = Files::create()?;
    let mut simulator = simulator(size.users)?;
    let simulator_at = simulator.address("listening on ").await?;
    let mut sidecar = sidecar(simulator_at, &files.sidecar())?;
    let sidecar_at = sidecar.address("listening on ").await?;
    let admin_at = sidecar.address("admin on ").await?;
    eprintln!(
        "simulator on {simulator_at}, sidecar on {sidecar_at}, its live page at http://{admin_at}/"
    );

    let calls = files.load();
    tokio::select! {
        loaded = load(size, sidecar_at, &calls, interrupts) => loaded?,
        death = simulator.death() => return Err(death),
        death = sidecar.death() => return Err(death),
    }

    let sent = compare::sent(&calls)?;
    eprintln!("collecting records");
    wait_for_records(&files.sidecar(), sent.len()).await?;
    let served = get(simulator_at, "/-/served").await?;
    let metrics = get(admin_at, "/metrics").await?;
    let cost = sidecar.cost();
    if !stay {
        sidecar.interrupt().await?;
    }
    let books = Books {
        sent,
        recorded: compare::recorded(&files.sidecar())?,
        served: serde_json::from_str(&served).context("cannot read what the simulator served")?,
        dropped: compare::dropped(&metrics),
        cost,
    };
    let mut results = stdout().lock();
    books.print(&mut results)?;
    // Scripts read the last line.
    writeln!(results, "{}", books.verdict())?;
    if stay {
        eprintln!(
            "still up: http://{sidecar_at} before http://{simulator_at}; look at http://{admin_at}/; Ctrl-C ends it"
        );
        interrupts.recv().await;
    }
    Ok(if books.are_equal() { Exit::Good } else { Exit::NotSo })
}

fn simulator(users: NonZeroUsize) -> anyhow::Result<Server> {
    // Room for every user: the demo is about the sidecar, not about a queue before a model.
    let capacity = users.to_string();
    Server::start(
        "simulator",
        &["sim", "--listen", "127.0.0.1:0", "--output-tokens", "64", "--capacity", &capacity],
    )
}

fn sidecar(upstream: SocketAddr, records: &Path) -> anyhow::Result<Server> {
    let upstream = format!("http://{upstream}");
    let records = records.to_str().context("the temporary folder's name is no text")?;
    let listen = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let what = ["proxy", "--upstream", &upstream, "--records", records];
    Server::start("sidecar", &[&what[..], &listen[..]].concat())
}

/// Runs the load generator; the first Ctrl-C is passed on to it, and its report comes all the same.
async fn load(
    size: Size,
    target: SocketAddr,
    records: &Path,
    interrupts: &mut Signal,
) -> anyhow::Result<()> {
    let mut load = process::command()?
        .args(["load", "--target", &format!("http://{target}")])
        .args(["--users", &size.users.to_string()])
        .args(["--duration", &format!("{}ms", size.duration.as_millis())])
        .arg("--records")
        .arg(records)
        .spawn()
        .context("cannot start the load generator")?;
    let status = loop {
        tokio::select! {
            status = load.wait() => break status?,
            _ = interrupts.recv() => process::interrupt(&load)?,
        }
    };
    // On a busy machine its times say nothing; its counts do.
    let is_late = status.code() == Some(Exit::Invalid as i32);
    ensure!(status.success() || is_late, "the load generator ended with {status}");
    Ok(())
}

/// Waits until every call that was sent has its record, or for as long as that may take.
async fn wait_for_records(records: &Path, sent: usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + RECORDS_LATE;
    while compare::recorded(records)?.len() < sent && Instant::now() < deadline {
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

// === impl Chapter ===

impl Chapter {
    async fn show(self, size: Size) -> anyhow::Result<Exit> {
        match self {
            Self::Outage => outage::show(size).await,
            Self::Canary => canary::show(size).await,
            Self::Cache => cache::show(size).await,
        }
    }
}

fn percent(ratio: f64) -> String {
    format!("{:.1}%", 100.0 * ratio)
}

// === impl Args ===

impl Args {
    fn size(&self, users: usize, seconds: u64) -> Size {
        let users = NonZeroUsize::new(users).unwrap_or(NonZeroUsize::MIN);
        Size {
            users: self.users.unwrap_or(users),
            duration: self.duration.unwrap_or(Duration::from_secs(seconds)),
        }
    }
}

/// A folder for what the processes write; it goes with the demo.
struct Files(PathBuf);

// === impl Files ===

impl Files {
    fn create() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("tidegate-demo-{}", std::process::id()));
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    fn sidecar(&self) -> PathBuf {
        self.0.join("sidecar.jsonl")
    }

    fn load(&self) -> PathBuf {
        self.0.join("load.jsonl")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove temporary files");
        }
    }
}
