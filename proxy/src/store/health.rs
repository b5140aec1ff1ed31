//! Whether a store is worth asking.
//!
//! After a few failures in a row it is not, and no call waits for it any more: but not after one
//! moment in which many calls waited, for that may pass. Then it is looked at
//! beside the data path, less and less often, and once it answers it is asked again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::trouble::Trouble;
use crate::export::metrics::lock;

/// Failures in a row after which it is not asked.
const FAILURES: u32 = 3;
/// Between two looks at a store that is not well: at first, and at most.
const FIRST_LOOK: Duration = Duration::from_millis(250);
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// How a store is.
#[derive(Debug)]
pub(super) struct Health {
    is_well: AtomicBool,
    /// How often it has become unwell.
    outages: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    failures: u32,
    /// The first of these.
    first: Option<Instant>,
    since: Timestamp,
    last: Option<(Trouble, Timestamp)>,
}

impl Health {
    pub(super) fn new() -> Self {
        let state = State { failures: 0, first: None, since: Timestamp::now(), last: None };
        Self { is_well: AtomicBool::new(true), outages: AtomicU64::new(0), state: state.into() }
    }

    /// Whether it may be asked.
    pub(super) fn is_well(&self) -> bool {
        self.is_well.load(Relaxed)
    }

    /// It has answered.
    pub(super) fn succeeded(&self) {
        lock(&self.state).failures = 0;
    }

    /// It has not, and a moment is so long. True where it is not asked from now on, and somebody should
    /// look at it.
    pub(super) fn failed(&self, trouble: Trouble, moment: Duration, now: Instant) -> bool {
        let mut state = lock(&self.state);
        state.last = Some((trouble, Timestamp::now()));
        if !trouble.is_of_all() {
            return false;
        }
        if state.failures == 0 {
            state.first = Some(now);
        }
        state.failures += 1;
        let has_lasted = state.first.is_some_and(|first| now >= first + moment);
        let is_enough = state.failures >= FAILURES && has_lasted;
        is_enough && self.turn(&mut state, false)
    }

    /// A look at it beside the data path came to this. True where that changes anything.
    pub(super) fn looked(&self, result: Result<(), Trouble>) -> bool {
        let mut state = lock(&self.state);
        state.failures = 0;
        if let Err(trouble) = result {
            state.last = Some((trouble, Timestamp::now()));
        }
        self.turn(&mut state, result.is_ok())
    }

    fn turn(&self, state: &mut State, is_well: bool) -> bool {
        let has_changed = self.is_well.swap(is_well, Relaxed) != is_well;
        if has_changed {
            state.since = Timestamp::now();
            if !is_well {
                self.outages.fetch_add(1, Relaxed);
            }
        }
        has_changed
    }

    /// How often it has become unwell.
    pub(super) fn outages(&self) -> u64 {
        self.outages.load(Relaxed)
    }

    /// As the admin address shows it.
    pub(super) fn state(&self) -> Value {
        let State { since, last, .. } = &*lock(&self.state);
        json!({
            "state": if self.is_well() { "well" } else { "unwell" },
            "since": since.to_string(),
            "outages": self.outages(),
            "last_trouble": last.map(|(trouble, at)| {
                json!({ "kind": trouble.as_str(), "time": at.to_string() })
            }),
        })
    }
}

/// When to look next at a store that is not well.
pub(super) fn next_look(before: Option<Duration>) -> Duration {
    before.map_or(FIRST_LOOK, |before| (before * 2).min(LONGEST_LOOK))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(50);

    /// Fails once, a moment after the last time.
    fn fail(health: &Health, trouble: Trouble, now: &mut Instant) -> bool {
        *now += MOMENT;
        health.failed(trouble, MOMENT, *now)
    }

    #[test]
    fn a_store_that_fails_again_and_again_is_asked_no_more_until_a_look_finds_it_well() {
        let (health, mut now) = (Health::new(), Instant::now());
        let mut fail = |trouble| fail(&health, trouble, &mut now);
        assert!(!fail(Trouble::Timeout) && !fail(Trouble::Timeout));
        health.succeeded();
        assert!(!fail(Trouble::Timeout) && !fail(Trouble::Connection));
        assert!(health.is_well());
        assert!(fail(Trouble::Timeout), "the third in a row");
        assert!(!health.is_well() && !fail(Trouble::Timeout), "only once");
        assert!(!health.looked(Err(Trouble::Denied)) && !health.is_well());
        assert!(health.looked(Ok(())) && health.is_well());
        assert_eq!(health.outages(), 1);
        assert_eq!(health.state()["last_trouble"]["kind"], "denied");
    }

    #[test]
    fn one_moment_in_which_many_waited_is_none_of_several_failures() {
        let (health, now) = (Health::new(), Instant::now());
        assert!((0..20).all(|_| !health.failed(Trouble::Timeout, MOMENT, now)));
        assert!(health.is_well());
        assert!(health.failed(Trouble::Timeout, MOMENT, now + MOMENT), "it has lasted");
    }

    #[test]
    fn what_only_refuses_one_thing_is_asked_for_others() {
        let (health, mut now) = (Health::new(), Instant::now());
        for _ in 0..10 {
            assert!(!fail(&health, Trouble::Full, &mut now));
            assert!(!fail(&health, Trouble::ReadOnly, &mut now));
        }
        assert!(health.is_well());
    }

    #[test]
    fn it_is_looked_at_less_and_less_often() {
        let looks =
            std::iter::successors(Some(next_look(None)), |look| Some(next_look(Some(*look))));
        let looks: Vec<_> = looks.take(8).map(|look| look.as_millis()).collect();
        assert_eq!(looks, [250, 500, 1000, 2000, 4000, 5000, 5000, 5000]);
    }
}
