//! `GET /metrics`: what the simulator is doing, by the names of vLLM (its V1 engine) and of the DCGM
//! exporter, in the text format of Prometheus.
//!
//! All of it is the simulator's own state. The GPU is as busy as slots are taken, and the cache has
//! room for [`CACHE_TOKENS`] of each sequence that could run.

use std::fmt::Write;

use super::capacity::Load;
use super::engine::{Engine, Histogram, REASONS};

/// Tokens of one sequence for which the cache has room.
const CACHE_TOKENS: u64 = 1024;

/// What every series of vLLM is labelled with.
const MODEL: &str = r#"model_name="sim",engine="0""#;

/// What every series of the GPU is labelled with.
const GPU: &str = r#"gpu="0",UUID="GPU-00000000-0000-0000-0000-000000000000",pci_bus_id="00000000:00:00.0",device="nvidia0",modelName="Simulated",Hostname="sim""#;

/// All metrics, as text.
pub(super) fn text(engine: &Engine, load: Load) -> String {
    let counts = engine.counts();
    let room = CACHE_TOKENS.saturating_mul(load.sequences as u64);
    let mut page = Page::default();
    page.gauge("vllm:num_requests_running", MODEL, load.running as f64);
    page.gauge("vllm:num_requests_waiting", MODEL, load.waiting as f64);
    page.gauge("vllm:kv_cache_usage_perc", MODEL, (engine.held() as f64 / room as f64).min(1.0));
    // No prompt is found in a cache, and no sequence has to make room for another.
    page.counter("vllm:prefix_cache_queries_total", &[(MODEL, counts.prompt_tokens)]);
    page.counter("vllm:prefix_cache_hits_total", &[(MODEL, 0)]);
    page.counter("vllm:num_preemptions_total", &[(MODEL, 0)]);
    page.counter("vllm:prompt_tokens_total", &[(MODEL, counts.prompt_tokens)]);
    page.counter("vllm:generation_tokens_total", &[(MODEL, counts.generation_tokens)]);
    let ended = REASONS.map(|reason| format!(r#"{MODEL},finished_reason="{reason}""#));
    let ended: Vec<_> = ended.iter().map(String::as_str).zip(counts.ended).collect();
    page.counter("vllm:request_success_total", &ended);
    page.histogram("vllm:request_queue_time_seconds", &counts.queue);
    page.histogram("vllm:time_to_first_token_seconds", &counts.first_token);
    page.histogram("vllm:e2e_request_latency_seconds", &counts.latency);
    let busy = 100.0 * load.running as f64 / load.sequences as f64;
    page.gauge("DCGM_FI_DEV_GPU_UTIL", GPU, busy.round());
    page.0
}

/// Metrics that are written one below the other.
#[derive(Default)]
struct Page(String);

// === impl Page ===

impl Page {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a string takes all that is written");
    }

    fn gauge(&mut self, name: &str, labels: &str, value: f64) {
        self.line(format_args!("# TYPE {name} gauge"));
        self.line(format_args!("{name}{{{labels}}} {value}"));
    }

    fn counter(&mut self, name: &str, series: &[(&str, u64)]) {
        self.line(format_args!("# TYPE {name} counter"));
        for (labels, value) in series {
            self.line(format_args!("{name}{{{labels}}} {value}"));
        }
    }

    fn histogram(&mut self, name: &str, histogram: &Histogram) {
        self.line(format_args!("# TYPE {name} histogram"));
        let mut below = 0;
        let bounds = histogram.bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&histogram.counts) {
            below += count;
            self.line(format_args!("{name}_bucket{{{MODEL},le=\"{bound}\"}} {below}"));
        }
        self.line(format_args!("{name}_sum{{{MODEL}}} {}", histogram.sum));
        self.line(format_args!("{name}_count{{{MODEL}}} {below}"));
    }
}
