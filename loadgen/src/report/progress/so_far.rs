//! What a run has come to so far, reckoned from what is new each time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidegate_settings::Metric;

use crate::figures::{Figures, Kind, SeriesId, Strain, Strained, Tally, Times, together};
use crate::news::{Ended, News};

/// Models and routes that are told apart; the rest is one.
const MOST: usize = 100;
/// The name for the rest.
const OTHERS: &str = "others";

/// All that a view shows of the calls that have ended.
#[derive(Debug, Default)]
pub(super) struct SoFar {
    /// By model and route.
    pub(super) parts: BTreeMap<(Arc<str>, Arc<str>), Sum>,
    pub(super) all: Sum,
    /// By the trouble that they were in.
    pub(super) kinds: BTreeMap<Kind, u64>,
    pub(super) send_lag: Times,
    pub(super) read_lag: Times,
    pub(super) output_tokens: u64,
    /// In US dollars; absent where no call has a price.
    pub(super) cost: Option<f64>,
    pub(super) minute: LastMinute,
    said: BTreeMap<SeriesId, f64>,
}

/// Some calls.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    pub(super) calls: u64,
    pub(super) errors: u64,
    pub(super) first_token: Times,
    pub(super) duration: Times,
}

/// The last minute, second by second: all calls, those that do not count as well.
#[derive(Debug, Default)]
pub(super) struct LastMinute {
    seconds: VecDeque<Second>,
    /// The one that is not over yet: which, its calls, and how long they took.
    at: u64,
    calls: u64,
    first_token: Vec<f64>,
    duration: Vec<f64>,
}

/// One second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Second {
    pub(super) calls: u64,
    /// 99 in a hundred were there by then, in seconds; absent where there were none.
    pub(super) first_token: Option<f64>,
    pub(super) duration: Option<f64>,
}

// === impl SoFar ===

impl SoFar {
    /// That of a run which goes on from these figures.
    pub(super) fn of(figures: &Figures) -> Self {
        let mut so_far = Self { read_lag: figures.read_lag.clone(), ..Self::default() };
        for (key, tally) in &figures.series {
            so_far.part(&key.model, &key.route).add_tally(tally);
            so_far.all.add_tally(tally);
            so_far.send_lag.add(&tally.send_lag);
            tally.kinds.iter().for_each(|(kind, calls)| so_far.trouble(*kind, *calls));
            let tokens = tally.tokens.output.unwrap_or(0);
            so_far.output_tokens = so_far.output_tokens.saturating_add(tokens);
            so_far.pay(tally.cost);
        }
        so_far
    }

    /// Takes in what is new, so long after the view began.
    pub(super) fn add(&mut self, at: Duration, news: News) {
        self.minute.add(at, &news.calls);
        news.calls.iter().filter(|call| call.counts).for_each(|call| self.count(call));
        self.said.extend(news.said);
    }

    /// How hard the other side has it.
    pub(super) fn strain(&self) -> BTreeMap<Strain, Strained> {
        let said = self.said.iter();
        together(said.map(|(id, value)| (&*id.name, Strained { mean: *value, most: *value })))
    }

    fn count(&mut self, call: &Ended) {
        self.part(&call.model, &call.route).count(call);
        self.all.count(call);
        self.send_lag.seconds(call.send_lag);
        call.read_lag.iter().for_each(|lag| self.read_lag.seconds(*lag));
        if let Some(kind) = call.kind {
            self.trouble(kind, 1);
        }
        self.output_tokens = self.output_tokens.saturating_add(call.output_tokens);
        self.pay(call.cost);
    }

    fn part(&mut self, model: &Arc<str>, route: &Arc<str>) -> &mut Sum {
        let key = (model.clone(), route.clone());
        let has_room = self.parts.len() < MOST || self.parts.contains_key(&key);
        let key = if has_room { key } else { (OTHERS.into(), "".into()) };
        self.parts.entry(key).or_default()
    }

    fn trouble(&mut self, kind: Kind, calls: u64) {
        *self.kinds.entry(kind).or_default() += calls;
    }

    fn pay(&mut self, cost: Option<f64>) {
        if let Some(cost) = cost {
            *self.cost.get_or_insert(0.0) += cost;
        }
    }
}

// === impl Sum ===

impl Sum {
    /// Takes in other calls.
    pub(super) fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.first_token.add(&other.first_token);
        self.duration.add(&other.duration);
    }

    fn add_tally(&mut self, tally: &Tally) {
        self.calls += tally.calls();
        self.errors += tally.errors();
        let times = |metric| tally.times(metric);
        times(Metric::TimeToFirstToken).into_iter().for_each(|times| self.first_token.add(times));
        times(Metric::Duration).into_iter().for_each(|times| self.duration.add(times));
    }

    fn count(&mut self, call: &Ended) {
        self.calls += 1;
        self.errors += u64::from(call.is_error);
        call.first_token.into_iter().for_each(|time| self.first_token.seconds(time));
        call.duration.into_iter().for_each(|time| self.duration.seconds(time));
    }
}

// === impl LastMinute ===

impl LastMinute {
    /// So many seconds are kept.
    pub(super) const LONG: usize = 60;

    /// The seconds that are over, the last one at the end.
    pub(super) fn seconds(&self) -> impl DoubleEndedIterator<Item = &Second> + ExactSizeIterator {
        self.seconds.iter()
    }

    fn add(&mut self, at: Duration, calls: &[Ended]) {
        let now = at.as_secs();
        // Of a view that nobody drew for long, all but the last minute is forgotten anyway.
        self.at = self.at.max(now.saturating_sub(Self::LONG as u64 + 1));
        while self.at < now {
            self.close();
        }
        self.calls += calls.len() as u64;
        self.first_token.extend(calls.iter().filter_map(|call| call.first_token));
        self.duration.extend(calls.iter().filter_map(|call| call.duration));
    }

