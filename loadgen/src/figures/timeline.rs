//! How a run went over time: slices of it, each with the sum of what belongs there.
//!
//! A call belongs to the slice in which it was due: what the target did to it is what it did to
//! those who came then. There are never more than 120 slices; when time goes on, two become one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_settings::Metric;
use tidegate_wire::Outcome;

use super::{Call, Kind, Times};

/// The slices of a run, from its start on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Timeline<S = Slice> {
    /// How long one is, in milliseconds: 250, doubled as often as need be.
    slice_ms: u64,
    slices: Vec<S>,
}

/// What adds up.
pub(crate) trait Sum: Clone + Default {
    /// Takes in another one.
    fn add(&mut self, other: &Self);
}

/// The calls that were due in one slice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Slice {
    pub(crate) calls: u64,
    pub(crate) completed: u64,
    pub(crate) output_tokens: u64,
    pub(crate) kinds: BTreeMap<Kind, u64>,
    pub(crate) times: BTreeMap<Metric, Times>,
}

/// The distributions that are kept for each slice.
pub(crate) const OVER_TIME: [Metric; 4] =
    [Metric::TimeToFirstToken, Metric::TimePerOutputToken, Metric::Gap, Metric::Duration];
const SHORTEST_MS: u64 = 250;
const MOST: usize = 120;

// === impl Timeline ===

impl<S> Default for Timeline<S> {
    fn default() -> Self {
        Self { slice_ms: SHORTEST_MS, slices: Vec::new() }
    }
}

impl Timeline {
    /// Takes one call in.
    pub(crate) fn record(&mut self, call: &Call) {
        self.at(call.due).record(call);
    }
}

impl<S: Sum> Timeline<S> {
    /// How long one slice is.
    pub(crate) fn slice(&self) -> Duration {
        Duration::from_millis(self.slice_ms)
    }

    /// When each begins, and what was due in it.
    pub(crate) fn slices(&self) -> impl Iterator<Item = (Duration, &S)> {
        (0..).zip(&self.slices).map(move |(number, slice)| (self.slice() * number, slice))
    }

    /// When the last of them ends.
    pub(crate) fn end(&self) -> Duration {
        self.slice() * self.slices.len() as u32
    }

    /// The slice of a moment, counted from the start.
    pub(crate) fn at(&mut self, moment: Duration) -> &mut S {
        let place = loop {
            let place = moment.as_millis() as u64 / self.slice_ms;
            if place < MOST as u64 {
                break place as usize;
            }
            self.halve();
        };
        if self.slices.len() <= place {
            self.slices.resize_with(place + 1, S::default);
        }
        &mut self.slices[place]
    }

    /// Takes in another run, as if both had begun at once.
    pub(crate) fn add(&mut self, mut other: Self) {
        while self.slice_ms < other.slice_ms {
            self.halve();
        }
        while other.slice_ms < self.slice_ms {
            other.halve();
        }
        let count = self.slices.len().max(other.slices.len());
        self.slices.resize_with(count, S::default);
        for (own, other) in std::iter::zip(&mut self.slices, &other.slices) {
            own.add(other);
        }
    }

    /// Whether it is one that this program writes.
    pub(crate) fn is_sound(&self) -> bool {
        let doublings = self.slice_ms / SHORTEST_MS;
        self.slices.len() <= MOST
            && self.slice_ms.is_multiple_of(SHORTEST_MS)
            && doublings.is_power_of_two()
            && doublings < 1 << 32
    }

    /// Makes one of each two slices.
    fn halve(&mut self) {
        self.slice_ms *= 2;
        let pairs = self.slices.chunks(2).map(|pair| {
            let mut sum = pair[0].clone();
            pair[1..].iter().for_each(|second| sum.add(second));
            sum
        });
        self.slices = pairs.collect();
    }
}

// === impl Slice ===

impl Slice {
    fn record(&mut self, call: &Call) {
        self.calls += 1;
        let tokens = call.record.output_tokens.unwrap_or(0);
        self.output_tokens = self.output_tokens.saturating_add(tokens);
        if let Some(kind) = call.kind {
            *self.kinds.entry(kind).or_default() += 1;
        }
        if call.record.outcome != Some(Outcome::Completed) || call.kind.is_some() {
            return;
        }
        self.completed += 1;
        for metric in OVER_TIME {
            if metric == Metric::Gap {
                let gap = self.times.entry(metric).or_default();
                call.gaps.iter().for_each(|one| gap.record(*one));
            } else if let Some(seconds) = call.seconds(metric) {
                self.times.entry(metric).or_default().seconds(seconds);
            }
        }
    }
}

impl Sum for Slice {
    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.completed += other.completed;
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        for (kind, calls) in &other.kinds {
            *self.kinds.entry(*kind).or_default() += calls;
        }
        for (metric, times) in &other.times {
            self.times.entry(*metric).or_default().add(times);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::call;

    fn timeline(due_s: impl IntoIterator<Item = u64>) -> Timeline {
        let mut timeline = Timeline::default();
        for due in due_s {
            let due = Duration::from_secs(due);
            timeline.record(&Call { due, ..call(1.0, Outcome::Completed) });
        }
        timeline
    }

    #[test]
    fn a_run_of_any_length_has_few_slices_and_all_calls() {
        for length in [1, 29, 31, 3600, 100_000] {
            let timeline = timeline(0..length);
            let calls: u64 = timeline.slices().map(|(_, slice)| slice.calls).sum();
            assert_eq!(calls, length);
            assert!(timeline.slices.len() <= MOST && timeline.is_sound());
        }
        assert_eq!(timeline(0..29).slice(), Duration::from_millis(250));
        assert_eq!(timeline(0..31).slice(), Duration::from_millis(500));
    }

    #[test]
    fn counts_that_are_nonsense_bring_nothing_down() {
        let mut nonsense = call(1.0, Outcome::Completed);
        nonsense.record.output_tokens = Some(u64::MAX);
        let mut timeline = Timeline::default();
        (0..2).for_each(|_| timeline.record(&nonsense));
        timeline.add(timeline.clone());
        let most = timeline.slices.iter().map(|slice| slice.output_tokens).max();
        assert_eq!(most, Some(u64::MAX));
    }

    #[test]
    fn runs_of_different_lengths_add_up() {
        for (short, long) in [(29, 3600), (3600, 29), (10, 10)] {
            let mut sum = timeline(0..short);
            sum.add(timeline(0..long));
            assert_eq!(sum, timeline((0..short).chain(0..long)), "{short} s and {long} s");
        }
    }
}
