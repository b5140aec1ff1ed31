//! How far from the truth first tokens are told, which is when the simulator handed each to its connection;
//! beside what a bare client tells of the same.

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate_bench::http::{self, Dechunker, Framing};

use crate::direct;
use crate::tool::{Call, Running};
use crate::{Bench, median};

const USERS: &str = "200";
/// The second in which users come in is no different from the others: each call counts.
const SECONDS: u64 = 10;

/// How far off one client is, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Off {
    calls: usize,
    p50: f64,
    p99: f64,
}

pub(crate) fn ask(bench: &Bench) -> Result<Value> {
    let (target, _simulator) = simulator(bench)?;
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        // By turns the one and the other is first.
        for turn in 0..2 {
            fetch(target, "POST", "/-/reset")?;
            match (round + turn) % 2 {
                0 => bare.push(by_bare_client(bench, target)?),
                _ => ours.push(by_tidegate(bench, target)?),
            }
        }
    }
    let of = |all: &[Off], figure: fn(&Off) -> f64| median(all.iter().map(figure).collect());
    println!("{:<14}{:>10}{:>12}{:>12}", "", "calls", "p50, µs", "p99, µs");
    for (name, all) in [("bare client", &bare), ("tidegate", &ours)] {
        let calls: usize = all.iter().map(|one| one.calls).sum();
        println!(
            "{name:<14}{calls:>10}{:>12.0}{:>12.0}",
            of(all, |one| one.p50),
            of(all, |one| one.p99)
        );
    }
    let ratio = |figure: fn(&Off) -> f64| {
        median(ours.iter().zip(&bare).map(|(ours, bare)| figure(ours) / figure(bare)).collect())
    };
    println!(
        "tidegate / bare client: p50 {:.2}, p99 {:.2} (goals: p50 below 200 µs, p99 at most 2.00)",
        ratio(|one| one.p50),
        ratio(|one| one.p99)
    );
    let written = |all: &[Off]| -> Value {
        all.iter().map(|one| json!({ "p50_us": one.p50, "p99_us": one.p99 })).collect()
    };
    Ok(json!({ "bare_client": written(&bare), "tidegate": written(&ours) }))
}

fn simulator(bench: &Bench) -> Result<(SocketAddr, Running)> {
    let target = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    // Beside this process, on the core of what is called.
    let mut command = Command::new(bench.tools.tidegate());
    command.args(["sim", "--listen", &target.to_string(), "--capacity", "1000"]);
    command.args(["--ttft", "200ms", "--tpot", "20ms", "--output-tokens", "32"]);
    let running = bench.tools.spawn(command, "sim")?;
    let begin = Instant::now();
    while TcpStream::connect(target).is_err() {
        ensure!(begin.elapsed() < Duration::from_secs(20), "the simulator does not listen");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok((target, running))
}

fn seconds(bench: &Bench) -> u64 {
    if bench.quick { 2 } else { SECONDS }
}

fn by_bare_client(bench: &Bench, target: SocketAddr) -> Result<Off> {
    let file = bench.folder.join("direct.txt");
    let this = std::env::current_exe()?;
    let mut command = bench.cores.command(this.to_str().context("a path that is UTF-8")?);
    command
        .args([direct::WORD, &target.to_string(), USERS, &seconds(bench).to_string()])
        .arg(&file);
    let long = Duration::from_secs(seconds(bench));
    let said = bench.tools.spawn(command, "direct")?.ended(long)?;
    let text = fs::read_to_string(&file).context(said)?;
    let seen = text.lines().filter_map(|line| {
        let (trace, nanos) = line.split_once(' ')?;
        Some((trace.to_owned(), nanos.parse().ok()?))
    });
    off(target, seen.collect())
}

fn by_tidegate(bench: &Bench, target: SocketAddr) -> Result<Off> {
    let records = bench.folder.join("load.jsonl");
    let mix = bench.tools.mix_of(Call::Stream);
    let long = format!("{}s", seconds(bench));
    let arguments = ["--users", USERS, "--duration", &long];
    let files = [("--mix", &mix), ("--records", &records)]
        .map(|(flag, path)| [flag, path.to_str().unwrap_or_default()])
        .concat();
    let running =
        bench.tools.tidegate_load(bench.cores, target, &[&arguments[..], &files].concat())?;
    let said = running.ended(Duration::from_secs(seconds(bench)))?;
    off(target, recorded(&records).context(said)?)
}

/// Of each call its trace id and when, by the wall clock in nanoseconds, its first token came.
fn recorded(records: &Path) -> Result<Vec<(String, i128)>> {
    let text = fs::read_to_string(records)?;
    let read = |line: &str| {
        let record: Value = serde_json::from_str(line)?;
        let time: Timestamp =
            record["time"].as_str().context("a record without a time")?.parse()?;
        let first = record["tidegate.time_to_first_token_s"].as_f64();
        let first = first.map(|first| time.as_nanosecond() + (first * 1e9) as i128);
        let trace = record["trace_id"].as_str().context("a record without a trace id")?.to_owned();
        Ok(first.map(|first| (trace, first)))
    };
    text.lines().filter_map(|line| read(line).transpose()).collect()
}

/// How far off what was seen is from when the simulator sent it.
fn off(target: SocketAddr, seen: Vec<(String, i128)>) -> Result<Off> {
    let stamps: HashMap<String, Vec<i128>> =
        serde_json::from_str(&fetch(target, "GET", "/-/stamps")?).context("reading the stamps")?;
    let mut off = Vec::new();
    for (trace, nanos) in seen {
        let Some(sent) = stamps.get(&trace).and_then(|stamps| stamps.first()) else { continue };
        off.push((nanos - sent).abs() as f64 / 1e3);
    }
    ensure!(!off.is_empty(), "no call that was seen has a stamp");
    off.sort_by(f64::total_cmp);
    let at = |share: f64| off[((off.len() - 1) as f64 * share) as usize];
    Ok(Off { calls: off.len(), p50: at(0.5), p99: at(0.99) })
}

/// A body from the simulator's own paths.
fn fetch(target: SocketAddr, method: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(target)?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: sim\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let Some(head) = http::response_head(&answer)? else { bail!("half an answer to {path}") };
    let body = &answer[head.length..];
    let mut whole = Vec::new();
    match head.framing {
        Framing::Length(_) => whole.extend_from_slice(body),
        Framing::Chunked => {
            Dechunker::default().feed(body, |part| {
                whole.extend_from_slice(part);
                Ok(())
            })?;
        }
    }
    Ok(String::from_utf8(whole)?)
}
