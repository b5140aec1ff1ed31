//! How many calls a second leave on time: the highest rate at which 99 of 100 are sent within a
//! millisecond of when they were due.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tidegate_bench::mock;

use crate::tool::Call;
use crate::{Bench, median};

/// The first rate; each next one is twice as high, until one is too high. Then the middle is tried.
const FROM: f64 = 250.0;
const MOST: f64 = 64_000.0;
const HALVINGS: usize = 4;
const LATE_S: f64 = 0.001;

/// What a rate came to.
#[derive(Clone, Copy, Debug)]
struct Step {
    rate: f64,
    p50_s: f64,
    p99_s: f64,
    is_valid: bool,
}

// === impl Step ===

impl Step {
    fn is_on_time(&self) -> bool {
        self.is_valid && self.p99_s < LATE_S
    }
}

pub(crate) fn ask(bench: &Bench) -> Result<Value> {
    let target = mock::start_for_anything()?;
    let (mut highest, mut steps) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        highest.push(search(bench, target, &mut steps)?);
    }
    steps.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    println!("{:>10}{:>14}{:>14}", "calls/s", "lag p50, µs", "lag p99, µs");
    for Step { rate, p50_s, p99_s, is_valid } in &steps {
        let word = if *is_valid { "" } else { "  invalid" };
        println!("{rate:>10.0}{:>14.0}{:>14.0}{word}", p50_s * 1e6, p99_s * 1e6);
    }
    println!("highest rate with the lag's p99 below 1 ms: {:.0} calls/s", median(highest.clone()));
    let steps: Value = steps
        .iter()
        .map(|one| json!({ "rate": one.rate, "p50_s": one.p50_s, "p99_s": one.p99_s, "valid": one.is_valid }))
        .collect();
    Ok(json!({ "highest_calls_per_s": highest, "steps": steps }))
}

fn search(bench: &Bench, target: SocketAddr, steps: &mut Vec<Step>) -> Result<f64> {
    let mut try_at = |rate: f64| -> Result<bool> {
        let step = step(bench, target, rate)?;
        steps.push(step);
        Ok(step.is_on_time())
    };
    let (mut held, mut rate) = (0.0, FROM);
    let most = if bench.quick { FROM } else { MOST };
    while rate <= most && try_at(rate)? {
        (held, rate) = (rate, rate * 2.0);
    }
    let (mut low, mut high) = (held, rate);
    let halvings = if bench.quick || held == 0.0 || rate > most { 0 } else { HALVINGS };
    for _ in 0..halvings {
        let middle = ((low + high) / 2.0).round();
        match try_at(middle)? {
            true => low = middle,
            false => high = middle,
        }
    }
    Ok(low)
}

fn step(bench: &Bench, target: SocketAddr, rate: f64) -> Result<Step> {
    let mix = bench.tools.mix_of(Call::Whole);
    let long = if bench.quick { "2s" } else { "6s" };
    let (mix, rate_text) = (mix.to_str().context("a path that is UTF-8")?, rate.to_string());
    let arguments = ["--mix", mix, "--rate", &rate_text, "--users", "500", "--duration", long];
    let warm = ["--warm-up", "1s"];
    let running =
        bench.tools.tidegate_load(bench.cores, target, &[&arguments[..], &warm].concat())?;
    let said = running.ended(Duration::from_secs(10))?;
    let report = fs::read_to_string(bench.tools.report()).context(said)?;
    let report: Value = serde_json::from_str(&report)?;
    let lag = |name: &str| report["generator"]["send_lag_s"][name].as_f64().context("no lag");
    Ok(Step { rate, p50_s: lag("p50")?, p99_s: lag("p99")?, is_valid: report["invalid"].is_null() })
}
