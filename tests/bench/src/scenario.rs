//! The questions: what is asked of each target, and which figures answer it.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;

use crate::client::{self, Load, Tally, Until};
use crate::target::{Kind, Setup, Target};
use crate::truth;
use tidegate_bench::usage::{self, Memory};
use tidegate_bench::workload;

use Figure::*;

/// One question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    workload: &'static str,
    pub(crate) connections: usize,
    /// How long calls begin, in a full run.
    length: Duration,
    /// Whether the proxy has served calls before; one whose memory is asked for has not.
    warm: bool,
    /// Whether tidegate keeps answers; nginx goes on to ask for them.
    cache: bool,
    pub(crate) figures: &'static [Figure],
}

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "plain-16",
        about: "1 KiB up, 2 KiB down, 16 connections",
        workload: "plain",
        connections: 16,
        length: Duration::from_millis(2000),
        warm: true,
        cache: false,
        figures: &[CpuPerCall, CallsPerSecond, LatencyP50, LatencyP99],
    },
    Scenario {
        name: "plain-64",
        about: "1 KiB up, 2 KiB down, 64 connections",
        workload: "plain",
        connections: 64,
        length: Duration::from_millis(2000),
        warm: true,
        cache: false,
        figures: &[CpuPerCall, CallsPerSecond, LatencyP50, LatencyP99],
    },
    Scenario {
        name: "burst",
        about: "streams of 100 chunks back to back, 16 at once",
        workload: "burst",
        connections: 16,
        length: Duration::from_millis(2000),
        warm: true,
        cache: false,
        // At saturation, times to first token only tell how long the queue is.
        figures: &[CpuPerChunk, CallsPerSecond, LatencyP50],
    },
    Scenario {
        name: "paced",
        about: "streams of 50 chunks 20 ms apart, 200 at once",
        workload: "paced",
        connections: 200,
        length: Duration::from_millis(3000),
        warm: true,
        cache: false,
        figures: &[
            CpuPerChunk,
            AddedTtftP50,
            AddedTtftP99,
            TransitP50,
            TransitP99,
            FirstTokenOffP50,
            FirstTokenOffP99,
        ],
    },
    Scenario {
        name: "crowd",
        about: "streams of 50 chunks 20 ms apart, 1,000 at once, the proxy freshly started",
        workload: "paced",
        connections: 1000,
        length: Duration::from_millis(3000),
        warm: false,
        cache: false,
        figures: &[
            MemoryAtRest,
            AnonymousAtRest,
            MemoryAtPeak,
            MemoryPerStream,
            CpuPerChunk,
            AddedTtftP50,
            AddedTtftP90,
        ],
    },
    Scenario {
        name: "hit",
        about: "1 KiB up, 2 KiB down out of the cache, 16 connections; nginx asks for it each time",
        workload: "hit",
        connections: 16,
        length: Duration::from_millis(2000),
        warm: true,
        cache: true,
        figures: &[CpuPerHit, CallsPerSecond, LatencyP50, LatencyP99],
    },
    Scenario {
        name: "hit-burst",
        about: "streams of 100 chunks back to back out of the cache, 16 at once",
        workload: "hit-burst",
        connections: 16,
        length: Duration::from_millis(2000),
        warm: true,
        cache: true,
        figures: &[CpuPerHit, CallsPerSecond, LatencyP50],
    },
    Scenario {
        name: "request-1m",
        about: "1 MiB up, 2 KiB down, 4 connections",
        workload: "request-1m",
        connections: 4,
        length: Duration::from_millis(1500),
        warm: true,
        cache: false,
        figures: &[CpuPerCall, CallsPerSecond],
    },
    Scenario {
        name: "request-20m",
        about: "20 MiB up, one at a time, beside what calls of 1 KiB needed",
        workload: "request-20m",
        connections: 1,
        length: Duration::from_millis(500),
        warm: true,
        cache: false,
        figures: &[MemoryRise],
    },
];

