//! What some calls came to, in numbers that people read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tidegate_settings::Metric;

use crate::figures::{Kind, Outcomes, Quantiles, Tally, Tokens};

/// What some calls came to. What was not measured is absent.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Calls made.
    pub calls: u64,
    /// Of these, asked for as a stream.
    pub streams: u64,
    /// Of these, by how they ended.
    pub outcomes: Outcomes,
    /// Of these, in trouble, by its kind.
    pub kinds: BTreeMap<Kind, u64>,
    /// Calls that the upstream, a sidecar or a quota failed, and truncated ones, by all but those that
    /// were abandoned or whose request was at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_ratio: Option<f64>,
    /// Completed calls that measured and met every objective that applies to them, by all that were
    /// due; absent without objectives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goodput: Option<f64>,
    /// Calls each second.
    pub calls_per_s: f64,
    /// Tokens as the provider stated them.
    pub tokens: Tokens,
    /// What they cost by the table of prices, in US dollars; calls without a price are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Calls that used something without a price.
    pub unpriced: u64,
    /// Output tokens each second.
    pub output_tokens_per_s: f64,
    /// How long after it was due a call was sent.
    pub send_lag_s: Option<Quantiles>,
    /// Each time that was measured, by its name with `_s`.
    #[serde(flatten, serialize_with = "in_seconds")]
    pub times: BTreeMap<Metric, Quantiles>,
}

/// The calls of one model, route or stage.
#[derive(Debug, Serialize)]
pub struct Part {
    /// Which.
    pub name: Arc<str>,
    /// What they came to.
    #[serde(flatten)]
    pub summary: Summary,
}

// === impl Summary ===

impl Summary {
    /// Of these calls, in a run that lasted so long.
    pub(crate) fn of(tally: &Tally, lasted: Duration) -> Self {
        let per_s = |count: u64| match lasted.as_secs_f64() {
            0.0 => 0.0,
            seconds => count as f64 / seconds,
        };
        let times = tally.times.iter();
        Self {
            calls: tally.calls(),
            streams: tally.streams,
            outcomes: tally.outcomes,
            kinds: tally.kinds.clone(),
            error_ratio: ratio(tally.bad, tally.accountable),
            goodput: None,
            calls_per_s: per_s(tally.calls()),
            tokens: tally.tokens,
            cost_usd: tally.cost,
            unpriced: tally.unpriced,
            output_tokens_per_s: per_s(tally.tokens.output.unwrap_or(0)),
            send_lag_s: tally.send_lag.quantiles(),
            times: times.filter_map(|(of, times)| Some((*of, times.quantiles()?))).collect(),
        }
    }

    /// Calls that did not complete, but for those that we cut off ourselves.
    pub fn errors(&self) -> u64 {
        self.calls - self.outcomes.completed - self.outcomes.abandoned
    }

    /// One of the times, where it was measured.
    pub fn time(&self, metric: Metric) -> Option<&Quantiles> {
        self.times.get(&metric)
    }
}

/// A share, where there is a whole.
pub(crate) fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn in_seconds<S: serde::Serializer>(
    times: &BTreeMap<Metric, Quantiles>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(Metric::TIMES.map(|metric| (format!("{metric}_s"), times.get(&metric))))
}
