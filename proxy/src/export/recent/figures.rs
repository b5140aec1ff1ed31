//! What calls came to, as it is shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tidegate_wire::Outcome;

use crate::export::rollup::{Key, Sums, Times};

/// How far off a quantile may be, at most, of what it is.
pub(crate) const QUANTILE_ERROR: f64 = 0.01;

/// A part of what calls are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Model,
    Provider,
    Region,
    Route,
    Upstream,
    Caller,
}

/// What calls came to. What was not measured is absent.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    calls: u64,
    calls_per_second: f64,
    outcomes: BTreeMap<&'static str, u64>,
    /// By what the caller got; `none` for those that got nothing.
    statuses: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_ratio: Option<f64>,
    /// Calls of Tidegate's load generator.
    #[serde(skip_serializing_if = "is_none")]
    load_test: u64,
    streams: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tokens: BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "is_zero")]
    cost_usd: f64,
    unpriced: u64,
    usage_absent: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    saved: Option<Saved>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jobs: Option<JobFigures>,
    /// From start to last byte, of completed calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_s: Option<Quantiles>,
    /// From start to first token, of completed streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_to_first_token_s: Option<Quantiles>,
    /// What callers waited for: of a stream its first token, of others their end.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_s: Option<Quantiles>,
}

/// What caches answered, and what that would have used.
#[derive(Debug, Serialize)]
struct Saved {
    calls: u64,
    input_tokens: u64,
    output_tokens: u64,
    cost_usd: f64,
}

/// Long-running jobs.
#[derive(Debug, Serialize)]
struct JobFigures {
    ended: u64,
    succeeded: u64,
}

/// A distribution, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) count: u64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

// === impl By ===

impl By {
    /// All of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::Model, Self::Provider, Self::Region, Self::Route, Self::Upstream, Self::Caller];

    /// Its name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Region => "region",
            Self::Route => "route",
            Self::Upstream => "upstream",
            Self::Caller => "caller",
        }
    }

    /// Those of a list such as `model,region`; or the word that is none.
    pub(crate) fn list(text: &str) -> Result<Vec<Self>, &str> {
        let one = |word| Self::ALL.into_iter().find(|by| by.as_str() == word).ok_or(word);
        text.split(',').map(str::trim).map(one).collect()
    }

    /// The key without all other parts.
    pub(crate) fn narrow(by: &[Self], key: &Key) -> Key {
        let mut narrow = Key::default();
        for by in by {
            *by.part_mut(&mut narrow) = by.part(key).clone();
        }
        narrow
    }

    /// This part of a key.
    pub(crate) fn part(self, key: &Key) -> &Arc<str> {
        match self {
            Self::Model => &key.model,
            Self::Provider => &key.provider,
            Self::Region => &key.region,
            Self::Route => &key.route,
            Self::Upstream => &key.upstream,
            Self::Caller => &key.caller,
        }
    }

    fn part_mut(self, key: &mut Key) -> &mut Arc<str> {
        match self {
            Self::Model => &mut key.model,
            Self::Provider => &mut key.provider,
            Self::Region => &mut key.region,
            Self::Route => &mut key.route,
            Self::Upstream => &mut key.upstream,
            Self::Caller => &mut key.caller,
        }
    }
}

// === impl Figures ===

impl Figures {
    /// Those of calls in so many seconds.
    pub(crate) fn of(sums: &Sums, seconds: f64) -> Self {
        let outcomes = Outcome::ALL.into_iter().zip(sums.outcomes);
        let outcomes = outcomes.filter(|(_, count)| *count > 0);
        let status = |status: u16| if status == 0 { "none".to_owned() } else { status.to_string() };
        let tokens = &sums.tokens;
        let tokens = [
            ("input", tokens.input),
            ("output", tokens.output),
            ("cache_read", tokens.cache_read),
            ("cache_creation", tokens.cache_creation),
            ("reasoning", tokens.reasoning),
        ];
        let saved = &sums.saved;
        Self {
            calls: sums.calls,
            calls_per_second: sums.calls as f64 / seconds,
            outcomes: outcomes.map(|(outcome, count)| (outcome.as_str(), count)).collect(),
            statuses: sums.statuses.iter().map(|(code, count)| (status(*code), *count)).collect(),
            error_ratio: sums.error_ratio(),
            load_test: sums.load_test,
            streams: sums.streams,
            tokens: tokens.into_iter().filter(|(_, count)| *count > 0).collect(),
            cost_usd: sums.cost_usd,
            unpriced: sums.unpriced,
            usage_absent: sums.usage_absent,
            saved: (saved.calls > 0).then_some(Saved {
                calls: saved.calls,
                input_tokens: saved.input_tokens,
                output_tokens: saved.output_tokens,
                cost_usd: saved.cost_usd,
            }),
            jobs: (sums.jobs > 0)
                .then_some(JobFigures { ended: sums.jobs, succeeded: sums.jobs_good }),
            duration_s: Quantiles::of(&sums.duration()),
            time_to_first_token_s: Quantiles::of(&sums.first_token),
            latency_s: Quantiles::of(&sums.latency()),
        }
    }
}

// === impl Quantiles ===

impl Quantiles {
    /// Absent where there are no times.
    pub(crate) fn of(times: &Times) -> Option<Self> {
        let [p50, p90, p99] = times.quantiles([0.5, 0.9, 0.99])?;
        Some(Self { count: times.count(), p50, p90, p99 })
    }
}
