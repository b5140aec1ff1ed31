//! What has happened since somebody last looked, for the view of a run that goes on.
//!
//! Whoever looks takes it away, and reckons with it elsewhere: the calls of a run wait neither for quantiles
//! nor for a terminal.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_settings::Metric;
use tidegate_wire::Outcome;

use crate::figures::{Call, Kind, SeriesId, Strain};

/// Calls that are told of between two looks, at most: of more, nobody looks.
const MOST_CALLS: usize = 100_000;
/// Series of the other side, likewise.
const MOST_SERIES: usize = 200;

/// What is new.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) calls: Vec<Ended>,
    /// What the other side said last.
    pub(crate) said: BTreeMap<SeriesId, f64>,
}

/// A call that has ended, as far as a view goes by it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ended {
    pub(crate) model: Arc<str>,
    pub(crate) route: Arc<str>,
    /// Whether it is in the figures of the run.
    pub(crate) counts: bool,
    pub(crate) is_error: bool,
    pub(crate) kind: Option<Kind>,
    /// In seconds, of whole answers.
    pub(crate) first_token: Option<f64>,
    /// In seconds, of whole answers.
    pub(crate) duration: Option<f64>,
    /// In seconds.
    pub(crate) send_lag: f64,
    /// In seconds, of whole answers; absent where no kernel tells.
    pub(crate) read_lag: Option<f64>,
    pub(crate) output_tokens: u64,
    /// In US dollars, where it has a price.
    pub(crate) cost: Option<f64>,
}

// === impl News ===

impl News {
    /// Takes in a call that has ended.
    pub(crate) fn ended(&mut self, call: &Call, counts: bool) {
        if self.calls.len() < MOST_CALLS {
            self.calls.push(Ended::of(call, counts));
        }
    }

    /// Takes in what the other side said.
    pub(crate) fn heard(&mut self, id: &SeriesId, value: f64) {
        let has_room = self.said.len() < MOST_SERIES || self.said.contains_key(id);
        if value.is_finite() && has_room && Strain::is_said_by(&id.name) {
            self.said.insert(id.clone(), value);
        }
    }

    /// All of it, which is no longer new.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::take(self)
    }
}

// === impl Ended ===

impl Ended {
    fn of(call: &Call, counts: bool) -> Self {
        let seconds = |metric| call.seconds(metric).filter(|_| call.is_whole());
        let outcome = call.record.outcome.unwrap_or(Outcome::Failed);
        Self {
            model: call.key.model.clone(),
            route: call.key.route.clone(),
            counts,
            is_error: !matches!(outcome, Outcome::Completed | Outcome::Abandoned),
            kind: call.kind,
            first_token: seconds(Metric::TimeToFirstToken),
            duration: seconds(Metric::Duration),
            send_lag: call.send_lag.as_secs_f64(),
            read_lag: call.read_lag.map(|lag| lag.as_secs_f64()),
            output_tokens: call.record.output_tokens.unwrap_or(0),
            cost: call.record.cost_usd,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Shows;
    use crate::figures::tests::call;

    #[test]
    fn what_was_taken_is_no_longer_new_and_what_nobody_takes_is_bounded() {
        let mut news = News::default();
        let call = call(1.0, Outcome::Completed);
        (0..MOST_CALLS + 5).for_each(|_| news.ended(&call, true));
        let id = |number: usize| SeriesId {
            name: "tgi_queue_size".into(),
            shows: Shows::Value,
            source: number.to_string().into(),
            labels: "".into(),
        };
        (0..MOST_SERIES + 5).for_each(|number| news.heard(&id(number), 1.0));
        news.heard(&id(0), 2.0);
        let taken = news.take();
        assert_eq!((taken.calls.len(), taken.said.len()), (MOST_CALLS, MOST_SERIES));
        assert_eq!(taken.said[&id(0)], 2.0);
        assert!(news.calls.is_empty() && news.said.is_empty());
    }

    #[test]
    fn only_a_whole_answer_has_times() {
        let failed = Ended::of(&call(1.0, Outcome::Failed), true);
        assert!(failed.is_error && failed.duration.is_none());
        let whole = Ended::of(&call(1.0, Outcome::Completed), false);
        assert!(!whole.is_error && whole.duration == Some(1.0) && !whole.counts);
    }
}
