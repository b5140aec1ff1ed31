//! What a process has used, as the kernel tells it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// `VmRSS`: what is resident, the program's own file included.
    pub resident: u64,
    /// `RssAnon`: of that, what no file stands behind.
    pub anonymous: u64,
    /// `VmHWM`: the most that was resident since the start or since [`forget_peak`].
    pub peak: u64,
}

/// Time that the process ran, in user and kernel mode, to the nanosecond; threads that have ended are in
/// it, too (clock_getcpuclockid(3)).
pub fn cpu(pid: u32) -> Result<Duration> {
    let ended = "reading the CPU time of what is measured: it has ended";
    let clock = clock_getcpuclockid(Pid::from_raw(pid.try_into()?)).context(ended)?;
    Ok(clock_gettime(clock).context(ended)?.into())
}

/// What the process holds now, and the most that it held.
pub fn memory(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(process(pid).join("status"))
        .context("reading the memory of the proxy: it has ended")?;
    let field = |name: &str| -> Result<u64> {
        let line = status.lines().find(|line| line.starts_with(name));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(kib.with_context(|| format!("no {name} in /proc/{pid}/status"))?.parse::<u64>()? * 1024)
    };
    Ok(Memory { resident: field("VmRSS:")?, anonymous: field("RssAnon:")?, peak: field("VmHWM:")? })
}

/// Lets [`Memory::peak`] begin anew at what is resident now.
pub fn forget_peak(pid: u32) -> Result<()> {
    fs::write(process(pid).join("clear_refs"), "5").context("resetting the peak of memory")
}

fn process(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}
