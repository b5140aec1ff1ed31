//! Asks each address of an upstream for its load, in the metrics that vLLM shows.
//!
//! A server knows of calls that come past us, and how full its cache is. What it says is added to
//! what we count; where it says nothing for a while, that is left out.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::address::{Address, Load};
use super::balance::Balancer;
use super::probe;
use super::watch::each;
use crate::config::Span;

/// How many intervals long what an address has said is believed.
const BELIEVED: u32 = 3;
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(2);

/// Asks each address for its load.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SteerConfig {
    /// Whose metrics these are.
    pub metrics: Metrics,
    /// Where they are, from the root of the server.
    pub path: String,
    /// From one look to the next.
    pub interval: Span,
}

/// Whose metrics an address shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Metrics {
    /// vLLM's, of any version.
    #[default]
    Vllm,
}

impl Default for SteerConfig {
    fn default() -> Self {
        let interval = Span(Duration::from_secs(2));
        Self { metrics: Metrics::Vllm, path: "/metrics".to_owned(), interval }
    }
}

/// Asks all addresses again and again. Never ends.
pub(super) async fn run(balancer: Arc<Balancer>) {
    let Some(config) = &balancer.config().steer else { return };
    each(&balancer, config.interval.0, ask).await;
}

async fn ask(balancer: Arc<Balancer>, address: Arc<Address>) {
    let Some(config) = &balancer.config().steer else { return };
    let origin = balancer.spec.origin(address.url, None).at(address.at);
    let answer = probe::get(&origin, &config.path, &balancer.spec.name, LIMIT).await;
    let text = answer.ok().filter(|answer| answer.status == 200).map(|answer| answer.body);
    let load = text.and_then(|text| match config.metrics {
        Metrics::Vllm => vllm(std::str::from_utf8(&text).ok()?),
    });
    match load {
        Some(load) => {
            let lasts = config.interval.0.saturating_mul(BELIEVED);
            balancer.group("").says(&address, load, lasts, Instant::now());
        }
        None => _ = balancer.counts().failed_steering.fetch_add(1, Relaxed),
    }
}

/// The load that vLLM tells of; of several engines in a process, the sum, and the fullest cache.
fn vllm(text: &str) -> Option<Load> {
    let (mut load, mut is_told) = (Load::default(), false);
    for line in text.lines().filter(|line| line.starts_with("vllm:")) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let Some(value) = value(line) else { continue };
        match name {
            "vllm:num_requests_waiting" => load.waiting += value,
            "vllm:num_requests_running" => load.running += value,
            // Its name changed with vLLM's second engine.
            "vllm:kv_cache_usage_perc" | "vllm:gpu_cache_usage_perc" => {
                load.cache = load.cache.max(value);
                continue;
            }
            _ => continue,
        }
        is_told = true;
    }
    is_told.then_some(load)
}

/// The value of a sample, behind its labels, which may hold anything.
fn value(line: &str) -> Option<f32> {
    let behind = line.rsplit_once('}').map_or_else(|| line.split_once(' '), Some)?.1;
    let value: f32 = behind.split_whitespace().next()?.parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_vllm_tells_is_read_in_the_words_of_its_versions() {
        let old = r#"
# HELP vllm:num_requests_running Number of requests currently running on GPU.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="a } b"} 8.0
vllm:num_requests_waiting{model_name="a } b"} 3.0
vllm:gpu_cache_usage_perc{model_name="a } b"} 0.25
vllm:num_requests_waiting_total{model_name="a"} 99.0
"#;
        let load = |waiting, running, cache| Some(Load { waiting, running, cache });
        assert_eq!(vllm(old), load(3.0, 8.0, 0.25));
        let new = "vllm:num_requests_running{engine=\"0\"} 1\nvllm:num_requests_running{engine=\"1\"} 2e0\n\
                   vllm:num_requests_waiting 4\n\
                   vllm:kv_cache_usage_perc{engine=\"0\"} 0.5 1700000000000\n\
                   vllm:kv_cache_usage_perc{engine=\"1\"} 0.75\n";
        assert_eq!(vllm(new), load(4.0, 3.0, 0.75));
    }

    #[test]
    fn what_is_no_load_is_none() {
        for text in [
            "",
            "<html>",
            "vllm:num_requests_running",
            "vllm:num_requests_waiting{} NaN",
            "vllm:num_requests_waiting -1",
            "vllm:num_requests_waiting{",
            "vllm:kv_cache_usage_perc 0.5",
        ] {
            assert_eq!(vllm(text), None, "{text}");
        }
    }
}
