//! What some calls came to: counts and distributions that add up exactly.

use std::collections::BTreeMap;
use std::ops::Add;

use serde::{Deserialize, Serialize};
use tidegate_settings::Metric;
use tidegate_wire::{Outcome, Record};

use super::{Call, Kind, Times};

/// The calls of one series, or of several together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) outcomes: Outcomes,
    /// Of these, asked for as a stream.
    pub(crate) streams: u64,
    /// Of these, answered, be it by an error.
    pub(crate) answered: u64,
    /// The upper side of the error ratio: what the upstream, a sidecar or a quota failed, and what
    /// broke off.
    pub(crate) bad: u64,
    /// The lower side: all but what was abandoned, or failed by the request itself.
    pub(crate) accountable: u64,
    /// Completed calls that measured and met every objective that applies to them.
    pub(crate) good: u64,
    /// Calls in trouble, by its kind.
    pub(crate) kinds: BTreeMap<Kind, u64>,
    pub(crate) tokens: Tokens,
    /// In US dollars, of the calls that have a price; absent where none has.
    pub(crate) cost: Option<f64>,
    pub(crate) unpriced: u64,
    /// How long after it was due a call was sent.
    pub(crate) send_lag: Times,
    /// Of whole answers.
    pub(crate) times: BTreeMap<Metric, Times>,
}

/// Calls by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// Whole and without error.
    pub completed: u64,
    /// With an error, or without an answer.
    pub failed: u64,
    /// Begun and broken off.
    pub truncated: u64,
    /// Answered by a sidecar in place of the model. A load generator takes those for failed.
    pub refused: u64,
    /// Cut off by us at the end of the run.
    pub abandoned: u64,
}

/// Tokens as the provider stated them; absent where no answer did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// All input, cached input included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<u64>,
    /// All output, reasoning included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
    /// Of the input, read from a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<u64>,
    /// Of the input, written to a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_creation: Option<u64>,
    /// Of the output, spent on reasoning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<u64>,
    /// Calls whose answer stated some.
    pub usage_stated: u64,
    /// Completed calls whose answer stated none.
    pub usage_absent: u64,
}

// === impl Tally ===

impl Tally {
    /// How many calls there were.
    pub(crate) fn calls(&self) -> u64 {
        self.outcomes.all()
    }

    /// Calls that did not complete, but for those that we gave up ourselves.
    pub(crate) fn errors(&self) -> u64 {
        self.calls() - self.outcomes.completed - self.outcomes.abandoned
    }

    /// Completed calls whose answer was none to what was asked.
    pub(crate) fn wrong_content(&self) -> u64 {
        self.kinds.get(&Kind::WrongContent).copied().unwrap_or(0)
    }

    pub(crate) fn times(&self, metric: Metric) -> Option<&Times> {
        self.times.get(&metric)
    }

    /// Takes one call in.
    pub(crate) fn record(&mut self, call: &Call) {
        let record = &call.record;
        let outcome = record.outcome.unwrap_or(Outcome::Failed);
        *self.outcomes.of_mut(outcome) += 1;
        self.streams += u64::from(call.key.stream);
        self.answered += u64::from(record.status.is_some());
        self.bad += u64::from(call.is_bad());
        self.accountable += u64::from(call.is_accountable());
        if let Some(kind) = call.kind {
            *self.kinds.entry(kind).or_default() += 1;
        }
        self.tokens.record(record);
        self.cost = sum(self.cost, record.cost_usd, f64::add);
        self.unpriced += u64::from(record.unpriced == Some(true));
        self.send_lag.record(call.send_lag);
        // A refusal that takes a millisecond is no fast answer: only whole answers have a latency.
        if call.is_whole() {
            self.record_times(call);
        }
    }

    fn record_times(&mut self, call: &Call) {
        for metric in Metric::TIMES {
            if metric == Metric::Gap {
                let gap = self.times.entry(metric).or_default();
                call.gaps.iter().for_each(|one| gap.record(*one));
            } else if let Some(seconds) = call.seconds(metric) {
                self.times.entry(metric).or_default().seconds(seconds);
            }
        }
    }

    /// Takes in other calls.
    pub(crate) fn add(&mut self, other: &Self) {
        self.add_counts(other);
        self.send_lag.add(&other.send_lag);
        self.add_times(other, |_| true);
    }

    /// Takes in of other calls what an objective about this metric goes by.
    pub(crate) fn add_for(&mut self, metric: Metric, other: &Self) {
        self.add_counts(other);
        // Gaps are as many as there are streams.
        let streams = metric == Metric::Gap;
        self.add_times(other, |of| of == metric || streams && of == Metric::TimeToFirstToken);
    }

    fn add_times(&mut self, other: &Self, are_kept: impl Fn(Metric) -> bool) {
        for (metric, times) in other.times.iter().filter(|(metric, _)| are_kept(**metric)) {
            self.times.entry(*metric).or_default().add(times);
        }
    }

    fn add_counts(&mut self, other: &Self) {
        self.outcomes.add(&other.outcomes);
        self.streams += other.streams;
        self.answered += other.answered;
        self.bad += other.bad;
        self.accountable += other.accountable;
        self.good += other.good;
        for (kind, calls) in &other.kinds {
            *self.kinds.entry(*kind).or_default() += calls;
        }
        self.tokens.add(&other.tokens);
        self.cost = sum(self.cost, other.cost, f64::add);
        self.unpriced += other.unpriced;
    }
}

