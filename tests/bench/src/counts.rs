//! What does not wobble: instructions in user mode and system calls, per call and per chunk.
//!
//! Each is the difference between a run of so many calls and one of twice as many, so that starting
//! and stopping cancel out.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::client::{self, Load, Until};
use crate::target::{Kind, Setup, Target};
use tidegate_bench::workload::{self, Workload};

const CONNECTIONS: usize = 16;
/// System calls that are named one by one.
const NAMED: usize = 6;

/// What is counted: a workload, the calls of the shorter run, and the unit of the answer.
const QUESTIONS: [(&str, u64, &str); 2] = [("plain", 2000, "call"), ("counted", 32, "chunk")];

/// Counts for each of the proxies, prints a table and gives the same as JSON.
pub(crate) fn run(kinds: &[Kind], setup: &Setup) -> Result<Value> {
    for (tool, package) in [("valgrind", "valgrind"), ("strace", "strace")] {
        let runs = Command::new(tool).arg("--version").output().is_ok();
        ensure!(runs, "{tool} cannot be run: install the package {package}");
    }
    let mut found = Vec::new();
    for (name, calls, unit) in QUESTIONS {
        let workload = workload::named(name).context("no such workload")?;
        println!("\nper {unit} ({}), {CONNECTIONS} connections", about(name));
        for &kind in kinds.iter().filter(|kind| **kind != Kind::Direct) {
            let count = Count::of(kind, workload, calls, setup)
                .with_context(|| format!("counting {name} through {kind}"))?;
            println!("  {kind:<10} {count}");
            found.push(json!({
                "target": kind.to_string(),
                "unit": unit,
                "instructions": count.instructions,
                "system_calls": count.system_calls.values().sum::<f64>(),
                "by_system_call": count.system_calls,
            }));
        }
    }
    Ok(Value::Array(found))
}

fn about(workload: &str) -> &'static str {
    match workload {
        "plain" => "1 KiB up, 2 KiB down",
        _ => "streams of 100 chunks 5 ms apart; what the call itself costs is spread over them",
    }
}

struct Count {
    instructions: f64,
    system_calls: BTreeMap<String, f64>,
}

impl Count {
    fn of(kind: Kind, workload: &'static Workload, calls: u64, setup: &Setup) -> Result<Self> {
        let units = (calls * workload.reply.events().max(1)) as f64;
        let instructions = |calls| instructions(kind, workload, calls, setup);
        let system_calls = |calls| system_calls(kind, workload, calls, setup);

        let (short, long) = (instructions(calls)?, instructions(2 * calls)?);
        let short_run = system_calls(calls)?;
        let per_unit = |(name, long): (String, u64)| {
            let short = short_run.get(&name).copied().unwrap_or(0);
            (name, (long as f64 - short as f64) / units)
        };
        Ok(Self {
            instructions: (long as f64 - short as f64) / units,
            system_calls: system_calls(2 * calls)?.into_iter().map(per_unit).collect(),
        })
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let total: f64 = self.system_calls.values().sum();
        write!(formatter, "{:>8.0} instructions  {total:>6.2} system calls:", self.instructions)?;
        let mut named: Vec<_> = self.system_calls.iter().collect();
        named.sort_by(|one, other| other.1.total_cmp(one.1));
        for (name, count) in named.into_iter().take(NAMED).filter(|(_, count)| **count > 0.005) {
            write!(formatter, " {name} {count:.2}")?;
        }
        Ok(())
    }
}

fn instructions(kind: Kind, workload: &'static Workload, calls: u64, setup: &Setup) -> Result<u64> {
    // Named by the caller, the profile of the last run is kept for callgrind_annotate.
    let profile = std::env::var("CALLGRIND_OUT").unwrap_or_else(|_| "/dev/null".to_owned());
    let profile = format!("--callgrind-out-file={profile}");
    let wrapper = ["valgrind".to_owned(), "--tool=callgrind".to_owned(), profile];
    let said = call_under(&wrapper, kind, workload, calls, setup)?;
    let mut collected = said.lines().filter_map(|line| line.split_once("Collected : "));
    let (_, count) =
        collected.next_back().with_context(|| format!("valgrind told no count:\n{said}"))?;
    Ok(count.trim().parse()?)
}

fn system_calls(
    kind: Kind,
    workload: &'static Workload,
    calls: u64,
    setup: &Setup,
) -> Result<BTreeMap<String, u64>> {
    let table = setup.folder.join("strace.txt");
    // -D: the proxy is our child and strace beside it, so that our signals reach the proxy.
    let options = ["strace", "-D", "-f", "-qq", "-c", "-U", "calls,name", "-o"];
    let mut wrapper = options.map(str::to_owned).to_vec();
    wrapper.push(table.to_str().context("the temporary folder is not UTF-8")?.to_owned());
    let _ = fs::remove_file(&table);
    call_under(&wrapper, kind, workload, calls, setup)?;

    let begin = Instant::now();
    loop {
        let text = fs::read_to_string(&table).unwrap_or_default();
        if text.trim_end().ends_with("total") {
            return Ok(text.lines().filter_map(table_row).collect());
        }
        ensure!(begin.elapsed() < Duration::from_secs(10), "strace wrote no table");
        sleep(Duration::from_millis(20));
    }
}

/// A row of strace's table: how often, and which call. The last row, their sum, is none.
fn table_row(line: &str) -> Option<(String, u64)> {
    let (count, name) = line.trim().split_once(char::is_whitespace)?;
    let name = name.trim();
    if name == "total" { None } else { Some((name.to_owned(), count.parse().ok()?)) }
}

/// Makes so many calls through a proxy that runs under `wrapper`; what was said on standard error.
fn call_under(
    wrapper: &[String],
    kind: Kind,
    workload: &'static Workload,
    calls: u64,
    setup: &Setup,
) -> Result<String> {
    let target = Target::start_under(wrapper, kind, setup, false)?;
    let load = Load { connections: CONNECTIONS, until: Until::Calls(calls) };
    client::run(target.address, workload, load)?;
    target.stop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_the_table_is_a_count_and_a_name() {
        assert_eq!(table_row("     4012 recvfrom"), Some(("recvfrom".to_owned(), 4012)));
        assert_eq!(table_row("--------- ----------------"), None);
        assert_eq!(table_row("     9000 total"), None);
    }
}
