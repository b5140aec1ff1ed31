//! The last hour, in memory: for the live page, and for the minute in which nothing else is at hand.
//!
//! It has what calls came to in each minute, and the calls that one would look at first. It is fed by the
//! exporters' thread and takes about 8 MiB: where an hour does not fit, it covers less, and says so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use tidegate_wire::Record;

use super::Exporter;
use super::metrics::{Registry, lock};
use super::rollup::{Key, Keys, Rollup, Sums, minute};
use super::tail::Tail;

mod alerts;
mod figures;
mod notable;

pub(crate) use alerts::Alert;
pub(crate) use figures::{By, Figures, QUANTILE_ERROR, Quantiles};
pub(crate) use notable::Notable;

/// Minutes that are kept.
pub(crate) const MINUTES: i64 = 60;
/// Bytes of all minutes.
const BYTES: usize = 8 << 20;
/// Models, routes and so on that are told apart in one minute.
const KEYS: usize = 1_000;

/// The last hour.
#[derive(Debug)]
pub(crate) struct Recent {
    started: Timestamp,
    state: Mutex<State>,
    tail: Tail,
}

#[derive(Debug, Default)]
struct State {
    /// The oldest first.
    minutes: VecDeque<Minute>,
    /// The last of those that went because they took too much room.
    gone: Option<i64>,
    notable: Notable,
}

#[derive(Debug)]
struct Minute {
    number: i64,
    rollup: Rollup,
    /// What it takes; reckoned when another one begins.
    bytes: usize,
}

/// What calls came to from one moment to another.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    pub(crate) rollup: Rollup,
}

/// Feeds the last hour.
struct Feed {
    recent: Arc<Recent>,
    keys: Keys,
}

impl Recent {
    pub(crate) fn new(now: Timestamp) -> Arc<Self> {
        Arc::new(Self { started: now, state: Mutex::default(), tail: Tail::default() })
    }

    /// What feeds it, by the words that metrics have.
    pub(crate) fn exporter(self: &Arc<Self>, registry: Arc<Registry>) -> Box<dyn Exporter> {
        Box::new(Feed { recent: self.clone(), keys: Keys::new(registry) })
    }

    /// Where calls are told as they end.
    pub(crate) fn tail(&self) -> &Tail {
        &self.tail
    }

    /// What calls came to in the last so many minutes, and in the one that is not over yet.
    pub(crate) fn window(&self, minutes: i64, now: Timestamp) -> Window {
        let current = number(now);
        self.between(current - minutes, current, now)
    }

    /// The same of each minute of the last hour, the oldest first.
    pub(crate) fn each_minute<T>(
        &self,
        now: Timestamp,
        of: impl Fn(&Rollup) -> T,
    ) -> Vec<(Timestamp, Option<T>)> {
        let state = lock(&self.state);
        let first = self.first(&state, number(now) - MINUTES);
        let at = |number| state.minutes.iter().find(|minute: &&Minute| minute.number == number);
        let numbers = first..=number(now);
        numbers.map(|number| (begin(number), at(number).map(|minute| of(&minute.rollup)))).collect()
    }

    /// The calls that one would look at first.
    pub(crate) fn notable<T>(&self, see: impl FnOnce(&Notable) -> T) -> T {
        see(&lock(&self.state).notable)
    }

    /// What calls came to in these minutes, both included.
    fn between(&self, from: i64, to: i64, now: Timestamp) -> Window {
        let state = lock(&self.state);
        let from = self.first(&state, from);
        let mut rollup = Rollup::default();
        let minutes = state.minutes.iter().filter(|minute| (from..=to).contains(&minute.number));
        for (key, sums) in minutes.flat_map(|minute| minute.rollup.iter()) {
            rollup.merge(key.clone(), sums, KEYS);
        }
        Window { from: begin(from).max(self.started), to: begin(to + 1).min(now), rollup }
    }

