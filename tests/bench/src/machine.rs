//! The machine that the figures are from, and this process's place on it.

use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

use anyhow::{Context as _, Result, ensure};

/// Where the mock, the callers and the sink run: this process.
const OWN_CORE: &str = "0";
/// Where the proxy that is measured runs, alone.
const PROXY_CORE: &str = "1";
/// For 1,000 streams, both ends of each being in this process.
const DESCRIPTORS: usize = 8192;

/// Who runs where.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    apart: bool,
}

impl Cores {
    /// Puts this process on its core, and what it starts with [`Cores::command`] on the other.
    pub fn take() -> Result<Self> {
        let apart = available_parallelism()?.get() > 1;
        let own = std::process::id().to_string();
        if apart {
            quietly(Command::new("taskset").args(["-a", "-c", "-p", OWN_CORE, &own]))?;
        }
        let descriptors = format!("--nofile={DESCRIPTORS}:");
        quietly(Command::new("prlimit").args(["--pid", &own, &descriptors]))?;
        Ok(Self { apart })
    }

    /// A command that runs `program` on the proxy's core. The process id stays the command's.
    pub fn command(self, program: &str) -> Command {
        if !self.apart {
            return Command::new(program);
        }
        let mut command = Command::new("taskset");
        command.args(["-c", PROXY_CORE, program]);
        command
    }

    /// Who runs where, in one line.
    pub fn describe(self) -> &'static str {
        match self.apart {
            true => "mock, callers and sink on core 0, the proxy alone on core 1",
            false => "one core for mock, callers and proxy: only CPU time means anything here",
        }
    }
}

fn quietly(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", said.trim());
    Ok(())
}

/// The processor and the kernel, in one line.
pub fn describe() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // Of the machine: this process may use but one.
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

/// Processes that wanted a core over the last minute.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}
