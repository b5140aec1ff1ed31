//! The processes of a demo: this program, started again as something else.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use super::compare::Cost;

/// How long a server may take to say where it listens.
const START: Duration = Duration::from_secs(10);
/// How long it may take to stop once it was asked to.
const STOP: Duration = Duration::from_secs(15);
/// How long an answer to a question of ours may take.
const ANSWER: Duration = Duration::from_secs(10);
/// The lines of a log that are kept for the case that its process fails.
const KEPT_LINES: usize = 100;

/// A server that says on standard error where it listens. Killed when dropped.
pub(super) struct Server {
    name: &'static str,
    child: Child,
    log: watch::Receiver<Vec<String>>,
}

/// This program, to be started in a process group of its own: a Ctrl-C at the terminal is for the
/// demo, which decides who hears of it.
pub(super) fn command() -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("cannot find this program again")?;
    let mut command = Command::new(program);
    command.process_group(0).kill_on_drop(true).stdin(Stdio::null());
    // What the environment says of another sidecar is not for the demo's.
    for variable in ["TIDEGATE_CONFIG", "TIDEGATE_HEALTH", "TIDEGATE_WORKERS"] {
        command.env_remove(variable);
    }
    Ok(command)
}

/// Asks a process to end.
pub(super) fn interrupt(child: &Child) -> anyhow::Result<()> {
    // A process that has ended already has no id, and need not be asked.
    let Some(id) = child.id() else { return Ok(()) };
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).context("no process id")?;
    kill_process(pid, Signal::INT).context("cannot interrupt")
}

/// Asks an HTTP server a short question.
pub(super) async fn get(server: SocketAddr, path: &str) -> anyhow::Result<String> {
    ask(server, &format!("GET {path}"), "").await
}

/// Tells an HTTP server something short.
pub(super) async fn post(server: SocketAddr, path: &str, body: &str) -> anyhow::Result<String> {
    ask(server, &format!("POST {path}"), body).await
}

async fn ask(server: SocketAddr, what: &str, body: &str) -> anyhow::Result<String> {
    let answer = async {
        let mut stream = TcpStream::connect(server).await?;
        // HTTP/1.0, so that the answer ends with the connection and needs no decoding.
        let length = body.len();
        let question =
            format!("{what} HTTP/1.0\r\nhost: {server}\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(question.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let what = || format!("cannot {what} at http://{server}");
    let answer = timeout(ANSWER, answer).await.with_context(what)?.with_context(what)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
        _ => bail!("{}: {}", what(), answer.lines().next().unwrap_or("no answer")),
    }
}

// === impl Server ===

impl Server {
    pub(super) fn start(name: &'static str, args: &[&str]) -> anyhow::Result<Self> {
        let mut child = command()?
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start the {name}"))?;
        let log = child.stderr.take().expect("its standard error is piped");
        let (keep, kept) = watch::channel(Vec::new());
        tokio::spawn(follow(BufReader::new(log).lines(), keep));
        Ok(Self { name, child, log: kept })
    }

    /// The address that stands behind these words in its log.
    pub(super) async fn address(&self, words: &str) -> anyhow::Result<SocketAddr> {
        let mut log = self.log.clone();
        let said = timeout(START, log.wait_for(|log| address(log, words).is_some())).await;
        match said {
            Ok(Ok(log)) => Ok(address(&log, words).expect("it was waited for")),
            _ => bail!("the {} did not say `{words}ADDRESS`, but:\n{}", self.name, self.said()),
        }
    }

    fn said(&self) -> String {
        self.log.borrow().join("\n")
    }

    /// Waits until it ends, which it should not do by itself, and says how that came.
    pub(super) async fn death(&mut self) -> anyhow::Error {
        match self.child.wait().await {
            Ok(status) => anyhow!("the {} ended with {status}:\n{}", self.name, self.said()),
            Err(error) => anyhow!(error).context(format!("cannot wait for the {}", self.name)),
        }
    }

    /// What it has taken of the machine so far.
    pub(super) fn cost(&self) -> Option<Cost> {
        let about =
            |what| std::fs::read_to_string(format!("/proc/{}/{what}", self.child.id()?)).ok();
        cost(&about("stat")?, &about("status")?)
    }

    /// Asks it to end, and waits until it has.
    pub(super) async fn interrupt(mut self) -> anyhow::Result<()> {
        interrupt(&self.child)?;
        let ended = timeout(STOP, self.child.wait()).await;
        ended.with_context(|| format!("the {} did not end", self.name))??;
        Ok(())
    }
}

/// Reads what Linux says of a process.
fn cost(stat: &str, status: &str) -> Option<Cost> {
    // The name of the program may hold anything but the last bracket. Behind it, fields 14 and 15
    // of proc(5) are the ticks in user and in kernel mode.
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks = |field: usize| fields.split(' ').nth(field - 3)?.parse::<u64>().ok();
    let seconds = (ticks(14)? + ticks(15)?) as f64 / clock_ticks_per_second() as f64;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = peak.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(Cost { cpu: Duration::from_secs_f64(seconds), peak_memory_bytes: kibibytes << 10 })
}

fn address(log: &[String], words: &str) -> Option<SocketAddr> {
    log.iter().find_map(|line| {
        let (_, said) = line.split_once(words)?;
        said.split_whitespace().next()?.parse().ok()
    })
}

/// Reads a log to its end, so that its writer never waits, and keeps its first lines.
async fn follow(mut log: Lines<BufReader<ChildStderr>>, keep: watch::Sender<Vec<String>>) {
    while let Ok(Some(line)) = log.next_line().await {
        keep.send_if_modified(|kept| {
            let room = kept.len() < KEPT_LINES;
            if room {
                kept.push(line);
            }
            room
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_of_a_process_is_read_past_its_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 900 0 0 0 150 50 0 0 20 0 3 0 9 9";
        let status = "Name:\ttidegate\nVmHWM:\t   18432 kB\nThreads:\t3\n";
        let cost = cost(stat, status).expect("both are whole");
        let ticks = cost.cpu.as_secs_f64() * clock_ticks_per_second() as f64;
        assert_eq!((ticks.round(), cost.peak_memory_bytes), (200.0, 18 << 20));
    }

    #[test]
    fn an_address_is_found_behind_its_words_wherever_they_stand_in_a_line() {
        let log = [
            "2026-11-21T10:00:00Z  INFO starting".to_owned(),
            "2026-11-21T10:00:00Z  INFO listening on 127.0.0.1:4100 workers=2".to_owned(),
        ];
        assert_eq!(address(&log, "listening on "), Some(([127, 0, 0, 1], 4100).into()));
        assert_eq!(address(&log, "admin on "), None);
    }
}
