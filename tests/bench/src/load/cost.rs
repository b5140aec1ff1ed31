//! CPU for each call and each chunk, and memory, at a growing number of users.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tidegate_bench::{mock, usage};

use crate::tool::{Call, Kind, Load};
use crate::{Bench, median};

/// What one run used.
#[derive(Clone, Copy, Debug)]
struct Used {
    /// Microseconds of CPU for each call, and for each chunk where there are any.
    per_call: f64,
    per_chunk: Option<f64>,
    calls_per_s: f64,
    /// Of the one core that it has, the share that it used.
    busy: f64,
    peak_mib: f64,
}

type Case = (Call, usize, Kind);

pub(crate) fn ask(bench: &Bench) -> Result<Value> {
    let target = mock::start_for_anything()?;
    let mut cases: Vec<Case> = Vec::new();
    for call in [Call::Whole, Call::Stream] {
        for &users in &bench.users {
            cases.extend(bench.tools.kinds().iter().map(|kind| (call, users, *kind)));
        }
    }
    let mut used: BTreeMap<usize, Vec<Used>> = BTreeMap::new();
    for round in 1..=bench.rounds {
        for (number, &(call, users, kind)) in cases.iter().enumerate() {
            let (lead, window) = if bench.quick { (6, 2) } else { (8, 8) };
            let load = Load { call, users, long: Duration::from_secs(lead + window + 1) };
            let running = bench.tools.start(kind, bench.cores, target, load)?;
            sleep(Duration::from_secs(lead));
            let one = measure(running.pid(), Duration::from_secs(window))
                .with_context(|| format!("{kind}, {users} users, round {round}"));
            match one {
                Ok(one) => used.entry(number).or_default().push(one),
                Err(error) => {
                    return Err(error.context(running.ended(load.long).unwrap_or_default()));
                }
            }
            running.ended(load.long)?;
        }
        eprintln!("round {round} of {}", bench.rounds);
    }
    show(&cases, &used);
    Ok(cases.iter().zip(used.values()).map(written).collect())
}

/// What a process uses for the calls of a while.
fn measure(pid: u32, window: Duration) -> Result<Used> {
    let (calls, cpu) = (mock::answered(), usage::cpu(pid)?);
    let begin = std::time::Instant::now();
    sleep(window);
    let (now, spent) = (mock::answered(), usage::cpu(pid)? - cpu);
    let (elapsed, peak) = (begin.elapsed(), usage::memory(pid)?.peak);
    let (calls, chunks) = (now.calls - calls.calls, now.events - calls.events);
    ensure!(calls > 0, "no call was made");
    Ok(Used {
        per_call: spent.as_secs_f64() * 1e6 / calls as f64,
        per_chunk: (chunks > 0).then(|| spent.as_secs_f64() * 1e6 / chunks as f64),
        calls_per_s: calls as f64 / elapsed.as_secs_f64(),
        busy: spent.as_secs_f64() / elapsed.as_secs_f64(),
        peak_mib: peak as f64 / f64::from(1 << 20),
    })
}

fn of(all: &[Used], figure: fn(&Used) -> f64) -> f64 {
    median(all.iter().map(figure).collect())
}

fn show(cases: &[Case], used: &BTreeMap<usize, Vec<Used>>) {
    println!(
        "{:<8}{:>7} {:<10}{:>12}{:>13}{:>12}{:>10}{:>12}",
        "call", "users", "", "CPU µs/call", "CPU µs/chunk", "calls/s", "core", "memory MiB"
    );
    for ((call, users, kind), used) in cases.iter().zip(used.values()) {
        let per_chunk = match used[0].per_chunk {
            Some(_) => format!("{:.1}", of(used, |one| one.per_chunk.unwrap_or(f64::NAN))),
            None => "-".to_owned(),
        };
        println!(
            "{:<8}{users:>7} {kind:<10}{:>12.1}{per_chunk:>13}{:>12.0}{:>9.0}%{:>12.1}",
            format!("{call:?}").to_lowercase(),
            of(used, |one| one.per_call),
            of(used, |one| one.calls_per_s),
            of(used, |one| one.busy) * 100.0,
            of(used, |one| one.peak_mib),
        );
    }
    println!(
        "A chunk's share is all that a call took, by its chunks. Ours asks another prompt each time."
    );
}

fn written(((call, users, kind), used): (&Case, &Vec<Used>)) -> Value {
    json!({
        "call": format!("{call:?}").to_lowercase(),
        "users": users,
        "tool": kind.to_string(),
        "cpu_us_per_call": used.iter().map(|one| one.per_call).collect::<Vec<_>>(),
        "cpu_us_per_chunk": used.iter().map(|one| one.per_chunk).collect::<Vec<_>>(),
        "calls_per_s": used.iter().map(|one| one.calls_per_s).collect::<Vec<_>>(),
        "core": used.iter().map(|one| one.busy).collect::<Vec<_>>(),
        "peak_mib": used.iter().map(|one| one.peak_mib).collect::<Vec<_>>(),
    })
}
