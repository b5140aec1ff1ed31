//! The figures in the form of `vllm bench serve --save-result`, for scripts that read that.
//!
//! Times count from when a call was sent, as there; what they were from when it was due stands beside
//! them under names of ours. `itl` are the times between chunks with tokens, as there. `request_rate`
//! is `inf` in a closed loop.

use serde_json::{Map, Value, json};
use tidegate_settings::Metric;

use super::Report;

/// What vLLM has, by its names, and what it is with us.
const TIMES: [(&str, Metric); 4] = [
    ("ttft", Metric::ServiceTimeToFirstToken),
    ("tpot", Metric::TimePerOutputToken),
    ("itl", Metric::Gap),
    ("e2el", Metric::ServiceDuration),
];
/// The same from when a call was due, which vLLM has not.
const FROM_DUE: [(&str, Metric); 2] =
    [("tidegate_due_ttft", Metric::TimeToFirstToken), ("tidegate_due_e2el", Metric::Duration)];
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)];

impl Report {
    /// The figures as a JSON document of vLLM's benchmark.
    pub fn vllm_json(&self) -> String {
        let (run, total) = (&self.run, &self.total);
        let models: Vec<_> = self.models.iter().map(|model| &*model.name).collect();
        let completed = total.outcomes.completed;
        let per_second = |count: Option<u64>| match run.lasted_s {
            seconds if seconds > 0.0 => count.unwrap_or(0) as f64 / seconds,
            _ => 0.0,
        };
        let tokens = (total.tokens.input, total.tokens.output);
        let all_tokens = tokens.0.unwrap_or(0) + tokens.1.unwrap_or(0);
        let goodput = total.goodput.map(|share| share * total.calls_per_s);
        let document = json!({
            "date": run.began.strftime("%Y%m%d-%H%M%S").to_string(),
            "backend": "tidegate",
            "endpoint_type": "tidegate",
            "label": null,
            "model_id": models.join(", "),
            "tokenizer_id": null,
            "num_prompts": total.calls,
            "request_rate": run.rate.map_or(json!("inf"), |rate| json!(rate)),
            "burstiness": 1.0,
            "max_concurrency": run.users,
            "duration": run.lasted_s,
            "completed": completed,
            "failed": total.calls - completed,
            "total_input_tokens": tokens.0,
            "total_output_tokens": tokens.1,
            "request_throughput": per_second(Some(completed)),
            "request_goodput": goodput,
            "output_throughput": per_second(tokens.1),
            "total_token_throughput": per_second(Some(all_tokens)),
        });
        let Value::Object(mut document) = document else { unreachable!("it is written as one") };
        for (name, metric) in TIMES.into_iter().chain(FROM_DUE) {
            self.times_of(name, metric, &mut document);
        }
        serde_json::to_string_pretty(&document).expect("its keys are texts")
    }

    /// In milliseconds; absent where nothing was measured.
    fn times_of(&self, name: &str, metric: Metric, document: &mut Map<String, Value>) {
        let times = self.figures.times(metric);
        let (Some(quantiles), Some(deviation)) = (times.quantiles(), times.deviation()) else {
            return;
        };
        let mut put = |what: &str, seconds: f64| {
            document.insert(format!("{what}_{name}_ms"), json!(seconds * 1e3));
        };
        put("mean", quantiles.mean);
        put("median", quantiles.p50);
        put("std", deviation);
        for (what, quantile) in QUANTILES {
            put(what, times.at(quantile).unwrap_or_default());
        }
    }
}
