//! What was counted of each arm of a route's split, since this process began.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tidegate_wire::{ErrorOrigin, Outcome};

use super::series::{Labels, Series};
use super::value::{Amount, Histogram, SECONDS};
use super::{AllSeries, Registry};

/// What was counted of one arm; what caches answered is none of it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ArmFigures {
    calls: u64,
    outcomes: BTreeMap<&'static str, u64>,
    /// Calls that count as errors, of those that count at all; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_s: Option<Times>,
    /// Of streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_to_first_token_s: Option<Times>,
    /// As the provider states them; absent where it stated none.
    #[serde(skip_serializing_if = "Option::is_none")]
    input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens: Option<u64>,
    /// Of the calls that have a price.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_usd: Option<f64>,
}

/// How long something took: the mean is exact, the others are told from buckets as Prometheus does.
#[derive(Clone, Copy, Debug, Serialize)]
struct Times {
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
}

/// Sums of one arm.
#[derive(Debug)]
struct Sum {
    outcomes: BTreeMap<&'static str, u64>,
    errors: u64,
    /// Of which the errors are a share.
    judged: u64,
    duration: Histogram,
    time_to_first_token: Histogram,
    tokens: [Option<u64>; 2],
    cost: Option<Amount>,
}

impl Registry {
    /// The figures of the arms of this route's split that have had calls.
    pub(crate) fn arms(&self, route: &str) -> BTreeMap<Arc<str>, ArmFigures> {
        let mut sums = BTreeMap::<Arc<str>, Sum>::new();
        self.each_series(|all: &AllSeries| {
            let of_route = all
                .iter()
                .filter(|(labels, _)| &*labels.route == route && !labels.split.is_empty());
            for (labels, series) in of_route {
                sums.entry(labels.split.clone()).or_insert_with(Sum::new).add(labels, series);
            }
        });
        sums.into_iter().map(|(arm, sum)| (arm, sum.figures())).collect()
    }
}

// === impl Sum ===

impl Sum {
    fn new() -> Self {
        Self {
            outcomes: BTreeMap::new(),
            errors: 0,
            judged: 0,
            duration: Histogram::new(SECONDS),
            time_to_first_token: Histogram::new(SECONDS),
            tokens: [None; 2],
            cost: None,
        }
    }

    fn add(&mut self, labels: &Labels, series: &Series) {
        let Some(outcome) = labels.outcome else { return };
        *self.outcomes.entry(outcome.as_str()).or_default() += series.calls;
        let is_error = match outcome {
            Outcome::Truncated => Some(true),
            Outcome::Failed => (labels.error_origin != Some(ErrorOrigin::Client)).then_some(true),
            Outcome::Abandoned => None,
            Outcome::Completed | Outcome::Refused => Some(false),
        };
        self.judged += if is_error.is_some() { series.calls } else { 0 };
        self.errors += if is_error == Some(true) { series.calls } else { 0 };
        self.duration.merge(&series.duration);
        self.time_to_first_token.merge(&series.time_to_first_token);
        for (sum, stated) in self.tokens.iter_mut().zip(series.tokens) {
            *sum = stated.map_or(*sum, |stated| Some(sum.unwrap_or(0).saturating_add(stated)));
        }
        if let Some(cost) = series.cost {
            self.cost.get_or_insert_default().add(cost);
        }
    }

    fn figures(self) -> ArmFigures {
        let [input_tokens, output_tokens] = self.tokens;
        ArmFigures {
            calls: self.outcomes.values().sum(),
            error_ratio: (self.judged > 0).then(|| self.errors as f64 / self.judged as f64),
            outcomes: self.outcomes,
            duration_s: Times::of(&self.duration),
            time_to_first_token_s: Times::of(&self.time_to_first_token),
            input_tokens,
            output_tokens,
            cost_usd: self.cost.map(Amount::units),
        }
    }
}

// === impl Times ===

impl Times {
    fn of(counted: &Histogram) -> Option<Self> {
        let mean = counted.sum() / counted.count() as f64;
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|share| counted.quantile(share));
        Some(Self { mean, p50: p50?, p90: p90?, p99: p99? })
    }
}

#[cfg(test)]
mod tests {
    use tidegate_wire::{CacheSource, Cached, Record};

    use super::super::lock;
    use super::*;

    fn record(arm: &str, outcome: Outcome, origin: Option<ErrorOrigin>) -> Record {
        Record {
            route: Some("chat".into()),
            split: Some(arm.into()),
            outcome: Some(outcome),
            error_origin: origin,
            duration_s: Some(0.4),
            input_tokens: Some(10),
            cost_usd: Some(0.5),
            ..Record::default()
        }
    }

    #[test]
    fn each_arm_has_the_figures_of_its_own_calls_and_no_hits() {
        let registry = Registry::new([], []);
        let shards = [registry.shard(), registry.shard()];
        let cached = Cached { source: Some(CacheSource::Hit), ..Cached::default() };
        let hit = Record { cached: Some(cached.into()), ..record("a", Outcome::Completed, None) };
        let elsewhere =
            Record { route: Some("other".into()), ..record("a", Outcome::Completed, None) };
        for (at, record) in [
            record("a", Outcome::Completed, None),
            record("a", Outcome::Completed, None),
            record("a", Outcome::Completed, None),
            record("a", Outcome::Truncated, None),
            record("a", Outcome::Abandoned, None),
            record("a", Outcome::Failed, Some(ErrorOrigin::Client)),
            record("b", Outcome::Failed, Some(ErrorOrigin::Upstream)),
            hit,
            elsewhere,
        ]
        .iter()
        .enumerate()
        {
            lock(&shards[at % 2]).add(record);
        }
        let arms = registry.arms("chat");
        let (a, b) = (&arms["a"], &arms["b"]);
        assert_eq!((a.calls, a.error_ratio, a.input_tokens), (6, Some(0.25), Some(60)));
        assert_eq!((b.calls, b.error_ratio, b.cost_usd), (1, Some(1.0), Some(0.5)));
        let times = a.duration_s.expect("there were calls");
        assert!((times.mean - 0.4).abs() < 1e-9);
        // Within the bucket from 0.25 s to 0.5 s.
        assert!((times.p50 - 0.375).abs() < 1e-9, "{times:?}");
        assert!(a.time_to_first_token_s.is_none());
        assert!(registry.arms("nothing").is_empty());
    }
}