    /// The first minute of which all is known, but no earlier than this one.
    fn first(&self, state: &State, from: i64) -> i64 {
        let after = state.gone.map_or(from, |gone| gone + 1);
        from.max(after).max(number(self.started))
    }
}

/// The minute of a moment.
fn number(moment: Timestamp) -> i64 {
    moment.as_second().div_euclid(60)
}

/// When a minute begins.
fn begin(number: i64) -> Timestamp {
    Timestamp::from_second(number * 60).unwrap_or(Timestamp::UNIX_EPOCH)
}

// === impl State ===

impl State {
    fn add(&mut self, record: &Record, keys: &Keys) {
        let number = minute(record);
        self.at(number).add(record, keys, KEYS);
        self.notable.add(record, number);
    }

    /// The roll-up of this minute.
    fn at(&mut self, number: i64) -> &mut Rollup {
        // What ended a little earlier may come a little later.
        let at = |state: &Self| state.minutes.partition_point(|minute| minute.number < number);
        let is_there = |minute: &Minute| minute.number == number;
        if !self.minutes.get(at(self)).is_some_and(is_there) {
            self.begin(number);
        }
        let at = at(self);
        &mut self.minutes[at].rollup
    }

    /// A minute begins: those that are further from it than an hour go, and of the others as many as take
    /// too much room, the furthest first. After a clock was set back those are the ones to come.
    fn begin(&mut self, number: i64) {
        self.minutes.iter_mut().for_each(|minute| minute.bytes = minute.rollup.bytes());
        self.minutes.retain(|minute| (minute.number - number).abs() <= MINUTES);
        while self.bytes() > BYTES {
            self.forget_furthest(number);
        }
        let at = self.minutes.partition_point(|minute| minute.number < number);
        self.minutes.insert(at, Minute { number, rollup: Rollup::default(), bytes: 0 });
        self.notable.forget(number - MINUTES);
    }

    fn forget_furthest(&mut self, number: i64) {
        let distance = |minute: Option<&Minute>| minute.map_or(0, |minute| number - minute.number);
        if distance(self.minutes.front()) >= -distance(self.minutes.back()) {
            self.gone = self.minutes.pop_front().map(|minute| minute.number);
        } else {
            self.minutes.pop_back();
        }
    }

    fn bytes(&self) -> usize {
        self.minutes.iter().map(|minute| minute.bytes).sum()
    }
}

// === impl Window ===

impl Window {
    /// Seconds that it covers; never 0.
    pub(crate) fn seconds(&self) -> f64 {
        self.to.duration_since(self.from).as_secs_f64().max(1.0)
    }

    /// What calls came to by these parts of their keys, the most calls first.
    pub(crate) fn by(&self, by: &[By]) -> Vec<(Key, Sums)> {
        let mut groups = Rollup::default();
        for (key, sums) in self.rollup.iter() {
            groups.merge(By::narrow(by, key), sums, KEYS);
        }
        let mut groups: Vec<_> =
            groups.iter().map(|(key, sums)| (key.clone(), sums.clone())).collect();
        groups.sort_by(|(one, a), (other, b)| b.calls.cmp(&a.calls).then_with(|| one.cmp(other)));
        groups
    }

    /// What all calls came to.
    pub(crate) fn total(&self) -> Sums {
        total(&self.rollup)
    }
}

/// What all calls came to.
pub(crate) fn total(rollup: &Rollup) -> Sums {
    let mut total = Sums::default();
    rollup.iter().for_each(|(_, sums)| total.merge(sums));
    total
}

// === impl Feed ===

impl Exporter for Feed {
    fn name(&self) -> &'static str {
        "recent"
    }

    fn export(&mut self, records: &[Record]) -> u64 {
        self.recent.tail.tell(records);
        let mut state = lock(&self.recent.state);
        records.iter().for_each(|record| state.add(record, &self.keys));
        0
    }

    /// Our own calls are none of anybody's.
    fn takes(&self) -> fn(&Record) -> bool {
        |record| record.own().is_none()
    }
}

#[cfg(test)]
mod tests;