fn sum<T>(total: Option<T>, more: Option<T>, add: fn(T, T) -> T) -> Option<T> {
    match (total, more) {
        (Some(total), Some(more)) => Some(add(total, more)),
        (total, more) => total.or(more),
    }
}

// === impl Outcomes ===

impl Outcomes {
    fn all(&self) -> u64 {
        self.completed + self.failed + self.truncated + self.refused + self.abandoned
    }

    fn of_mut(&mut self, outcome: Outcome) -> &mut u64 {
        match outcome {
            Outcome::Completed => &mut self.completed,
            Outcome::Failed => &mut self.failed,
            Outcome::Truncated => &mut self.truncated,
            Outcome::Refused => &mut self.refused,
            Outcome::Abandoned => &mut self.abandoned,
        }
    }

    fn add(&mut self, other: &Self) {
        self.completed += other.completed;
        self.failed += other.failed;
        self.truncated += other.truncated;
        self.refused += other.refused;
        self.abandoned += other.abandoned;
    }
}

// === impl Tokens ===

impl Tokens {
    fn record(&mut self, record: &Record) {
        self.add(&Self {
            input: record.input_tokens,
            output: record.output_tokens,
            cache_read: record.cache_read_tokens,
            cache_creation: record.cache_creation_tokens,
            reasoning: record.reasoning_tokens,
            usage_stated: u64::from(record.usage_source.is_some()),
            usage_absent: u64::from(record.lacks_usage()),
        });
    }

    fn add(&mut self, other: &Self) {
        // A provider that states nonsense brings nothing down.
        let sum = |total, more| sum(total, more, u64::saturating_add);
        self.input = sum(self.input, other.input);
        self.output = sum(self.output, other.output);
        self.cache_read = sum(self.cache_read, other.cache_read);
        self.cache_creation = sum(self.cache_creation, other.cache_creation);
        self.reasoning = sum(self.reasoning, other.reasoning);
        self.usage_stated += other.usage_stated;
        self.usage_absent += other.usage_absent;
    }
}

#[cfg(test)]
mod tests {
    use tidegate_wire::ErrorOrigin;

    use super::*;
    use crate::figures::tests::call;

    fn tally(calls: impl IntoIterator<Item = Call>) -> Tally {
        let mut tally = Tally::default();
        calls.into_iter().for_each(|call| tally.record(&call));
        tally
    }

    fn failed(origin: ErrorOrigin) -> Call {
        let mut call = call(0.001, Outcome::Failed);
        call.record.error_origin = Some(origin);
        call
    }

    fn near(measured: f64, expected: f64) -> bool {
        (measured / expected - 1.0).abs() < 0.001
    }

    #[test]
    fn service_times_leave_the_lag_out() {
        let tally = tally([call(1.1, Outcome::Completed)]);
        let at = |metric| tally.times(metric).and_then(|times| times.at(0.5)).expect("a time");
        assert!(near(at(Metric::Duration), 1.1));
        assert!(near(at(Metric::ServiceDuration), 1.0));
        assert!(near(tally.send_lag.at(0.5).expect("a lag"), 0.1));
    }

    #[test]
    fn a_call_that_is_not_whole_is_counted_and_has_no_latency() {
        let wrong = Call { kind: Some(Kind::WrongContent), ..call(0.001, Outcome::Completed) };
        let bad = failed(ErrorOrigin::Quota);
        let tally = tally([call(1.0, Outcome::Completed), wrong, bad]);
        assert_eq!((tally.calls(), tally.errors(), tally.wrong_content()), (3, 1, 1));
        assert_eq!(tally.times(Metric::Duration).expect("one was whole").count(), 1);
    }

    #[test]
    fn counts_that_are_nonsense_bring_nothing_down() {
        let mut nonsense = call(1.0, Outcome::Completed);
        nonsense.record.output_tokens = Some(u64::MAX);
        let mut tally = tally([nonsense.clone(), nonsense]);
        tally.add(&tally.clone());
        assert_eq!(tally.tokens.output, Some(u64::MAX));
    }

    #[test]
    fn the_error_ratio_is_that_of_alerts() {
        use ErrorOrigin::{Client, Quota, Sidecar, Upstream};
        let bad = [Quota, Sidecar, Upstream].map(failed);
        let others = [
            call(1.0, Outcome::Completed),
            call(1.0, Outcome::Truncated),
            call(1.0, Outcome::Abandoned),
            failed(Client),
        ];
        let tally = tally(bad.into_iter().chain(others));
        assert_eq!((tally.bad, tally.accountable), (4, 5));
    }

    #[test]
    fn a_sum_is_as_if_all_had_been_recorded_here() {
        let one = || (1..40).map(|n| call(f64::from(n), Outcome::Completed));
        let other = || [call(0.5, Outcome::Truncated), failed(ErrorOrigin::Upstream)];
        let mut sum = tally(one());
        sum.add(&tally(other()));
        assert_eq!(sum, tally(one().chain(other())));
        assert_eq!(sum.times(Metric::Gap).expect("gaps").count(), 39 * 3);
        assert!(near(sum.times(Metric::Gap).expect("gaps").at(0.5).expect("a gap"), 0.02));
        let text = serde_json::to_string(&sum).expect("it is written");
        let read: Tally = serde_json::from_str(&text).expect("it is read");
        assert_eq!(read.times(Metric::Duration), sum.times(Metric::Duration));
        assert_eq!((read.outcomes, read.kinds), (sum.outcomes, sum.kinds));
    }
}