/// One answer of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    CpuPerCall,
    CpuPerHit,
    CpuPerChunk,
    CallsPerSecond,
    LatencyP50,
    LatencyP99,
    AddedTtftP50,
    AddedTtftP90,
    AddedTtftP99,
    TransitP50,
    TransitP99,
    FirstTokenOffP50,
    FirstTokenOffP99,
    MemoryAtRest,
    AnonymousAtRest,
    MemoryAtPeak,
    MemoryPerStream,
    MemoryRise,
}

/// What a figure of tidegate should not exceed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// Times the figure of nginx in the same round.
    TimesNginx(f64),
    /// Times the figure of the direct way in the same round.
    TimesDirect(f64),
    AtMost(f64),
}

impl Figure {
    pub(crate) fn label(self) -> &'static str {
        match self {
            CpuPerCall => "CPU, µs per call",
            CpuPerHit => "CPU, µs per hit",
            CpuPerChunk => "CPU, µs per chunk",
            CallsPerSecond => "calls per second",
            LatencyP50 => "latency p50, µs",
            LatencyP99 => "latency p99, µs",
            AddedTtftP50 => "added TTFT p50, µs",
            AddedTtftP90 => "added TTFT p90, µs",
            AddedTtftP99 => "added TTFT p99, µs",
            TransitP50 => "chunk transit p50, µs",
            TransitP99 => "chunk transit p99, µs",
            FirstTokenOffP50 => "first token off p50, µs",
            FirstTokenOffP99 => "first token off p99, µs",
            MemoryAtRest => "memory at rest, MiB",
            AnonymousAtRest => "of it anonymous, MiB",
            MemoryAtPeak => "memory at peak, MiB",
            MemoryPerStream => "memory, KiB per stream",
            MemoryRise => "memory rise, MiB",
        }
    }

    pub(crate) fn decimals(self) -> usize {
        match self {
            CpuPerCall | CpuPerHit | CpuPerChunk | MemoryAtRest | AnonymousAtRest
            | MemoryAtPeak | MemoryPerStream | MemoryRise => 1,
            _ => 0,
        }
    }

    /// The product's own goals, on the way to the floor.
    pub(crate) fn goal(self) -> Option<Goal> {
        match self {
            CpuPerCall => Some(Goal::TimesNginx(1.4)),
            CpuPerHit => Some(Goal::TimesNginx(0.6)),
            CpuPerChunk => Some(Goal::TimesNginx(1.3)),
            FirstTokenOffP50 => Some(Goal::AtMost(200.0)),
            FirstTokenOffP99 => Some(Goal::TimesDirect(2.0)),
            MemoryAtRest => Some(Goal::AtMost(20.0)),
            MemoryPerStream => Some(Goal::AtMost(32.0)),
            MemoryRise => Some(Goal::AtMost(1.0)),
            _ => None,
        }
    }

    /// Whether it says something as a multiple of nginx: what may be about nothing does not.
    pub(crate) fn has_ratio(self) -> bool {
        !matches!(self, MemoryRise | AddedTtftP50 | AddedTtftP90 | AddedTtftP99)
    }

    /// The figure of one sample, beside that of the direct way in the same round. None where it
    /// has none: the direct way is no process and adds nothing.
    pub(crate) fn of(self, sample: &Sample, direct: Option<&Sample>) -> Option<f64> {
        const MIB: f64 = 1024.0 * 1024.0;
        let tally = &sample.tally;
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        let used = sample.used.as_ref();
        let cpu_micros = used.map(|used| used.cpu.as_secs_f64() * 1e6);
        let above = |base: fn(&Used) -> Memory| {
            used.map(|used| used.peak.peak.saturating_sub(base(used).resident) as f64)
        };
        let added = |quantile: f64| {
            let own = tally.first_event.value_at_quantile(quantile);
            let direct = direct?.tally.first_event.value_at_quantile(quantile);
            used.map(|_| micros(own) - micros(direct))
        };
        let off = |quantile: f64| {
            let told = sample.first_token_off.as_ref().filter(|told| !told.is_empty())?;
            Some(micros(told.value_at_quantile(quantile)))
        };
        match self {
            CpuPerCall | CpuPerHit => Some(cpu_micros? / tally.calls as f64),
            CpuPerChunk => Some(cpu_micros? / tally.events as f64),
            CallsPerSecond => Some(tally.calls as f64 / tally.elapsed.as_secs_f64()),
            LatencyP50 => Some(micros(tally.latency.value_at_quantile(0.5))),
            LatencyP99 => Some(micros(tally.latency.value_at_quantile(0.99))),
            AddedTtftP50 => added(0.5),
            AddedTtftP90 => added(0.9),
            AddedTtftP99 => added(0.99),
            TransitP50 => Some(micros(tally.transit.value_at_quantile(0.5))),
            TransitP99 => Some(micros(tally.transit.value_at_quantile(0.99))),
            FirstTokenOffP50 => off(0.5),
            FirstTokenOffP99 => off(0.99),
            MemoryAtRest => Some(used?.rest.resident as f64 / MIB),
            AnonymousAtRest => Some(used?.rest.anonymous as f64 / MIB),
            MemoryAtPeak => Some(used?.peak.peak as f64 / MIB),
            MemoryPerStream => Some(above(|used| used.rest)? / 1024.0 / sample.connections as f64),
            MemoryRise => Some(above(|used| used.warm)? / MIB),
        }
    }
}