    fn close(&mut self) {
        if self.seconds.len() == Self::LONG {
            self.seconds.pop_front();
        }
        self.seconds.push_back(Second {
            calls: std::mem::take(&mut self.calls),
            first_token: p99(&mut self.first_token),
            duration: p99(&mut self.duration),
        });
        self.at += 1;
    }
}

/// Takes them off.
fn p99(times: &mut Vec<f64>) -> Option<f64> {
    let place = (0.99 * times.len() as f64).ceil() as usize;
    let mut times = std::mem::take(times);
    let place = place.checked_sub(1)?;
    Some(*times.select_nth_unstable_by(place, f64::total_cmp).1)
}

#[cfg(test)]
pub(super) mod tests {
    use tidegate_wire::Outcome;

    use super::*;
    use crate::figures::Shows;
    use crate::figures::tests::call;

    pub(in crate::report::progress) fn ended(model: &str, duration: f64) -> Ended {
        Ended {
            model: model.into(),
            route: "openai/chat".into(),
            counts: true,
            is_error: false,
            kind: None,
            first_token: Some(duration / 10.0),
            duration: Some(duration),
            send_lag: 0.002,
            read_lag: Some(0.001),
            output_tokens: 10,
            cost: Some(0.01),
        }
    }

    fn news(calls: impl IntoIterator<Item = Ended>) -> News {
        News { calls: calls.into_iter().collect(), ..News::default() }
    }

    fn near(measured: Option<f64>, expected: f64) -> bool {
        measured.is_some_and(|measured| (measured / expected - 1.0).abs() < 0.001)
    }

    #[test]
    fn what_is_new_adds_up_by_model_and_in_all() {
        let mut so_far = SoFar::default();
        let failed = Ended {
            is_error: true,
            kind: Some(Kind::Quota),
            first_token: None,
            duration: None,
            ..ended("m", 1.0)
        };
        so_far.add(Duration::ZERO, news([ended("m", 1.0), ended("n", 3.0)]));
        so_far.add(Duration::ZERO, news([failed, Ended { counts: false, ..ended("m", 9.0) }]));
        assert_eq!((so_far.all.calls, so_far.all.errors, so_far.output_tokens), (3, 1, 30));
        assert_eq!(so_far.kinds, [(Kind::Quota, 1)].into());
        assert!(near(so_far.cost, 0.03) && near(so_far.send_lag.at(0.5), 0.002));
        assert!(near(so_far.read_lag.at(0.5), 0.001));
        let parts: Vec<_> = so_far.parts.iter().map(|((model, _), sum)| (&**model, sum)).collect();
        assert_eq!((parts[0].0, parts[0].1.calls, parts[0].1.errors), ("m", 2, 1));
        assert!(near(parts[1].1.duration.at(0.5), 3.0) && near(so_far.all.duration.at(1.0), 3.0));
    }

    #[test]
    fn names_without_end_take_no_room_without_end() {
        let mut so_far = SoFar::default();
        so_far.add(Duration::ZERO, news((0..1000).map(|name| ended(&name.to_string(), 1.0))));
        assert_eq!(so_far.parts.len(), MOST + 1);
        let others = &so_far.parts[&(OTHERS.into(), "".into())];
        assert_eq!(others.calls, 1000 - MOST as u64);
    }

    #[test]
    fn a_run_that_goes_on_begins_with_what_it_had() {
        let mut figures = Figures::default();
        figures.record(&call(1.0, Outcome::Completed), true);
        figures.record(&call(1.0, Outcome::Failed), false);
        let so_far = SoFar::of(&figures);
        assert_eq!((so_far.all.calls, so_far.all.errors, so_far.output_tokens), (2, 1, 20));
        assert!(near(so_far.all.duration.at(0.5), 1.0) && near(so_far.send_lag.at(0.5), 0.1));
        assert!(near(so_far.read_lag.at(0.5), 0.001));
    }

    #[test]
    fn a_second_is_shown_once_it_is_over_and_a_minute_is_kept() {
        let mut minute = LastMinute::default();
        let calls: Vec<_> = (1..=100).map(|time| ended("m", f64::from(time))).collect();
        minute.add(Duration::from_millis(500), &calls[..50]);
        assert_eq!(minute.seconds().len(), 0);
        minute.add(Duration::from_millis(900), &calls[50..]);
        minute.add(Duration::from_millis(2100), &calls[..1]);
        let seconds: Vec<_> = minute.seconds().copied().collect();
        let first = Second { calls: 100, first_token: Some(9.9), duration: Some(99.0) };
        assert_eq!(seconds, [first, Second::default()]);
        minute.add(Duration::from_secs(100_000), &[]);
        assert_eq!(minute.seconds().len(), LastMinute::LONG);
        assert!(minute.seconds().all(|second| second.calls <= 1));
    }

    #[test]
    fn the_other_side_is_as_it_was_heard_last() {
        let mut so_far = SoFar::default();
        let id = |name: &str| SeriesId {
            name: name.into(),
            shows: Shows::Value,
            source: "there".into(),
            labels: "".into(),
        };
        for (waiting, gpu) in [(3.0, 50.0), (7.0, 90.0)] {
            let said = [(id("tgi_queue_size"), waiting), (id("DCGM_FI_DEV_GPU_UTIL"), gpu)];
            so_far.add(Duration::ZERO, News { said: said.into(), ..News::default() });
        }
        let means: Vec<_> = so_far.strain().into_iter().map(|(of, said)| (of, said.mean)).collect();
        assert_eq!(means, [(Strain::Waiting, 7.0), (Strain::Gpu, 0.9)]);
    }
}
