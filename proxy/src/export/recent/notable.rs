//! The calls that one would look at first: those that failed last, and those whose callers waited
//! longest.

use std::collections::VecDeque;

use serde_json::{Map, Value};
use tidegate_wire::{ErrorOrigin, Outcome, Record};

/// Calls of each kind.
const MOST: usize = 100;

/// What is shown of such a call: nothing of what was said in it, and no query.
const SHOWN: &[&str] = &[
    "time",
    "trace_id",
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.request.stream",
    "gen_ai.response.finish_reasons",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "cloud.region",
    "http.response.status_code",
    "url.path",
    "error.type",
    "tidegate.outcome",
    "tidegate.route",
    "tidegate.upstream",
    "tidegate.caller",
    "tidegate.attempts",
    "tidegate.fallback",
    "tidegate.cache",
    "tidegate.error.code",
    "tidegate.error.origin",
    "tidegate.block_reason",
    "tidegate.duration_s",
    "tidegate.overhead_s",
    "tidegate.retry_after_s",
    "tidegate.time_to_first_byte_s",
    "tidegate.time_to_first_token_s",
    "tidegate.time_to_last_token_s",
];
/// Where waits on the way stand.
const WAITS: &str = "tidegate.wait.";

/// Calls of the last hour.
#[derive(Debug, Default)]
pub(crate) struct Notable {
    /// The last one last.
    failed: VecDeque<Call>,
    /// In no order.
    slow: Vec<Call>,
}

#[derive(Debug)]
struct Call {
    /// The minute in which it ended.
    minute: i64,
    /// For how long its caller waited, in seconds: of a stream, for its first token.
    waited: f64,
    shown: Value,
}

impl Notable {
    /// Keeps a call that ended in this minute, if it is one of those.
    pub(super) fn add(&mut self, record: &Record, minute: i64) {
        if record.own().is_some() {
            return;
        }
        if is_failed(record) {
            if self.failed.len() == MOST {
                self.failed.pop_front();
            }
            self.failed.push_back(Call::of(record, minute));
        } else if let Some(waited) = waited(record) {
            self.add_slow(record, minute, waited);
        }
    }

    fn add_slow(&mut self, record: &Record, minute: i64, waited: f64) {
        if self.slow.len() < MOST {
            return self.slow.push(Call::of(record, minute));
        }
        let quickest =
            self.slow.iter_mut().min_by(|one, other| one.waited.total_cmp(&other.waited));
        if let Some(quickest) = quickest.filter(|quickest| quickest.waited < waited) {
            *quickest = Call::of(record, minute);
        }
    }

    /// Forgets calls that ended before this minute.
    pub(super) fn forget(&mut self, before: i64) {
        self.failed.retain(|call| call.minute >= before);
        self.slow.retain(|call| call.minute >= before);
    }

    /// Those that failed, the last one first.
    pub(crate) fn failed(&self) -> Vec<Value> {
        self.failed.iter().rev().map(|call| call.shown.clone()).collect()
    }

    /// Those that took longest, the longest first.
    pub(crate) fn slow(&self) -> Vec<Value> {
        let mut calls: Vec<_> = self.slow.iter().collect();
        calls.sort_by(|one, other| other.waited.total_cmp(&one.waited));
        calls.into_iter().map(|call| call.shown.clone()).collect()
    }
}

impl Call {
    fn of(record: &Record, minute: i64) -> Self {
        let is_shown = |key: &str| SHOWN.contains(&key) || key.starts_with(WAITS);
        let all = serde_json::to_value(record).unwrap_or_default();
        let all = all.as_object().cloned().unwrap_or_default();
        let shown: Map<_, _> = all.into_iter().filter(|(key, _)| is_shown(key)).collect();
        Self { minute, waited: waited(record).unwrap_or(0.0), shown: shown.into() }
    }
}

/// Whether something failed that is not its caller's doing.
fn is_failed(record: &Record) -> bool {
    let is_by_caller = record.error_origin == Some(ErrorOrigin::Client);
    match record.outcome {
        Some(Outcome::Failed | Outcome::Refused) => !is_by_caller,
        Some(Outcome::Truncated) => true,
        _ => false,
    }
}

/// For how long its caller waited.
fn waited(record: &Record) -> Option<f64> {
    match record.stream {
        Some(true) => record.time_to_first_token_s,
        _ => record.duration_s.filter(|_| record.outcome == Some(Outcome::Completed)),
    }
}
