//! How the configuration was read anew, and when last with success.

use std::sync::Mutex;

use jiff::Timestamp;

use super::{Points, Value, catalog, lock};

/// How often the configuration was read anew. Its first reading is none of these.
#[derive(Debug)]
pub(super) struct Reloads(Mutex<State>);

#[derive(Clone, Copy, Debug)]
struct State {
    good: u64,
    bad: u64,
    is_last_good: bool,
    /// When the one in use was read.
    loaded: Timestamp,
}

impl Reloads {
    pub(super) fn new() -> Self {
        let loaded = Timestamp::now();
        Self(Mutex::new(State { good: 0, bad: 0, is_last_good: true, loaded }))
    }

    pub(super) fn good(&self, loaded: Timestamp) {
        let state = &mut *lock(&self.0);
        *state = State { good: state.good + 1, is_last_good: true, loaded, ..*state };
    }

    pub(super) fn bad(&self) {
        let state = &mut *lock(&self.0);
        *state = State { bad: state.bad + 1, is_last_good: false, ..*state };
    }

    pub(super) fn read(&self, points: &mut Points) {
        let State { good, bad, is_last_good, loaded } = *lock(&self.0);
        for (result, count) in [("good", good), ("bad", bad)] {
            points.add(&catalog::CONFIG_RELOADS, vec![result.to_owned()], Value::Counter(count));
        }
        let is_last_good = Value::Gauge(i64::from(is_last_good));
        points.add(&catalog::CONFIG_LAST_RELOAD_GOOD, Vec::new(), is_last_good);
        let loaded = Value::Gauge(loaded.as_second());
        points.add(&catalog::CONFIG_LOADED, Vec::new(), loaded);
    }
}