/// What one target did in one round of one scenario.
#[derive(Debug)]
pub(crate) struct Sample {
    connections: usize,
    tally: Tally,
    /// How far off the truth its word on the first token is: a caller's own on the direct way, the
    /// records' where there are some.
    first_token_off: Option<Histogram<u64>>,
    /// What the process used; the direct way has none.
    used: Option<Used>,
}

#[derive(Debug)]
struct Used {
    cpu: Duration,
    /// Before its first call.
    rest: Memory,
    /// After the warm-up, where there is one.
    warm: Memory,
    peak: Memory,
}

impl Scenario {
    /// Starts the target, asks, and stops it: what one round left behind is not in the next.
    pub(crate) fn measure(&self, kind: Kind, setup: &Setup, quick: bool) -> Result<Sample> {
        let workload = workload::named(self.workload).context("no such workload")?;
        let length = if quick { self.length / 4 } else { self.length };
        let load = Load { connections: self.connections, until: Until::Elapsed(length) };

        let target = Target::start(kind, setup, self.cache)?;
        sleep(Duration::from_millis(300));
        let rest = target.pid().map(usage::memory).transpose()?;
        if self.warm {
            warm_up(&target, self.connections)?;
        }
        target.pid().map(usage::forget_peak).transpose()?;
        let warm = target.pid().map(usage::memory).transpose()?;
        let before = target.pid().map(usage::cpu).transpose()?;
        let tally = client::run(target.address, workload, load)?;
        ensure!(tally.calls > 0, "no call ended");
        let used = match (target.pid(), rest, warm, before) {
            (Some(pid), Some(rest), Some(warm), Some(before)) => {
                let (cpu, peak) = (usage::cpu(pid)? - before, usage::memory(pid)?);
                Some(Used { cpu, rest, warm, peak })
            }
            _ => None,
        };
        target.stop()?;
        let first_token_off = match kind {
            Kind::Direct => Some(tally.first_transit.clone()),
            Kind::Tidegate => Some(truth::first_token_off(&setup.records())?),
            Kind::Nginx | Kind::Haproxy => None,
        };
        Ok(Sample { connections: self.connections, tally, first_token_off, used })
    }
}

/// Opens the upstream's connections and lets memory settle.
fn warm_up(target: &Target, connections: usize) -> Result<()> {
    let plain = workload::named("plain").context("no such workload")?;
    let load = Load { connections, until: Until::Elapsed(Duration::from_millis(300)) };
    client::run(target.address, plain, load).context("warming up")?;
    Ok(())
}
